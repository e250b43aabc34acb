//! Any request: one exhaustive match from key and version to the decoded body.

use bytes::Bytes;
use highwater_wire::{DecodeError, Message, Reader};
use thiserror::Error;

use crate::api::{
    AlterClientQuotasRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest, ApiVersionsRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeGroupsRequest, DescribeLogDirsRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    ElectLeadersRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest, UpdateFeaturesRequest,
};
use crate::{ApiKey, RequestHeader};

/// Most array elements in one request, all its arrays together.
///
/// A fetch of 100,000 partitions stays far below it. At up to about 100 bytes for each element in memory it
/// keeps what a frame can make the broker allocate, besides the frame, to tens of MiB.
const ELEMENTS_MAX: usize = 1 << 18;

/// A decoded request. Its `Debug` form prints every field.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Append record batches.
    Produce(ProduceRequest),
    /// Read record batches.
    Fetch(FetchRequest),
    /// Find offsets by time.
    ListOffsets(ListOffsetsRequest),
    /// Describe brokers and topics.
    Metadata(MetadataRequest),
    /// Store how far a group has read.
    OffsetCommit(OffsetCommitRequest),
    /// Say how far a group has read.
    OffsetFetch(OffsetFetchRequest),
    /// Find the coordinator of a group or transaction.
    FindCoordinator(FindCoordinatorRequest),
    /// Make a client a member of a group.
    JoinGroup(JoinGroupRequest),
    /// Keep a member of a group alive.
    Heartbeat(HeartbeatRequest),
    /// Take members out of a group.
    LeaveGroup(LeaveGroupRequest),
    /// Hand out the assignment of a group.
    SyncGroup(SyncGroupRequest),
    /// Tell the state and members of groups.
    DescribeGroups(DescribeGroupsRequest),
    /// List the groups.
    ListGroups(ListGroupsRequest),
    /// Describe the APIs.
    ApiVersions(ApiVersionsRequest),
    /// Create topics.
    CreateTopics(CreateTopicsRequest),
    /// Delete topics.
    DeleteTopics(DeleteTopicsRequest),
    /// Move where partitions start.
    DeleteRecords(DeleteRecordsRequest),
    /// Hand out a producer id.
    InitProducerId(InitProducerIdRequest),
    /// Find where a leader epoch ended.
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest),
    /// Describe the settings of topics and brokers.
    DescribeConfigs(DescribeConfigsRequest),
    /// Replace the settings of topics and brokers.
    AlterConfigs(AlterConfigsRequest),
    /// Describe the data directories.
    DescribeLogDirs(DescribeLogDirsRequest),
    /// Add partitions to topics.
    CreatePartitions(CreatePartitionsRequest),
    /// Delete groups.
    DeleteGroups(DeleteGroupsRequest),
    /// Elect leaders.
    ElectLeaders(ElectLeadersRequest),
    /// Change settings of topics and brokers.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    /// Move replicas to other brokers.
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest),
    /// List the moves of replicas that go on.
    ListPartitionReassignments(ListPartitionReassignmentsRequest),
    /// Delete offsets of a group.
    OffsetDelete(OffsetDeleteRequest),
    /// Describe the quotas of clients.
    DescribeClientQuotas(DescribeClientQuotasRequest),
    /// Set and remove quotas of clients.
    AlterClientQuotas(AlterClientQuotasRequest),
    /// Describe who votes on the metadata.
    DescribeQuorum(DescribeQuorumRequest),
    /// Set the levels of features.
    UpdateFeatures(UpdateFeaturesRequest),
    /// Describe the brokers.
    DescribeCluster(DescribeClusterRequest),
    /// List what has settings.
    ListConfigResources(ListConfigResourcesRequest),
    /// Describe partitions, page by page.
    DescribeTopicPartitions(DescribeTopicPartitionsRequest),
}

