//! Topics as they are and as they should be: what differs, and making it so.
//!
//! A broker's topics and the [`Wanted`] ones enter; [`Difference`]s leave, and with `apply` the topics are created,
//! grown and configured. Nothing is ever shrunk or deleted. What fails: the broker, and a change that it answers to with
//! yes and does not make.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaErrorCode;
use serde::Serialize;

use super::topics::{Topic, options, there_now};
use super::{BROKER_TIMEOUT, KafkaFailure, KafkaSettings};

/// How long a change may take to be seen everywhere.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

/// How a topic should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// The topic.
    #[serde(skip)]
    pub topic: Topic,
    /// Partitions, at least.
    pub partitions: usize,
    /// Copies of each partition, where the topic is made new; the broker's default when absent.
    pub copies: Option<i32>,
    /// Settings by Kafka's names, such as `retention.ms`.
    pub settings: BTreeMap<&'static str, String>,
}

impl Wanted {
    /// What a topic should be unless an operator decides otherwise. Nothing expires, since a run is rebuilt from the log,
    /// and nothing is compacted, since no record replaces an earlier one of its key.
    pub fn usual(topic: Topic) -> Self {
        Self {
            topic,
            partitions: usize::try_from(topic.partitions()).unwrap_or(1),
            copies: None,
            settings: BTreeMap::from([
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", "-1".to_owned()),
                ("retention.bytes", "-1".to_owned()),
            ]),
        }
    }
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Described {
    /// Its full name.
    pub name: String,
    /// Partitions.
    pub partitions: usize,
    /// Copies of each partition: the fewest of any.
    pub copies: usize,
    /// Records from the first that is kept to the last, those of aborted transactions and transaction marks included.
    pub records: i64,
    /// All settings by Kafka's names.
    #[serde(skip)]
    pub settings: BTreeMap<String, String>,
    /// Those of them that were set for this topic.
    pub own_settings: BTreeMap<String, String>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The topic's full name.
    pub topic: String,
    /// What: `topic`, `partitions`, or a setting by Kafka's name.
    pub what: String,
    /// As it is; `None` for a topic that is not there.
    pub is: Option<String>,
    /// As it should be.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            what,
            is,
            wanted,
        } = self;
        match is {
            None => write!(f, "{topic}: does not exist; wanted with {wanted}"),
            Some(is) => write!(f, "{topic}: {what} is {is}, wanted {wanted}"),
        }
    }
}

/// What a topic lacks of what is wanted.
pub fn difference(name: &str, is: Option<&Described>, wanted: &Wanted) -> Vec<Difference> {
    let different = |what: &str, is: Option<String>, wanted: String| Difference {
        topic: name.to_owned(),
        what: what.to_owned(),
        is,
        wanted,
    };
    let Some(is) = is else {
        let settings: String = wanted
            .settings
            .iter()
            .map(|(key, value)| format!(", {key}={value}"))
            .collect();
        return vec![different(
            "topic",
            None,
            format!("{} partitions{settings}", wanted.partitions),
        )];
    };
    let mut differences = Vec::new();
    // More partitions than wanted are an operator's choice, and cannot be taken back.
    if is.partitions < wanted.partitions {
        differences.push(different(
            "partitions",
            Some(is.partitions.to_string()),
            wanted.partitions.to_string(),
        ));
    }
    for (key, value) in &wanted.settings {
        let set = is.settings.get(*key).cloned().unwrap_or_default();
        if set != *value {
            differences.push(different(key, Some(set), value.clone()));
        }
    }
    differences
}

/// A connection that asks and changes.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    consumer: BaseConsumer,
    settings: KafkaSettings,
}

impl Admin {
    /// Connects.
    pub fn open(settings: &KafkaSettings) -> Result<Self, KafkaFailure> {
        let mut config = settings.consumer_config();
        config.set("group.id", format!("{}-admin-unused", settings.prefix));
        Ok(Self {
            client: settings
                .config()
                .create()
                .map_err(settings.failed("creating an admin client"))?,
            consumer: config.create().map_err(settings.failed("creating a reader"))?,
            settings: settings.clone(),
        })
    }

    /// Repeats what fails while a partition has no leader yet or a connection is being made.
    async fn patiently<T>(&self, ask: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
        let give_up = Instant::now() + SEEN_WITHIN;
        loop {
            match ask() {
                Err(error)
                    if Instant::now() < give_up
                        && matches!(
                            error.rdkafka_error_code(),
                            Some(
                                RDKafkaErrorCode::NotLeaderForPartition
                                    | RDKafkaErrorCode::LeaderNotAvailable
                                    | RDKafkaErrorCode::UnknownTopicOrPartition
                                    | RDKafkaErrorCode::UnknownPartition
                                    | RDKafkaErrorCode::BrokerTransportFailure
                                    | RDKafkaErrorCode::AllBrokersDown
                            )
                        ) =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                answer => return answer,
            }
        }
    }

