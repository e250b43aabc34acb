//! Looking at consumer groups and changing them from outside: list, describe, read and set offsets, delete.
//!
//! Every call finds the group's coordinator first and is repeated while that is loading or moving; all of them say
//! the same when they are repeated. Not here: being a member of a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::api::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use highwater_protocol::api::offset_fetch::OffsetFetchRequestGroup;
use highwater_protocol::api::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse, describe_groups,
};
use highwater_protocol::wire::{DecodeError, Reader};
use highwater_protocol::{ApiRequest, ErrorCode};
use highwater_record::{LeaderEpoch, Offset, PartitionId, TopicName, TopicPartition};
use thiserror::Error;
use tokio::time::Instant;

use crate::client::Lane;
use crate::retry::Backoff;
use crate::{Address, BrokerError, CallError, Client, ClientError, Connection};

/// First FindCoordinator version that takes many keys (KIP-699).
const FIND_MANY_VERSION: i16 = 4;
/// First OffsetFetch version that takes many groups (KIP-709).
const FETCH_MANY_VERSION: i16 = 8;
/// What a group is called up to DescribeGroups 5 if there is none.
const DEAD: &str = "Dead";

/// A group in a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// The kind of its protocols; empty if only offsets were committed under its name.
    pub protocol_type: String,
    /// Its state in Kafka's words, from brokers that say it in lists (Kafka 2.6 and later).
    pub state: Option<String>,
}

/// A group and its members.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupInfo {
    /// Its name.
    pub group: String,
    /// Its state in Kafka's words.
    pub state: String,
    /// The kind of its protocols, `consumer` for consumers.
    pub protocol_type: String,
    /// The assignment strategy that is in force; empty unless the group is stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupMember {
    /// The id that the coordinator gave it.
    pub id: String,
    /// Its own name, if it is a static member.
    pub instance_id: Option<String>,
    /// The client id it joined with.
    pub client_id: String,
    /// Where it joined from.
    pub host: String,
    /// The partitions that it reads; empty unless the group is stable and its assignments are readable.
    pub assignment: Vec<TopicPartition>,
}

/// A committed offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommittedOffset {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The leader epoch of the last record read, if the commit said it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// What the client wanted kept with the offset.
    pub metadata: String,
}

/// Why a group cannot be asked or changed.
#[derive(Clone, Debug, Error)]
pub enum GroupError {
    /// The coordinator cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The coordinator says no.
    #[error("group {group}: {source}")]
    Group {
        /// The group.
        group: String,
        /// The answer.
        source: BrokerError,
    },
    /// The coordinator says no about one partition.
    #[error("group {group}, {partition}: {source}")]
    Partition {
        /// The group.
        group: String,
        /// The partition.
        partition: TopicPartition,
        /// The answer.
        source: BrokerError,
    },
}

impl GroupError {
    /// Whether the coordinator says that there is no such group.
    pub fn is_unknown_group(&self) -> bool {
        matches!(self, Self::Group { source, .. } if source.is(ErrorCode::GroupIdNotFound))
    }

    /// Whether the coordinator refuses because the group has members.
    pub fn is_in_use(&self) -> bool {
        let (Self::Group { source, .. } | Self::Partition { source, .. }) = self else { return false };
        // A commit from outside is told that it is no member.
        source.is(ErrorCode::NonEmptyGroup) || source.is(ErrorCode::UnknownMemberId)
    }

    fn is_retriable(&self) -> bool {
        match self {
            // A broker that is not there is said at once, as everywhere before the first answer.
            Self::Client(ClientError::Bootstrap(_)) => false,
            Self::Client(error) => error.is_retriable(),
            Self::Group { source, .. } | Self::Partition { source, .. } => source.is_retriable(),
        }
    }
}

impl From<CallError> for GroupError {
    fn from(error: CallError) -> Self {
        Self::Client(error.into())
    }
}

impl Client {
    /// Every group of the cluster, by name. Each broker is asked: a group is known to its coordinator alone.
    ///
    /// # Errors
    ///
    /// If a broker cannot be asked, or answers with an error, within the time for trying again.
    pub async fn list_groups(&self) -> Result<BTreeMap<String, GroupListing>, GroupError> {
        self.repeat(async || {
            let cluster = self.describe(&[]).await?;
            let mut groups = BTreeMap::new();
            for (node, address) in &cluster.brokers {
                let connection = self.advertised(*node, address, Lane::Control).await?;
                let answer = self.ask(&connection, &ListGroupsRequest::default(), i16::MAX).await?;
                BrokerError::check(answer.error_code, None).map_err(ClientError::Broker)?;
                groups.extend(answer.groups.into_iter().map(|group| {
                    let state = Some(group.group_state.to_string()).filter(|state| !state.is_empty());
                    let listing = GroupListing {
                        group: group.group_id.to_string(),
                        protocol_type: group.protocol_type.to_string(),
                        state,
                    };
                    (listing.group.clone(), listing)
                }));
            }
            Ok(groups)
        })
        .await
    }

