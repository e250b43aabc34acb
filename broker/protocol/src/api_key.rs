//! Which APIs there are, and in which versions.
//!
//! The versions are those of Apache Kafka 4.1, without the ones that it marks unstable.

use std::fmt;

use highwater_wire::{Message, Versions};

use crate::api::{
    AlterClientQuotasRequest, ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeClientQuotasRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
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
    /// Find the coordinator of a group or transaction.
    FindCoordinator = 10,
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
    /// Describe the quotas of clients.
    DescribeClientQuotas = 48,
    /// Set and remove quotas of clients.
    AlterClientQuotas = 49,
}

impl ApiKey {
    /// Every API, in rising order of the numbers.
    pub const ALL: &'static [Self] = &[
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Metadata,
        Self::FindCoordinator,
        Self::ApiVersions,
        Self::CreateTopics,
        Self::DeleteTopics,
        Self::InitProducerId,
        Self::OffsetForLeaderEpoch,
        Self::DescribeClientQuotas,
        Self::AlterClientQuotas,
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
            Self::FindCoordinator => FindCoordinatorRequest::VERSIONS,
            Self::ApiVersions => ApiVersionsRequest::VERSIONS,
            Self::CreateTopics => CreateTopicsRequest::VERSIONS,
            Self::DeleteTopics => DeleteTopicsRequest::VERSIONS,
            Self::InitProducerId => InitProducerIdRequest::VERSIONS,
            Self::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest::VERSIONS,
            Self::DescribeClientQuotas => DescribeClientQuotasRequest::VERSIONS,
            Self::AlterClientQuotas => AlterClientQuotasRequest::VERSIONS,
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
            Self::FindCoordinator => FindCoordinatorRequest::FLEXIBLE,
            Self::ApiVersions => ApiVersionsRequest::FLEXIBLE,
            Self::CreateTopics => CreateTopicsRequest::FLEXIBLE,
            Self::DeleteTopics => DeleteTopicsRequest::FLEXIBLE,
            Self::InitProducerId => InitProducerIdRequest::FLEXIBLE,
            Self::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest::FLEXIBLE,
            Self::DescribeClientQuotas => DescribeClientQuotasRequest::FLEXIBLE,
            Self::AlterClientQuotas => AlterClientQuotasRequest::FLEXIBLE,
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
