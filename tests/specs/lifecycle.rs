//! Start and stop.

use crate::harness::broker::{Broker, Options};

#[test]
fn sigterm_ends_an_idle_broker_with_zero() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&dir.path().join("data")))?;

    let status = broker.terminate()?;

    assert_eq!(status.code(), Some(0), "{}", broker.log());
    Ok(())
}

#[test]
fn a_second_broker_on_the_same_data_is_refused_with_a_sentence() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let first = Broker::start(Options::new(&dir.path().join("data")))?;

    let second = Broker::start(Options::new(first.data())).map(|_| ());

    let refusal = format!("{:#}", second.expect_err("the second broker must not start"));
    assert!(refusal.contains("is in use"), "{refusal}");
    Ok(())
}
