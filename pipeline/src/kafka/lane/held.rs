//! What a lane holds: its partitions, and for each the watermark, the results that wait for it, and its standing.
//!
//! The standing is kept where a dead process leaves it, in the metadata of the committed offset. A process marks its
//! partitions when it begins to work on them and takes the mark away when it gives them back; whoever finds the mark
//! of another process knows that it died. After [`SUSPECT_AFTER`] such deaths without progress the next records of the
//! partition are worked on one at a time, each announced in the metadata before; one that ends the process
//! [`DEADLY_AFTER`] times while it was alone is deadly. So no innocent record is given up: deaths of processes that
//! worked on many records only make the next one careful.

use std::collections::{BTreeMap, HashMap};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use serde::{Deserialize, Serialize};

use super::{LaneConsumer, add_offset};
use crate::track::{Settled, Watermark};

/// Processes that may die on a partition, without a record committed between, before its records go one at a time.
pub(super) const SUSPECT_AFTER: u32 = 2;
/// Processes that may die with a record alone in them before it is given up.
pub(super) const DEADLY_AFTER: u32 = 2;

/// The partitions this process holds, each with its watermark and the settled results that wait for it.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) partitions: HashMap<i32, HeldPartition>,
    pub(super) assigned_once: bool,
}

#[derive(Debug)]
pub(super) struct HeldPartition {
    pub(super) assignment: u64,
    pub(super) watermark: Watermark,
    pub(super) settled: BTreeMap<i64, Settled>,
    /// `None` until the first record is read and the partition is marked.
    pub(super) standing: Option<Standing>,
    /// Whether a ticket of the partition was lost: then its mark stays, as after a death.
    pub(super) lost_a_ticket: bool,
}

impl Held {
    pub(super) fn is_clear(&self) -> bool {
        self.partitions
            .values()
            .all(|held| held.watermark.is_clear() && held.settled.is_empty())
    }

    /// Takes this process's mark from partitions it gives back. A failure costs the next owner some care.
    pub(super) fn release(
        &mut self,
        topic: &str,
        consumer: &LaneConsumer,
        mode: CommitMode,
        which: impl Fn(i32) -> bool,
    ) {
        let mut list = TopicPartitionList::new();
        for (id, partition) in &mut self.partitions {
            if !which(*id) || partition.lost_a_ticket {
                continue;
            }
            // Taken, so that it is released once.
            let Some(standing) = partition.standing.take() else {
                continue;
            };
            let metadata = standing.given_back().metadata(None);
            if let Err(error) = add_offset(&mut list, topic, *id, standing.committed, &metadata) {
                tracing::debug!(%error, "a mark cannot be taken away");
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, mode)
        {
            tracing::debug!(%error, "marks were not taken away");
        }
    }
}

/// How a partition stands: where it was committed, and what is known of deaths at that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// The committed offset.
    pub(super) committed: i64,
    /// Processes that died holding the partition since its last progress.
    pub(super) deaths: u32,
    /// Processes that began the record at the committed offset alone.
    pub(super) alone: u32,
    /// Further records that go one at a time.
    pub(super) careful: u32,
    /// Whether this process has counted itself in `alone`.
    counted: bool,
}

/// A standing as the offset's metadata have it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(default)]
    deaths: u32,
    #[serde(default)]
    alone: u32,
    #[serde(default)]
    careful: u32,
}

impl Standing {
    /// What `holder` finds at a committed offset.
    pub(super) fn found(committed: i64, metadata: &str, holder: &str) -> Self {
        // Metadata of another program say nothing of deaths.
        let mark: Mark = serde_json::from_str(metadata).unwrap_or_default();
        let died = mark.holder.is_some_and(|of| of != holder);
        Self {
            committed,
            deaths: mark.deaths.saturating_add(u32::from(died)),
            alone: mark.alone,
            careful: mark.careful,
            counted: false,
        }
    }

