//! Metadata (key 3): names brokers, topics, partitions and their leaders.
//!
//! Versions 0 to 13, flexible from 9.
//! Source: `MetadataRequest.json` and `MetadataResponse.json` of Apache Kafka 4.1.
//!
//! In version 0 an empty list of topics means all of them; from version 1 null does. Topic ids stand in the
//! request from version 10 but may be used from 12 only. Version 13 adds an error for the whole answer.

use highwater_wire::{Str, Uuid, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which topics to describe.
    MetadataRequest "0-13", flexible "9+" {
        /// The topics asked about. None is all: null from version 1 on, an empty list in version 0.
        topics: Option<Vec<MetadataRequestTopic>>, "0+", nullable "1+", default Some(Vec::new());
        /// Whether the broker may create the topics that do not exist.
        allow_auto_topic_creation: bool, "4+", default true;
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool, "8-10";
        /// Whether to say what the client may do with each topic.
        include_topic_authorized_operations: bool, "8+";
    }

    /// A topic to describe.
    MetadataRequestTopic {
        /// The topic's id.
        topic_id: Uuid, "10+", ignorable true;
        /// The topic's name; null if it is asked for by id.
        name: Option<Str>, "0+", nullable "10+";
    }

    /// Brokers and topics.
    MetadataResponse "0-13", flexible "9+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "3+", ignorable true;
        /// The brokers that are alive.
        brokers: Vec<MetadataResponseBroker>, "0+";
        /// The cluster's id, or null.
        cluster_id: Option<Str>, "2+", nullable "2+", ignorable true;
        /// The broker to send administrative requests to, or -1.
        controller_id: i32, "1+", default -1, ignorable true;
        /// The topics asked about.
        topics: Vec<MetadataResponseTopic>, "0+";
        /// A bit per allowed operation on the cluster; `i32::MIN` if it was not asked for.
        cluster_authorized_operations: i32, "8-10", default i32::MIN;
        /// An error of the request as a whole, or 0.
        error_code: i16, "13+", ignorable true;
    }

    /// One broker.
    MetadataResponseBroker {
        /// The broker's id.
        node_id: i32, "0+";
        /// The host to connect to.
        host: Str, "0+";
        /// The port to connect to.
        port: i32, "0+";
        /// Where the broker stands, or null.
        rack: Option<Str>, "1+", nullable "1+", ignorable true;
    }

    /// One topic.
    MetadataResponseTopic {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The topic's name; null if it was asked for by an unknown id.
        name: Option<Str>, "0+", nullable "12+";
        /// The topic's id; zero if it was asked for by an unknown name.
        topic_id: Uuid, "10+", ignorable true;
        /// Whether the topic belongs to the broker itself.
        is_internal: bool, "1+", ignorable true;
        /// The topic's partitions.
        partitions: Vec<MetadataResponsePartition>, "0+";
        /// A bit per allowed operation on the topic; `i32::MIN` if it was not asked for.
        topic_authorized_operations: i32, "8+", default i32::MIN;
    }

    /// One partition.
    MetadataResponsePartition {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The partition.
        partition_index: i32, "0+";
        /// The leader's broker id, or -1.
        leader_id: i32, "0+";
        /// The leader's epoch, or -1 if unknown.
        leader_epoch: i32, "7+", default -1, ignorable true;
        /// The brokers that hold the partition.
        replica_nodes: Vec<i32>, "0+";
        /// Those of them that are in sync with the leader.
        isr_nodes: Vec<i32>, "0+";
        /// Those of them that are not reachable.
        offline_replicas: Vec<i32>, "5+", ignorable true;
    }
}

impl ApiRequest for MetadataRequest {
    const KEY: ApiKey = ApiKey::Metadata;
    type Response = MetadataResponse;
}

impl ApiResponse for MetadataResponse {
    const KEY: ApiKey = ApiKey::Metadata;
}
