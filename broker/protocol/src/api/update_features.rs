//! UpdateFeatures (key 57): sets the levels of features that the whole cluster agrees on (KIP-584).
//!
//! Versions 0 to 2, all flexible.
//! Source: `UpdateFeaturesRequest.json` and `UpdateFeaturesResponse.json` of Apache Kafka 4.1.
//!
//! Version 1 adds the type of the change (KIP-778), 2 drops the results per feature (KIP-1022).

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Which levels to set.
    UpdateFeaturesRequest "0-2", flexible "0+" {
        /// Milliseconds to wait until the levels are set.
        timeout_ms: i32, "0+", default 60000;
        /// The features.
        feature_updates: Vec<FeatureUpdateKey>, "0+";
        /// Whether to check the request and change nothing.
        validate_only: bool, "1+";
    }

    /// The level of one feature.
    FeatureUpdateKey {
        /// The feature.
        feature: Str, "0+";
        /// Its new level; below 1 to remove it.
        max_version_level: i16, "0+";
        /// Whether the level may fall.
        allow_downgrade: bool, "0";
        /// Which way the level may go: 1 up, 2 down without loss, 3 down with loss.
        upgrade_type: i8, "1+", default 1;
    }

    /// What became of the levels.
    UpdateFeaturesResponse "0-2", flexible "0+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+";
        /// What went wrong with the request, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
        /// What happened, per feature; up to version 1, later the request as a whole succeeds or fails.
        results: Vec<UpdatableFeatureResult>, "0-1", ignorable true;
    }

    /// What became of the level of one feature.
    UpdatableFeatureResult {
        /// The feature.
        feature: Str, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "0+", nullable "0+";
    }
}

impl ApiRequest for UpdateFeaturesRequest {
    const KEY: ApiKey = ApiKey::UpdateFeatures;
    type Response = UpdateFeaturesResponse;
}

impl ApiResponse for UpdateFeaturesResponse {
    const KEY: ApiKey = ApiKey::UpdateFeatures;
}
