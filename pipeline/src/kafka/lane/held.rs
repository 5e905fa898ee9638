//! What a lane holds: its partitions, and for each the watermark, the results that wait for it, and its standing.
//!
//! The standing is kept where a dead process leaves it, in the metadata of the committed offset. A process marks a
//! partition while it has work on its records and takes the mark away with the commit that answers the last of them;
//! whoever finds the mark of another process knows that it died at work. A death says nothing yet: machines are
//! taken away every day. After [`SUSPECT_AFTER`] of them without progress only a few of the partition's next records are
//! in work at a time ([`Care::Few`]), which costs little; where a process dies on those too, they go alone
//! ([`Care::Alone`]), each announced in the metadata before. One that ends the process [`DEADLY_AFTER`] times while it
//! was alone is deadly. So no innocent record is given up: deaths of processes that worked on many records only make
//! the next one careful.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use serde::{Deserialize, Serialize};

use super::{LaneConsumer, add_offset};
use crate::track::{Settled, Watermark};

/// Processes that may die at work on a partition, without a record committed between, before its next records are
/// taken with care.
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
    /// Lives as long as the assignment; the tickets of its records look at it.
    pub(super) lease: Arc<()>,
    pub(super) watermark: Watermark,
    pub(super) settled: BTreeMap<i64, Settled>,
    /// Records begun and not committed yet.
    pub(super) begun: usize,
    /// `None` until the first record is read and the committed offset is looked up.
    pub(super) standing: Option<Standing>,
    /// Whether a ticket of the partition was lost: then its mark stays, as after a death.
    pub(super) lost_a_ticket: bool,
    /// Whether a batch is on its way of which nobody knows yet whether it is committed: until then no offset of the partition may
    /// be committed, for it could be an earlier one.
    pub(super) in_doubt: bool,
    /// The lowest offset not read yet under this assignment.
    pub(super) unread: i64,
}

impl HeldPartition {
    /// A partition that was just assigned.
    pub(super) fn new(assignment: u64) -> Self {
        Self {
            assignment,
            lease: Arc::default(),
            watermark: Watermark::default(),
            settled: BTreeMap::new(),
            begun: 0,
            standing: None,
            lost_a_ticket: false,
            in_doubt: false,
            unread: i64::MIN,
        }
    }

    /// Whether the record at `offset` was not read before under this assignment; it is now. The offsets that are read only rise.
    pub(super) fn is_new(&mut self, offset: i64) -> bool {
        let is_new = offset >= self.unread;
        if is_new {
            self.unread = offset + 1;
        }
        is_new
    }
}

impl Held {
    pub(super) fn is_clear(&self) -> bool {
        self.partitions
            .values()
            .all(|held| held.watermark.is_clear() && held.settled.is_empty())
    }

