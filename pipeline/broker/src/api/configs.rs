//! Topic configuration: shown and changed. What it may be, and what it does, is in `settings`.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, incremental_alter_configs_response,
};

use super::admin::{Refused, storage};
use super::text;
use crate::broker::Broker;
use crate::frame::{Frame, FrameError};
use crate::log::partition::lock;
use crate::meta::{Change, TopicMeta};
use crate::settings::{KNOWN, check, default_of};
use crate::topics::Topic;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Where a shown value comes from: the topic, or a default.
const FROM_TOPIC: i8 = 1;
const FROM_DEFAULT: i8 = 5;

fn entries(broker: &Broker, topic: &Topic) -> Vec<(&'static str, String, bool)> {
    let entry = |name: &'static str| match topic.meta.configs.get(name) {
        Some(own) => (name, own.clone(), false),
        None => (name, default_of(&broker.config, name), true),
    };
    KNOWN.iter().map(|known| entry(known.0)).collect()
}

/// Shows the settings of topics, and those of the broker that have a name in Kafka.
pub(super) fn describe(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: DescribeConfigsRequest = frame.decode()?;
    let results = request.resources.into_iter().map(|asked| {
        let answer = DescribeConfigsResult::default().with_resource_type(asked.resource_type);
        let found = match asked.resource_type {
            TOPIC => broker
                .topics
                .get(&asked.resource_name)
                .map(|t| entries(broker, &t)),
            BROKER => Some(vec![
                ("auto.create.topics.enable", "false".to_owned(), true),
                (
                    "message.max.bytes",
                    broker.config.message_max_bytes.to_string(),
                    true,
                ),
                (
                    "num.partitions",
                    broker.config.default_partitions.to_string(),
                    true,
                ),
            ]),
            _ => None,
        };
        let Some(found) = found else {
            let known = matches!(asked.resource_type, TOPIC);
            let error = if known {
                ResponseError::UnknownTopicOrPartition
            } else {
                ResponseError::InvalidRequest
            };
            return answer
                .with_resource_name(asked.resource_name)
                .with_error_code(error.code());
        };
        let wanted = |name: &str| {
            asked
                .configuration_keys
                .as_ref()
                .is_none_or(|keys| keys.iter().any(|k| k.as_str() == name))
        };
        let configs = found
            .into_iter()
            .filter(|(name, ..)| wanted(name))
            .map(|(name, value, default)| {
                DescribeConfigsResourceResult::default()
                    .with_name(text(name))
                    .with_value(Some(text(value)))
                    .with_read_only(asked.resource_type == BROKER)
                    .with_config_source(if default { FROM_DEFAULT } else { FROM_TOPIC })
            });
        let configs = configs.collect();
        answer
            .with_resource_name(asked.resource_name)
            .with_configs(configs)
    });
    let results = results.collect();
    frame.reply(&DescribeConfigsResponse::default().with_results(results))
}

/// Replaces a topic's settings.
fn replace(
    broker: &Broker,
    resource_type: i8,
    name: &str,
    validate_only: bool,
    change: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    if resource_type != TOPIC {
        return Err((
            ResponseError::InvalidRequest,
            "only topics have settings that can be changed".to_owned(),
        ));
    }
    let _changing = lock(&broker.topic_changes);
    let Some(topic) = broker.topics.get(name) else {
        return Err((
            ResponseError::UnknownTopicOrPartition,
            format!("topic `{name}` does not exist"),
        ));
    };
    let mut configs = topic.meta.configs.clone();
    change(&mut configs)?;
    configs
        .iter()
        .try_for_each(|(name, value)| check(name, value))
        .map_err(|message| (ResponseError::InvalidConfig, message))?;
    if validate_only {
        return Ok(());
    }
    let meta = TopicMeta {
        configs,
        ..topic.meta.clone()
    };
    broker
        .journal
        .append(vec![Change::Topic(meta.clone())], true)
        .map_err(|e| storage(&e))?;
    broker
        .topics
        .put(Topic::new(meta, topic.partitions.clone(), &broker.config));
    Ok(())
}

/// Sets all settings of topics at once; those not named return to their defaults.
pub(super) fn alter(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: AlterConfigsRequest = frame.decode()?;
    let responses = request.resources.into_iter().map(|asked| {
        let result = replace(
            broker,
            asked.resource_type,
            &asked.resource_name,
            request.validate_only,
            |configs| {
                let own = asked
                    .configs
                    .iter()
                    .filter_map(|c| c.value.as_ref().map(|v| (c.name.to_string(), v.to_string())));
                *configs = own.collect();
                Ok(())
            },
        );
        let (error, message) = result.err().map_or((0, None), |(e, m)| (e.code(), Some(text(m))));
        AlterConfigsResourceResponse::default()
            .with_error_code(error)
            .with_error_message(message)
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name)
    });
    let responses = responses.collect();
    frame.reply(&AlterConfigsResponse::default().with_responses(responses))
}

/// Sets (0) or clears (1) single settings; lists (2, 3: append, subtract) are not supported.
pub(super) fn alter_incrementally(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: IncrementalAlterConfigsRequest = frame.decode()?;
    let responses = request.resources.into_iter().map(|asked| {
        let result = replace(
            broker,
            asked.resource_type,
            &asked.resource_name,
            request.validate_only,
            |configs| {
                for config in &asked.configs {
                    match (config.config_operation, &config.value) {
                        (0, Some(value)) => configs.insert(config.name.to_string(), value.to_string()),
                        (1, _) => configs.remove(config.name.as_str()),
                        _ => {
                            let message = format!("`{}` can only be set or deleted", config.name.as_str());
                            return Err((ResponseError::InvalidRequest, message));
                        }
                    };
                }
                Ok(())
            },
        );
        let (error, message) = result.err().map_or((0, None), |(e, m)| (e.code(), Some(text(m))));
        incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(error)
            .with_error_message(message)
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name)
    });
    let responses = responses.collect();
    frame.reply(&IncrementalAlterConfigsResponse::default().with_responses(responses))
}
