//! One partition: appends, reads, offsets by time, and those who wait for news.
//!
//! Enters: single record batches. Leaves: the offsets given to them, and whole batches on reading.
//! Every method that touches a file blocks, so callers on async threads use `spawn_blocking`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::batch::{self, BatchHeader};
use super::cleaning::{self, Pass};
use super::producers::{Aborted, Producers, Refusal, Verdict};
use super::records::Records;
use super::recovery;
use super::segment::{Segment, SegmentView};
use crate::error::StorageError;
use crate::settings::Roll;

/// The ends of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// First offset that can be read.
    pub(crate) start: i64,
    /// First offset that may belong to an open transaction.
    pub(crate) stable: i64,
    /// Offset of the next record.
    pub(crate) next: i64,
}

/// Why an append failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("refused: {0:?}")]
    Refused(Refusal),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) segments: Vec<Segment>,
    pub(super) producers: Producers,
    pub(super) next_offset: i64,
    pub(super) log_start: i64,
    pub(super) passes: Vec<Pass>,
    offline: bool,
}

/// A partition's log.
#[derive(Debug)]
pub(crate) struct Partition {
    dir: PathBuf,
    pub(super) state: Mutex<State>,
    /// Held while files are flushed, so that a second flush returns only once the first is done.
    flushing: Mutex<()>,
    waiters: Mutex<HashMap<u64, Arc<Notify>>>,
}

