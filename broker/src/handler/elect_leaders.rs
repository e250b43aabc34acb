//! ElectLeaders (43): which elections are needed, on one broker none.
//!
//! Versions: 0-2. A partition in service is led by the only replica there is. Without a list of partitions only those
//! are named for which an election took place, as Kafka does it: none.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use highwater_protocol::wire::Str;

use super::{partition, topic_by_name};
use crate::context::Context;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(crate) fn handle(context: &Context<'_>, request: ElectLeadersRequest) -> ElectLeadersResponse {
    if !matches!(request.election_type, PREFERRED | UNCLEAN) {
        let error_code = ErrorCode::InvalidRequest.code();
        return ElectLeadersResponse { error_code, ..ElectLeadersResponse::default() };
    }
    let topics = request.topic_partitions.unwrap_or_default().into_iter().map(|asked| {
        let partitions = asked.partitions.into_iter().map(|index| elect(context, &asked.topic, index));
        ReplicaElectionResult { partition_result: partitions.collect(), topic: asked.topic.clone() }
    });
    ElectLeadersResponse { replica_election_results: topics.collect(), ..ElectLeadersResponse::default() }
}

/// Why there is no election.
fn elect(context: &Context<'_>, topic: &str, partition_id: i32) -> PartitionResult {
    let found = topic_by_name(context.broker, topic)
        .and_then(|topic| partition(&topic, partition_id).map(|partition| partition.leader_epoch().is_ok()));
    let (code, message) = match found {
        Ok(true) => (ErrorCode::ElectionNotNeeded, "the only replica leads the partition"),
        Ok(false) => (ErrorCode::PreferredLeaderNotAvailable, "the only replica is not in service yet"),
        Err(code) => (code, "there is no such partition"),
    };
    PartitionResult { partition_id, error_code: code.code(), error_message: Some(Str::from_static(message)) }
}
