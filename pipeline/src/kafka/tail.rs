//! Reads whole topics from the beginning, outside any group; committed records only, but where it is said otherwise.
//!
//! What a run's state is made of can always be read again: the collector and every worker's list of screens are
//! rebuilt this way after any crash.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::de::DeserializeOwned;

use super::topics::Topic;
use super::{BROKER_TIMEOUT, KafkaFailure, KafkaSettings};
use crate::events::Origin;
use crate::schemas::{Schemas, Unreadable, UnreadableAt};

/// How long nothing may be heard of a small topic.
const SMALL_SILENCE: Duration = Duration::from_secs(10);

/// One committed record.
#[derive(Debug, Clone)]
pub struct TailRecord {
    /// Where it was read.
    pub topic: Topic,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// CloudEvents attribute `ce_id`; empty where there is none.
    pub id: String,
    /// Of a record on the retries topic: its headers, which say why it is there and until when.
    pub headers: Vec<(String, String)>,
    /// The value; empty for a tombstone.
    pub value: Vec<u8>,
    /// When it was written, in milliseconds since 1970 UTC; 0 where the broker does not say.
    pub time_ms: i64,
    /// How to read it.
    pub schemas: Schemas,
}

impl TailRecord {
    /// A header that was kept.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map(|(_, value)| value.as_str())
    }

    /// The event in it.
    pub fn read<E: DeserializeOwned>(&self) -> Result<E, Unreadable> {
        self.schemas.read(self.topic, &self.value)
    }

    /// What is wrong with it, and where it is.
    pub fn unreadable(&self, source: Unreadable) -> UnreadableAt {
        UnreadableAt {
            origin: Origin {
                key: String::new(),
                topic: self.topic.suffix().to_owned(),
                partition: self.partition,
                offset: self.offset,
            },
            source,
        }
    }
}

/// What a poll brought.
#[derive(Debug)]
pub enum Polled {
    /// A record.
    Record(TailRecord),
    /// This partition is read to its end, for now.
    AtEnd(i32),
    /// Nothing new within the time given.
    Nothing,
}

/// Where to begin in a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is kept.
    #[default]
    Beginning,
    /// At the first record written at this time or later, in milliseconds since 1970 UTC.
    Time(i64),
    /// At these offsets by partition; in other partitions nothing is read.
    Offsets(BTreeMap<i32, i64>),
}

/// A reader of whole topics. Blocking.
pub struct Tail {
    consumer: BaseConsumer,
    settings: KafkaSettings,
    partitions: usize,
}

impl Tail {
    /// Starts at the beginning of every partition of `topics`.
    pub fn open(kafka: &KafkaSettings, topics: &[Topic]) -> Result<Self, KafkaFailure> {
        Self::open_at(kafka, topics, &Start::Beginning)
    }

    /// Starts at `start` in every partition of `topics`.
    pub fn open_at(kafka: &KafkaSettings, topics: &[Topic], start: &Start) -> Result<Self, KafkaFailure> {
        Self::assigned(kafka, kafka.consumer_config(), topics, start)
    }

    /// Starts at the beginning of every partition of `topic`, and reads records of open and aborted transactions too.
    pub fn open_uncommitted(kafka: &KafkaSettings, topic: Topic) -> Result<Self, KafkaFailure> {
        let mut config = kafka.consumer_config();
        config.set("isolation.level", "read_uncommitted");
        Self::assigned(kafka, config, &[topic], &Start::Beginning)
    }

