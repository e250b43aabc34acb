//! What `highwater produce` says while records do not get through: why, and at once.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, ensure};

use super::session::Session;

/// The first `lines` that `highwater produce orders numbers` says, while it goes on trying.
fn says_first(session: &Session, lines: usize) -> anyhow::Result<String> {
    session.succeeds("seq 1 3 > numbers")?;
    let mut producer = session.command("highwater")?;
    let mut producer = producer.args(["produce", "orders", "numbers"]).stderr(Stdio::piped()).spawn()?;
    let stderr = BufReader::new(producer.stderr.take().context("stderr")?);
    let said: Result<Vec<String>, _> = stderr.lines().take(lines).collect();
    let ended = producer.try_wait()?;
    producer.kill()?;
    producer.wait()?;

    ensure!(ended.is_none(), "it is no longer tried again: {ended:?}");
    Ok(said?.join("\n"))
}

#[test]
fn produce_says_what_it_tries_again_while_it_does() -> anyhow::Result<()> {
    // More than any disk has: records are refused until there is space.
    let session = Session::start_with(&["--disk-reserve", "1000T"])?;
    session.succeeds("highwater topic create orders")?;

    let said = says_first(&session, 1)?;

    ensure!(said.starts_with("orders-0: KAFKA_STORAGE_ERROR: "), "{said}");
    ensure!(said.contains("it is tried again for up to"), "{said}");
    Ok(())
}

#[test]
fn a_producer_to_a_partition_out_of_service_is_told_where_to_look() -> anyhow::Result<()> {
    let mut session = Session::start()?;
    session.succeeds("echo 0 | highwater produce orders")?;
    session.broker.terminate()?;
    // The directory of another topic: its log is not opened.
    let other = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n";
    std::fs::write(session.broker.data().join("orders-0/partition.metadata"), other)?;
    session.broker.restart()?;

    let said = says_first(&session, 3)?;

    ensure!(said.starts_with("orders-0: NOT_LEADER_OR_FOLLOWER; it is tried again for up to"), "{said}");
    for sentence in ["the broker does not serve the partition", "/readyz", "highwater segment verify"] {
        ensure!(said.contains(sentence), "{said}");
    }
    ensure!(session.broker.log().contains("left over from another topic"), "{}", session.broker.log());
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
