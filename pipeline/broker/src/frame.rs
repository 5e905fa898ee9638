//! Request frames: what a client may send, checked before it is decoded.
//!
//! Enters: the bytes of one request. Leaves: its key, version, ids and body, and replies as bytes.
//! Fails with [`FrameError`], upon which the connection is closed; never panics.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::sync::OwnedSemaphorePermit;

use crate::shape;

/// Why a request cannot be served at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("request of {size} bytes; the limit is {limit}")]
    Size { size: i64, limit: usize },
    #[error("request key {key} is unknown")]
    UnknownKey { key: i16 },
    #[error("{api:?} version {version} is not supported")]
    Version { api: ApiKey, version: i16 },
    #[error("{api:?} version {version} cannot be decoded: {problem}")]
    Malformed {
        api: ApiKey,
        version: i16,
        problem: String,
    },
    #[error("request header is cut short")]
    Header,
    #[error("{api:?} answer cannot be encoded: {problem}")]
    Encode { api: ApiKey, problem: String },
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// An encoded answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Bytes,
    /// Room in memory for a large answer, given back once it is written.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl From<Bytes> for Reply {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, room: None }
    }
}

/// A request, its body not yet decoded.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    pub(crate) client_id: String,
    pub(crate) body: Bytes,
}

/// The requests served, with the lowest and highest version.
pub(crate) const SERVED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 9),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 6),
    (ApiKey::Metadata, 0, 9),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 7),
    (ApiKey::FindCoordinator, 0, 3),
    (ApiKey::JoinGroup, 0, 7),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 4),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 6),
    (ApiKey::DeleteTopics, 1, 5),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::AddOffsetsToTxn, 0, 3),
    (ApiKey::EndTxn, 0, 3),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
];

impl Frame {
    /// Reads the header of a request. A version of `ApiVersions` that is too new comes back as
    /// version -1, for the answer to that is defined; any other is an error.
    pub(crate) fn parse(mut bytes: Bytes) -> Result<Self, FrameError> {
        let Some((key, version)) = bytes
            .get(..4)
            .map(|b| (i16::from_be_bytes([b[0], b[1]]), i16::from_be_bytes([b[2], b[3]])))
        else {
            return Err(FrameError::Header);
        };
        let api = ApiKey::try_from(key).map_err(|()| FrameError::UnknownKey { key })?;
        let served = SERVED
            .iter()
            .find(|s| s.0 == api)
            .is_some_and(|s| (s.1..=s.2).contains(&version));
        if !served && api != ApiKey::ApiVersions {
            return Err(FrameError::Version { api, version });
        }
        // All header versions begin alike, which is all that is read of an unknown version.
        let header_version = if served {
            api.request_header_version(version)
        } else {
            1
        };
        let header = RequestHeader::decode(&mut bytes, header_version).map_err(|_| FrameError::Header)?;
        Ok(Self {
            api,
            version: if served { version } else { -1 },
            correlation: header.correlation_id,
            client_id: header.client_id.map(|c| c.to_string()).unwrap_or_default(),
            body: bytes,
        })
    }

    /// Decodes the body as the request type of this frame.
    pub(crate) fn decode<R: Decodable>(&self) -> Result<R, FrameError> {
        shape::check(self.api, self.version, &self.body).map_err(|e| self.malformed(e))?;
        let mut body = self.body.clone();
        R::decode(&mut body, self.version).map_err(|e| self.malformed(e))
    }

    fn malformed(&self, problem: impl std::fmt::Display) -> FrameError {
        FrameError::Malformed {
            api: self.api,
            version: self.version,
            problem: problem.to_string(),
        }
    }

    /// Encodes an answer to this request, length prefix included.
    pub(crate) fn reply<M: Encodable>(&self, answer: &M) -> Result<Bytes, FrameError> {
        let version = self.version.max(0);
        let encode = |buffer: &mut BytesMut| {
            let header_version = self.api.response_header_version(version);
            let header = ResponseHeader::default().with_correlation_id(self.correlation);
            buffer.reserve(answer.compute_size(version)? + 16);
            buffer.put_i32(0);
            header.encode(buffer, header_version)?;
            answer.encode(buffer, version)
        };
        let mut buffer = BytesMut::new();
        encode(&mut buffer).map_err(|e| FrameError::Encode {
            api: self.api,
            problem: e.to_string(),
        })?;
        let length = i32::try_from(buffer.len() - 4).map_err(|e| FrameError::Encode {
            api: self.api,
            problem: e.to_string(),
        })?;
        buffer[..4].copy_from_slice(&length.to_be_bytes());
        Ok(buffer.freeze())
    }
}
