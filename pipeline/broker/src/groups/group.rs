//! One consumer group: the state machine of Kafka's classic group protocol.
//!
//! `Empty` -> (a member joins) `Gathering` -> (all have joined, or time is up) `Assigning` -> (the
//! leader hands in assignments) `Stable` -> (someone joins, leaves or dies) `Gathering` ...

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

use super::{Join, JoinAnswer, JoinRefused, Joined, Speaker, SyncAnswer};

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Empty,
    Gathering,
    Assigning,
    Stable,
}

impl Phase {
    /// The state's name in Kafka.
    pub(crate) fn kafka_name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Gathering => "PreparingRebalance",
            Self::Assigning => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    session: Duration,
    rebalance: Duration,
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    /// Dead if not heard from by then, unless it waits for an answer of ours.
    deadline: Instant,
    joining: Option<oneshot::Sender<JoinAnswer>>,
    syncing: Option<oneshot::Sender<SyncAnswer>>,
}

/// A group. `members` is ordered by id, so that who leads is the same on every run.
#[derive(Debug, Default)]
pub(crate) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids given out and not yet used to join, with the time they lapse.
    pending: BTreeMap<String, Instant>,
    gather_until: Option<Instant>,
    /// Set while the very first members of a generation gather: the end of waiting for more.
    first_gathering: Option<Instant>,
}

fn refuse(answer: oneshot::Sender<JoinAnswer>, error: ResponseError, member: String) {
    let _ = answer.send(Err(JoinRefused { error, member }));
}

impl Group {
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    pub(crate) fn protocol(&self) -> &str {
        &self.protocol
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter()
    }

    /// Whether nothing but committed offsets is left of the group.
    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Empty && self.members.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn join(&mut self, mut join: Join, answer: oneshot::Sender<JoinAnswer>, now: Instant) {
        let agrees = |g: &Self| {
            g.protocol_type == join.protocol_type
                && join.protocols.iter().any(|(name, _)| {
                    g.members.iter().all(|(id, m)| {
                        let itself =
                            *id == join.member || (join.instance.is_some() && m.instance == join.instance);
                        itself || m.protocols.iter().any(|(other, _)| other == name)
                    })
                })
        };
        if join.protocols.is_empty() || (!self.members.is_empty() && !agrees(self)) {
            return refuse(answer, ResponseError::InconsistentGroupProtocol, join.member);
        }
        if join.member.is_empty() {
            let fresh = crate::broker::fresh_id(if join.client_id.is_empty() {
                "member"
            } else {
                &join.client_id
            });
            if join.instance.is_none() && join.id_first {
                self.pending.insert(fresh.clone(), now + join.session);
                return refuse(answer, ResponseError::MemberIdRequired, fresh);
            }
            if let Some(old) = join.instance.as_deref().and_then(|i| self.take_instance(i)) {
                if self.phase == Phase::Stable && old.1.protocols == join.protocols {
                    return self.resume(old, fresh, join, answer, now);
                }
                if self.leader.as_ref() == Some(&old.0) {
                    self.leader = None;
                }
            }
            join.member = fresh;
        } else if !self.members.contains_key(&join.member) {
            if self.pending.remove(&join.member).is_none() {
                let error = self.stranger(join.instance.as_deref());
                return refuse(answer, error, join.member);
            }
        } else if self.phase != Phase::Gathering && self.joins_as_before(&join) {
            // The answer to the last join was lost, or a follower checks in: nothing has changed.
            let known = self.joined(&join.member);
            let _ = answer.send(Ok(known));
            return;
        }
        let was_known = self.members.contains_key(&join.member);
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        let assignment = self
            .members
            .get(&join.member)
            .map(|m| m.assignment.clone())
            .unwrap_or_default();
        let rebalance = join.rebalance;
        let delay = join.initial_delay;
        self.members.insert(
            join.member,
            Member {
                instance: join.instance,
                client_id: join.client_id,
                session: join.session,
                rebalance,
                protocols: join.protocols,
                assignment,
                deadline: now + join.session,
                joining: Some(answer),
                syncing: None,
            },
        );
        if self.phase == Phase::Empty {
            self.phase = Phase::Gathering;
            self.first_gathering = Some(now + rebalance.max(delay));
            self.gather_until = Some(now + delay);
        } else if let (Some(latest), false) = (self.first_gathering, was_known) {
            self.gather_until = Some((now + delay).min(latest));
        } else {
            self.gather(now);
        }
        self.finish_gathering(now);
    }