    fn assigned(
        kafka: &KafkaSettings,
        mut config: ClientConfig,
        topics: &[Topic],
        start: &Start,
    ) -> Result<Self, KafkaFailure> {
        // librdkafka wants a group name even where none is joined.
        config.set("group.id", format!("{}-tail-unused", kafka.prefix));
        let consumer: BaseConsumer = config.create().map_err(kafka.failed("creating a reader"))?;
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            let name = topic.name(&kafka.prefix);
            for partition in super::partitions(consumer.client(), &name, kafka)? {
                let offset = match start {
                    Start::Beginning => Offset::Beginning,
                    Start::Time(ms) => Offset::Offset(*ms),
                    Start::Offsets(offsets) => match offsets.get(&partition) {
                        Some(offset) => Offset::Offset(*offset),
                        None => continue,
                    },
                };
                assignment
                    .add_partition_offset(&name, partition, offset)
                    .map_err(kafka.failed("choosing where to read from"))?;
            }
        }
        if matches!(start, Start::Time(_)) {
            // Where nothing was written since, the answer is the end.
            assignment = consumer
                .offsets_for_times(assignment, BROKER_TIMEOUT)
                .map_err(kafka.failed("finding the offsets of a time"))?;
        }
        let partitions = assignment.count();
        consumer
            .assign(&assignment)
            .map_err(kafka.failed("assigning partitions"))?;
        Ok(Self {
            consumer,
            settings: kafka.clone(),
            partitions,
        })
    }

    /// The next record, waiting up to `timeout`.
    pub fn poll(&mut self, timeout: Duration) -> Result<Polled, KafkaFailure> {
        match self.consumer.poll(timeout) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => {
                let Some(topic) = Topic::from_name(&self.settings.prefix, message.topic()) else {
                    return Ok(Polled::Nothing);
                };
                Ok(Polled::Record(TailRecord {
                    topic,
                    partition: message.partition(),
                    offset: message.offset(),
                    id: id(&message).unwrap_or_default(),
                    headers: match topic {
                        Topic::Retries => headers(&message),
                        _ => Vec::new(),
                    },
                    value: message.payload().unwrap_or_default().to_vec(),
                    time_ms: message.timestamp().to_millis().unwrap_or_default(),
                    schemas: self.settings.schemas.clone(),
                }))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::AtEnd(partition)),
            Some(Err(error)) if super::lane::is_fatal(&error) => Err(self.settings.failed("reading")(error)),
            Some(Err(error)) => {
                tracing::warn!(%error, "reading; the client tries again");
                Ok(Polled::Nothing)
            }
        }
    }

    /// Hands every record that is there now to `take`, until it says stop; `silence` is how long nothing may be heard. For
    /// readers of one topic: an end is told by its partition alone.
    pub fn read_to_end<E: From<KafkaFailure>>(
        &mut self,
        silence: Duration,
        mut take: impl FnMut(&TailRecord) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut ended = HashSet::new();
        while ended.len() < self.partitions {
            match self.poll(silence)? {
                Polled::Record(record) => {
                    if take(&record)?.is_break() {
                        break;
                    }
                }
                Polled::AtEnd(partition) => {
                    ended.insert(partition);
                }
                Polled::Nothing => {
                    let bootstrap = self.settings.bootstrap.clone();
                    return Err(KafkaFailure::Silent { bootstrap }.into());
                }
            }
        }
        Ok(())
    }
}

fn id(message: &BorrowedMessage<'_>) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == "ce_id")?;
    Some(String::from_utf8_lossy(header.value?).into_owned())
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, String)> {
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    headers
        .map(|header| (header.key.to_owned(), text(header.value)))
        .collect()
}

/// Hands every committed record of a topic that is there now to `take`, from `start` on, until it says stop. Blocking.
pub fn read_to_end<E: From<KafkaFailure>>(
    kafka: &KafkaSettings,
    topic: Topic,
    start: &Start,
    take: impl FnMut(&TailRecord) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    read_while_heard(kafka, topic, start, BROKER_TIMEOUT, take)
}

/// Between two looks at how far a topic is committed.
const LOOK: Duration = Duration::from_millis(50);

/// Every event of a small topic that is there now, in order, each with its offset; what cannot be read is passed over. The ends
/// of transactions that are open now are waited for: what stands behind the record of a process that died in one is committed,
/// but cannot be read before the broker has ended it. Blocking.
pub fn read_events<T: DeserializeOwned>(
    kafka: &KafkaSettings,
    topic: Topic,
) -> Result<Vec<(i64, T)>, KafkaFailure> {
    let mut events = Vec::new();
    wait_for_transactions(kafka, topic)?;
    read_while_heard(kafka, topic, &Start::Beginning, SMALL_SILENCE, |record| {
        match record.read() {
            Ok(event) => events.push((record.offset, event)),
            Err(error) => {
                let message = crate::error::chain(&record.unreadable(error));
                tracing::warn!(message, "a record is passed over");
            }
        }
        Ok::<_, KafkaFailure>(ControlFlow::Continue(()))
    })?;
    Ok(events)
}

/// Waits until every record that is there now can be read, or never will.
fn wait_for_transactions(kafka: &KafkaSettings, topic: Topic) -> Result<(), KafkaFailure> {
    let name = topic.name(&kafka.prefix);
    // A client is told the ends of what it may read.
    let ends_of = |isolation| -> Result<_, KafkaFailure> {
        let mut config = kafka.consumer_config();
        config.set("isolation.level", isolation);
        let client: BaseConsumer = config.create().map_err(kafka.failed("creating a reader"))?;
        let ends = super::ends(client.client(), &name, kafka)?;
        Ok((client, ends))
    };
    let (_, written) = ends_of("read_uncommitted")?;
    let (client, mut committed) = ends_of("read_committed")?;
    let give_up = Instant::now() + BROKER_TIMEOUT;
    while written.iter().any(|(id, end)| committed.get(id) < Some(end)) {
        if Instant::now() >= give_up {
            return Err(KafkaFailure::OpenTransaction { topic: name });
        }
        std::thread::sleep(LOOK);
        committed = super::ends(client.client(), &name, kafka)?;
    }
    Ok(())
}

fn read_while_heard<E: From<KafkaFailure>>(
    kafka: &KafkaSettings,
    topic: Topic,
    start: &Start,
    silence: Duration,
    take: impl FnMut(&TailRecord) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    Tail::open_at(kafka, &[topic], start)?.read_to_end(silence, take)
}
