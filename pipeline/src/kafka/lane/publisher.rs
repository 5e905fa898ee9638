//! The writing half of a lane: what became of records goes to Kafka, with the offsets it answers.
//!
//! Settled tickets enter; batches of records leave, in the order of each partition. An aborted batch is tried again
//! for as long as the partitions are held. After a lost connection in mid-commit nobody knows whether the batch is
//! in: the group's committed offsets tell, since they were in the same transaction. What fails: a stage that asks to
//! stop, a ticket lost between two stages, a broker that refuses for good.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::held::Standing;
use super::{LOOK_UP, LaneConsumer, Shared, add_offset};
use crate::error::{FailureClass, Stage, StageError};
use crate::failpoint;
use crate::kafka::producer::{BatchProducer, Committed};
use crate::kafka::{KafkaFailure, OutRecord};
use crate::track::{Outcome, Settled};

/// How long settled records wait for company before they are published.
const LINGER: Duration = Duration::from_millis(100);
/// Records in one transaction at most, so that none outlives the transaction timeout.
const MAX_BATCH: usize = 1_000;
/// Between two tries; the lock on the partitions is free meanwhile, so that a rebalance can go through.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a lane that was told to stop goes on trying to publish.
const LAST_TRIES: Duration = Duration::from_secs(30);

pub(super) struct Publisher {
    pub(super) role: &'static str,
    pub(super) consumer: Arc<LaneConsumer>,
    pub(super) producer: BatchProducer,
    pub(super) shared: Arc<Shared>,
    pub(super) settled: Receiver<Settled>,
    pub(super) failure: Option<StageError>,
}

/// A batch: which records it answers and where that leaves their partitions.
struct Batch {
    done: Vec<(i32, i64)>,
    advanced: Vec<(i32, u64, Standing)>,
    offsets: TopicPartitionList,
}

impl Publisher {
    pub(super) fn run(mut self) -> Result<(), StageError> {
        loop {
            let more = self.gather();
            if let Err(error) = self.publish_ready() {
                self.fail(error);
                break;
            }
            if !more {
                break;
            }
        }
        // The end of a process in good order is no death.
        let (topic, consumer) = (self.shared.topic.clone(), self.consumer.clone());
        self.shared
            .held()
            .release(&topic, &consumer, CommitMode::Sync, |_| true);
        self.failure.map_or(Ok(()), Err)
    }

