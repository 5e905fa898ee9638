//! What time does to a partition: segments past their retention go, and compacted ones take the place of others.
//!
//! Enters: the topic's settings and the clock. Leaves: fewer files. Fails with [`StorageError`]; what was not yet done
//! then is done the next time.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::partition::{Partition, State, lock};
use super::segment::{Segment, SegmentView};
use crate::error::StorageError;
use crate::journal::sync_dir;

/// Where a partition keeps its [`Pass`]es.
const PASSES: &str = "compacted.json";
/// Into how many parts the passes remembered divide the time that tombstones stay.
const STEPS: i64 = 32;

/// A compaction that is done: since `at_ms` no key has an older record than its last one below `before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pass {
    pub(crate) at_ms: i64,
    pub(crate) before: i64,
}

/// A closed segment, for reading outside the lock.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) base: i64,
    /// Base of the segment after it.
    pub(crate) end: i64,
    pub(crate) view: SegmentView,
    pub(crate) max_timestamp: Option<i64>,
}

impl Partition {
    /// Removes the oldest segments whose records are all older than `ms`, or which are more than `bytes` of log can
    /// hold. The newest one is closed for that where it is too old itself. Nothing at or above the first open
    /// transaction goes. Returns the number of segments removed.
    pub(crate) fn retain(
        &self,
        ms: Option<i64>,
        bytes: Option<u64>,
        now_ms: i64,
    ) -> Result<usize, StorageError> {
        let mut state = lock(&self.state);
        let stable = state.producers.first_open().unwrap_or(state.next_offset);
        let mut size: u64 = state.segments.iter().map(|s| s.len).sum();
        let mut gone = 0;
        for (i, segment) in state.segments.iter().enumerate() {
            let end = state.segments.get(i + 1).map_or(state.next_offset, |s| s.base);
            let old = ms.is_some_and(|ms| {
                segment
                    .max_timestamp()
                    .is_some_and(|t| now_ms.saturating_sub(t) > ms)
            });
            let over = bytes.is_some_and(|bytes| size.saturating_sub(segment.len) >= bytes);
            if end > stable || segment.len == 0 || !(old || over) {
                break;
            }
            size -= segment.len;
            gone += 1;
        }
        if gone == 0 {
            return Ok(0);
        }
        if gone == state.segments.len() {
            let fresh = Segment::open(self.dir(), state.next_offset)?;
            // On disk before the others go, for the offsets go on from its name.
            sync_dir(self.dir())?;
            state.segments.push(fresh);
        }
        let start = state.segments[gone].base;
        self.remove_before(&mut state, start)?;
        Ok(gone)
    }

    /// Raises the first readable offset and removes segments wholly below it.
    pub(crate) fn delete_before(&self, offset: i64) -> Result<i64, StorageError> {
        let mut state = lock(&self.state);
        let start = offset.min(state.next_offset);
        self.remove_before(&mut state, start)
    }

    fn remove_before(&self, state: &mut State, offset: i64) -> Result<i64, StorageError> {
        state.log_start = state.log_start.max(offset);
        let start = state.log_start;
        state.producers.forget_before(start);
        while state.segments.get(1).is_some_and(|second| second.base <= start) {
            let path = &state.segments[0].path;
            fs::remove_file(path).map_err(StorageError::io("remove", path))?;
            state.segments.remove(0);
        }
        Ok(start)
    }

    /// Closed segments in order, all below the first open transaction.
    pub(super) fn closed(&self) -> Vec<Closed> {
        let state = lock(&self.state);
        let stable = state.producers.first_open().unwrap_or(state.next_offset);
        let pairs = state.segments.iter().zip(state.segments.iter().skip(1));
        pairs
            .map(|(segment, next)| Closed {
                base: segment.base,
                end: next.base,
                view: segment.view(),
                max_timestamp: segment.max_timestamp(),
            })
            .take_while(|closed| closed.end <= stable)
            .collect()
    }

    /// Puts `fresh`, which lies under another name, in the place of the segment that `old` is a view of. An empty one
    /// just goes, unless it is the first, whose name says where the log starts.
    pub(super) fn replace(&self, old: &Closed, mut fresh: Segment) -> Result<(), StorageError> {
        let mut state = lock(&self.state);
        let at = state
            .segments
            .iter()
            .position(|s| Arc::ptr_eq(&s.file, &old.view.file));
        let Some(at) = at else {
            // Retention or a deletion was faster.
            return fs::remove_file(&fresh.path).map_err(StorageError::io("remove", &fresh.path));
        };
        let path = state.segments[at].path.clone();
        fs::rename(&fresh.path, &path).map_err(StorageError::io("rename", &fresh.path))?;
        fresh.path = path;
        if fresh.len == 0 && at > 0 {
            fs::remove_file(&fresh.path).map_err(StorageError::io("remove", &fresh.path))?;
            state.segments.remove(at);
        } else {
            state.segments[at] = fresh;
        }
        Ok(())
    }

    /// The compactions done so far, oldest first.
    pub(super) fn passes(&self) -> Vec<Pass> {
        lock(&self.state).passes.clone()
    }

    /// Notes a compaction, durably. Remembers no more than what is needed to tell which records were compacted
    /// `wanted_ms` ago.
    pub(super) fn note_pass(&self, pass: Pass, wanted_ms: i64) -> Result<(), StorageError> {
        let passes = remembered(self.passes(), pass, wanted_ms);
        let (path, fresh) = (self.dir().join(PASSES), self.dir().join("compacted.json.new"));
        let text = serde_json::to_vec(&passes)
            .map_err(std::io::Error::from)
            .map_err(StorageError::io("encode", &path))?;
        fs::write(&fresh, text).map_err(StorageError::io("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(StorageError::io("rename", &fresh))?;
        lock(&self.state).passes = passes;
        Ok(())
    }
}

/// The passes with one more. Passes close to each other count as one, at the time and up to the offset of the later.
fn remembered(mut passes: Vec<Pass>, pass: Pass, wanted_ms: i64) -> Vec<Pass> {
    if let [.., before, last] = passes[..]
        && last.at_ms.saturating_sub(before.at_ms) < wanted_ms / STEPS
    {
        passes.pop();
    }
    passes.push(pass);
    // Of those that are old enough the last one says all.
    let old = |p: &Pass| pass.at_ms.saturating_sub(p.at_ms) >= wanted_ms;
    let old = passes.iter().take_while(|p| old(p)).count();
    passes.drain(..old.saturating_sub(1));
    passes
}

/// The compactions noted in a partition's folder. A note that cannot be read counts as none: then all is compacted
/// once more, and tombstones stay for longer.
pub(super) fn noted_passes(dir: &Path) -> Vec<Pass> {
    fs::read(dir.join(PASSES))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_a_second_apart_still_grow_old() {
        let day = 86_400_000;
        let mut passes = Vec::new();
        for i in 0..200_000 {
            let pass = Pass {
                at_ms: i * 1000,
                before: i,
            };
            passes = remembered(passes, pass, day);
            assert!(
                passes.len() <= STEPS as usize + 3,
                "{} are remembered",
                passes.len()
            );
            let age = |p: &Pass| pass.at_ms - p.at_ms;
            if i > 100_000 {
                let oldest = age(&passes[0]);
                assert!((day..day + day / 8).contains(&oldest), "{oldest} ms");
            }
        }
    }
}
