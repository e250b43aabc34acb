//! ElectLeaders (key 43): elects leaders of partitions (KIP-460).
//!
//! Versions 0 to 2, flexible from 2.
//! Source: `ElectLeadersRequest.json` and `ElectLeadersResponse.json` of Apache Kafka 4.1.
//!
//! Version 1 adds the type of election; version 0 elects preferred leaders.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// For which partitions to elect.
    ElectLeadersRequest "0-2", flexible "2+" {
        /// Which replica to elect: 0 the preferred one, 1 any that lives if none is in sync.
        election_type: i8, "1+";
        /// The topics; null for all of them.
        topic_partitions: Option<Vec<TopicPartitions>>, "0+", nullable "0+";
        /// Milliseconds to wait until the leaders are elected.
        timeout_ms: i32, "0+", default 60000;
    }

    /// For which partitions of one topic to elect.
    TopicPartitions {
        /// The topic's name.
        topic: Str, "0+";
        /// The partitions.
        partitions: Vec<i32>, "0+";
    }

    /// The elections.
    ElectLeadersResponse "0-2", flexible "2+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What went wrong with the request, or 0.
        error_code: i16, "1+";
        /// What happened, per topic.
        replica_election_results: Vec<ReplicaElectionResult>, "0+";
    }

    /// The elections for one topic.
    ReplicaElectionResult {
        /// The topic's name.
        topic: Str, "0+";
        /// What happened, per partition.
        partition_result: Vec<PartitionResult>, "0+";
    }

    /// The election for one partition.
    PartitionResult {
        /// The partition.
        partition_id: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
    }
}

impl ApiRequest for ElectLeadersRequest {
    const KEY: ApiKey = ApiKey::ElectLeaders;
    type Response = ElectLeadersResponse;
}

impl ApiResponse for ElectLeadersResponse {
    const KEY: ApiKey = ApiKey::ElectLeaders;
}
