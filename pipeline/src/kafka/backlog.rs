//! Backlog: how many records of a topic a role has not answered yet.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::topics::Topic;
use super::{BROKER_TIMEOUT, KafkaFailure, KafkaSettings};

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

    /// Records between what is committed and the end, about: the markers of transactions count as records. Blocking.
    ///
    /// # Errors
    /// Kafka cannot be asked.
    pub fn records(&self) -> Result<u64, KafkaFailure> {
        let partitions = super::partitions(self.consumer.client(), &self.name, &self.settings)?;
        let mut asked = TopicPartitionList::new();
        for partition in &partitions {
            asked.add_partition(&self.name, *partition);
        }
        let committed = self
            .consumer
            .committed_offsets(asked, BROKER_TIMEOUT)
            .map_err(self.settings.failed("reading committed offsets"))?;
        let mut records = 0;
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
            records += u64::try_from(end - from).unwrap_or(0);
        }
        Ok(records)
    }
}
