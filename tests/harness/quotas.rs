//! Setting and asking for quotas.

use anyhow::{Context as _, ensure};
use highwater_protocol::api::alter_client_quotas::{EntityData, EntryData, OpData, request};
use highwater_protocol::api::describe_client_quotas::ComponentData;
use highwater_protocol::api::{AlterClientQuotasRequest, DescribeClientQuotasRequest};

use super::client::Client;

/// Whom a quota is for: types with names, where none is the default.
pub(crate) type Entity = [(&'static str, Option<&'static str>)];

/// A change of the quotas of one entity; a key without a value is removed.
pub(crate) fn alteration(entity: &Entity, values: &[(&str, Option<f64>)]) -> AlterClientQuotasRequest {
    let part = |(entity_type, name): &(&'static str, Option<&'static str>)| EntityData {
        entity_type: (*entity_type).into(),
        entity_name: name.map(Into::into),
    };
    let op = |(key, value): &(&str, Option<f64>)| OpData {
        key: (*key).into(),
        value: value.unwrap_or_default(),
        remove: value.is_none(),
    };
    let entry = request::EntryData {
        entity: entity.iter().map(part).collect(),
        ops: values.iter().map(op).collect(),
    };
    AlterClientQuotasRequest { entries: vec![entry], validate_only: false }
}

/// Changes quotas; the code and the sentence of the first entity.
pub(crate) fn alter(
    client: &mut Client,
    request: &AlterClientQuotasRequest,
) -> anyhow::Result<(i16, Option<String>)> {
    let response = client.call(1, request)?;
    let entry: EntryData = response.entries.into_iter().next().context("the answer names the entity")?;
    Ok((entry.error_code, entry.error_message.map(|sentence| sentence.as_str().to_owned())))
}

/// Sets one quota, which must be accepted.
pub(crate) fn set(client: &mut Client, entity: &Entity, key: &str, rate: u32) -> anyhow::Result<()> {
    let (code, sentence) = alter(client, &alteration(entity, &[(key, Some(rate.into()))]))?;
    ensure!(code == 0, "{key} of {entity:?} is refused with {code}: {sentence:?}");
    Ok(())
}

/// The quotas of the entities that match, one line each.
pub(crate) fn describe(
    client: &mut Client,
    components: Vec<ComponentData>,
    strict: bool,
) -> anyhow::Result<Vec<String>> {
    let response = client.call(1, &DescribeClientQuotasRequest { components, strict })?;
    ensure!(response.error_code == 0, "describing quotas ended with {response:?}");
    let entries = response.entries.context("an answer without an error has entries")?;
    let line = |entry: highwater_protocol::api::describe_client_quotas::EntryData| {
        let parts = entry.entity.iter().map(|part| {
            let name = part.entity_name.as_ref().map_or("<default>", |name| name.as_str());
            format!("{} {name}", part.entity_type.as_str())
        });
        let values = entry.values.iter().map(|value| format!("{}={}", value.key.as_str(), value.value));
        let (parts, values) = (parts.collect::<Vec<_>>().join(", "), values.collect::<Vec<_>>().join(" "));
        format!("{parts}: {values}")
    };
    Ok(entries.into_iter().map(line).collect())
}
