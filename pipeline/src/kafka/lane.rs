//! One topic, read as a group member, with what became of each record published exactly once.
//!
//! Records enter from Kafka and leave as [`Tracked`] work on a bounded channel; settled tickets come back, and
//! their records go to Kafka in transactions that carry the offsets they answer. Results that finish out of order are
//! held until every earlier record of their partition is settled (the [`Watermark`]), and what is in flight or held
//! is bounded by one limit. Two threads: one never stops polling, one publishes. What fails stops the lane; nothing
//! past the failed record is committed, so it is done again by whoever reads the partition next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::Semaphore;

use super::producer::{Committed, TransactionalProducer};
use super::topics::Topic;
use super::{KafkaFailure, KafkaSettings, OutRecord};
use crate::error::{FailureClass, Stage, StageError};
use crate::failpoint;
use crate::track::{Outcome, Position, Settled, Ticket, Tracked, Watermark};

/// How long settled records wait for company before they are published.
const LINGER: Duration = Duration::from_millis(100);
/// Records in one transaction at most, so that none outlives the transaction timeout.
const MAX_BATCH: usize = 1_000;

/// What a lane reads and how much it may hold.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// The topic to read.
    pub topic: Topic,
    /// The role: names the group (`<prefix>-<role>`) and the transactional id.
    pub role: &'static str,
    /// Records in flight or held at most.
    pub in_flight: usize,
    /// Whether to stop when every assigned partition is read to its end and settled.
    pub until_drained: bool,
}

/// A record as read.
#[derive(Debug)]
pub struct Inbound {
    /// The value; empty for a tombstone.
    pub value: Vec<u8>,
}

/// The partitions this process holds, each with its watermark and the settled results that wait for it.
#[derive(Debug, Default)]
struct Held {
    partitions: HashMap<i32, HeldPartition>,
    assigned_once: bool,
}

#[derive(Debug)]
struct HeldPartition {
    assignment: u64,
    watermark: Watermark,
    settled: BTreeMap<i64, Settled>,
}

impl Held {
    fn is_clear(&self) -> bool {
        self.partitions
            .values()
            .all(|held| held.watermark.is_clear() && held.settled.is_empty())
    }
}

struct Shared {
    // Held locked while a transaction commits: a revocation waits for it, so that no result is committed for a
    // partition that has moved on.
    held: Mutex<Held>,
    stop: AtomicBool,
    assignments: AtomicU64,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        // A poisoned lock means a panic elsewhere, which stops the lane; the map itself is still whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LaneContext {
    shared: Arc<Shared>,
}

impl ClientContext for LaneContext {}

impl ConsumerContext for LaneContext {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut held = self.shared.held();
        match rebalance {
            Rebalance::Assign(partitions) => {
                held.assigned_once = true;
                for partition in partitions.elements() {
                    let assignment = self.shared.assignments.fetch_add(1, Ordering::Relaxed);
                    held.partitions.insert(
                        partition.partition(),
                        HeldPartition {
                            assignment,
                            watermark: Watermark::default(),
                            settled: BTreeMap::new(),
                        },
                    );
                }
            }
            Rebalance::Revoke(partitions) => {
                for partition in partitions.elements() {
                    held.partitions.remove(&partition.partition());
                }
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance failed; the group tries again"),
        }
    }
}

/// A running lane.
pub struct Lane {
    shared: Arc<Shared>,
    source: JoinHandle<Result<(), StageError>>,
    publisher: JoinHandle<Result<(), StageError>>,
}

impl Lane {
    /// Starts reading. The receiver ends when the lane stops.
    pub fn open(
        kafka: &KafkaSettings,
        settings: &LaneSettings,
    ) -> Result<(Lane, async_channel::Receiver<Tracked<Inbound>>), KafkaFailure> {
        let shared = Arc::new(Shared {
            held: Mutex::default(),
            stop: AtomicBool::new(false),
            assignments: AtomicU64::new(1),
        });
        let call = |doing| {
            move |source| KafkaFailure::Call {
                doing,
                bootstrap: kafka.bootstrap.clone(),
                source,
            }
        };
        let topic = settings.topic.name(&kafka.prefix);
        let mut config = kafka.consumer_config();
        config
            .set("group.id", format!("{}-{}", kafka.prefix, settings.role))
            .set("partition.assignment.strategy", "cooperative-sticky")
            // A dead worker's partitions move within this time.
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000");
        let consumer: Arc<BaseConsumer<LaneContext>> = Arc::new(
            config
                .create_with_context(LaneContext {
                    shared: shared.clone(),
                })
                .map_err(call("creating a consumer"))?,
        );
        consumer.subscribe(&[&topic]).map_err(call("subscribing"))?;
        let producer = TransactionalProducer::open(kafka, settings.role)?;

        let limit = settings.in_flight.max(1);
        let (settle, settled) = sync_channel(limit);
        // A short hand-over queue: what waits here is read but not begun.
        let (work, received) = async_channel::bounded(limit.min(16));
        let source = Source {
            consumer: consumer.clone(),
            shared: shared.clone(),
            in_flight: Arc::new(Semaphore::new(limit)),
            settle,
            work,
            topic: topic.as_str().into(),
            until_drained: settings.until_drained,
            paused: false,
            resume_at: limit.div_ceil(4),
        };
        let publisher = Publisher {
            role: settings.role,
            consumer,
            producer,
            shared: shared.clone(),
            topic,
            settled,
            failure: None,
        };
        let name = |part: &str| format!("{}-{part}", settings.role);
        let source = std::thread::Builder::new()
            .name(name("source"))
            .spawn(move || source.run())?;
        let publisher = std::thread::Builder::new()
            .name(name("publish"))
            .spawn(move || publisher.run())?;
        Ok((
            Lane {
                shared,
                source,
                publisher,
            },
            received,
        ))
    }

