//! ListPartitionReassignments (key 46): lists the moves of replicas that go on (KIP-455).
//!
//! Version 0, flexible.
//! Source: `ListPartitionReassignmentsRequest.json` and `ListPartitionReassignmentsResponse.json` of Apache Kafka 4.1.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which moves to list.
    ListPartitionReassignmentsRequest "0", flexible "0+" {
        /// Milliseconds to wait for the list.
        timeout_ms: i32, "0+", default 60000;
        /// The topics; null for all of them.
        topics: Option<Vec<ListPartitionReassignmentsTopics>>, "0+", nullable "0+";
    }

    /// Which moves of one topic to list.
    ListPartitionReassignmentsTopics {
        /// The topic's name.
        name: Str, "0+";
        /// The partitions.
        partition_indexes: Vec<i32>, "0+";
    }

    /// The moves that go on.
    ListPartitionReassignmentsResponse "0", flexible "0+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What went wrong with the request, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
        /// The moves, per topic.
        topics: Vec<OngoingTopicReassignment>, "0+";
    }

    /// The moves that go on in one topic.
    OngoingTopicReassignment {
        /// The topic's name.
        name: Str, "0+";
        /// The moves, per partition.
        partitions: Vec<OngoingPartitionReassignment>, "0+";
    }

    /// The move of one partition.
    OngoingPartitionReassignment {
        /// The partition.
        partition_index: i32, "0+";
        /// The brokers that hold it.
        replicas: Vec<i32>, "0+";
        /// The brokers that are to hold it and do not yet.
        adding_replicas: Vec<i32>, "0+";
        /// The brokers that hold it and are to give it up.
        removing_replicas: Vec<i32>, "0+";
    }
}

impl ApiRequest for ListPartitionReassignmentsRequest {
    const KEY: ApiKey = ApiKey::ListPartitionReassignments;
    type Response = ListPartitionReassignmentsResponse;
}

impl ApiResponse for ListPartitionReassignmentsResponse {
    const KEY: ApiKey = ApiKey::ListPartitionReassignments;
}
