//! Backlog: how many records of a topic a role has answered, and how many it has not yet.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use super::topics::Topic;
use super::{BROKER_TIMEOUT, Delivery, KafkaFailure, KafkaSettings};

/// How far a role is with its topic, in records; markers between transactions count as records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Standing {
    /// Answered since the topic began.
    pub answered: u64,
    /// Not answered yet.
    pub waiting: u64,
}

/// Looks at one topic and one group of readers.
pub struct Backlog {
    consumer: BaseConsumer,
    name: String,
    settings: KafkaSettings,
}

impl Backlog {
    /// Of `topic`, as read by `role`.
    pub fn open(kafka: &KafkaSettings, topic: Topic, role: &str) -> Result<Self, KafkaFailure> {
        let mut config = kafka.consumer_config();
        config.set("group.id", kafka.group(role));
        Ok(Self {
            consumer: config.create().map_err(kafka.failed("creating a reader"))?,
            name: topic.name(&kafka.prefix),
            settings: kafka.clone(),
        })
    }

    /// How far the role is now. Blocking.
    ///
    /// # Errors
    /// Kafka cannot be asked.
    pub fn look(&self) -> Result<Standing, KafkaFailure> {
        let partitions = super::partitions(self.consumer.client(), &self.name, &self.settings)?;
        let mut asked = TopicPartitionList::new();
        for partition in &partitions {
            asked.add_partition(&self.name, *partition);
        }
        let committed = self
            .consumer
            .committed_offsets(asked, BROKER_TIMEOUT)
            .map_err(self.settings.failed("reading committed offsets"))?;
        // What is published in a transaction ends with its marker, in every partition.
        let marker = match self.settings.delivery {
            Delivery::ExactlyOnce => 1,
            Delivery::AtLeastOnce => 0,
        };
        let mut standing = Standing::default();
        for partition in partitions {
            let (first, end) = self
                .consumer
                .fetch_watermarks(&self.name, partition, BROKER_TIMEOUT)
                .map_err(self.settings.failed("reading where a topic ends"))?;
            let entry = committed.find_partition(&self.name, partition);
            let from = match entry.map(|entry| entry.offset()) {
                Some(Offset::Offset(offset)) => offset.max(first),
                _ => first,
            };
            standing.answered += u64::try_from(from).unwrap_or(0);
            standing.waiting += u64::try_from(end - from - marker).unwrap_or(0);
        }
        Ok(standing)
    }
}
