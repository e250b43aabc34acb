//! IncrementalAlterConfigs (key 44): changes single settings of topics and brokers (KIP-339).
//!
//! Versions 0 to 1, flexible from 1.
//! Source: `IncrementalAlterConfigsRequest.json` and `IncrementalAlterConfigsResponse.json` of Apache Kafka 4.1.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which settings to change.
    IncrementalAlterConfigsRequest "0-1", flexible "1+" {
        /// The changes, per resource.
        resources: Vec<AlterConfigsResource>, "0+";
        /// Whether to check the request and change nothing.
        validate_only: bool, "0+";
    }

    /// Which settings of one resource to change.
    AlterConfigsResource {
        /// What the resource is, as in DescribeConfigs.
        resource_type: i8, "0+";
        /// Its name.
        resource_name: Str, "0+";
        /// The settings.
        configs: Vec<AlterableConfig>, "0+";
    }

    /// A change of one setting.
    AlterableConfig {
        /// The setting.
        name: Str, "0+";
        /// What to do: 0 set, 1 delete, 2 append to a list, 3 take from a list.
        config_operation: i8, "0+";
        /// The value; null for a deletion.
        value: Option<Str>, "0+", nullable "0+";
    }

    /// What became of the changes.
    IncrementalAlterConfigsResponse "0-1", flexible "1+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What happened, per resource.
        responses: Vec<AlterConfigsResourceResponse>, "0+";
    }

    /// What became of the changes to one resource.
    AlterConfigsResourceResponse {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
        /// What the resource is.
        resource_type: i8, "0+";
        /// Its name.
        resource_name: Str, "0+";
    }
}

impl ApiRequest for IncrementalAlterConfigsRequest {
    const KEY: ApiKey = ApiKey::IncrementalAlterConfigs;
    type Response = IncrementalAlterConfigsResponse;
}

impl ApiResponse for IncrementalAlterConfigsResponse {
    const KEY: ApiKey = ApiKey::IncrementalAlterConfigs;
}
