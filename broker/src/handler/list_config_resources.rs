//! ListConfigResources (74): what has settings.
//!
//! Versions: 0-1. Version 0 asks for metrics of clients alone. Topics and this broker have settings; metrics of clients
//! and groups have none here. The broker's loggers are listed by its id, as Kafka does it.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use highwater_protocol::wire::Str;

use crate::broker::NODE_ID;
use crate::config_admin::ResourceType;
use crate::context::Context;

pub(crate) fn handle(
    context: &Context<'_>,
    request: &ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let types: Option<Vec<_>> = match request.resource_types.as_slice() {
        _ if context.version == 0 => Some(vec![ResourceType::ClientMetrics]),
        [] => Some(ResourceType::ALL.to_vec()),
        asked => asked.iter().map(|code| ResourceType::from_code(*code)).collect(),
    };
    let Some(types) = types else {
        // Kafka's answer for a type that it does not know.
        let error_code = ErrorCode::UnsupportedVersion.code();
        return ListConfigResourcesResponse { error_code, ..ListConfigResourcesResponse::default() };
    };
    let mut config_resources = Vec::new();
    for kind in ResourceType::ALL.into_iter().filter(|kind| types.contains(kind)) {
        let names = names(context, kind).into_iter();
        config_resources
            .extend(names.map(|resource_name| ConfigResource { resource_name, resource_type: kind.code() }));
    }
    ListConfigResourcesResponse { config_resources, ..ListConfigResourcesResponse::default() }
}

fn names(context: &Context<'_>, kind: ResourceType) -> Vec<Str> {
    match kind {
        ResourceType::Topic => {
            context.broker.topics.all().iter().map(|topic| Str::from(topic.name.as_str())).collect()
        }
        ResourceType::Broker | ResourceType::BrokerLogger => vec![Str::from(NODE_ID.to_string())],
        ResourceType::ClientMetrics | ResourceType::Group => Vec::new(),
    }
}
