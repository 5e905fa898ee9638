//! Group membership requests.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use tokio::sync::watch;

use super::{code, storage_code, text};
use crate::broker::Broker;
use crate::frame::{Frame, FrameError};
use crate::groups::{Join, JoinRefused, Joined, Speaker};
use crate::log::partition::lock;
use crate::meta::Change;

/// Joins a group; the answer waits for the other members.
pub(super) async fn join(
    broker: &Broker,
    frame: &Frame,
    mut stopped: watch::Receiver<bool>,
) -> Result<Bytes, FrameError> {
    let request: JoinGroupRequest = frame.decode()?;
    let member = request.member_id.to_string();
    let session = Duration::from_millis(u64::try_from(request.session_timeout_ms).unwrap_or(0));
    let rebalance = match u64::try_from(request.rebalance_timeout_ms) {
        Ok(ms) if frame.version >= 1 && ms > 0 => Duration::from_millis(ms),
        _ => session,
    };
    let (shortest, longest) = broker.config.session_timeout_range;
    let answer = if request.group_id.is_empty() {
        Err(JoinRefused {
            error: ResponseError::InvalidGroupId,
            member,
        })
    } else if session < shortest || session > longest {
        Err(JoinRefused {
            error: ResponseError::InvalidSessionTimeout,
            member,
        })
    } else {
        let join = Join {
            group: request.group_id.to_string(),
            member: member.clone(),
            instance: request.group_instance_id.map(|i| i.to_string()),
            client_id: frame.client_id.clone(),
            session,
            rebalance,
            protocol_type: request.protocol_type.to_string(),
            protocols: request
                .protocols
                .into_iter()
                // Copied, so as not to keep the whole request in memory for as long as the group lives.
                .map(|p| (p.name.to_string(), Bytes::copy_from_slice(&p.metadata)))
                .collect(),
            id_first: frame.version >= 4,
            initial_delay: broker.config.initial_rebalance_delay,
        };
        let waiting = lock(&broker.groups).join(join, Instant::now());
        let gone = || {
            Err(JoinRefused {
                error: ResponseError::CoordinatorNotAvailable,
                member,
            })
        };
        tokio::select! {
            answer = waiting => answer.unwrap_or_else(|_| gone()),
            () = crate::server::told_to_stop(&mut stopped) => gone(),
        }
    };
    let reply = match answer {
        Ok(joined) => joined_reply(frame.version, joined),
        Err(refused) => JoinGroupResponse::default()
            .with_error_code(refused.error.code())
            .with_generation_id(-1)
            .with_protocol_name(Some(text("")))
            .with_member_id(text(refused.member)),
    };
    frame.reply(&reply)
}

fn joined_reply(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text))
            .with_metadata(metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type((version >= 7).then(|| text(joined.protocol_type)))
        .with_protocol_name(Some(text(joined.protocol)))
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member))
        .with_members(members.collect())
}

/// Hands in and collects assignments.
pub(super) async fn sync(
    broker: &Broker,
    frame: &Frame,
    mut stopped: watch::Receiver<bool>,
) -> Result<Bytes, FrameError> {
    let request: SyncGroupRequest = frame.decode()?;
    let assignments = request
        .assignments
        .into_iter()
        .map(|a| (a.member_id.to_string(), Bytes::copy_from_slice(&a.assignment)))
        .collect();
    let speaker = Speaker {
        member: &request.member_id,
        generation: request.generation_id,
        instance: request.group_instance_id.as_ref().map(|i| i.as_str()),
    };
    let waiting = lock(&broker.groups).sync(&request.group_id, speaker, assignments, Instant::now());
    let answer = tokio::select! {
        answer = waiting => answer.unwrap_or(Err(ResponseError::CoordinatorNotAvailable)),
        () = crate::server::told_to_stop(&mut stopped) => Err(ResponseError::CoordinatorNotAvailable),
    };
    let reply = match answer {
        Ok((assignment, kind, name)) => SyncGroupResponse::default()
            .with_assignment(assignment)
            .with_protocol_type((frame.version >= 5).then(|| text(kind)))
            .with_protocol_name((frame.version >= 5).then(|| text(name))),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    };
    frame.reply(&reply)
}

/// A sign of life.
pub(super) fn heartbeat(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: HeartbeatRequest = frame.decode()?;
    let speaker = Speaker {
        member: &request.member_id,
        generation: request.generation_id,
        instance: request.group_instance_id.as_ref().map(|i| i.as_str()),
    };
    let verdict = lock(&broker.groups).heartbeat(&request.group_id, speaker, Instant::now());
    frame.reply(&HeartbeatResponse::default().with_error_code(code(verdict)))
}

