//! What the tests share: clients for a broker, and waiting for a condition.
#![allow(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod raw;

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;

/// Long enough for anything that should happen, on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.max.ms", "500");
    config
}

pub(crate) async fn create_topic(bootstrap: &str, name: &str, partitions: i32) {
    create_topic_with(bootstrap, name, partitions, &[]).await;
}

pub(crate) async fn create_topic_with(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in configs {
        topic = topic.set(key, value);
    }
    for result in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

pub(crate) fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = client(bootstrap);
    config.set("linger.ms", "1").set("message.timeout.ms", "60000");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// A transactional producer, ready to begin. Call where blocking is allowed.
pub(crate) fn transactional(bootstrap: &str, id: &str, timeout_ms: u32) -> FutureProducer {
    let timeout = timeout_ms.to_string();
    let producer = producer(
        bootstrap,
        &[
            ("transactional.id", id),
            ("transaction.timeout.ms", &timeout),
            ("message.timeout.ms", &timeout),
        ],
    );
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

pub(crate) async fn send(producer: &FutureProducer, topic: &str, partition: i32, value: &str) -> i64 {
    let record = FutureRecord::<(), str>::to(topic)
        .partition(partition)
        .payload(value);
    producer.send(record, Timeout::Never).await.unwrap().offset
}

pub(crate) fn consumer_config(bootstrap: &str, group: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = client(bootstrap);
    config
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "300")
        .set("topic.metadata.refresh.interval.ms", "1000");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

pub(crate) fn consumer(bootstrap: &str, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    consumer_config(bootstrap, group, settings).create().unwrap()
}

pub(crate) fn stream(bootstrap: &str, group: &str, settings: &[(&str, &str)]) -> StreamConsumer {
    consumer_config(bootstrap, group, settings).create().unwrap()
}

pub(crate) fn text(message: &BorrowedMessage<'_>) -> String {
    String::from_utf8(message.payload().unwrap().to_vec()).unwrap()
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
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            found.push(text(&message.unwrap()));
        }
    }
    found
}

/// Reads a partition from its start to its current end, as the isolation level lets it.
pub(crate) fn read_partition(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    isolation: &str,
) -> Vec<(i64, String)> {
    let consumer = consumer(
        bootstrap,
        "reader-of-everything",
        &[("isolation.level", isolation), ("enable.partition.eof", "true")],
    );
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, partition, rdkafka::Offset::Beginning)
        .unwrap();
    consumer.assign(&list).unwrap();
    let (mut found, start) = (Vec::new(), Instant::now());
    loop {
        assert!(start.elapsed() < PATIENCE, "the end of {topic} never came");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => found.push((message.offset(), text(&message))),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return found,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

pub(crate) fn values(found: &[(i64, String)]) -> Vec<&str> {
    found.iter().map(|(_, value)| value.as_str()).collect()
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
