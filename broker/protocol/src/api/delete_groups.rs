//! DeleteGroups (key 42): deletes empty groups with their offsets.
//!
//! Versions 0 to 2, flexible from 2.
//! Source: `DeleteGroupsRequest.json` and `DeleteGroupsResponse.json` of Apache Kafka 4.1.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which groups to delete.
    DeleteGroupsRequest "0-2", flexible "2+" {
        /// The groups.
        groups_names: Vec<Str>, "0+";
    }

    /// The groups deleted.
    DeleteGroupsResponse "0-2", flexible "2+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What happened, per group.
        results: Vec<DeletableGroupResult>, "0+";
    }

    /// A group deleted, or why not.
    DeletableGroupResult {
        /// The group.
        group_id: Str, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
    }
}

impl ApiRequest for DeleteGroupsRequest {
    const KEY: ApiKey = ApiKey::DeleteGroups;
    type Response = DeleteGroupsResponse;
}

impl ApiResponse for DeleteGroupsResponse {
    const KEY: ApiKey = ApiKey::DeleteGroups;
}