/// Why a request with a readable header is not decoded.
///
/// Kafka closes the connection in all three cases, except that it answers an unsupported version of
/// ApiVersions (`RequestContext.java`): with [`crate::api::ApiVersionsResponse::unsupported`] in version 0.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RequestError {
    /// An API that the broker does not serve.
    #[error("there is no API with key {key}")]
    UnknownKey {
        /// The number in the header.
        key: i16,
    },
    /// A version that the broker does not serve.
    #[error(
        "{key} is served in versions {min} to {max}, not {version}",
        min = .key.served().min(),
        max = .key.served().max()
    )]
    UnsupportedVersion {
        /// The API.
        key: ApiKey,
        /// The version in the header.
        version: i16,
    },
    /// A body that is not what the header says.
    #[error("malformed {key} request of version {version}: {source}")]
    Malformed {
        /// The API.
        key: ApiKey,
        /// The version in the header.
        version: i16,
        /// What is wrong.
        source: DecodeError,
    },
}

impl Request {
    /// Decodes the body that `reader` stands at. Bytes after it are left in the reader.
    ///
    /// # Errors
    ///
    /// If the version is not served, in which case nothing is read, or if the body is malformed.
    pub fn decode(key: ApiKey, version: i16, reader: &mut Reader) -> Result<Self, RequestError> {
        if !key.served().contains(version) {
            return Err(RequestError::UnsupportedVersion { key, version });
        }
        let decoded = match key {
            ApiKey::Produce => Message::read(reader, version).map(Self::Produce),
            ApiKey::Fetch => Message::read(reader, version).map(Self::Fetch),
            ApiKey::ListOffsets => Message::read(reader, version).map(Self::ListOffsets),
            ApiKey::Metadata => Message::read(reader, version).map(Self::Metadata),
            ApiKey::OffsetCommit => Message::read(reader, version).map(Self::OffsetCommit),
            ApiKey::OffsetFetch => Message::read(reader, version).map(Self::OffsetFetch),
            ApiKey::FindCoordinator => Message::read(reader, version).map(Self::FindCoordinator),
            ApiKey::JoinGroup => Message::read(reader, version).map(Self::JoinGroup),
            ApiKey::Heartbeat => Message::read(reader, version).map(Self::Heartbeat),
            ApiKey::LeaveGroup => Message::read(reader, version).map(Self::LeaveGroup),
            ApiKey::SyncGroup => Message::read(reader, version).map(Self::SyncGroup),
            ApiKey::DescribeGroups => Message::read(reader, version).map(Self::DescribeGroups),
            ApiKey::ListGroups => Message::read(reader, version).map(Self::ListGroups),
            ApiKey::ApiVersions => Message::read(reader, version).map(Self::ApiVersions),
            ApiKey::CreateTopics => Message::read(reader, version).map(Self::CreateTopics),
            ApiKey::DeleteTopics => Message::read(reader, version).map(Self::DeleteTopics),
            ApiKey::DeleteRecords => Message::read(reader, version).map(Self::DeleteRecords),
            ApiKey::InitProducerId => Message::read(reader, version).map(Self::InitProducerId),
            ApiKey::OffsetForLeaderEpoch => Message::read(reader, version).map(Self::OffsetForLeaderEpoch),
            ApiKey::DescribeConfigs => Message::read(reader, version).map(Self::DescribeConfigs),
            ApiKey::AlterConfigs => Message::read(reader, version).map(Self::AlterConfigs),
            ApiKey::DescribeLogDirs => Message::read(reader, version).map(Self::DescribeLogDirs),
            ApiKey::CreatePartitions => Message::read(reader, version).map(Self::CreatePartitions),
            ApiKey::DeleteGroups => Message::read(reader, version).map(Self::DeleteGroups),
            ApiKey::ElectLeaders => Message::read(reader, version).map(Self::ElectLeaders),
            ApiKey::IncrementalAlterConfigs => {
                Message::read(reader, version).map(Self::IncrementalAlterConfigs)
            }
            ApiKey::AlterPartitionReassignments => {
                Message::read(reader, version).map(Self::AlterPartitionReassignments)
            }
            ApiKey::ListPartitionReassignments => {
                Message::read(reader, version).map(Self::ListPartitionReassignments)
            }
            ApiKey::OffsetDelete => Message::read(reader, version).map(Self::OffsetDelete),
            ApiKey::DescribeClientQuotas => Message::read(reader, version).map(Self::DescribeClientQuotas),
            ApiKey::AlterClientQuotas => Message::read(reader, version).map(Self::AlterClientQuotas),
            ApiKey::DescribeQuorum => Message::read(reader, version).map(Self::DescribeQuorum),
            ApiKey::UpdateFeatures => Message::read(reader, version).map(Self::UpdateFeatures),
            ApiKey::DescribeCluster => Message::read(reader, version).map(Self::DescribeCluster),
            ApiKey::ListConfigResources => Message::read(reader, version).map(Self::ListConfigResources),
            ApiKey::DescribeTopicPartitions => {
                Message::read(reader, version).map(Self::DescribeTopicPartitions)
            }
        };
        decoded.map_err(|source| RequestError::Malformed { key, version, source })
    }

