//! ApiVersions (18): which APIs and versions this broker serves.
//!
//! Versions: 0-4. A version above is answered in format 0 by the dispatcher (KIP-511). No features are finalized:
//! nothing here depends on one.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::{ApiVersionsRequest, ApiVersionsResponse};

use crate::context::Context;

pub(crate) fn handle(context: &Context<'_>, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let names_itself =
        is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version);
    if context.version >= 3 && !names_itself {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        };
    }
    ApiVersionsResponse::advertised()
}

/// Kafka's pattern for names and versions of client software: letters, digits, and inside also `-` and `.`
/// (`ApiVersionsRequest.SOFTWARE_NAME_VERSION_PATTERN`).
fn is_software_name(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().next_back())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for name in ["librdkafka", "2.0.2", "apache-kafka-java", "4.1.0", "x"] {
            assert!(is_software_name(name), "{name:?} was refused");
        }
        for name in ["", "-a", "a-", "a b", "a_b", "ä"] {
            assert!(!is_software_name(name), "{name:?} was accepted");
        }
    }
}
