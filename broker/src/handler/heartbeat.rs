//! Heartbeat (12): says that a member is alive, and hears of rebalances.
//!
//! Versions: 0-4. The answer never waits for the disk. While the group is loading it is success, as in Kafka
//! (`GroupCoordinatorService.heartbeat`): clients do not expect to hear of loading here, and members begin a fresh
//! session when it is over.

use highwater_group::{Generation, HeartbeatRequest as Beat};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::{HeartbeatRequest, HeartbeatResponse};

use crate::context::Context;
use crate::groups::{self, Unavailable};

pub(crate) fn handle(context: &Context<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let beat = Beat {
        group: request.group_id,
        generation: Generation::new(request.generation_id),
        member_id: request.member_id,
        instance_id: request.group_instance_id,
    };
    let answer = groups::heartbeat(context.broker, &beat.group, |machine, now| machine.heartbeat(&beat, now));
    let error = match answer {
        Ok(Ok(())) | Err(Unavailable::Loading) => ErrorCode::None,
        Ok(Err(error)) => groups::code_of(&error),
        Err(unavailable) => unavailable.code(),
    };
    HeartbeatResponse { error_code: error.code(), ..HeartbeatResponse::default() }
}
