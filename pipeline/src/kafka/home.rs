//! Home: the partition that a key leads to.
//!
//! Clients choose partitions differently: librdkafka by CRC-32 of the key, Java's by murmur2, some in turns. What must be
//! read by one member of a group is therefore sent home by whoever finds it elsewhere, with [`Home::of`] for the place.
//! Fails where Kafka does.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::topics::Topic;
use super::{KafkaFailure, KafkaSettings};

/// How Wellspring's producers choose partitions, which is librdkafka's usual way: CRC-32 of the key, modulo their number.
pub(super) const PARTITIONER: &str = "consistent_random";

/// How old the number of partitions may be. They are added by hand, and seldom.
const LOOK: Duration = Duration::from_secs(5);

/// Where the records of a topic are at home.
pub struct Home {
    consumer: BaseConsumer,
    name: String,
    settings: KafkaSettings,
    /// How many partitions there were, and when.
    partitions: Option<(u32, Instant)>,
}

impl Home {
    /// On this topic. Nothing is asked yet.
    ///
    /// # Errors
    /// No client can be made.
    pub fn open(kafka: &KafkaSettings, topic: Topic) -> Result<Self, KafkaFailure> {
        let consumer = kafka.consumer_config().create();
        Ok(Self {
            consumer: consumer.map_err(kafka.failed("creating a reader"))?,
            name: topic.name(&kafka.prefix),
            settings: kafka.clone(),
            partitions: None,
        })
    }

    /// The partition of the key. Blocking where Kafka has to be asked.
    ///
    /// # Errors
    /// Kafka cannot be asked.
    pub fn of(&mut self, key: &str) -> Result<i32, KafkaFailure> {
        let partitions = match self.partitions {
            Some((partitions, looked)) if looked.elapsed() < LOOK => partitions,
            _ => {
                let found = super::partitions(self.consumer.client(), &self.name, &self.settings)?;
                let found = u32::try_from(found.len()).unwrap_or(u32::MAX);
                self.partitions = Some((found, Instant::now()));
                found
            }
        };
        Ok(of(key, partitions))
    }

    /// How many partitions there were when they were counted last; 0 before that.
    pub fn partitions(&self) -> u32 {
        self.partitions.map_or(0, |(partitions, _)| partitions)
    }
}

fn of(key: &str, partitions: u32) -> i32 {
    let partition = crc32fast::hash(key.as_bytes()).checked_rem(partitions);
    partition.and_then(|id| i32::try_from(id).ok()).unwrap_or(0)
}
