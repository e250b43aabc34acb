//! Valid frames of the APIs of consumer groups, in every version.
//!
//! They meet in one group, so that a damaged frame finds members, generations and offsets in any state.

use highwater_protocol::api::join_group::JoinGroupRequestProtocol;
use highwater_protocol::api::leave_group::MemberIdentity;
use highwater_protocol::api::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use highwater_protocol::api::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use highwater_protocol::api::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use highwater_protocol::api::sync_group::SyncGroupRequestAssignment;
use highwater_protocol::api::{
    DeleteGroupsRequest, DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};
use highwater_protocol::wire::{Bytes, Str};

use super::{Frame, PARTITIONS, TOPIC, every_version};

/// The group of all of them.
const GROUP: &str = "fuzz-group";
/// The name of its static member.
const INSTANCE: &str = "fuzz-instance";

/// Adds every frame.
pub(super) fn add(frames: &mut Vec<Frame>) {
    for metadata in [None, Some(Str::from("kept with it"))] {
        every_version(frames, |_| offset_commit(metadata.clone()));
    }
    for all in [false, true] {
        every_version(frames, |version| offset_fetch(version, all));
    }
    for is_static in [false, true] {
        every_version(frames, |version| join(is_static && version >= 5));
        every_version(frames, |version| heartbeat(is_static && version >= 3));
        every_version(frames, |version| sync(is_static && version >= 3));
        every_version(frames, |version| leave(version, is_static));
    }
    every_version(frames, |version| DescribeGroupsRequest {
        groups: vec![GROUP.into(), "no such group".into()],
        include_authorized_operations: version >= 3,
    });
    every_version(frames, |version| ListGroupsRequest {
        states_filter: if version >= 4 { vec!["Stable".into(), "Empty".into()] } else { Vec::new() },
        types_filter: if version >= 5 { vec!["classic".into()] } else { Vec::new() },
    });
    every_version(frames, |_| DeleteGroupsRequest {
        groups_names: vec![GROUP.into(), "no such group".into()],
    });
    every_version(frames, |_| offset_delete());
}

fn instance(is_static: bool) -> Option<Str> {
    is_static.then(|| Str::from(INSTANCE))
}

fn offset_commit(committed_metadata: Option<Str>) -> OffsetCommitRequest {
    let partitions = (0..=PARTITIONS).map(|partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 1,
        committed_metadata: committed_metadata.clone(),
        ..OffsetCommitRequestPartition::default()
    });
    let topic = OffsetCommitRequestTopic { name: TOPIC.into(), partitions: partitions.collect() };
    OffsetCommitRequest { group_id: GROUP.into(), topics: vec![topic], ..OffsetCommitRequest::default() }
}

fn offset_fetch(version: i16, all: bool) -> OffsetFetchRequest {
    let partition_indexes: Vec<i32> = (0..=PARTITIONS).collect();
    if version < 8 {
        let topic = OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes };
        return OffsetFetchRequest {
            group_id: GROUP.into(),
            topics: (version < 2 || !all).then(|| vec![topic]),
            require_stable: version >= 7,
            ..OffsetFetchRequest::default()
        };
    }
    let topic = OffsetFetchRequestTopics { name: TOPIC.into(), partition_indexes };
    let group = |group_id: &str| OffsetFetchRequestGroup {
        group_id: Str::from(group_id),
        topics: (!all).then(|| vec![topic.clone()]),
        ..OffsetFetchRequestGroup::default()
    };
    let groups = vec![group(GROUP), group("no such group")];
    OffsetFetchRequest { groups, require_stable: true, ..OffsetFetchRequest::default() }
}

fn join(is_static: bool) -> JoinGroupRequest {
    let protocol = |name: &str| JoinGroupRequestProtocol {
        name: Str::from(name),
        metadata: Bytes::from_static(b"\x00\x01\x00\x00\x00\x01\x00\x04fuzz\xff\xff\xff\xff\x00\x00\x00\x00"),
    };
    JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 6_000,
        group_instance_id: instance(is_static),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range"), protocol("roundrobin")],
        reason: Some("none".into()),
        ..JoinGroupRequest::default()
    }
}

fn heartbeat(is_static: bool) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: GROUP.into(),
        generation_id: 1,
        member_id: "fuzz-member".into(),
        group_instance_id: instance(is_static),
    }
}

fn sync(is_static: bool) -> SyncGroupRequest {
    let assignment = Bytes::from_static(b"\x00\x01\x00\x00\x00\x00\xff\xff\xff\xff");
    SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: 1,
        member_id: "fuzz-member".into(),
        group_instance_id: instance(is_static),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![SyncGroupRequestAssignment { member_id: "fuzz-member".into(), assignment }],
    }
}

fn leave(version: i16, is_static: bool) -> LeaveGroupRequest {
    let group_id = Str::from(GROUP);
    if version < 3 {
        return LeaveGroupRequest { group_id, member_id: "fuzz-member".into(), members: Vec::new() };
    }
    let member = MemberIdentity {
        member_id: if is_static { Str::default() } else { "fuzz-member".into() },
        group_instance_id: instance(is_static),
        reason: Some("none".into()),
    };
    LeaveGroupRequest { group_id, members: vec![member], ..LeaveGroupRequest::default() }
}

fn offset_delete() -> OffsetDeleteRequest {
    let partitions = (0..=PARTITIONS).map(|partition_index| OffsetDeleteRequestPartition { partition_index });
    let topic = OffsetDeleteRequestTopic { name: TOPIC.into(), partitions: partitions.collect() };
    OffsetDeleteRequest { group_id: GROUP.into(), topics: vec![topic] }
}
