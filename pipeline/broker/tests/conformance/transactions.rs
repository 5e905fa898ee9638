//! Transactions: committed is seen, aborted and open are not, the old owner is fenced.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use support::*;
use wellspring_broker::EmbeddedBroker;

/// Runs a test body where blocking is allowed, with a broker and a topic `t` of two partitions.
async fn with_broker(body: impl FnOnce(String) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    create_topic(&broker.bootstrap(), "t", 2).await;
    let bootstrap = broker.bootstrap();
    tokio::task::spawn_blocking(move || body(bootstrap))
        .await
        .unwrap();
    broker.shutdown().await.unwrap();
}

fn put(producer: &FutureProducer, value: &str) -> Result<i64, RDKafkaErrorCode> {
    let record = FutureRecord::<(), str>::to("t").partition(0).payload(value);
    let sent =
        tokio::runtime::Handle::current().block_on(producer.send(record, rdkafka::util::Timeout::Never));
    sent.map(|d| d.offset)
        .map_err(|(e, _)| e.rdkafka_error_code().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_is_seen_and_aborted_is_not() {
    with_broker(|bootstrap| {
        let producer = transactional(&bootstrap, "p", 60_000);
        for (value, commit) in [("a", true), ("b", false), ("c", true), ("d", false)] {
            producer.begin_transaction().unwrap();
            put(&producer, value).unwrap();
            put(&producer, value).unwrap();
            if commit {
                producer.commit_transaction(PATIENCE).unwrap();
            } else {
                producer.abort_transaction(PATIENCE).unwrap();
            }
        }
        let seen = read_partition(&bootstrap, "t", 0, "read_committed");
        assert_eq!(values(&seen), ["a", "a", "c", "c"]);
        let all = read_partition(&bootstrap, "t", 0, "read_uncommitted");
        assert_eq!(values(&all), ["a", "a", "b", "b", "c", "c", "d", "d"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_back_what_follows() {
    with_broker(|bootstrap| {
        let open = transactional(&bootstrap, "open", 60_000);
        let plain = producer(&bootstrap, &[]);
        put(&plain, "before").unwrap();
        open.begin_transaction().unwrap();
        put(&open, "inside").unwrap();
        put(&plain, "after").unwrap();
        assert_eq!(
            values(&read_partition(&bootstrap, "t", 0, "read_committed")),
            ["before"]
        );
        let committed = consumer(&bootstrap, "g", &[("isolation.level", "read_committed")]);
        assert_eq!(committed.fetch_watermarks("t", 0, PATIENCE).unwrap().0, 0);
        open.commit_transaction(PATIENCE).unwrap();
        let seen = read_partition(&bootstrap, "t", 0, "read_committed");
        assert_eq!(values(&seen), ["before", "inside", "after"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_fences_the_old_and_aborts_its_transaction() {
    with_broker(|bootstrap| {
        let old = transactional(&bootstrap, "p", 60_000);
        old.begin_transaction().unwrap();
        put(&old, "old").unwrap();
        let new = transactional(&bootstrap, "p", 60_000);
        new.begin_transaction().unwrap();
        put(&new, "new").unwrap();
        new.commit_transaction(PATIENCE).unwrap();
        let error = old.commit_transaction(PATIENCE).unwrap_err();
        let code = error.rdkafka_error_code().unwrap();
        assert!(
            matches!(
                code,
                RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch
            ),
            "{error:?}"
        );
        assert_eq!(
            values(&read_partition(&bootstrap, "t", 0, "read_committed")),
            ["new"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_past_its_timeout_is_aborted() {
    with_broker(|bootstrap| {
        let slow = transactional(&bootstrap, "slow", 1500);
        slow.begin_transaction().unwrap();
        put(&slow, "slow").unwrap();
        let plain = producer(&bootstrap, &[]);
        put(&plain, "plain").unwrap();
        wait_until("the stuck transaction no longer holds back others", || {
            values(&read_partition(&bootstrap, "t", 0, "read_committed")) == ["plain"]
        });
        assert!(slow.commit_transaction(PATIENCE).is_err());
        assert_eq!(
            values(&read_partition(&bootstrap, "t", 0, "read_committed")),
            ["plain"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_commit_and_abort_with_their_transaction() {
    with_broker(|bootstrap| {
        let plain = producer(&bootstrap, &[]);
        for i in 0..4 {
            put(&plain, &i.to_string()).unwrap();
        }
        let worker = consumer(&bootstrap, "workers", &[]);
        worker.subscribe(&["t"]).unwrap();
        read(&worker, 4);
        let producer = transactional(&bootstrap, "p", 60_000);
        let stage = |offset: i64| {
            let mut offsets = TopicPartitionList::new();
            offsets
                .add_partition_offset("t", 0, Offset::Offset(offset))
                .unwrap();
            let member = worker.group_metadata().unwrap();
            producer.begin_transaction().unwrap();
            producer
                .send_offsets_to_transaction(&offsets, &member, PATIENCE)
                .unwrap();
        };
        let committed = || {
            let mut ask = TopicPartitionList::new();
            ask.add_partition("t", 0);
            worker.committed_offsets(ask, PATIENCE).unwrap().elements()[0].offset()
        };
        stage(1);
        producer.commit_transaction(PATIENCE).unwrap();
        assert_eq!(committed(), Offset::Offset(1));
        stage(3);
        producer.abort_transaction(PATIENCE).unwrap();
        assert_eq!(committed(), Offset::Offset(1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_member_that_was_replaced_are_refused() {
    with_broker(|bootstrap| {
        let worker = consumer(&bootstrap, "workers", &[]);
        worker.subscribe(&["t"]).unwrap();
        wait_until("it is a member", || {
            if let Some(message) = worker.poll(Duration::from_millis(20)) {
                message.unwrap();
            }
            worker.assignment().unwrap().count() == 2
        });
        let stale = worker.group_metadata().unwrap();
        drop(worker);
        let producer = transactional(&bootstrap, "p", 60_000);
        producer.begin_transaction().unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("t", 0, Offset::Offset(1)).unwrap();
        assert!(
            producer
                .send_offsets_to_transaction(&offsets, &stale, PATIENCE)
                .is_err()
        );
        producer.abort_transaction(PATIENCE).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_and_ended_transactions_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    create_topic(&broker.bootstrap(), "t", 1).await;
    let address = broker.bootstrap();
    let bootstrap = address.clone();
    let open = tokio::task::spawn_blocking(move || {
        let ended = transactional(&bootstrap, "ended", 60_000);
        ended.begin_transaction().unwrap();
        put(&ended, "aborted").unwrap();
        ended.abort_transaction(PATIENCE).unwrap();
        ended.begin_transaction().unwrap();
        put(&ended, "committed").unwrap();
        ended.commit_transaction(PATIENCE).unwrap();
        let open = transactional(&bootstrap, "open", 60_000);
        open.begin_transaction().unwrap();
        put(&open, "open").unwrap();
        open
    });
    let open = open.await.unwrap();
    broker.shutdown().await.unwrap();
    let broker = EmbeddedBroker::start(dir.path(), &address).await.unwrap();
    tokio::task::spawn_blocking(move || {
        let seen = || read_partition(&address, "t", 0, "read_committed");
        assert_eq!(values(&seen()), ["committed"]);
        put(&open, "continued").unwrap();
        open.commit_transaction(PATIENCE).unwrap();
        assert_eq!(values(&seen()), ["committed", "open", "continued"]);
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();
}
