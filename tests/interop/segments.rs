//! Our files as tools see them, after a kill and after a stop: `highwater segment cat` prints what a consumer reads,
//! and Apache Kafka's `kafka-dump-log` finds nothing wrong.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use highwater_record::BatchHeader;

use crate::harness::broker::{Broker, Options, binary};
use crate::harness::clients::{Client, Running};
use crate::harness::dump_log::{self, segment_files};
use crate::harness::skip::or_skip;
use crate::harness::wait;
use crate::harness::wire::create_topic_with;

use super::lines;

/// Small, so that a run of a few seconds has sealed segments and an active one.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Where in a log there is the first record of the first batch.
const BYTE_IN_A_RECORD: usize = 100;

#[test]
fn tools_find_our_files_clean_after_a_kill_and_after_a_stop() -> anyhow::Result<()> {
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
    let printed = segment_cat(&partition)?.stdout;
    let raw = dump_log::deep(&segment_files(&partition, &["log"])?)?;
    let complaints = raw.complaints();
    assert!(complaints.iter().all(|line| line.contains("invalid bytes at the end")), "{complaints:#?}");

    broker.restart()?;
    let read = Client::Confluent.consume(&broker.bootstrap(), "lines", 1, &dir.path().join("read"))?.concat();
    assert_same_lines(&printed, &read);
    broker.kill()?;
    assert_clean(&partition, &read)?;

    broker.restart()?;
    assert!(broker.terminate()?.success());
    assert_clean(&partition, &read)?;
    assert_sealed_segments_are_indexed(&partition)
}

#[test]
fn kafka_dump_log_complains_of_a_byte_that_is_wrong() -> anyhow::Result<()> {
    if or_skip(dump_log::install())?.is_none() || or_skip(Client::Confluent.install())?.is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&dir.path().join("data")))?;
    produce_lines(&broker, dir.path())?.finish()?;
    assert!(broker.terminate()?.success());
    let partition = broker.data().join("lines-0");
    let files = segment_files(&partition, &["log", "index", "timeindex"])?;
    assert_eq!(dump_log::deep(&files)?.complaints(), Vec::<&str>::new());

    for (extension, at, complaint) in [
        // An entry of the index is a relative offset and a position, four bytes each.
        ("index", 3, "Mismatches in"),
        ("index", 7, "Exception"),
        // An entry of the time index is a timestamp of eight bytes and a relative offset.
        ("timeindex", 7, "timestamp mismatch"),
        ("log", BYTE_IN_A_RECORD, "isvalid: false"),
    ] {
        let file = segment_files(&partition, &[extension])?.remove(0);
        let sound = fs::read(&file)?;
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes)?;
        let dump = dump_log::deep(&files)?;
        let complaints = dump.complaints();
        assert!(complaints.iter().any(|line| line.contains(complaint)), "{extension} {at}: {complaints:?}");
        fs::write(&file, sound)?;
    }
    Ok(())
}

fn produce_lines(broker: &Broker, directory: &Path) -> anyhow::Result<Running> {
    let files = lines::files(directory, 1)?;
    let mut command = Client::Confluent.command().map_err(|why| anyhow::anyhow!("{why:?}"))?;
    command.args(["produce", &broker.bootstrap(), "none", "lines"]).args(files);
    Running::spawn(command)
}

/// Every record as a line of offset and value.
fn segment_cat(partition: &Path) -> anyhow::Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(["segment", "cat"]).arg(partition).args(["-o", "start", "-f", "%o %v\\n"]);
    Ok(command.output()?)
}

fn assert_same_lines(printed: &[u8], read: &[u8]) {
    let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').count();
    let differs = printed.iter().zip(read).position(|(ours, theirs)| ours != theirs);
    assert_eq!(differs, None, "segment cat and a consumer differ at this byte");
    assert_eq!(lines(printed), lines(read));
}

/// The log, its indexes, and the two together, are as Kafka wants them, and hold what a consumer `read`, in lines of
/// offset and value.
fn assert_clean(partition: &Path, read: &[u8]) -> anyhow::Result<()> {
    let printed = segment_cat(partition)?;
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert_same_lines(&printed.stdout, read);

    let files = segment_files(partition, &["log", "index", "timeindex"])?;
    let deep = dump_log::deep(&files)?;
    assert_eq!(deep.complaints(), Vec::<&str>::new());
    assert_eq!(deep.records(), read.iter().filter(|byte| **byte == b'\n').count());

    let indexes = segment_files(partition, &["index", "timeindex"])?;
    let sanity = dump_log::sanity(&indexes)?;
    assert_eq!(sanity.complaints(), Vec::<&str>::new());
    assert_eq!(sanity.sane_indexes(), indexes.len());
    Ok(())
}

/// Whoever looks for an offset or a time in a sealed segment finds it without reading the whole of it.
fn assert_sealed_segments_are_indexed(partition: &Path) -> anyhow::Result<()> {
    let mut logs = segment_files(partition, &["log"])?;
    // The active segment may be too short for an entry.
    logs.pop();
    for log in logs {
        let bytes = fs::read(&log)?;
        let first_batch = BatchHeader::parse(&bytes)?.size_bytes as usize;
        // The batch that a segment begins with needs no entry in the index of offsets.
        let extensions = if first_batch < bytes.len() { &["index", "timeindex"][..] } else { &["timeindex"] };
        for extension in extensions {
            let index = log.with_extension(extension);
            assert_ne!(fs::metadata(&index)?.len(), 0, "{} is empty", index.display());
        }
    }
    Ok(())
}
