//! The requests of a group's members and observers, each as one call.
//!
//! Errors of the coordinator are values here; an `io::Error` is a connection that broke or an answer that makes no
//! sense.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use highwater_protocol::api::join_group::JoinGroupRequestProtocol;
use highwater_protocol::api::leave_group::MemberIdentity;
use highwater_protocol::api::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use highwater_protocol::api::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use highwater_protocol::api::sync_group::SyncGroupRequestAssignment;
use highwater_protocol::api::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse,
};
use highwater_protocol::wire::Str;

use super::client::Connection;

/// The newest versions.
const JOIN: i16 = 9;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
const COMMIT: i16 = 9;
const OFFSET_FETCH: i16 = 9;

/// How long a member may be silent, in milliseconds: the shortest that is allowed.
const SESSION_MS: i32 = 6_000;
/// How long members have to rejoin, in milliseconds.
const REBALANCE_MS: i32 = 20_000;

/// Who commits from outside of a group, to one without members: no member, of no generation.
pub(crate) const OUTSIDER: (&str, i32) = ("", -1);

/// A group that reads one topic.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: Str,
    pub(crate) topic: Str,
    pub(crate) partitions: i32,
}

impl Group {
    /// Joins, with an id or an empty one.
    pub(crate) fn join(&self, connection: &mut Connection, id: &Str) -> io::Result<JoinGroupResponse> {
        let protocol = JoinGroupRequestProtocol { name: "roundrobin".into(), metadata: self.subscription() };
        let request = JoinGroupRequest {
            group_id: self.name.clone(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            member_id: id.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..JoinGroupRequest::default()
        };
        connection.call(JOIN, &request)
    }

    /// Syncs; the leader brings everybody's assignment: the partitions in turn to the members in order of their ids.
    pub(crate) fn sync(
        &self,
        connection: &mut Connection,
        joined: &JoinGroupResponse,
    ) -> io::Result<SyncGroupResponse> {
        let mut ids: Vec<&Str> = joined.members.iter().map(|member| &member.member_id).collect();
        ids.sort_by_key(|id| id.as_str());
        let turn = |index: usize| (0..self.partitions).skip(index).step_by(ids.len()).collect::<Vec<_>>();
        let assignments = ids.iter().enumerate().map(|(index, id)| SyncGroupRequestAssignment {
            member_id: (*id).clone(),
            assignment: self.assignment(&turn(index)),
        });
        let request = SyncGroupRequest {
            group_id: self.name.clone(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: assignments.collect(),
            ..SyncGroupRequest::default()
        };
        connection.call(SYNC, &request)
    }

    /// What a heartbeat is answered.
    pub(crate) fn beat(&self, connection: &mut Connection, id: &Str, generation: i32) -> io::Result<i16> {
        let request = HeartbeatRequest {
            group_id: self.name.clone(),
            generation_id: generation,
            member_id: id.clone(),
            group_instance_id: None,
        };
        Ok(connection.call(HEARTBEAT, &request)?.error_code)
    }

    /// What a leave is answered.
    pub(crate) fn leave(&self, connection: &mut Connection, id: &Str) -> io::Result<i16> {
        let members = vec![MemberIdentity { member_id: id.clone(), ..MemberIdentity::default() }];
        let request =
            LeaveGroupRequest { group_id: self.name.clone(), members, ..LeaveGroupRequest::default() };
        let response = connection.call(LEAVE, &request)?;
        let of_member = response.members.first().map_or(0, |member| member.error_code);
        Ok(if response.error_code != 0 { response.error_code } else { of_member })
    }

    /// What is committed for these partitions, `None` where nothing is; or what the coordinator says instead.
    pub(crate) fn committed(
        &self,
        connection: &mut Connection,
        partitions: &[i32],
    ) -> io::Result<Result<BTreeMap<i32, Option<i64>>, i16>> {
        let topic =
            OffsetFetchRequestTopics { name: self.topic.clone(), partition_indexes: partitions.to_vec() };
        let group = OffsetFetchRequestGroup {
            group_id: self.name.clone(),
            topics: Some(vec![topic]),
            ..OffsetFetchRequestGroup::default()
        };
        let request =
            OffsetFetchRequest { groups: vec![group], require_stable: true, ..OffsetFetchRequest::default() };
        let answer = connection.call(OFFSET_FETCH, &request)?.groups.pop();
        let answer = answer.ok_or_else(|| wrong("an offset fetch is answered without its group"))?;
        if answer.error_code != 0 {
            return Ok(Err(answer.error_code));
        }
        let mut offsets = BTreeMap::new();
        for partition in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
            if partition.error_code != 0 {
                return Ok(Err(partition.error_code));
            }
            let offset = Some(partition.committed_offset).filter(|offset| *offset >= 0);
            offsets.insert(partition.partition_index, offset);
        }
        // A partition that is left out is as bad as one without an offset: the client would begin anew.
        for partition in partitions {
            offsets.entry(*partition).or_insert(None);
        }
        Ok(Ok(offsets))
    }

    /// What a commit is answered, per partition. See [`OUTSIDER`].
    pub(crate) fn commit(
        &self,
        connection: &mut Connection,
        (id, generation): (&str, i32),
        offsets: &[(i32, i64)],
    ) -> io::Result<BTreeMap<i32, i16>> {
        let partition = |&(partition_index, committed_offset): &(i32, i64)| OffsetCommitRequestPartition {
            partition_index,
            committed_offset,
            ..OffsetCommitRequestPartition::default()
        };
        let partitions = offsets.iter().map(partition).collect();
        let request = OffsetCommitRequest {
            group_id: self.name.clone(),
            generation_id_or_member_epoch: generation,
            member_id: Str::from(id),
            topics: vec![OffsetCommitRequestTopic { name: self.topic.clone(), partitions }],
            ..OffsetCommitRequest::default()
        };
        let response = connection.call(COMMIT, &request)?;
        let answers = response.topics.into_iter().flat_map(|topic| topic.partitions);
        Ok(answers.map(|answer| (answer.partition_index, answer.error_code)).collect())
    }

    /// Kafka's ConsumerProtocolSubscription, version 0: the one topic, no user data.
    fn subscription(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_i16(0);
        self.put_topic(&mut bytes);
        bytes.put_i32(-1);
        bytes.freeze()
    }

    /// Kafka's ConsumerProtocolAssignment, version 0: partitions of the one topic, no user data.
    fn assignment(&self, partitions: &[i32]) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_i16(0);
        self.put_topic(&mut bytes);
        bytes.put_i32(partitions.len() as i32);
        partitions.iter().for_each(|partition| bytes.put_i32(*partition));
        bytes.put_i32(-1);
        bytes.freeze()
    }

