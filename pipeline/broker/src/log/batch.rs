//! The 61-byte header of a Kafka record batch (magic 2), read without opening the batch, and the
//! control batch that ends a transaction.
//!
//! Enters: bytes from a client or a segment file. Leaves: [`BatchHeader`]. Fails with
//! [`BatchProblem`], never panics. Layout: Kafka protocol, "Record Batch".

/// Length of the fixed header, bytes.
pub(crate) const HEADER: usize = 61;
/// Bytes before the part that `batchLength` counts.
const PREFIX: usize = 12;
/// Where the checksummed part starts.
const CRC_FROM: usize = 21;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// The bits of the attributes that name the compression.
pub(crate) const CODEC: i16 = 0x07;
/// Where the type of a control record lies in the control batches that this broker writes.
const MARKER_TYPE_AT: usize = HEADER + 7;
/// Length of a control batch that this broker writes.
pub(crate) const MARKER_LEN: usize = HEADER + 17;

/// Fields of a record batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Whole length on disk and wire, header included, bytes.
    pub(crate) total_len: usize,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    /// Milliseconds since the epoch.
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) count: i32,
}

/// What is wrong with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchProblem {
    #[error("shorter than a record batch header")]
    Short,
    #[error("record batch length field out of range")]
    Length,
    #[error("record batch format (magic) is not 2")]
    Magic,
    #[error("record count and last offset disagree")]
    Count,
    #[error("checksum mismatch")]
    Checksum,
    #[error("records cannot be decompressed or are cut short")]
    Records,
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BatchProblem> {
    bytes
        .get(at..at + N)
        .and_then(|s| s.try_into().ok())
        .ok_or(BatchProblem::Short)
}

impl BatchHeader {
    /// Reads a header from the first 61 bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BatchProblem> {
        if bytes.len() < HEADER {
            return Err(BatchProblem::Short);
        }
        let length = i32::from_be_bytes(be(bytes, 8)?);
        let length = usize::try_from(length).map_err(|_| BatchProblem::Length)?;
        if length < HEADER - PREFIX {
            return Err(BatchProblem::Length);
        }
        if bytes[16] != 2 {
            return Err(BatchProblem::Magic);
        }
        let header = Self {
            base_offset: i64::from_be_bytes(be(bytes, 0)?),
            total_len: PREFIX + length,
            crc: u32::from_be_bytes(be(bytes, 17)?),
            attributes: i16::from_be_bytes(be(bytes, 21)?),
            last_offset_delta: i32::from_be_bytes(be(bytes, 23)?),
            base_timestamp: i64::from_be_bytes(be(bytes, 27)?),
            max_timestamp: i64::from_be_bytes(be(bytes, 35)?),
            producer_id: i64::from_be_bytes(be(bytes, 43)?),
            producer_epoch: i16::from_be_bytes(be(bytes, 51)?),
            base_sequence: i32::from_be_bytes(be(bytes, 53)?),
            count: i32::from_be_bytes(be(bytes, 57)?),
        };
        if header.last_offset_delta < 0 || header.count < 0 {
            return Err(BatchProblem::Count);
        }
        Ok(header)
    }

    /// Reads the header of a batch that a producer sent, which must fill `bytes` exactly, hold as
    /// many records as offsets, and have the right checksum.
    pub(crate) fn parse_sent(bytes: &[u8]) -> Result<Self, BatchProblem> {
        let header = Self::parse(bytes)?;
        if header.total_len != bytes.len() {
            return Err(BatchProblem::Length);
        }
        if header.count < 1 || header.count - 1 != header.last_offset_delta {
            return Err(BatchProblem::Count);
        }
        if crc32c::crc32c(&bytes[CRC_FROM..]) != header.crc {
            return Err(BatchProblem::Checksum);
        }
        Ok(header)
    }

    /// Whether the whole batch in `bytes` has the checksum its header states.
    pub(crate) fn checksum_ok(&self, bytes: &[u8]) -> bool {
        bytes
            .get(CRC_FROM..self.total_len)
            .is_some_and(|part| crc32c::crc32c(part) == self.crc)
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }
}

/// The first 16 bytes of a batch with the base offset and the partition leader epoch (0) set. Both
/// lie outside the checksum, so the batch itself need not be opened.
pub(crate) fn patched_prefix(batch: &[u8], base_offset: i64) -> [u8; 16] {
    let mut prefix = [0u8; 16];
    prefix[..8].copy_from_slice(&base_offset.to_be_bytes());
    prefix[8..12].copy_from_slice(&batch[8..12]);
    prefix
}

/// The control batch that ends a transaction, for the base offset 0.
pub(crate) fn marker(producer_id: i64, epoch: i16, commit: bool, timestamp_ms: i64) -> Vec<u8> {
    let mut b = Vec::with_capacity(MARKER_LEN);
    b.extend_from_slice(&0i64.to_be_bytes());
    b.extend_from_slice(&((MARKER_LEN - PREFIX) as i32).to_be_bytes());
    b.extend_from_slice(&0i32.to_be_bytes());
    b.push(2);
    b.extend_from_slice(&0u32.to_be_bytes());
    b.extend_from_slice(&(TRANSACTIONAL | CONTROL).to_be_bytes());
    b.extend_from_slice(&0i32.to_be_bytes());
    b.extend_from_slice(&timestamp_ms.to_be_bytes());
    b.extend_from_slice(&timestamp_ms.to_be_bytes());
    b.extend_from_slice(&producer_id.to_be_bytes());
    b.extend_from_slice(&epoch.to_be_bytes());
    b.extend_from_slice(&(-1i32).to_be_bytes());
    b.extend_from_slice(&1i32.to_be_bytes());
    // One record; lengths are zigzag varints of one byte: 16 bytes follow, no deltas, key of 4.
    b.extend_from_slice(&[32, 0, 0, 0, 8]);
    b.extend_from_slice(&0i16.to_be_bytes());
    b.extend_from_slice(&i16::from(commit).to_be_bytes());
    // Value of 6: version 0, coordinator epoch 0; no headers.
    b.extend_from_slice(&[12, 0, 0, 0, 0, 0, 0, 0]);
    seal(&mut b);
    b
}

/// Writes the length and the checksum of a whole batch into its header.
pub(crate) fn seal(batch: &mut [u8]) {
    let length = (batch.len() - PREFIX) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Whether a control batch commits; `None` where it is not one of ours.
pub(crate) fn marker_commits(batch: &[u8]) -> Option<bool> {
    match be(batch, MARKER_TYPE_AT).map(i16::from_be_bytes) {
        Ok(0) => Some(false),
        Ok(1) => Some(true),
        _ => None,
    }
}
