//! Consumer groups, seen from their members: joining, rebalancing, committing, and what survives.

mod member;
mod offsets;

use std::time::{Duration, Instant};

use self::member::{HEARTBEAT, JOIN, LEAVE, Member, SYNC};
use crate::faults::client::name_of;
use crate::harness::served::Served;
use crate::harness::wait;
use crate::harness::wire::create_topic;
use anyhow::ensure;
use highwater_protocol::api::leave_group::MemberIdentity;
use highwater_protocol::api::{
    DeleteGroupsRequest, DescribeGroupsRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
};
use highwater_protocol::wire::Str;

const TOPIC: &str = "read";

/// A broker with one topic of three partitions.
fn served() -> anyhow::Result<Served> {
    let served = Served::start(&[])?;
    create_topic(served.address(), TOPIC, 3)?;
    Ok(served)
}

/// The state of a group and the ids of its members.
fn described(served: &Served, group: &str) -> anyhow::Result<(String, Vec<Str>)> {
    let request = DescribeGroupsRequest { groups: vec![group.into()], ..DescribeGroupsRequest::default() };
    let mut response = Member::connect(served.address(), group)?.connection.call(5, &request)?;
    let group = response.groups.pop().expect("one group was asked about");
    ensure!(group.error_code == 0, "{group:?}");
    Ok((group.group_state.to_string(), group.members.into_iter().map(|member| member.member_id).collect()))
}

/// The members that the leader is told of.
fn ids(response: &JoinGroupResponse) -> Vec<Str> {
    response.members.iter().map(|member| member.member_id.clone()).collect()
}

#[test]
fn a_member_joins_syncs_commits_and_leaves() -> anyhow::Result<()> {
    let served = served()?;
    let mut member = Member::connect(served.address(), "group")?;

    member.take_id()?;
    let joined = member.join()?;
    assert_eq!(
        (joined.generation_id, &joined.leader, ids(&joined)),
        (1, &member.id, vec![member.id.clone()])
    );
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    member.ask_to_sync(SYNC, &ids(&joined))?;
    assert_eq!(member.synced(SYNC)?.assignment, member.id.as_bytes());
    assert_eq!(member.beat(HEARTBEAT)?, "NONE");
    assert_eq!(member.commit(TOPIC, 1, 42)?, "NONE");
    assert_eq!(member.committed(TOPIC, 1)?, (42, "note".to_owned()));
    assert_eq!(member.committed(TOPIC, 0)?, (-1, String::new()));
    assert_eq!(described(&served, "group")?, ("Stable".to_owned(), vec![member.id.clone()]));
    assert_eq!(member.leave(LEAVE)?, "NONE");

    assert_eq!(described(&served, "group")?, ("Empty".to_owned(), Vec::new()));
    assert_eq!(member.commit(TOPIC, 1, 43)?, "UNKNOWN_MEMBER_ID");
    assert_eq!(member.committed(TOPIC, 1)?.0, 42);
    Ok(())
}

#[test]
fn the_lowest_versions_do_what_the_highest_do() -> anyhow::Result<()> {
    let served = served()?;
    let mut member = Member::connect(served.address(), "old")?;

    // Version 0 joins without being told an id first.
    member.ask_to_join(0)?;
    let joined = member.joined(0)?;
    assert_eq!((name_of(joined.error_code), joined.generation_id), ("NONE", 1));
    member.ask_to_sync(0, &ids(&joined))?;
    assert_eq!(member.synced(0)?.assignment, member.id.as_bytes());
    assert_eq!(member.beat(0)?, "NONE");
    assert_eq!(member.commit_with(2, (TOPIC, 0), 7, None)?, "NONE");

    for version in 1..8 {
        assert_eq!(member.committed_in(version, TOPIC, 0)?, 7, "version {version}");
    }
    let described = DescribeGroupsRequest { groups: vec!["old".into()], ..DescribeGroupsRequest::default() };
    assert_eq!(member.connection.call(0, &described)?.groups[0].group_state.as_str(), "Stable");
    let listed = member.connection.call(0, &ListGroupsRequest::default())?;
    assert_eq!(listed.groups[0].protocol_type.as_str(), "consumer");
    let deleted = DeleteGroupsRequest { groups_names: vec!["old".into()] };
    assert_eq!(name_of(member.connection.call(0, &deleted)?.results[0].error_code), "NON_EMPTY_GROUP");
    assert_eq!(member.leave(0)?, "NONE");
    assert_eq!(name_of(member.connection.call(0, &deleted)?.results[0].error_code), "NONE");
    assert!(member.connection.call(0, &ListGroupsRequest::default())?.groups.is_empty());
    Ok(())
}

#[test]
fn leaving_a_group_that_is_not_there_is_answered_member_by_member() -> anyhow::Result<()> {
    let served = served()?;
    let mut member = Member::connect(served.address(), "absent")?;
    let members = ["one", "two"].map(|id| MemberIdentity { member_id: id.into(), ..Default::default() });
    let request = LeaveGroupRequest {
        group_id: "absent".into(),
        members: members.to_vec(),
        ..LeaveGroupRequest::default()
    };

    let answer = member.connection.call(LEAVE, &request)?;

    assert_eq!(name_of(answer.error_code), "NONE");
    let codes: Vec<_> = answer.members.iter().map(|member| name_of(member.error_code)).collect();
    assert_eq!(codes, ["UNKNOWN_MEMBER_ID", "UNKNOWN_MEMBER_ID"]);
    assert_eq!(member.leave(2)?, "UNKNOWN_MEMBER_ID");
    Ok(())
}

