//! DeleteRecords (key 21): moves where partitions start (KIP-107).
//!
//! Versions 0 to 2, flexible from 2.
//! Source: `DeleteRecordsRequest.json` and `DeleteRecordsResponse.json` of Apache Kafka 4.1.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Up to where to delete.
    DeleteRecordsRequest "0-2", flexible "2+" {
        /// The topics to delete from.
        topics: Vec<DeleteRecordsTopic>, "0+";
        /// Milliseconds to wait until the records are gone.
        timeout_ms: i32, "0+";
    }

    /// Up to where to delete in one topic.
    DeleteRecordsTopic {
        /// The topic's name.
        name: Str, "0+";
        /// The partitions to delete from.
        partitions: Vec<DeleteRecordsPartition>, "0+";
    }

    /// Up to where to delete in one partition.
    DeleteRecordsPartition {
        /// The partition.
        partition_index: i32, "0+";
        /// The first offset to keep; -1 for the high watermark.
        offset: i64, "0+";
    }

    /// What was deleted.
    DeleteRecordsResponse "0-2", flexible "2+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What happened, per topic.
        topics: Vec<DeleteRecordsTopicResult>, "0+";
    }

    /// What was deleted in one topic.
    DeleteRecordsTopicResult {
        /// The topic's name.
        name: Str, "0+";
        /// What happened, per partition.
        partitions: Vec<DeleteRecordsPartitionResult>, "0+";
    }

    /// What was deleted in one partition.
    DeleteRecordsPartitionResult {
        /// The partition.
        partition_index: i32, "0+";
        /// The lowest offset that any replica still has.
        low_watermark: i64, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
    }
}

impl ApiRequest for DeleteRecordsRequest {
    const KEY: ApiKey = ApiKey::DeleteRecords;
    type Response = DeleteRecordsResponse;
}

impl ApiResponse for DeleteRecordsResponse {
    const KEY: ApiKey = ApiKey::DeleteRecords;
}
