//! DescribeClientQuotas (key 48): tells which quotas hold for which clients (KIP-546).
//!
//! Versions 0 to 1, flexible from 1.
//! Source: `DescribeClientQuotasRequest.json` and `DescribeClientQuotasResponse.json` of Apache Kafka 4.1.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which entities to describe.
    DescribeClientQuotasRequest "0-1", flexible "1+" {
        /// What an entity must match; an empty list matches every entity.
        components: Vec<ComponentData>, "0+";
        /// Whether an entity with a type that no component names is left out.
        strict: bool, "0+";
    }

    /// What one type of entity must match.
    ComponentData {
        /// The type: `user`, `client-id` or `ip`.
        entity_type: Str, "0+";
        /// How it matches: 0 the name in `match_`, 1 the default entity, 2 any, the default included.
        match_type: i8, "0+";
        /// The name; null if the way to match needs none. Kafka calls it `Match`, a word of Rust.
        match_: Option<Str>, "0+", nullable "0+";
    }

    /// The quotas of the entities that match.
    DescribeClientQuotasResponse "0-1", flexible "1+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
        /// The entities, or null after an error.
        entries: Option<Vec<EntryData>>, "0+", nullable "0+";
    }

    /// The quotas of one entity.
    EntryData {
        /// What the entity is made of.
        entity: Vec<EntityData>, "0+";
        /// Its quotas.
        values: Vec<ValueData>, "0+";
    }

    /// A part of an entity.
    EntityData {
        /// The type: `user`, `client-id` or `ip`.
        entity_type: Str, "0+";
        /// The name, or null for the default entity.
        entity_name: Option<Str>, "0+", nullable "0+";
    }

    /// A quota.
    ValueData {
        /// The quota, such as `producer_byte_rate`.
        key: Str, "0+";
        /// Its value.
        value: f64, "0+";
    }
}

impl ApiRequest for DescribeClientQuotasRequest {
    const KEY: ApiKey = ApiKey::DescribeClientQuotas;
    type Response = DescribeClientQuotasResponse;
}

impl ApiResponse for DescribeClientQuotasResponse {
    const KEY: ApiKey = ApiKey::DescribeClientQuotas;
}
