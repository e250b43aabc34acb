//! JoinGroup (key 11): makes a client a member of a group, or brings a member into its next generation.
//!
//! Versions 0 to 9, flexible from 6.
//! Source: `JoinGroupRequest.json` and `JoinGroupResponse.json` of Apache Kafka 4.1.
//!
//! Version 1 adds the rebalance timeout, 4 hands out the member's id before it joins (KIP-394), 5 adds static
//! members (KIP-345), 7 says the protocol type (KIP-559), 8 adds the reason (KIP-800), 9 lets a leader skip
//! its assignment (KIP-814).

use highwater_wire::{Bytes, Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Who joins.
    JoinGroupRequest "0-9", flexible "6+" {
        /// The group.
        group_id: Str, "0+";
        /// Milliseconds without a sign of life after which the member is taken for dead.
        session_timeout_ms: i32, "0+";
        /// Milliseconds that members have to rejoin in a rebalance; in version 0 the session timeout.
        rebalance_timeout_ms: i32, "1+", default -1, ignorable true;
        /// The member's id; empty if it has none yet.
        member_id: Str, "0+";
        /// The static member's name, or null.
        group_instance_id: Option<Str>, "5+", nullable "5+";
        /// What kind of protocols these are: `consumer` for consumers.
        protocol_type: Str, "0+";
        /// The protocols that the member supports, the preferred first.
        protocols: Vec<JoinGroupRequestProtocol>, "0+";
        /// Why the member joins, or null.
        reason: Option<Str>, "8+", nullable "8+", ignorable true;
    }

    /// A protocol that the member supports.
    JoinGroupRequestProtocol {
        /// The protocol's name: that of an assignor.
        name: Str, "0+";
        /// What the member says to the leader: its subscription.
        metadata: Bytes, "0+";
    }

    /// The generation joined.
    JoinGroupResponse "0-9", flexible "6+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "2+", ignorable true;
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The generation, or -1.
        generation_id: i32, "0+", default -1;
        /// The kind of protocols, or null.
        protocol_type: Option<Str>, "7+", nullable "7+", ignorable true;
        /// The protocol chosen; null after an error, where the version knows null.
        protocol_name: Option<Str>, "0+", nullable "7+";
        /// The leader's member id.
        leader: Str, "0+";
        /// Whether the leader must not assign, since the assignment stands.
        skip_assignment: bool, "9+";
        /// The id of the member that asked.
        member_id: Str, "0+";
        /// All members, for the leader alone.
        members: Vec<JoinGroupResponseMember>, "0+";
    }

    /// A member, as the leader sees it.
    JoinGroupResponseMember {
        /// The member's id.
        member_id: Str, "0+";
        /// The static member's name, or null.
        group_instance_id: Option<Str>, "5+", nullable "5+", ignorable true;
        /// What the member says to the leader.
        metadata: Bytes, "0+";
    }
}

impl ApiRequest for JoinGroupRequest {
    const KEY: ApiKey = ApiKey::JoinGroup;
    type Response = JoinGroupResponse;
}

impl ApiResponse for JoinGroupResponse {
    const KEY: ApiKey = ApiKey::JoinGroup;
}
