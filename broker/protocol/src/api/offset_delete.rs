//! OffsetDelete (key 47): deletes offsets that a group has committed.
//!
//! Version 0, never flexible.
//! Source: `OffsetDeleteRequest.json` and `OffsetDeleteResponse.json` of Apache Kafka 4.1 (KIP-496).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Offsets to delete.
    OffsetDeleteRequest "0", flexible "none" {
        /// The group.
        group_id: Str, "0+";
        /// The offsets, per topic.
        topics: Vec<OffsetDeleteRequestTopic>, "0+";
    }

    /// Offsets of one topic.
    OffsetDeleteRequestTopic {
        /// The topic's name.
        name: Str, "0+";
        /// The partitions.
        partitions: Vec<OffsetDeleteRequestPartition>, "0+";
    }

    /// The offset of one partition.
    OffsetDeleteRequestPartition {
        /// The partition.
        partition_index: i32, "0+";
    }

    /// The offsets deleted.
    OffsetDeleteResponse "0", flexible "none" {
        /// An error of the request as a whole, or 0.
        error_code: i16, "0+";
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+", ignorable true;
        /// What happened, per topic.
        topics: Vec<OffsetDeleteResponseTopic>, "0+";
    }

    /// What happened to the offsets of one topic.
    OffsetDeleteResponseTopic {
        /// The topic's name.
        name: Str, "0+";
        /// What happened, per partition.
        partitions: Vec<OffsetDeleteResponsePartition>, "0+";
    }

    /// What happened to the offset of one partition.
    OffsetDeleteResponsePartition {
        /// The partition.
        partition_index: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
    }
}

impl ApiRequest for OffsetDeleteRequest {
    const KEY: ApiKey = ApiKey::OffsetDelete;
    type Response = OffsetDeleteResponse;
}

impl ApiResponse for OffsetDeleteResponse {
    const KEY: ApiKey = ApiKey::OffsetDelete;
}
