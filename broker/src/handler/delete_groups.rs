//! DeleteGroups (42): deletes groups without members, with their offsets, each on its own.
//!
//! Versions: 0-2. When the answer leaves, the deletions are durable.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::delete_groups::DeletableGroupResult;
use highwater_protocol::api::{DeleteGroupsRequest, DeleteGroupsResponse};
use highwater_protocol::wire::Str;

use crate::context::Context;
use crate::groups;

pub(crate) async fn handle(context: &Context<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let deleted =
        groups::ask_each(context.broker, &request.groups_names, Str::as_str, |machine, name, now| {
            machine.delete_groups(std::slice::from_ref(name), now)
        });
    let deleted = deleted.await;
    let results = request.groups_names.into_iter().zip(deleted).map(|(group_id, deleted)| {
        let error = match deleted.map(|results| results.into_iter().next()) {
            Ok(Some(Ok(()))) => ErrorCode::None,
            Ok(Some(Err(error))) => groups::code_of(&error),
            Ok(None) => ErrorCode::UnknownServerError,
            Err(unavailable) => unavailable.code(),
        };
        DeletableGroupResult { group_id, error_code: error.code() }
    });
    DeleteGroupsResponse { results: results.collect(), ..DeleteGroupsResponse::default() }
}