    fn put_topic(&self, bytes: &mut BytesMut) {
        bytes.put_i32(1);
        bytes.put_i16(self.topic.as_str().len() as i16);
        bytes.put_slice(self.topic.as_bytes());
    }

    /// The partitions in an assignment that a leader among these members made.
    pub(crate) fn assigned(assignment: &Bytes) -> io::Result<Vec<i32>> {
        let mut bytes = assignment.clone();
        let mut read = || -> Result<Vec<i32>, bytes::TryGetError> {
            bytes.try_get_i16()?;
            bytes.try_get_i32()?;
            let name_bytes = usize::try_from(bytes.try_get_i16()?).unwrap_or(0);
            bytes.advance(name_bytes.min(bytes.remaining()));
            let count = bytes.try_get_i32()?;
            (0..count).map(|_| bytes.try_get_i32()).collect()
        };
        read().map_err(|error| wrong(format!("the assignment {assignment:?}: {error}")))
    }
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_comes_back_as_it_was_made() -> io::Result<()> {
        let group = Group { name: "group".into(), topic: "topic".into(), partitions: 12 };

        assert_eq!(Group::assigned(&group.assignment(&[1, 5, 9]))?, [1, 5, 9]);
        assert!(Group::assigned(&group.assignment(&[]))?.is_empty());
        assert!(Group::assigned(&Bytes::new()).is_err());
        Ok(())
    }
}
