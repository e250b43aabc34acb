//! LeaveGroup (13): takes members out of a group.
//!
//! Versions: 0-5. Up to version 2 one member leaves, and what is wrong with it is the answer; from version 3 on many
//! may, static ones by their name alone (KIP-345).

use highwater_group::{LeaveRequest, Leaving};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::leave_group::{MemberIdentity, MemberResponse};
use highwater_protocol::api::{LeaveGroupRequest, LeaveGroupResponse};

use crate::context::Context;
use crate::groups;

/// From here on many members leave at once.
const MEMBERS_VERSION_MIN: i16 = 3;

pub(crate) async fn handle(context: &Context<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let members = if context.version >= MEMBERS_VERSION_MIN {
        request.members
    } else {
        vec![MemberIdentity { member_id: request.member_id, ..MemberIdentity::default() }]
    };
    let members = members
        .into_iter()
        .map(|member| Leaving { member_id: member.member_id, instance_id: member.group_instance_id });
    let group = request.group_id.clone();
    let leave = LeaveRequest { group: request.group_id, members: members.collect() };
    let answer = groups::ask(context.broker, &group, |machine, now| machine.leave(leave, now)).await;
    let left = match answer {
        Ok(Ok(left)) => left,
        Ok(Err(error)) => return refuse(groups::code_of(&error)),
        Err(unavailable) => return refuse(unavailable.code()),
    };
    let members: Vec<MemberResponse> = left
        .into_iter()
        .map(|left| MemberResponse {
            member_id: left.member_id,
            group_instance_id: left.instance_id,
            error_code: left
                .outcome
                .map_or_else(|error| groups::code_of(&error), |()| ErrorCode::None)
                .code(),
        })
        .collect();
    if context.version >= MEMBERS_VERSION_MIN {
        return LeaveGroupResponse { members, ..LeaveGroupResponse::default() };
    }
    let error_code = members.first().map_or(ErrorCode::None.code(), |member| member.error_code);
    LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() }
}

fn refuse(error: ErrorCode) -> LeaveGroupResponse {
    LeaveGroupResponse { error_code: error.code(), ..LeaveGroupResponse::default() }
}
