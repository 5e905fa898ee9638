//! The reading half of a lane: polls, whatever the work behind it does, and hands records over with their tickets.
//!
//! Records leave in the order of their partition, as long as there is room; without room every partition pauses and
//! polling goes on, so that the group never takes slow work for a dead worker. A record that is not due yet pauses its
//! partition until it is. What fails: refused access, and a client that gave up for good.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::OwnedSemaphorePermit;

use super::company::Seat;
use super::held::{Care, Standing, few};
use super::{Drained, Inbound, LOOK_UP, LaneConsumer, Shared, add_offset, is_fatal};
use crate::clock::now_ms;
use crate::error::{FailureClass, Stage, StageError};
use crate::failpoint;
use crate::failures::{DELAY, DUE};
use crate::track::{LaneFacts, Position, Settled, Ticket, Tracked};

/// No record waits longer than a day for what its headers say.
const LONGEST_WAIT_MS: u64 = 86_400_000;
/// Longest wait for a record, and so for the stop signal and for records that become due.
const POLL: Duration = Duration::from_millis(100);
/// The same while partitions are paused: room may come at any time.
const POLL_PAUSED: Duration = Duration::from_millis(20);
/// The same while a record waits for those before it, because its partition is taken with care.
const POLL_CAREFUL: Duration = Duration::from_millis(2);

/// A newcomer to a group is assigned no partitions at first: those that have them are told to give some up. After this
/// time there are none for it.
const NONE_COMES: Duration = Duration::from_secs(15);

pub(super) struct Source {
    pub(super) consumer: Arc<LaneConsumer>,
    pub(super) shared: Arc<Shared>,
    pub(super) seat: Seat,
    pub(super) facts: Arc<LaneFacts>,
    pub(super) settle: SyncSender<Settled>,
    pub(super) work: async_channel::Sender<Tracked<Arc<Inbound>>>,
    pub(super) until_drained: Option<Drained>,
    /// Since when this member of the group has no partitions, where that was looked at.
    pub(super) without_since: Option<Instant>,
    pub(super) paused: bool,
    pub(super) resume_at: usize,
    pub(super) at_end: HashSet<i32>,
    /// Read before there was room, each with the assignment it was read under: at most one per partition and poll.
    pub(super) read: VecDeque<(u64, OwnedMessage)>,
    /// Records of one partition that may be in flight at once.
    pub(super) per_partition: usize,
    /// Records of partitions that have as many in flight as they may, in their order, each with its assignment. Such a
    /// partition is paused.
    pub(super) crowded: BTreeMap<i32, VecDeque<(u64, OwnedMessage)>>,
    /// Records not due yet, one for each partition that waits.
    pub(super) waiting: BTreeMap<i32, Waiting>,
    /// Assignments up to here are known to be read.
    pub(super) assignments: u64,
}

/// A record that is not due yet.
pub(super) struct Waiting {
    assignment: u64,
    message: OwnedMessage,
    /// When it is due at the latest. A clock that was set back does not hold it up.
    until: Instant,
}

/// What became of a record that was to be handed over.
enum Given {
    Begun,
    /// Not now; it is tried again.
    Back(OwnedMessage),
    /// Its partition has moved on.
    Stale,
    /// The stages have stopped.
    Closed,
}

impl Source {
    pub(super) fn run(mut self) -> Result<(), StageError> {
        while !self.shared.stopping() {
            self.notice_assignments();
            // One permit per record.
            let Ok(permit) = self.shared.in_flight.clone().try_acquire_owned() else {
                self.poll_paused(POLL_PAUSED)?;
                continue;
            };
            if self.seat.is_kept_out() {
                drop(permit);
                self.poll_paused(POLL_PAUSED)?;
                continue;
            }
            if self.paused {
                // Resuming drops what the client had read ahead, so it waits until there is room for a good share.
                if self.shared.in_flight.available_permits() + 1 < self.resume_at {
                    drop(permit);
                    self.poll_paused(POLL_PAUSED)?;
                    continue;
                }
                self.resume()?;
            }
            if let Some((assignment, message)) = self.next()? {
                match self.give(assignment, message, permit)? {
                    Given::Begun | Given::Stale => {}
                    Given::Back(message) => self.put_back(assignment, message),
                    Given::Closed => break,
                }
            }
            if self.until_drained.is_some() {
                let now = self.drained();
                if self.until_drained.as_ref().is_some_and(|lanes| lanes.all(now)) {
                    tracing::info!(topic = %self.shared.topic, "drained");
                    break;
                }
            }
        }
        Ok(())
    }

