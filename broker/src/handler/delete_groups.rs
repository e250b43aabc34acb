//! DeleteGroups (42): deletes groups without members, with their offsets, each on its own.
//!
//! Versions: 0-2. When the answer leaves, the deletions are durable.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::delete_groups::DeletableGroupResult;
use highwater_protocol::api::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::context::Context;
use crate::groups;

pub(crate) async fn handle(context: &Context<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let one = std::slice::from_ref(&group_id);
        let deleted =
            groups::ask(context.broker, &group_id, |machine, now| machine.delete_groups(one, now)).await;
        let error = match deleted.map(|results| results.into_iter().next()) {
            Ok(Some(Ok(()))) => ErrorCode::None,
            Ok(Some(Err(error))) => groups::code_of(&error),
            Ok(None) => ErrorCode::UnknownServerError,
            Err(unavailable) => unavailable.code(),
        };
        results.push(DeletableGroupResult { group_id, error_code: error.code() });
    }
    DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() }
}
