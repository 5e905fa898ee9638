//! Room: plates are planned as the workers get through with what is planned, not all at once, and each task goes where the
//! fewest wait.
//!
//! So the tasks topic stays short, whatever is announced: a run that is paused has few tasks to put aside, and what a plate
//! is planned with is as new as can be. Partitions are read by one worker each, so a key's hash would give one worker twice
//! as many of a plate's wells as another, and a slow worker as many as a fast one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use wellspring_workloads::words::Barcode;

use crate::error::{FailureClass, Stage, StageError};
use crate::kafka::backlog::Backlog;
use crate::kafka::topics::{Topic, Urgency};
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};

/// Tasks that wait for a lane's workers at most, before a further plate is planned: about ten plates of 384 wells, a
/// thousand for each partition.
const MOST_WAITING: u64 = 32_768;
/// Between two looks at a backlog.
const LOOK: Duration = Duration::from_millis(200);

/// How long a partition that was added gets no tasks: the producer hears of it later, and refuses one it does not know.
const UNHEARD: Duration = Duration::from_secs(15);

/// Room in a lane for further tasks.
pub(super) struct Room {
    backlog: Backlog,
    tasks: Topic,
    /// Tasks that wait in each partition: when it was looked at, and those placed since.
    waiting: BTreeMap<i32, u64>,
    /// When partitions were seen first that were not there at the first look.
    added: BTreeMap<i32, Instant>,
    /// When it was looked at last.
    looked: Option<Instant>,
}

impl Room {
    /// Room in this lane.
    ///
    /// # Errors
    /// No client can be made.
    pub(super) fn open(kafka: &KafkaSettings, lane: Urgency) -> Result<Self, KafkaFailure> {
        Ok(Self {
            backlog: Backlog::open(kafka, lane.tasks(), lane.worker())?,
            tasks: lane.tasks(),
            waiting: BTreeMap::new(),
            added: BTreeMap::new(),
            looked: None,
        })
    }

    /// Whether there is room now. Blocking, for as long as Kafka takes to say.
    ///
    /// # Errors
    /// Kafka cannot be asked.
    pub(super) fn is_there(&mut self) -> Result<bool, StageError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            let found = self.backlog.partitions();
            let found =
                found.map_err(|error| StageError::external(Stage::Plan, FailureClass::Network, error))?;
            let now = Instant::now();
            if self.looked.is_some() {
                let new = found.keys().filter(|id| !self.waiting.contains_key(*id));
                self.added.extend(new.map(|id| (*id, now)));
            }
            self.added.retain(|_, seen| seen.elapsed() < UNHEARD);
            self.waiting = found.into_iter().map(|(id, of)| (id, of.waiting)).collect();
            self.looked = Some(now);
        }
        Ok(self.waiting.values().sum::<u64>() < MOST_WAITING)
    }

    /// Takes room for the tasks among these records: those of one key, which follow one another, go together to the partition
    /// where the fewest wait. Before the first look at the backlog their key decides.
    pub(super) fn place(&mut self, records: &mut [OutRecord], plate: &Barcode) {
        // Among equals another one comes first for every plate: planners do not know of each other.
        let first = crc32fast::hash(plate.as_str().as_bytes());
        let partitions = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX).max(1);
        let rank = |id: i32| id.unsigned_abs().wrapping_add(first) % partitions;
        let mut shortest: BinaryHeap<_> = self
            .waiting
            .iter()
            .filter(|(id, _)| !self.added.contains_key(id))
            .map(|(id, waiting)| Reverse((*waiting, rank(*id), *id)))
            .collect();
        for together in records.chunk_by_mut(|one, next| one.topic == next.topic && one.key == next.key) {
            if together.first().is_none_or(|record| record.topic != self.tasks) {
                continue;
            }
            let Some(Reverse((waiting, rank, id))) = shortest.pop() else {
                return;
            };
            let waiting = waiting.saturating_add(together.len() as u64);
            for record in together {
                record.partition = Some(id);
            }
            shortest.push(Reverse((waiting, rank, id)));
            self.waiting.insert(id, waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wells_go_where_the_fewest_tasks_wait_and_stay_together() {
        let kafka = KafkaSettings::new("127.0.0.1:1", "test", "room");
        let mut room = Room::open(&kafka, Urgency::Live).unwrap();
        room.waiting = [(0, 40), (1, 0), (2, 12), (3, 0)].into();
        let task = |well: u32| OutRecord::of_bytes(Topic::Tasks, format!("P/{well}"), "", "", Vec::new());
        let mut records: Vec<OutRecord> = (0..10).flat_map(|well| (0..4).map(move |_| task(well))).collect();
        records.push(OutRecord::of_bytes(Topic::Status, "run", "", "", Vec::new()));
        let plate: Barcode = "P".parse().unwrap();
        room.place(&mut records, &plate);
        assert_eq!(records.pop().unwrap().partition, None);
        assert!(
            records
                .chunks(4)
                .all(|well| well.iter().all(|task| task.partition == well[0].partition))
        );
        // 52 of them waited, and 40 came: the long one has none of them, the others are level.
        assert_eq!(room.waiting[&0], 40);
        let others = [1, 2, 3].map(|id| room.waiting[&id]);
        assert!(
            others.iter().all(|waiting| (16..=20).contains(waiting)),
            "{others:?}"
        );
        assert_eq!(others.iter().sum::<u64>(), 52);

        // A partition that was just added is not known to the producer yet.
        room.waiting.insert(4, 0);
        room.added.insert(4, Instant::now());
        room.place(&mut records, &plate);
        assert_eq!(room.waiting[&4], 0);
    }
}
