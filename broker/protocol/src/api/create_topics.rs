//! CreateTopics (key 19): creates topics.
//!
//! Versions 2 to 7, flexible from 5.
//! Source: `CreateTopicsRequest.json` and `CreateTopicsResponse.json` of Apache Kafka 4.1.
//!
//! Version 4 lets the broker choose partitions and replicas (-1, KIP-464), 5 returns the configs (KIP-525),
//! 7 the id.

use highwater_wire::{Str, Uuid, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Topics to create.
    CreateTopicsRequest "2-7", flexible "5+" {
        /// The topics to create.
        topics: Vec<CreatableTopic>, "0+";
        /// Milliseconds to wait until the topics exist.
        timeout_ms: i32, "0+", default 60000;
        /// Whether to check the request and create nothing.
        validate_only: bool, "1+";
    }

    /// A topic to create.
    CreatableTopic {
        /// The topic's name.
        name: Str, "0+";
        /// How many partitions; -1 for the broker's default or with `assignments`.
        num_partitions: i32, "0+";
        /// How many replicas; -1 for the broker's default or with `assignments`.
        replication_factor: i16, "0+";
        /// Which brokers hold which partition; empty to let the broker decide.
        assignments: Vec<CreatableReplicaAssignment>, "0+";
        /// Settings of the topic.
        configs: Vec<CreatableTopicConfig>, "0+";
    }

    /// The brokers of one partition.
    CreatableReplicaAssignment {
        /// The partition.
        partition_index: i32, "0+";
        /// The brokers that hold it.
        broker_ids: Vec<i32>, "0+";
    }

    /// A setting of a topic to create.
    CreatableTopicConfig {
        /// The setting.
        name: Str, "0+";
        /// Its value, or null.
        value: Option<Str>, "0+", nullable "0+";
    }

    /// The topics created.
    CreateTopicsResponse "2-7", flexible "5+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "2+", ignorable true;
        /// What happened, per topic.
        topics: Vec<CreatableTopicResult>, "0+";
    }

    /// A topic created, or why not.
    CreatableTopicResult {
        /// The topic's name.
        name: Str, "0+";
        /// The topic's id.
        topic_id: Uuid, "7+", ignorable true;
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "1+", nullable "0+", ignorable true;
        /// Why `configs` is missing, or 0.
        topic_config_error_code: i16, "5+", tag 0 "5+", ignorable true;
        /// How many partitions it has; -1 if unknown.
        num_partitions: i32, "5+", default -1, ignorable true;
        /// How many replicas each has; -1 if unknown.
        replication_factor: i16, "5+", default -1, ignorable true;
        /// The settings of the topic, or null.
        configs: Option<Vec<CreatableTopicConfigs>>, "5+", nullable "5+", ignorable true;
    }

    /// A setting of a topic created.
    CreatableTopicConfigs {
        /// The setting.
        name: Str, "5+";
        /// Its value, or null.
        value: Option<Str>, "5+", nullable "5+";
        /// Whether it cannot be changed.
        read_only: bool, "5+";
        /// Where the value comes from, as DescribeConfigs numbers it; -1 if unknown.
        config_source: i8, "5+", default -1, ignorable true;
        /// Whether the value is a secret.
        is_sensitive: bool, "5+";
    }
}

impl ApiRequest for CreateTopicsRequest {
    const KEY: ApiKey = ApiKey::CreateTopics;
    type Response = CreateTopicsResponse;
}

impl ApiResponse for CreateTopicsResponse {
    const KEY: ApiKey = ApiKey::CreateTopics;
}
