//! One topic, read as a group member, with what became of each record published exactly once.
//!
//! Records enter from Kafka and leave as [`Tracked`] work on a bounded channel; settled tickets come back, and
//! their records go to Kafka in transactions that carry the offsets they answer. Results that finish out of order are
//! held until every earlier record of their partition is settled (`track::Watermark`), and what is
//! in flight or held is bounded by one limit. Two threads: `source` never stops polling, `publisher` publishes.
//! What fails stops the lane; nothing past the failed record is committed, so it is done again by whoever reads the
//! partition next. A record that ends the process itself, again and again, is recognised (`held::Standing`) and
//! handed out as [`Inbound::deadly`].

mod company;
mod held;
mod publisher;
mod source;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::Semaphore;

pub use self::company::Company;
use self::held::{Held, HeldPartition};
use self::publisher::Publisher;
use self::source::Source;
use super::producer::BatchProducer;
use super::topics::Topic;
use super::{KafkaFailure, KafkaSettings};
use crate::error::{Stage, StageError};
use crate::failures::RetryPolicy;
use crate::track::{LaneFacts, Tracked};

/// A dead worker's partitions move within this time: the least that Kafka's brokers allow by default.
const SESSION_TIMEOUT_MS: &str = "6000";

/// What a lane reads and how much it may hold.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// The topic to read.
    pub topic: Topic,
    /// The role: names the group (`<prefix>-<role>`) and the transactional id.
    pub role: &'static str,
    /// Records in flight or held at most.
    pub in_flight: usize,
    /// The same of one partition. The others go on where one has that many.
    pub per_partition: Option<usize>,
    /// The lanes that share the stages behind this one.
    pub company: Company,
    /// Whether to stop when every assigned partition is read to its end and settled: here, and in the lanes beside it.
    pub until_drained: Option<Drained>,
}

/// Lanes that end together: each once all of them are drained.
#[derive(Debug, Clone)]
pub struct Drained {
    lanes: Arc<[AtomicBool]>,
    own: usize,
}

impl Drained {
    /// One for each of `count` lanes.
    pub fn together(count: usize) -> impl Iterator<Item = Self> {
        let lanes: Arc<[AtomicBool]> = (0..count).map(|_| AtomicBool::new(false)).collect();
        (0..count).map(move |own| Self {
            lanes: lanes.clone(),
            own,
        })
    }

    /// Whether all are, where this one is so `now`.
    fn all(&self, now: bool) -> bool {
        if let Some(own) = self.lanes.get(self.own) {
            own.store(now, Ordering::Relaxed);
        }
        self.lanes.iter().all(|lane| lane.load(Ordering::Relaxed))
    }
}

/// A record as read.
#[derive(Debug, Clone, Default)]
pub struct Inbound {
    /// The key; empty where there is none.
    pub key: String,
    /// The value; empty for a tombstone.
    pub value: Vec<u8>,
    /// Headers with a text value, in order.
    pub headers: Vec<(String, String)>,
    /// Whether nothing else is in work in the process, because the record may be what ended others. It is not to be kept
    /// waiting: a process that ends meanwhile would be counted against it.
    pub alone: bool,
    /// Whether the record ended the processes that worked on it, the last of them while it was alone in them.
    pub deadly: bool,
}