/// Members leave: one by id in old versions, several from version 3 on.
pub(super) fn leave(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: LeaveGroupRequest = frame.decode()?;
    let now = Instant::now();
    let mut groups = lock(&broker.groups);
    if frame.version < 3 {
        let verdict = groups.leave(&request.group_id, &request.member_id, None, now);
        return frame.reply(&LeaveGroupResponse::default().with_error_code(code(verdict)));
    }
    let members = request.members.into_iter().map(|member| {
        let instance = member.group_instance_id.as_ref().map(|i| i.as_str());
        let verdict = groups.leave(&request.group_id, &member.member_id, instance, now);
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code(verdict))
    });
    let members = members.collect();
    frame.reply(&LeaveGroupResponse::default().with_members(members))
}

/// Groups in full. One with committed offsets but no members is `Empty`, an unknown one `Dead`.
pub(super) fn describe(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: DescribeGroupsRequest = frame.decode()?;
    let groups = lock(&broker.groups);
    let described = request.groups.into_iter().map(|id| {
        let answer = DescribedGroup::default();
        let Some(group) = groups.get(&id) else {
            let known = broker.journal.meta().groups.contains_key(id.as_str());
            let state = if known { "Empty" } else { "Dead" };
            return answer.with_group_id(id).with_group_state(text(state));
        };
        let members = group.members().map(|(member_id, member)| {
            let own = member.protocols.iter().find(|(name, _)| name == group.protocol());
            DescribedGroupMember::default()
                .with_member_id(text(member_id.as_str()))
                .with_group_instance_id(
                    (frame.version >= 4)
                        .then(|| member.instance.clone().map(text))
                        .flatten(),
                )
                .with_client_id(text(member.client_id.as_str()))
                .with_client_host(text(broker.address.ip().to_string()))
                .with_member_metadata(own.map(|(_, m)| m.clone()).unwrap_or_default())
                .with_member_assignment(member.assignment.clone())
        });
        answer
            .with_group_id(id)
            .with_group_state(text(group.phase().kafka_name()))
            .with_protocol_type(text(group.protocol_type()))
            .with_protocol_data(text(group.protocol()))
            .with_members(members.collect())
    });
    let described = described.collect();
    frame.reply(&DescribeGroupsResponse::default().with_groups(described))
}

/// All groups with members or committed offsets.
pub(super) fn list(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: ListGroupsRequest = frame.decode()?;
    let groups = lock(&broker.groups);
    let mut listed: Vec<(String, String, &str)> = groups
        .iter()
        .map(|(id, g)| (id.clone(), g.protocol_type().to_owned(), g.phase().kafka_name()))
        .collect();
    let meta = broker.journal.meta();
    let silent = meta.groups.keys().filter(|id| groups.get(id).is_none());
    listed.extend(silent.map(|id| (id.clone(), "consumer".to_owned(), "Empty")));
    let wanted = |state: &str| {
        request.states_filter.is_empty()
            || request
                .states_filter
                .iter()
                .any(|s| s.eq_ignore_ascii_case(state))
    };
    let listed = listed
        .into_iter()
        .filter(|(_, _, state)| wanted(state))
        .map(|(id, kind, state)| {
            let group = ListedGroup::default()
                .with_group_id(GroupId(text(id)))
                .with_protocol_type(text(kind));
            if frame.version >= 4 {
                group.with_group_state(text(state))
            } else {
                group
            }
        });
    frame.reply(&ListGroupsResponse::default().with_groups(listed.collect()))
}

/// Deletes groups without members, with their committed offsets.
pub(super) fn delete(broker: &Broker, frame: &Frame) -> Result<Bytes, FrameError> {
    let request: DeleteGroupsRequest = frame.decode()?;
    let results = request.groups_names.into_iter().map(|id| {
        let mut groups = lock(&broker.groups);
        let known = groups.get(&id).is_some() || broker.journal.meta().groups.contains_key(id.as_str());
        let error = if known {
            match groups.remove_empty(&id) {
                Err(error) => error.code(),
                Ok(()) => {
                    let change = Change::GroupDeleted {
                        group: id.to_string(),
                    };
                    broker
                        .journal
                        .append(vec![change], false)
                        .map_or_else(|e| storage_code(&e), |()| 0)
                }
            }
        } else {
            ResponseError::GroupIdNotFound.code()
        };
        DeletableGroupResult::default()
            .with_group_id(id)
            .with_error_code(error)
    });
    let results = results.collect();
    frame.reply(&DeleteGroupsResponse::default().with_results(results))
}
