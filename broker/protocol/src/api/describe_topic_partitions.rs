//! DescribeTopicPartitions (key 75): describes partitions, page by page (KIP-966).
//!
//! Version 0, flexible.
//! Source: `DescribeTopicPartitionsRequest.json` and `DescribeTopicPartitionsResponse.json` of Apache Kafka 4.1.

use highwater_wire::{Str, Uuid, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// What to describe.
    DescribeTopicPartitionsRequest "0", flexible "0+" {
        /// The topics; an empty list takes all of them.
        topics: Vec<TopicRequest>, "0+";
        /// Most partitions that the response may have.
        response_partition_limit: i32, "0+", default 2000;
        /// Where to begin; null at the first topic.
        cursor: Option<Cursor>, "0+", nullable "0+";
    }

    /// A topic to describe.
    TopicRequest {
        /// The topic's name.
        name: Str, "0+";
    }

    /// A place in the list of all partitions.
    Cursor {
        /// The topic's name.
        topic_name: Str, "0+";
        /// The partition.
        partition_index: i32, "0+";
    }

    /// The topics.
    DescribeTopicPartitionsResponse "0", flexible "0+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+", ignorable true;
        /// The topics.
        topics: Vec<DescribeTopicPartitionsResponseTopic>, "0+";
        /// Where the next response begins; null if this is the last one.
        next_cursor: Option<Cursor>, "0+", nullable "0+";
    }

    /// A topic.
    DescribeTopicPartitionsResponseTopic {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The topic's name, or null.
        name: Option<Str>, "0+", nullable "0+";
        /// The topic's id.
        topic_id: Uuid, "0+", ignorable true;
        /// Whether the broker keeps its own records there.
        is_internal: bool, "0+", ignorable true;
        /// The partitions.
        partitions: Vec<DescribeTopicPartitionsResponsePartition>, "0+";
        /// Bits of what the client may do; `i32::MIN` if unknown.
        topic_authorized_operations: i32, "0+", default i32::MIN;
    }

    /// A partition.
    DescribeTopicPartitionsResponsePartition {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The partition.
        partition_index: i32, "0+";
        /// The broker that leads it.
        leader_id: i32, "0+";
        /// The leader's epoch; -1 if unknown.
        leader_epoch: i32, "0+", default -1, ignorable true;
        /// The brokers that hold it.
        replica_nodes: Vec<i32>, "0+";
        /// The brokers that are in sync with the leader.
        isr_nodes: Vec<i32>, "0+";
        /// The brokers that may be elected though they are not in sync, or null.
        eligible_leader_replicas: Option<Vec<i32>>, "0+", nullable "0+";
        /// The brokers that could be elected last, or null.
        last_known_elr: Option<Vec<i32>>, "0+", nullable "0+";
        /// The brokers that hold it and are offline.
        offline_replicas: Vec<i32>, "0+", ignorable true;
    }
}

impl ApiRequest for DescribeTopicPartitionsRequest {
    const KEY: ApiKey = ApiKey::DescribeTopicPartitions;
    type Response = DescribeTopicPartitionsResponse;
}

impl ApiResponse for DescribeTopicPartitionsResponse {
    const KEY: ApiKey = ApiKey::DescribeTopicPartitions;
}
