//! Compaction: of each key only the last record stays.
//!
//! Enters: the closed segments of a partition below its first open transaction. Leaves: shorter segments in their
//! place; offsets, and the order of what stays, are as they were. Fails with [`StorageError`]; a batch that cannot be
//! opened stays as it is.
//!
//! As in Kafka: aborted records go and never supersede others; records without a key go; the last batch of each
//! producer stays as an empty one, so that its sequence numbers stay known. A tombstone, and the marker that ends a
//! transaction, go once a compaction that left nothing before them is `delete.retention.ms` old, so that whoever reads
//! the log within that time sees that the key was deleted. A commit marker stays for as long as any record of its
//! transaction does, for without it a restart would take the transaction to be open.
//!
//! The keys of the part not yet compacted are held in memory, 48 bytes each, `max_keys` at most; more than that is
//! compacted in several passes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;

use super::batch::BatchHeader;
use super::cleaning::{Closed, Pass};
use super::partition::{Partition, lock};
use super::producers::Aborted;
use super::records::{Record, Records, rewritten};
use super::segment::{Segment, SegmentView};
use crate::error::StorageError;
use crate::settings::Compaction;

/// Two independent hashes of a key. Two keys of one partition share both with a probability of about 2^-80 for a
/// million keys; Kafka's cleaner trusts 128 bits of MD5 in the same way.
type KeyHash = (u64, u64);

fn hash(key: &[u8]) -> KeyHash {
    let one = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, key).hash(&mut hasher);
        hasher.finish()
    };
    (one(0), one(1))
}

/// What decides over each record.
struct Plan {
    /// The last record of each key from `from` to before `before`.
    latest: HashMap<KeyHash, i64>,
    from: i64,
    before: i64,
    /// Tombstones and markers below this have been there for long enough.
    settled_before: i64,
    aborted: HashMap<i64, Vec<Aborted>>,
    /// Offset of the last batch of each producer.
    last_of_producer: HashMap<i64, i64>,
}

/// What a pass has come upon so far.
#[derive(Default)]
struct Progress {
    /// Producers of whose current transaction something stayed.
    with_records: HashSet<i64>,
    /// Offsets of abort markers that went.
    dropped_markers: HashSet<i64>,
}

impl Partition {
    /// Compacts what is worth it; returns whether anything was. `stop` is asked between segments.
    pub(crate) fn compact(
        &self,
        how: &Compaction,
        max_keys: usize,
        now_ms: i64,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, StorageError> {
        let mut closed = self.closed();
        let young = |c: &Closed| {
            c.max_timestamp
                .is_some_and(|t| how.min_lag_ms > 0 && now_ms.saturating_sub(t) < how.min_lag_ms)
        };
        let eligible = closed.iter().position(young).unwrap_or(closed.len());
        closed.truncate(eligible);
        let passes = self.passes();
        let from = passes.last().map_or(0, |p| p.before);
        if !is_worth_it(how, &closed, from, now_ms) {
            return Ok(false);
        }
        let old_enough = |p: &&Pass| now_ms.saturating_sub(p.at_ms) >= how.delete_retention_ms;
        let settled_before = passes.iter().rev().find(old_enough).map_or(0, |p| p.before);
        let plan = {
            let state = lock(&self.state);
            let mut aborted: HashMap<i64, Vec<Aborted>> = HashMap::new();
            for range in state.producers.aborted_in(0, i64::MAX) {
                aborted.entry(range.producer_id).or_default().push(range);
            }
            Plan {
                latest: HashMap::new(),
                from,
                before: from,
                settled_before,
                aborted,
                last_of_producer: state.producers.last_batches(),
            }
        };
        let plan = plan.with_keys(&closed, max_keys)?;
        let mut progress = Progress::default();
        for segment in closed.iter().filter(|s| s.base < plan.before) {
            if stop() {
                return Ok(false);
            }
            self.rewrite(segment, &plan, &mut progress)?;
        }
        lock(&self.state)
            .producers
            .forget_aborted(&progress.dropped_markers);
        let pass = Pass {
            at_ms: now_ms,
            before: plan.before,
        };
        self.note_pass(pass, how.delete_retention_ms)?;
        Ok(true)
    }

    /// Writes a segment without what the plan drops, and puts that in its place.
    fn rewrite(&self, old: &Closed, plan: &Plan, progress: &mut Progress) -> Result<(), StorageError> {
        let path = old.view.path.with_extension("compacting");
        if let Err(source) = fs::remove_file(&path)
            && source.kind() != std::io::ErrorKind::NotFound
        {
            return Err(StorageError::Io {
                action: "remove",
                path,
                source,
            });
        }
        let mut fresh = Segment::open_at(path, old.base)?;
        let mut changed = false;
        for_each_batch(&old.view, |header, batch| {
            let Some(kept) = plan.apply(&header, batch, progress) else {
                changed = true;
                return Ok(true);
            };
            let bytes = match &kept {
                Kept::Whole => batch,
                Kept::Part(bytes) => {
                    changed = true;
                    bytes
                }
            };
            if let Ok(written) = BatchHeader::parse(bytes) {
                fresh
                    .file
                    .write_all_at(bytes, fresh.len)
                    .map_err(StorageError::io("write", &fresh.path))?;
                fresh.count_in(&written);
            }
            Ok(true)
        })?;
        if !changed {
            return fs::remove_file(&fresh.path).map_err(StorageError::io("remove", &fresh.path));
        }
        fresh.flush()?;
        self.replace(old, fresh)
    }
}

/// Whether enough has been written since the last pass, or some of it is too old.
fn is_worth_it(how: &Compaction, closed: &[Closed], from: i64, now_ms: i64) -> bool {
    let bytes = |of: &mut dyn Iterator<Item = &Closed>| of.map(|c| c.view.len).sum::<u64>() as f64;
    let dirty = bytes(&mut closed.iter().filter(|c| c.end > from));
    let overdue = |c: &Closed| {
        let age = c.max_timestamp.map(|t| now_ms.saturating_sub(t));
        age.is_some_and(|age| age > how.max_lag_ms)
    };
    dirty > 0.0
        && (dirty / bytes(&mut closed.iter()) >= how.min_dirty_ratio
            || closed.iter().any(|c| c.end > from && overdue(c)))
}

enum Kept {
    Whole,
    Part(Vec<u8>),
}

impl Plan {
    /// Reads the keys of what is not yet compacted, up to `max_keys` of them.
    fn with_keys(mut self, closed: &[Closed], max_keys: usize) -> Result<Self, StorageError> {
        let (mut full, from) = (false, self.from);
        for segment in closed.iter().filter(|s| s.end > from) {
            for_each_batch(&segment.view, |header, batch| {
                if header.last_offset() < from {
                    return Ok(true);
                }
                full = self.latest.len() >= max_keys.max(1);
                if full {
                    return Ok(false);
                }
                if !header.is_control()
                    && !self.is_aborted(&header)
                    && let Ok(records) = Records::open(&header, batch)
                {
                    for record in records.iter().flatten() {
                        let offset = header.base_offset + i64::from(record.offset_delta);
                        self.latest.extend(record.key.map(|key| (hash(key), offset)));
                    }
                }
                self.before = header.last_offset() + 1;
                Ok(true)
            })?;
            if full {
                return Ok(self);
            }
            self.before = segment.end;
        }
        Ok(self)
    }

