//! The acknowledgement that travels with the work, and the watermark that decides what may be committed.
//!
//! A [`Ticket`] is made for each record read from Kafka and must be settled exactly once, with what is to be
//! published for it. A ticket dropped unsettled settles itself as [`Outcome::Dropped`], which stops the worker: the
//! record stays uncommitted and is done again. [`Watermark`] is pure: per partition, the next offset that may be
//! committed, only when every lower one is settled.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};

use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Stage, StageError};
use crate::events::Origin;
use crate::failures::RetryPolicy;
use crate::kafka::OutRecord;
use crate::kafka::lane::Inbound;
use crate::kafka::topics::Topic;
use crate::kafka::trace::{TRACEPARENT, traceparent};
use crate::schemas::Schemas;

/// A record's place: which assignment of which partition it was read under, and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// Counts how often the partition was assigned to this process; a result of an earlier assignment is stale.
    pub assignment: u64,
    /// The offset.
    pub offset: i64,
}

/// What became of a record.
#[derive(Debug)]
pub enum Outcome {
    /// Publish these, then the record is done.
    Publish(Vec<OutRecord>),
    /// Nothing came of the record: it stays uncommitted, for whoever reads the partition next. For a process that ends.
    GivenBack,
    /// The worker must stop without committing the record.
    Stop(StageError),
    /// The ticket was lost on the way: a defect, treated like `Stop`.
    Dropped,
}

/// A settled record on its way to the publisher.
#[derive(Debug)]
pub struct Settled {
    /// Which record.
    pub position: Position,
    /// What became of it.
    pub outcome: Outcome,
    /// Its share of the limit on work in flight, returned when the outcome is committed.
    pub in_flight: Option<OwnedSemaphorePermit>,
}

/// What every ticket of a lane has in common.
#[derive(Debug)]
pub struct LaneFacts {
    /// The role that reads.
    pub role: &'static str,
    /// The topic that is read, with its prefix.
    pub topic: Arc<str>,
    /// The name of this process.
    pub worker: String,
    /// When failed work is tried again.
    pub retries: RetryPolicy,
    /// What is on the topic.
    pub of: Topic,
    /// How to read it.
    pub schemas: Schemas,
}

/// The obligation to settle one record.
#[derive(Debug)]
pub struct Ticket {
    position: Position,
    /// Ends with the assignment.
    lease: Weak<()>,
    facts: Arc<LaneFacts>,
    record: Arc<Inbound>,
    in_flight: Option<OwnedSemaphorePermit>,
    // The channel holds as many items as may be in flight, so a send never finds it full.
    settled: Option<SyncSender<Settled>>,
}

impl Ticket {
    /// A ticket for `record`, read at `position` under an assignment that lasts as long as `lease`; `in_flight` is its share of the limit on work in flight.
    pub fn new(
        position: Position,
        lease: Weak<()>,
        facts: Arc<LaneFacts>,
        record: Arc<Inbound>,
        in_flight: OwnedSemaphorePermit,
        settled: SyncSender<Settled>,
    ) -> Self {
        Self {
            position,
            lease,
            facts,
            record,
            in_flight: Some(in_flight),
            settled: Some(settled),
        }
    }

    /// Where the record came from.
    pub fn origin(&self) -> Origin {
        Origin {
            topic: self.facts.topic.to_string(),
            partition: self.position.partition,
            offset: self.position.offset,
            key: self.record.key.clone(),
        }
    }

    /// The record as it was read.
    pub fn record(&self) -> &Arc<Inbound> {
        &self.record
    }

    /// The event in the record. Blocks where its schema has to be asked for at a registry.
    pub fn read<E: DeserializeOwned>(&self, stage: Stage) -> Result<E, StageError> {
        let LaneFacts { of, schemas, .. } = &*self.facts;
        let event = schemas.read(*of, &self.record.value);
        event.map_err(|unreadable| unreadable.at(stage, self.origin()))
    }

    /// Which assignment of the partition it was read under.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether its partition has moved on since: then whatever it is settled with is dropped, and another process does
    /// the record again.
    pub fn is_stale(&self) -> bool {
        self.lease.strong_count() == 0
    }

    /// What the ticket's lane is.
    pub fn facts(&self) -> &LaneFacts {
        &self.facts
    }

    /// Settles the record.
    pub fn settle(mut self, outcome: Outcome) {
        self.send(outcome);
    }

    /// What is made of a record belongs to its trace.
    fn hand_trace_on(&self, records: &mut [OutRecord]) {
        let Some(parent) = self.record.header(TRACEPARENT) else {
            return;
        };
        for record in records {
            let trace = traceparent(Some(parent), &record.id);
            record.headers.push((TRACEPARENT, trace));
        }
    }

