//! What was acknowledged is there after an orderly end and after `kill -9`, exactly once: on the embedded broker, and
//! on a node of Apache Kafka's where there is one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::producer::{FutureRecord, Producer};
use rdkafka::util::Timeout;
use support::apache::{Apache, address};
use support::copy::copy;
use support::served::Served;
use support::*;
use tempfile::TempDir;
use wellspring_broker::{BrokerError, EmbeddedBroker};

enum Process {
    Embedded(Served, TempDir),
    Apache(Apache),
}

/// A broker that a test may end.
struct Node {
    kafka: Kafka,
    process: Process,
}

impl Node {
    fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let served = Served::start(dir.path(), "127.0.0.1:0");
        Self {
            kafka: Kafka::at(served.bootstrap.clone(), runtime()),
            process: Process::Embedded(served, dir),
        }
    }

    fn end(&mut self, end: impl FnOnce(&mut Served), end_apache: impl FnOnce(&Apache)) {
        match &mut self.process {
            Process::Embedded(served, dir) => {
                end(served);
                *served = Served::start(dir.path(), &self.kafka.bootstrap);
            }
            Process::Apache(node) => {
                end_apache(node);
                node.restart();
            }
        }
    }

    /// An orderly end and a new start on the same data and address.
    fn restart(&mut self) {
        self.end(Served::stop, Apache::stop);
    }

    /// `kill -9` and a new start.
    fn kill(&mut self) {
        self.end(Served::kill, Apache::kill);
    }
}

fn records_and_sequence_numbers_survive_a_restart(node: &mut Node) {
    let topic = node.kafka.topic("t", 1, &[]);
    let producer = node.kafka.producer(&[("enable.idempotence", "true")]);
    for i in 0..10 {
        assert_eq!(node.kafka.put(&producer, &topic, 0, &i.to_string()), i);
    }
    node.restart();
    // The same idempotent producer goes on where it was.
    for i in 10..20 {
        assert_eq!(node.kafka.put(&producer, &topic, 0, &i.to_string()), i);
    }
    let expected: Vec<_> = (0..20).map(|i| i.to_string()).collect();
    assert_eq!(node.kafka.committed(&topic, 0), expected);
}

fn a_stream_through_three_kills_arrives_exactly_once(node: &mut Node) {
    let topic = node.kafka.topic("t", 3, &[]);
    let producer = node
        .kafka
        .producer(&[("enable.idempotence", "true"), ("linger.ms", "2")]);
    let mut sends = Vec::new();
    for i in 0..6000 {
        let value = format!("{i:06}{}", "x".repeat(500));
        let record = FutureRecord::<(), str>::to(&topic)
            .partition(i % 3)
            .payload(&value);
        sends.push(producer.send_result(record).map_err(|(e, _)| e).unwrap());
        if i % 2000 == 1000 {
            // Some of what was sent is acknowledged, some is on its way.
            node.kafka
                .runtime
                .block_on(sends.swap_remove(0))
                .unwrap()
                .unwrap();
            node.kill();
        }
    }
    for sent in sends {
        node.kafka.runtime.block_on(sent).unwrap().unwrap();
    }
    for partition in 0..3 {
        let found = node.kafka.committed(&topic, partition);
        let numbers: Vec<i32> = found.iter().map(|v| v[..6].parse().unwrap()).collect();
        let expected: Vec<i32> = (0..6000).filter(|i| i % 3 == partition).collect();
        assert_eq!(
            numbers, expected,
            "in order, none lost, none twice, in partition {partition}"
        );
    }
}

fn copying_with_workers_that_die_and_a_broker_that_is_killed_is_exactly_once(node: &mut Node) {
    let (input, output) = (node.kafka.topic("in", 2, &[]), node.kafka.topic("out", 2, &[]));
    let feeder = node.kafka.producer(&[("enable.idempotence", "true")]);
    for i in 0..300 {
        node.kafka.put(&feeder, &input, i % 2, &format!("{i:03}"));
    }
    // The workers that die leave a transaction open; the next owner of the name aborts it.
    copy(&node.kafka, &input, &output, 2, 300);
    node.kill();
    copy(&node.kafka, &input, &output, 2, 300);
    copy(&node.kafka, &input, &output, usize::MAX, 300);
    let found = || -> Vec<String> { (0..2).flat_map(|p| node.kafka.committed(&output, p)).collect() };
    wait_until("the last marker is there", || found().len() >= 300);
    let (found, mut seen) = (found(), BTreeSet::new());
    for value in &found {
        assert!(seen.insert(value), "{value} came twice");
    }
    assert_eq!(seen.len(), 300);
}

