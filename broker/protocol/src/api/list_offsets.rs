//! ListOffsets (key 2): finds the offset of a timestamp, or one of the ends of a log.
//!
//! Versions 1 to 10, flexible from 6.
//! Source: `ListOffsetsRequest.json` and `ListOffsetsResponse.json` of Apache Kafka 4.1.
//!
//! Version 7 adds the largest timestamp (-3), 8 the earliest local offset (-4), 9 the latest tiered one
//! (-5), 10 a timeout for reads from remote storage (KIP-1075).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which offsets to find.
    ListOffsetsRequest "1-10", flexible "6+" {
        /// The follower that asks, or -1 for a consumer.
        replica_id: i32, "0+";
        /// 0 reads everything below the high watermark, 1 only what committed transactions and others
        /// wrote.
        isolation_level: i8, "2+";
        /// The topics asked about.
        topics: Vec<ListOffsetsTopic>, "0+";
        /// Milliseconds to wait for remote storage.
        timeout_ms: i32, "10+", ignorable true;
    }

    /// Which offsets to find in one topic.
    ListOffsetsTopic {
        /// The topic's name.
        name: Str, "0+";
        /// The partitions asked about.
        partitions: Vec<ListOffsetsPartition>, "0+";
    }

    /// Which offset to find in one partition.
    ListOffsetsPartition {
        /// The partition.
        partition_index: i32, "0+";
        /// The leader epoch that the client knows, or -1 to skip the check.
        current_leader_epoch: i32, "4+", default -1, ignorable true;
        /// A time in milliseconds, or -1 latest, -2 earliest, -3 largest timestamp, -4 earliest local, -5
        /// latest tiered.
        timestamp: i64, "0+";
    }

    /// The offsets found.
    ListOffsetsResponse "1-10", flexible "6+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "2+", ignorable true;
        /// The offsets found, per topic.
        topics: Vec<ListOffsetsTopicResponse>, "0+";
    }

    /// The offsets found in one topic.
    ListOffsetsTopicResponse {
        /// The topic's name.
        name: Str, "0+";
        /// The offsets found, per partition.
        partitions: Vec<ListOffsetsPartitionResponse>, "0+";
    }

    /// The offset found in one partition.
    ListOffsetsPartitionResponse {
        /// The partition.
        partition_index: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The timestamp of the record found, or -1.
        timestamp: i64, "1+", default -1;
        /// The offset found, or -1.
        offset: i64, "1+", default -1;
        /// The leader epoch of the record found, or -1.
        leader_epoch: i32, "4+", default -1;
    }
}

impl ApiRequest for ListOffsetsRequest {
    const KEY: ApiKey = ApiKey::ListOffsets;
    type Response = ListOffsetsResponse;
}

impl ApiResponse for ListOffsetsResponse {
    const KEY: ApiKey = ApiKey::ListOffsets;
}
