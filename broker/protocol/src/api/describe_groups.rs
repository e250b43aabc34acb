//! DescribeGroups (key 15): tells the state and the members of groups.
//!
//! Versions 0 to 6, flexible from 5.
//! Source: `DescribeGroupsRequest.json` and `DescribeGroupsResponse.json` of Apache Kafka 4.1.
//!
//! Version 3 adds the operations that the client may do (KIP-430), 4 static members (KIP-345), 6 an error for
//! groups that are not there (KIP-1043).

use highwater_wire::{Bytes, Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which groups to describe.
    DescribeGroupsRequest "0-6", flexible "5+" {
        /// The groups.
        groups: Vec<Str>, "0+";
        /// Whether to say what the client may do with each.
        include_authorized_operations: bool, "3+";
    }

    /// The groups.
    DescribeGroupsResponse "0-6", flexible "5+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// The groups described.
        groups: Vec<DescribedGroup>, "0+";
    }

    /// One group.
    DescribedGroup {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "6+", nullable "6+";
        /// The group.
        group_id: Str, "0+";
        /// Its state in Kafka's words, `Dead` up to version 5 if it is not there, or empty.
        group_state: Str, "0+";
        /// The kind of its protocols, or empty.
        protocol_type: Str, "0+";
        /// The protocol chosen, of a stable group; else empty.
        protocol_data: Str, "0+";
        /// The members.
        members: Vec<DescribedGroupMember>, "0+";
        /// What the client may do, a bit per operation, or `i32::MIN` if it was not asked.
        authorized_operations: i32, "3+", default i32::MIN;
    }

    /// A member of a group.
    DescribedGroupMember {
        /// The member's id.
        member_id: Str, "0+";
        /// The static member's name, or null.
        group_instance_id: Option<Str>, "4+", nullable "4+", ignorable true;
        /// The client id of its last join.
        client_id: Str, "0+";
        /// Where it joined from.
        client_host: Str, "0+";
        /// What it said to the leader in the protocol chosen, of a stable group; else empty.
        member_metadata: Bytes, "0+";
        /// What the leader assigned to it, in a stable group; else empty.
        member_assignment: Bytes, "0+";
    }
}

impl ApiRequest for DescribeGroupsRequest {
    const KEY: ApiKey = ApiKey::DescribeGroups;
    type Response = DescribeGroupsResponse;
}

impl ApiResponse for DescribeGroupsResponse {
    const KEY: ApiKey = ApiKey::DescribeGroups;
}
