//! AlterConfigs (key 33): replaces the settings of topics and brokers (KIP-133).
//!
//! Versions 0 to 2, flexible from 2.
//! Source: `AlterConfigsRequest.json` and `AlterConfigsResponse.json` of Apache Kafka 4.1.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// The settings that resources are to have.
    AlterConfigsRequest "0-2", flexible "2+" {
        /// The changes, per resource.
        resources: Vec<AlterConfigsResource>, "0+";
        /// Whether to check the request and change nothing.
        validate_only: bool, "0+";
    }

    /// The settings that one resource is to have; what is not named loses its value.
    AlterConfigsResource {
        /// What the resource is, as in DescribeConfigs.
        resource_type: i8, "0+";
        /// Its name.
        resource_name: Str, "0+";
        /// The settings.
        configs: Vec<AlterableConfig>, "0+";
    }

    /// A setting and its value.
    AlterableConfig {
        /// The setting.
        name: Str, "0+";
        /// The value, or null.
        value: Option<Str>, "0+", nullable "0+";
    }

    /// What became of the changes.
    AlterConfigsResponse "0-2", flexible "2+" {
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

impl ApiRequest for AlterConfigsRequest {
    const KEY: ApiKey = ApiKey::AlterConfigs;
    type Response = AlterConfigsResponse;
}

impl ApiResponse for AlterConfigsResponse {
    const KEY: ApiKey = ApiKey::AlterConfigs;
}