impl Inbound {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Records on their way to the first stage.
pub type Work = async_channel::Receiver<Tracked<Arc<Inbound>>>;

struct Shared {
    // Held locked while a transaction commits: a revocation waits for it, so that no result is committed for a
    // partition that has moved on.
    held: Mutex<Held>,
    stop: AtomicBool,
    assignments: AtomicU64,
    polls: AtomicU64,
    in_flight: Arc<Semaphore>,
    limit: usize,
    topic: Arc<str>,
    /// Names this process in the offsets it commits.
    holder: String,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        // A poisoned lock means a panic elsewhere, which stops the lane; the map itself is still whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

struct LaneContext {
    shared: Arc<Shared>,
}

type LaneConsumer = BaseConsumer<LaneContext>;

impl ClientContext for LaneContext {}

impl ConsumerContext for LaneContext {
    fn pre_rebalance(&self, consumer: &LaneConsumer, rebalance: &Rebalance<'_>) {
        let mut held = self.shared.held();
        match rebalance {
            Rebalance::Assign(partitions) => {
                held.assigned_once = true;
                for partition in partitions.elements() {
                    let assignment = self.shared.assignments.fetch_add(1, Ordering::Relaxed);
                    let fresh = HeldPartition::new(assignment);
                    held.partitions.insert(partition.partition(), fresh);
                }
            }
            Rebalance::Revoke(partitions) => {
                let revoked: HashSet<i32> = partitions.elements().iter().map(|p| p.partition()).collect();
                if !consumer.assignment_lost() {
                    // Sent before the group hears that the partitions are free.
                    held.release(
                        &self.shared.topic,
                        consumer,
                        rdkafka::consumer::CommitMode::Async,
                        |id| revoked.contains(&id),
                    );
                }
                held.partitions.retain(|id, _| !revoked.contains(id));
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
    /// Whether each of the two threads has ended without an error.
    whole: [Arc<AtomicBool>; 2],
}

impl Lane {
    /// Starts reading. The receiver ends when the lane stops.
    pub fn open(kafka: &KafkaSettings, settings: &LaneSettings) -> Result<(Lane, Work), KafkaFailure> {
        let limit = settings.in_flight.max(1);
        let topic = settings.topic.name(&kafka.prefix);
        let shared = Arc::new(Shared {
            held: Mutex::default(),
            stop: AtomicBool::new(false),
            assignments: AtomicU64::new(1),
            polls: AtomicU64::new(0),
            in_flight: Arc::new(Semaphore::new(limit)),
            limit,
            topic: topic.as_str().into(),
            // The same name on two lives of an instance would hide the death between them.
            holder: format!(
                "{}/{}/{}",
                kafka.instance,
                std::process::id(),
                crate::clock::now_ms()
            ),
        });
        let mut config = kafka.consumer_config();
        config
            .set("group.id", kafka.group(settings.role))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_TIMEOUT_MS)
            .set("heartbeat.interval.ms", "1500");
        let context = LaneContext {
            shared: shared.clone(),
        };
        let consumer: Arc<LaneConsumer> = Arc::new(
            config
                .create_with_context(context)
                .map_err(kafka.failed("creating a consumer"))?,
        );
        consumer
            .subscribe(&[&topic])
            .map_err(kafka.failed("subscribing"))?;
        let producer = BatchProducer::open(kafka, settings.role)?;

        let (settle, settled) = sync_channel(limit);
        // A short hand-over queue: what waits here is read but not begun.
        let (work, received) = async_channel::bounded(limit.min(16));
        let facts = LaneFacts {
            role: settings.role,
            topic: shared.topic.clone(),
            worker: kafka.instance.clone(),
            retries: RetryPolicy {
                delays: kafka.retry_delays.clone(),
            },
            of: settings.topic,
            schemas: kafka.schemas.clone(),
        };
        let source = Source {
            consumer: consumer.clone(),
            seat: settings.company.join(shared.in_flight.clone(), limit),
            shared: shared.clone(),
            facts: Arc::new(facts),
            settle,
            work,
            until_drained: settings.until_drained.clone(),
            without_since: None,
            paused: false,
            // What is read ahead of a full partition is kept, so little is lost.
            resume_at: settings.per_partition.map_or(limit.div_ceil(4), |_| 1),
            at_end: HashSet::new(),
            read: VecDeque::new(),
            per_partition: settings.per_partition.unwrap_or(usize::MAX),
            crowded: BTreeMap::new(),
            waiting: BTreeMap::new(),
            assignments: 0,
        };
        let publisher = Publisher {
            role: settings.role,
            consumer,
            producer,
            shared: shared.clone(),
            settled,
            failure: None,
        };
        let whole: [Arc<AtomicBool>; 2] = Default::default();
        let name = |part: &str| format!("{}-{part}", settings.role);
        let source = std::thread::Builder::new()
            .name(name("source"))
            .spawn(telling(&whole[0], move || source.run()))?;
        let publisher = std::thread::Builder::new()
            .name(name("publish"))
            .spawn(telling(&whole[1], move || publisher.run()))?;
        Ok((
            Lane {
                shared,
                source,
                publisher,
                whole,
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

    /// Whether the lane has ended because something failed.
    pub fn failed(&self) -> bool {
        self.ended() && !self.whole.iter().all(|whole| whole.load(Ordering::Relaxed))
    }

    /// How often partitions were assigned to this lane so far.
    pub fn assignments(&self) -> u64 {
        self.shared.assignments.load(Ordering::Relaxed) - 1
    }

    /// How often the lane has asked Kafka for records so far. It never stops doing so, or the group would take slow
    /// work for a dead worker.
    pub fn polls(&self) -> u64 {
        self.shared.polls.load(Ordering::Relaxed)
    }

    /// Waits for both threads. Blocking.
    pub fn join(self) -> Result<(), StageError> {
        let source = joined(self.source, Stage::Source);
        let publisher = joined(self.publisher, Stage::Publish);
        publisher.and(source)
    }
}

/// `work`, and then whether it came to a good end. A panic says nothing, and so is none.
fn telling(
    whole: &Arc<AtomicBool>,
    work: impl FnOnce() -> Result<(), StageError> + Send + 'static,
) -> impl FnOnce() -> Result<(), StageError> + Send + 'static {
    let whole = whole.clone();
    move || {
        let ended = work();
        whole.store(ended.is_ok(), Ordering::Relaxed);
        ended
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

/// An entry with metadata for a commit.
fn add_offset(
    list: &mut TopicPartitionList,
    topic: &str,
    partition: i32,
    offset: i64,
    metadata: &str,
) -> Result<(), KafkaError> {
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    if let Some(mut entry) = list.find_partition(topic, partition) {
        entry.set_metadata(metadata);
    }
    Ok(())
}

/// How long a look-up of committed offsets may take.
const LOOK_UP: Duration = Duration::from_secs(20);

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
