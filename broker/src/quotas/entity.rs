//! Whom a quota is for, and what it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Direction;

/// A user or a client id of an entity. The default comes first, so that entities are listed in that order.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Part {
    /// Whoever has none of its own.
    Default,
    /// This one.
    Named(Arc<str>),
}

impl Part {
    /// A part with a name.
    pub(crate) fn named(name: &str) -> Self {
        Self::Named(Arc::from(name))
    }

    /// The name; none for the default, as it is on the wire and in the store.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Named(name) => Some(name),
        }
    }

    fn from_name(name: Option<&str>) -> Self {
        name.map_or(Self::Default, Self::named)
    }
}

/// Whom a quota is for: a user, a client id, or a user with a client id.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Entity {
    pub(crate) user: Option<Part>,
    pub(crate) client_id: Option<Part>,
}

/// The types of entities on the wire (Kafka: `ClientQuotaEntity`).
pub(crate) const USER: &str = "user";
pub(crate) const CLIENT_ID: &str = "client-id";
pub(crate) const IP: &str = "ip";

impl Entity {
    /// The types and names that make up the entity.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        let part = |entity_type, part: &'_ Option<Part>| part.is_some().then_some(entity_type);
        [
            part(USER, &self.user).zip(self.user.as_ref().map(Part::name)),
            part(CLIENT_ID, &self.client_id).zip(self.client_id.as_ref().map(Part::name)),
        ]
        .into_iter()
        .flatten()
    }

    /// The key of the entity in the metadata: JSON with the names by their types, null for a default.
    pub(crate) fn to_key(&self) -> String {
        let parts: BTreeMap<&str, Option<&str>> = self.parts().collect();
        serde_json::to_string(&parts).expect("a map of strings can be written")
    }

    /// The entity of a key.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        let mut parts: BTreeMap<String, Option<String>> = serde_json::from_str(key).ok()?;
        let mut part = |entity_type| parts.remove(entity_type).map(|name| Part::from_name(name.as_deref()));
        let entity = Self { user: part(USER), client_id: part(CLIENT_ID) };
        let known = parts.is_empty() && (entity.user.is_some() || entity.client_id.is_some());
        known.then_some(entity)
    }

    /// The entity of these types and names.
    ///
    /// # Errors
    /// A sentence, if there is none such that has byte rates.
    pub(crate) fn from_parts<'a>(
        parts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, String> {
        let mut entity = Self { user: None, client_id: None };
        for (entity_type, name) in parts {
            if name == Some("") {
                return Err(format!("the {entity_type} of a quota is empty; null stands for the default"));
            }
            let part = match entity_type {
                USER => &mut entity.user,
                CLIENT_ID => &mut entity.client_id,
                IP => {
                    let sentence = "quotas of ip addresses are about connection_creation_rate, which is not enforced \
                                    here; highwater serve --max-connection-rate and --max-connections-per-ip are";
                    return Err(sentence.to_owned());
                }
                _ => return Err(format!("{entity_type:?} has no quotas; user and client-id have")),
            };
            if part.replace(Part::from_name(name)).is_some() {
                return Err(format!("the entity names its {entity_type} twice"));
            }
        }
        if entity.user.is_none() && entity.client_id.is_none() {
            return Err("the entity names neither a user nor a client-id".to_owned());
        }
        Ok(entity)
    }
}

/// The quotas of an entity, in bytes a second.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Limits {
    pub(crate) produced: Option<u64>,
    pub(crate) consumed: Option<u64>,
}

/// The keys of byte rates (Kafka: `QuotaConfigs`).
const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
/// A rate may be this far from a whole number (Kafka: `ClientQuotaControlManager`).
const EPSILON: f64 = 1e-6;
/// The largest rate: whole numbers up to here are exact in the protocol's doubles.
const RATE_MAX: f64 = 9_007_199_254_740_992.0;

impl Limits {
    /// The quota of one direction.
    pub(crate) const fn rate(&self, direction: Direction) -> Option<u64> {
        match direction {
            Direction::Produced => self.produced,
            Direction::Consumed => self.consumed,
        }
    }

    /// Whether nothing is limited.
    pub(crate) const fn is_empty(&self) -> bool {
        self.produced.is_none() && self.consumed.is_none()
    }

    /// Keys and values, as they are on the wire and in the store.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let value = |key, rate: Option<u64>| rate.map(|rate| (key, rate));
        [value(CONSUMER_BYTE_RATE, self.consumed), value(PRODUCER_BYTE_RATE, self.produced)]
            .into_iter()
            .flatten()
    }

    /// Sets the quota of that key, or removes it.
    ///
    /// # Errors
    /// A sentence, if there is no such key or it cannot have such a value.
    pub(crate) fn set(&mut self, key: &str, value: Option<f64>) -> Result<(), String> {
        let rate = match key {
            PRODUCER_BYTE_RATE => &mut self.produced,
            CONSUMER_BYTE_RATE => &mut self.consumed,
            // What is never set can always be removed.
            _ if value.is_none() => return Ok(()),
            "request_percentage" | "controller_mutation_rate" | "connection_creation_rate" => {
                return Err(format!(
                    "{key} is not enforced here; {PRODUCER_BYTE_RATE} and {CONSUMER_BYTE_RATE} are"
                ));
            }
            _ => {
                return Err(format!(
                    "{key:?} is no quota; {PRODUCER_BYTE_RATE} and {CONSUMER_BYTE_RATE} are"
                ));
            }
        };
        *rate = value.map(|value| whole_rate(key, value)).transpose()?;
        Ok(())
    }
}

fn whole_rate(key: &str, value: f64) -> Result<u64, String> {
    let whole = value.round();
    if (value - whole).abs() > EPSILON || !(1.0..=RATE_MAX).contains(&whole) {
        return Err(format!("{key} is {value}; it must be a whole number of bytes a second from 1 to 2^53"));
    }
    // Within the range that was just checked every double is a whole number of 64 bits.
    Ok(whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_reads_back_from_its_key() {
        for (user, client_id) in [
            (Some(Part::Default), None),
            (None, Some(Part::named("web \"1\", {}"))),
            (Some(Part::named("ann")), Some(Part::Default)),
        ] {
            let entity = Entity { user, client_id };
            assert_eq!(Entity::from_key(&entity.to_key()), Some(entity));
        }
        for key in ["", "{}", "[]", r#"{"ip":null}"#, r#"{"user":7}"#] {
            assert_eq!(Entity::from_key(key), None, "{key:?} is an entity");
        }
    }

    #[test]
    fn a_rate_is_a_whole_positive_number() {
        let mut limits = Limits::default();
        assert_eq!(limits.set(PRODUCER_BYTE_RATE, Some(1_024.000_000_1)), Ok(()));
        assert_eq!(limits, Limits { produced: Some(1024), consumed: None });

        for value in [0.0, -1.0, 0.5, f64::NAN, f64::INFINITY, 1e300] {
            assert!(limits.set(CONSUMER_BYTE_RATE, Some(value)).is_err(), "{value} was accepted");
        }
        assert_eq!(limits.set(PRODUCER_BYTE_RATE, None), Ok(()));
        assert!(limits.is_empty());
    }

    #[test]
    fn what_is_not_enforced_is_refused_and_may_be_removed() {
        let mut limits = Limits::default();

        let sentence = limits.set("request_percentage", Some(50.0)).unwrap_err();

        assert!(sentence.contains("request_percentage is not enforced here"), "{sentence}");
        assert_eq!(limits.set("request_percentage", None), Ok(()));
    }
}
