//! SyncGroup (key 14): hands the leader's assignment to the members of a generation.
//!
//! Versions 0 to 5, flexible from 4.
//! Source: `SyncGroupRequest.json` and `SyncGroupResponse.json` of Apache Kafka 4.1.
//!
//! Version 3 adds static members (KIP-345), 5 checks and says the protocol (KIP-559).

use highwater_wire::{Bytes, Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Who waits for its assignment.
    SyncGroupRequest "0-5", flexible "4+" {
        /// The group.
        group_id: Str, "0+";
        /// The generation that the member is in.
        generation_id: i32, "0+";
        /// The member's id.
        member_id: Str, "0+";
        /// The static member's name, or null.
        group_instance_id: Option<Str>, "3+", nullable "3+";
        /// The kind of protocols that the member believes in, or null.
        protocol_type: Option<Str>, "5+", nullable "5+", ignorable true;
        /// The protocol that the member believes chosen, or null.
        protocol_name: Option<Str>, "5+", nullable "5+", ignorable true;
        /// Every member's assignment, from the leader alone.
        assignments: Vec<SyncGroupRequestAssignment>, "0+";
    }

    /// A member's assignment.
    SyncGroupRequestAssignment {
        /// The member's id.
        member_id: Str, "0+";
        /// What the leader assigns to it.
        assignment: Bytes, "0+";
    }

    /// The member's assignment.
    SyncGroupResponse "0-5", flexible "4+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The kind of protocols, or null.
        protocol_type: Option<Str>, "5+", nullable "5+", ignorable true;
        /// The protocol chosen, or null.
        protocol_name: Option<Str>, "5+", nullable "5+", ignorable true;
        /// What the leader assigned.
        assignment: Bytes, "0+";
    }
}

impl ApiRequest for SyncGroupRequest {
    const KEY: ApiKey = ApiKey::SyncGroup;
    type Response = SyncGroupResponse;
}

impl ApiResponse for SyncGroupResponse {
    const KEY: ApiKey = ApiKey::SyncGroup;
}
