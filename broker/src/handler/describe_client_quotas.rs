//! DescribeClientQuotas (48): which quotas are set, for the entities that match a filter.
//!
//! Versions: 0-1. The filter is Kafka's (`ClientQuotasImage.describe`): each component names a type and what its name
//! must be; a strict filter leaves out entities with further types. There are no quotas of ip addresses: a filter for them
//! matches nothing.

use std::collections::BTreeMap;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::describe_client_quotas::{ComponentData, EntityData, EntryData, ValueData};
use highwater_protocol::api::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use highwater_protocol::wire::Str;

use crate::context::Context;
use crate::quotas::{CLIENT_ID, Entity, IP, Limits, USER};
use crate::refusal::{Refusal, refuse};

/// Ways to match (Kafka: `DescribeClientQuotasRequest`).
const MATCH_EXACT: i8 = 0;
const MATCH_DEFAULT: i8 = 1;
const MATCH_SPECIFIED: i8 = 2;

/// What the name of one type must be.
enum Wanted {
    Named(Str),
    Default,
    /// A name or the default.
    Any,
}

impl Wanted {
    fn matches(&self, name: Option<&str>) -> bool {
        match self {
            Self::Named(wanted) => name == Some(wanted.as_str()),
            Self::Default => name.is_none(),
            Self::Any => true,
        }
    }
}

fn invalid(message: impl ToString) -> Refusal {
    refuse(ErrorCode::InvalidRequest, message)
}

pub(crate) fn handle(
    context: &Context<'_>,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    match parse(request.components) {
        Ok(filter) => {
            let all = context.broker.quotas.all();
            let matching = all.iter().filter(|(entity, _)| matches(&filter, request.strict, entity));
            let entries = matching.map(|(entity, limits)| describe(entity, limits)).collect();
            DescribeClientQuotasResponse { entries: Some(entries), ..DescribeClientQuotasResponse::default() }
        }
        Err(refusal) => {
            let (error_code, error_message) = refusal.told();
            DescribeClientQuotasResponse {
                error_code,
                error_message,
                entries: None,
                ..DescribeClientQuotasResponse::default()
            }
        }
    }
}

/// What must be, by type.
type Filter = BTreeMap<&'static str, Wanted>;

fn parse(components: Vec<ComponentData>) -> Result<Filter, Refusal> {
    let mut filter = Filter::new();
    for ComponentData { entity_type, match_type, match_: name, .. } in components {
        let Some(known) = [USER, CLIENT_ID, IP].into_iter().find(|known| entity_type.as_str() == *known)
        else {
            if entity_type.as_str().is_empty() {
                return Err(invalid("a component of the filter names no entity type"));
            }
            let message = format!("{:?} has no quotas; user, client-id and ip have", entity_type.as_str());
            return Err(refuse(ErrorCode::UnsupportedVersion, message));
        };
        let wanted = match (match_type, name) {
            (MATCH_EXACT, Some(name)) => Wanted::Named(name),
            (MATCH_DEFAULT, None) => Wanted::Default,
            (MATCH_SPECIFIED, None) => Wanted::Any,
            (MATCH_EXACT, None) => return Err(invalid(format!("the {known} to match has no name"))),
            (MATCH_DEFAULT | MATCH_SPECIFIED, Some(_)) => {
                return Err(invalid(format!(
                    "the {known} to match has a name, match type {match_type} takes none"
                )));
            }
            (unknown, _) => {
                return Err(invalid(format!("match type is {unknown}, the known ones are 0 to 2")));
            }
        };
        if filter.insert(known, wanted).is_some() {
            return Err(invalid(format!("the filter names {known} twice")));
        }
    }
    if filter.contains_key(IP) && filter.len() > 1 {
        return Err(invalid("a filter for ip cannot be combined with user or client-id"));
    }
    Ok(filter)
}

fn matches(filter: &Filter, strict: bool, entity: &Entity) -> bool {
    let named = |wanted: &str| entity.parts().find(|(entity_type, _)| *entity_type == wanted);
    let all = filter
        .iter()
        .all(|(wanted_type, wanted)| named(wanted_type).is_some_and(|(_, name)| wanted.matches(name)));
    all && (!strict || entity.parts().count() == filter.len())
}

fn describe(entity: &Entity, limits: &Limits) -> EntryData {
    let part = |(entity_type, name): (&'static str, Option<&str>)| EntityData {
        entity_type: Str::from_static(entity_type),
        entity_name: name.map(Str::from),
    };
    // Rates are whole numbers below 2^53, which doubles hold exactly.
    let value =
        |(key, rate): (&'static str, u64)| ValueData { key: Str::from_static(key), value: rate as f64 };
    EntryData { entity: entity.parts().map(part).collect(), values: limits.values().map(value).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quotas::Part;

    fn component(entity_type: &'static str, match_type: i8, name: Option<&'static str>) -> ComponentData {
        ComponentData {
            entity_type: Str::from_static(entity_type),
            match_type,
            match_: name.map(Str::from_static),
        }
    }

    #[track_caller]
    fn check(components: Vec<ComponentData>, strict: bool, expected: &[&str]) {
        let part = |name| Some(name).map(|name| if name == "*" { Part::Default } else { Part::named(name) });
        let entities = [
            ("user ann", Entity { user: part("ann"), client_id: None }),
            ("user *", Entity { user: part("*"), client_id: None }),
            ("client web", Entity { user: None, client_id: part("web") }),
            ("both", Entity { user: part("ann"), client_id: part("web") }),
            ("ann's others", Entity { user: part("ann"), client_id: part("*") }),
        ];
        let filter = parse(components).unwrap_or_else(|refusal| panic!("{refusal:?}"));

        let found: Vec<_> = entities
            .iter()
            .filter(|(_, entity)| matches(&filter, strict, entity))
            .map(|(name, _)| *name)
            .collect();

        assert_eq!(found, expected);
    }

    #[test]
    fn a_filter_matches_by_name_by_default_and_by_type() {
        let ann = || component(USER, MATCH_EXACT, Some("ann"));
        check(vec![], false, &["user ann", "user *", "client web", "both", "ann's others"]);
        check(vec![], true, &[]);
        check(vec![ann()], false, &["user ann", "both", "ann's others"]);
        check(vec![ann()], true, &["user ann"]);
        check(vec![component(USER, MATCH_DEFAULT, None)], false, &["user *"]);
        check(vec![component(USER, MATCH_SPECIFIED, None)], true, &["user ann", "user *"]);
        check(vec![ann(), component(CLIENT_ID, MATCH_SPECIFIED, None)], true, &["both", "ann's others"]);
        check(vec![ann(), component(CLIENT_ID, MATCH_DEFAULT, None)], true, &["ann's others"]);
        check(vec![component(IP, MATCH_SPECIFIED, None)], false, &[]);
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        for components in [
            vec![component(USER, MATCH_EXACT, None)],
            vec![component(USER, MATCH_DEFAULT, Some("ann"))],
            vec![component(USER, 3, None)],
            vec![component("", MATCH_DEFAULT, None)],
            vec![component(USER, MATCH_DEFAULT, None), component(USER, MATCH_SPECIFIED, None)],
            vec![component(USER, MATCH_DEFAULT, None), component(IP, MATCH_DEFAULT, None)],
        ] {
            let refused = parse(components).err().map(|refusal| refusal.code);
            assert_eq!(refused, Some(ErrorCode::InvalidRequest));
        }
        let refused = parse(vec![component("team", MATCH_DEFAULT, None)]).err().map(|refusal| refusal.code);
        assert_eq!(refused, Some(ErrorCode::UnsupportedVersion));
    }
}