#[test]
fn a_second_member_makes_the_group_rebalance() -> anyhow::Result<()> {
    let served = served()?;
    let mut first = Member::connect(served.address(), "group")?;
    first.settle_alone()?;
    let mut second = Member::connect(served.address(), "group")?;
    second.take_id()?;

    second.ask_to_join(JOIN)?;
    wait::until("the first member to hear of it", || Ok(first.beat(HEARTBEAT)? == "REBALANCE_IN_PROGRESS"))?;
    // The generation that ends may still be committed for.
    assert_eq!(first.commit(TOPIC, 0, 5)?, "NONE");
    let leads = first.join()?;
    let follows = second.joined(JOIN)?;
    assert_eq!((leads.generation_id, follows.generation_id), (2, 2));
    assert_eq!((&leads.leader, &follows.leader), (&first.id, &first.id));
    assert!(follows.members.is_empty());
    assert_eq!(ids(&leads).len(), 2);
    assert_eq!(first.commit(TOPIC, 0, 6)?, "REBALANCE_IN_PROGRESS");

    second.ask_to_sync(SYNC, &[])?;
    first.ask_to_sync(SYNC, &ids(&leads))?;
    assert_eq!(first.synced(SYNC)?.assignment, first.id.as_bytes());
    assert_eq!(second.synced(SYNC)?.assignment, second.id.as_bytes());
    first.generation = 1;
    assert_eq!(first.commit(TOPIC, 0, 6)?, "ILLEGAL_GENERATION");
    assert_eq!(second.commit(TOPIC, 0, 6)?, "NONE");
    Ok(())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_member_that_falls_silent_is_dropped_after_its_session() -> anyhow::Result<()> {
    let served = served()?;
    let mut member = Member::connect(served.address(), "group")?;
    member.settle_alone()?;
    let silent_since = Instant::now();

    wait::until("the group to be empty", || Ok(described(&served, "group")?.0 == "Empty"))?;

    let silent = silent_since.elapsed();
    assert!(silent >= Duration::from_millis(5_900) && silent < Duration::from_secs(11), "after {silent:?}");
    assert_eq!(member.beat(HEARTBEAT)?, "UNKNOWN_MEMBER_ID");
    Ok(())
}

#[test]
fn a_member_whose_connection_closes_while_it_joins_is_forgotten() -> anyhow::Result<()> {
    let served = served()?;
    let mut first = Member::connect(served.address(), "group")?;
    first.settle_alone()?;
    // Version 3 takes no id first: nobody can ever come back as this member.
    let mut ghost = Member::connect(served.address(), "group")?;
    ghost.ask_to_join(3)?;
    wait::until("the ghost to be there", || Ok(described(&served, "group")?.1.len() == 2))?;

    drop(ghost);

    wait::until("the ghost to be gone", || Ok(described(&served, "group")?.1.len() == 1))?;
    let alone = first.join()?;
    assert_eq!(ids(&alone), [first.id.clone()]);
    Ok(())
}

#[test]
fn members_and_their_generation_survive_a_kill() -> anyhow::Result<()> {
    let mut served = served()?;
    let mut member = Member::connect(served.address(), "group")?;
    member.settle_alone()?;
    assert_eq!(member.commit(TOPIC, 0, 10)?, "NONE");

    for graceful in [false, true] {
        if graceful {
            served.restart()?;
        } else {
            served.kill()?;
        }
        let mut again = Member::connect(served.address(), "group")?;
        (again.id, again.generation) = (member.id.clone(), member.generation);
        assert_eq!(again.beat(HEARTBEAT)?, "NONE");
        assert_eq!(again.commit(TOPIC, 0, 11)?, "NONE");
        assert_eq!(described(&served, "group")?, ("Stable".to_owned(), vec![member.id.clone()]));
        again.ask_to_sync(SYNC, &[])?;
        assert_eq!(again.synced(SYNC)?.assignment, member.id.as_bytes());
    }
    Ok(())
}

#[test]
fn a_broker_stops_in_time_while_members_are_parked() -> anyhow::Result<()> {
    let mut served = served()?;
    let mut first = Member::connect(served.address(), "group")?;
    first.settle_alone()?;
    let mut parked = Member::connect(served.address(), "group")?;
    parked.take_id()?;
    parked.ask_to_join(JOIN)?;
    wait::until("the join to be parked", || Ok(first.beat(HEARTBEAT)? == "REBALANCE_IN_PROGRESS"))?;

    let began = Instant::now();
    ensure!(served.broker.terminate()?.success(), "{}", served.broker.log());

    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    assert_eq!(name_of(parked.joined(JOIN)?.error_code), "COORDINATOR_NOT_AVAILABLE");
    Ok(())
}
