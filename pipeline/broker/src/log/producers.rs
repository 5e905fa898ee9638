//! What a partition knows of its producers: sequence numbers, open transactions, aborted ranges.
//!
//! Enters: batch headers in log order, both live and at recovery. Leaves: verdicts on new batches,
//! the last stable offset, and the aborted transactions of a range.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::batch::BatchHeader;

/// Batches remembered per producer for recognising a resend, as in Kafka.
const REMEMBERED: usize = 5;
/// Producers remembered per partition; the longest silent ones without a transaction go first.
const MAX_PRODUCERS: usize = 2000;

/// An aborted transaction, as fetch answers report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// Offset of the abort marker.
    pub(crate) last_offset: i64,
    /// Last stable offset once it was aborted; ends the search for a range early.
    stable: i64,
}

/// Why a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A newer incarnation of the producer has written.
    OldEpoch,
    /// A batch before this one is missing.
    OutOfOrder,
    /// A plain batch inside an open transaction of the same producer.
    InsideTransaction,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// It is already in the log at this base offset.
    Duplicate(i64),
}

#[derive(Debug, Clone, Copy)]
struct SentBatch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// Base offset of its last batch of records.
    last_batch: Option<i64>,
    recent: VecDeque<SentBatch>,
    open_from: Option<i64>,
    last_offset: i64,
}

/// The producer state of one partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    by_id: HashMap<i64, Producer>,
    /// First offsets of open transactions.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
}

fn sequence_after(sequence: i32, steps: i32) -> i32 {
    // Sequence numbers wrap from i32::MAX to 0.
    ((i64::from(sequence) + i64::from(steps)) % (i64::from(i32::MAX) + 1)) as i32
}

impl Producers {
    /// Judges a data batch about to be appended.
    pub(crate) fn judge(&self, batch: &BatchHeader) -> Result<Verdict, Refusal> {
        if batch.producer_id < 0 {
            return Ok(Verdict::Append);
        }
        // An unknown producer may start anywhere: its state may have been evicted.
        let Some(known) = self.by_id.get(&batch.producer_id) else {
            return Ok(Verdict::Append);
        };
        if batch.producer_epoch < known.epoch {
            return Err(Refusal::OldEpoch);
        }
        if known.open_from.is_some() && !batch.is_transactional() {
            return Err(Refusal::InsideTransaction);
        }
        if batch.base_sequence < 0 {
            return Ok(Verdict::Append);
        }
        let same_epoch = batch.producer_epoch == known.epoch;
        let last_sequence = sequence_after(batch.base_sequence, batch.last_offset_delta);
        if same_epoch {
            let resent = |sent: &&SentBatch| {
                sent.first_sequence == batch.base_sequence && sent.last_sequence == last_sequence
            };
            if let Some(sent) = known.recent.iter().find(resent) {
                return Ok(Verdict::Duplicate(sent.base_offset));
            }
        }
        let expected = match known.recent.back() {
            Some(last) if same_epoch => sequence_after(last.last_sequence, 1),
            _ => 0,
        };
        if batch.base_sequence == expected {
            Ok(Verdict::Append)
        } else {
            Err(Refusal::OutOfOrder)
        }
    }

    /// Takes note of a batch now in the log; `commits` is set for a control batch.
    pub(crate) fn note(&mut self, batch: &BatchHeader, commits: Option<bool>) {
        if batch.producer_id < 0 {
            return;
        }
        if !self.by_id.contains_key(&batch.producer_id) {
            self.evict();
        }
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            last_batch: None,
            recent: VecDeque::new(),
            open_from: None,
            last_offset: batch.base_offset,
        });
        if batch.producer_epoch != producer.epoch {
            producer.epoch = batch.producer_epoch;
            producer.recent.clear();
        }
        producer.last_offset = batch.last_offset();
        let Some(commit) = commits else {
            producer.last_batch = Some(batch.base_offset);
            if batch.base_sequence >= 0 {
                if producer.recent.len() == REMEMBERED {
                    producer.recent.pop_front();
                }
                producer.recent.push_back(SentBatch {
                    first_sequence: batch.base_sequence,
                    last_sequence: sequence_after(batch.base_sequence, batch.last_offset_delta),
                    base_offset: batch.base_offset,
                });
            }
            if batch.is_transactional() && producer.open_from.is_none() {
                producer.open_from = Some(batch.base_offset);
                self.open.insert(batch.base_offset, batch.producer_id);
            }
            return;
        };
        if let Some(first_offset) = producer.open_from.take() {
            self.open.remove(&first_offset);
            if !commit {
                let stable = self.first_open().unwrap_or(batch.last_offset() + 1);
                self.aborted.push(Aborted {
                    producer_id: batch.producer_id,
                    first_offset,
                    last_offset: batch.last_offset(),
                    stable,
                });
            }
        }
    }

    fn evict(&mut self) {
        if self.by_id.len() < MAX_PRODUCERS {
            return;
        }
        let oldest = self
            .by_id
            .iter()
            .filter(|(_, p)| p.open_from.is_none())
            .min_by_key(|(_, p)| p.last_offset)
            .map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.by_id.remove(&id);
        }
    }

    /// First offset of the earliest open transaction.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// Whether the producer has an open transaction here.
    pub(crate) fn is_open(&self, producer_id: i64) -> bool {
        self.by_id
            .get(&producer_id)
            .is_some_and(|p| p.open_from.is_some())
    }

    /// Producers with an open transaction here, with their epochs.
    pub(crate) fn open_producers(&self) -> Vec<(i64, i16)> {
        self.open
            .values()
            .filter_map(|id| self.by_id.get(id).map(|p| (*id, p.epoch)))
            .collect()
    }

    /// Aborted transactions that touch the offsets from `from` to before `to`.
    pub(crate) fn aborted_in(&self, from: i64, to: i64) -> Vec<Aborted> {
        let start = self.aborted.partition_point(|a| a.last_offset < from);
        let mut found = Vec::new();
        for aborted in self.aborted.iter().skip(start) {
            if aborted.first_offset < to {
                found.push(*aborted);
            }
            if aborted.stable >= to {
                break;
            }
        }
        found
    }

    /// Base offset of the last batch of records of each producer.
    pub(crate) fn last_batches(&self) -> HashMap<i64, i64> {
        let last = |(id, p): (&i64, &Producer)| p.last_batch.map(|at| (*id, at));
        self.by_id.iter().filter_map(last).collect()
    }

    /// Forgets aborted transactions whose markers, by offset, are no longer in the log.
    pub(crate) fn forget_aborted(&mut self, markers: &HashSet<i64>) {
        self.aborted.retain(|a| !markers.contains(&a.last_offset));
    }

    /// Forgets aborted transactions that end before `offset`.
    pub(crate) fn forget_before(&mut self, offset: i64) {
        self.aborted.retain(|a| a.last_offset >= offset);
    }
}
