//! AlterClientQuotas (49): sets and removes byte rates of users and client ids.
//!
//! Versions: 0-1. Each entity is checked on its own (Kafka: `ClientQuotaControlManager`), and what passes is durable in
//! one transaction before the answer leaves. What would not be enforced is refused with a sentence: other keys than the
//! two byte rates, and ip addresses. Unlike in Kafka, a rate must be at least 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::alter_client_quotas::{EntryData, request};
use highwater_protocol::api::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use highwater_protocol::wire::Str;

use super::no_duplicates;
use crate::broker::Broker;
use crate::context::Context;
use crate::quotas::{Entity, Limits};
use crate::refusal::{Refusal, refuse, told};

/// Entities with quotas. A change looks at all of them.
const ENTITIES_MAX: usize = 10_000;
/// The longest name of a user or a client id, in bytes.
const NAME_BYTES_MAX: usize = 1024;

fn invalid(message: impl ToString) -> Refusal {
    refuse(ErrorCode::InvalidRequest, message)
}

pub(crate) async fn handle(
    context: &Context<'_>,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let broker = Arc::clone(context.broker);
    let AlterClientQuotasRequest { entries, validate_only } = request;
    let entities: Vec<_> = entries.iter().map(|entry| entry.entity.clone()).collect();
    let altered = tokio::task::spawn_blocking(move || alter(&broker, &entries, validate_only));
    let results = altered.await.unwrap_or_else(|error| {
        tracing::error!(%error, "changing quotas panicked");
        let message = "changing quotas failed; whether they hold is unknown";
        vec![Err(refuse(ErrorCode::UnknownServerError, message)); entities.len()]
    });
    let entries = entities.into_iter().zip(results).map(|(entity, result)| {
        let (error_code, error_message) = told(result);
        EntryData { error_code, error_message, entity }
    });
    AlterClientQuotasResponse { entries: entries.collect(), ..AlterClientQuotasResponse::default() }
}

/// Changes the quotas, one request at a time. What became of each entry. Blocks on the disk.
fn alter(broker: &Broker, entries: &[request::EntryData], validate_only: bool) -> Vec<Result<(), Refusal>> {
    let _one_at_a_time = broker.quota_changes.lock();
    let before = broker.quotas.all();
    let (mut quotas, mut changed) = (before.clone(), BTreeSet::new());
    let mut results: Vec<_> = entries.iter().map(|entry| change(&mut quotas, &mut changed, entry)).collect();
    quotas.retain(|_, limits| !limits.is_empty());
    // What is as it was costs no write.
    changed.retain(|entity| quotas.get(entity) != before.get(entity));
    if validate_only || changed.is_empty() {
        return results;
    }
    if let Err(error) = broker.metadata.store_quotas(&quotas, &changed) {
        tracing::error!(%error, "cannot store quotas");
        let refusal = refuse(error.code(), format!("cannot store the quotas: {error}"));
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = Err(refusal.clone());
        }
        return results;
    }
    tracing::info!(changed = changed.len(), entities = quotas.len(), "changed quotas");
    broker.quotas.replace(quotas);
    results
}

/// Applies one entry, wholly or not at all.
fn change(
    quotas: &mut BTreeMap<Entity, Limits>,
    changed: &mut BTreeSet<Entity>,
    entry: &request::EntryData,
) -> Result<(), Refusal> {
    let parts = entry
        .entity
        .iter()
        .map(|part| (part.entity_type.as_str(), part.entity_name.as_ref().map(Str::as_str)));
    let entity = Entity::from_parts(parts).map_err(invalid)?;
    if let Some((_, Some(name))) = entity.parts().find(|(_, name)| name.is_some_and(is_too_long)) {
        return Err(invalid(format!("a name is {} bytes long, the limit is {NAME_BYTES_MAX}", name.len())));
    }
    if changed.contains(&entity) {
        return Err(invalid("the request names the same entity twice"));
    }
    let mut limits = quotas.get(&entity).copied().unwrap_or_default();
    no_duplicates(entry.ops.iter().map(|op| &op.key))?;
    for op in &entry.ops {
        limits.set(op.key.as_str(), (!op.remove).then_some(op.value)).map_err(invalid)?;
    }
    if quotas.len() >= ENTITIES_MAX && !quotas.contains_key(&entity) {
        return Err(invalid(format!("{} entities have quotas, the limit is {ENTITIES_MAX}", quotas.len())));
    }
    quotas.insert(entity.clone(), limits);
    changed.insert(entity);
    Ok(())
}

const fn is_too_long(name: &str) -> bool {
    name.len() > NAME_BYTES_MAX
}
