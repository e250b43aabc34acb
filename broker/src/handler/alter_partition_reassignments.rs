//! AlterPartitionReassignments (45): moves replicas, on one broker to where they are.
//!
//! Versions: 0-1. A partition that is to be on this broker alone is there at once. Every other place is refused, and
//! there is no move to cancel.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};

use super::{partition, topic_by_name};
use crate::broker::NODE_ID;
use crate::context::Context;
use crate::refusal::{Refusal, refuse, told};

pub(crate) fn handle(
    context: &Context<'_>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let may_change_factor = request.allow_replication_factor_change;
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let (error_code, error_message) = told(reassign(context, &topic.name, asked, may_change_factor));
            ReassignablePartitionResponse {
                partition_index: asked.partition_index,
                error_code,
                error_message,
            }
        });
        ReassignableTopicResponse { partitions: partitions.collect(), name: topic.name.clone() }
    });
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_change_factor,
        responses: responses.collect(),
        ..AlterPartitionReassignmentsResponse::default()
    }
}

fn reassign(
    context: &Context<'_>,
    topic: &str,
    asked: &ReassignablePartition,
    may_change_factor: bool,
) -> Result<(), Refusal> {
    topic_by_name(context.broker, topic)
        .and_then(|topic| partition(&topic, asked.partition_index).map(|_| ()))
        .map_err(|code| refuse(code, "there is no such partition"))?;
    match asked.replicas.as_deref() {
        None => Err(refuse(ErrorCode::NoReassignmentInProgress, "no replica of the partition is moving")),
        Some([NODE_ID]) => Ok(()),
        Some(replicas) if replicas.len() != 1 && !may_change_factor => {
            let message = format!("{} replicas were asked for, a partition has 1", replicas.len());
            Err(refuse(ErrorCode::InvalidReplicationFactor, message))
        }
        Some(replicas) => {
            let message = format!(
                "{} replicas cannot be placed like that: broker {NODE_ID} is the only one and holds one",
                replicas.len()
            );
            Err(refuse(ErrorCode::InvalidReplicaAssignment, message))
        }
    }
}
