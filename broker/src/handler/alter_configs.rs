//! AlterConfigs (33): replaces the settings of topics, each resource on its own; what is not named loses its value.
//!
//! Versions: 0-2. Clients since 2.3 use IncrementalAlterConfigs instead, which does not undo what others set. When the
//! answer leaves, the change is durable and in force on the partitions.

use std::collections::BTreeMap;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};
use highwater_protocol::wire::Str;

use super::{named_twice, no_duplicates};
use crate::config_admin::{Refusal, Resource, refuse};
use crate::context::Context;
use crate::topic_change::{self, ConfigChange, Mode};

pub(crate) async fn handle(context: &Context<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
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
    AlterConfigsResponse { responses, ..AlterConfigsResponse::default() }
}

async fn alter(context: &Context<'_>, asked: AlterConfigsResource, mode: Mode) -> Result<(), Refusal> {
    no_duplicates(asked.configs.iter().map(|config| &config.name))?;
    let mut configs = BTreeMap::new();
    for config in asked.configs {
        let Some(value) = config.value else {
            let message = format!("config {:?} has no value", config.name.as_str());
            return Err(refuse(ErrorCode::InvalidRequest, message));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    let resource = Resource::parse(asked.resource_type, &asked.resource_name)?;
    let Some(topic) = resource.topic_to_change(!configs.is_empty())? else { return Ok(()) };
    let change = ConfigChange::Replace(configs);
    let altered = topic_change::alter_configs(context.broker, topic, change, mode).await;
    altered.map_err(|error| refuse(error.code(), error))
}
