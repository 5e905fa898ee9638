//! Consumer groups: who belongs, who leads, who may commit. Membership lives in memory only; after a
//! restart members are unknown and join again. Committed offsets are the journal's.
//!
//! Enters: join, sync, heartbeat, leave, and the clock. Leaves: answers through one-shot channels.
//! Fails with the protocol's error codes.

mod group;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

pub(crate) use group::{Group, Phase};

/// What a member sends to join.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) group: String,
    /// Empty for a new member.
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) session: Duration,
    pub(crate) rebalance: Duration,
    pub(crate) protocol_type: String,
    /// Assignment strategies in order of preference, with the member's metadata for each.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether a new member must first take an id and join again with it (protocol version 4 on).
    pub(crate) id_first: bool,
    /// How long the first rebalance waits for others.
    pub(crate) initial_delay: Duration,
}

/// What a joined member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member: String,
    /// For the leader: every member, its instance and its metadata.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

/// A refused join, with the member id to use from now on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JoinRefused {
    pub(crate) error: ResponseError,
    pub(crate) member: String,
}

pub(crate) type JoinAnswer = Result<Joined, JoinRefused>;
/// The member's assignment, with protocol type and name.
pub(crate) type SyncAnswer = Result<(Bytes, String, String), ResponseError>;

/// Who speaks for a group: its member id, generation and instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker<'a> {
    pub(crate) member: &'a str,
    pub(crate) generation: i32,
    pub(crate) instance: Option<&'a str>,
}

/// All groups with members.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_id: BTreeMap<String, Group>,
    /// When groups lost their last member, ms since the epoch.
    departed: BTreeMap<String, i64>,
}

impl Groups {
    /// A member joins; the answer comes when the group has gathered.
    pub(crate) fn join(&mut self, join: Join, now: Instant) -> oneshot::Receiver<JoinAnswer> {
        let (answer, receiver) = oneshot::channel();
        if !join.member.is_empty() && !self.by_id.contains_key(&join.group) {
            let refused = JoinRefused {
                error: ResponseError::UnknownMemberId,
                member: join.member,
            };
            // A receiver that is gone needs no answer, here and below.
            let _ = answer.send(Err(refused));
            return receiver;
        }
        self.by_id
            .entry(join.group.clone())
            .or_default()
            .join(join, answer, now);
        receiver
    }

    /// A member asks for (and the leader hands in) assignments.
    pub(crate) fn sync(
        &mut self,
        group: &str,
        speaker: Speaker<'_>,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> oneshot::Receiver<SyncAnswer> {
        let (answer, receiver) = oneshot::channel();
        match self.by_id.get_mut(group) {
            Some(found) => found.sync(speaker, assignments, answer, now),
            None => {
                let _ = answer.send(Err(ResponseError::UnknownMemberId));
            }
        }
        receiver
    }

    /// A member shows that it lives.
    pub(crate) fn heartbeat(
        &mut self,
        group: &str,
        speaker: Speaker<'_>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.by_id
            .get_mut(group)
            .ok_or(ResponseError::UnknownMemberId)?
            .heartbeat(speaker, now)
    }

    /// A member leaves, named by id or by instance.
    pub(crate) fn leave(
        &mut self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.by_id
            .get_mut(group)
            .ok_or(ResponseError::UnknownMemberId)?
            .leave(member, instance, now)
    }

    /// Whether the speaker may commit offsets. A generation below 0 stands for a client outside
    /// group membership, which may commit only while the group has no members, unless
    /// `transactional` (such clients fence by transactional id).
    pub(crate) fn may_commit(
        &mut self,
        group: &str,
        speaker: Speaker<'_>,
        transactional: bool,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let outside = speaker.generation < 0 && speaker.member.is_empty();
        match self.by_id.get_mut(group) {
            _ if outside && transactional => Ok(()),
            None if speaker.generation < 0 => Ok(()),
            None if transactional => Err(ResponseError::UnknownMemberId),
            None => Err(ResponseError::IllegalGeneration),
            Some(found) => found.may_commit(speaker, now),
        }
    }

    /// Acts on what has timed out.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.by_id.values_mut().for_each(|g| g.tick(now));
        let departed = &mut self.departed;
        self.by_id.retain(|id, group| {
            if group.is_gone() {
                departed.insert(id.clone(), crate::now_ms());
            }
            !group.is_gone()
        });
    }

    /// Since when a group has had no members, ms since the epoch, 0 where that was before this
    /// process; `None` where it has some.
    pub(crate) fn empty_since(&self, group: &str) -> Option<i64> {
        match self.by_id.get(group) {
            Some(found) if !found.is_gone() => None,
            _ => Some(self.departed.get(group).copied().unwrap_or(0)),
        }
    }

    /// Forgets when groups were left of which nothing else is known.
    pub(crate) fn forget_departures(&mut self, known: impl Fn(&str) -> bool) {
        self.departed.retain(|group, _| known(group));
    }

    /// A group that has or had members.
    pub(crate) fn get(&self, group: &str) -> Option<&Group> {
        self.by_id.get(group)
    }

    /// Groups that have or had members.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Group)> {
        self.by_id.iter()
    }

    /// Forgets a group without members; one with members is an error.
    pub(crate) fn remove_empty(&mut self, group: &str) -> Result<(), ResponseError> {
        match self.by_id.get(group) {
            Some(found) if found.phase() != Phase::Empty => Err(ResponseError::NonEmptyGroup),
            _ => {
                self.by_id.remove(group);
                Ok(())
            }
        }
    }
}
