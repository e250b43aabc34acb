//! IncrementalAlterConfigs (44): changes single settings of topics, each resource on its own.
//!
//! Versions: 0-1. When the answer leaves, the change is durable and in force on the partitions. Settings of the broker
//! are given at its start: a change is refused with a sentence. Deleting there is nothing to do, since nothing is set;
//! Kafka's tools clear throttles that way.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use highwater_protocol::wire::Str;

use super::{named_twice, no_duplicates};
use crate::config_admin::{Refusal, Resource, refuse};
use crate::context::Context;
use crate::topic_change::{self, ConfigChange, Edit, Mode};

pub(crate) async fn handle(
    context: &Context<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mode = Mode::of(request.validate_only);
    let twice =
        named_twice(request.resources.iter().map(|one| (one.resource_type, one.resource_name.clone())));
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name.clone());
        let altered = if twice.contains(&(kind, name.clone())) {
            Err(refuse(ErrorCode::InvalidRequest, "the request names the resource twice"))
        } else {
            alter(context, resource, mode).await
        };
        let refusal = altered.err();
        responses.push(AlterConfigsResourceResponse {
            error_code: refusal.as_ref().map_or(ErrorCode::None, |refusal| refusal.code).code(),
            error_message: refusal.map(|refusal| Str::from(refusal.message)),
            resource_type: kind,
            resource_name: name,
        });
    }
    IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() }
}

async fn alter(context: &Context<'_>, asked: AlterConfigsResource, mode: Mode) -> Result<(), Refusal> {
    no_duplicates(asked.configs.iter().map(|config| &config.name))?;
    let edits: Vec<_> = asked.configs.into_iter().map(edit).collect::<Result<_, _>>()?;
    let sets_something = edits.iter().any(|(_, edit)| *edit != Edit::Delete);
    let resource = Resource::parse(asked.resource_type, &asked.resource_name)?;
    let Some(topic) = resource.topic_to_change(sets_something)? else { return Ok(()) };
    let altered = topic_change::alter_configs(context.broker, topic, ConfigChange::Edit(edits), mode).await;
    altered.map_err(|error| refuse(error.code(), error))
}

/// The change that an operation stands for (`AlterConfigOp.OpType`).
fn edit(config: AlterableConfig) -> Result<(String, Edit), Refusal> {
    let name = config.name.to_string();
    let invalid = |message: String| refuse(ErrorCode::InvalidRequest, message);
    let value = config.value.map(String::from);
    let needed = || value.ok_or_else(|| invalid(format!("config {name:?} has no value")));
    let edit = match config.config_operation {
        0 => Edit::Set(needed()?),
        1 => Edit::Delete,
        2 => Edit::Append(needed()?),
        3 => Edit::Subtract(needed()?),
        operation => return Err(invalid(format!("config {name:?} has the unknown operation {operation}"))),
    };
    Ok((name, edit))
}
