//! DescribeLogDirs (key 35): describes the data directories and the sizes of what lies in them (KIP-113).
//!
//! Versions 1 to 4, flexible from 2.
//! Source: `DescribeLogDirsRequest.json` and `DescribeLogDirsResponse.json` of Apache Kafka 4.1.
//!
//! Version 3 adds an error for the request as a whole, 4 the size of the file system (KIP-827).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which partitions to describe.
    DescribeLogDirsRequest "1-4", flexible "2+" {
        /// The topics; null for all of them.
        topics: Option<Vec<DescribableLogDirTopic>>, "0+", nullable "0+";
    }

    /// Which partitions of one topic to describe.
    DescribableLogDirTopic {
        /// The topic's name.
        topic: Str, "0+";
        /// The partitions.
        partitions: Vec<i32>, "0+";
    }

    /// The data directories.
    DescribeLogDirsResponse "1-4", flexible "2+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What went wrong with the request, or 0.
        error_code: i16, "3+", ignorable true;
        /// The directories.
        results: Vec<DescribeLogDirsResult>, "0+";
    }

    /// A data directory.
    DescribeLogDirsResult {
        /// What is wrong with the directory, or 0.
        error_code: i16, "0+";
        /// Its absolute path.
        log_dir: Str, "0+";
        /// The topics in it.
        topics: Vec<DescribeLogDirsTopic>, "0+";
        /// Size of the directory's file system in bytes; -1 if unknown.
        total_bytes: i64, "4+", default -1, ignorable true;
        /// Bytes that may still be used there; -1 if unknown.
        usable_bytes: i64, "4+", default -1, ignorable true;
    }

    /// What lies there of one topic.
    DescribeLogDirsTopic {
        /// The topic's name.
        name: Str, "0+";
        /// The partitions.
        partitions: Vec<DescribeLogDirsPartition>, "0+";
    }

    /// What lies there of one partition.
    DescribeLogDirsPartition {
        /// The partition.
        partition_index: i32, "0+";
        /// Size of its segments in bytes.
        partition_size: i64, "0+";
        /// How many offsets the log is behind the partition's high watermark.
        offset_lag: i64, "0+";
        /// Whether the log is going to replace the one in use, by AlterReplicaLogDirs.
        is_future_key: bool, "0+";
    }
}

impl ApiRequest for DescribeLogDirsRequest {
    const KEY: ApiKey = ApiKey::DescribeLogDirs;
    type Response = DescribeLogDirsResponse;
}

impl ApiResponse for DescribeLogDirsResponse {
    const KEY: ApiKey = ApiKey::DescribeLogDirs;
}
