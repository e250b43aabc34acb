//! ListGroups (key 16): lists the groups that the broker coordinates.
//!
//! Versions 0 to 5, flexible from 3.
//! Source: `ListGroupsRequest.json` and `ListGroupsResponse.json` of Apache Kafka 4.1.
//!
//! Version 4 adds states (KIP-518), 5 types (KIP-848).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which groups to list.
    ListGroupsRequest "0-5", flexible "3+" {
        /// Only groups in these states; empty for any.
        states_filter: Vec<Str>, "4+";
        /// Only groups of these types; empty for any.
        types_filter: Vec<Str>, "5+";
    }

    /// The groups.
    ListGroupsResponse "0-5", flexible "3+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The groups.
        groups: Vec<ListedGroup>, "0+";
    }

    /// One group.
    ListedGroup {
        /// The group.
        group_id: Str, "0+";
        /// The kind of its protocols; empty for one that has offsets alone.
        protocol_type: Str, "0+";
        /// Its state in Kafka's words.
        group_state: Str, "4+", ignorable true;
        /// Its type in Kafka's words.
        group_type: Str, "5+", ignorable true;
    }
}

impl ApiRequest for ListGroupsRequest {
    const KEY: ApiKey = ApiKey::ListGroups;
    type Response = ListGroupsResponse;
}

impl ApiResponse for ListGroupsResponse {
    const KEY: ApiKey = ApiKey::ListGroups;
}