    /// Whether a batch that left the partitions at these places may or may not be committed.
    pub(super) fn doubt(&mut self, batch: &[(i32, u64, Standing)], in_doubt: bool) {
        for (id, assignment, _) in batch {
            if let Some(partition) = self
                .partitions
                .get_mut(id)
                .filter(|p| p.assignment == *assignment)
            {
                partition.in_doubt = in_doubt;
            }
        }
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
            if !which(*id) || partition.lost_a_ticket || partition.in_doubt {
                continue;
            }
            // Taken, so that it is released once.
            let Some(standing) = partition.standing.take().filter(|standing| standing.marked) else {
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

/// How careful the next records of a partition are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Care {
    /// As many at a time as the lane may have in flight.
    #[default]
    None,
    /// A few at a time: see [`few`].
    Few,
    /// Each alone in the process.
    Alone,
}

/// Records of a partition in work at a time while they are taken with some care, of a lane that may have `limit` in
/// flight.
pub(super) fn few(limit: usize) -> usize {
    (limit / 4).max(1)
}

/// How a partition stands: where it was committed, and what is known of deaths at that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// The committed offset.
    pub(super) committed: i64,
    /// Whether the metadata of that offset name this process as one at work.
    pub(super) marked: bool,
    /// Processes that died at work on the partition since its last progress.
    deaths: u32,
    /// How the next `careful` records are taken.
    pub(super) care: Care,
    /// Further records that are taken with care.
    careful: u32,
    /// Processes that began the record at the committed offset alone.
    alone: u32,
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
    care: Care,
    #[serde(default)]
    careful: u32,
    #[serde(default)]
    alone: u32,
}

impl Standing {
    /// What `holder`, which may have `limit` records in flight, finds at a committed offset.
    pub(super) fn found(committed: i64, metadata: &str, holder: &str, limit: usize) -> Self {
        // Metadata of another program say nothing of deaths.
        let mark: Mark = serde_json::from_str(metadata).unwrap_or_default();
        let died = mark.holder.is_some_and(|of| of != holder);
        let mut found = Self {
            committed,
            marked: false,
            deaths: mark.deaths.saturating_add(u32::from(died)),
            care: mark.care,
            careful: mark.careful,
            alone: mark.alone,
            counted: false,
        };
        // What ended a process is among the records that it may have had in work at a time.
        let suspects = match found.care {
            Care::None if found.deaths >= SUSPECT_AFTER => Some((Care::Few, limit)),
            Care::Few if died => Some((Care::Alone, few(limit))),
            Care::None | Care::Few | Care::Alone => None,
        };
        if let Some((care, records)) = suspects {
            found.care = care;
            found.careful = count(records);
        }
        found
    }

    /// The metadata that say so, with the process that is at work on the partition.
    pub(super) fn metadata(&self, holder: Option<&str>) -> String {
        let mark = Mark {
            holder: holder.map(str::to_owned),
            deaths: self.deaths,
            care: self.care,
            careful: self.careful,
            alone: self.alone,
        };
        serde_json::to_string(&mark).unwrap_or_default()
    }

    /// Whether the record at the committed offset is not to be tried again.
    pub(super) fn is_deadly(&self) -> bool {
        self.alone >= DEADLY_AFTER && !self.counted
    }

    /// Once the metadata name this process.
    pub(super) fn marked(self) -> Self {
        Self { marked: true, ..self }
    }

    /// Before the record at the committed offset is begun alone.
    pub(super) fn begun_alone(self) -> Self {
        Self {
            alone: self.alone.saturating_add(1),
            counted: true,
            marked: true,
            ..self
        }
    }

    /// After `records` were committed; `at_work` tells whether more of the partition are begun.
    pub(super) fn advanced(self, committed: i64, records: usize, at_work: bool) -> Self {
        let careful = self.careful.saturating_sub(count(records));
        Self {
            committed,
            marked: at_work,
            deaths: 0,
            care: if careful > 0 { self.care } else { Care::None },
            careful,
            alone: 0,
            counted: false,
        }
    }

