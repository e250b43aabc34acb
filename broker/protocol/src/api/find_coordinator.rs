//! FindCoordinator (key 10): names the broker that coordinates a group or a transactional id.
//!
//! Versions 0 to 6, flexible from 3.
//! Source: `FindCoordinatorRequest.json` and `FindCoordinatorResponse.json` of Apache Kafka 4.1.
//!
//! Version 4 takes many keys at once (KIP-699), 6 knows share groups (KIP-932).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Whose coordinator to find.
    FindCoordinatorRequest "0-6", flexible "3+" {
        /// The group or transactional id, up to version 3.
        key: Str, "0-3";
        /// What the key is: 0 a group, 1 a transactional id, 2 a partition of a share group.
        key_type: i8, "1+";
        /// The groups or transactional ids, from version 4 on.
        coordinator_keys: Vec<Str>, "4+";
    }

    /// The coordinators.
    FindCoordinatorResponse "0-6", flexible "3+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// What went wrong, or 0; up to version 3.
        error_code: i16, "0-3";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "1-3", nullable "1-3", ignorable true;
        /// The broker's id.
        node_id: i32, "0-3";
        /// The host to connect to.
        host: Str, "0-3";
        /// The port to connect to.
        port: i32, "0-3";
        /// The coordinator of each key, from version 4 on.
        coordinators: Vec<Coordinator>, "4+";
    }

    /// The coordinator of one key.
    Coordinator {
        /// The key asked about.
        key: Str, "4+";
        /// The broker's id.
        node_id: i32, "4+";
        /// The host to connect to.
        host: Str, "4+";
        /// The port to connect to.
        port: i32, "4+";
        /// What went wrong, or 0.
        error_code: i16, "4+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "4+", nullable "4+", ignorable true;
    }
}

impl ApiRequest for FindCoordinatorRequest {
    const KEY: ApiKey = ApiKey::FindCoordinator;
    type Response = FindCoordinatorResponse;
}

impl ApiResponse for FindCoordinatorResponse {
    const KEY: ApiKey = ApiKey::FindCoordinator;
}
