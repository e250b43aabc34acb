//! CreatePartitions (key 37): adds partitions to topics (KIP-195).
//!
//! Versions 0 to 3, flexible from 2.
//! Source: `CreatePartitionsRequest.json` and `CreatePartitionsResponse.json` of Apache Kafka 4.1.
//!
//! In version 3, brokers may answer THROTTLING_QUOTA_EXCEEDED (KIP-599).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// How many partitions topics are to have.
    CreatePartitionsRequest "0-3", flexible "2+" {
        /// The topics.
        topics: Vec<CreatePartitionsTopic>, "0+";
        /// Milliseconds to wait until the partitions exist.
        timeout_ms: i32, "0+";
        /// Whether to check the request and create nothing.
        validate_only: bool, "0+";
    }

    /// How many partitions one topic is to have.
    CreatePartitionsTopic {
        /// The topic's name.
        name: Str, "0+";
        /// How many partitions it is to have, with those that exist.
        count: i32, "0+";
        /// Which brokers hold the new partitions; null to let the broker decide.
        assignments: Option<Vec<CreatePartitionsAssignment>>, "0+", nullable "0+";
    }

    /// The brokers of one new partition.
    CreatePartitionsAssignment {
        /// The brokers that hold it.
        broker_ids: Vec<i32>, "0+";
    }

    /// The partitions created.
    CreatePartitionsResponse "0-3", flexible "2+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What happened, per topic.
        results: Vec<CreatePartitionsTopicResult>, "0+";
    }

    /// The partitions created in one topic, or why not.
    CreatePartitionsTopicResult {
        /// The topic's name.
        name: Str, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
    }
}

impl ApiRequest for CreatePartitionsRequest {
    const KEY: ApiKey = ApiKey::CreatePartitions;
    type Response = CreatePartitionsResponse;
}

impl ApiResponse for CreatePartitionsResponse {
    const KEY: ApiKey = ApiKey::CreatePartitions;
}
