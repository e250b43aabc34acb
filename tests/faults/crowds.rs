//! Groups that are too many, too large or too long: refused with the right code, and those that exist go on.
//!
//! The full count is `HIGHWATER_GROUPS=100000`.

use std::net::SocketAddr;

use anyhow::ensure;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::join_group::JoinGroupRequestProtocol;
use highwater_protocol::api::{JoinGroupRequest, JoinGroupResponse, ListGroupsRequest, OffsetCommitRequest};
use highwater_protocol::wire::{Bytes, Str};
use tempfile::TempDir;

use crate::harness::broker::{Broker, Options};
use crate::harness::process::anonymous_bytes;

use super::client::{Connection, name_of};
use super::setting::{count, say};

/// A version that hands out an id before a member joins, and one that does not.
const ID_FIRST: i16 = 9;
const ID_LATER: i16 = 3;
const GROUPS_MAX: u64 = 10_000;
const MEMBERS_MAX: usize = 1_000;
/// What a group of nobody but a member on its way in may cost.
const GROUP_BYTES_MAX: u64 = 8 << 10;
/// The longest session that is allowed.
const SESSION_MS_MAX: i32 = 1_800_000;

fn start() -> anyhow::Result<(TempDir, Broker)> {
    let directory = TempDir::new()?;
    let broker = Broker::start(Options::new(&directory.path().join("data")))?;
    Ok((directory, broker))
}

fn join(group: &str, session_timeout_ms: i32, metadata_bytes: usize) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from(vec![0; metadata_bytes]) };
    JoinGroupRequest {
        group_id: Str::from(group),
        session_timeout_ms,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    }
}

/// What each of many groups is answered that a member asks to join, by Kafka's name.
fn join_many(address: SocketAddr, prefix: &str, groups: u64) -> anyhow::Result<Vec<&'static str>> {
    const IN_FLIGHT: u64 = 100;
    let mut connection = Connection::open(address)?;
    let mut codes = Vec::new();
    for first in (0..groups).step_by(IN_FLIGHT as usize) {
        let round = first..groups.min(first + IN_FLIGHT);
        for group in round.clone() {
            connection.send(ID_FIRST, &join(&format!("{prefix}-{group}"), SESSION_MS_MAX, 10))?;
        }
        for _ in round {
            let (_, answer) = connection.receive::<JoinGroupResponse>(ID_FIRST)?;
            codes.push(name_of(answer.error_code));
        }
    }
    Ok(codes)
}

#[test]
fn ten_thousand_groups_are_made_and_no_more() -> anyhow::Result<()> {
    let (_directory, broker) = start()?;
    let wanted = count("HIGHWATER_GROUPS", GROUPS_MAX + 1000)?;
    ensure!(wanted > GROUPS_MAX, "HIGHWATER_GROUPS is {wanted}, it must be more than {GROUPS_MAX}");
    let before = anonymous_bytes(broker.pid())?;

    let made = join_many(broker.address(), "g", GROUPS_MAX)?;
    let each = anonymous_bytes(broker.pid())?.saturating_sub(before) / GROUPS_MAX;
    let refused = join_many(broker.address(), "too-many", wanted - GROUPS_MAX)?;
    let grown = anonymous_bytes(broker.pid())?.saturating_sub(before);

    say(&format!(
        "{GROUPS_MAX} groups cost {each} bytes each; with {} refused ones {} KiB",
        refused.len(),
        grown >> 10
    ));
    ensure!(made.iter().all(|code| *code == "MEMBER_ID_REQUIRED"), "a group is refused");
    ensure!(refused.iter().all(|code| *code == "COORDINATOR_NOT_AVAILABLE"), "one group too many is made");
    ensure!(each < GROUP_BYTES_MAX, "a group costs {each} bytes");
    ensure!(grown < GROUPS_MAX * GROUP_BYTES_MAX, "{wanted} groups cost {grown} bytes");
    // Those that exist take members, and the log does not grow by a line for each of the others.
    assert_eq!(join_many(broker.address(), "g", 1)?, ["MEMBER_ID_REQUIRED"]);
    let mut connection = Connection::open(broker.address())?;
    let commit = OffsetCommitRequest { group_id: "by-nobody".into(), ..OffsetCommitRequest::default() };
    connection.call(8, &commit)?;
    ensure!(broker.log().contains("refused a group"), "the log does not say why groups are refused");
    let lines = broker.log().lines().count();
    ensure!(
        lines < refused.len() / 2 + 100,
        "{} refused groups make {lines} lines in the log",
        refused.len()
    );
    Ok(())
}

#[test]
fn a_group_takes_a_thousand_members_and_no_more() -> anyhow::Result<()> {
    let (_directory, broker) = start()?;
    let mut one_more = Connection::open(broker.address())?;
    let full = ErrorCode::GroupMaxSizeReached.code();

    // On their way in, with an id and no join yet.
    let mut newcomers = Connection::open(broker.address())?;
    for _ in 0..MEMBERS_MAX {
        let answer = newcomers.call(ID_FIRST, &join("waiting", SESSION_MS_MAX, 10))?;
        ensure!(answer.error_code == ErrorCode::MemberIdRequired.code(), "{answer:?}");
    }
    assert_eq!(one_more.call(ID_FIRST, &join("waiting", SESSION_MS_MAX, 10))?.error_code, full);

    // Joined, each parked on a connection of its own until the group is complete.
    let mut members = Vec::new();
    for _ in 0..MEMBERS_MAX {
        let mut member = Connection::open(broker.address())?;
        member.send(ID_LATER, &join("joined", SESSION_MS_MAX, 10))?;
        members.push(member);
    }
    crate::harness::wait::until("a full group", || {
        let answer = Connection::open(broker.address())?.call(5, &described("joined"))?;
        Ok(answer.groups.iter().any(|group| group.members.len() == MEMBERS_MAX))
    })?;
    assert_eq!(one_more.call(ID_LATER, &join("joined", SESSION_MS_MAX, 10))?.error_code, full);
    Ok(())
}

fn described(group: &str) -> highwater_protocol::api::DescribeGroupsRequest {
    highwater_protocol::api::DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() }
}

#[test]
fn sessions_and_subscriptions_beyond_the_limits_are_refused_and_make_no_group() -> anyhow::Result<()> {
    let (_directory, broker) = start()?;
    let mut connection = Connection::open(broker.address())?;

    for session_ms in [i32::MIN, -1, 0, 5_999, SESSION_MS_MAX + 1, i32::MAX] {
        let answer = connection.call(ID_FIRST, &join("timed", session_ms, 10))?;
        let code = name_of(answer.error_code);
        ensure!(code == "INVALID_SESSION_TIMEOUT", "a session of {session_ms} ms is answered {code}");
    }
    for metadata_bytes in [1 << 20, 8 << 20] {
        let answer = connection.call(ID_FIRST, &join("wordy", 6_000, metadata_bytes))?;
        let code = name_of(answer.error_code);
        ensure!(code == "INVALID_REQUEST", "a subscription of {metadata_bytes} bytes is answered {code}");
    }
    let groups = connection.call(4, &ListGroupsRequest::default())?.groups;
    ensure!(groups.is_empty(), "there are groups: {groups:?}");

    for (session_ms, metadata_bytes) in [(6_000, 1_000_000), (SESSION_MS_MAX, 10)] {
        let answer = connection.call(ID_FIRST, &join("modest", session_ms, metadata_bytes))?;
        ensure!(answer.error_code == ErrorCode::MemberIdRequired.code(), "{answer:?}");
    }
    Ok(())
}
