//! ListConfigResources (key 74): lists what has settings (KIP-1000, KIP-1142).
//!
//! Versions 0 to 1, all flexible.
//! Source: `ListConfigResourcesRequest.json` and `ListConfigResourcesResponse.json` of Apache Kafka 4.1.
//!
//! Version 0 lists the metrics of clients alone, under the name ListClientMetricsResources.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// What to list.
    ListConfigResourcesRequest "0-1", flexible "0+" {
        /// Which types of resources, as in DescribeConfigs; an empty list takes all types.
        resource_types: Vec<i8>, "1+";
    }

    /// What has settings.
    ListConfigResourcesResponse "0-1", flexible "0+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The resources.
        config_resources: Vec<ConfigResource>, "0+";
    }

    /// A resource that has settings.
    ConfigResource {
        /// Its name.
        resource_name: Str, "0+";
        /// What it is; in version 0 always metrics of clients.
        resource_type: i8, "1+", default 16, ignorable true;
    }
}

impl ApiRequest for ListConfigResourcesRequest {
    const KEY: ApiKey = ApiKey::ListConfigResources;
    type Response = ListConfigResourcesResponse;
}

impl ApiResponse for ListConfigResourcesResponse {
    const KEY: ApiKey = ApiKey::ListConfigResources;
}
