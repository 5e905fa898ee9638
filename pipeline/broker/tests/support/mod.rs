//! What the tests share: a broker under test, clients for it, and waiting for a condition.
#![allow(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod apache;
pub(crate) mod copy;
pub(crate) mod raw;
pub(crate) mod served;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message, OwnedMessage, ToBytes};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Runtime;

/// Long enough for anything that should happen, on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker under test, by its address, with names that no other test uses.
pub(crate) struct Kafka {
    pub(crate) bootstrap: String,
    pub(crate) runtime: Runtime,
    /// Number of copies a topic can have.
    pub(crate) nodes: i32,
    prefix: String,
}

impl Kafka {
    pub(crate) fn at(bootstrap: String, runtime: Runtime) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            bootstrap,
            runtime,
            nodes: 1,
            // The process id keeps runs on the same Kafka apart.
            prefix: format!("test-{}-{count}", std::process::id()),
        }
    }

    /// The name of a topic, group or transactional id of this test.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("reconnect.backoff.max.ms", "500");
        config
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        let _inside = self.runtime.enter();
        self.client().create().unwrap()
    }

    pub(crate) fn try_create_topic(
        &self,
        name: &str,
        partitions: i32,
        copies: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), RDKafkaErrorCode> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let admin = self.admin();
        let created = self
            .runtime
            .block_on(admin.create_topics([&topic], &AdminOptions::new()));
        created.unwrap().remove(0).map(|_| ()).map_err(|(_, code)| code)
    }

    /// Creates a topic of this test; returns its name on the broker.
    pub(crate) fn topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = self.name(name);
        self.try_create_topic(&name, partitions, 1, settings).unwrap();
        name
    }

    pub(crate) fn producer(&self, settings: &[(&str, &str)]) -> FutureProducer {
        let mut config = self.client();
        config.set("linger.ms", "1").set("message.timeout.ms", "60000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let _inside = self.runtime.enter();
        config.create().unwrap()
    }

    /// A transactional producer, ready to begin.
    pub(crate) fn transactional(&self, id: &str, timeout_ms: u32) -> FutureProducer {
        let timeout = timeout_ms.to_string();
        let producer = self.producer(&[
            ("transactional.id", &self.name(id)),
            ("transaction.timeout.ms", &timeout),
            ("message.timeout.ms", &timeout),
        ]);
        producer.init_transactions(PATIENCE).unwrap();
        producer
    }

    /// Sends a record and waits for its offset.
    pub(crate) fn try_put<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
        &self,
        producer: &FutureProducer,
        record: FutureRecord<'_, K, P>,
    ) -> Result<i64, RDKafkaErrorCode> {
        let sent = self.runtime.block_on(producer.send(record, Timeout::Never));
        sent.map(|d| d.offset)
            .map_err(|(e, _)| e.rdkafka_error_code().unwrap())
    }

    /// Sends a value without a key and waits for its offset.
    pub(crate) fn put(&self, producer: &FutureProducer, topic: &str, partition: i32, value: &str) -> i64 {
        let record = FutureRecord::<(), str>::to(topic)
            .partition(partition)
            .payload(value);
        self.try_put(producer, record).unwrap()
    }

    /// Sends records all at once, which makes batches of them, and waits for all.
    pub(crate) fn put_all<'a>(
        &self,
        producer: &FutureProducer,
        records: impl Iterator<Item = FutureRecord<'a, str, str>>,
    ) {
        let _inside = self.runtime.enter();
        let sends: Vec<_> = records
            .map(|r| producer.send_result(r).map_err(|(e, _)| e).unwrap())
            .collect();
        for sent in sends {
            self.runtime.block_on(sent).unwrap().unwrap();
        }
    }

    pub(crate) fn consumer(&self, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.client();
        config
            .set("group.id", self.name(group))
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "300")
            .set("topic.metadata.refresh.interval.ms", "1000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().unwrap()
    }

    /// Reads a partition from its start to its current end, as the isolation level lets it.
    pub(crate) fn records(&self, topic: &str, partition: i32, isolation: &str) -> Vec<OwnedMessage> {
        let settings = [("isolation.level", isolation), ("enable.partition.eof", "true")];
        let consumer = self.consumer("reader-of-everything", &settings);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let (mut found, start) = (Vec::new(), Instant::now());
        loop {
            assert!(start.elapsed() < PATIENCE, "the end of {topic} never came");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => found.push(message.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => return found,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
    }

    /// The values that a read-committed consumer sees in a partition.
    pub(crate) fn committed(&self, topic: &str, partition: i32) -> Vec<String> {
        self.records(topic, partition, "read_committed")
            .iter()
            .map(text)
            .collect()
    }

    /// First and last offset of a partition, as a read-committed consumer sees them.
    pub(crate) fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        let consumer = self.consumer("asks", &[("isolation.level", "read_committed")]);
        consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap()
    }
}

/// The value of a message; empty for a tombstone.
pub(crate) fn text(message: &impl Message) -> String {
    String::from_utf8(message.payload().unwrap_or_default().to_vec()).unwrap()
}

/// Polls until `count` messages have come.
pub(crate) fn read(consumer: &BaseConsumer, count: usize) -> Vec<String> {
    let (mut found, start) = (Vec::new(), Instant::now());
    while found.len() < count {
        assert!(
            start.elapsed() < PATIENCE,
            "only {} of {count} messages came: {found:?}",
            found.len()
        );
        if let Some(message) = poll(consumer, 100) {
            found.push(text(&message));
        }
    }
    found
}

/// The next message, if one comes within so many milliseconds.
pub(crate) fn poll(consumer: &BaseConsumer, milliseconds: u64) -> Option<BorrowedMessage<'_>> {
    consumer
        .poll(Duration::from_millis(milliseconds))
        .map(|message| message.unwrap())
}

/// One partition with an offset, as commits want it.
pub(crate) fn at(topic: &str, partition: i32, offset: i64) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))
        .unwrap();
    list
}

/// What a consumer's group has committed for a partition.
pub(crate) fn committed_offset(consumer: &BaseConsumer, topic: &str, partition: i32) -> Offset {
    let mut ask = TopicPartitionList::new();
    ask.add_partition(topic, partition);
    consumer.committed_offsets(ask, PATIENCE).unwrap().elements()[0].offset()
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
