//! DescribeGroups (15): tells the state and the members of groups.
//!
//! Versions: 0-6. A group that is not there is `Dead`, from version 6 on with GROUP_ID_NOT_FOUND (KIP-1043).
//! Without authorization everyone may do everything; what that is is said of groups without an error, if it is asked for.

use highwater_group::Description;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::describe_groups::{DescribedGroup, DescribedGroupMember};
use highwater_protocol::api::{DescribeGroupsRequest, DescribeGroupsResponse};
use highwater_protocol::wire::Str;

use super::GROUP_OPERATIONS;
use crate::context::Context;
use crate::groups;

/// Most bytes of a name that a message repeats: a name may be as long as a whole string on the wire.
const NAME_SHOWN_BYTES_MAX: usize = 1_000;
/// The state of a group that is not there (`ClassicGroupState.java`).
const DEAD: Str = Str::from_static("Dead");
/// From here on a group that is not there is an error.
const NOT_FOUND_VERSION_MIN: i16 = 6;

pub(crate) async fn handle(context: &Context<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let found = groups::look_each(context.broker, &request.groups, Str::as_str, |machine, group| {
        machine.describe(group)
    });
    let found = found.await;
    let asked_for_operations = request.include_authorized_operations;
    let described = request.groups.into_iter().zip(found).map(|(group, found)| {
        let mut described = match found {
            Ok(Some(description)) => describe(group, description),
            Ok(None) => dead(context.version, group),
            Err(unavailable) => DescribedGroup {
                error_code: unavailable.code().code(),
                group_id: group,
                ..DescribedGroup::default()
            },
        };
        if asked_for_operations && described.error_code == 0 {
            described.authorized_operations = GROUP_OPERATIONS;
        }
        described
    });
    DescribeGroupsResponse { groups: described.collect(), ..DescribeGroupsResponse::default() }
}

fn describe(group_id: Str, description: Description) -> DescribedGroup {
    let members = description.members.into_iter().map(|member| DescribedGroupMember {
        member_id: member.member_id,
        group_instance_id: member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    });
    DescribedGroup {
        group_id,
        group_state: Str::from_static(description.state.name()),
        protocol_type: description.protocol_type,
        protocol_data: description.protocol,
        members: members.collect(),
        ..DescribedGroup::default()
    }
}

fn dead(version: i16, group_id: Str) -> DescribedGroup {
    let group_state = DEAD;
    if version < NOT_FOUND_VERSION_MIN {
        return DescribedGroup { group_id, group_state, ..DescribedGroup::default() };
    }
    let name = group_id.as_str();
    let message = format!("Group {} not found.", &name[..name.floor_char_boundary(NAME_SHOWN_BYTES_MAX)]);
    DescribedGroup {
        error_code: ErrorCode::GroupIdNotFound.code(),
        error_message: Some(Str::from(message)),
        group_id,
        group_state,
        ..DescribedGroup::default()
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::encode_response;

    use super::*;

    #[test]
    fn the_longest_name_is_answered_too() {
        for name in ["x".repeat(0x7fff), "ü".repeat(0x7fff / 2)] {
            let groups = vec![dead(NOT_FOUND_VERSION_MIN, Str::from(name))];

            let response = DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() };

            assert!(encode_response(1, NOT_FOUND_VERSION_MIN, &response).is_ok());
        }
    }
}