/// Locks, ignoring poison: nothing here leaves half-made state behind a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partition {
    /// Opens a partition's folder, recovering what is there.
    pub(crate) fn open(dir: PathBuf, log_start: i64) -> Result<Self, StorageError> {
        let found = recovery::recover(&dir, log_start)?;
        let log_start = log_start
            .max(found.segments.first().map_or(0, |s| s.base))
            .min(found.next_offset);
        let state = State {
            segments: found.segments,
            producers: found.producers,
            next_offset: found.next_offset,
            log_start,
            passes: cleaning::noted_passes(&dir),
            offline: false,
        };
        Ok(Self {
            dir,
            state: Mutex::new(state),
            flushing: Mutex::new(()),
            waiters: Mutex::new(HashMap::new()),
        })
    }

    /// Where the log starts and ends now.
    pub(crate) fn ends(&self) -> Ends {
        let state = lock(&self.state);
        let next = state.next_offset;
        Ends {
            start: state.log_start,
            stable: state.producers.first_open().unwrap_or(next),
            next,
        }
    }

    /// Appends a checked batch; returns its base offset (that of the first copy for a resent batch).
    pub(crate) fn append(
        &self,
        bytes: &[u8],
        header: &BatchHeader,
        roll: Roll,
        flush: bool,
    ) -> Result<i64, AppendError> {
        let mut state = lock(&self.state);
        match state.producers.judge(header).map_err(AppendError::Refused)? {
            Verdict::Duplicate(base) => return Ok(base),
            Verdict::Append => {}
        }
        let base = self.write(&mut state, bytes, header, None, roll)?;
        if flush {
            flush_segments(&mut state)?;
        }
        drop(state);
        self.wake();
        Ok(base)
    }

    /// Ends the producer's transaction here, if it has one open.
    pub(crate) fn end_transaction(
        &self,
        producer_id: i64,
        epoch: i16,
        commit: bool,
        roll: Roll,
    ) -> Result<(), StorageError> {
        let mut state = lock(&self.state);
        if !state.producers.is_open(producer_id) {
            return Ok(());
        }
        let bytes = batch::marker(producer_id, epoch, commit, crate::now_ms());
        let Ok(header) = BatchHeader::parse(&bytes) else {
            return Ok(());
        };
        self.write(&mut state, &bytes, &header, Some(commit), roll)?;
        drop(state);
        self.wake();
        Ok(())
    }

    fn write(
        &self,
        state: &mut State,
        bytes: &[u8],
        header: &BatchHeader,
        commits: Option<bool>,
        roll: Roll,
    ) -> Result<i64, StorageError> {
        if state.offline {
            return Err(StorageError::Offline {
                path: self.dir.clone(),
            });
        }
        let base_offset = state.next_offset;
        let header = BatchHeader {
            base_offset,
            ..*header
        };
        let full = |s: &Segment| {
            let age = |first| header.max_timestamp.saturating_sub(first);
            s.len > 0
                && (s.len + header.total_len as u64 > roll.bytes
                    || s.first_timestamp.is_some_and(|first| age(first) > roll.ms))
        };
        if state.segments.last().is_none_or(full) {
            if let Some(last) = state.segments.last_mut() {
                last.flush()?;
            }
            state.segments.push(Segment::open(&self.dir, base_offset)?);
        }
        let Some(segment) = state.segments.last_mut() else {
            return Err(StorageError::Offline {
                path: self.dir.clone(),
            });
        };
        if let Err(error) = segment.write(&batch::patched_prefix(bytes, base_offset), bytes) {
            if let Err(worse) = segment.cut_tail() {
                tracing::error!(error = %worse, "could not undo a failed append; partition is offline");
                state.offline = true;
            }
            return Err(error);
        }
        segment.count_in(&header);
        state.producers.note(&header, commits);
        state.next_offset = header.last_offset() + 1;
        Ok(base_offset)
    }

    /// Reads whole batches from `offset` on, up to before `limit` and about `max_bytes`. The first
    /// batch is whole however large where `first_whole`. Empty where there is nothing.
    pub(crate) fn read(
        &self,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        first_whole: bool,
    ) -> Result<Bytes, StorageError> {
        for (view, from) in self.views_from(offset) {
            let Some((position, first)) = view.seek(from, offset)? else {
                continue;
            };
            if first.base_offset >= limit || (first.total_len > max_bytes && !first_whole) {
                return Ok(Bytes::new());
            }
            let left = usize::try_from(view.len - position).unwrap_or(usize::MAX);
            let mut bytes = view.read(position, max_bytes.max(first.total_len).min(left))?;
            let mut end = 0;
            while let Some(header) = bytes.get(end..).and_then(|b| BatchHeader::parse(b).ok()) {
                if header.base_offset >= limit || end + header.total_len > bytes.len() {
                    break;
                }
                end += header.total_len;
            }
            bytes.truncate(end);
            return Ok(Bytes::from(bytes));
        }
        Ok(Bytes::new())
    }

    /// Views of the segment that holds `offset` and of the next, with a position to start at.
    fn views_from(&self, offset: i64) -> Vec<(SegmentView, u64)> {
        let state = lock(&self.state);
        let after = state.segments.partition_point(|s| s.base <= offset);
        let first = after.saturating_sub(1);
        // After compaction an offset may lie beyond the last batch of its segment.
        state
            .segments
            .iter()
            .skip(first)
            .take(2)
            .map(|s| (s.view(), s.position_before(offset)))
            .collect()
    }

    /// The first offset whose timestamp is at least `timestamp_ms`, with that timestamp. Opens at
    /// most a few batches; an unreadable batch counts by its header.
    pub(crate) fn offset_by_time(
        &self,
        timestamp_ms: i64,
        limit: i64,
    ) -> Result<Option<(i64, i64)>, StorageError> {
        let (views, log_start): (Vec<_>, i64) = {
            let state = lock(&self.state);
            let views = state.segments.iter().filter_map(|s| {
                s.position_by_time(timestamp_ms)
                    .map(|position| (s.view(), position))
            });
            (views.collect(), state.log_start)
        };
        for (view, mut position) in views {
            while let Some(header) = view.header_at(position)? {
                if header.base_offset >= limit {
                    return Ok(None);
                }
                if header.max_timestamp >= timestamp_ms && !header.is_control() {
                    let bytes = view.read(position, header.total_len)?;
                    if let Some(found) = first_at_or_after(&bytes, timestamp_ms, log_start) {
                        return Ok(Some(found));
                    }
                }
                position += header.total_len as u64;
            }
        }
        Ok(None)
    }

    /// Aborted transactions that touch the offsets from `from` to before `to`.
    pub(crate) fn aborted_in(&self, from: i64, to: i64) -> Vec<Aborted> {
        lock(&self.state).producers.aborted_in(from, to)
    }

    /// Producers with an open transaction here, with their epochs.
    pub(crate) fn open_producers(&self) -> Vec<(i64, i16)> {
        lock(&self.state).producers.open_producers()
    }

    /// Forces everything written to disk.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        let _flushing = lock(&self.flushing);
        // The file is flushed outside the lock so that appends need not wait for the disk.
        let files: Vec<_> = {
            let mut state = lock(&self.state);
            let dirty = state.segments.iter_mut().filter(|s| s.dirty);
            dirty
                .map(|s| {
                    s.dirty = false;
                    s.view()
                })
                .collect()
        };
        for view in files {
            if let Err(source) = view.file.sync_data() {
                let mut state = lock(&self.state);
                state
                    .segments
                    .iter_mut()
                    .filter(|s| s.path == view.path)
                    .for_each(|s| s.dirty = true);
                return Err(StorageError::Io {
                    action: "flush",
                    path: view.path,
                    source,
                });
            }
        }
        Ok(())
    }

    /// The folder of this partition.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has `notify` woken at each append until the returned guard is dropped.
    pub(crate) fn watch(self: &Arc<Self>, id: u64, notify: &Arc<Notify>) -> Watch {
        lock(&self.waiters).insert(id, Arc::clone(notify));
        Watch {
            partition: Arc::clone(self),
            id,
        }
    }

    fn wake(&self) {
        for waiter in lock(&self.waiters).values() {
            waiter.notify_one();
        }
    }
}

fn flush_segments(state: &mut State) -> Result<(), StorageError> {
    state.segments.iter_mut().try_for_each(Segment::flush)
}

/// The first record of a batch at or after both a time and an offset.
fn first_at_or_after(batch: &[u8], timestamp_ms: i64, from_offset: i64) -> Option<(i64, i64)> {
    let header = BatchHeader::parse(batch).ok()?;
    let of_batch = (header.base_offset.max(from_offset), header.max_timestamp);
    let Ok(records) = Records::open(&header, batch) else {
        return Some(of_batch);
    };
    for record in records.iter() {
        let Ok(record) = record else { return Some(of_batch) };
        let offset = header.base_offset + i64::from(record.offset_delta);
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        if timestamp >= timestamp_ms && offset >= from_offset {
            return Some((offset, timestamp));
        }
    }
    None
}

/// Keeps a fetch registered with a partition.
#[derive(Debug)]
pub(crate) struct Watch {
    partition: Arc<Partition>,
    id: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.partition.waiters).remove(&self.id);
    }
}
