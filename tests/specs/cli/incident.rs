//! An incident from end to end, as `broker/docs/incident.md` tells it: a sealed segment is damaged under a stopped broker,
//! found, explained, repaired in place, served again, and the repair undone.

use std::ops::Range;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::session::Session;
use crate::harness::metrics::metric;
use crate::harness::wait;

const RECORDS: i64 = 300_000;

/// The numbers that a consumer gets of the whole topic.
fn consumed(session: &Session) -> anyhow::Result<Vec<i64>> {
    let output = session.succeeds("highwater consume orders -o start -e")?;
    output.text()?.lines().map(|line| Ok(line.parse()?)).collect()
}

/// The offsets that a plan says are lost, and the file that they are in.
fn lost(plan: &[u8]) -> anyhow::Result<(Range<i64>, String)> {
    let rows: Vec<Value> = serde_json::from_slice(plan)?;
    let skipped: Vec<_> = rows.iter().filter(|row| row["action"] == "skip").collect();
    let [row] = skipped.as_slice() else { anyhow::bail!("not one batch is bad: {rows:?}") };
    let offset = |name: &str| row[name].as_i64().with_context(|| format!("{name} of {row}"));
    Ok((offset("from_offset")?..offset("to_offset")?, row["file"].to_string()))
}

#[test]
fn a_damaged_segment_is_found_explained_repaired_served_and_put_back() -> anyhow::Result<()> {
    let mut session = Session::start()?;
    session.succeeds("highwater topic create orders -c segment.bytes=1048576")?;
    session.succeeds(&format!("seq 0 {} | highwater produce orders --batch-bytes 8000", RECORDS - 1))?;
    session.broker.terminate()?;
    let mut logs: Vec<_> = std::fs::read_dir(session.directory().join("data/orders-0"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    ensure!(logs.len() >= 3, "only {} segments", logs.len());
    let mut bytes = std::fs::read(&logs[1])?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&logs[1], &bytes)?;

    // Found: a consumer is told, a metric counts, and what is not damaged is served.
    session.broker.restart()?;
    let stopped = session.run("highwater consume orders -o start -e")?;
    assert_ne!(stopped.code, Some(0), "{}", stopped.stderr);
    wait::until("the loss to be counted", || {
        Ok(metric(session.broker.address(), "highwater_quarantined_ranges")? == 1)
    })?;
    let refused = session.run("highwater segment repair data/orders-0 --in-place --yes")?;
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("stop it first"), "{}", refused.stderr);

    // Explained: the fault and its fix are named, the plan says which offsets are lost and changes nothing.
    session.broker.terminate()?;
    let verified = session.run("highwater segment verify data/orders-0")?;
    assert_eq!(verified.code, Some(3), "{}", verified.stderr);
    let stem = logs[1].file_stem().and_then(|stem| stem.to_str()).unwrap_or("-");
    let is_told =
        |line: &str| line.starts_with("error") && line.contains(stem) && line.contains("segment repair");
    ensure!(verified.text()?.lines().any(is_told), "{}", verified.text()?);
    let plan = session.run("highwater segment repair data/orders-0 --output json")?;
    assert_eq!(plan.code, Some(3), "{}", plan.stderr);
    let (lost, file) = lost(&plan.stdout)?;
    assert!(file.contains(stem), "{file}");
    assert!(std::fs::read(&logs[1])? == bytes, "a plan changes nothing");

    // Repaired: beside the originals, which stay.
    let repaired = session.succeeds("highwater segment repair data/orders-0 --in-place --yes")?;
    let undo = repaired.stderr.lines().find_map(|line| line.split_once("to undo: ")).context("a way back")?.1;
    let again = session.run("highwater segment repair data/orders-0")?;
    assert_eq!(again.code, Some(0), "{}", again.stderr);

    // Served: all but what is lost, without a stop.
    session.broker.restart()?;
    let expected: Vec<i64> = (0..RECORDS).filter(|number| !lost.contains(number)).collect();
    assert!(consumed(&session)? == expected, "all but {lost:?} is served");
    wait::until("the loss to be forgotten", || {
        Ok(metric(session.broker.address(), "highwater_quarantined_ranges")? == 0)
    })?;
    wait::until("the log to say so", || Ok(session.broker.log().contains("are so no longer")))?;
    session.succeeds("echo after | highwater produce orders")?;
    session.broker.terminate()?;

    // Put back, with what was appended since.
    session.succeeds(undo)?;
    assert!(std::fs::read(&logs[1])? == bytes, "the original is back");
    session.broker.restart()?;
    let last = session.succeeds("highwater consume orders -o -1 -e")?;
    assert_eq!(last.text()?, "after\n");
    Ok(())
}
