//! DescribeConfigs (32): the settings of topics and of this broker, each with where its value comes from.
//!
//! Versions: 1-4. Without keys, or with an empty list of them, every setting is described, as Kafka does it. Loggers,
//! metrics of clients and groups have no settings here and are described as such. No value is a secret.

use std::collections::HashSet;

use highwater_protocol::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};
use highwater_protocol::wire::Str;

use crate::config_admin::{Described, Resource};
use crate::context::Context;
use crate::refusal::told;

/// What is described besides the values.
#[derive(Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
}

pub(crate) fn handle(context: &Context<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let detail = Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
    // Each resource once: a short request cannot ask for a long answer many times over.
    let mut seen = HashSet::new();
    let resources = request.resources.into_iter();
    let results = resources
        .filter(|resource| seen.insert((resource.resource_type, resource.resource_name.clone())))
        .map(|resource| describe(context, resource, detail));
    DescribeConfigsResponse { results: results.collect(), ..DescribeConfigsResponse::default() }
}

fn describe(context: &Context<'_>, asked: DescribeConfigsResource, detail: Detail) -> DescribeConfigsResult {
    let found = Resource::parse(asked.resource_type, &asked.resource_name)
        .and_then(|resource| resource.describe(context.broker));
    let ((error_code, error_message), configs) = match found {
        Ok(settings) => (told(Ok(())), select(settings, asked.configuration_keys.as_deref(), detail)),
        Err(refusal) => (refusal.told(), Vec::new()),
    };
    DescribeConfigsResult {
        error_code,
        error_message,
        resource_type: asked.resource_type,
        resource_name: asked.resource_name,
        configs,
    }
}

fn select(
    settings: Vec<Described>,
    keys: Option<&[Str]>,
    detail: Detail,
) -> Vec<DescribeConfigsResourceResult> {
    let keys = keys.filter(|keys| !keys.is_empty());
    let wanted = |setting: &Described| keys.is_none_or(|keys| keys.iter().any(|key| *key == setting.name));
    settings.into_iter().filter(wanted).map(|setting| answer(setting, detail)).collect()
}

fn answer(setting: Described, detail: Detail) -> DescribeConfigsResourceResult {
    let source = setting.source() as i8;
    let synonyms =
        setting.synonyms.into_iter().filter(|_| detail.synonyms).map(|synonym| DescribeConfigsSynonym {
            name: Str::from_static(synonym.name),
            value: Some(Str::from(synonym.value)),
            source: synonym.source as i8,
        });
    DescribeConfigsResourceResult {
        name: Str::from_static(setting.name),
        value: setting.value.map(Str::from),
        read_only: setting.read_only,
        config_source: source,
        is_sensitive: false,
        synonyms: synonyms.collect(),
        config_type: setting.value_type as i8,
        documentation: detail.documentation.then(|| Str::from_static(setting.documentation)),
    }
}
