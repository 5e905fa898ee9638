//! Transactions: committed is seen, aborted and open are not, the old owner is fenced, offsets go with the records.

use std::collections::BTreeSet;

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::support::copy::copy;
use crate::support::*;

pub(crate) fn committed_is_seen_and_aborted_is_not(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let producer = kafka.transactional("p", 60_000);
    for (value, commit) in [("a", true), ("b", false), ("c", true), ("d", false)] {
        producer.begin_transaction().unwrap();
        kafka.put(&producer, &topic, 0, value);
        kafka.put(&producer, &topic, 0, value);
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }
    assert_eq!(kafka.committed(&topic, 0), ["a", "a", "c", "c"]);
    let all = kafka.records(&topic, 0, "read_uncommitted");
    let all: Vec<String> = all.iter().map(text).collect();
    assert_eq!(all, ["a", "a", "b", "b", "c", "c", "d", "d"]);
}

pub(crate) fn an_open_transaction_holds_back_what_follows(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let open = kafka.transactional("open", 60_000);
    let plain = kafka.producer(&[]);
    kafka.put(&plain, &topic, 0, "before");
    open.begin_transaction().unwrap();
    kafka.put(&open, &topic, 0, "inside");
    kafka.put(&plain, &topic, 0, "after");
    assert_eq!(kafka.committed(&topic, 0), ["before"]);
    assert_eq!(kafka.watermarks(&topic, 0), (0, 1));
    open.commit_transaction(PATIENCE).unwrap();
    wait_until("the marker is there", || kafka.committed(&topic, 0).len() == 3);
    assert_eq!(kafka.committed(&topic, 0), ["before", "inside", "after"]);
}

pub(crate) fn a_new_owner_fences_the_old_and_aborts_its_transaction(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let old = kafka.transactional("p", 60_000);
    old.begin_transaction().unwrap();
    kafka.put(&old, &topic, 0, "old");
    let new = kafka.transactional("p", 60_000);
    new.begin_transaction().unwrap();
    kafka.put(&new, &topic, 0, "new");
    new.commit_transaction(PATIENCE).unwrap();
    let code = old.commit_transaction(PATIENCE).unwrap_err().rdkafka_error_code();
    assert!(
        matches!(code, Some(Code::Fenced | Code::InvalidProducerEpoch)),
        "{code:?}"
    );
    wait_until("the marker is there", || !kafka.committed(&topic, 0).is_empty());
    assert_eq!(kafka.committed(&topic, 0), ["new"]);
}

pub(crate) fn a_transaction_past_its_timeout_is_aborted(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let slow = kafka.transactional("slow", 1500);
    slow.begin_transaction().unwrap();
    kafka.put(&slow, &topic, 0, "slow");
    kafka.put(&kafka.producer(&[]), &topic, 0, "plain");
    wait_until("the stuck transaction no longer holds back others", || {
        kafka.committed(&topic, 0) == ["plain"]
    });
    assert!(slow.commit_transaction(PATIENCE).is_err());
    assert_eq!(kafka.committed(&topic, 0), ["plain"]);
}

pub(crate) fn offsets_commit_and_abort_with_their_transaction(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let plain = kafka.producer(&[]);
    for i in 0..4 {
        kafka.put(&plain, &topic, 0, &i.to_string());
    }
    let worker = kafka.consumer("workers", &[]);
    worker.subscribe(&[&topic]).unwrap();
    read(&worker, 4);
    let producer = kafka.transactional("p", 60_000);
    let stage = |offset: i64| {
        let member = worker.group_metadata().unwrap();
        producer.begin_transaction().unwrap();
        producer
            .send_offsets_to_transaction(&at(&topic, 0, offset), &member, PATIENCE)
            .unwrap();
    };
    stage(1);
    producer.commit_transaction(PATIENCE).unwrap();
    wait_until("the offset is committed", || {
        committed_offset(&worker, &topic, 0) == Offset::Offset(1)
    });
    stage(3);
    producer.abort_transaction(PATIENCE).unwrap();
    assert_eq!(committed_offset(&worker, &topic, 0), Offset::Offset(1));
}

pub(crate) fn offsets_of_a_member_that_was_replaced_are_refused(kafka: &Kafka) {
    let topic = kafka.topic("t", 2, &[]);
    let worker = kafka.consumer("workers", &[]);
    worker.subscribe(&[&topic]).unwrap();
    wait_until("it is a member", || {
        poll(&worker, 20);
        worker.assignment().unwrap().count() == 2
    });
    let stale = worker.group_metadata().unwrap();
    drop(worker);
    let producer = kafka.transactional("p", 60_000);
    producer.begin_transaction().unwrap();
    let refused = producer.send_offsets_to_transaction(&at(&topic, 0, 1), &stale, PATIENCE);
    assert!(refused.is_err());
    producer.abort_transaction(PATIENCE).unwrap();
}

/// The first worker dies with a transaction open; the next one of its name aborts that and goes on.
pub(crate) fn copying_in_transactions_is_exactly_once(kafka: &Kafka) {
    let (input, output) = (kafka.topic("in", 2, &[]), kafka.topic("out", 2, &[]));
    let feeder = kafka.producer(&[("enable.idempotence", "true")]);
    let values: Vec<String> = (0..300).map(|i| format!("{i:03}")).collect();
    for (partition, half) in (0..2).zip(values.chunks(150)) {
        let records = half.iter().map(|value| {
            FutureRecord::to(&input)
                .partition(partition)
                .key("k")
                .payload(value.as_str())
        });
        kafka.put_all(&feeder, records);
    }
    copy(kafka, &input, &output, 2, 300);
    copy(kafka, &input, &output, usize::MAX, 300);
    let mut seen = BTreeSet::new();
    wait_until("the last marker is there", || {
        seen = (0..2).flat_map(|p| kafka.committed(&output, p)).collect();
        seen.len() == 300
    });
    let count: usize = (0..2).map(|p| kafka.committed(&output, p).len()).sum();
    assert_eq!(count, 300, "each value came once");
}
