//! The only user of rdkafka: connections, topics, the exactly-once lane, and tailing readers.
//!
//! - [`topics`] names the topics and creates them; [`admin`] compares them with what they should be, and alters them.
//! - [`lane`] reads one topic as a group member and publishes what became of each record, offsets included, in
//!   transactions.
//! - [`home`] is where the records of a key belong, whoever wrote them.
//! - [`exchange`] asks external steps by a pair of topics.
//! - [`tail`] reads whole topics, outside any group; [`follow`] reads on, on a thread of its own.
//! - [`trace`] is the `traceparent` header.

pub mod admin;
pub mod backlog;
pub mod exchange;
pub mod follow;
pub mod home;
pub mod lane;
pub mod producer;
pub mod tail;
pub mod topics;
pub mod trace;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext};
use serde::Serialize;

use self::topics::Topic;
use crate::events::{PlateReady, Status};
use crate::ids;
use crate::schemas::{self, SchemaError, Schemas, Unwritable};

/// How long one call to the broker may take before it is an error.
pub const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

/// How old a client's picture of the topics may be.
const METADATA_AGE_MS: &str = "5000";

/// How long a broker may take to hear of a topic that another one made.
const PROPAGATION: Duration = Duration::from_secs(5);
/// How long a partition that is there may have no leader.
const LEADERLESS: Duration = Duration::from_secs(20);

/// How to reach Kafka.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port[,host:port...]`.
    pub bootstrap: String,
    /// Before every topic, group and transactional id, so that several installations share one cluster.
    pub prefix: String,
    /// Names this process in transactional ids. Starting again under the same name takes over at once what the last
    /// process of that name left open.
    pub instance: String,
    /// What a crash may do to records.
    pub delivery: Delivery,
    /// When failed work is tried again ([`crate::failures::RetryPolicy`]).
    pub retry_delays: Vec<Duration>,
    /// How records are written and read.
    pub schemas: Schemas,
}

/// What a crash may do to records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Every record is visible once: records and the offsets they answer are one transaction.
    #[default]
    ExactlyOnce,
    /// A record may be seen again, under the same id. For brokers without transactions.
    AtLeastOnce,
}

impl KafkaSettings {
    /// Settings with the usual delivery, without retries, in Avro and without a schema registry.
    pub fn new(bootstrap: impl Into<String>, prefix: impl Into<String>, instance: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            prefix: prefix.into(),
            instance: instance.into(),
            delivery: Delivery::default(),
            retry_delays: Vec::new(),
            schemas: Schemas::default(),
        }
    }

    /// What a call that failed says: what was being done, and where.
    fn failed(&self, doing: &'static str) -> impl Fn(KafkaError) -> KafkaFailure + use<> {
        let bootstrap = self.bootstrap.clone();
        move |source| KafkaFailure::Call {
            doing,
            bootstrap: bootstrap.clone(),
            source,
        }
    }

    /// The group in which the members of a role share their topic.
    pub fn group(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", format!("wellspring-{}", self.instance))
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            // A client waits half of it between its first connection, which tells it of the brokers, and the next.
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "2000")
            // What a node that just came back said wrongly, and partitions that were added, are known soon; by default the
            // client asks again after 5 minutes.
            .set("topic.metadata.refresh.interval.ms", METADATA_AGE_MS);
        config
    }

    fn consumer_config(&self) -> ClientConfig {
        let mut config = self.config();
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            // librdkafka reads ahead 64 MiB per consumer by default; tasks and features are small.
            .set("queued.max.messages.kbytes", "4096")
            // Filled, it is looked at again after 1 s by default, which held reading at 7 MB/s; 10 ms held it at 450.
            .set("fetch.queue.backoff.ms", "2")
            .set("fetch.max.bytes", "8388608")
            .set("max.partition.fetch.bytes", "2097152")
            .set("receive.message.max.bytes", "100000000")
            .set("fetch.wait.max.ms", "100");
        config
    }
}

/// Whether Kafka answers at all, topics or none.
pub fn answers(kafka: &KafkaSettings) -> Result<(), KafkaFailure> {
    let consumer: BaseConsumer = kafka
        .consumer_config()
        .create()
        .map_err(kafka.failed("creating a reader"))?;
    consumer
        .fetch_metadata(None, BROKER_TIMEOUT)
        .map_err(kafka.failed("reading the list of topics"))?;
    Ok(())
}

