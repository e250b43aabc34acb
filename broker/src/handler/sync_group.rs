//! SyncGroup (14): hands the leader's assignment to the members of a generation.
//!
//! Versions: 0-5. The answer comes when the leader has brought the assignments and they are durable; a client that
//! closes its connection before that is not waited for. Protocol type and name are checked from version 5 on. While
//! the group is loading the answer is REBALANCE_IN_PROGRESS.

use highwater_group::{Generation, Reply, SyncAssignment, SyncRequest};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::{SyncGroupRequest, SyncGroupResponse};

use crate::context::Context;
use crate::groups;

pub(crate) async fn handle(context: &Context<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    // What is kept while the call is parked must not be a slice of its frame.
    let group = request.group_id.detach();
    let assignments = request.assignments.into_iter();
    let sync = SyncRequest {
        group: request.group_id,
        generation: Generation::new(request.generation_id),
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: assignments
            .map(|one| SyncAssignment { member_id: one.member_id, assignment: one.assignment })
            .collect(),
        room_bytes: context.broker.groups.room_bytes(),
    };
    let parked = groups::park(context.broker, &group, |machine, call, now| machine.sync(call, sync, now));
    let error = match parked.await {
        Ok(Reply::Sync(Ok(synced))) => {
            return SyncGroupResponse {
                protocol_type: synced.protocol_type,
                protocol_name: synced.protocol,
                assignment: synced.assignment,
                ..SyncGroupResponse::default()
            };
        }
        Ok(Reply::Sync(Err(error))) => groups::code_of(&error),
        Ok(Reply::Join(_)) => ErrorCode::UnknownServerError,
        // The rebalance that the member was in is over. Told so, it joins again, and hears there that the group is
        // loading; here the Java client takes that for fatal (Kafka 3: `GroupCoordinator.doSyncGroup`).
        Err(groups::Unavailable::Loading) => ErrorCode::RebalanceInProgress,
        Err(unavailable) => unavailable.code(),
    };
    SyncGroupResponse { error_code: error.code(), ..SyncGroupResponse::default() }
}
