//! Offsets: by time, by leader epoch, and those that groups have committed.

use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};

use super::{code, storage_code, text};
use crate::broker::Broker;
use crate::frame::{Frame, FrameError};
use crate::groups::Speaker;
use crate::log::partition::{Partition, lock};
use crate::meta::{Change, Committed};

/// Longest metadata string kept with a committed offset, bytes, as in Kafka.
const MAX_METADATA: usize = 4096;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// The first, the last, or the first offset at or after a time.
pub(super) fn list_offsets(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: ListOffsetsRequest = frame.decode()?;
    let committed = request.isolation_level == 1;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(p.partition_index)
                .with_timestamp(-1)
                .with_offset(-1);
            let Some(partition) = broker.topics.partition(&topic.name, p.partition_index) else {
                return answer.with_error_code(ResponseError::UnknownTopicOrPartition.code());
            };
            let (timestamp, offset) = match find(&partition, p.timestamp, committed) {
                Ok(found) => found,
                Err(error) => return answer.with_error_code(storage_code(&error)),
            };
            let epoch = if frame.version >= 4 && offset >= 0 { 0 } else { -1 };
            answer
                .with_timestamp(timestamp)
                .with_offset(offset)
                .with_leader_epoch(epoch)
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    let topics = topics.collect();
    frame.reply(&ListOffsetsResponse::default().with_topics(topics))
}

fn find(
    partition: &Partition,
    timestamp: i64,
    committed: bool,
) -> Result<(i64, i64), crate::error::StorageError> {
    let ends = partition.ends();
    let limit = if committed { ends.stable } else { ends.next };
    match timestamp {
        LATEST => Ok((-1, limit)),
        EARLIEST => Ok((-1, ends.start)),
        at => {
            let found = partition.offset_by_time(at, limit)?;
            Ok(found.map_or((-1, -1), |(offset, timestamp)| (timestamp, offset)))
        }
    }
}

/// There is one leader epoch, 0, and it ends at the end of the log.
pub(super) fn leader_epoch(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: OffsetForLeaderEpochRequest = frame.decode()?;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let answer = EpochEndOffset::default().with_partition(p.partition);
            match broker.topics.partition(&topic.topic, p.partition) {
                None => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                Some(_) if p.current_leader_epoch > 0 => {
                    answer.with_error_code(ResponseError::UnknownLeaderEpoch.code())
                }
                Some(_) if p.leader_epoch != 0 => answer,
                Some(partition) => answer.with_leader_epoch(0).with_end_offset(partition.ends().next),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic)
            .with_partitions(partitions)
    });
    let topics = topics.collect();
    frame.reply(&OffsetForLeaderEpochResponse::default().with_topics(topics))
}

/// Checks that an offset may be committed at all.
pub(super) fn check(broker: &Broker, committed: &Committed) -> Result<(), ResponseError> {
    if broker
        .topics
        .partition(&committed.topic, committed.partition)
        .is_none()
    {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    if committed
        .metadata
        .as_ref()
        .is_some_and(|m| m.len() > MAX_METADATA)
    {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(())
}

/// Commits a group's offsets.
pub(super) fn commit(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: OffsetCommitRequest = frame.decode()?;
    let mut accepted = Vec::new();
    let mut verdicts = Vec::new();
    for topic in &request.topics {
        for p in &topic.partitions {
            let committed = Committed {
                topic: topic.name.to_string(),
                partition: p.partition_index,
                offset: p.committed_offset,
                leader_epoch: p.committed_leader_epoch,
                metadata: p.committed_metadata.as_ref().map(|m| m.to_string()),
                at_ms: crate::now_ms(),
            };
            let verdict = check(broker, &committed);
            if verdict.is_ok() {
                accepted.push(committed);
            }
            verdicts.push(code(verdict));
        }
    }
    let speaker = Speaker {
        member: &request.member_id,
        generation: request.generation_id_or_member_epoch,
        instance: request.group_instance_id.as_ref().map(|i| i.as_str()),
    };
    let stored = {
        // Held over the write, so that no new generation can begin between check and commit.
        let mut groups = lock(&broker.groups);
        let group = request.group_id.to_string();
        match groups.may_commit(&group, speaker, false, Instant::now()) {
            Err(error) => error.code(),
            Ok(()) if accepted.is_empty() => 0,
            Ok(()) => {
                let change = Change::Offsets {
                    group,
                    offsets: accepted,
                };
                broker
                    .journal
                    .append(vec![change], false)
                    .map_or_else(|e| storage_code(&e), |()| 0)
            }
        }
    };
    let flushed = if stored == 0 && broker.flush_each() {
        broker.journal.flush().map_or_else(|e| storage_code(&e), |()| 0)
    } else {
        stored
    };
    let mut verdicts = verdicts.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let own = verdicts.next().unwrap_or(0);
            let error = if flushed != 0 { flushed } else { own };
            OffsetCommitResponsePartition::default()
                .with_partition_index(p.partition_index)
                .with_error_code(error)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    let topics = topics.collect();
    frame.reply(&OffsetCommitResponse::default().with_topics(topics))
}

/// What a group has committed: of the partitions asked for, or of all.
pub(super) fn fetch(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: OffsetFetchRequest = frame.decode()?;
    let meta = broker.journal.meta();
    let group = request.group_id.as_str();
    let held = meta.groups.get(group);
    let asked: Vec<(String, Vec<i32>)> = match request.topics {
        Some(topics) => topics
            .into_iter()
            .map(|t| (t.name.to_string(), t.partition_indexes))
            .collect(),
        None => {
            let mut all: Vec<(String, Vec<i32>)> = Vec::new();
            for (topic, partition) in held.into_iter().flat_map(|h| h.keys()) {
                match all.last_mut() {
                    Some((last, indexes)) if last == topic => indexes.push(*partition),
                    _ => all.push((topic.clone(), vec![*partition])),
                }
            }
            all
        }
    };
    let topics = asked.into_iter().map(|(topic, indexes)| {
        let partitions = indexes.into_iter().map(|index| {
            let answer = OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(-1)
                .with_committed_leader_epoch(-1)
                .with_metadata(Some(text("")));
            if request.require_stable && meta.is_unstable(group, &topic, index) {
                return answer.with_error_code(ResponseError::UnstableOffsetCommit.code());
            }
            match held.and_then(|h| h.get(&(topic.clone(), index))) {
                None => answer,
                Some(committed) => answer
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(committed.leader_epoch)
                    .with_metadata(Some(text(committed.metadata.clone().unwrap_or_default()))),
            }
        });
        let partitions = partitions.collect();
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(partitions)
    });
    let topics = topics.collect();
    frame.reply(&OffsetFetchResponse::default().with_topics(topics))
}
