//! What was acknowledged is there after a shutdown, after `kill -9`, and exactly once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::producer::{FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use support::*;
use wellspring_broker::{BrokerError, EmbeddedBroker};

/// A broker in a process of its own, so that it can be killed.
struct Served {
    child: Child,
    bootstrap: String,
}

impl Served {
    fn start(dir: &Path, listen: &str) -> Self {
        Self::run(Command::new(Self::program()).arg(dir).arg(listen))
    }

    /// A broker whose files may grow to 1 MiB at most, which fails writes as a full disk does.
    fn start_cramped(dir: &Path, listen: &str) -> Self {
        let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\"";
        Self::run(
            Command::new("bash")
                .args(["-c", script])
                .arg(Self::program())
                .arg(dir)
                .arg(listen),
        )
    }

    fn program() -> PathBuf {
        let tests = std::env::current_exe().unwrap();
        tests.parent().unwrap().parent().unwrap().join("examples/serve")
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut bootstrap = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut bootstrap)
            .unwrap();
        Self {
            child,
            bootstrap: bootstrap.trim().to_owned(),
        }
    }

    /// SIGKILL: nothing of the process runs after this.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_sequence_numbers_survive_a_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let address = broker.bootstrap();
    create_topic(&address, "t", 1).await;
    let producer = producer(&address, &[("enable.idempotence", "true")]);
    for i in 0..10 {
        assert_eq!(send(&producer, "t", 0, &i.to_string()).await, i);
    }
    broker.shutdown().await.unwrap();
    let broker = EmbeddedBroker::start(dir.path(), &address).await.unwrap();
    // The same idempotent producer goes on where it was.
    for i in 10..20 {
        assert_eq!(send(&producer, "t", 0, &i.to_string()).await, i);
    }
    let all = tokio::task::spawn_blocking(move || read_partition(&address, "t", 0, "read_committed"));
    let expected: Vec<_> = (0..20).map(|i| (i, i.to_string())).collect();
    assert_eq!(all.await.unwrap(), expected);
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_through_three_kills_arrives_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Served::start(dir.path(), "127.0.0.1:0");
    let address = broker.bootstrap.clone();
    create_topic(&address, "t", 3).await;
    let producer = producer(&address, &[("enable.idempotence", "true"), ("linger.ms", "2")]);
    let mut sends = Vec::new();
    for i in 0..6000 {
        let value = format!("{i:06}{}", "x".repeat(500));
        let record = FutureRecord::<(), str>::to("t").partition(i % 3).payload(&value);
        sends.push(producer.send_result(record).map_err(|(e, _)| e).unwrap());
        if i % 2000 == 1000 {
            // Some of what was sent is acknowledged, some is on its way.
            sends.swap_remove(0).await.unwrap().unwrap();
            broker.kill();
            broker = Served::start(dir.path(), &address);
        }
    }
    for sent in sends {
        sent.await.unwrap().unwrap();
    }
    let reading = address.clone();
    let read = tokio::task::spawn_blocking(move || {
        (0..3)
            .map(|p| read_partition(&reading, "t", p, "read_committed"))
            .collect::<Vec<_>>()
    });
    for (partition, found) in (0..3).zip(read.await.unwrap()) {
        let numbers: Vec<i32> = found.iter().map(|(_, v)| v[..6].parse().unwrap()).collect();
        let expected: Vec<i32> = (0..6000).filter(|i| i % 3 == partition).collect();
        assert_eq!(
            numbers, expected,
            "in order, none lost, none twice, in partition {partition}"
        );
    }
    broker.kill();
}