    /// The API.
    pub const fn key(&self) -> ApiKey {
        match self {
            Self::Produce(_) => ApiKey::Produce,
            Self::Fetch(_) => ApiKey::Fetch,
            Self::ListOffsets(_) => ApiKey::ListOffsets,
            Self::Metadata(_) => ApiKey::Metadata,
            Self::OffsetCommit(_) => ApiKey::OffsetCommit,
            Self::OffsetFetch(_) => ApiKey::OffsetFetch,
            Self::FindCoordinator(_) => ApiKey::FindCoordinator,
            Self::JoinGroup(_) => ApiKey::JoinGroup,
            Self::Heartbeat(_) => ApiKey::Heartbeat,
            Self::LeaveGroup(_) => ApiKey::LeaveGroup,
            Self::SyncGroup(_) => ApiKey::SyncGroup,
            Self::DescribeGroups(_) => ApiKey::DescribeGroups,
            Self::ListGroups(_) => ApiKey::ListGroups,
            Self::ApiVersions(_) => ApiKey::ApiVersions,
            Self::CreateTopics(_) => ApiKey::CreateTopics,
            Self::DeleteTopics(_) => ApiKey::DeleteTopics,
            Self::DeleteRecords(_) => ApiKey::DeleteRecords,
            Self::InitProducerId(_) => ApiKey::InitProducerId,
            Self::OffsetForLeaderEpoch(_) => ApiKey::OffsetForLeaderEpoch,
            Self::DescribeConfigs(_) => ApiKey::DescribeConfigs,
            Self::AlterConfigs(_) => ApiKey::AlterConfigs,
            Self::DescribeLogDirs(_) => ApiKey::DescribeLogDirs,
            Self::CreatePartitions(_) => ApiKey::CreatePartitions,
            Self::DeleteGroups(_) => ApiKey::DeleteGroups,
            Self::ElectLeaders(_) => ApiKey::ElectLeaders,
            Self::IncrementalAlterConfigs(_) => ApiKey::IncrementalAlterConfigs,
            Self::AlterPartitionReassignments(_) => ApiKey::AlterPartitionReassignments,
            Self::ListPartitionReassignments(_) => ApiKey::ListPartitionReassignments,
            Self::OffsetDelete(_) => ApiKey::OffsetDelete,
            Self::DescribeClientQuotas(_) => ApiKey::DescribeClientQuotas,
            Self::AlterClientQuotas(_) => ApiKey::AlterClientQuotas,
            Self::DescribeQuorum(_) => ApiKey::DescribeQuorum,
            Self::UpdateFeatures(_) => ApiKey::UpdateFeatures,
            Self::DescribeCluster(_) => ApiKey::DescribeCluster,
            Self::ListConfigResources(_) => ApiKey::ListConfigResources,
            Self::DescribeTopicPartitions(_) => ApiKey::DescribeTopicPartitions,
        }
    }
}

