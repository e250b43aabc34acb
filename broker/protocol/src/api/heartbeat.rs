//! Heartbeat (key 12): says that a member is alive, and hears of rebalances.
//!
//! Versions 0 to 4, flexible from 4.
//! Source: `HeartbeatRequest.json` and `HeartbeatResponse.json` of Apache Kafka 4.1.
//!
//! Version 3 adds static members (KIP-345).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Who is alive.
    HeartbeatRequest "0-4", flexible "4+" {
        /// The group.
        group_id: Str, "0+";
        /// The generation that the member is in.
        generation_id: i32, "0+";
        /// The member's id.
        member_id: Str, "0+";
        /// The static member's name, or null.
        group_instance_id: Option<Str>, "3+", nullable "3+";
    }

    /// Whether the member's generation stands.
    HeartbeatResponse "0-4", flexible "4+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// What went wrong, or 0.
        error_code: i16, "0+";
    }
}

impl ApiRequest for HeartbeatRequest {
    const KEY: ApiKey = ApiKey::Heartbeat;
    type Response = HeartbeatResponse;
}

impl ApiResponse for HeartbeatResponse {
    const KEY: ApiKey = ApiKey::Heartbeat;
}
