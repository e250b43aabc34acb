//! AlterClientQuotas (key 49): sets and removes quotas of clients (KIP-546).
//!
//! Versions 0 to 1, flexible from 1.
//! Source: `AlterClientQuotasRequest.json` and `AlterClientQuotasResponse.json` of Apache Kafka 4.1.
//!
//! Kafka calls a part of the request and a part of the response `EntryData`: here the one of the request is
//! [`request::EntryData`].

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which quotas to change.
    AlterClientQuotasRequest "0-1", flexible "1+" {
        /// The changes, per entity.
        entries: Vec<request::EntryData>, "0+";
        /// Whether to check the request and change nothing.
        validate_only: bool, "0+";
    }

    /// A change of one quota.
    OpData {
        /// The quota, such as `producer_byte_rate`.
        key: Str, "0+";
        /// Its new value; not looked at if it is to be removed.
        value: f64, "0+";
        /// Whether to remove it.
        remove: bool, "0+";
    }

    /// A part of an entity.
    EntityData {
        /// The type: `user`, `client-id` or `ip`.
        entity_type: Str, "0+";
        /// The name, or null for the default entity.
        entity_name: Option<Str>, "0+", nullable "0+";
    }

    /// What became of the changes.
    AlterClientQuotasResponse "0-1", flexible "1+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What happened, per entity.
        entries: Vec<EntryData>, "0+";
    }

    /// What became of the changes to one entity.
    EntryData {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
        /// What the entity is made of.
        entity: Vec<EntityData>, "0+";
    }
}

/// The part of the request that shares its name with one of the response.
pub mod request {
    use super::{EntityData, OpData, messages};

    messages! {
        /// Changes to one entity.
        EntryData {
            /// What the entity is made of.
            entity: Vec<EntityData>, "0+";
            /// The changes.
            ops: Vec<OpData>, "0+";
        }
    }
}

impl ApiRequest for AlterClientQuotasRequest {
    const KEY: ApiKey = ApiKey::AlterClientQuotas;
    type Response = AlterClientQuotasResponse;
}

impl ApiResponse for AlterClientQuotasResponse {
    const KEY: ApiKey = ApiKey::AlterClientQuotas;
}