    /// Whether a known member repeats what it joined with and the group need not gather again.
    fn joins_as_before(&self, join: &Join) -> bool {
        let same = self
            .members
            .get(&join.member)
            .is_some_and(|m| m.protocols == join.protocols);
        let leads = self.leader.as_deref() == Some(join.member.as_str());
        same && (self.phase == Phase::Assigning || (self.phase == Phase::Stable && !leads))
    }

    /// What to call one who is not a member.
    fn stranger(&self, instance: Option<&str>) -> ResponseError {
        let taken = instance.is_some() && self.members.values().any(|m| m.instance.as_deref() == instance);
        if taken {
            ResponseError::FencedInstanceId
        } else {
            ResponseError::UnknownMemberId
        }
    }

    /// Removes the member that held an instance name which a new process now claims.
    fn take_instance(&mut self, instance: &str) -> Option<(String, Member)> {
        let id = self
            .members
            .iter()
            .find(|(_, m)| m.instance.as_deref() == Some(instance))
            .map(|(id, _)| id.clone())?;
        let mut member = self.members.remove(&id)?;
        if let Some(answer) = member.joining.take() {
            refuse(answer, ResponseError::FencedInstanceId, id.clone());
        }
        if let Some(answer) = member.syncing.take() {
            let _ = answer.send(Err(ResponseError::FencedInstanceId));
        }
        Some((id, member))
    }

    /// Lets a static member that has come back, as it was, go on under a new id without disturbing the others. Where it
    /// led the group it still does, but is told its old id, so that it does not assign anew.
    fn resume(
        &mut self,
        (old_id, old): (String, Member),
        id: String,
        join: Join,
        answer: oneshot::Sender<JoinAnswer>,
        now: Instant,
    ) {
        let told_leader = self.leader.clone().unwrap_or_default();
        if told_leader == old_id {
            self.leader = Some(id.clone());
        }
        let member = Member {
            client_id: join.client_id,
            session: join.session,
            rebalance: join.rebalance,
            deadline: now + join.session,
            ..old
        };
        self.members.insert(id.clone(), member);
        let joined = Joined {
            leader: told_leader,
            members: Vec::new(),
            ..self.joined(&id)
        };
        let _ = answer.send(Ok(joined));
    }

    /// Calls all members to join again.
    fn gather(&mut self, now: Instant) {
        if self.phase == Phase::Gathering {
            return;
        }
        self.phase = Phase::Gathering;
        self.first_gathering = None;
        let longest = self
            .members
            .values()
            .map(|m| m.rebalance)
            .max()
            .unwrap_or_default();
        self.gather_until = Some(now + longest);
        for member in self.members.values_mut() {
            if let Some(answer) = member.syncing.take() {
                member.deadline = now + member.session;
                let _ = answer.send(Err(ResponseError::RebalanceInProgress));
            }
        }
    }

