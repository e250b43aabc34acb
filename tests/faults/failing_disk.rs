//! A sector that cannot be read, or a file that somebody cut, fails the fetches that need it, and nothing else.

use anyhow::ensure;

use crate::harness::broker::{Broker, Options};
use crate::harness::metrics::get;
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};

use super::batches::plain_batch;
use super::client::{Connection, name_of};
use super::reader::{read_all, split};

const TOPIC: &str = "failing";
/// Five records fill a segment of 1 MiB.
const VALUE_BYTES: usize = 200_000;
const PER_SEGMENT: i64 = 5;
const RECORDS: i64 = 12;

#[test]
fn a_read_error_fails_that_fetch_alone_and_is_over_when_the_disk_is_well() -> anyhow::Result<()> {
    if or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let directory = directory.path().canonicalize()?;
    let (data, trace) = (directory.join("data"), directory.join("trace"));
    let mut broker = Broker::start(Options::new(&data))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 1, &[("segment.bytes", "1048576")])?;
    for counter in 0..RECORDS {
        let answer = connection.produce(TOPIC, 0, plain_batch(counter as u32, VALUE_BYTES))?;
        ensure!(answer.error_code == 0, "{}", name_of(answer.error_code));
    }
    broker.terminate()?;
    // The first fetch opens the log, so that opening it meets the error as well.
    broker.restart()?;
    let segment = data.join(format!("{TOPIC}-0/{PER_SEGMENT:020}.log"));
    let (calls, injection) = ("pread64,preadv,sendfile", "error=EIO");
    let unreadable = Tampering { calls, injection, files: &[segment], trace: &trace };
    let tracer = unreadable.attach(broker.pid())?;

    let mut connection = Connection::open(broker.address())?;
    let mut fetch = |offset| -> anyhow::Result<(&'static str, Option<i64>)> {
        let data = connection.fetch(TOPIC, 0, offset)?;
        let batches = split(data.records.bytes().cloned().unwrap_or_default())?;
        Ok((name_of(data.error_code), batches.first().map(|batch| batch.header().base_offset.get())))
    };
    assert_eq!(fetch(0)?, ("NONE", Some(0)));
    for offset in PER_SEGMENT..2 * PER_SEGMENT {
        assert_eq!(fetch(offset)?, ("KAFKA_STORAGE_ERROR", None));
    }
    assert_eq!(fetch(2 * PER_SEGMENT)?, ("NONE", Some(2 * PER_SEGMENT)));
    let answer = connection.produce(TOPIC, 0, plain_batch(RECORDS as u32, 100))?;
    assert_eq!((name_of(answer.error_code), answer.base_offset), ("NONE", RECORDS));

    ensure!(std::fs::read_to_string(&trace)?.contains("(INJECTED)"), "nothing was read from the file");

    drop(tracer);
    assert_eq!(read_all(broker.address(), TOPIC, 1)?.len() as i64, RECORDS + 1);
    Ok(())
}

#[test]
fn a_segment_that_is_cut_under_a_running_broker_is_an_error_and_not_its_end() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(Options::new(&data))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 1, &[])?;
    for counter in 0..PER_SEGMENT {
        let answer = connection.produce(TOPIC, 0, plain_batch(counter as u32, VALUE_BYTES))?;
        ensure!(answer.error_code == 0, "{}", name_of(answer.error_code));
    }
    // Mapped from here on.
    assert_eq!(read_all(broker.address(), TOPIC, 1)?.len() as i64, PER_SEGMENT);
    let segment = data.join(format!("{TOPIC}-0/{:020}.log", 0));
    std::fs::OpenOptions::new().write(true).open(segment)?.set_len(0)?;

    for offset in 0..PER_SEGMENT {
        let data = connection.fetch(TOPIC, 0, offset)?;
        ensure!(data.error_code != 0, "offset {offset} is served out of nothing");
    }
    ensure!(get(broker.address(), "/livez")?.ends_with("ok\n"), "/livez");
    Ok(())
}
