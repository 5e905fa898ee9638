//! One function per request: decodes it, asks the broker's parts, and builds the answer.
//!
//! Enters: a [`Frame`]. Leaves: the encoded answer, or none for produce without acknowledgement.
//! Fails with [`FrameError`] only where the connection must close.

mod admin;
mod configs;
mod fetch;
mod group;
mod metadata;
mod offsets;
mod produce;
mod txn;

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::watch;

use crate::broker::Broker;
use crate::error::StorageError;
use crate::frame::{Frame, FrameError, Reply};

/// Answers one request.
pub(crate) async fn answer(
    broker: &Arc<Broker>,
    frame: Frame,
    stopped: watch::Receiver<bool>,
) -> Result<Option<Reply>, FrameError> {
    let reply = match frame.api {
        ApiKey::ApiVersions => metadata::api_versions(&frame)?,
        ApiKey::Metadata => metadata::metadata(broker, &frame)?,
        ApiKey::FindCoordinator => metadata::find_coordinator(broker, &frame)?,
        ApiKey::Produce => return Ok(produce::produce(broker, frame).await?.map(Reply::from)),
        ApiKey::Fetch => return fetch::fetch(broker, &frame, stopped).await.map(Some),
        ApiKey::ListOffsets => blocking(broker, frame, offsets::list_offsets).await?,
        ApiKey::OffsetForLeaderEpoch => offsets::leader_epoch(broker, &frame)?,
        ApiKey::OffsetCommit => blocking(broker, frame, offsets::commit).await?,
        ApiKey::OffsetFetch => offsets::fetch(broker, &frame)?,
        ApiKey::JoinGroup => group::join(broker, &frame, stopped).await?,
        ApiKey::SyncGroup => group::sync(broker, &frame, stopped).await?,
        ApiKey::Heartbeat => group::heartbeat(broker, &frame)?,
        ApiKey::LeaveGroup => group::leave(broker, &frame)?,
        ApiKey::DescribeGroups => group::describe(broker, &frame)?,
        ApiKey::ListGroups => group::list(broker, &frame)?,
        ApiKey::DeleteGroups => blocking(broker, frame, group::delete).await?,
        ApiKey::CreateTopics => blocking(broker, frame, admin::create_topics).await?,
        ApiKey::DeleteTopics => blocking(broker, frame, admin::delete_topics).await?,
        ApiKey::CreatePartitions => blocking(broker, frame, admin::create_partitions).await?,
        ApiKey::DeleteRecords => blocking(broker, frame, admin::delete_records).await?,
        ApiKey::DescribeConfigs => configs::describe(broker, &frame)?,
        ApiKey::AlterConfigs => blocking(broker, frame, configs::alter).await?,
        ApiKey::IncrementalAlterConfigs => blocking(broker, frame, configs::alter_incrementally).await?,
        ApiKey::InitProducerId => blocking(broker, frame, txn::init_producer_id).await?,
        ApiKey::AddPartitionsToTxn => blocking(broker, frame, txn::add_partitions).await?,
        ApiKey::AddOffsetsToTxn => blocking(broker, frame, txn::add_offsets).await?,
        ApiKey::TxnOffsetCommit => blocking(broker, frame, txn::commit_offsets).await?,
        ApiKey::EndTxn => blocking(broker, frame, txn::end).await?,
        api => {
            return Err(FrameError::Version {
                api,
                version: frame.version,
            });
        }
    };
    Ok(Some(reply.into()))
}

/// Runs a handler that touches files on a thread where that is no harm.
async fn blocking(
    broker: &Arc<Broker>,
    frame: Frame,
    handler: fn(&Broker, &Frame) -> Result<Bytes, FrameError>,
) -> Result<Bytes, FrameError> {
    let broker = Arc::clone(broker);
    tokio::task::spawn_blocking(move || handler(&broker, &frame)).await?
}

/// Logs a failed file operation and names its error code.
fn storage_code(error: &StorageError) -> i16 {
    tracing::error!(%error, "storage failed");
    ResponseError::KafkaStorageError.code()
}

/// The error code of a result.
fn code(result: Result<(), ResponseError>) -> i16 {
    result.map_or_else(|e| e.code(), |()| 0)
}

fn text(s: impl Into<String>) -> StrBytes {
    StrBytes::from_string(s.into())
}
