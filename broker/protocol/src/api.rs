//! The messages, one file per API.
//!
//! Field names are Kafka's in snake case, struct names are Kafka's. Names that occur in several APIs
//! (`LeaderIdAndEpoch`, `NodeEndpoint`, `EpochEndOffset`) are told apart by their module.

use highwater_wire::{Message, StructSpec, Versions};

use crate::{ApiKey, ApiRequest, ApiResponse};

pub mod api_versions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_topics;
pub mod describe_groups;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

pub use api_versions::{ApiVersionsRequest, ApiVersionsResponse};
pub use create_topics::{CreateTopicsRequest, CreateTopicsResponse};
pub use delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
pub use delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
pub use describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
pub use fetch::{FetchRequest, FetchResponse};
pub use find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
pub use heartbeat::{HeartbeatRequest, HeartbeatResponse};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use join_group::{JoinGroupRequest, JoinGroupResponse};
pub use leave_group::{LeaveGroupRequest, LeaveGroupResponse};
pub use list_groups::{ListGroupsRequest, ListGroupsResponse};
pub use list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
pub use metadata::{MetadataRequest, MetadataResponse};
pub use offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
pub use offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
pub use offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
pub use offset_for_leader_epoch::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
pub use produce::{ProduceRequest, ProduceResponse};
pub use sync_group::{SyncGroupRequest, SyncGroupResponse};

/// The table of one message, to be compared with Kafka's definition of the same name.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The API.
    pub key: ApiKey,
    /// The fields.
    pub spec: &'static StructSpec,
    /// The versions of which the table knows every field.
    pub versions: Versions,
    /// The versions in the flexible encoding.
    pub flexible: Versions,
}

/// The tables of an API's request and response.
const fn tables<R: ApiRequest>() -> [Table; 2] {
    [table::<R>(R::KEY), table::<R::Response>(<R::Response as ApiResponse>::KEY)]
}

const fn table<M: Message>(key: ApiKey) -> Table {
    Table { key, spec: M::SPEC, versions: M::VERSIONS, flexible: M::FLEXIBLE }
}

/// Request and response of every API, in the order of [`ApiKey::ALL`].
pub const TABLES: &[[Table; 2]] = &[
    tables::<ProduceRequest>(),
    tables::<FetchRequest>(),
    tables::<ListOffsetsRequest>(),
    tables::<MetadataRequest>(),
    tables::<OffsetCommitRequest>(),
    tables::<OffsetFetchRequest>(),
    tables::<FindCoordinatorRequest>(),
    tables::<JoinGroupRequest>(),
    tables::<HeartbeatRequest>(),
    tables::<LeaveGroupRequest>(),
    tables::<SyncGroupRequest>(),
    tables::<DescribeGroupsRequest>(),
    tables::<ListGroupsRequest>(),
    tables::<ApiVersionsRequest>(),
    tables::<CreateTopicsRequest>(),
    tables::<DeleteTopicsRequest>(),
    tables::<InitProducerIdRequest>(),
    tables::<OffsetForLeaderEpochRequest>(),
    tables::<DeleteGroupsRequest>(),
    tables::<OffsetDeleteRequest>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_has_a_request_and_a_response_of_the_same_versions() {
        let keys: Vec<ApiKey> = TABLES.iter().map(|[request, _]| request.key).collect();
        assert_eq!(keys, ApiKey::ALL);

        for [request, response] in TABLES {
            assert_eq!(request.spec.name, format!("{}Request", request.key));
            assert_eq!(response.spec.name, format!("{}Response", request.key));
            assert_eq!((request.key, request.versions), (response.key, response.versions));
            assert_eq!((request.key.served(), request.flexible), (request.versions, response.flexible));
        }
    }
}
