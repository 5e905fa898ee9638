//! The group's states, with a clock of our own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot::Receiver;

use super::{Groups, Join, JoinAnswer, Joined, Speaker};

const SECOND: Duration = Duration::from_secs(1);

fn ask(member: &str) -> Join {
    Join {
        group: "g".to_owned(),
        member: member.to_owned(),
        instance: None,
        client_id: "c".to_owned(),
        session: 10 * SECOND,
        rebalance: 60 * SECOND,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
        id_first: false,
        initial_delay: SECOND,
    }
}

fn now_joined(mut answer: Receiver<JoinAnswer>) -> Joined {
    answer.try_recv().unwrap().unwrap()
}

fn speaker(joined: &Joined) -> Speaker<'_> {
    Speaker {
        member: &joined.member,
        generation: joined.generation,
        instance: None,
    }
}

/// A stable group of one member.
fn alone(groups: &mut Groups, now: Instant) -> Joined {
    let answer = groups.join(ask(""), now);
    groups.tick(now + SECOND);
    let joined = now_joined(answer);
    let assignment = vec![(joined.member.clone(), Bytes::from_static(b"all"))];
    let mut synced = groups.sync("g", speaker(&joined), assignment, now + SECOND);
    assert_eq!(synced.try_recv().unwrap().unwrap().0, Bytes::from_static(b"all"));
    joined
}

#[test]
fn the_first_members_wait_for_each_other() {
    let (mut groups, now) = (Groups::default(), Instant::now());
    let mut first = groups.join(ask(""), now);
    let second = groups.join(ask(""), now + SECOND / 2);
    groups.tick(now + SECOND);
    assert!(first.try_recv().is_err(), "the second member prolonged the wait");
    groups.tick(now + 2 * SECOND);
    let (first, second) = (now_joined(first), now_joined(second));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.leader, second.leader);
    assert_eq!(
        first.members.len() + second.members.len(),
        2,
        "only the leader is told of all"
    );
}

#[test]
fn a_newcomer_calls_all_to_join_again() {
    let (mut groups, now) = (Groups::default(), Instant::now());
    let old = alone(&mut groups, now);
    let newcomer = groups.join(ask(""), now + 2 * SECOND);
    let beat = groups.heartbeat("g", speaker(&old), now + 2 * SECOND);
    assert_eq!(beat, Err(ResponseError::RebalanceInProgress));
    // What it has done so far it may still commit.
    assert_eq!(
        groups.may_commit("g", speaker(&old), false, now + 2 * SECOND),
        Ok(())
    );
    let again = now_joined(groups.join(ask(&old.member), now + 3 * SECOND));
    assert_eq!(again.generation, 2);
    assert_eq!(now_joined(newcomer).generation, 2);
    let late = groups.may_commit("g", speaker(&old), false, now + 3 * SECOND);
    assert_eq!(late, Err(ResponseError::IllegalGeneration));
}

#[test]
fn the_silent_are_removed_and_the_living_stay() {
    let (mut groups, now) = (Groups::default(), Instant::now());
    let member = alone(&mut groups, now);
    for seconds in [5, 12, 20] {
        groups.tick(now + seconds * SECOND);
        assert_eq!(
            groups.heartbeat("g", speaker(&member), now + seconds * SECOND),
            Ok(())
        );
    }
    groups.tick(now + 31 * SECOND);
    let gone = groups.heartbeat("g", speaker(&member), now + 31 * SECOND);
    assert_eq!(gone, Err(ResponseError::UnknownMemberId));
}

#[test]
fn those_who_do_not_join_again_in_time_are_left_behind() {
    let (mut groups, now) = (Groups::default(), Instant::now());
    let slow = alone(&mut groups, now);
    let mut newcomer = groups.join(ask(""), now + 2 * SECOND);
    for seconds in (3..62).step_by(3) {
        // It lives, but does not join.
        assert!(
            groups
                .heartbeat("g", speaker(&slow), now + seconds * SECOND)
                .is_err()
        );
        groups.tick(now + seconds * SECOND);
    }
    assert!(newcomer.try_recv().is_err());
    groups.tick(now + 62 * SECOND);
    assert_eq!(now_joined(newcomer).members.len(), 1);
    let gone = groups.heartbeat("g", speaker(&slow), now + 62 * SECOND);
    assert_eq!(gone, Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_second_process_of_an_instance_fences_the_first() {
    let (mut groups, now) = (Groups::default(), Instant::now());
    let named = |member: &str| Join {
        instance: Some("i".to_owned()),
        ..ask(member)
    };
    let first = groups.join(named(""), now);
    groups.tick(now + SECOND);
    let first = now_joined(first);
    let second = groups.join(named(""), now + SECOND);
    groups.tick(now + 2 * SECOND);
    assert!(now_joined(second).generation > first.generation);
    let old = Speaker {
        instance: Some("i"),
        ..speaker(&first)
    };
    assert_eq!(
        groups.heartbeat("g", old, now + 2 * SECOND),
        Err(ResponseError::FencedInstanceId)
    );
}

#[test]
fn ids_are_given_first_and_unused_ones_hold_nobody_up() {
    let (mut groups, now) = (Groups::default(), Instant::now());
    let mut refused = groups.join(
        Join {
            id_first: true,
            ..ask("")
        },
        now,
    );
    let refused = refused.try_recv().unwrap().unwrap_err();
    assert_eq!(refused.error, ResponseError::MemberIdRequired);
    let member = alone(&mut groups, now);
    // The unused id lapses; then one who joins again is alone and need not wait.
    let mut again = groups.join(ask(&member.member), now + 2 * SECOND);
    assert!(again.try_recv().is_err(), "the holder of the id might still come");
    groups.tick(now + 11 * SECOND);
    assert_eq!(now_joined(again).generation, 2);
    let unknown = groups
        .join(ask(&refused.member), now + 11 * SECOND)
        .try_recv()
        .unwrap()
        .unwrap_err();
    assert_eq!(unknown.error, ResponseError::UnknownMemberId);
}

#[test]
fn members_must_have_a_strategy_in_common() {
    let (mut groups, now) = (Groups::default(), Instant::now());
    alone(&mut groups, now);
    let other = Join {
        protocols: vec![("sticky".to_owned(), Bytes::new())],
        ..ask("")
    };
    let refused = groups.join(other, now).try_recv().unwrap().unwrap_err();
    assert_eq!(refused.error, ResponseError::InconsistentGroupProtocol);
}
