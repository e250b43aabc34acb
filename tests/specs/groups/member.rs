//! A member of a group that says exactly what a test tells it to, in any version.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use highwater_protocol::api::join_group::JoinGroupRequestProtocol;
use highwater_protocol::api::leave_group::MemberIdentity;
use highwater_protocol::api::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use highwater_protocol::api::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponsePartitions,
};
use highwater_protocol::api::sync_group::SyncGroupRequestAssignment;
use highwater_protocol::api::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse,
};
use highwater_protocol::wire::{Bytes, Str};

use crate::faults::client::{Connection, name_of};

/// The newest versions.
pub(super) const JOIN: i16 = 9;
pub(super) const SYNC: i16 = 5;
pub(super) const HEARTBEAT: i16 = 4;
pub(super) const LEAVE: i16 = 5;
pub(super) const COMMIT: i16 = 9;
pub(super) const FETCH: i16 = 9;

/// How long a member may be silent, in milliseconds: the shortest that is allowed.
pub(super) const SESSION_MS: i32 = 6_000;

/// A connection, and who the member is.
pub(super) struct Member {
    pub(super) connection: Connection,
    pub(super) group: Str,
    pub(super) id: Str,
    pub(super) generation: i32,
}

impl Member {
    /// Connects, as nobody yet.
    pub(super) fn connect(address: SocketAddr, group: &str) -> anyhow::Result<Self> {
        let connection = Connection::open(address)?;
        Ok(Self { connection, group: Str::from(group), id: Str::default(), generation: -1 })
    }