    /// The metadata that say so.
    pub(super) fn metadata(&self, holder: Option<&str>) -> String {
        let mark = Mark {
            holder: holder.map(str::to_owned),
            deaths: self.deaths,
            alone: self.alone,
            careful: self.careful,
        };
        serde_json::to_string(&mark).unwrap_or_default()
    }

    /// Whether the next record must be alone in the process.
    pub(super) fn is_careful(&self) -> bool {
        self.deaths >= SUSPECT_AFTER || self.alone > 0 || self.careful > 0
    }

    /// Whether the record at the committed offset is not to be tried again.
    pub(super) fn is_deadly(&self) -> bool {
        self.alone >= DEADLY_AFTER && !self.counted
    }

    /// Before the record at the committed offset is begun alone.
    pub(super) fn begun_alone(self) -> Self {
        Self {
            alone: self.alone.saturating_add(1),
            counted: true,
            ..self
        }
    }

    /// After `records` were committed; where deaths were counted, as many as a process has in flight stay careful.
    pub(super) fn advanced(self, committed: i64, records: usize, in_flight: usize) -> Self {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let careful = if self.deaths >= SUSPECT_AFTER {
            count(in_flight)
        } else {
            self.careful
        };
        Self {
            committed,
            deaths: 0,
            alone: 0,
            careful: careful.saturating_sub(count(records)),
            counted: false,
        }
    }

    /// When this process lets go of the partition alive: it was no death.
    fn given_back(self) -> Self {
        Self {
            alone: self.alone - u32::from(self.counted),
            counted: false,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_over(standing: Standing, by: u32) -> Standing {
        let mark = standing.metadata(Some(&format!("worker {}", by - 1)));
        Standing::found(standing.committed, &mark, &format!("worker {by}"))
    }

    /// Worker after worker dies on the record at offset 7: two with others in flight, two with it alone; the fifth
    /// does not begin it.
    #[test]
    fn a_record_that_kills_every_process_is_deadly_at_the_fifth_attempt() {
        let mut standing = Standing::found(7, "", "worker 1");
        for worker in 2..=5 {
            assert!(!standing.is_deadly(), "worker {worker}");
            assert_eq!(standing.is_careful(), worker > 3, "worker {worker}");
            if standing.is_careful() {
                standing = standing.begun_alone();
            }
            standing = taken_over(standing, worker);
        }
        assert!(standing.is_careful() && standing.is_deadly());
        let after = standing.advanced(8, 1, 64);
        assert!(!after.is_deadly() && after.is_careful());
        assert!(!after.advanced(71, 63, 64).is_careful());
    }

    #[test]
    fn processes_that_end_in_order_leave_no_suspicion() {
        let mut standing = Standing::found(7, "", "a");
        for worker in ["b", "c", "d", "e", "f"] {
            let mark = standing.given_back().metadata(None);
            standing = Standing::found(7, &mark, worker);
            assert!(!standing.is_careful());
        }
    }

    #[test]
    fn a_deadly_record_behind_innocent_ones_is_reached_one_at_a_time() {
        let mut standing = Standing::found(5, "", "worker 1");
        standing = taken_over(standing, 2);
        standing = taken_over(standing, 3);
        // The two records before it pass alone; the deaths are forgotten, the care is not.
        for offset in [6, 7] {
            assert!(standing.is_careful() && !standing.is_deadly());
            standing = standing.begun_alone().advanced(offset, 1, 64);
        }
        standing = taken_over(standing.begun_alone(), 4);
        standing = taken_over(standing.begun_alone(), 5);
        assert!(standing.is_deadly());
    }

    #[test]
    fn metadata_of_another_program_are_no_deaths() {
        for metadata in ["", "consumer-7 was here", "{\"version\":3}", "[]"] {
            assert_eq!(
                Standing::found(3, metadata, "a"),
                Standing {
                    committed: 3,
                    ..Standing::default()
                }
            );
        }
    }
}
