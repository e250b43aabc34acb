//! Which APIs there are, and in which versions.
//!
//! The versions are those of Apache Kafka 4.1, without the ones that it marks unstable.

use std::fmt;

use highwater_wire::{Message, Versions};

use crate::api::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest,
    FetchRequest, FindCoordinatorRequest, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest,
};

/// An API that the broker serves.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(i16)]
pub enum ApiKey {
    /// Append record batches.
    Produce = 0,
    /// Read record batches.
    Fetch = 1,
    /// Find offsets by time.
    ListOffsets = 2,
    /// Describe brokers and topics.
    Metadata = 3,
    /// Store how far a group has read.
    OffsetCommit = 8,
    /// Say how far a group has read.
    OffsetFetch = 9,
    /// Find the coordinator of a group or transaction.
    FindCoordinator = 10,
    /// Make a client a member of a group.
    JoinGroup = 11,
    /// Keep a member of a group alive.
    Heartbeat = 12,
    /// Take members out of a group.
    LeaveGroup = 13,
    /// Hand out the assignment of a group.
    SyncGroup = 14,
    /// Tell the state and members of groups.
    DescribeGroups = 15,
    /// List the groups.
    ListGroups = 16,
    /// Describe the APIs.
    ApiVersions = 18,
    /// Create topics.
    CreateTopics = 19,
    /// Delete topics.
    DeleteTopics = 20,
    /// Hand out a producer id.
    InitProducerId = 22,
    /// Find where a leader epoch ended.
    OffsetForLeaderEpoch = 23,
    /// Delete groups.
    DeleteGroups = 42,
    /// Delete offsets of a group.
    OffsetDelete = 47,
}

impl ApiKey {
    /// Every API, in rising order of the numbers.
    pub const ALL: &'static [Self] = &[
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Metadata,
        Self::OffsetCommit,
        Self::OffsetFetch,
        Self::FindCoordinator,
        Self::JoinGroup,
        Self::Heartbeat,
        Self::LeaveGroup,
        Self::SyncGroup,
        Self::DescribeGroups,
        Self::ListGroups,
        Self::ApiVersions,
        Self::CreateTopics,
        Self::DeleteTopics,
        Self::InitProducerId,
        Self::OffsetForLeaderEpoch,
        Self::DeleteGroups,
        Self::OffsetDelete,
    ];

    /// The API with this number, if the broker knows it.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.code() == code)
    }

    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The versions that can be decoded and are served.
    pub const fn served(self) -> Versions {
        match self {
            Self::Produce => ProduceRequest::VERSIONS,
            Self::Fetch => FetchRequest::VERSIONS,
            Self::ListOffsets => ListOffsetsRequest::VERSIONS,
            Self::Metadata => MetadataRequest::VERSIONS,
            Self::OffsetCommit => OffsetCommitRequest::VERSIONS,
            Self::OffsetFetch => OffsetFetchRequest::VERSIONS,
            Self::FindCoordinator => FindCoordinatorRequest::VERSIONS,
            Self::JoinGroup => JoinGroupRequest::VERSIONS,
            Self::Heartbeat => HeartbeatRequest::VERSIONS,
            Self::LeaveGroup => LeaveGroupRequest::VERSIONS,
            Self::SyncGroup => SyncGroupRequest::VERSIONS,
            Self::DescribeGroups => DescribeGroupsRequest::VERSIONS,
            Self::ListGroups => ListGroupsRequest::VERSIONS,
            Self::ApiVersions => ApiVersionsRequest::VERSIONS,
            Self::CreateTopics => CreateTopicsRequest::VERSIONS,
            Self::DeleteTopics => DeleteTopicsRequest::VERSIONS,
            Self::InitProducerId => InitProducerIdRequest::VERSIONS,
            Self::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest::VERSIONS,
            Self::DeleteGroups => DeleteGroupsRequest::VERSIONS,
            Self::OffsetDelete => OffsetDeleteRequest::VERSIONS,
        }
    }

    /// The versions that ApiVersions lists: those served, and Produce from 0.
    ///
    /// librdkafka derives features from Produce 0 to 2 being listed, though it does not use them
    /// (KAFKA-18659).
    pub const fn advertised(self) -> Versions {
        match self {
            Self::Produce => Versions::new(0, self.served().max()),
            _ => self.served(),
        }
    }

    /// The versions in the flexible encoding, open towards the future (KIP-482).
    pub const fn flexible(self) -> Versions {
        match self {
            Self::Produce => ProduceRequest::FLEXIBLE,
            Self::Fetch => FetchRequest::FLEXIBLE,
            Self::ListOffsets => ListOffsetsRequest::FLEXIBLE,
            Self::Metadata => MetadataRequest::FLEXIBLE,
            Self::OffsetCommit => OffsetCommitRequest::FLEXIBLE,
            Self::OffsetFetch => OffsetFetchRequest::FLEXIBLE,
            Self::FindCoordinator => FindCoordinatorRequest::FLEXIBLE,
            Self::JoinGroup => JoinGroupRequest::FLEXIBLE,
            Self::Heartbeat => HeartbeatRequest::FLEXIBLE,
            Self::LeaveGroup => LeaveGroupRequest::FLEXIBLE,
            Self::SyncGroup => SyncGroupRequest::FLEXIBLE,
            Self::DescribeGroups => DescribeGroupsRequest::FLEXIBLE,
            Self::ListGroups => ListGroupsRequest::FLEXIBLE,
            Self::ApiVersions => ApiVersionsRequest::FLEXIBLE,
            Self::CreateTopics => CreateTopicsRequest::FLEXIBLE,
            Self::DeleteTopics => DeleteTopicsRequest::FLEXIBLE,
            Self::InitProducerId => InitProducerIdRequest::FLEXIBLE,
            Self::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest::FLEXIBLE,
            Self::DeleteGroups => DeleteGroupsRequest::FLEXIBLE,
            Self::OffsetDelete => OffsetDeleteRequest::FLEXIBLE,
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_produce_is_advertised_lower_than_it_is_served() {
        for key in ApiKey::ALL {
            if *key != ApiKey::Produce {
                assert_eq!(key.advertised(), key.served());
            }
        }
        assert_eq!(ApiKey::Produce.served(), Versions::parse("3-13"));
        assert_eq!(ApiKey::Produce.advertised(), Versions::parse("0-13"));
    }

    #[test]
    fn a_number_finds_its_api() {
        assert_eq!(ApiKey::from_code(18), Some(ApiKey::ApiVersions));
        assert_eq!(ApiKey::from_code(4), None);
    }
}
