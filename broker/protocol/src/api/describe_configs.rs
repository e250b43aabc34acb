//! DescribeConfigs (key 32): describes the settings of topics and brokers.
//!
//! Versions 1 to 4, flexible from 4.
//! Source: `DescribeConfigsRequest.json` and `DescribeConfigsResponse.json` of Apache Kafka 4.1.
//!
//! Version 1 adds sources and synonyms (KIP-226), 3 types and documentation (KIP-569).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which settings to describe.
    DescribeConfigsRequest "1-4", flexible "4+" {
        /// Whose settings.
        resources: Vec<DescribeConfigsResource>, "0+";
        /// Whether to name the settings from which a value is derived.
        include_synonyms: bool, "1+";
        /// Whether to explain each setting.
        include_documentation: bool, "3+";
    }

    /// Which settings of one resource.
    DescribeConfigsResource {
        /// What it is: 2 a topic, 4 a broker, 8 the loggers of a broker, 16 metrics of clients, 32 a group.
        resource_type: i8, "0+";
        /// Its name; a broker's is its id, or empty for what holds for all of them.
        resource_name: Str, "0+";
        /// The settings; null for all of them.
        configuration_keys: Option<Vec<Str>>, "0+", nullable "0+";
    }

    /// The settings.
    DescribeConfigsResponse "1-4", flexible "4+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// The settings, per resource.
        results: Vec<DescribeConfigsResult>, "0+";
    }

    /// The settings of one resource.
    DescribeConfigsResult {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
        /// What the resource is.
        resource_type: i8, "0+";
        /// Its name.
        resource_name: Str, "0+";
        /// Its settings.
        configs: Vec<DescribeConfigsResourceResult>, "0+";
    }

    /// A setting.
    DescribeConfigsResourceResult {
        /// The setting.
        name: Str, "0+";
        /// Its value, or null if it has none or the value is a secret.
        value: Option<Str>, "0+", nullable "0+";
        /// Whether it cannot be changed.
        read_only: bool, "0+";
        /// Where the value comes from (`DescribeConfigsResponse.ConfigSource`); -1 if unknown.
        config_source: i8, "1+", default -1, ignorable true;
        /// Whether the value is a secret.
        is_sensitive: bool, "0+";
        /// Every setting that could give the value, the one that does first.
        synonyms: Vec<DescribeConfigsSynonym>, "1+", ignorable true;
        /// The type of the value (`DescribeConfigsResponse.ConfigType`); 0 if unknown.
        config_type: i8, "3+", ignorable true;
        /// What the setting does, or null.
        documentation: Option<Str>, "3+", nullable "0+", ignorable true;
    }

    /// A setting from which another is derived.
    DescribeConfigsSynonym {
        /// The setting.
        name: Str, "1+";
        /// Its value, or null.
        value: Option<Str>, "1+", nullable "0+";
        /// Where the value comes from.
        source: i8, "1+";
    }
}

impl ApiRequest for DescribeConfigsRequest {
    const KEY: ApiKey = ApiKey::DescribeConfigs;
    type Response = DescribeConfigsResponse;
}

impl ApiResponse for DescribeConfigsResponse {
    const KEY: ApiKey = ApiKey::DescribeConfigs;
}
