//! What `highwater produce` says while records do not get through: why, and at once.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, ensure};

use super::session::Session;

#[test]
fn produce_says_what_it_tries_again_while_it_does() -> anyhow::Result<()> {
    // More than any disk has: records are refused until there is space.
    let session = Session::start_with(&["--disk-reserve", "1000T"])?;
    session.succeeds("highwater topic create orders")?;
    session.succeeds("seq 1 3 > numbers")?;

    let mut producer = session.command("highwater")?;
    let mut producer = producer.args(["produce", "orders", "numbers"]).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    let read = BufReader::new(producer.stderr.take().context("stderr")?).read_line(&mut said);
    let ended = producer.try_wait()?;
    producer.kill()?;
    producer.wait()?;

    read?;
    ensure!(said.starts_with("orders-0: KAFKA_STORAGE_ERROR: "), "{said}");
    ensure!(said.contains("it is tried again for up to"), "{said}");
    ensure!(ended.is_none(), "it is no longer tried again: {ended:?}");
    Ok(())
}

#[test]
fn a_producer_of_a_read_only_broker_is_told_so() -> anyhow::Result<()> {
    let mut session = Session::start()?;
    session.succeeds("seq 1 3 > numbers")?;
    session.succeeds("highwater produce orders numbers")?;
    session.broker.terminate()?;
    std::fs::remove_dir_all(session.broker.data().join("__cluster_metadata-0"))?;
    session.broker.restart()?;

    session.fails("highwater produce orders numbers", 1, &["POLICY_VIOLATION", "read-only", "/readyz"])?;

    let log = session.broker.log();
    let refused = log.lines().find(|line| line.contains("refused a producer id"));
    let refused = refused.with_context(|| format!("the log says nothing of it:\n{log}"))?;
    ensure!(refused.contains("The broker is read-only"), "{refused}");
    Ok(())
}
