//! DescribeQuorum (key 55): describes who votes on a partition of the metadata (KIP-595).
//!
//! Versions 0 to 2, all flexible.
//! Source: `DescribeQuorumRequest.json` and `DescribeQuorumResponse.json` of Apache Kafka 4.1.
//!
//! Version 1 adds the times of the replicas (KIP-836), 2 sentences, directories and nodes (KIP-853).
//!
//! Kafka calls parts of the request and of the response `TopicData` and `PartitionData`: here those of the request
//! are in [`request`].

use highwater_wire::{Str, Uuid, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which partitions to describe.
    DescribeQuorumRequest "0-2", flexible "0+" {
        /// The topics.
        topics: Vec<request::TopicData>, "0+";
    }

    /// The partitions.
    DescribeQuorumResponse "0-2", flexible "0+" {
        /// What went wrong with the request, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "2+", nullable "2+", ignorable true;
        /// The partitions, per topic.
        topics: Vec<TopicData>, "0+";
        /// The nodes that vote or observe.
        nodes: Vec<Node>, "2+";
    }

    /// The partitions of one topic.
    TopicData {
        /// The topic's name.
        topic_name: Str, "0+";
        /// The partitions.
        partitions: Vec<PartitionData>, "0+";
    }

    /// A partition.
    PartitionData {
        /// The partition.
        partition_index: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "2+", nullable "2+", ignorable true;
        /// The node that leads it; -1 if unknown.
        leader_id: i32, "0+";
        /// The leader's epoch.
        leader_epoch: i32, "0+";
        /// The first offset that is not agreed upon.
        high_watermark: i64, "0+";
        /// The nodes that vote.
        current_voters: Vec<ReplicaState>, "0+";
        /// The nodes that follow without a vote.
        observers: Vec<ReplicaState>, "0+";
    }

    /// How far a node has come.
    ReplicaState {
        /// The node.
        replica_id: i32, "0+";
        /// The directory of its log.
        replica_directory_id: Uuid, "2+";
        /// The end of its log; -1 if unknown.
        log_end_offset: i64, "0+";
        /// When the node last fetched, in milliseconds since 1970 by the leader's clock; -1 for the leader
        /// and if unknown.
        last_fetch_timestamp: i64, "1+", default -1, ignorable true;
        /// When the leader had appended what the node fetched last, in milliseconds since 1970; the current
        /// time for the leader, -1 if unknown.
        last_caught_up_timestamp: i64, "1+", default -1, ignorable true;
    }

    /// A node that votes or observes.
    Node {
        /// The node.
        node_id: i32, "2+";
        /// Where it listens.
        listeners: Vec<Listener>, "2+";
    }

    /// Where a node listens.
    Listener {
        /// The listener's name.
        name: Str, "2+";
        /// The host.
        host: Str, "2+";
        /// The port.
        port: u16, "2+";
    }
}

/// The parts of the request that share their names with parts of the response.
pub mod request {
    use super::{Str, messages};

    messages! {
        /// Which partitions of one topic to describe.
        TopicData {
            /// The topic's name.
            topic_name: Str, "0+";
            /// The partitions.
            partitions: Vec<PartitionData>, "0+";
        }

        /// A partition to describe.
        PartitionData {
            /// The partition.
            partition_index: i32, "0+";
        }
    }
}

impl ApiRequest for DescribeQuorumRequest {
    const KEY: ApiKey = ApiKey::DescribeQuorum;
    type Response = DescribeQuorumResponse;
}

impl ApiResponse for DescribeQuorumResponse {
    const KEY: ApiKey = ApiKey::DescribeQuorum;
}