    /// The topic as it is; `None` where it does not exist.
    pub async fn describe(&self, topic: Topic) -> Result<Option<Described>, KafkaFailure> {
        let name = topic.name(&self.settings.prefix);
        // The whole list: asking for one topic by name may report it as there while it is not.
        let metadata = self
            .patiently(|| self.consumer.fetch_metadata(None, BROKER_TIMEOUT))
            .await
            .map_err(self.settings.failed("reading the list of topics"))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else {
            return Ok(None);
        };
        let mut records = 0;
        for partition in found.partitions() {
            let (low, high) = self
                .patiently(|| {
                    self.consumer
                        .fetch_watermarks(&name, partition.id(), BROKER_TIMEOUT)
                })
                .await
                .map_err(self.settings.failed("reading a partition's offsets"))?;
            records += high - low;
        }
        let asked = [ResourceSpecifier::Topic(&name)];
        let answers = self
            .client
            .describe_configs(&asked, &options())
            .await
            .map_err(self.settings.failed("reading a topic's settings"))?;
        let mut settings = BTreeMap::new();
        let mut own_settings = BTreeMap::new();
        for answer in answers {
            let resource = answer.map_err(|code| KafkaFailure::AlterTopic {
                topic: name.clone(),
                what: "settings".to_owned(),
                reason: code.to_string(),
            })?;
            for entry in resource.entries {
                let value = entry.value.unwrap_or_default();
                if entry.source == ConfigSource::DynamicTopic {
                    own_settings.insert(entry.name.clone(), value.clone());
                }
                settings.insert(entry.name, value);
            }
        }
        let copies = found.partitions().iter().map(|p| p.replicas().len()).min();
        Ok(Some(Described {
            name,
            partitions: found.partitions().len(),
            copies: copies.unwrap_or_default(),
            records,
            settings,
            own_settings,
        }))
    }

    /// What is not as wanted.
    pub async fn differences(&self, wanted: &[Wanted]) -> Result<Vec<Difference>, KafkaFailure> {
        let mut all = Vec::new();
        for wanted in wanted {
            let is = self.describe(wanted.topic).await?;
            let name = wanted.topic.name(&self.settings.prefix);
            all.extend(difference(&name, is.as_ref(), wanted));
        }
        Ok(all)
    }

    /// Makes a topic as wanted: creates it, adds partitions, changes settings and leaves the others alone. A change that
    /// is not seen afterwards is an error: librdkafka reports a refused one as made.
    pub async fn apply(&self, wanted: &Wanted) -> Result<(), KafkaFailure> {
        let name = wanted.topic.name(&self.settings.prefix);
        let Some(is) = self.describe(wanted.topic).await? else {
            self.create(&name, wanted).await?;
            return self.see(&name, wanted).await;
        };
        let refused = |what: &str, code: RDKafkaErrorCode| KafkaFailure::AlterTopic {
            topic: name.clone(),
            what: what.to_owned(),
            reason: code.to_string(),
        };
        if is.partitions < wanted.partitions {
            let grown = self
                .client
                .create_partitions(&[NewPartitions::new(&name, wanted.partitions)], &options())
                .await
                .map_err(self.settings.failed("adding partitions"))?;
            for answer in grown {
                answer.map_err(|(_, code)| refused("partitions", code))?;
            }
        }
        let changes = |(key, value): &(&&str, &String)| is.settings.get(**key) != Some(*value);
        if wanted.settings.iter().any(|setting| changes(&setting)) {
            // Kafka takes the whole set: what is left out returns to its default.
            let mut settings = is.own_settings.clone();
            settings.extend(
                wanted
                    .settings
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), value.clone())),
            );
            let mut change = AlterConfig::new(ResourceSpecifier::Topic(&name));
            for (key, value) in &settings {
                change = change.set(key, value);
            }
            let changed = self
                .client
                .alter_configs([&change], &options())
                .await
                .map_err(self.settings.failed("changing a topic's settings"))?;
            for answer in changed {
                answer.map_err(|(_, code)| refused("settings", code))?;
            }
        }
        self.see(&name, wanted).await
    }

    async fn create(&self, name: &str, wanted: &Wanted) -> Result<(), KafkaFailure> {
        let partitions = i32::try_from(wanted.partitions).unwrap_or(i32::MAX);
        // The broker's default: one on a laptop, three on a proper cluster.
        let copies = wanted.copies.unwrap_or(-1);
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
        for (key, value) in &wanted.settings {
            topic = topic.set(key, value);
        }
        let created = self
            .client
            .create_topics(&[topic], &options())
            .await
            .map_err(self.settings.failed("creating topics"))?;
        there_now(created)
    }

    /// Waits until the topic is seen to be as wanted.
    async fn see(&self, name: &str, wanted: &Wanted) -> Result<(), KafkaFailure> {
        let give_up = Instant::now() + SEEN_WITHIN;
        loop {
            let is = self.describe(wanted.topic).await?;
            let left = difference(name, is.as_ref(), wanted);
            let Some(first) = left.first() else { return Ok(()) };
            if Instant::now() >= give_up {
                return Err(KafkaFailure::AlterTopic {
                    topic: name.to_owned(),
                    what: first.what.clone(),
                    reason: format!("the broker agreed, but {first}; it may not allow this value"),
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