    /// Begins a new generation if all have joined or time is up.
    fn finish_gathering(&mut self, now: Instant) {
        if self.phase != Phase::Gathering {
            return;
        }
        let late = self.gather_until.is_none_or(|until| now >= until);
        let complete = self.first_gathering.is_none()
            && self.pending.is_empty()
            && self.members.values().all(|m| m.joining.is_some());
        if !late && !complete {
            return;
        }
        self.members.retain(|_, m| m.joining.is_some());
        self.gather_until = None;
        self.first_gathering = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.become_empty();
            return;
        }
        self.protocol = self.elect_protocol();
        if self.leader.as_ref().is_none_or(|l| !self.members.contains_key(l)) {
            self.leader = self.members.keys().next().cloned();
        }
        self.phase = Phase::Assigning;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.deadline = now + member.session;
                member.assignment = Bytes::new();
                if let Some(answer) = member.joining.take() {
                    let _ = answer.send(Ok(joined));
                }
            }
        }
    }

    fn become_empty(&mut self) {
        self.phase = Phase::Empty;
        self.leader = None;
        self.protocol.clear();
        self.gather_until = None;
        self.first_gathering = None;
    }

    /// The strategy that most members prefer among those all of them know.
    fn elect_protocol(&self) -> String {
        let shared = |name: &String| {
            self.members
                .values()
                .all(|m| m.protocols.iter().any(|(other, _)| other == name))
        };
        let mut votes: BTreeMap<&String, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| shared(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(_, n)| *n)
            .map(|(name, _)| name.clone())
            .unwrap_or_default()
    }

    fn joined(&self, id: &str) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        let metadata = |m: &Member| {
            let own = m.protocols.iter().find(|(name, _)| *name == self.protocol);
            own.map(|(_, bytes)| bytes.clone()).unwrap_or_default()
        };
        let members = if leader == id {
            self.members
                .iter()
                .map(|(id, m)| (id.clone(), m.instance.clone(), metadata(m)))
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            member: id.to_owned(),
            members,
        }
    }

    /// Checks that the speaker is a member of this generation, and takes it as a sign of life.
    fn recognise(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        let stranger = self.stranger(speaker.instance);
        let member = self.members.get_mut(speaker.member).ok_or(stranger)?;
        if speaker.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        member.deadline = now + member.session;
        Ok(())
    }

    pub(crate) fn sync(
        &mut self,
        speaker: Speaker<'_>,
        assignments: Vec<(String, Bytes)>,
        answer: oneshot::Sender<SyncAnswer>,
        now: Instant,
    ) {
        let verdict = self.recognise(speaker, now).and(match self.phase {
            Phase::Empty => Err(ResponseError::UnknownMemberId),
            Phase::Gathering => Err(ResponseError::RebalanceInProgress),
            Phase::Assigning | Phase::Stable => Ok(()),
        });
        if let Err(error) = verdict {
            let _ = answer.send(Err(error));
            return;
        }
        if let Some(member) = self.members.get_mut(speaker.member) {
            member.syncing = Some(answer);
        }
        if self.phase == Phase::Assigning {
            if self.leader.as_deref() != Some(speaker.member) {
                return;
            }
            for (id, assignment) in assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.phase = Phase::Stable;
        }
        for member in self.members.values_mut() {
            if let Some(answer) = member.syncing.take() {
                member.deadline = now + member.session;
                let told = (
                    member.assignment.clone(),
                    self.protocol_type.clone(),
                    self.protocol.clone(),
                );
                let _ = answer.send(Ok(told));
            }
        }
    }

    pub(crate) fn heartbeat(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        self.recognise(speaker, now)?;
        if self.phase == Phase::Gathering {
            Err(ResponseError::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    pub(crate) fn may_commit(&mut self, speaker: Speaker<'_>, now: Instant) -> Result<(), ResponseError> {
        if speaker.generation < 0 && speaker.member.is_empty() && self.members.is_empty() {
            return Ok(());
        }
        self.recognise(speaker, now)?;
        // While gathering, the members of the last generation may still commit what they have done.
        if self.phase == Phase::Assigning {
            Err(ResponseError::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    pub(crate) fn leave(
        &mut self,
        member: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if self.pending.remove(member).is_some() {
            self.finish_gathering(now);
            return Ok(());
        }
        let by_instance = || {
            let found = self
                .members
                .iter()
                .find(|(_, m)| instance.is_some() && m.instance.as_deref() == instance);
            found.map(|(id, _)| id.clone())
        };
        let id = if member.is_empty() {
            by_instance()
        } else {
            Some(member.to_owned())
        };
        let id = id
            .filter(|id| self.members.contains_key(id))
            .ok_or(ResponseError::UnknownMemberId)?;
        self.remove(&[id], now);
        Ok(())
    }

    /// Removes members and gathers the others.
    fn remove(&mut self, ids: &[String], now: Instant) {
        for id in ids {
            let Some(member) = self.members.remove(id) else {
                continue;
            };
            if let Some(answer) = member.joining {
                refuse(answer, ResponseError::UnknownMemberId, id.clone());
            }
            if let Some(answer) = member.syncing {
                let _ = answer.send(Err(ResponseError::UnknownMemberId));
            }
        }
        if self.members.is_empty() && self.pending.is_empty() {
            self.generation = self.generation.checked_add(1).unwrap_or(1);
            self.become_empty();
        } else {
            self.gather(now);
            self.finish_gathering(now);
        }
    }

    /// Acts on what has timed out.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.pending.retain(|_, lapses| now < *lapses);
        let waits = |m: &Member| {
            m.joining.as_ref().is_some_and(|a| !a.is_closed())
                || m.syncing.as_ref().is_some_and(|a| !a.is_closed())
        };
        let dead: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| now >= m.deadline && !waits(m))
            .map(|(id, _)| id.clone())
            .collect();
        if !dead.is_empty() {
            tracing::info!(members = ?dead, "group members timed out");
            self.remove(&dead, now);
        }
        self.finish_gathering(now);
    }
}
