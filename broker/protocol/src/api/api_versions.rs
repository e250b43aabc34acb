//! ApiVersions (key 18): lists the APIs and versions that the broker serves.
//!
//! Versions 0 to 4, flexible from 3.
//! Source: `ApiVersionsRequest.json` and `ApiVersionsResponse.json` of Apache Kafka 4.1.
//!
//! The response has header version 0 in every version (KIP-511). A request of an unknown version is not
//! decoded; it is answered with [`ApiVersionsResponse::unsupported`] in version 0. Version 4 lets a
//! feature's lowest version be 0 (KAFKA-17011).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse, ErrorCode};

messages! {
    /// Who asks which APIs there are.
    ApiVersionsRequest "0-4", flexible "3+" {
        /// The client library's name.
        client_software_name: Str, "3+", ignorable true;
        /// The client library's version.
        client_software_version: Str, "3+", ignorable true;
    }

    /// The APIs there are.
    ApiVersionsResponse "0-4", flexible "3+" {
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The APIs and their versions.
        api_keys: Vec<ApiVersion>, "0+";
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// Features that the broker supports. Up to version 3 without those whose lowest version is 0.
        supported_features: Vec<SupportedFeatureKey>, "3+", tag 0 "3+", ignorable true;
        /// The epoch of `finalized_features`, or -1 if unknown.
        finalized_features_epoch: i64, "3+", tag 1 "3+", default -1, ignorable true;
        /// Features in force in the whole cluster.
        finalized_features: Vec<FinalizedFeatureKey>, "3+", tag 2 "3+", ignorable true;
        /// Whether the controller can migrate from ZooKeeper.
        zk_migration_ready: bool, "3+", tag 3 "3+", ignorable true;
    }

    /// An API and its versions.
    ApiVersion {
        /// The API.
        api_key: i16, "0+";
        /// The lowest version.
        min_version: i16, "0+";
        /// The highest version.
        max_version: i16, "0+";
    }

    /// A feature that the broker supports.
    SupportedFeatureKey {
        /// The feature.
        name: Str, "3+";
        /// The lowest version.
        min_version: i16, "3+";
        /// The highest version.
        max_version: i16, "3+";
    }

    /// A feature in force.
    FinalizedFeatureKey {
        /// The feature.
        name: Str, "3+";
        /// The highest level in force.
        max_version_level: i16, "3+";
        /// The lowest level in force.
        min_version_level: i16, "3+";
    }
}

impl ApiRequest for ApiVersionsRequest {
    const KEY: ApiKey = ApiKey::ApiVersions;
    type Response = ApiVersionsResponse;
}

impl ApiResponse for ApiVersionsResponse {
    const KEY: ApiKey = ApiKey::ApiVersions;
}

impl ApiVersionsResponse {
    /// The answer to an ApiVersions request of a version that is not served, to be sent in version 0: the
    /// error, and the versions in which the client may ask again (KIP-511).
    pub fn unsupported() -> Self {
        let served = ApiKey::ApiVersions.advertised();
        let own = ApiVersion {
            api_key: ApiKey::ApiVersions.code(),
            min_version: served.min(),
            max_version: served.max(),
        };
        Self { error_code: ErrorCode::UnsupportedVersion.code(), api_keys: vec![own], ..Self::default() }
    }

    /// Every API of this crate in the versions to advertise.
    pub fn advertised() -> Self {
        let api_keys = ApiKey::ALL.iter().map(|key| ApiVersion {
            api_key: key.code(),
            min_version: key.advertised().min(),
            max_version: key.advertised().max(),
        });
        Self { api_keys: api_keys.collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode_response;

    #[test]
    fn the_answer_to_an_unknown_version_has_kafkas_bytes() {
        let encoded = encode_response(7, 0, &ApiVersionsResponse::unsupported()).unwrap();

        // Size, correlation id, error 35, one key: 18 from 0 to 4.
        let expected = b"\x00\x00\x00\x10\x00\x00\x00\x07\x00\x23\x00\x00\x00\x01\x00\x12\x00\x00\x00\x04";
        assert_eq!(&encoded.bytes[..], expected);
    }
}
