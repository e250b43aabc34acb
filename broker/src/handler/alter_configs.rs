//! AlterConfigs (33): replaces the settings of topics, each resource on its own; what is not named loses its value.
//!
//! Versions: 0-2. Clients since 2.3 use IncrementalAlterConfigs instead, which does not undo what others set. When the
//! answer leaves, the change is durable and in force on the partitions.

use std::collections::BTreeMap;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};

use super::{each_once, no_duplicates};
use crate::config_admin::Resource;
use crate::context::Context;
use crate::refusal::{Refusal, refuse, told};
use crate::topic_change::{self, ConfigChange, Mode};

pub(crate) async fn handle(context: &Context<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mode = Mode::of(request.validate_only);
    let name_of = |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let alter = |resource| alter(context, resource, mode);
    let altered = each_once(request.resources, "resource", name_of, alter).await;
    let responses = altered.into_iter().map(|((resource_type, resource_name), result)| {
        let (error_code, error_message) = told(result);
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    AlterConfigsResponse { responses: responses.collect(), ..AlterConfigsResponse::default() }
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
