//! Topics are created, grown, configured, emptied and deleted; what cannot be is refused.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};
use kafka_protocol::protocol::StrBytes;
use rdkafka::admin::{AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::consumer::Consumer;
use rdkafka::producer::FutureRecord;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::support::raw::Raw;
use crate::support::*;

fn partitions(kafka: &Kafka, topic: &str) -> usize {
    let metadata = kafka
        .consumer("asks", &[])
        .fetch_metadata(Some(topic), PATIENCE)
        .unwrap();
    metadata.topics()[0].partitions().len()
}

fn delete(kafka: &Kafka, topic: &str) -> Result<(), Code> {
    let admin = kafka.admin();
    let deleted = kafka
        .runtime
        .block_on(admin.delete_topics(&[topic], &AdminOptions::new()));
    deleted.unwrap().remove(0).map(|_| ()).map_err(|(_, code)| code)
}

/// Replaces all settings of a topic.
pub(crate) fn alter(kafka: &Kafka, topic: &str, settings: &[(&str, &str)]) {
    let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (key, value) in settings {
        config = config.set(key, value);
    }
    let admin = kafka.admin();
    let altered = kafka
        .runtime
        .block_on(admin.alter_configs([&config], &AdminOptions::new()));
    altered.unwrap().remove(0).unwrap();
}

/// The error code of a change of one setting, asked for by hand: the rdkafka crate does not show it.
fn refusal(kafka: &Kafka, topic: &str, name: &str, value: &str) -> i16 {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_string(name.to_owned()))
        .with_value(Some(StrBytes::from_string(value.to_owned())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let answer: AlterConfigsResponse = Raw::connect(&kafka.bootstrap).ask(ApiKey::AlterConfigs, 1, &request);
    answer.responses[0].error_code
}

/// A topic's setting, and whether it is a default.
fn setting(kafka: &Kafka, topic: &str, name: &str) -> (String, bool) {
    let admin = kafka.admin();
    let asked = ResourceSpecifier::Topic(topic);
    let shown = kafka
        .runtime
        .block_on(admin.describe_configs([&asked], &AdminOptions::new()));
    let shown = shown.unwrap().remove(0).unwrap();
    let entry = shown.get(name).unwrap();
    (entry.value.clone().unwrap(), entry.is_default)
}

pub(crate) fn topics_that_cannot_be_are_refused(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let more_copies = kafka.nodes + 1;
    let create = |name: &str, partitions, copies, settings: &[(&str, &str)]| {
        kafka
            .try_create_topic(name, partitions, copies, settings)
            .unwrap_err()
    };
    let other = kafka.name("u");
    assert_eq!(create(&topic, 1, 1, &[]), Code::TopicAlreadyExists);
    assert_eq!(create("no spaces", 1, 1, &[]), Code::InvalidTopic);
    assert_eq!(
        create(&other, 1, more_copies, &[]),
        Code::InvalidReplicationFactor
    );
    assert_eq!(create(&other, 0, 1, &[]), Code::InvalidPartitions);
    let refused = |name, value| assert_eq!(create(&other, 1, 1, &[(name, value)]), Code::InvalidConfig);
    refused("no.such.setting", "1");
    refused("retention.ms", "soon");
    refused("retention.ms", "-2");
    refused("cleanup.policy", "tidy");
    assert_eq!(delete(kafka, &other), Err(Code::UnknownTopicOrPartition));
}

pub(crate) fn topics_grow(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let producer = kafka.producer(&[]);
    kafka.put(&producer, &topic, 0, "one");
    let grow = |to| {
        let admin = kafka.admin();
        let grown = kafka
            .runtime
            .block_on(admin.create_partitions(&[NewPartitions::new(&topic, to)], &AdminOptions::new()));
        grown.unwrap().remove(0).map(|_| ()).map_err(|(_, code)| code)
    };
    grow(3).unwrap();
    wait_until("there are three partitions", || partitions(kafka, &topic) == 3);
    assert_eq!(grow(2), Err(Code::InvalidPartitions));
    let producer = kafka.producer(&[]);
    kafka.put(&producer, &topic, 2, "two");
    assert_eq!(kafka.committed(&topic, 0), ["one"]);
    assert_eq!(kafka.committed(&topic, 2), ["two"]);
}

/// librdkafka asks for all topics with three bytes too many, which the embedded broker once took for a broken request.
pub(crate) fn all_topics_are_listed(kafka: &Kafka) {
    let (one, other) = (kafka.topic("t", 1, &[]), kafka.topic("u", 2, &[]));
    let consumer = kafka.consumer("lists", &[]);
    let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
    let partitions = |name: &str| {
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        found.unwrap().partitions().len()
    };
    assert_eq!((partitions(&one), partitions(&other)), (1, 2));
}

pub(crate) fn settings_are_shown_and_changed(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[("retention.ms", "60000")]);
    let own = |value: &str| (value.to_owned(), false);
    assert_eq!(setting(kafka, &topic, "retention.ms"), own("60000"));
    assert_eq!(
        setting(kafka, &topic, "cleanup.policy"),
        ("delete".to_owned(), true)
    );
    alter(kafka, &topic, &[("max.message.bytes", "1000")]);
    wait_until("the new setting is shown", || {
        setting(kafka, &topic, "max.message.bytes") == own("1000")
    });
    assert!(
        setting(kafka, &topic, "retention.ms").1,
        "what is not named returns to its default"
    );
    let producer = kafka.producer(&[]);
    let value = "x".repeat(2000);
    let record = FutureRecord::<(), str>::to(&topic).payload(&value);
    assert_eq!(
        kafka.try_put(&producer, record),
        Err(Code::MessageSizeTooLarge),
        "the new setting acts"
    );
    let (invalid, unknown) = (
        ResponseError::InvalidConfig,
        ResponseError::UnknownTopicOrPartition,
    );
    assert_eq!(refusal(kafka, &topic, "retention.ms", "soon"), invalid.code());
    assert_eq!(refusal(kafka, &topic, "no.such.setting", "1"), invalid.code());
    assert_eq!(
        refusal(kafka, &kafka.name("u"), "retention.ms", "1"),
        unknown.code()
    );
}

pub(crate) fn deleted_topics_begin_anew(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let producer = kafka.producer(&[]);
    kafka.put(&producer, &topic, 0, "old");
    delete(kafka, &topic).unwrap();
    wait_until("it is gone", || {
        delete(kafka, &topic) == Err(Code::UnknownTopicOrPartition)
    });
    wait_until("its name is free", || {
        kafka.try_create_topic(&topic, 1, 1, &[]).is_ok()
    });
    // A new producer, for the old one goes on counting where it was.
    let producer = kafka.producer(&[]);
    assert_eq!(kafka.put(&producer, &topic, 0, "new"), 0);
    assert_eq!(kafka.committed(&topic, 0), ["new"]);
}

pub(crate) fn deleted_records_stay_deleted(kafka: &Kafka) {
    let topic = kafka.topic("t", 1, &[]);
    let producer = kafka.producer(&[]);
    for value in ["a", "b", "c"] {
        kafka.put(&producer, &topic, 0, value);
    }
    let admin = kafka.admin();
    let cut = |to| {
        let cut = at(&topic, 0, to);
        let deleted = kafka
            .runtime
            .block_on(admin.delete_records(&cut, &AdminOptions::new()));
        deleted.unwrap().elements()[0].error()
    };
    cut(2).unwrap();
    assert_eq!(kafka.watermarks(&topic, 0), (2, 3));
    assert_eq!(kafka.committed(&topic, 0), ["c"]);
    let beyond = cut(9).unwrap_err().rdkafka_error_code();
    assert_eq!(beyond, Some(Code::OffsetOutOfRange));
    cut(3).unwrap();
    assert_eq!(kafka.watermarks(&topic, 0), (3, 3));
    assert_eq!(kafka.put(&producer, &topic, 0, "d"), 3);
}