    /// The client keeps a partition paused that moved away while it was, so what is new here has to be resumed. What
    /// was read under an earlier assignment is worth nothing.
    fn notice_assignments(&mut self) {
        let assignments = self.shared.assignments.load(Ordering::Relaxed);
        if assignments == self.assignments {
            return;
        }
        self.assignments = assignments;
        self.paused = true;
        let held = self.shared.held();
        let current = |id: i32, assignment: u64| {
            held.partitions
                .get(&id)
                .is_some_and(|p| p.assignment == assignment)
        };
        self.waiting
            .retain(|id, waiting| current(*id, waiting.assignment));
        self.read
            .retain(|(assignment, message)| current(message.partition(), *assignment));
        self.crowded.retain(|id, records| {
            records.retain(|(assignment, _)| current(*id, *assignment));
            !records.is_empty()
        });
    }

    /// Whether the partition has as many records in flight as it may.
    fn is_full(&self, id: i32) -> bool {
        let held = self.shared.held();
        held.partitions
            .get(&id)
            .is_some_and(|p| p.begun >= self.per_partition)
    }

    /// The next record of a partition that has room again.
    fn uncrowded(&mut self) -> Result<Option<(u64, OwnedMessage)>, StageError> {
        let found = self.crowded.keys().copied().find(|id| !self.is_full(*id));
        let Some(id) = found else { return Ok(None) };
        let records = self.crowded.get_mut(&id);
        let next = records.and_then(VecDeque::pop_front);
        if self.crowded.get(&id).is_none_or(VecDeque::is_empty) {
            self.crowded.remove(&id);
            self.pause_or_resume(id, false)?;
        }
        Ok(next)
    }

    /// Keeps a record that could not be begun: it comes before whatever was read of its partition since.
    fn put_back(&mut self, assignment: u64, message: OwnedMessage) {
        let id = message.partition();
        match self.crowded.get_mut(&id) {
            Some(records) => records.push_front((assignment, message)),
            None => self.read.push_front((assignment, message)),
        }
    }

    /// The next record to begin: one that became due, one read before, or one from Kafka.
    fn next(&mut self) -> Result<Option<(u64, OwnedMessage)>, StageError> {
        let now = now_ms();
        let due = self
            .waiting
            .iter()
            .find(|(_, waiting)| due_ms(&waiting.message) <= now || waiting.until <= Instant::now());
        if let Some(partition) = due.map(|(partition, _)| *partition) {
            let found = self.waiting.remove(&partition);
            self.pause_or_resume(partition, false)?;
            return Ok(found.map(|waiting| (waiting.assignment, waiting.message)));
        }
        if let Some(next) = self.uncrowded()? {
            return Ok(Some(next));
        }
        let timeout = if self.crowded.is_empty() {
            POLL
        } else {
            POLL_PAUSED
        };
        let Some((assignment, message)) = self
            .read
            .pop_front()
            .map_or_else(|| self.poll(timeout), |read| Ok(Some(read)))?
        else {
            return Ok(None);
        };
        let id = message.partition();
        if self.crowded.contains_key(&id) || self.is_full(id) {
            self.pause_or_resume(id, true)?;
            self.crowded
                .entry(id)
                .or_default()
                .push_back((assignment, message));
            return Ok(None);
        }
        let left = due_ms(&message).saturating_sub(now);
        if left > 0 {
            let partition = message.partition();
            self.pause_or_resume(partition, true)?;
            let wait = left
                .min(number(&message, DELAY).unwrap_or(left))
                .min(LONGEST_WAIT_MS);
            let waiting = Waiting {
                assignment,
                message,
                until: Instant::now() + Duration::from_millis(wait),
            };
            self.waiting.insert(partition, waiting);
            return Ok(None);
        }
        Ok(Some((assignment, message)))
    }