/// The partitions of a topic. A broker of several that has not heard yet of a topic that was just made is asked again:
/// taken at its word, the topic would be read as if it were empty for good.
fn partitions<C: ClientContext>(
    client: &Client<C>,
    name: &str,
    kafka: &KafkaSettings,
) -> Result<Vec<i32>, KafkaFailure> {
    let give_up = Instant::now() + PROPAGATION;
    loop {
        let metadata = client
            .fetch_metadata(Some(name), BROKER_TIMEOUT)
            .map_err(kafka.failed("reading a topic's metadata"))?;
        let known = metadata.topics().iter().filter(|topic| topic.error().is_none());
        let ids: Vec<i32> = known
            .flat_map(|topic| topic.partitions())
            .map(|partition| partition.id())
            .collect();
        if !ids.is_empty() {
            return Ok(ids);
        }
        if Instant::now() >= give_up {
            return Err(KafkaFailure::NoTopic {
                topic: name.to_owned(),
                bootstrap: kafka.bootstrap.clone(),
            });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Where every partition of a topic ends now.
fn ends<C: ClientContext>(
    client: &Client<C>,
    name: &str,
    kafka: &KafkaSettings,
) -> Result<BTreeMap<i32, i64>, KafkaFailure> {
    let ends = partitions(client, name, kafka)?.into_iter().map(|partition| {
        let (_, end) = once_led(|| client.fetch_watermarks(name, partition, BROKER_TIMEOUT))?;
        Ok((partition, end))
    });
    ends.collect::<Result<_, KafkaError>>()
        .map_err(kafka.failed("reading where a topic ends"))
}

/// Asks again while a partition has no leader: its topic was just made, or a broker has left.
fn once_led<T>(ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let give_up = Instant::now() + LEADERLESS;
    loop {
        match ask() {
            Err(error) if has_no_leader(&error) && Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(100));
            }
            answer => return answer,
        }
    }
}

fn has_no_leader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

/// A record to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct OutRecord {
    /// Where to.
    pub topic: Topic,
    /// What must stay in order.
    pub key: String,
    /// One of the types in [`crate::events`] as [`schemas::encode`] writes it; other bytes are published as they are.
    pub value: Vec<u8>,
    /// CloudEvents attribute `ce_id`: the same work has the same id.
    pub id: String,
    /// CloudEvents attribute `ce_type`.
    pub kind: Cow<'static, str>,
    /// The partition; chosen by the key when absent.
    pub partition: Option<i32>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl OutRecord {
    /// A record with `event` as its value, by the newest schema of `topic`.
    pub fn new<E: Serialize>(
        topic: Topic,
        key: impl Into<String>,
        id: impl Into<String>,
        kind: &'static str,
        event: &E,
    ) -> Result<Self, KafkaFailure> {
        let value =
            schemas::encode(topic, event).map_err(|source| KafkaFailure::Encode { what: kind, source })?;
        Ok(Self::of_bytes(topic, key, id, kind, value))
    }

    /// A record on the status topic.
    pub fn status(id: impl Into<String>, status: &Status) -> Result<Self, KafkaFailure> {
        Self::new(Topic::Status, status.run(), id, "wellspring.status.v1", status)
    }

    /// An event about a plate, on the topic of a lane.
    pub fn plate(topic: Topic, key: &str, event: &PlateReady) -> Result<Self, KafkaFailure> {
        Self::new(topic, key, ids::of_event(event), event.kind(), event)
    }

    /// A record with these bytes as its value.
    pub fn of_bytes(
        topic: Topic,
        key: impl Into<String>,
        id: impl Into<String>,
        kind: &'static str,
        value: Vec<u8>,
    ) -> Self {
        Self {
            topic,
            key: key.into(),
            value,
            id: id.into(),
            kind: kind.into(),
            partition: None,
            headers: Vec::new(),
        }
    }
}

/// Why talking to Kafka failed.
#[derive(Debug, thiserror::Error)]
pub enum KafkaFailure {
    /// A client could not be made or a call failed.
    #[error("{doing} at {bootstrap} failed; check that Kafka is reachable there")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// Where.
        bootstrap: String,
        /// librdkafka's error.
        source: KafkaError,
    },
    /// A topic could not be created.
    #[error("topic {topic} could not be created: {reason}")]
    CreateTopic {
        /// The topic.
        topic: String,
        /// The broker's reason.
        reason: String,
    },
    /// A topic is not there.
    #[error(
        "there is no topic '{topic}' at {bootstrap}; is the prefix right? (`wellspring topics apply` makes the topics of a new one)"
    )]
    NoTopic {
        /// The topic.
        topic: String,
        /// Where.
        bootstrap: String,
    },
    /// A topic could not be changed.
    #[error("{what} of topic {topic} cannot be changed or read: {reason}")]
    AlterTopic {
        /// The topic.
        topic: String,
        /// What of it.
        what: String,
        /// The broker's reason.
        reason: String,
    },
    /// Another process took over this process's transactional id or its partitions for good.
    #[error(
        "another process runs under the instance name '{instance}'; give each process its own --instance"
    )]
    Fenced {
        /// The instance name.
        instance: String,
    },
    /// Nothing was heard within the time a broker may take.
    #[error("Kafka at {bootstrap} does not answer; check that it is running and reachable")]
    Silent {
        /// Where.
        bootstrap: String,
    },
    /// A transaction stays open.
    #[error(
        "a transaction on topic {topic} does not end, so that what stands behind it cannot be read; look at the broker's log"
    )]
    OpenTransaction {
        /// The topic.
        topic: String,
    },
    /// A transaction was aborted again and again.
    #[error("a transaction at {bootstrap} was aborted five times; look at the broker's log")]
    Aborted {
        /// Where.
        bootstrap: String,
    },
    /// An event does not fit the schema of its topic.
    #[error("a {what} event does not fit the schema of its topic")]
    Encode {
        /// The event's type.
        what: &'static str,
        /// What does not fit.
        source: SchemaError,
    },
    /// A record could not be brought into the form that is configured.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// An external step cannot be asked on a topic of the flow.
    #[error(
        "topic '{topic}' is this installation's own; give the step other topics for its requests and answers"
    )]
    OwnTopic {
        /// The topic.
        topic: String,
    },
    /// A thread could not be started.
    #[error("a Kafka thread could not be started")]
    Thread(#[from] std::io::Error),
}