    /// When this process lets go of the partition alive: it was no death.
    fn given_back(self) -> Self {
        Self {
            alone: self.alone - u32::from(self.counted),
            counted: false,
            marked: false,
            ..self
        }
    }
}

fn count(records: usize) -> u32 {
    u32::try_from(records).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64;

    fn found(at: i64, metadata: &str, holder: &str) -> Standing {
        Standing::found(at, metadata, holder, LIMIT)
    }

    /// What worker `by` finds after the one before it died at work.
    fn taken_over(standing: Standing, by: u32) -> Standing {
        let mark = standing.metadata(Some(&format!("worker {}", by - 1)));
        found(standing.committed, &mark, &format!("worker {by}"))
    }

    /// Worker after worker dies on the record at offset 7: two with many in work, one with a few, two with it alone;
    /// the sixth does not begin it.
    #[test]
    fn a_record_that_kills_every_process_is_deadly_at_the_sixth_attempt() {
        let mut standing = found(7, "", "worker 1");
        let cares = [Care::None, Care::None, Care::Few, Care::Alone, Care::Alone];
        for (worker, care) in (2..).zip(cares) {
            assert!(!standing.is_deadly(), "worker {worker}");
            assert_eq!(standing.care, care, "worker {worker}");
            if care == Care::Alone {
                standing = standing.begun_alone();
            }
            standing = taken_over(standing, worker);
        }
        assert!(standing.care == Care::Alone && standing.is_deadly());
        let after = standing.advanced(8, 1, false);
        assert!(!after.is_deadly() && after.care == Care::Alone);
        assert_eq!(after.advanced(23, 15, false).care, Care::None);
    }

    #[test]
    fn processes_that_end_in_order_leave_no_suspicion() {
        let mut standing = found(7, "", "a");
        for worker in ["b", "c", "d", "e", "f"] {
            let mark = standing.marked().given_back().metadata(None);
            standing = found(7, &mark, worker);
            assert_eq!(standing.care, Care::None);
        }
    }

    /// Who dies after the last record was answered leaves no mark; who dies at work leaves one.
    #[test]
    fn a_process_that_dies_idle_leaves_no_suspicion() {
        let at_work = found(7, "", "a").marked();
        for (more, deaths) in [(false, 0), (true, 1)] {
            let standing = at_work.advanced(8, 1, more);
            let mark = standing.metadata(standing.marked.then_some("a"));
            assert_eq!(found(8, &mark, "b").deaths, deaths);
        }
    }

    #[test]
    fn a_record_is_new_once() {
        let mut partition = HeldPartition::new(1);
        let new = [4, 5, 5, 7, 4, 6, 8].map(|offset| partition.is_new(offset));
        assert_eq!(new, [true, true, false, true, false, false, true]);
    }

    #[test]
    fn a_batch_of_an_earlier_assignment_puts_nothing_in_doubt() {
        let mut held = Held::default();
        held.partitions.insert(3, HeldPartition::new(1));
        let batch = |assignment| [(3, assignment, Standing::default())];
        held.doubt(&batch(9), true);
        assert!(!held.partitions[&3].in_doubt);
        held.doubt(&batch(1), true);
        assert!(held.partitions[&3].in_doubt);
        held.doubt(&batch(1), false);
        assert!(!held.partitions[&3].in_doubt);
    }

    /// Two deaths cost some care for as many records as were in work; nothing of it is left after them.
    #[test]
    fn progress_ends_the_care() {
        let suspected = taken_over(taken_over(found(7, "", "worker 1"), 2), 3);
        assert_eq!(suspected.care, Care::Few);
        let halfway = suspected.advanced(39, 32, true);
        assert_eq!(halfway.care, Care::Few);
        assert_eq!(halfway.advanced(71, 32, true).care, Care::None);
        assert_eq!(taken_over(halfway, 4).care, Care::Alone);
    }

    #[test]
    fn a_deadly_record_behind_innocent_ones_is_reached_one_at_a_time() {
        let mut standing = found(5, "", "worker 1");
        for worker in 2..=4 {
            standing = taken_over(standing, worker);
        }
        // The two records before it pass alone; the deaths are forgotten, the care is not.
        for offset in [6, 7] {
            assert!(standing.care == Care::Alone && !standing.is_deadly());
            standing = standing.begun_alone().advanced(offset, 1, false);
        }
        standing = taken_over(standing.begun_alone(), 5);
        standing = taken_over(standing.begun_alone(), 6);
        assert!(standing.is_deadly());
    }

    #[test]
    fn metadata_of_another_program_are_no_deaths() {
        for metadata in ["", "consumer-7 was here", "{\"version\":3}", "[]"] {
            assert_eq!(
                found(3, metadata, "a"),
                Standing {
                    committed: 3,
                    ..Standing::default()
                }
            );
        }
    }
}
