//! OffsetFetch (key 9): says how far a group has read.
//!
//! Versions 1 to 9, flexible from 6.
//! Source: `OffsetFetchRequest.json` and `OffsetFetchResponse.json` of Apache Kafka 4.1.
//!
//! Version 2 can ask for all topics, 5 adds leader epochs (KIP-320), 7 asks for stable offsets (KIP-447), 8
//! takes many groups at once (KIP-709), 9 may carry the epoch of a member of the newer protocol (KIP-848).
//! Version 10 is unstable in Kafka 4.1.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Whose offsets to say.
    OffsetFetchRequest "1-9", flexible "6+" {
        /// The group, up to version 7.
        group_id: Str, "0-7";
        /// The topics asked about, or null for all, up to version 7.
        topics: Option<Vec<OffsetFetchRequestTopic>>, "0-7", nullable "2-7";
        /// The groups, from version 8 on.
        groups: Vec<OffsetFetchRequestGroup>, "8+";
        /// Whether offsets that a transaction may still change are withheld.
        require_stable: bool, "7+";
    }

    /// Partitions of one topic, up to version 7.
    OffsetFetchRequestTopic {
        /// The topic's name.
        name: Str, "0-7";
        /// The partitions asked about.
        partition_indexes: Vec<i32>, "0-7";
    }

    /// One group asked about.
    OffsetFetchRequestGroup {
        /// The group.
        group_id: Str, "8+";
        /// The member that asks, or null.
        member_id: Option<Str>, "9+", nullable "9+", ignorable true;
        /// The member's epoch in the newer protocol, or -1.
        member_epoch: i32, "9+", default -1, ignorable true;
        /// The topics asked about, or null for all.
        topics: Option<Vec<OffsetFetchRequestTopics>>, "8+", nullable "8+";
    }

    /// Partitions of one topic, from version 8 on.
    OffsetFetchRequestTopics {
        /// The topic's name.
        name: Str, "8-9", ignorable true;
        /// The partitions asked about.
        partition_indexes: Vec<i32>, "8+";
    }

    /// The offsets.
    OffsetFetchResponse "1-9", flexible "6+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "3+", ignorable true;
        /// The offsets, per topic, up to version 7.
        topics: Vec<OffsetFetchResponseTopic>, "0-7";
        /// An error of the request as a whole, or 0.
        error_code: i16, "2-7", ignorable true;
        /// The offsets, per group, from version 8 on.
        groups: Vec<OffsetFetchResponseGroup>, "8+";
    }

    /// The offsets of one topic, up to version 7.
    OffsetFetchResponseTopic {
        /// The topic's name.
        name: Str, "0-7";
        /// The offsets, per partition.
        partitions: Vec<OffsetFetchResponsePartition>, "0-7";
    }

    /// The offset of one partition, up to version 7.
    OffsetFetchResponsePartition {
        /// The partition.
        partition_index: i32, "0-7";
        /// The offset of the next record to read, or -1 if there is none.
        committed_offset: i64, "0-7";
        /// The leader epoch committed with it, or -1.
        committed_leader_epoch: i32, "5-7", default -1, ignorable true;
        /// What the client wanted kept with the offset.
        metadata: Option<Str>, "0-7", nullable "0-7";
        /// What went wrong, or 0.
        error_code: i16, "0-7";
    }

    /// The offsets of one group.
    OffsetFetchResponseGroup {
        /// The group.
        group_id: Str, "8+";
        /// The offsets, per topic.
        topics: Vec<OffsetFetchResponseTopics>, "8+";
        /// An error of the group as a whole, or 0.
        error_code: i16, "8+";
    }

    /// The offsets of one topic, from version 8 on.
    OffsetFetchResponseTopics {
        /// The topic's name.
        name: Str, "8-9", ignorable true;
        /// The offsets, per partition.
        partitions: Vec<OffsetFetchResponsePartitions>, "8+";
    }

    /// The offset of one partition, from version 8 on.
    OffsetFetchResponsePartitions {
        /// The partition.
        partition_index: i32, "8+";
        /// The offset of the next record to read, or -1 if there is none.
        committed_offset: i64, "8+";
        /// The leader epoch committed with it, or -1.
        committed_leader_epoch: i32, "8+", default -1, ignorable true;
        /// What the client wanted kept with the offset.
        metadata: Option<Str>, "8+", nullable "8+";
        /// What went wrong, or 0.
        error_code: i16, "8+";
    }
}

impl ApiRequest for OffsetFetchRequest {
    const KEY: ApiKey = ApiKey::OffsetFetch;
    type Response = OffsetFetchResponse;
}

impl ApiResponse for OffsetFetchResponse {
    const KEY: ApiKey = ApiKey::OffsetFetch;
}