    /// A switch that stops the lane: reading ends, what is in flight is finished and committed.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let shared = self.shared.clone();
        move || shared.stop.store(true, Ordering::Relaxed)
    }

    /// Whether the lane has ended by itself: drained, or failed.
    pub fn ended(&self) -> bool {
        self.source.is_finished() && self.publisher.is_finished()
    }

    /// Waits for both threads. Blocking.
    pub fn join(self) -> Result<(), StageError> {
        let source = joined(self.source, Stage::Source);
        let publisher = joined(self.publisher, Stage::Publish);
        publisher.and(source)
    }
}

fn joined(thread: JoinHandle<Result<(), StageError>>, stage: Stage) -> Result<(), StageError> {
    thread.join().unwrap_or_else(|_| {
        Err(StageError::internal(
            stage,
            "the thread panicked; its log has the place",
        ))
    })
}

struct Source {
    consumer: Arc<BaseConsumer<LaneContext>>,
    shared: Arc<Shared>,
    in_flight: Arc<Semaphore>,
    settle: SyncSender<Settled>,
    work: async_channel::Sender<Tracked<Inbound>>,
    topic: Arc<str>,
    until_drained: bool,
    paused: bool,
    resume_at: usize,
}

impl Source {
    fn run(mut self) -> Result<(), StageError> {
        let mut at_end = HashSet::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            // One permit per record; without one, partitions pause while polling goes on, so that the group never
            // takes slow work for a dead worker.
            let Ok(permit) = self.in_flight.clone().try_acquire_owned() else {
                self.poll_paused()?;
                continue;
            };
            if self.paused {
                // Resuming drops what the client had read ahead, so it waits until there is room for a good share.
                if self.in_flight.available_permits() + 1 < self.resume_at {
                    drop(permit);
                    self.poll_paused()?;
                    continue;
                }
                self.resume()?;
            }
            match self.consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end.insert(partition);
                }
                Some(Err(error)) if is_fatal(&error) => return Err(unreadable(error)),
                Some(Err(error)) => tracing::warn!(%error, "reading; the client tries again"),
                Some(Ok(message)) => {
                    at_end.remove(&message.partition());
                    let position = {
                        let mut held = self.shared.held();
                        // Not held: revoked between the fetch and now; its new owner reads it.
                        let Some(partition) = held.partitions.get_mut(&message.partition()) else {
                            continue;
                        };
                        partition.watermark.begin(message.offset());
                        Position {
                            partition: message.partition(),
                            assignment: partition.assignment,
                            offset: message.offset(),
                        }
                    };
                    let ticket = Ticket::new(position, self.topic.clone(), permit, self.settle.clone());
                    let value = message.payload().unwrap_or_default().to_vec();
                    drop(message);
                    if !self.hand_over(Tracked {
                        value: Inbound { value },
                        ticket,
                    })? {
                        break;
                    }
                }
            }
            if self.until_drained && self.drained(&at_end) {
                tracing::info!(topic = %self.topic, "drained");
                break;
            }
        }
        Ok(())
    }

    /// Gives the work to the first stage, polling while it is busy. `false` when the stages have stopped.
    fn hand_over(&mut self, mut work: Tracked<Inbound>) -> Result<bool, StageError> {
        loop {
            match self.work.try_send(work) {
                Ok(()) => return Ok(true),
                Err(async_channel::TrySendError::Closed(_)) => return Ok(false),
                Err(async_channel::TrySendError::Full(back)) => work = back,
            }
            self.poll_paused()?;
        }
    }

    /// Polls with every partition paused: the group sees a live member, and nothing more is read.
    fn poll_paused(&mut self) -> Result<(), StageError> {
        let assignment = self.consumer.assignment().map_err(unreadable)?;
        self.consumer.pause(&assignment).map_err(unreadable)?;
        self.paused = true;
        match self.consumer.poll(Duration::from_millis(20)) {
            // A partition assigned in this very poll was not paused yet: its record is read again.
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                drop(message);
                self.consumer
                    .seek(
                        &self.topic,
                        partition,
                        Offset::Offset(offset),
                        super::BROKER_TIMEOUT,
                    )
                    .map_err(unreadable)
            }
            Some(Err(error)) if is_fatal(&error) => Err(unreadable(error)),
            _ => Ok(()),
        }
    }

    fn resume(&mut self) -> Result<(), StageError> {
        let assignment = self.consumer.assignment().map_err(unreadable)?;
        self.consumer.resume(&assignment).map_err(unreadable)?;
        self.paused = false;
        Ok(())
    }

    fn drained(&self, at_end: &HashSet<i32>) -> bool {
        let held = self.shared.held();
        held.assigned_once && held.partitions.keys().all(|p| at_end.contains(p)) && held.is_clear()
    }
}

