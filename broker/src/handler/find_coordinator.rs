//! FindCoordinator (10): who coordinates a group or a transactional id.
//!
//! Versions: 0-6. The answer is always this broker, also while its groups are loading: that they say themselves.
//! Share groups (key type 2) do not exist here.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::find_coordinator::Coordinator;
use highwater_protocol::api::{FindCoordinatorRequest, FindCoordinatorResponse};
use highwater_protocol::wire::Str;

use crate::broker::NODE_ID;
use crate::context::Context;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) fn handle(context: &Context<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let endpoint = context.endpoint();
    let (host, port) = (Str::from(endpoint.host), i32::from(endpoint.port));
    if !matches!(request.key_type, GROUP | TRANSACTION) {
        return refuse(context, request);
    }
    if context.version <= 3 {
        return FindCoordinatorResponse {
            node_id: NODE_ID,
            host,
            port,
            ..FindCoordinatorResponse::default()
        };
    }
    let coordinator =
        |key| Coordinator { key, node_id: NODE_ID, host: host.clone(), port, ..Coordinator::default() };
    let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
    FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() }
}

fn refuse(context: &Context<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let error_code = ErrorCode::InvalidRequest.code();
    let message =
        format!("key type {} has no coordinator here; 0 (group) and 1 (transaction) have", request.key_type);
    let error_message = Some(Str::from(message));
    if context.version <= 3 {
        let (node_id, port) = (-1, -1);
        return FindCoordinatorResponse {
            error_code,
            error_message,
            node_id,
            port,
            ..FindCoordinatorResponse::default()
        };
    }
    let coordinator = |key| Coordinator {
        key,
        node_id: -1,
        port: -1,
        error_code,
        error_message: error_message.clone(),
        ..Coordinator::default()
    };
    let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
    FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() }
}
