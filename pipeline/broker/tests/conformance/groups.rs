//! Consumer groups: sharing, rebalancing, dying members, commit and resume.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use support::raw::Raw;
use support::*;
use wellspring_broker::EmbeddedBroker;

fn assigned(consumer: &BaseConsumer) -> BTreeSet<i32> {
    if let Some(message) = consumer.poll(Duration::from_millis(20)) {
        message.unwrap();
    }
    consumer
        .assignment()
        .unwrap()
        .elements()
        .iter()
        .map(|e| e.partition())
        .collect()
}

/// Polls both members until together they hold all four partitions, two each.
fn share_four(a: &BaseConsumer, b: &BaseConsumer) {
    wait_until("two members share four partitions", || {
        let (of_a, of_b) = (assigned(a), assigned(b));
        of_a.len() == 2 && of_b.len() == 2 && of_a.union(&of_b).count() == 4
    });
}

async fn two_members_share_and_inherit(strategy: &'static str) {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "tasks", 4).await;
    tokio::task::spawn_blocking(move || {
        let settings = [("partition.assignment.strategy", strategy)];
        let a = consumer(&bootstrap, "workers", &settings);
        a.subscribe(&["tasks"]).unwrap();
        wait_until("one member holds all", || assigned(&a).len() == 4);
        let b = consumer(&bootstrap, "workers", &settings);
        b.subscribe(&["tasks"]).unwrap();
        share_four(&a, &b);
        let listed = a
            .fetch_group_list(Some("workers"), Duration::from_secs(20))
            .unwrap();
        assert_eq!(listed.groups()[0].state(), "Stable");
        assert_eq!(listed.groups()[0].members().len(), 2);
        drop(b);
        wait_until("the one left holds all", || assigned(&a).len() == 4);
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn range_members_share_and_inherit() {
    two_members_share_and_inherit("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cooperative_members_share_and_inherit() {
    two_members_share_and_inherit("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_member_is_expelled() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "tasks", 4).await;
    tokio::task::spawn_blocking(move || {
        // Joins, takes all partitions, and is never heard of again, though its connection stays.
        let mut dead = Raw::connect(&bootstrap);
        let mut join = JoinGroupRequest::default();
        join.group_id.0 = StrBytes::from_static_str("workers");
        join.session_timeout_ms = 2000;
        join.protocol_type = StrBytes::from_static_str("consumer");
        let mut range = JoinGroupRequestProtocol::default();
        range.name = StrBytes::from_static_str("range");
        // Version 0, one topic, no user data.
        range.metadata = Bytes::from_static(b"\0\0\0\0\0\x01\0\x05tasks\0\0\0\0");
        join.protocols = vec![range];
        let joined: JoinGroupResponse = dead.ask(ApiKey::JoinGroup, 2, &join);
        assert_eq!(
            (joined.error_code, joined.leader.as_str()),
            (0, joined.member_id.as_str())
        );
        let live = consumer(
            &bootstrap,
            "workers",
            &[("partition.assignment.strategy", "range")],
        );
        live.subscribe(&["tasks"]).unwrap();
        wait_until("the live member holds all", || assigned(&live).len() == 4);
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_outlive_the_consumer_and_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    create_topic(&broker.bootstrap(), "tasks", 1).await;
    let producer = producer(&broker.bootstrap(), &[]);
    for i in 0..10 {
        send(&producer, "tasks", 0, &i.to_string()).await;
    }
    let bootstrap = broker.bootstrap();
    tokio::task::spawn_blocking(move || {
        let first = consumer(&bootstrap, "workers", &[]);
        first.subscribe(&["tasks"]).unwrap();
        read(&first, 4);
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset("tasks", 0, Offset::Offset(4))
            .unwrap();
        if let Some(mut element) = offsets.find_partition("tasks", 0) {
            element.set_metadata("after the fourth");
        }
        first.commit(&offsets, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();

    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let bootstrap = broker.bootstrap();
    tokio::task::spawn_blocking(move || {
        let second = consumer(&bootstrap, "workers", &[]);
        second.subscribe(&["tasks"]).unwrap();
        assert_eq!(read(&second, 6), ["4", "5", "6", "7", "8", "9"]);
        let committed = second.committed(Duration::from_secs(20)).unwrap();
        let element = committed.find_partition("tasks", 0).unwrap();
        assert_eq!(
            (element.offset(), element.metadata()),
            (Offset::Offset(4), "after the fourth")
        );
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_an_older_generation_may_not_commit() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "tasks", 1).await;
    tokio::task::spawn_blocking(move || {
        let member = consumer(&bootstrap, "workers", &[]);
        member.subscribe(&["tasks"]).unwrap();
        wait_until("it is a member", || assigned(&member).len() == 1);
        // Not a member: it only knows the group's name.
        let outsider = consumer(&bootstrap, "workers", &[]);
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset("tasks", 0, Offset::Offset(7))
            .unwrap();
        let error = outsider.commit(&offsets, CommitMode::Sync).unwrap_err();
        assert_eq!(
            error.rdkafka_error_code(),
            Some(rdkafka::types::RDKafkaErrorCode::UnknownMemberId)
        );
        member.commit(&offsets, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_deleted_only_when_empty() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(dir.path(), "127.0.0.1:0").await.unwrap();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "tasks", 1).await;
    let consuming = bootstrap.clone();
    let member = tokio::task::spawn_blocking(move || {
        let member = consumer(&consuming, "workers", &[]);
        member.subscribe(&["tasks"]).unwrap();
        wait_until("it is a member", || assigned(&member).len() == 1);
        member
    });
    let member = member.await.unwrap();
    let admin: AdminClient<DefaultClientContext> = client(&bootstrap).create().unwrap();
    let refused = admin
        .delete_groups(&["workers"], &AdminOptions::new())
        .await
        .unwrap();
    assert_eq!(
        refused[0].as_ref().unwrap_err().1,
        rdkafka::types::RDKafkaErrorCode::NonEmptyGroup
    );
    tokio::task::spawn_blocking(move || {
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset("tasks", 0, Offset::Offset(0))
            .unwrap();
        member.commit(&offsets, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    let deleted = admin
        .delete_groups(&["workers"], &AdminOptions::new())
        .await
        .unwrap();
    assert!(deleted[0].is_ok());
    broker.shutdown().await.unwrap();
}
