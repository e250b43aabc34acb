//! OffsetCommit (key 8): stores how far a group has read.
//!
//! Versions 2 to 9, flexible from 8.
//! Source: `OffsetCommitRequest.json` and `OffsetCommitResponse.json` of Apache Kafka 4.1.
//!
//! Version 5 drops the retention time, 6 adds leader epochs (KIP-320), 7 static members (KIP-345), 9 may carry
//! the epoch of a member of the newer protocol (KIP-848). Version 10 is unstable in Kafka 4.1.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Offsets to store.
    OffsetCommitRequest "2-9", flexible "8+" {
        /// The group.
        group_id: Str, "0+";
        /// The generation of the group, or -1 from a client that is no member.
        generation_id_or_member_epoch: i32, "1+", default -1, ignorable true;
        /// The member that commits; empty from a client that is none.
        member_id: Str, "1+", ignorable true;
        /// The static member's name, or null.
        group_instance_id: Option<Str>, "7+", nullable "7+";
        /// Milliseconds to keep the offsets, or -1 for the broker's setting.
        retention_time_ms: i64, "2-4", default -1, ignorable true;
        /// The offsets, per topic.
        topics: Vec<OffsetCommitRequestTopic>, "0+";
    }

    /// Offsets of one topic.
    OffsetCommitRequestTopic {
        /// The topic's name.
        name: Str, "0-9", ignorable true;
        /// The offsets, per partition.
        partitions: Vec<OffsetCommitRequestPartition>, "0+";
    }

    /// The offset of one partition.
    OffsetCommitRequestPartition {
        /// The partition.
        partition_index: i32, "0+";
        /// The offset of the next record to read.
        committed_offset: i64, "0+";
        /// The leader epoch of the last record read, or -1.
        committed_leader_epoch: i32, "6+", default -1, ignorable true;
        /// What the client wants kept with the offset.
        committed_metadata: Option<Str>, "0+", nullable "0+";
    }

    /// What was stored.
    OffsetCommitResponse "2-9", flexible "8+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "3+", ignorable true;
        /// What happened, per topic.
        topics: Vec<OffsetCommitResponseTopic>, "0+";
    }

    /// What happened to the offsets of one topic.
    OffsetCommitResponseTopic {
        /// The topic's name.
        name: Str, "0-9", ignorable true;
        /// What happened, per partition.
        partitions: Vec<OffsetCommitResponsePartition>, "0+";
    }

    /// What happened to the offset of one partition.
    OffsetCommitResponsePartition {
        /// The partition.
        partition_index: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
    }
}

impl ApiRequest for OffsetCommitRequest {
    const KEY: ApiKey = ApiKey::OffsetCommit;
    type Response = OffsetCommitResponse;
}

impl ApiResponse for OffsetCommitResponse {
    const KEY: ApiKey = ApiKey::OffsetCommit;
}
