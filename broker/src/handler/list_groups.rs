//! ListGroups (16): lists the groups.
//!
//! Versions: 0-5. All groups are classic ones. If one partition of the groups is not in service, the answer is an
//! error and no list: a list that lacks groups would look whole.

use highwater_group::ListFilter;
use highwater_protocol::api::list_groups::ListedGroup;
use highwater_protocol::api::{ListGroupsRequest, ListGroupsResponse};
use highwater_protocol::wire::Str;

use crate::context::Context;
use crate::groups;

/// What Kafka calls groups of the older protocol (`Group.GroupType`).
const CLASSIC: Str = Str::from_static("classic");

pub(crate) async fn handle(context: &Context<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let filter = ListFilter { states: request.states_filter, types: request.types_filter };
    let listed = groups::look_everywhere(context.broker, |machine| machine.list(&filter)).await;
    match listed {
        Ok(mut listed) => {
            listed.sort_unstable_by(|one, other| one.group.as_str().cmp(other.group.as_str()));
            let groups = listed.into_iter().map(|group| ListedGroup {
                group_id: group.group,
                protocol_type: group.protocol_type,
                group_state: Str::from_static(group.state.name()),
                group_type: CLASSIC,
            });
            ListGroupsResponse { groups: groups.collect(), ..ListGroupsResponse::default() }
        }
        Err(unavailable) => {
            ListGroupsResponse { error_code: unavailable.code().code(), ..ListGroupsResponse::default() }
        }
    }
}
