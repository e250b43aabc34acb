//! Valid frames of the APIs for administrators, to be damaged.

use highwater_protocol::api::alter_client_quotas::{self, AlterClientQuotasRequest, EntityData, OpData};
use highwater_protocol::api::describe_client_quotas::{ComponentData, DescribeClientQuotasRequest};
use highwater_protocol::wire::Str;

use super::{Frame, every_version};

/// Every request in every version that can carry it.
pub(super) fn frames(frames: &mut Vec<Frame>) {
    every_version(frames, |_| describe_client_quotas());
    every_version(frames, |_| alter_client_quotas());
}

fn describe_client_quotas() -> DescribeClientQuotasRequest {
    let components = [("user", 0, Some("alice")), ("client-id", 1, None), ("ip", 2, None)];
    let components = components.map(|(entity_type, match_type, name)| ComponentData {
        entity_type: entity_type.into(),
        match_type,
        match_: name.map(Str::from),
    });
    DescribeClientQuotasRequest { components: components.to_vec(), strict: false }
}

fn alter_client_quotas() -> AlterClientQuotasRequest {
    let ops = [("producer_byte_rate", 1e9, false), ("consumer_byte_rate", 0.0, true)];
    let entry = |name: Option<&str>| alter_client_quotas::request::EntryData {
        entity: vec![EntityData { entity_type: "client-id".into(), entity_name: name.map(Str::from) }],
        ops: ops.map(|(key, value, remove)| OpData { key: key.into(), value, remove }).to_vec(),
    };
    // No default: a quota of every client would slow the test itself down.
    AlterClientQuotasRequest {
        entries: vec![entry(Some("shipper")), entry(Some("auditor"))],
        validate_only: false,
    }
}
