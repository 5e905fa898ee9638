//! One segment file of a partition log and its sparse index in memory.
//!
//! Enters: whole batches at the end. Leaves: positions by offset or time, and bytes. One index entry
//! (16 bytes) stands for about 32 KiB of log, so memory is 0.5 MB per GB of log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch::{BatchHeader, HEADER};
use crate::error::StorageError;

/// Bytes of log that one index entry stands for.
const INDEX_EVERY: u64 = 32 << 10;

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    relative_offset: u32,
    position: u32,
    /// Greatest timestamp from this entry's batch up to the next entry, ms.
    max_timestamp: i64,
}

/// A segment: the batches from `base` on, in one file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: i64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    /// Bytes of whole batches; what lies beyond is not part of the log.
    pub(crate) len: u64,
    /// Whether something was written since the last flush.
    pub(crate) dirty: bool,
    /// Greatest timestamp of the first batch, ms.
    pub(crate) first_timestamp: Option<i64>,
    index: Vec<IndexEntry>,
}

impl Segment {
    /// The file name of the segment that starts at `base`.
    pub(crate) fn file_name(base: i64) -> String {
        format!("{base:020}.log")
    }

    /// Opens the file, creating it where absent, with an empty index and length 0.
    pub(crate) fn open(dir: &Path, base: i64) -> Result<Self, StorageError> {
        Self::open_at(dir.join(Self::file_name(base)), base)
    }

    /// As [`open`](Self::open), under another name.
    pub(crate) fn open_at(path: PathBuf, base: i64) -> Result<Self, StorageError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StorageError::io("open", &path))?;
        Ok(Self {
            base,
            path,
            file: Arc::new(file),
            len: 0,
            dirty: false,
            first_timestamp: None,
            index: Vec::new(),
        })
    }

    /// Writes `prefix` and then the rest of `batch` at the end, without counting it in yet.
    pub(crate) fn write(&self, prefix: &[u8; 16], batch: &[u8]) -> Result<(), StorageError> {
        self.file
            .write_all_at(prefix, self.len)
            .and_then(|()| {
                self.file
                    .write_all_at(&batch[prefix.len()..], self.len + prefix.len() as u64)
            })
            .map_err(StorageError::io("append to", &self.path))
    }

    /// Cuts away whatever lies beyond the counted length.
    pub(crate) fn cut_tail(&self) -> Result<(), StorageError> {
        self.file
            .set_len(self.len)
            .map_err(StorageError::io("truncate", &self.path))
    }

    /// Counts in a batch that lies at the end of the file.
    pub(crate) fn count_in(&mut self, header: &BatchHeader) {
        let position = self.len;
        self.len += header.total_len as u64;
        self.dirty = true;
        self.first_timestamp.get_or_insert(header.max_timestamp);
        let far = self
            .index
            .last()
            .is_none_or(|e| position - u64::from(e.position) >= INDEX_EVERY);
        match self.index.last_mut() {
            Some(entry) if !far => entry.max_timestamp = entry.max_timestamp.max(header.max_timestamp),
            _ => self.index.push(IndexEntry {
                // Segments are rolled long before either number outgrows 32 bits.
                relative_offset: u32::try_from(header.base_offset - self.base).unwrap_or(u32::MAX),
                position: u32::try_from(position).unwrap_or(u32::MAX),
                max_timestamp: header.max_timestamp,
            }),
        }
    }

    /// A position at or before the batch that holds `offset`.
    pub(crate) fn position_before(&self, offset: i64) -> u64 {
        let relative = u32::try_from((offset - self.base).max(0)).unwrap_or(u32::MAX);
        let after = self.index.partition_point(|e| e.relative_offset <= relative);
        after
            .checked_sub(1)
            .and_then(|i| self.index.get(i))
            .map_or(0, |e| u64::from(e.position))
    }

    /// The position of the first index span that holds a timestamp of at least `timestamp_ms`.
    pub(crate) fn position_by_time(&self, timestamp_ms: i64) -> Option<u64> {
        self.index
            .iter()
            .find(|e| e.max_timestamp >= timestamp_ms)
            .map(|e| u64::from(e.position))
    }

    /// Greatest timestamp in the segment, ms; `None` where it is empty.
    pub(crate) fn max_timestamp(&self) -> Option<i64> {
        self.index.iter().map(|e| e.max_timestamp).max()
    }

    /// A reader over the batches counted in so far, which stays valid without any lock.
    pub(crate) fn view(&self) -> SegmentView {
        SegmentView {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            len: self.len,
        }
    }

    /// Forces the file to disk.
    pub(crate) fn flush(&mut self) -> Result<(), StorageError> {
        if self.dirty {
            self.file
                .sync_data()
                .map_err(StorageError::io("flush", &self.path))?;
            self.dirty = false;
        }
        Ok(())
    }
}

/// A fixed-length view of a segment, for reading outside the partition's lock.
#[derive(Debug, Clone)]
pub(crate) struct SegmentView {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

impl SegmentView {
    /// The header of the batch at `position`; `None` at the end.
    pub(crate) fn header_at(&self, position: u64) -> Result<Option<BatchHeader>, StorageError> {
        if position + HEADER as u64 > self.len {
            return Ok(None);
        }
        let mut bytes = [0u8; HEADER];
        self.file
            .read_exact_at(&mut bytes, position)
            .map_err(StorageError::io("read", &self.path))?;
        match BatchHeader::parse(&bytes) {
            Ok(header) => Ok(Some(header)),
            Err(_) => Err(StorageError::Corrupt {
                path: self.path.clone(),
                position,
                problem: "no record batch where one was written",
            }),
        }
    }

    /// Steps from `position` to the batch that holds `offset` or the first one after it.
    pub(crate) fn seek(
        &self,
        mut position: u64,
        offset: i64,
    ) -> Result<Option<(u64, BatchHeader)>, StorageError> {
        while let Some(header) = self.header_at(position)? {
            if header.last_offset() >= offset {
                return Ok(Some((position, header)));
            }
            position += header.total_len as u64;
        }
        Ok(None)
    }

    /// Reads exactly `len` bytes.
    pub(crate) fn read(&self, position: u64, len: usize) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0u8; len];
        self.file
            .read_exact_at(&mut bytes, position)
            .map_err(StorageError::io("read", &self.path))?;
        Ok(bytes)
    }
}
