//! Reads whole topics from the beginning, committed records only, outside any group.
//!
//! What a run's state is made of can always be read again: the collector and every worker's list of screens are
//! rebuilt this way after any crash.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::topics::Topic;
use super::{BROKER_TIMEOUT, KafkaFailure, KafkaSettings};

/// One committed record.
#[derive(Debug)]
pub struct TailRecord {
    /// Where it was read.
    pub topic: Topic,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// CloudEvents attribute `ce_id`; empty where there is none.
    pub id: String,
    /// The value; empty for a tombstone.
    pub value: Vec<u8>,
}

/// What a poll brought.
#[derive(Debug)]
pub enum Polled {
    /// A record.
    Record(TailRecord),
    /// One partition is read to its end, for now.
    AtEnd,
    /// Nothing new within the time given.
    Nothing,
}

/// A reader of whole topics. Blocking.
pub struct Tail {
    consumer: BaseConsumer,
    prefix: String,
    bootstrap: String,
    partitions: usize,
}

impl Tail {
    /// Starts at the beginning of every partition of `topics`.
    pub fn open(kafka: &KafkaSettings, topics: &[Topic]) -> Result<Self, KafkaFailure> {
        let call = |doing| {
            move |source| KafkaFailure::Call {
                doing,
                bootstrap: kafka.bootstrap.clone(),
                source,
            }
        };
        let mut config = kafka.consumer_config();
        // librdkafka wants a group name even where none is joined.
        config.set("group.id", format!("{}-tail-unused", kafka.prefix));
        let consumer: BaseConsumer = config.create().map_err(call("creating a reader"))?;
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            let name = topic.name(&kafka.prefix);
            let metadata = consumer
                .fetch_metadata(Some(&name), BROKER_TIMEOUT)
                .map_err(call("reading a topic's metadata"))?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                assignment
                    .add_partition_offset(&name, partition.id(), Offset::Beginning)
                    .map_err(call("choosing where to read from"))?;
            }
        }
        consumer
            .assign(&assignment)
            .map_err(call("assigning partitions"))?;
        Ok(Self {
            consumer,
            prefix: kafka.prefix.clone(),
            bootstrap: kafka.bootstrap.clone(),
            partitions: assignment.count(),
        })
    }

    /// How many partitions are read: the first [`Polled::AtEnd`] of each tells that all that was there was read.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// The next record, waiting up to `timeout`.
    pub fn poll(&mut self, timeout: Duration) -> Result<Polled, KafkaFailure> {
        match self.consumer.poll(timeout) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => {
                let Some(topic) = Topic::from_name(&self.prefix, message.topic()) else {
                    return Ok(Polled::Nothing);
                };
                Ok(Polled::Record(TailRecord {
                    topic,
                    partition: message.partition(),
                    offset: message.offset(),
                    id: id(&message).unwrap_or_default(),
                    value: message.payload().unwrap_or_default().to_vec(),
                }))
            }
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Polled::AtEnd),
            Some(Err(error)) if super::lane::is_fatal(&error) => Err(self.call("reading", error)),
            Some(Err(error)) => {
                tracing::warn!(%error, "reading; the client tries again");
                Ok(Polled::Nothing)
            }
        }
    }

    fn call(&self, doing: &'static str, source: KafkaError) -> KafkaFailure {
        KafkaFailure::Call {
            doing,
            bootstrap: self.bootstrap.clone(),
            source,
        }
    }
}

fn id(message: &BorrowedMessage<'_>) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == "ce_id")?;
    Some(String::from_utf8_lossy(header.value?).into_owned())
}
