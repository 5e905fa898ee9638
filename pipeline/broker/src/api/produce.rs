//! Produce: checks each batch and appends it.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use crate::broker::Broker;
use crate::frame::{Frame, FrameError};
use crate::log::batch::{BatchHeader, BatchProblem};
use crate::log::partition::{AppendError, Partition};
use crate::log::producers::Refusal;
use crate::log::records::Records;
use crate::topics::Topic;
use crate::transactions::Producer;

/// Appends every batch; with `acks` 0 nothing is answered.
pub(super) async fn produce(broker: &Arc<Broker>, frame: Frame) -> Result<Option<Bytes>, FrameError> {
    let request: ProduceRequest = frame.decode()?;
    let silent = request.acks == 0;
    let worker = Arc::clone(broker);
    let answer = tokio::task::spawn_blocking(move || append_all(&worker, request)).await?;
    if silent {
        Ok(None)
    } else {
        frame.reply(&answer).map(Some)
    }
}

fn append_all(broker: &Broker, request: ProduceRequest) -> ProduceResponse {
    let transactional_id = request.transactional_id.as_ref().map(|id| id.as_str());
    let topics = request.topic_data.into_iter().map(|data| {
        let topic = broker.topics.get(&data.name);
        let partitions = data.partition_data.into_iter().map(|sent| {
            let index = sent.index;
            let answer = PartitionProduceResponse::default()
                .with_index(index)
                .with_log_append_time_ms(-1);
            let appended = match &topic {
                _ if !matches!(request.acks, -1..=1) => Err(ResponseError::InvalidRequiredAcks),
                Some(topic) => append(broker, topic, transactional_id, sent),
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
            match appended {
                Ok((offset, start)) => answer.with_base_offset(offset).with_log_start_offset(start),
                Err(error) => answer.with_error_code(error.code()).with_base_offset(-1),
            }
        });
        let partitions = partitions.collect();
        TopicProduceResponse::default()
            .with_name(data.name)
            .with_partition_responses(partitions)
    });
    let topics = topics.collect();
    ProduceResponse::default().with_responses(topics)
}

/// Appends one batch; returns its base offset and the log's start.
fn append(
    broker: &Broker,
    topic: &Topic,
    transactional_id: Option<&str>,
    sent: PartitionProduceData,
) -> Result<(i64, i64), ResponseError> {
    let partition = topic
        .partition(sent.index)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let bytes = sent.records.unwrap_or_default();
    if bytes.len() as u64 > topic.settings.max_message_bytes {
        return Err(ResponseError::MessageTooLarge);
    }
    let header = BatchHeader::parse_sent(&bytes).map_err(|problem| {
        tracing::warn!(topic = %topic.meta.name, partition = sent.index, %problem, "batch refused");
        match problem {
            BatchProblem::Magic => ResponseError::UnsupportedForMessageFormat,
            BatchProblem::Count => ResponseError::InvalidRecord,
            BatchProblem::Short | BatchProblem::Length | BatchProblem::Checksum | BatchProblem::Records => {
                ResponseError::CorruptMessage
            }
        }
    })?;
    if header.is_control() {
        return Err(ResponseError::InvalidRecord);
    }
    let ahead = header.max_timestamp.saturating_sub(crate::now_ms());
    if ahead > topic.settings.timestamp_after_max_ms {
        return Err(ResponseError::InvalidTimestamp);
    }
    if topic.settings.compaction.is_some() {
        check_keys(&header, &bytes)?;
    }
    let write = || write(broker, topic, partition, &bytes, &header);
    if !header.is_transactional() {
        return write();
    }
    let transactional_id = transactional_id.ok_or(ResponseError::InvalidTxnState)?;
    let producer = Producer {
        transactional_id,
        id: header.producer_id,
        epoch: header.producer_epoch,
    };
    broker
        .transactions
        .while_open(producer, &topic.meta.name, sent.index, write)
}

/// A compacted topic takes no records without a key, for it could never know which of them is the last.
fn check_keys(header: &BatchHeader, bytes: &[u8]) -> Result<(), ResponseError> {
    let records = Records::open(header, bytes).map_err(|_| ResponseError::CorruptMessage)?;
    for record in records.iter() {
        if record.map_err(|_| ResponseError::CorruptMessage)?.key.is_none() {
            return Err(ResponseError::InvalidRecord);
        }
    }
    Ok(())
}

fn write(
    broker: &Broker,
    topic: &Topic,
    partition: &Partition,
    bytes: &[u8],
    header: &BatchHeader,
) -> Result<(i64, i64), ResponseError> {
    match partition.append(bytes, header, topic.settings.roll, broker.flush_each()) {
        Ok(offset) => Ok((offset, partition.ends().start)),
        Err(AppendError::Refused(refusal)) => Err(match refusal {
            Refusal::OldEpoch => ResponseError::InvalidProducerEpoch,
            Refusal::OutOfOrder => ResponseError::OutOfOrderSequenceNumber,
            Refusal::InsideTransaction => ResponseError::InvalidTxnState,
        }),
        Err(AppendError::Storage(error)) => {
            tracing::error!(%error, dir = %partition.dir().display(), "append failed");
            Err(ResponseError::KafkaStorageError)
        }
    }
}
