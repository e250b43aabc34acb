//! JoinGroup (11): makes a client a member of a group, or brings a member into its next generation.
//!
//! Versions: 0-9. The answer comes when the rebalance is complete; a client that closes its connection before that is
//! forgotten. Version 0 has no rebalance timeout and takes the session timeout; from version 4 on a dynamic member
//! without an id is told one and comes back with it (KIP-394).

use highwater_group::{Client, GroupError, JoinReply, JoinRequest, Joined, Protocol, Reply};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::join_group::JoinGroupResponseMember;
use highwater_protocol::api::{JoinGroupRequest, JoinGroupResponse};
use highwater_protocol::wire::Str;

use crate::context::Context;
use crate::groups;

/// From here on the request has a rebalance timeout.
const REBALANCE_TIMEOUT_VERSION_MIN: i16 = 1;
/// From here on the member gets its id before it joins.
const MEMBER_ID_VERSION_MIN: i16 = 4;
/// From here on the answer may lack a protocol; before, it is empty then.
const NULL_PROTOCOL_VERSION_MIN: i16 = 7;
/// From here on a leader understands that it need not assign.
const SKIP_ASSIGNMENT_VERSION_MIN: i16 = 9;

pub(crate) async fn handle(context: &Context<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    // What is kept while the call is parked must not be a slice of its frame.
    let (group, member_id) = (request.group_id.detach(), request.member_id.detach());
    let version = context.version;
    let join = join_request(context, request);
    let parked = groups::park(context.broker, &group, |machine, call, now| machine.join(call, join, now));
    let (outcome, member_id) = match parked.await {
        Ok(Reply::Join(JoinReply { member_id, outcome })) => {
            (outcome.map_err(|e| refused(&group, &e)), member_id)
        }
        Ok(Reply::Sync(_)) => (Err(ErrorCode::UnknownServerError), member_id),
        Err(unavailable) => (Err(unavailable.code()), member_id),
    };
    match outcome {
        Ok(joined) => accept(version, member_id, joined),
        Err(error) => JoinGroupResponse {
            error_code: error.code(),
            protocol_name: protocol_name(version, None),
            member_id,
            ..JoinGroupResponse::default()
        },
    }
}

fn join_request(context: &Context<'_>, request: JoinGroupRequest) -> JoinRequest {
    let version = context.version;
    let protocols = request.protocols.into_iter();
    JoinRequest {
        group: request.group_id,
        member_id: request.member_id,
        require_known_member_id: version >= MEMBER_ID_VERSION_MIN && request.group_instance_id.is_none(),
        instance_id: request.group_instance_id,
        protocol_type: request.protocol_type,
        protocols: protocols.map(|one| Protocol { name: one.name, metadata: one.metadata }).collect(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: (version >= REBALANCE_TIMEOUT_VERSION_MIN)
            .then_some(request.rebalance_timeout_ms),
        supports_skip_assignment: version >= SKIP_ASSIGNMENT_VERSION_MIN,
        client: Client {
            id: context.client_id.clone().unwrap_or_default(),
            // As Java prints an address: operators know it from Kafka's tools.
            host: Str::from(format!("/{}", context.peer.ip())),
        },
        unique: uuid::Uuid::new_v4().into_bytes(),
        may_create: context.broker.groups.may_create(),
        room_bytes: context.broker.groups.room_bytes(),
    }
}

fn refused(group: &str, error: &GroupError) -> ErrorCode {
    if !matches!(error, GroupError::MemberIdRequired) {
        tracing::debug!(group, %error, "refused a member");
    }
    groups::code_of(error)
}

fn accept(version: i16, member_id: Str, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| JoinGroupResponseMember {
        member_id: member.member_id,
        group_instance_id: member.instance_id,
        metadata: member.metadata,
    });
    JoinGroupResponse {
        generation_id: joined.generation.get(),
        protocol_type: Some(joined.protocol_type),
        protocol_name: protocol_name(version, joined.protocol),
        leader: joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id,
        members: members.collect(),
        ..JoinGroupResponse::default()
    }
}

fn protocol_name(version: i16, protocol: Option<Str>) -> Option<Str> {
    if version >= NULL_PROTOCOL_VERSION_MIN { protocol } else { Some(protocol.unwrap_or_default()) }
}