    /// Sends a join.
    pub(super) fn ask_to_join(&mut self, version: i16) -> anyhow::Result<()> {
        let protocol = JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"\x00\x01\x00\x00\x00\x00\xff\xff\xff\xff"),
        };
        let request = JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: 10_000,
            member_id: self.id.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..JoinGroupRequest::default()
        };
        self.connection.send(version, &request)?;
        Ok(())
    }

    /// Waits for the answer to a join, and becomes who it says.
    pub(super) fn joined(&mut self, version: i16) -> anyhow::Result<JoinGroupResponse> {
        let (_, response) = self.connection.receive::<JoinGroupResponse>(version)?;
        self.id = response.member_id.clone();
        self.generation = response.generation_id;
        Ok(response)
    }

    /// Takes an id, as versions from 4 on want it.
    pub(super) fn take_id(&mut self) -> anyhow::Result<()> {
        self.ask_to_join(JOIN)?;
        let response = self.joined(JOIN)?;
        ensure!(name_of(response.error_code) == "MEMBER_ID_REQUIRED", "{response:?}");
        Ok(())
    }

    /// Joins, with an id of its own.
    pub(super) fn join(&mut self) -> anyhow::Result<JoinGroupResponse> {
        self.ask_to_join(JOIN)?;
        let response = self.joined(JOIN)?;
        ensure!(response.error_code == 0, "{response:?}");
        Ok(response)
    }

    /// Sends a sync; a leader brings an assignment for each of these members: their own id.
    pub(super) fn ask_to_sync(&mut self, version: i16, members: &[Str]) -> anyhow::Result<()> {
        let assignments = members.iter().map(|id| SyncGroupRequestAssignment {
            member_id: id.clone(),
            assignment: Bytes::copy_from_slice(id.as_bytes()),
        });
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            assignments: assignments.collect(),
            ..SyncGroupRequest::default()
        };
        self.connection.send(version, &request)?;
        Ok(())
    }

    /// Waits for the answer to a sync.
    pub(super) fn synced(&mut self, version: i16) -> anyhow::Result<SyncGroupResponse> {
        Ok(self.connection.receive::<SyncGroupResponse>(version)?.1)
    }

    /// Becomes the only member of a stable group.
    pub(super) fn settle_alone(&mut self) -> anyhow::Result<()> {
        self.take_id()?;
        self.join()?;
        let own = self.id.clone();
        self.ask_to_sync(SYNC, std::slice::from_ref(&own))?;
        let response = self.synced(SYNC)?;
        ensure!(response.error_code == 0 && response.assignment == self.id.as_bytes(), "{response:?}");
        Ok(())
    }

    /// What a heartbeat is answered.
    pub(super) fn beat(&mut self, version: i16) -> anyhow::Result<&'static str> {
        let request = HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: None,
        };
        Ok(name_of(self.connection.call(version, &request)?.error_code))
    }

    /// What a leave is answered, of the request or of the member.
    pub(super) fn leave(&mut self, version: i16) -> anyhow::Result<&'static str> {
        let group_id = self.group.clone();
        let member_id = self.id.clone();
        let request = if version < 3 {
            LeaveGroupRequest { group_id, member_id, members: Vec::new() }
        } else {
            let members = vec![MemberIdentity { member_id, ..MemberIdentity::default() }];
            LeaveGroupRequest { group_id, members, ..LeaveGroupRequest::default() }
        };
        let response = self.connection.call(version, &request)?;
        let of_member = response.members.first().map_or(0, |member| member.error_code);
        Ok(name_of(if response.error_code != 0 { response.error_code } else { of_member }))
    }

    /// What committing one offset is answered.
    pub(super) fn commit(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> anyhow::Result<&'static str> {
        self.commit_with(COMMIT, (topic, partition), offset, Some("note"))
    }

    /// What committing one offset is answered, with a note in a version.
    pub(super) fn commit_with(
        &mut self,
        version: i16,
        (topic, partition): (&str, i32),
        offset: i64,
        note: Option<&str>,
    ) -> anyhow::Result<&'static str> {
        let partition = OffsetCommitRequestPartition {
            partition_index: partition,
            committed_offset: offset,
            committed_leader_epoch: if version >= 6 { 0 } else { -1 },
            committed_metadata: note.map(Str::from),
        };
        let topic = OffsetCommitRequestTopic { name: Str::from(topic), partitions: vec![partition] };
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.clone(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let response = self.connection.call(version, &request)?;
        let answered = response.topics.first().and_then(|topic| topic.partitions.first());
        Ok(name_of(answered.context("the answer names the partition")?.error_code))
    }

    /// What is committed for one partition: the offset and the note.
    pub(super) fn committed(&mut self, topic: &str, partition: i32) -> anyhow::Result<(i64, String)> {
        let topic = OffsetFetchRequestTopics { name: Str::from(topic), partition_indexes: vec![partition] };
        let answered = self.fetch(Some(vec![topic]))?.pop().context("the answer names the partition")?;
        ensure!(answered.error_code == 0, "{answered:?}");
        Ok((answered.committed_offset, answered.metadata.unwrap_or_default().to_string()))
    }

    /// Everything that is committed.
    pub(super) fn all_committed(&mut self) -> anyhow::Result<Vec<OffsetFetchResponsePartitions>> {
        self.fetch(None)
    }

    fn fetch(
        &mut self,
        topics: Option<Vec<OffsetFetchRequestTopics>>,
    ) -> anyhow::Result<Vec<OffsetFetchResponsePartitions>> {
        let group = OffsetFetchRequestGroup {
            group_id: self.group.clone(),
            topics,
            ..OffsetFetchRequestGroup::default()
        };
        let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
        let group =
            self.connection.call(FETCH, &request)?.groups.pop().context("the answer names the group")?;
        ensure!(group.error_code == 0, "{group:?}");
        Ok(group.topics.into_iter().flat_map(|topic| topic.partitions).collect())
    }

    /// What is committed for one partition, asked in a version that knows one group.
    pub(super) fn committed_in(&mut self, version: i16, topic: &str, partition: i32) -> anyhow::Result<i64> {
        let topic = OffsetFetchRequestTopic { name: Str::from(topic), partition_indexes: vec![partition] };
        let request = OffsetFetchRequest {
            group_id: self.group.clone(),
            topics: Some(vec![topic]),
            ..OffsetFetchRequest::default()
        };
        let response = self.connection.call(version, &request)?;
        let answered = response.topics.first().and_then(|topic| topic.partitions.first());
        let answered = answered.context("the answer names the partition")?;
        ensure!(response.error_code == 0 && answered.error_code == 0, "{response:?}");
        Ok(answered.committed_offset)
    }
}
