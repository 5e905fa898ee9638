//! Consumer groups: sharing, rebalancing, dying and returning members, commit and resume.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use rdkafka::Offset;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::support::raw::Raw;
use crate::support::*;

fn assigned(consumer: &BaseConsumer) -> BTreeSet<i32> {
    poll(consumer, 20);
    let assignment = consumer.assignment().unwrap();
    assignment.elements().iter().map(|e| e.partition()).collect()
}

/// Polls both members until together they hold all four partitions, two each.
fn share_four(a: &BaseConsumer, b: &BaseConsumer) {
    wait_until("two members share four partitions", || {
        let (of_a, of_b) = (assigned(a), assigned(b));
        of_a.len() == 2 && of_b.len() == 2 && of_a.union(&of_b).count() == 4
    });
}

fn two_members_share_and_inherit(kafka: &Kafka, strategy: &str) {
    let topic = kafka.topic("tasks", 4, &[]);
    let settings = [("partition.assignment.strategy", strategy)];
    let a = kafka.consumer("workers", &settings);
    a.subscribe(&[&topic]).unwrap();
    wait_until("one member holds all", || assigned(&a).len() == 4);
    let b = kafka.consumer("workers", &settings);
    b.subscribe(&[&topic]).unwrap();
    share_four(&a, &b);
    let group = kafka.name("workers");
    wait_until("the group is stable", || {
        let listed = a.fetch_group_list(Some(&group), PATIENCE).unwrap();
        listed.groups()[0].state() == "Stable" && listed.groups()[0].members().len() == 2
    });
    drop(b);
    wait_until("the one left holds all", || assigned(&a).len() == 4);
}

pub(crate) fn range_members_share_and_inherit(kafka: &Kafka) {
    two_members_share_and_inherit(kafka, "range");
}

pub(crate) fn cooperative_members_share_and_inherit(kafka: &Kafka) {
    two_members_share_and_inherit(kafka, "cooperative-sticky");
}

pub(crate) fn a_silent_member_is_expelled(kafka: &Kafka) {
    let topic = kafka.topic("tasks", 4, &[]);
    let live = kafka.consumer("workers", &[("partition.assignment.strategy", "range")]);
    // A question about the group, so that it is known where the group is led before the raw client asks.
    committed_offset(&live, &topic, 0);
    // Joins, takes all partitions, and is never heard of again, though its connection stays.
    let mut dead = Raw::connect(&kafka.bootstrap);
    let mut metadata = b"\0\0\0\0\0\x01".to_vec();
    // Version 0, one topic, no user data.
    metadata.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    metadata.extend_from_slice(topic.as_bytes());
    metadata.extend_from_slice(&[0; 4]);
    let range = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(Bytes::from(metadata));
    let mut join = JoinGroupRequest::default()
        .with_session_timeout_ms(2000)
        .with_rebalance_timeout_ms(2000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![range]);
    join.group_id.0 = StrBytes::from_string(kafka.name("workers"));
    let joined: JoinGroupResponse = dead.ask(ApiKey::JoinGroup, 2, &join);
    assert_eq!(
        (joined.error_code, joined.leader.as_str()),
        (0, joined.member_id.as_str())
    );
    live.subscribe(&[&topic]).unwrap();
    wait_until("the live member holds all", || assigned(&live).len() == 4);
}

pub(crate) fn a_static_member_that_returns_keeps_its_partitions(kafka: &Kafka) {
    let topic = kafka.topic("tasks", 4, &[]);
    let member = |instance: &str| {
        let settings = [("group.instance.id", instance), ("session.timeout.ms", "30000")];
        let member = kafka.consumer("workers", &settings);
        member.subscribe(&[&topic]).unwrap();
        member
    };
    let (a, b) = (member("a"), member("b"));
    share_four(&a, &b);
    let (of_a, of_b) = (assigned(&a), assigned(&b));
    // A static member does not say goodbye.
    drop(b);
    let b = member("b");
    wait_until("the member that returns has what it had", || {
        assert_eq!(assigned(&a), of_a, "the other one is not disturbed");
        assigned(&b) == of_b
    });
}

pub(crate) fn commits_outlive_the_consumer(kafka: &Kafka) {
    let topic = kafka.topic("tasks", 1, &[]);
    let producer = kafka.producer(&[]);
    for i in 0..10 {
        kafka.put(&producer, &topic, 0, &i.to_string());
    }
    let first = kafka.consumer("workers", &[]);
    first.subscribe(&[&topic]).unwrap();
    read(&first, 4);
    let offsets = at(&topic, 0, 4);
    if let Some(mut element) = offsets.find_partition(&topic, 0) {
        element.set_metadata("after the fourth");
    }
    first.commit(&offsets, CommitMode::Sync).unwrap();
    drop(first);

    let second = kafka.consumer("workers", &[]);
    second.subscribe(&[&topic]).unwrap();
    assert_eq!(read(&second, 6), ["4", "5", "6", "7", "8", "9"]);
    let committed = second.committed(PATIENCE).unwrap();
    let element = committed.find_partition(&topic, 0).unwrap();
    assert_eq!(
        (element.offset(), element.metadata()),
        (Offset::Offset(4), "after the fourth")
    );
}

pub(crate) fn an_outsider_may_not_commit(kafka: &Kafka) {
    let topic = kafka.topic("tasks", 1, &[]);
    let member = kafka.consumer("workers", &[]);
    member.subscribe(&[&topic]).unwrap();
    wait_until("it is a member", || assigned(&member).len() == 1);
    // Not a member: it only knows the group's name.
    let outsider = kafka.consumer("workers", &[]);
    let offsets = at(&topic, 0, 7);
    let error = outsider.commit(&offsets, CommitMode::Sync).unwrap_err();
    assert_eq!(error.rdkafka_error_code(), Some(Code::UnknownMemberId));
    member.commit(&offsets, CommitMode::Sync).unwrap();
    // Once the group is empty, whoever knows its name may set its offsets.
    drop(member);
    wait_until("the member is gone", || {
        outsider
            .commit(&at(&topic, 0, 8), CommitMode::Sync)
            .is_ok_and(|()| committed_offset(&outsider, &topic, 0) == Offset::Offset(8))
    });
}

pub(crate) fn groups_are_deleted_only_when_empty(kafka: &Kafka) {
    let topic = kafka.topic("tasks", 1, &[]);
    let member = kafka.consumer("workers", &[]);
    member.subscribe(&[&topic]).unwrap();
    wait_until("it is a member", || assigned(&member).len() == 1);
    let (admin, group) = (kafka.admin(), kafka.name("workers"));
    let delete = || {
        let deleted = kafka
            .runtime
            .block_on(admin.delete_groups(&[&group], &AdminOptions::new()));
        deleted.unwrap().remove(0).map(|_| ()).map_err(|(_, code)| code)
    };
    assert_eq!(delete(), Err(Code::NonEmptyGroup));
    member.commit(&at(&topic, 0, 0), CommitMode::Sync).unwrap();
    drop(member);
    wait_until("the group is empty", || delete() == Ok(()));
    let asks = kafka.consumer("workers", &[]);
    assert_eq!(committed_offset(&asks, &topic, 0), Offset::Invalid);
    drop(asks);
    assert_eq!(delete(), Err(Code::GroupIdNotFound));
}
