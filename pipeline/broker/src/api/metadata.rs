//! What the broker is and has: versions, nodes, topics, coordinators.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::find_coordinator_response::FindCoordinatorResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName,
};

use super::text;
use crate::broker::{Broker, NODE_ID};
use crate::frame::{Frame, FrameError, SERVED};
use crate::topics::{Topic, valid_name};

/// Which requests are served in which versions; a client that asks in too new a version is told so
/// in version 0.
pub(super) fn api_versions(frame: &Frame) -> Result<Bytes, FrameError> {
    let error = if frame.version < 0 {
        ResponseError::UnsupportedVersion.code()
    } else {
        0
    };
    let keys = SERVED.iter().map(|(api, min, max)| {
        ApiVersion::default()
            .with_api_key(*api as i16)
            .with_min_version(*min)
            .with_max_version(*max)
    });
    frame.reply(
        &ApiVersionsResponse::default()
            .with_error_code(error)
            .with_api_keys(keys.collect()),
    )
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.meta.partitions).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(0)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.meta.name.as_str()))))
        .with_partitions(partitions.collect())
}

/// Topics and their partitions, all led by the one node.
pub(super) fn metadata(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: MetadataRequest = frame.decode()?;
    let topics = match request.topics {
        // In version 0 an empty list asks for all topics, later a null list does.
        Some(asked) if !(asked.is_empty() && frame.version == 0) => asked
            .into_iter()
            .map(|t| {
                let name = t.name.unwrap_or_default();
                match broker.topics.get(&name) {
                    Some(topic) => describe(&topic),
                    None => {
                        let error = if valid_name(&name) {
                            ResponseError::UnknownTopicOrPartition
                        } else {
                            ResponseError::InvalidTopicException
                        };
                        MetadataResponseTopic::default()
                            .with_error_code(error.code())
                            .with_name(Some(name))
                    }
                }
            })
            .collect(),
        _ => broker.topics.all().iter().map(|t| describe(t)).collect(),
    };
    let node = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(text(broker.advertised().ip().to_string()))
        .with_port(broker.advertised().port().into());
    let answer = MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(text(broker.cluster_id.as_str())))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics);
    frame.reply(&answer)
}

/// Every group and transaction is coordinated here.
pub(super) fn find_coordinator(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let _: FindCoordinatorRequest = frame.decode()?;
    let answer = FindCoordinatorResponse::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(text(broker.advertised().ip().to_string()))
        .with_port(broker.advertised().port().into());
    frame.reply(&answer)
}
