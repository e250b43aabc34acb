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

use super::{each_once, no_duplicates};
use crate::config_admin::Resource;
use crate::context::Context;
use crate::refusal::{Refusal, refuse, told};
use crate::topic_change::{self, ConfigChange, Edit, Mode};

pub(crate) async fn handle(
    context: &Context<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mode = Mode::of(request.validate_only);
    let name_of = |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let alter = |resource| alter(context, resource, mode);
    let altered = each_once(request.resources, "resource", name_of, alter).await;
    let responses = altered.into_iter().map(|((resource_type, resource_name), result)| {
        let (error_code, error_message) = told(result);
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    IncrementalAlterConfigsResponse {
        responses: responses.collect(),
        ..IncrementalAlterConfigsResponse::default()
    }
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
