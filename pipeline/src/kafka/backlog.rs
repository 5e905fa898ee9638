//! Backlog: how many records of a topic a role has answered, and how many it has not yet.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::tail::{Start, TailRecord, read_to_end};
use super::topics::Topic;
use super::{BROKER_TIMEOUT, Delivery, KafkaFailure, KafkaSettings};

/// Where a role had come to in its topic, by partition.
#[derive(Debug, Clone, Default)]
pub struct Reached(BTreeMap<i32, i64>);

/// How far a role is with its topic, in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Answered, since the topic began or since another look.
    pub answered: u64,
    /// Not answered yet.
    pub waiting: u64,
}

/// Looks at one topic and one group of readers.
pub struct Backlog {
    consumer: BaseConsumer,
    topic: Topic,
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
            topic,
            name: topic.name(&kafka.prefix),
            settings: kafka.clone(),
        })
    }

    /// How far the role is in each partition, by offsets: markers between transactions count as records. Blocking; a few
    /// requests, however many partitions there are.
    ///
    /// # Errors
    /// Kafka cannot be asked.
    pub fn partitions(&self) -> Result<BTreeMap<i32, Standing>, KafkaFailure> {
        let partitions = super::partitions(self.consumer.client(), &self.name, &self.settings)?;
        let mut asked = TopicPartitionList::new();
        for partition in &partitions {
            asked.add_partition(&self.name, *partition);
        }
        let committed = self
            .consumer
            .committed_offsets(asked, BROKER_TIMEOUT)
            .map_err(self.settings.failed("reading committed offsets"))?;
        let ends = self.offsets(&partitions, Offset::End)?;
        let firsts = self.offsets(&partitions, Offset::Beginning)?;
        // What is published in a transaction ends with its marker, in every partition.
        let marker = match self.settings.delivery {
            Delivery::ExactlyOnce => 1,
            Delivery::AtLeastOnce => 0,
        };
        let standing = |id: i32| {
            let (first, end) = (firsts.get(&id).copied(), ends.get(&id).copied());
            let (first, end) = (first.unwrap_or(0), end.unwrap_or(0));
            let entry = committed.find_partition(&self.name, id);
            let from = match entry.map(|entry| entry.offset()) {
                Some(Offset::Offset(offset)) => offset.max(first),
                _ => first,
            };
            Standing {
                answered: u64::try_from(from).unwrap_or(0),
                waiting: u64::try_from(end - from - marker).unwrap_or(0),
            }
        };
        Ok(partitions.into_iter().map(|id| (id, standing(id))).collect())
    }

    /// Hands every record that waits now to `take`. Blocking.
    ///
    /// # Errors
    /// Kafka cannot be read.
    pub fn read(&self, take: impl FnMut(&TailRecord)) -> Result<(), KafkaFailure> {
        self.since(&mut Reached::default(), take).map(drop)
    }

    /// How many records the role has answered since it had `reached` so far, and how many wait now; these are handed to `take`.
    /// Blocking.
    ///
    /// # Errors
    /// Kafka cannot be read.
    pub fn since(
        &self,
        reached: &mut Reached,
        mut take: impl FnMut(&TailRecord),
    ) -> Result<Standing, KafkaFailure> {
        let (mut now, mut from) = (BTreeMap::new(), BTreeMap::new());
        for (partition, standing) in self.partitions()? {
            let offset = i64::try_from(standing.answered).unwrap_or(i64::MAX);
            let before = reached.0.get(&partition).copied().unwrap_or(offset);
            if before < offset || standing.waiting > 0 {
                from.insert(partition, before.min(offset));
            }
            now.insert(partition, offset);
        }
        let mut found = Standing::default();
        if !from.is_empty() {
            read_to_end(&self.settings, self.topic, &Start::Offsets(from), |record| {
                if now.get(&record.partition).is_some_and(|now| record.offset < *now) {
                    found.answered += 1;
                } else {
                    found.waiting += 1;
                    take(record);
                }
                Ok::<_, KafkaFailure>(ControlFlow::Continue(()))
            })?;
        }
        reached.0 = now;
        Ok(found)
    }

    /// Where partitions begin or end, by one request to each broker.
    fn offsets(&self, partitions: &[i32], which: Offset) -> Result<BTreeMap<i32, i64>, KafkaFailure> {
        let ask = || {
            let mut asked = TopicPartitionList::new();
            for partition in partitions {
                // Kafka takes both words for times.
                asked.add_partition_offset(&self.name, *partition, which)?;
            }
            let found = self.consumer.offsets_for_times(asked, BROKER_TIMEOUT)?;
            let mut offsets = BTreeMap::new();
            for entry in found.elements() {
                entry.error()?;
                if let Offset::Offset(offset) = entry.offset() {
                    offsets.insert(entry.partition(), offset);
                }
            }
            Ok::<_, KafkaError>(offsets)
        };
        super::once_led(ask).map_err(self.settings.failed("reading where a topic begins and ends"))
    }
}
