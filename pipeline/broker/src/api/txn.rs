//! Transaction requests.

use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::{code, offsets};
use crate::broker::Broker;
use crate::frame::{Frame, FrameError};
use crate::groups::Speaker;
use crate::log::partition::lock;
use crate::meta::Committed;
use crate::transactions::Producer;

/// The code for a fenced producer, which older versions of a request do not know.
fn fenced(error: ResponseError, knows_from: i16, version: i16) -> ResponseError {
    if error == ResponseError::ProducerFenced && version < knows_from {
        ResponseError::InvalidProducerEpoch
    } else {
        error
    }
}

/// Gives out a producer id and epoch.
pub(super) fn init_producer_id(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: InitProducerIdRequest = frame.decode()?;
    let known = (*request.producer_id >= 0).then_some((*request.producer_id, request.producer_epoch));
    let given = match &request.transactional_id {
        None => broker.new_producer_id().map(|id| (id, 0)).map_err(|error| {
            tracing::error!(%error, "could not reserve producer ids");
            ResponseError::CoordinatorNotAvailable
        }),
        Some(id) if id.is_empty() => Err(ResponseError::InvalidRequest),
        Some(id) => broker
            .transactions
            .init(broker, id, request.transaction_timeout_ms, known),
    };
    let answer = match given {
        Ok((id, epoch)) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(fenced(error, 4, frame.version).code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    };
    frame.reply(&answer)
}

/// Adds partitions to a transaction: all of them, or none if one does not exist.
pub(super) fn add_partitions(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: AddPartitionsToTxnRequest = frame.decode()?;
    let asked: Vec<(String, i32)> = request
        .v3_and_below_topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(|p| (t.name.to_string(), *p)))
        .collect();
    let exists = |topic: &str, index: i32| broker.topics.partition(topic, index).is_some();
    let all_exist = asked.iter().all(|(topic, index)| exists(topic, *index));
    let verdict = if all_exist {
        let producer = Producer {
            transactional_id: &request.v3_and_below_transactional_id,
            id: *request.v3_and_below_producer_id,
            epoch: request.v3_and_below_producer_epoch,
        };
        broker
            .transactions
            .add(broker, producer, asked, None)
            .map_err(|e| fenced(e, 2, frame.version))
    } else {
        Err(ResponseError::OperationNotAttempted)
    };
    let shared = code(verdict);
    let topics = request.v3_and_below_topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            let error = if exists(&topic.name, *index) {
                shared
            } else {
                ResponseError::UnknownTopicOrPartition.code()
            };
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(error)
        });
        let partitions = partitions.collect();
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name)
            .with_results_by_partition(partitions)
    });
    let topics = topics.collect();
    frame.reply(&AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics))
}

/// Announces that offsets of a group will be committed with a transaction.
pub(super) fn add_offsets(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: AddOffsetsToTxnRequest = frame.decode()?;
    let producer = Producer {
        transactional_id: &request.transactional_id,
        id: *request.producer_id,
        epoch: request.producer_epoch,
    };
    let group = Some(request.group_id.to_string());
    let verdict = broker.transactions.add(broker, producer, Vec::new(), group);
    let verdict = verdict.map_err(|e| fenced(e, 2, frame.version));
    frame.reply(&AddOffsetsToTxnResponse::default().with_error_code(code(verdict)))
}

/// Stages offsets of a group, if the consumer they come from still belongs to it.
pub(super) fn commit_offsets(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: TxnOffsetCommitRequest = frame.decode()?;
    let offsets: Vec<Committed> = request
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|p| Committed {
                topic: topic.name.to_string(),
                partition: p.partition_index,
                offset: p.committed_offset,
                leader_epoch: p.committed_leader_epoch,
                metadata: p.committed_metadata.as_ref().map(|m| m.to_string()),
                at_ms: crate::now_ms(),
            })
        })
        .collect();
    let refused = offsets.iter().find_map(|c| offsets::check(broker, c).err());
    let producer = Producer {
        transactional_id: &request.transactional_id,
        id: *request.producer_id,
        epoch: request.producer_epoch,
    };
    let speaker = Speaker {
        member: &request.member_id,
        generation: request.generation_id,
        instance: request.group_instance_id.as_ref().map(|i| i.as_str()),
    };
    let group = request.group_id.as_str();
    let allowed = || match refused {
        Some(error) => Err(error),
        None => lock(&broker.groups).may_commit(group, speaker, true, Instant::now()),
    };
    let error = code(
        broker
            .transactions
            .stage_offsets(broker, producer, group, offsets, allowed),
    );
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(p.partition_index)
                .with_error_code(error)
        });
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    frame.reply(&TxnOffsetCommitResponse::default().with_topics(topics.collect()))
}

/// Commits or aborts a transaction.
pub(super) fn end(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: EndTxnRequest = frame.decode()?;
    let producer = Producer {
        transactional_id: &request.transactional_id,
        id: *request.producer_id,
        epoch: request.producer_epoch,
    };
    let verdict = broker.transactions.end(broker, producer, request.committed);
    let verdict = verdict.map_err(|e| fenced(e, 2, frame.version));
    frame.reply(&EndTxnResponse::default().with_error_code(code(verdict)))
}
