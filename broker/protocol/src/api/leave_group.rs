//! LeaveGroup (key 13): takes members out of a group.
//!
//! Versions 0 to 5, flexible from 4.
//! Source: `LeaveGroupRequest.json` and `LeaveGroupResponse.json` of Apache Kafka 4.1.
//!
//! Version 3 takes many members at once, static ones too (KIP-345), 5 adds the reason (KIP-800).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Who leaves.
    LeaveGroupRequest "0-5", flexible "4+" {
        /// The group.
        group_id: Str, "0+";
        /// The member's id, up to version 2.
        member_id: Str, "0-2";
        /// The members, from version 3 on.
        members: Vec<MemberIdentity>, "3+";
    }

    /// A member that leaves.
    MemberIdentity {
        /// The member's id; may be empty if it is static.
        member_id: Str, "3+";
        /// The static member's name, or null.
        group_instance_id: Option<Str>, "3+", nullable "3+";
        /// Why it leaves, or null.
        reason: Option<Str>, "5+", nullable "5+", ignorable true;
    }

    /// Who has left.
    LeaveGroupResponse "0-5", flexible "4+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// What happened, per member, from version 3 on.
        members: Vec<MemberResponse>, "3+";
    }

    /// A member that left, or why not.
    MemberResponse {
        /// The member's id, as the request had it.
        member_id: Str, "3+";
        /// The static member's name, or null.
        group_instance_id: Option<Str>, "3+", nullable "3+";
        /// What went wrong, or 0.
        error_code: i16, "3+";
    }
}

impl ApiRequest for LeaveGroupRequest {
    const KEY: ApiKey = ApiKey::LeaveGroup;
    type Response = LeaveGroupResponse;
}

impl ApiResponse for LeaveGroupResponse {
    const KEY: ApiKey = ApiKey::LeaveGroup;
}