    /// A group and its members; `None` if there is no such group.
    ///
    /// # Errors
    ///
    /// If its coordinator cannot be asked, or answers with an error, within the time for trying again.
    pub async fn describe_group(&self, group: &str) -> Result<Option<GroupInfo>, GroupError> {
        let request =
            DescribeGroupsRequest { groups: vec![group.into()], ..DescribeGroupsRequest::default() };
        self.repeat(async || {
            let connection = self.coordinator(group).await?;
            let answer = self.ask(&connection, &request, i16::MAX).await?;
            let Some(described) = answer.groups.into_iter().find(|found| *found.group_id == *group) else {
                return Ok(None);
            };
            match BrokerError::from_answer(described.error_code, described.error_message.as_ref()) {
                Some(error) if error.is(ErrorCode::GroupIdNotFound) => Ok(None),
                Some(source) => Err(refused(group, source)),
                None if &*described.group_state == DEAD => Ok(None),
                None => Ok(Some(GroupInfo::from_response(&described))),
            }
        })
        .await
    }

    /// Every offset that the group has committed. None if there is no such group.
    ///
    /// # Errors
    ///
    /// If its coordinator cannot be asked, or answers with an error, within the time for trying again.
    pub async fn committed_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, GroupError> {
        self.repeat(async || {
            let connection = self.coordinator(group).await?;
            let version = connection.version::<OffsetFetchRequest>(i16::MAX)?;
            let all =
                OffsetFetchRequestGroup { group_id: group.into(), ..OffsetFetchRequestGroup::default() };
            let request = if version >= FETCH_MANY_VERSION {
                OffsetFetchRequest { groups: vec![all], ..OffsetFetchRequest::default() }
            } else {
                OffsetFetchRequest { group_id: group.into(), ..OffsetFetchRequest::default() }
            };
            let answer = self.ask(&connection, &request, version).await?;
            offsets_of(group, &answer)
        })
        .await
    }

    /// Sets committed offsets of a group that has no members.
    ///
    /// # Errors
    ///
    /// If the coordinator cannot be asked within the time for trying again, or refuses one of the offsets. Others
    /// may be set then.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<(), GroupError> {
        let request = commit_request(group, offsets);
        self.repeat(async || {
            let connection = self.coordinator(group).await?;
            let answer = self.ask(&connection, &request, i16::MAX).await?;
            for topic in &answer.topics {
                for partition in &topic.partitions {
                    let Some(source) = BrokerError::from_answer(partition.error_code, None) else { continue };
                    return Err(match key(&topic.name, partition.partition_index) {
                        Some(partition) => {
                            GroupError::Partition { group: group.to_owned(), partition, source }
                        }
                        None => refused(group, source),
                    });
                }
            }
            Ok(())
        })
        .await
    }

    /// Deletes a group that has no members, with its offsets.
    ///
    /// # Errors
    ///
    /// If the coordinator cannot be asked within the time for trying again, or refuses.
    pub async fn delete_group(&self, group: &str) -> Result<(), GroupError> {
        let request = DeleteGroupsRequest { groups_names: vec![group.into()] };
        self.repeat(async || {
            let connection = self.coordinator(group).await?;
            let answer = self.ask(&connection, &request, i16::MAX).await?;
            let refusal =
                answer.results.iter().find_map(|result| BrokerError::from_answer(result.error_code, None));
            refusal.map_or(Ok(()), |source| Err(refused(group, source)))
        })
        .await
    }

    /// A connection to the coordinator of `group`.
    async fn coordinator(&self, group: &str) -> Result<Arc<Connection>, GroupError> {
        let connection = self.any_connection().await?;
        let version = connection.version::<FindCoordinatorRequest>(i16::MAX)?;
        let mut request = FindCoordinatorRequest::default();
        if version >= FIND_MANY_VERSION {
            request.coordinator_keys = vec![group.into()];
        } else {
            request.key = group.into();
        }
        let answer = self.ask(&connection, &request, version).await?;
        let (node, host, port, code, message) = match answer.coordinators.first() {
            Some(found) => (found.node_id, &found.host, found.port, found.error_code, &found.error_message),
            None => (answer.node_id, &answer.host, answer.port, answer.error_code, &answer.error_message),
        };
        BrokerError::check(code, message.as_ref()).map_err(|source| refused(group, source))?;
        let address = Address { host: host.to_string(), port: u16::try_from(port).unwrap_or_default() };
        Ok(self.advertised(node, &address, Lane::Control).await?)
    }

    /// One question in the newest version up to `version_max` that both sides know.
    async fn ask<R: ApiRequest>(
        &self,
        connection: &Arc<Connection>,
        request: &R,
        version_max: i16,
    ) -> Result<R::Response, GroupError> {
        let version = connection.version::<R>(version_max)?;
        let answer = connection.call(request, version, Duration::ZERO).await;
        Ok(answer.inspect_err(|_| self.forget(connection))?)
    }

    /// Repeats `attempt` while it fails for reasons that may pass.
    async fn repeat<T>(&self, attempt: impl AsyncFn() -> Result<T, GroupError>) -> Result<T, GroupError> {
        let mut backoff = Backoff::until(Instant::now() + self.config().retry_for);
        loop {
            match attempt().await {
                Err(error) if error.is_retriable() && backoff.pause().await => {}
                outcome => return outcome,
            }
        }
    }
}

