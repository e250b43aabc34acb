//! UpdateFeatures (57): sets levels of features, of which there are none.
//!
//! Versions: 0-2. ApiVersions lists no feature, so that each is refused by its name. From version 2 on the request
//! succeeds or fails as a whole.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::update_features::{
    UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

use crate::context::Context;
use crate::refusal::refuse;

/// The last version that answers feature by feature.
const RESULTS_VERSION_MAX: i16 = 1;

pub(crate) fn handle(context: &Context<'_>, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let refusals = request.feature_updates.into_iter().map(|update| {
        let message = format!(
            "feature {:?} cannot be at level {}: this broker has no features with levels",
            update.feature.as_str(),
            update.max_version_level
        );
        let (error_code, error_message) = refuse(ErrorCode::InvalidUpdateVersion, message).told();
        UpdatableFeatureResult { feature: update.feature, error_code, error_message }
    });
    let mut results: Vec<_> = refusals.collect();
    if context.version <= RESULTS_VERSION_MAX || results.is_empty() {
        return UpdateFeaturesResponse { results, ..UpdateFeaturesResponse::default() };
    }
    let first = results.swap_remove(0);
    UpdateFeaturesResponse {
        error_code: first.error_code,
        error_message: first.error_message,
        ..UpdateFeaturesResponse::default()
    }
}
