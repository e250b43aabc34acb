//! The life of one connection.

use anyhow::ensure;
use highwater_protocol::api::ApiVersionsRequest;
use highwater_protocol::encode_request;

use crate::harness::served::Served;
use crate::harness::wait;

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

#[test]
fn refused_connections_are_counted_by_the_reason() -> anyhow::Result<()> {
    let served = Served::start(&["--max-connections", "1"])?;
    // A look at the numbers needs the only place, which is given back a little after its connection has ended.
    let is_counted = |reason: &str, expected: fn(u64) -> bool| {
        let name = format!("highwater_connections_refused_total{{reason={reason:?}}}");
        wait::until("a look at the numbers", || Ok(served.metric(&name).is_ok_and(expected)))
    };
    is_counted("limit", |count| count == 0)?;
    wait::until("a connection that speaks TLS to be refused", || {
        let alert = served.connect()?.send_and_listen(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03")?;
        Ok(!alert.is_empty())
    })?;
    is_counted("protocol", |count| count == 1)?;

    let mut only = served.connect()?;
    wait::until("a place", || {
        let answered = only.call(0, &ApiVersionsRequest::default()).is_ok();
        if !answered {
            only = served.connect()?;
        }
        Ok(answered)
    })?;
    let second = served.connect()?.call(0, &ApiVersionsRequest::default());
    ensure!(second.is_err(), "a second connection is served: {second:?}");
    drop(only);

    is_counted("limit", |count| count > 0)
}
