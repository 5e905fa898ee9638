//! Creating, growing and deleting topics, and deleting records.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::text;
use crate::broker::Broker;
use crate::error::StorageError;
use crate::frame::{Frame, FrameError};
use crate::log::partition::lock;
use crate::meta::{Change, TopicMeta};
use crate::settings;
use crate::topics::{Topic, valid_name};

/// More partitions per topic make no sense on one node.
const MAX_PARTITIONS: i32 = 1000;

/// Why a change was refused, with a text for the person who asked for it.
pub(super) type Refused = (ResponseError, String);

pub(super) fn storage(error: &StorageError) -> Refused {
    tracing::error!(%error, "storage failed");
    (ResponseError::KafkaStorageError, error.to_string())
}

fn told(result: Result<(), Refused>) -> (i16, Option<String>) {
    match result {
        Ok(()) => (0, None),
        Err((error, message)) => (error.code(), Some(message)),
    }
}

/// Creates topics.
pub(super) fn create_topics(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: CreateTopicsRequest = frame.decode()?;
    let _changing = lock(&broker.topic_changes);
    let topics = request.topics.into_iter().map(|asked| {
        let created = create(broker, &asked, request.validate_only);
        let partitions = created.as_ref().map_or(-1, |p| *p);
        let (error, message) = told(created.map(|_| ()));
        let answer = CreatableTopicResult::default()
            .with_name(asked.name)
            .with_error_code(error)
            .with_error_message(message.map(text));
        if frame.version < 5 {
            return answer;
        }
        let replicas = if error == 0 { 1 } else { -1 };
        answer
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(Some(Vec::new()))
    });
    let topics = topics.collect();
    frame.reply(&CreateTopicsResponse::default().with_topics(topics))
}

fn create(broker: &Broker, asked: &CreatableTopic, validate_only: bool) -> Result<i32, Refused> {
    let name = asked.name.to_string();
    if !valid_name(&name) {
        let message = format!("topic name `{name}` must be 1 to 249 of a-z A-Z 0-9 . _ -");
        return Err((ResponseError::InvalidTopicException, message));
    }
    if broker.topics.get(&name).is_some() {
        return Err((
            ResponseError::TopicAlreadyExists,
            format!("topic `{name}` exists"),
        ));
    }
    let partitions = match asked.num_partitions {
        -1 if !asked.assignments.is_empty() => i32::try_from(asked.assignments.len()).unwrap_or(i32::MAX),
        -1 => broker.config.default_partitions,
        n => n,
    };
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        let message = format!("topic `{name}`: {partitions} partitions; must be 1 to {MAX_PARTITIONS}");
        return Err((ResponseError::InvalidPartitions, message));
    }
    if asked.replication_factor > 1 {
        let message = format!(
            "topic `{name}`: replication factor {}; this broker is a single node, use 1 or -1",
            asked.replication_factor
        );
        return Err((ResponseError::InvalidReplicationFactor, message));
    }
    let mut configs = std::collections::BTreeMap::new();
    for config in &asked.configs {
        let value = config.value.as_ref().map(|v| v.to_string()).unwrap_or_default();
        settings::check(&config.name, &value).map_err(|m| (ResponseError::InvalidConfig, m))?;
        configs.insert(config.name.to_string(), value);
    }
    if validate_only {
        return Ok(partitions);
    }
    let id = broker.journal.meta().next_topic;
    let meta = TopicMeta {
        id,
        name,
        partitions,
        configs,
        log_start: Default::default(),
    };
    let topic = broker
        .topics
        .prepare(&meta, &broker.config)
        .map_err(|e| storage(&e))?;
    broker
        .journal
        .append(vec![Change::Topic(meta)], true)
        .map_err(|e| storage(&e))?;
    broker.topics.put(topic);
    Ok(partitions)
}

/// Deletes topics with their records and the offsets committed for them.
pub(super) fn delete_topics(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: DeleteTopicsRequest = frame.decode()?;
    let _changing = lock(&broker.topic_changes);
    let responses = request.topic_names.into_iter().map(|name| {
        let (error, message) = told(delete(broker, &name));
        let answer = DeletableTopicResult::default()
            .with_name(Some(name))
            .with_error_code(error);
        if frame.version >= 5 {
            answer.with_error_message(message.map(text))
        } else {
            answer
        }
    });
    let responses = responses.collect();
    frame.reply(&DeleteTopicsResponse::default().with_responses(responses))
}

