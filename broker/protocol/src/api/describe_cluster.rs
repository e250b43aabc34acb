//! DescribeCluster (key 60): describes the brokers (KIP-700).
//!
//! Versions 0 to 2, all flexible.
//! Source: `DescribeClusterRequest.json` and `DescribeClusterResponse.json` of Apache Kafka 4.1.
//!
//! Version 1 adds the type of the endpoint (KIP-919), 2 the brokers that are fenced (KIP-1073).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// What to describe.
    DescribeClusterRequest "0-2", flexible "0+" {
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool, "0+";
        /// Which nodes to describe: 1 brokers, 2 controllers.
        endpoint_type: i8, "1+", default 1;
        /// Whether to include brokers that serve no clients.
        include_fenced_brokers: bool, "2+";
    }

    /// The nodes.
    DescribeClusterResponse "0-2", flexible "0+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
        /// Which nodes are described: 1 brokers, 2 controllers.
        endpoint_type: i8, "1+", default 1;
        /// The id of the cluster.
        cluster_id: Str, "0+";
        /// The node that administers the cluster; -1 if unknown.
        controller_id: i32, "0+", default -1;
        /// The nodes.
        brokers: Vec<DescribeClusterBroker>, "0+";
        /// Bits of what the client may do; `i32::MIN` if not asked for.
        cluster_authorized_operations: i32, "0+", default i32::MIN;
    }

    /// A node.
    DescribeClusterBroker {
        /// The node.
        broker_id: i32, "0+";
        /// The host.
        host: Str, "0+";
        /// The port.
        port: i32, "0+";
        /// The rack, or null.
        rack: Option<Str>, "0+", nullable "0+";
        /// Whether it serves no clients.
        is_fenced: bool, "2+";
    }
}

impl ApiRequest for DescribeClusterRequest {
    const KEY: ApiKey = ApiKey::DescribeCluster;
    type Response = DescribeClusterResponse;
}

impl ApiResponse for DescribeClusterResponse {
    const KEY: ApiKey = ApiKey::DescribeCluster;
}