fn open_and_ended_transactions_survive_a_restart(node: &mut Node) {
    let topic = node.kafka.topic("t", 1, &[]);
    let ended = node.kafka.transactional("ended", 60_000);
    ended.begin_transaction().unwrap();
    node.kafka.put(&ended, &topic, 0, "aborted");
    ended.abort_transaction(PATIENCE).unwrap();
    ended.begin_transaction().unwrap();
    node.kafka.put(&ended, &topic, 0, "committed");
    ended.commit_transaction(PATIENCE).unwrap();
    let open = node.kafka.transactional("open", 60_000);
    open.begin_transaction().unwrap();
    node.kafka.put(&open, &topic, 0, "open");
    node.kill();
    assert_eq!(node.kafka.committed(&topic, 0), ["committed"]);
    node.kafka.put(&open, &topic, 0, "continued");
    open.commit_transaction(PATIENCE).unwrap();
    wait_until("the marker is there", || {
        node.kafka.committed(&topic, 0).len() == 3
    });
    assert_eq!(
        node.kafka.committed(&topic, 0),
        ["committed", "open", "continued"]
    );
}

fn commits_and_topics_survive_a_kill(node: &mut Node) {
    let topic = node.kafka.topic("tasks", 2, &[("retention.ms", "3600000")]);
    let producer = node.kafka.producer(&[]);
    for i in 0..10 {
        node.kafka.put(&producer, &topic, 0, &i.to_string());
    }
    let first = node.kafka.consumer("workers", &[]);
    first.subscribe(&[&topic]).unwrap();
    read(&first, 4);
    first.commit(&at(&topic, 0, 4), CommitMode::Sync).unwrap();
    drop(first);
    node.kill();
    let second = node.kafka.consumer("workers", &[]);
    second.subscribe(&[&topic]).unwrap();
    assert_eq!(read(&second, 6), ["4", "5", "6", "7", "8", "9"]);
    assert_eq!(committed_offset(&second, &topic, 0), Offset::Offset(4));
}

const BOTH: [fn(&mut Node); 5] = [
    records_and_sequence_numbers_survive_a_restart,
    a_stream_through_three_kills_arrives_exactly_once,
    copying_with_workers_that_die_and_a_broker_that_is_killed_is_exactly_once,
    open_and_ended_transactions_survive_a_restart,
    commits_and_topics_survive_a_kill,
];

#[test]
fn the_embedded_broker_keeps_what_it_acknowledged() {
    for test in BOTH {
        test(&mut Node::embedded());
    }
}

/// One node for all, since it takes seconds to start.
#[test]
fn apache_kafka_keeps_what_it_acknowledged() {
    if address().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (apache, address) = Apache::start(dir.path());
    let mut process = Process::Apache(apache);
    for test in BOTH {
        let mut node = Node {
            kafka: Kafka::at(address.clone(), runtime()),
            process,
        };
        test(&mut node);
        process = node.process;
    }
}

#[test]
fn a_folder_in_use_is_refused_until_its_broker_is_gone() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let mut broker = Served::start(dir.path(), "127.0.0.1:0");
    let start = || runtime.block_on(EmbeddedBroker::start(dir.path(), "127.0.0.1:0"));
    let refused = start();
    assert!(matches!(refused, Err(BrokerError::Locked { .. })), "{refused:?}");
    broker.kill();
    runtime.block_on(start().unwrap().shutdown()).unwrap();
}

#[test]
fn a_full_disk_refuses_new_records_and_harms_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Served::start_cramped(dir.path(), "127.0.0.1:0");
    let kafka = Kafka::at(broker.bootstrap.clone(), runtime());
    let topic = kafka.topic("t", 1, &[]);
    let value = "x".repeat(100_000);
    let sender = kafka.producer(&[("message.timeout.ms", "3000"), ("linger.ms", "0")]);
    let mut acknowledged = 0;
    let failed = loop {
        let record = FutureRecord::<(), str>::to(&topic).partition(0).payload(&value);
        match kafka.runtime.block_on(sender.send(record, Timeout::Never)) {
            Ok(_) => acknowledged += 1,
            Err((error, _)) => break error,
        }
    };
    assert!(
        (5..11).contains(&acknowledged),
        "{acknowledged} of 100 KB fit into 1 MiB; then {failed}"
    );
    broker.kill();
    let _broker = Served::start(dir.path(), &kafka.bootstrap);
    let more = kafka.producer(&[]);
    assert_eq!(kafka.put(&more, &topic, 0, "after"), acknowledged);
    assert_eq!(kafka.committed(&topic, 0).len() as i64, acknowledged + 1);
}