    /// Takes what was settled, for as long as the linger lasts after the first. `false` when no more can come.
    fn gather(&mut self) -> bool {
        let Ok(first) = self.settled.recv() else {
            return false;
        };
        self.take(first);
        let until = Instant::now() + LINGER;
        for taken in 1..MAX_BATCH {
            // Nothing else is in flight, so no company can come.
            if self.shared.in_flight.available_permits() + taken >= self.shared.limit {
                return true;
            }
            match self
                .settled
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(settled) => self.take(settled),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    fn take(&mut self, settled: Settled) {
        let position = settled.position;
        match settled.outcome {
            Outcome::Publish(_) => {
                let mut held = self.shared.held();
                if let Some(partition) = held
                    .partitions
                    .get_mut(&position.partition)
                    .filter(|partition| partition.assignment == position.assignment)
                {
                    partition.settled.insert(position.offset, settled);
                }
                // Otherwise the partition moved on: its new owner does the record again.
            }
            Outcome::GivenBack => {}
            Outcome::Stop(error) => self.fail(error),
            Outcome::Dropped => {
                // A stage panicked.
                if let Some(partition) = self.shared.held().partitions.get_mut(&position.partition) {
                    partition.lost_a_ticket = true;
                }
                self.fail(StageError::internal(
                    Stage::Publish,
                    format!(
                        "the record at offset {} of partition {} was lost between two stages; it stays uncommitted",
                        position.offset, position.partition
                    ),
                ));
            }
        }
    }

    fn fail(&mut self, error: StageError) {
        self.shared.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        tracing::debug!(%error, "lane stops");
        // The first failure is the cause; what follows it is the stop.
        self.failure.get_or_insert(error);
    }

    /// Publishes every result that has no unsettled record before it.
    fn publish_ready(&mut self) -> Result<(), StageError> {
        let mut first_stopped_try = None;
        loop {
            let shared = self.shared.clone();
            let mut held = shared.held();
            let Some(batch) = self
                .batch(&mut held)
                .map_err(|e| StageError::internal(Stage::Publish, e))?
            else {
                return Ok(());
            };
            let records: Vec<&OutRecord> = batch
                .done
                .iter()
                .filter_map(|(id, offset)| held.partitions.get(id)?.settled.get(offset))
                .flat_map(|settled| match &settled.outcome {
                    Outcome::Publish(records) => records.as_slice(),
                    Outcome::GivenBack | Outcome::Stop(_) | Outcome::Dropped => &[],
                })
                .collect();
            let published = self
                .producer
                .publish_answering(records, &batch.offsets, &self.consumer)
                .map_err(refused)?;
            if published == Committed::Yes {
                self.advance(&mut held, batch);
                failpoint::pass(self.role, "committed");
                return Ok(());
            }
            let in_doubt = published == Committed::Unknown;
            if in_doubt {
                held.doubt(&batch.advanced, true);
            }
            drop(held);
            std::thread::sleep(PAUSE);
            if in_doubt {
                let sent = self.find_out(&batch)?;
                let mut held = shared.held();
                held.doubt(&batch.advanced, false);
                if sent {
                    self.advance(&mut held, batch);
                    return Ok(());
                }
            }
            self.may_go_on(&mut first_stopped_try)?;
        }
    }

    /// What is ready in every partition; `None` when nothing is.
    fn batch(&self, held: &mut super::Held) -> Result<Option<Batch>, KafkaError> {
        let mut batch = Batch {
            done: Vec::new(),
            advanced: Vec::new(),
            offsets: TopicPartitionList::new(),
        };
        for (id, partition) in &mut held.partitions {
            for offset in partition.settled.keys() {
                partition.watermark.settle(*offset);
            }
            let Some(next) = partition.watermark.committable() else {
                continue;
            };
            let before = batch.done.len();
            let ready = partition.settled.range(..next).map(|(offset, _)| (*id, *offset));
            batch.done.extend(ready);
            let records = batch.done.len() - before;
            if records == 0 {
                continue;
            }
            let standing = partition.standing.unwrap_or_default();
            let standing = standing.advanced(next, records, partition.begun > records);
            let metadata = standing.metadata(standing.marked.then_some(&*self.shared.holder));
            add_offset(&mut batch.offsets, &self.shared.topic, *id, next, &metadata)?;
            batch.advanced.push((*id, partition.assignment, standing));
        }
        Ok((!batch.done.is_empty()).then_some(batch))
    }

    fn advance(&self, held: &mut super::Held, batch: Batch) {
        let current: Vec<_> = batch
            .advanced
            .into_iter()
            .filter(|(id, assignment, _)| {
                held.partitions
                    .get(id)
                    .is_some_and(|p| p.assignment == *assignment)
            })
            .collect();
        for (id, _, standing) in current {
            if let Some(partition) = held.partitions.get_mut(&id) {
                // Settled results below the committed offset are out; their share of the limit goes back.
                let later = partition.settled.split_off(&standing.committed);
                partition.begun = partition.begun.saturating_sub(partition.settled.len());
                partition.settled = later;
                // Others may have been begun while it was not known whether this batch is in.
                partition.standing = Some(match partition.begun {
                    0 => standing,
                    _ => standing.marked(),
                });
            }
        }
    }

    /// Makes the producer anew, which ends whatever the last one left open, and asks the group whether the batch is
    /// in. Nobody else can have committed for a partition that is held still.
    fn find_out(&mut self, batch: &Batch) -> Result<bool, StageError> {
        let topic = self.shared.topic.clone();
        let mut first_stopped_try = None;
        loop {
            if self.producer.reopen().map_err(refused)? {
                let mut asked = TopicPartitionList::new();
                for (id, assignment, _) in &batch.advanced {
                    let held = self.shared.held();
                    if held
                        .partitions
                        .get(id)
                        .is_some_and(|p| p.assignment == *assignment)
                    {
                        asked.add_partition(&topic, *id);
                    }
                }
                if asked.count() == 0 {
                    return Ok(false);
                }
                match self.consumer.committed_offsets(asked, LOOK_UP) {
                    Ok(found) => {
                        return Ok(batch.advanced.iter().any(|(id, _, standing)| {
                            let entry = found.find_partition(&topic, *id);
                            entry.is_some_and(|entry| entry.offset() == Offset::Offset(standing.committed))
                        }));
                    }
                    Err(error) => tracing::warn!(%error, "committed offsets cannot be read; trying again"),
                }
            }
            self.may_go_on(&mut first_stopped_try)?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Kafka may be away for as long as it likes, unless somebody wants this process to end.
    fn may_go_on(&self, first_stopped_try: &mut Option<Instant>) -> Result<(), StageError> {
        if self.shared.stopping() && first_stopped_try.get_or_insert_with(Instant::now).elapsed() > LAST_TRIES
        {
            return Err(StageError::external(
                Stage::Publish,
                FailureClass::Network,
                "Kafka took no results while the process was to stop; they stay uncommitted and are done again",
            ));
        }
        Ok(())
    }
}

fn refused(error: KafkaFailure) -> StageError {
    StageError::external(Stage::Publish, FailureClass::Network, error)
}
