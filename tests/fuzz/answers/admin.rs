//! The error codes in the answers to administrators.

use anyhow::bail;
use highwater_protocol::ApiKey;
use highwater_protocol::api::{AlterClientQuotasResponse, DescribeClientQuotasResponse};

use super::Body;

/// Decodes the answer to its last byte; the error codes in it.
pub(super) fn codes_of(key: ApiKey, body: Body) -> anyhow::Result<Vec<i16>> {
    Ok(match key {
        ApiKey::DescribeClientQuotas => vec![body.decode::<DescribeClientQuotasResponse>()?.error_code],
        ApiKey::AlterClientQuotas => {
            let response = body.decode::<AlterClientQuotasResponse>()?;
            response.entries.iter().map(|entry| entry.error_code).collect()
        }
        key => bail!("nothing here reads the answers of {key}"),
    })
}
