//! OffsetForLeaderEpoch (key 23): tells where a leader epoch ended (KIP-101, KIP-320).
//!
//! Versions 2 to 4, flexible from 4.
//! Source: `OffsetForLeaderEpochRequest.json` and `OffsetForLeaderEpochResponse.json` of Apache Kafka 4.1.
//!
//! Version 3 adds the replica id.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which epochs to look up.
    OffsetForLeaderEpochRequest "2-4", flexible "4+" {
        /// The follower that asks, -1 for a consumer, -2 for a client that may look past the high
        /// watermark.
        replica_id: i32, "3+", default -2, ignorable true;
        /// The topics asked about.
        topics: Vec<OffsetForLeaderTopic>, "0+";
    }

    /// Which epochs to look up in one topic.
    OffsetForLeaderTopic {
        /// The topic's name.
        topic: Str, "0+";
        /// The partitions asked about.
        partitions: Vec<OffsetForLeaderPartition>, "0+";
    }

    /// Which epoch to look up in one partition.
    OffsetForLeaderPartition {
        /// The partition.
        partition: i32, "0+";
        /// The leader epoch that the client knows, or -1 to skip the check.
        current_leader_epoch: i32, "2+", default -1, ignorable true;
        /// The epoch asked about.
        leader_epoch: i32, "0+";
    }

    /// Where the epochs ended.
    OffsetForLeaderEpochResponse "2-4", flexible "4+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "2+", ignorable true;
        /// Where the epochs ended, per topic.
        topics: Vec<OffsetForLeaderTopicResult>, "0+";
    }

    /// Where the epochs of one topic ended.
    OffsetForLeaderTopicResult {
        /// The topic's name.
        topic: Str, "0+";
        /// Where the epochs ended, per partition.
        partitions: Vec<EpochEndOffset>, "0+";
    }

    /// The end of an epoch in one partition.
    EpochEndOffset {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The partition.
        partition: i32, "0+";
        /// The largest epoch not above the one asked about, or -1.
        leader_epoch: i32, "1+", default -1, ignorable true;
        /// Where that epoch ended, or -1.
        end_offset: i64, "0+", default -1;
    }
}

impl ApiRequest for OffsetForLeaderEpochRequest {
    const KEY: ApiKey = ApiKey::OffsetForLeaderEpoch;
    type Response = OffsetForLeaderEpochResponse;
}

impl ApiResponse for OffsetForLeaderEpochResponse {
    const KEY: ApiKey = ApiKey::OffsetForLeaderEpoch;
}
