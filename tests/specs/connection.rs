//! The life of one connection.

use anyhow::ensure;
use highwater_protocol::api::ApiVersionsRequest;
use highwater_protocol::encode_request;

use crate::harness::served::Served;

#[test]
fn a_client_that_has_sent_its_last_request_still_gets_its_answer() -> anyhow::Result<()> {
    let served = Served::start(&[])?;
    let request = encode_request(7, None, 0, &ApiVersionsRequest::default())?;

    for attempt in 0..50 {
        let answer = served.connect()?.exchange_bytes(&request)?;

        ensure!(answer.len() > 8, "attempt {attempt} is answered with {answer:?}");
    }
    Ok(())
}
