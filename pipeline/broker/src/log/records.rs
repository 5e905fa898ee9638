//! The records inside a batch: opened, walked, and written again with some of them left out.
//!
//! Enters: a whole batch. Leaves: its records, as slices of their own bytes, and a batch with fewer. Fails with
//! [`BatchProblem`] on a body that does not decompress or does not hold what its header says; never panics.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use kafka_protocol::compression::{Compressor, Decompressor, Gzip, Lz4, Snappy, Zstd};

use super::batch::{BatchHeader, BatchProblem, CODEC, HEADER};

/// One record of an opened batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// All of it, with its length prefix.
    pub(crate) bytes: &'a [u8],
    /// Added to the batch's base offset.
    pub(crate) offset_delta: i32,
    /// Added to the batch's base timestamp, ms.
    pub(crate) timestamp_delta: i64,
    pub(crate) key: Option<&'a [u8]>,
    /// Whether it has no value, which deletes its key.
    pub(crate) tombstone: bool,
}

/// The decompressed body of a batch.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    body: Cow<'a, [u8]>,
    count: usize,
}

impl<'a> Records<'a> {
    /// Opens a whole batch.
    pub(crate) fn open(header: &BatchHeader, batch: &'a [u8]) -> Result<Self, BatchProblem> {
        let body = batch.get(HEADER..header.total_len).ok_or(BatchProblem::Short)?;
        let codec = header.attributes & CODEC;
        let body = if codec == 0 || body.is_empty() {
            Cow::Borrowed(body)
        } else {
            Cow::Owned(decompress(codec, body)?)
        };
        Ok(Self {
            body,
            count: usize::try_from(header.count).map_err(|_| BatchProblem::Count)?,
        })
    }

    /// The records in order; ends after the first one that is not whole.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Record<'_>, BatchProblem>> {
        let mut rest: &[u8] = &self.body;
        let mut left = self.count;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let record = take_record(&mut rest);
            if record.is_none() {
                left = 0;
            }
            Some(record.ok_or(BatchProblem::Records))
        })
    }
}

fn decompress(codec: i16, body: &[u8]) -> Result<Vec<u8>, BatchProblem> {
    let mut from = Bytes::copy_from_slice(body);
    let all = |body: &mut Bytes| Ok(body.to_vec());
    match codec {
        1 => Gzip::decompress(&mut from, all),
        2 => Snappy::decompress(&mut from, all),
        3 => Lz4::decompress(&mut from, all),
        4 => Zstd::decompress(&mut from, all),
        _ => return Err(BatchProblem::Records),
    }
    .map_err(|_| BatchProblem::Records)
}

fn compress(codec: i16, body: &[u8]) -> Result<BytesMut, BatchProblem> {
    let mut to = BytesMut::new();
    let all = |buffer: &mut BytesMut| {
        buffer.extend_from_slice(body);
        Ok(())
    };
    match codec {
        0 => {
            to.extend_from_slice(body);
            Ok(())
        }
        1 => Gzip::compress(&mut to, all),
        2 => Snappy::compress(&mut to, all),
        3 => Lz4::compress(&mut to, all),
        4 => Zstd::compress(&mut to, all),
        _ => return Err(BatchProblem::Records),
    }
    .map_err(|_| BatchProblem::Records)?;
    Ok(to)
}

/// The batch with only the records in `kept`, at their old offsets: the batch goes on covering all the offsets that it
/// did. With none kept it is a header alone, which keeps the producer's sequence numbers known.
pub(crate) fn rewritten(
    header: &BatchHeader,
    batch: &[u8],
    kept: &[Record<'_>],
) -> Result<Vec<u8>, BatchProblem> {
    let mut fresh = batch.get(..HEADER).ok_or(BatchProblem::Short)?.to_vec();
    let (mut attributes, mut latest) = (header.attributes, header.max_timestamp);
    if kept.is_empty() {
        attributes &= !CODEC;
    } else {
        let body: Vec<u8> = kept.iter().flat_map(|r| r.bytes).copied().collect();
        fresh.extend_from_slice(&compress(attributes & CODEC, &body)?);
        let times = kept.iter().map(|r| header.base_timestamp + r.timestamp_delta);
        latest = times.max().unwrap_or(latest);
    }
    let count = i32::try_from(kept.len()).map_err(|_| BatchProblem::Count)?;
    fresh[21..23].copy_from_slice(&attributes.to_be_bytes());
    fresh[35..43].copy_from_slice(&latest.to_be_bytes());
    fresh[57..61].copy_from_slice(&count.to_be_bytes());
    super::batch::seal(&mut fresh);
    Ok(fresh)
}

fn take_record<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let whole = *rest;
    let length = usize::try_from(varint(rest)?).ok()?;
    let mut body = rest.get(..length)?;
    *rest = &rest[length..];
    let bytes = &whole[..whole.len() - rest.len()];
    // One byte of attributes, none of which is in use.
    body = body.get(1..)?;
    let timestamp_delta = varint(&mut body)?;
    let offset_delta = i32::try_from(varint(&mut body)?).ok()?;
    let key = field(&mut body)?;
    let value = field(&mut body)?;
    Some(Record {
        bytes,
        offset_delta,
        timestamp_delta,
        key,
        tombstone: value.is_none(),
    })
}

/// A length and as many bytes; a negative length is null.
fn field<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let Ok(length) = usize::try_from(varint(rest)?) else {
        return Some(None);
    };
    let found = rest.get(..length)?;
    *rest = &rest[length..];
    Some(Some(found))
}

/// A zigzag varint of at most 64 bits.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}