    fn send(&mut self, mut outcome: Outcome) {
        if let Some(sender) = self.settled.take() {
            if let Outcome::Publish(records) = &mut outcome {
                self.hand_trace_on(records);
            }
            let settled = Settled {
                position: self.position,
                outcome,
                in_flight: self.in_flight.take(),
            };
            // Fails only when the publisher is gone; then nothing is committed any more and the record is done again.
            if sender.try_send(settled).is_err() {
                tracing::debug!(position = ?self.position, "settled after the publisher stopped");
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.send(Outcome::Dropped);
    }
}

/// Work with its ticket.
#[derive(Debug)]
pub struct Tracked<T> {
    /// The work.
    pub value: T,
    /// The obligation to settle it.
    pub ticket: Ticket,
}

impl<T> Tracked<T> {
    /// The work, unless its partition has moved on since: then it is given back, and no more time is spent on it.
    pub fn unless_stale(self) -> Option<Self> {
        if self.ticket.is_stale() {
            self.ticket.settle(Outcome::GivenBack);
            return None;
        }
        Some(self)
    }

    /// The same obligation for the next form of the work.
    pub fn with<U>(self, value: U) -> Tracked<U> {
        Tracked {
            value,
            ticket: self.ticket,
        }
    }
}

/// Per partition, the next offset that may be committed: one past the last of the unbroken run of settled offsets.
///
/// Offsets are announced with [`Watermark::begin`] in the order they are read (gaps between them, such as
/// transaction markers, are none of ours) and taken with [`Watermark::settle`] in any order.
#[derive(Debug, Default)]
pub struct Watermark {
    open: BTreeMap<i64, Option<i64>>,
    next: Option<i64>,
}

impl Watermark {
    /// Announces that `offset` was read.
    pub fn begin(&mut self, offset: i64) {
        self.open.entry(offset).or_insert(None);
    }

    /// Marks `offset` settled; unknown or already settled offsets change nothing.
    pub fn settle(&mut self, offset: i64) {
        if let Some(state) = self.open.get_mut(&offset) {
            *state = Some(offset);
        }
        while let Some(entry) = self.open.first_entry() {
            let Some(settled) = *entry.get() else { break };
            self.next = Some(settled + 1);
            entry.remove();
        }
    }

    /// The offset to commit, if any record was settled without a gap before it.
    pub fn committable(&self) -> Option<i64> {
        self.next
    }

    /// Whether every announced offset is settled.
    pub fn is_clear(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// After any subset of reads was settled in any order, the watermark is exactly one past the longest settled
        /// prefix: never past an unsettled record, never behind a complete prefix.
        #[test]
        fn watermark_is_one_past_the_longest_settled_prefix(
            gaps in proptest::collection::vec(1i64..4, 1..60),
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..120),
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut watermark = Watermark::default();
            for offset in &offsets {
                watermark.begin(*offset);
            }
            let mut settled = std::collections::BTreeSet::new();
            for index in order {
                let offset = *index.get(&offsets);
                watermark.settle(offset);
                settled.insert(offset);
                let expected = offsets.iter().take_while(|o| settled.contains(o)).last().map(|o| o + 1);
                prop_assert_eq!(watermark.committable(), expected);
                prop_assert_eq!(watermark.is_clear(), settled.len() == offsets.len());
            }
        }
    }

    pub(crate) fn ticket(sender: &SyncSender<Settled>) -> Ticket {
        let permit = std::sync::Arc::new(tokio::sync::Semaphore::new(1))
            .try_acquire_owned()
            .unwrap();
        let position = Position {
            partition: 0,
            assignment: 1,
            offset: 7,
        };
        let facts = LaneFacts {
            role: "worker",
            topic: "tasks".into(),
            worker: "w".to_owned(),
            retries: RetryPolicy::default(),
            of: Topic::Tasks,
            schemas: Schemas::default(),
        };
        Ticket::new(
            position,
            Weak::new(),
            Arc::new(facts),
            Arc::default(),
            permit,
            sender.clone(),
        )
    }

    #[test]
    fn a_ticket_dropped_unsettled_counts_as_a_failure() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        drop(ticket(&sender));
        assert!(matches!(receiver.try_recv().unwrap().outcome, Outcome::Dropped));
    }

    #[test]
    fn a_settled_ticket_settles_once() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(2);
        ticket(&sender).settle(Outcome::Publish(Vec::new()));
        assert!(matches!(
            receiver.try_recv().unwrap().outcome,
            Outcome::Publish(_)
        ));
        assert!(receiver.try_recv().is_err());
    }
}