/// Copies topic `in` to `out` in transactions until it has committed `limit` of them or the input's
/// end; leaves one more transaction open, as a worker does that dies.
fn copy(bootstrap: &str, worker: usize, limit: usize, total: i64) {
    let settings = [
        ("isolation.level", "read_committed"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ];
    let consumer = consumer(bootstrap, "copiers", &settings);
    consumer.subscribe(&["in"]).unwrap();
    let producer = transactional(bootstrap, &format!("copier-{}", worker % 2), 60_000);
    let (mut ends, mut commits) = ([0i64; 2], 0);
    for p in 0..2 {
        let mut ask = TopicPartitionList::new();
        ask.add_partition("in", p);
        if let Offset::Offset(at) = consumer.committed_offsets(ask, PATIENCE).unwrap().elements()[0].offset()
        {
            ends[p as usize] = at;
        }
    }
    while ends.iter().sum::<i64>() < total {
        let mut batch = Vec::new();
        wait_until("there is input", || {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.unwrap();
                batch.push((
                    rdkafka::Message::partition(&message),
                    rdkafka::Message::offset(&message),
                    text(&message),
                ));
            }
            while batch.len() < 25 && !batch.is_empty() {
                let Some(message) = consumer.poll(Duration::from_millis(20)) else {
                    break;
                };
                let message = message.unwrap();
                batch.push((
                    rdkafka::Message::partition(&message),
                    rdkafka::Message::offset(&message),
                    text(&message),
                ));
            }
            !batch.is_empty()
        });
        producer.begin_transaction().unwrap();
        let mut sends = Vec::new();
        for (partition, offset, value) in &batch {
            let record = FutureRecord::<(), str>::to("out")
                .partition(*partition)
                .payload(value);
            sends.push(producer.send_result(record).map_err(|(e, _)| e).unwrap());
            ends[*partition as usize] = offset + 1;
        }
        let mut offsets = TopicPartitionList::new();
        for p in 0..2 {
            if batch.iter().any(|b| b.0 == p) {
                offsets
                    .add_partition_offset("in", p, Offset::Offset(ends[p as usize]))
                    .unwrap();
            }
        }
        let member = consumer.group_metadata().unwrap();
        producer
            .send_offsets_to_transaction(&offsets, &member, PATIENCE)
            .unwrap();
        if commits == limit {
            producer.flush(PATIENCE).unwrap();
            return;
        }
        producer.commit_transaction(PATIENCE).unwrap();
        commits += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copying_with_workers_that_die_and_a_broker_that_is_killed_is_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), "127.0.0.1:0");
    let address = broker.bootstrap.clone();
    create_topic(&address, "in", 2).await;
    create_topic(&address, "out", 2).await;
    let feeder = producer(&address, &[("enable.idempotence", "true")]);
    for i in 0..300 {
        send(&feeder, "in", i % 2, &format!("{i:03}")).await;
    }
    // The workers that die leave a transaction open; the next owner of its name aborts it.
    let copying = address.clone();
    tokio::task::spawn_blocking(move || copy(&copying, 0, 2, 300))
        .await
        .unwrap();
    broker.kill();
    let broker = Served::start(dir.path(), &address);
    let copying = address.clone();
    tokio::task::spawn_blocking(move || {
        copy(&copying, 0, 2, 300);
        copy(&copying, 0, usize::MAX, 300);
        let mut seen = BTreeSet::new();
        for p in 0..2 {
            for (_, value) in read_partition(&copying, "out", p, "read_committed") {
                assert!(seen.insert(value.clone()), "{value} came twice");
            }
        }
        assert_eq!(seen.len(), 300);
    })
    .await
    .unwrap();
    broker.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_refused_until_its_broker_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start(dir.path(), "127.0.0.1:0");
    let refused = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await;
    assert!(matches!(refused, Err(BrokerError::Locked { .. })), "{refused:?}");
    broker.kill();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_records_and_harms_none() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Served::start_cramped(dir.path(), "127.0.0.1:0");
    let address = broker.bootstrap.clone();
    create_topic(&address, "t", 1).await;
    let value = "x".repeat(100_000);
    let sender = producer(&address, &[("message.timeout.ms", "3000"), ("linger.ms", "0")]);
    let mut acknowledged = 0;
    let failed = loop {
        let record = FutureRecord::<(), str>::to("t").partition(0).payload(&value);
        match sender.send(record, rdkafka::util::Timeout::Never).await {
            Ok(_) => acknowledged += 1,
            Err((error, _)) => break error,
        }
    };
    assert!(
        (5..11).contains(&acknowledged),
        "{acknowledged} of 100 KB fit into 1 MiB; then {failed}"
    );
    broker.kill();
    let broker = Served::start(dir.path(), &address);
    let more = producer(&address, &[]);
    assert_eq!(send(&more, "t", 0, "after").await, acknowledged);
    let reading = address.clone();
    let read = tokio::task::spawn_blocking(move || read_partition(&reading, "t", 0, "read_committed"));
    assert_eq!(read.await.unwrap().len() as i64, acknowledged + 1);
    broker.kill();
}
