//! Segment files after kill -9, read without a broker: they hold what consumers read once it runs again. And what who
//! consumes is told of one that is damaged.

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::session::Session;
use crate::harness::metrics::metric;
use crate::harness::wait;

/// Kills a broker that several segments were produced to, while more is produced.
fn killed_under_load() -> anyhow::Result<Session> {
    let mut session = Session::start()?;
    session.succeeds("highwater topic create load -c segment.bytes=1048576")?;
    session.succeeds("seq 1 20000000 > numbers")?;
    let mut producer = session.command("highwater")?;
    producer.args(["produce", "load", "numbers", "--batch-bytes", "8000"]);
    let mut producer = producer.stderr(std::process::Stdio::null()).spawn()?;
    let produced = || metric(session.broker.address(), "highwater_produced_bytes_total");
    let loaded = wait::until("three segments of records", || Ok(produced()? > 3 << 20));

    session.broker.kill()?;

    let ended = producer.try_wait()?;
    producer.kill()?;
    producer.wait()?;
    loaded?;
    ensure!(ended.is_none(), "the producer had ended before the broker was killed: {ended:?}");
    Ok(session)
}

#[test]
fn segments_of_a_killed_broker_hold_what_consumers_read_after_its_restart() -> anyhow::Result<()> {
    let mut session = killed_under_load()?;

    // 3 stands for a batch that was being written; what is before it is printed.
    let offline = session.run("highwater segment cat data/load-0")?;
    ensure!(matches!(offline.code, Some(0 | 3)), "{:?}: {}", offline.code, offline.stderr);
    session.broker.restart()?;

    let consumed = session.succeeds("highwater consume load -o start -e")?;
    let numbers: Vec<&str> = consumed.text()?.lines().collect();
    ensure!(numbers.len() > 100_000, "only {} records", numbers.len());
    for (number, line) in (1..).zip(&numbers) {
        ensure!(line.parse() == Ok(number), "record {number} is {line:?}");
    }
    assert!(offline.stdout == consumed.stdout, "segment cat and consume differ");
    let online = session.succeeds("highwater segment cat data/load-0")?;
    assert!(online.stdout == consumed.stdout, "segment cat beside the broker differs");
    assert!(online.stderr.contains("may still change"), "{}", online.stderr);
    session.broker.terminate()?;
    let stopped = session.succeeds("highwater segment cat data/load-0")?;
    assert!(stopped.stdout == consumed.stdout, "segment cat after the broker differs");
    assert_eq!(stopped.stderr, "");
    Ok(())
}

#[test]
fn the_list_of_segments_covers_the_log_without_gaps() -> anyhow::Result<()> {
    let mut session = killed_under_load()?;
    session.broker.restart()?;
    let consumed = session.succeeds("highwater consume load -o start -e")?;
    let records = consumed.text()?.lines().count();
    session.broker.terminate()?;

    let segments = session.rows("highwater segment ls data --topic load --deep --output json")?;

    ensure!(segments.len() >= 3, "{} segments", segments.len());
    session.prints("highwater segment verify data --deep --output jsonl", "")?;
    let mut next = json!(0);
    for (index, segment) in segments.iter().enumerate() {
        let state = if index + 1 == segments.len() { "active" } else { "sealed" };
        assert_eq!((&segment["start"], &segment["state"]), (&next, &json!(state)), "{segment}");
        assert_eq!((&segment["crc"], &segment["codec"]), (&json!("ok"), &json!(["none"])), "{segment}");
        next = segment["end"].clone();
    }
    assert_eq!(next, json!(records));
    Ok(())
}

#[test]
fn who_consumes_what_is_lost_is_told_where_and_how_to_go_on() -> anyhow::Result<()> {
    let mut session = Session::start()?;
    for word in ["one", "two", "three"] {
        session.succeeds(&format!("echo {word} | highwater produce words"))?;
    }
    session.broker.terminate()?;
    let segment = session.directory().join("data/words-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment)?;
    let damaged = bytes.windows(3).position(|word| word == b"two").context("the record is in the file")?;
    bytes[damaged] ^= 1;
    std::fs::write(&segment, bytes)?;
    session.broker.restart()?;

    let lost =
        "words-0 has lost records from offset 1 on: a file of the broker is damaged there (CORRUPT_MESSAGE)";
    let onward = "highwater consume words -p 0 -o 2";
    let ran = session.fails("highwater consume words -e", 1, &[lost, onward])?;

    assert_eq!(ran.text()?, "one\n");
    session.prints(&format!("{onward} -e"), "three\n")?;
    Ok(())
}