    fn is_aborted(&self, header: &BatchHeader) -> bool {
        let within = |a: &Aborted| (a.first_offset..=a.last_offset).contains(&header.base_offset);
        header.is_transactional()
            && self
                .aborted
                .get(&header.producer_id)
                .is_some_and(|ranges| ranges.iter().any(within))
    }

    /// What stays of a batch; `None` where nothing does.
    fn apply(&self, header: &BatchHeader, batch: &[u8], progress: &mut Progress) -> Option<Kept> {
        if header.last_offset() >= self.before {
            return Some(Kept::Whole);
        }
        let settled = header.base_offset < self.settled_before;
        if header.is_control() {
            let needed = progress.with_records.remove(&header.producer_id);
            if needed || !settled {
                return Some(Kept::Whole);
            }
            progress.dropped_markers.insert(header.base_offset);
            return None;
        }
        let kept = self.kept_of(header, batch, settled);
        if kept.is_some() && header.is_transactional() {
            progress.with_records.insert(header.producer_id);
        }
        kept
    }

    fn kept_of(&self, header: &BatchHeader, batch: &[u8], settled: bool) -> Option<Kept> {
        let is_last = self.last_of_producer.get(&header.producer_id) == Some(&header.base_offset);
        if header.count == 0 {
            return is_last.then_some(Kept::Whole);
        }
        let Ok(opened) = Records::open(header, batch) else {
            return Some(Kept::Whole);
        };
        let Ok(records) = opened.iter().collect::<Result<Vec<_>, _>>() else {
            return Some(Kept::Whole);
        };
        let aborted = self.is_aborted(header);
        let stays = |r: &Record<'_>| {
            let offset = header.base_offset + i64::from(r.offset_delta);
            let last = |key| self.latest.get(&hash(key)).is_none_or(|last| offset >= *last);
            !aborted && r.key.is_some_and(last) && !(r.tombstone && settled)
        };
        let kept: Vec<Record<'_>> = records.iter().filter(|r| stays(r)).copied().collect();
        if kept.len() == records.len() {
            return Some(Kept::Whole);
        }
        if kept.is_empty() && !is_last {
            return None;
        }
        // A body that opened can be written again; if not, it is better kept.
        Some(rewritten(header, batch, &kept).map_or(Kept::Whole, Kept::Part))
    }
}

/// Hands each batch of a segment, whole, to `visit`, until that returns false.
fn for_each_batch(
    view: &SegmentView,
    mut visit: impl FnMut(BatchHeader, &[u8]) -> Result<bool, StorageError>,
) -> Result<(), StorageError> {
    let mut position = 0;
    while let Some(header) = view.header_at(position)? {
        let batch = view.read(position, header.total_len)?;
        if !visit(header, &batch)? {
            break;
        }
        position += header.total_len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