/// The header of a request frame without its size prefix, and the body or why there is none.
///
/// # Errors
///
/// If not even the header can be read.
pub fn parse_request(frame: Bytes) -> Result<(RequestHeader, Result<Request, RequestError>), DecodeError> {
    let mut reader = Reader::with_elements_max(frame, ELEMENTS_MAX);
    let header = RequestHeader::decode(&mut reader)?;
    let body = match header.known_key() {
        Some(key) => Request::decode(key, header.api_version, &mut reader),
        None => Err(RequestError::UnknownKey { key: header.api_key }),
    };
    Ok((header, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode_request;

    #[test]
    fn the_body_of_an_unsupported_version_is_not_read() {
        let frame = Bytes::from_static(b"\x00\x12\x00\x63\x00\x00\x00\x07\xff\xff\x00\xde\xad");

        let (header, body) = parse_request(frame).unwrap();

        assert_eq!(header.correlation_id, 7);
        let refused = RequestError::UnsupportedVersion { key: ApiKey::ApiVersions, version: 99 };
        assert_eq!(body, Err(refused));
        assert_eq!(refused.to_string(), "ApiVersions is served in versions 0 to 4, not 99");
    }

    #[test]
    fn produce_is_refused_below_the_versions_served() {
        let frame = Bytes::from_static(b"\x00\x00\x00\x02\x00\x00\x00\x07\xff\xff");

        let (_, body) = parse_request(frame).unwrap();

        assert_eq!(body, Err(RequestError::UnsupportedVersion { key: ApiKey::Produce, version: 2 }));
    }

    #[test]
    fn bytes_after_the_body_are_ignored() {
        let request = InitProducerIdRequest { transaction_timeout_ms: 5, ..InitProducerIdRequest::default() };
        let frame = encode_request(1, None, 0, &request).unwrap();
        let longer = Bytes::from([&frame[4..], &[9, 9, 9]].concat());

        let (_, body) = parse_request(longer).unwrap();

        assert_eq!(body, Ok(Request::InitProducerId(request)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "decodes a quarter of a million elements, which takes Miri minutes")]
    fn a_request_of_too_many_elements_is_refused_though_its_bytes_are_there() {
        // DeleteTopics 4 with 2^18 + 1 empty names, of one byte each.
        let mut frame = b"\x00\x14\x00\x04\x00\x00\x00\x01\xff\xff\x00\x82\x80\x10".to_vec();
        frame.resize(frame.len() + ELEMENTS_MAX + 10, 1);

        let (_, body) = parse_request(Bytes::from(frame)).unwrap();

        let source = DecodeError::TooManyElements { count: ELEMENTS_MAX + 1, allowed: ELEMENTS_MAX };
        assert_eq!(body, Err(RequestError::Malformed { key: ApiKey::DeleteTopics, version: 4, source }));
    }

    #[test]
    fn elements_of_requests_are_small_in_memory() {
        // What the budget of elements is worth depends on this.
        let sizes = [
            size_of::<crate::api::create_topics::CreatableTopic>(),
            size_of::<crate::api::fetch::FetchPartition>(),
            size_of::<crate::api::produce::PartitionProduceData>(),
            size_of::<crate::api::metadata::MetadataRequestTopic>(),
            size_of::<crate::api::offset_commit::OffsetCommitRequestTopic>(),
            size_of::<crate::api::offset_commit::OffsetCommitRequestPartition>(),
            size_of::<crate::api::offset_fetch::OffsetFetchRequestGroup>(),
            size_of::<crate::api::join_group::JoinGroupRequestProtocol>(),
            size_of::<crate::api::leave_group::MemberIdentity>(),
            size_of::<crate::api::sync_group::SyncGroupRequestAssignment>(),
        ];

        assert!(sizes.iter().all(|size| *size <= 112), "{sizes:?}");
    }

    #[test]
    fn the_records_of_a_produce_request_are_a_slice_of_its_frame() {
        // Produce 3: no transactional id, acks 1, one topic "t", one partition, three bytes of records.
        let frame = Bytes::from_static(
            b"\x00\x00\x00\x03\x00\x00\x00\x01\xff\xff\xff\xff\x00\x01\x00\x00\x00\x00\
              \x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03abc",
        );

        let (_, body) = parse_request(frame.clone()).unwrap();

        let Ok(Request::Produce(request)) = body else { panic!("{body:?}") };
        let records = request.topic_data[0].partition_data[0].records.bytes().unwrap();
        assert_eq!(records.as_ptr(), frame.slice(frame.len() - 3..).as_ptr());
        assert_eq!((request.acks, &records[..]), (1, &b"abc"[..]));
    }

    #[test]
    fn the_request_that_made_other_codecs_abort_is_an_error() {
        // Metadata 9 with a count of 2^32 - 2 topics in five bytes.
        let frame = Bytes::from_static(
            b"\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\x00\xff\xff\xff\xff\x0f\x00\x00\x00",
        );

        let (_, body) = parse_request(frame).unwrap();

        let source = DecodeError::CountExceedsBytes { count: 0xffff_fffe, element_size: 2, remaining: 3 };
        assert_eq!(body, Err(RequestError::Malformed { key: ApiKey::Metadata, version: 9, source }));
    }
}
