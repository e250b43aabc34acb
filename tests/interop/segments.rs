//! Apache Kafka's `kafka-dump-log` finds nothing wrong with our files, after a kill and after a stop.

use std::fs;
use std::path::Path;

use crate::harness::broker::{Broker, Options};
use crate::harness::clients::{Client, Running};
use crate::harness::dump_log::{self, segment_files};
use crate::harness::skip::or_skip;
use crate::harness::wait;
use crate::harness::wire::create_topic_with;

use super::lines;

/// Small, so that a run of a few seconds has sealed segments and an active one.
const SEGMENT_BYTES: u64 = 1 << 20;

#[test]
fn kafka_dump_log_finds_our_files_clean_after_a_kill_and_after_a_stop() -> anyhow::Result<()> {
    if or_skip(dump_log::install())?.is_none() || or_skip(Client::Confluent.install())?.is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&dir.path().join("data")))?;
    let bytes = SEGMENT_BYTES.to_string();
    create_topic_with(broker.address(), "lines", 1, &[("segment.bytes", &bytes)])?;
    let partition = broker.data().join("lines-0");
    let load = produce_lines(&broker, dir.path())?;
    wait::until("four segments", || {
        Ok(segment_files(&partition, &["log"]).is_ok_and(|files| files.len() > 4))
    })?;

    broker.kill()?;
    drop(load);

    // A write that the kill cut short leaves part of a batch, which the next start drops. Nothing else is odd.
    let raw = dump_log::deep(&segment_files(&partition, &["log"])?)?;
    let complaints = raw.complaints();
    assert!(complaints.iter().all(|line| line.contains("invalid bytes at the end")), "{complaints:#?}");

    broker.restart()?;
    let read = count_read(&broker, dir.path())?;
    broker.kill()?;
    assert_clean(&partition, read)?;

    broker.restart()?;
    assert!(broker.terminate()?.success());
    assert_clean(&partition, read)
}

#[test]
fn kafka_dump_log_complains_of_a_log_and_an_index_that_disagree() -> anyhow::Result<()> {
    if or_skip(dump_log::install())?.is_none() || or_skip(Client::Confluent.install())?.is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&dir.path().join("data")))?;
    produce_lines(&broker, dir.path())?.finish()?;
    assert!(broker.terminate()?.success());
    let partition = broker.data().join("lines-0");
    let files = segment_files(&partition, &["log", "index", "timeindex"])?;
    let index = segment_files(&partition, &["index"])?.remove(0);

    // An entry is a relative offset and a position, four bytes each: the first position moves by one byte.
    let mut bytes = fs::read(&index)?;
    bytes[7] ^= 1;
    fs::write(&index, bytes)?;

    assert_ne!(dump_log::deep(&files)?.complaints(), Vec::<&str>::new());
    Ok(())
}

fn produce_lines(broker: &Broker, directory: &Path) -> anyhow::Result<Running> {
    let files = lines::files(directory, 1)?;
    let mut command = Client::Confluent.command().map_err(|why| anyhow::anyhow!("{why:?}"))?;
    command.args(["produce", &broker.bootstrap(), "lz4", "lines"]).args(files);
    Running::spawn(command)
}

/// How many records a consumer gets.
fn count_read(broker: &Broker, directory: &Path) -> anyhow::Result<usize> {
    let read = Client::Confluent.consume(&broker.bootstrap(), "lines", 1, &directory.join("read"))?;
    Ok(read.concat().iter().filter(|byte| **byte == b'\n').count())
}

/// The log, its indexes, and the two together, are as Kafka wants them, and hold what a consumer reads.
fn assert_clean(partition: &Path, records: usize) -> anyhow::Result<()> {
    let files = segment_files(partition, &["log", "index", "timeindex"])?;
    let deep = dump_log::deep(&files)?;
    assert_eq!(deep.complaints(), Vec::<&str>::new());
    assert_eq!(deep.records(), records);

    let indexes = segment_files(partition, &["index", "timeindex"])?;
    let sanity = dump_log::sanity(&indexes)?;
    assert_eq!(sanity.complaints(), Vec::<&str>::new());
    assert_eq!(sanity.sane_indexes(), indexes.len());
    Ok(())
}
