//! AlterPartitionReassignments (key 45): moves replicas to other brokers (KIP-455).
//!
//! Versions 0 to 1, all flexible.
//! Source: `AlterPartitionReassignmentsRequest.json` and `AlterPartitionReassignmentsResponse.json` of Apache Kafka 4.1.
//!
//! Version 1 adds whether the number of replicas may change (KIP-860).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Where replicas are to be.
    AlterPartitionReassignmentsRequest "0-1", flexible "0+" {
        /// Milliseconds to wait until the moves have begun.
        timeout_ms: i32, "0+", default 60000;
        /// Whether a partition may get another number of replicas.
        allow_replication_factor_change: bool, "1+", default true;
        /// The topics.
        topics: Vec<ReassignableTopic>, "0+";
    }

    /// Where the replicas of one topic are to be.
    ReassignableTopic {
        /// The topic's name.
        name: Str, "0+";
        /// The partitions.
        partitions: Vec<ReassignablePartition>, "0+";
    }

    /// Where the replicas of one partition are to be.
    ReassignablePartition {
        /// The partition.
        partition_index: i32, "0+";
        /// The brokers; null to cancel a move.
        replicas: Option<Vec<i32>>, "0+", nullable "0+";
    }

    /// What became of the moves.
    AlterPartitionReassignmentsResponse "0-1", flexible "0+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// Whether a partition could get another number of replicas.
        allow_replication_factor_change: bool, "1+", default true, ignorable true;
        /// What went wrong with the request, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
        /// What happened, per topic.
        responses: Vec<ReassignableTopicResponse>, "0+";
    }

    /// What became of the moves in one topic.
    ReassignableTopicResponse {
        /// The topic's name.
        name: Str, "0+";
        /// What happened, per partition.
        partitions: Vec<ReassignablePartitionResponse>, "0+";
    }

    /// What became of the move of one partition.
    ReassignablePartitionResponse {
        /// The partition.
        partition_index: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
    }
}

impl ApiRequest for AlterPartitionReassignmentsRequest {
    const KEY: ApiKey = ApiKey::AlterPartitionReassignments;
    type Response = AlterPartitionReassignmentsResponse;
}

impl ApiResponse for AlterPartitionReassignmentsResponse {
    const KEY: ApiKey = ApiKey::AlterPartitionReassignments;
}