fn unreadable(error: KafkaError) -> StageError {
    StageError::external(Stage::Source, FailureClass::Network, error)
}

pub(super) fn is_fatal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            rdkafka::error::RDKafkaErrorCode::Fatal
                | rdkafka::error::RDKafkaErrorCode::TopicAuthorizationFailed
                | rdkafka::error::RDKafkaErrorCode::GroupAuthorizationFailed
        )
    )
}

struct Publisher {
    role: &'static str,
    consumer: Arc<BaseConsumer<LaneContext>>,
    producer: TransactionalProducer,
    shared: Arc<Shared>,
    topic: String,
    settled: Receiver<Settled>,
    failure: Option<StageError>,
}

impl Publisher {
    fn run(mut self) -> Result<(), StageError> {
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
        self.failure.map_or(Ok(()), Err)
    }

    /// Takes what was settled, for as long as the linger lasts after the first. `false` when no more can come.
    fn gather(&mut self) -> bool {
        let Ok(first) = self.settled.recv() else {
            return false;
        };
        self.take(first);
        let until = Instant::now() + LINGER;
        for _ in 1..MAX_BATCH {
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
            Outcome::Stop(error) => self.fail(error),
            Outcome::Dropped => self.fail(StageError::internal(
                Stage::Publish,
                format!(
                    "the record at offset {} of partition {} was lost between two stages; it stays uncommitted",
                    position.offset, position.partition
                ),
            )),
        }
    }

    fn fail(&mut self, error: StageError) {
        self.shared.stop.store(true, Ordering::Relaxed);
        tracing::debug!(%error, "lane stops");
        // The first failure is the cause; what follows it is the stop.
        self.failure.get_or_insert(error);
    }

    /// Publishes every result that has no unsettled record before it.
    fn publish_ready(&mut self) -> Result<(), StageError> {
        let internal =
            |error: KafkaFailure| StageError::external(Stage::Publish, FailureClass::Network, error);
        loop {
            let mut held = self.shared.held();
            let mut offsets = TopicPartitionList::new();
            let mut done: Vec<(i32, i64)> = Vec::new();
            for (id, partition) in &mut held.partitions {
                for offset in partition.settled.keys() {
                    partition.watermark.settle(*offset);
                }
                let Some(next) = partition.watermark.committable() else {
                    continue;
                };
                let ready = partition.settled.range(..next).map(|(offset, _)| (*id, *offset));
                let before = done.len();
                done.extend(ready);
                if done.len() > before {
                    offsets
                        .add_partition_offset(&self.topic, *id, Offset::Offset(next))
                        .map_err(|error| StageError::internal(Stage::Publish, error))?;
                }
            }
            if done.is_empty() {
                return Ok(());
            }
            let records: Vec<&OutRecord> = done
                .iter()
                .filter_map(|(id, offset)| held.partitions.get(id)?.settled.get(offset))
                .flat_map(|settled| match &settled.outcome {
                    Outcome::Publish(records) => records.as_slice(),
                    Outcome::Stop(_) | Outcome::Dropped => &[],
                })
                .collect();
            let metadata = self.consumer.group_metadata().ok_or_else(|| {
                StageError::internal(
                    Stage::Publish,
                    "the consumer has no group, which cannot be for a lane",
                )
            })?;
            let committed = self
                .producer
                .publish(records, Some((&offsets, &metadata)))
                .map_err(internal)?;
            match committed {
                Committed::Yes => {
                    for (id, offset) in done {
                        if let Some(partition) = held.partitions.get_mut(&id) {
                            partition.settled.remove(&offset);
                        }
                        failpoint::pass(self.role, "committed");
                    }
                    return Ok(());
                }
                Committed::Aborted => {
                    // The lock is free between two tries, so that a rebalance, the usual reason, can go through.
                    drop(held);
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }
}