fn delete(broker: &Broker, name: &str) -> Result<(), Refused> {
    if broker.topics.get(name).is_none() {
        return Err((
            ResponseError::UnknownTopicOrPartition,
            format!("topic `{name}` does not exist"),
        ));
    }
    let id = broker.journal.meta().next_topic;
    // The topic's number stays taken even when the journal is rewritten without the topic.
    let changes = vec![
        Change::Ids {
            next_producer: 0,
            next_topic: id,
        },
        Change::TopicDeleted {
            name: name.to_owned(),
        },
    ];
    broker.journal.append(changes, true).map_err(|e| storage(&e))?;
    if let Err(error) = broker.topics.remove(name) {
        // The topic is gone; its folder is swept at the next start.
        tracing::warn!(%error, "could not remove the files of a deleted topic");
    }
    Ok(())
}

/// Adds partitions to topics.
pub(super) fn create_partitions(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: CreatePartitionsRequest = frame.decode()?;
    let _changing = lock(&broker.topic_changes);
    let results = request.topics.into_iter().map(|asked| {
        let (error, message) = told(grow(broker, &asked, request.validate_only));
        CreatePartitionsTopicResult::default()
            .with_name(asked.name)
            .with_error_code(error)
            .with_error_message(message.map(text))
    });
    let results = results.collect();
    frame.reply(&CreatePartitionsResponse::default().with_results(results))
}

fn grow(broker: &Broker, asked: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let name = asked.name.as_str();
    let Some(topic) = broker.topics.get(name) else {
        return Err((
            ResponseError::UnknownTopicOrPartition,
            format!("topic `{name}` does not exist"),
        ));
    };
    if asked.count <= topic.meta.partitions || asked.count > MAX_PARTITIONS {
        let message = format!(
            "topic `{name}` has {} partitions; the new count must be above that and at most {MAX_PARTITIONS}",
            topic.meta.partitions
        );
        return Err((ResponseError::InvalidPartitions, message));
    }
    if validate_only {
        return Ok(());
    }
    let meta = TopicMeta {
        partitions: asked.count,
        ..topic.meta.clone()
    };
    let grown = broker
        .topics
        .prepare(&meta, &broker.config)
        .map_err(|e| storage(&e))?;
    broker
        .journal
        .append(vec![Change::Topic(meta)], true)
        .map_err(|e| storage(&e))?;
    broker.topics.put(grown);
    Ok(())
}

/// Makes records below an offset unreadable and removes segments wholly below it.
pub(super) fn delete_records(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: DeleteRecordsRequest = frame.decode()?;
    let _changing = lock(&broker.topic_changes);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(p.partition_index);
            match cut(broker, &topic.name, p.partition_index, p.offset) {
                Ok(low) => answer.with_low_watermark(low),
                Err((error, _)) => answer.with_low_watermark(-1).with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    let topics = topics.collect();
    frame.reply(&DeleteRecordsResponse::default().with_topics(topics))
}

fn cut(broker: &Broker, name: &str, index: i32, offset: i64) -> Result<i64, Refused> {
    let unknown = || (ResponseError::UnknownTopicOrPartition, String::new());
    let topic = broker.topics.get(name).ok_or_else(unknown)?;
    let partition = topic.partition(index).ok_or_else(unknown)?;
    let ends = partition.ends();
    // -1 stands for everything that can be read.
    let to = if offset == -1 { ends.stable } else { offset };
    if to < 0 || to > ends.stable {
        return Err((ResponseError::OffsetOutOfRange, String::new()));
    }
    let mut meta = topic.meta.clone();
    let start = to.max(ends.start);
    meta.log_start.insert(index, start);
    let changed = Topic::new(meta.clone(), topic.partitions.clone(), &broker.config);
    broker
        .journal
        .append(vec![Change::Topic(meta)], true)
        .map_err(|e| storage(&e))?;
    broker.topics.put(changed);
    partition.delete_before(start).map_err(|e| storage(&e))
}