impl GroupInfo {
    fn from_response(group: &describe_groups::DescribedGroup) -> Self {
        let members = group.members.iter().map(|member| GroupMember {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            // What a consumer library of another kind put there is its own affair.
            assignment: assigned(member.member_assignment.clone()).unwrap_or_default(),
        });
        Self {
            group: group.group_id.to_string(),
            state: group.group_state.to_string(),
            protocol_type: group.protocol_type.to_string(),
            protocol: group.protocol_data.to_string(),
            members: members.collect(),
        }
    }
}

fn refused(group: &str, source: BrokerError) -> GroupError {
    GroupError::Group { group: group.to_owned(), source }
}

fn key(topic: &str, partition: i32) -> Option<TopicPartition> {
    Some(TopicPartition { topic: TopicName::new(topic).ok()?, partition: PartitionId::new(partition)? })
}

/// The partitions of an assignment (Kafka: `ConsumerProtocolAssignment.json`; every version begins alike).
fn assigned(bytes: Bytes) -> Result<Vec<TopicPartition>, DecodeError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes);
    reader.int16()?;
    let mut partitions = Vec::new();
    // Each element takes bytes: counts that lie end with the bytes.
    for _ in 0..reader.int32()? {
        let topic = reader.string(false)?.unwrap_or_default();
        for _ in 0..reader.int32()? {
            partitions.extend(key(&topic, reader.int32()?));
        }
    }
    Ok(partitions)
}

fn commit_request(group: &str, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&TopicName, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, committed) in offsets {
        topics.entry(&partition.topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: partition.partition.get(),
            committed_offset: committed.offset.get(),
            committed_leader_epoch: committed.leader_epoch.map_or(-1, LeaderEpoch::get),
            committed_metadata: Some(committed.metadata.as_str().into()),
        });
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| OffsetCommitRequestTopic { name: name.as_str().into(), partitions });
    OffsetCommitRequest { group_id: group.into(), topics: topics.collect(), ..OffsetCommitRequest::default() }
}

/// One partition of an answer, whichever its version: topic, partition, offset, epoch, metadata, error.
type Fetched<'a> = (&'a str, i32, i64, i32, Option<&'a str>, i16);

fn offsets_of(
    group: &str,
    answer: &OffsetFetchResponse,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, GroupError> {
    let code = answer.groups.first().map_or(answer.error_code, |group| group.error_code);
    match BrokerError::from_answer(code, None) {
        Some(error) if error.is(ErrorCode::GroupIdNotFound) => return Ok(BTreeMap::new()),
        Some(source) => return Err(refused(group, source)),
        None => {}
    }
    let single = answer.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |p| -> Fetched<'_> {
            let metadata = p.metadata.as_deref();
            (
                &topic.name,
                p.partition_index,
                p.committed_offset,
                p.committed_leader_epoch,
                metadata,
                p.error_code,
            )
        })
    });
    let many = answer.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| {
        topic.partitions.iter().map(move |p| -> Fetched<'_> {
            let metadata = p.metadata.as_deref();
            (
                &topic.name,
                p.partition_index,
                p.committed_offset,
                p.committed_leader_epoch,
                metadata,
                p.error_code,
            )
        })
    });
    let mut offsets = BTreeMap::new();
    for (topic, partition, offset, epoch, metadata, code) in single.chain(many) {
        let Some(partition) = key(topic, partition) else { continue };
        if let Some(source) = BrokerError::from_answer(code, None) {
            return Err(GroupError::Partition { group: group.to_owned(), partition, source });
        }
        let Some(offset) = Offset::new(offset) else { continue };
        let committed = CommittedOffset {
            offset,
            leader_epoch: LeaderEpoch::new(epoch),
            metadata: metadata.unwrap_or_default().to_owned(),
        };
        offsets.insert(partition, committed);
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_names_its_partitions() {
        // Version 1, one topic "ab" with partitions 0 and 3, no user data.
        let bytes = b"\0\x01\0\0\0\x01\0\x02ab\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff";

        let partitions = assigned(Bytes::from_static(bytes)).unwrap();

        let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["ab-0", "ab-3"]);
    }

    #[test]
    fn an_assignment_of_lies_is_an_error_and_an_empty_one_has_no_partitions() {
        assert!(assigned(Bytes::from_static(b"\0\x01\x7f\xff\xff\xff\0\x01a\x7f\xff\xff\xff")).is_err());
        assert_eq!(assigned(Bytes::new()), Ok(Vec::new()));
    }
}
