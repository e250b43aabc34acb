//! ListPartitionReassignments (46): the replicas that are moving, on one broker none.
//!
//! Versions: 0. Partitions that are asked for and do not move are left out, as Kafka does it, whether they exist or not.

use highwater_protocol::api::ListPartitionReassignmentsResponse;

pub(crate) fn handle() -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