    /// One poll. A record of a partition that is not held was revoked between the fetch and now; its owner reads it. One that
    /// was read under this assignment already is passed over, whatever has the client give it again.
    fn poll(&mut self, timeout: Duration) -> Result<Option<(u64, OwnedMessage)>, StageError> {
        self.shared.polls.fetch_add(1, Ordering::Relaxed);
        let message = match self.consumer.poll(timeout) {
            None => return Ok(None),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.at_end.insert(partition);
                return Ok(None);
            }
            Some(Err(error)) if is_fatal(&error) => return Err(unreadable(error)),
            Some(Err(error)) => {
                tracing::warn!(%error, "reading; the client tries again");
                return Ok(None);
            }
            Some(Ok(message)) => message.detach(),
        };
        self.at_end.remove(&message.partition());
        let mut held = self.shared.held();
        let Some(partition) = held.partitions.get_mut(&message.partition()) else {
            return Ok(None);
        };
        if !partition.is_new(message.offset()) {
            let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
            tracing::warn!(
                topic,
                partition,
                offset,
                "a record came a second time and is passed over"
            );
            return Ok(None);
        }
        Ok(Some((partition.assignment, message)))
    }

    /// Begins a record, as carefully as its partition stands, and hands it over.
    fn give(
        &mut self,
        assignment: u64,
        message: OwnedMessage,
        permit: OwnedSemaphorePermit,
    ) -> Result<Given, StageError> {
        let (id, offset) = (message.partition(), message.offset());
        let Some(found) = self.standing(assignment, id) else {
            return Ok(Given::Stale);
        };
        let standing = match found {
            Some(standing) => standing,
            None => match self.look_up(id, offset) {
                Ok(()) => return Ok(Given::Back(message)),
                Err(error) => {
                    tracing::warn!(%error, "committed offsets cannot be looked up; trying again");
                    drop(permit);
                    self.poll_paused(POLL_PAUSED)?;
                    return Ok(Given::Back(message));
                }
            },
        };
        let alone = standing.care == Care::Alone;
        let solitude = if alone { self.seat.keep_others_out() } else { None };
        if alone && solitude.is_none() {
            drop(permit);
            self.poll_paused(POLL_CAREFUL)?;
            return Ok(Given::Back(message));
        }
        let limit = self.shared.limit;
        let room = |shared: &Shared, seat: &Seat| match standing.care {
            Care::None => true,
            Care::Few => {
                let held = shared.held();
                held.partitions.get(&id).is_none_or(|p| p.begun < few(limit))
            }
            // The permit of this record is taken.
            Care::Alone => shared.in_flight.available_permits() + 1 == limit && seat.others_are_idle(),
        };
        while !room(&self.shared, &self.seat) {
            if self.shared.stopping() {
                return Ok(Given::Back(message));
            }
            self.poll_paused(POLL_CAREFUL)?;
        }
        // What was in flight may have been of this partition.
        let Some(Some(standing)) = self.standing(assignment, id) else {
            return Ok(Given::Stale);
        };
        let deadly = standing.is_deadly();
        if deadly {
            tracing::error!(
                topic = %self.shared.topic, partition = id, offset,
                "the record ended every process that worked on it and is given up"
            );
        } else if alone || !standing.marked {
            let announced = if alone {
                standing.begun_alone()
            } else {
                standing.marked()
            };
            if let Err(error) = self.announce(assignment, id, announced) {
                tracing::warn!(%error, "work on a partition cannot be announced; trying again");
                drop(permit);
                self.poll_paused(POLL_PAUSED)?;
                return Ok(Given::Back(message));
            }
        }
        let (position, lease) = {
            let mut held = self.shared.held();
            let Some(partition) = held
                .partitions
                .get_mut(&id)
                .filter(|p| p.assignment == assignment)
            else {
                return Ok(Given::Stale);
            };
            // The last record before it may have been answered just now, and the mark be gone with it.
            if !deadly && !partition.standing.is_some_and(|standing| standing.marked) {
                return Ok(Given::Back(message));
            }
            partition.watermark.begin(offset);
            partition.begun += 1;
            let position = Position {
                partition: id,
                assignment,
                offset,
            };
            (position, Arc::downgrade(&partition.lease))
        };
        let record = Arc::new(Inbound {
            alone,
            deadly,
            ..inbound(&message)
        });
        failpoint::pass(self.facts.role, "read");
        let ticket = Ticket::new(
            position,
            lease,
            self.facts.clone(),
            record.clone(),
            permit,
            self.settle.clone(),
        );
        let work = Tracked {
            value: record,
            ticket,
        };
        if !self.hand_over(work)? {
            return Ok(Given::Closed);
        }
        if alone {
            while self.shared.in_flight.available_permits() < limit && !self.shared.stopping() {
                self.poll_paused(POLL_CAREFUL)?;
            }
        }
        drop(solitude);
        Ok(Given::Begun)
    }

    /// The partition's standing, if it was looked up; `None` where the assignment is over.
    fn standing(&self, assignment: u64, id: i32) -> Option<Option<Standing>> {
        let held = self.shared.held();
        let partition = held.partitions.get(&id).filter(|p| p.assignment == assignment)?;
        Some(partition.standing)
    }

    /// Looks up what other processes left in the offsets of all partitions not looked up yet.
    fn look_up(&self, first: i32, first_offset: i64) -> Result<(), KafkaError> {
        let topic = &*self.shared.topic;
        let mut asked = TopicPartitionList::new();
        let mut unknown = BTreeMap::new();
        for (id, partition) in &self.shared.held().partitions {
            if partition.standing.is_none() {
                asked.add_partition(topic, *id);
                unknown.insert(*id, partition.assignment);
            }
        }
        let found = self.consumer.committed_offsets(asked, LOOK_UP)?;
        let mut held = self.shared.held();
        for entry in found.elements() {
            let id = entry.partition();
            let committed = match entry.offset() {
                Offset::Offset(offset) => offset,
                // Nothing was committed yet: the mark goes to the first record, or waits for one.
                _ if id == first => first_offset,
                _ => continue,
            };
            if let Some(partition) = held.partitions.get_mut(&id)
                && unknown.get(&id) == Some(&partition.assignment)
            {
                let limit = self.shared.limit;
                let standing = Standing::found(committed, entry.metadata(), &self.shared.holder, limit);
                partition.standing = Some(standing);
            }
        }
        Ok(())
    }

    /// Names this process, where its death will leave it, as one at work on the partition.
    fn announce(&self, assignment: u64, id: i32, standing: Standing) -> Result<(), KafkaError> {
        let metadata = standing.metadata(Some(&self.shared.holder));
        let mut list = TopicPartitionList::new();
        add_offset(&mut list, &self.shared.topic, id, standing.committed, &metadata)?;
        self.consumer.commit(&list, CommitMode::Sync)?;
        let mut held = self.shared.held();
        let partition = held.partitions.get_mut(&id);
        if let Some(partition) = partition.filter(|p| p.assignment == assignment) {
            partition.standing = Some(standing);
        }
        Ok(())
    }

    /// Gives the work to the first stage, polling while it is busy. `false` when the stages have stopped.
    fn hand_over(&mut self, mut work: Tracked<Arc<Inbound>>) -> Result<bool, StageError> {
        loop {
            match self.work.try_send(work) {
                Ok(()) => return Ok(true),
                Err(async_channel::TrySendError::Closed(_)) => return Ok(false),
                Err(async_channel::TrySendError::Full(back)) => work = back,
            }
            self.poll_paused(POLL_PAUSED)?;
        }
    }

    /// Polls with every partition paused: the group sees a live member, and nothing more is read.
    fn poll_paused(&mut self, timeout: Duration) -> Result<(), StageError> {
        let assignment = self.consumer.assignment().map_err(unreadable)?;
        self.consumer.pause(&assignment).map_err(unreadable)?;
        self.paused = true;
        // A partition assigned in this very poll was not paused yet: its record waits here.
        if let Some(read) = self.poll(timeout)? {
            self.read.push_back(read);
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), StageError> {
        let mut reading = TopicPartitionList::new();
        for partition in self.consumer.assignment().map_err(unreadable)?.elements() {
            let id = partition.partition();
            if !self.waiting.contains_key(&id) && !self.crowded.contains_key(&id) {
                reading.add_partition(partition.topic(), partition.partition());
            }
        }
        self.consumer.resume(&reading).map_err(unreadable)?;
        self.paused = false;
        Ok(())
    }

    fn pause_or_resume(&self, partition: i32, pause: bool) -> Result<(), StageError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.shared.topic, partition);
        let done = if pause {
            self.consumer.pause(&list)
        } else {
            self.consumer.resume(&list)
        };
        // A partition that has moved on can be neither.
        match done {
            Err(error) if self.shared.held().partitions.contains_key(&partition) => Err(unreadable(error)),
            _ => Ok(()),
        }
    }

    /// Whether everything of the assigned partitions is done; of none, whether none came for [`NONE_COMES`].
    fn drained(&mut self) -> bool {
        let held = self.shared.held();
        if !held.assigned_once {
            return false;
        }
        if held.partitions.is_empty() {
            let since = *self.without_since.get_or_insert_with(Instant::now);
            return since.elapsed() >= NONE_COMES;
        }
        self.without_since = None;
        self.read.is_empty()
            && self.crowded.is_empty()
            && held.partitions.keys().all(|p| self.at_end.contains(p))
            && held.is_clear()
    }
}

/// When the record is due, in milliseconds since 1970; 0 where it does not say.
fn due_ms(message: &OwnedMessage) -> u64 {
    number(message, DUE).unwrap_or(0)
}

fn number(message: &OwnedMessage, header: &str) -> Option<u64> {
    let found = message.headers()?.iter().find(|found| found.key == header)?;
    std::str::from_utf8(found.value?).ok()?.parse().ok()
}

fn inbound(message: &OwnedMessage) -> Inbound {
    let text = |header: rdkafka::message::Header<'_, &[u8]>| {
        let value = std::str::from_utf8(header.value?).ok()?;
        Some((header.key.to_owned(), value.to_owned()))
    };
    Inbound {
        key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: message
            .headers()
            .map(|headers| headers.iter().filter_map(text).collect())
            .unwrap_or_default(),
        alone: false,
        deadly: false,
    }
}

fn unreadable(error: KafkaError) -> StageError {
    StageError::external(Stage::Source, FailureClass::Network, error)
}
