//! A sealed segment that the disk does not give back: an error to whoever asks for it, and to nobody else.

use std::fs::File;
use std::path::Path;

use anyhow::ensure;

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};

use super::batches::plain_batch;
use super::client::Connection;
use super::reader::{read_all, split};

const TOPIC: &str = "cold";
const VALUE_BYTES: usize = 200 << 10;
const RECORDS: u32 = 20;

#[test]
fn a_segment_that_cannot_be_read_fails_its_own_fetches_alone() -> anyhow::Result<()> {
    if or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let directory = directory.path().canonicalize()?;
    let data = directory.join("data");
    let mut broker = Broker::start(Options::new(&data))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 1, &[("segment.bytes", "1048576")])?;
    for counter in 0..RECORDS {
        let answer = connection.produce(TOPIC, 0, plain_batch(counter, VALUE_BYTES))?;
        ensure!(answer.error_code == 0, "{answer:?}");
    }
    // A segment that the broker wrote itself is mapped; what an earlier one wrote is read.
    broker.terminate()?;
    broker.restart()?;
    // The first use opens the log, which looks into every segment.
    Connection::open(broker.address())?.fetch(TOPIC, 0, i64::from(RECORDS) - 1)?;
    let first = data.join(format!("{TOPIC}-0/00000000000000000000.log"));
    forget(&first)?;
    let (files, trace) = ([first], directory.join("trace"));
    let unreadable =
        Tampering { calls: "pread64,preadv,sendfile", injection: "error=EIO", files: &files, trace: &trace };
    let tracer = unreadable.attach(broker.pid())?;

    let refused = Connection::open(broker.address())?.fetch(TOPIC, 0, 0);
    let is_refused = refused.as_ref().is_ok_and(|data| data.error_code != 0) || refused.is_err();
    ensure!(is_refused, "an unreadable segment is answered with {refused:?}");
    let mut connection = Connection::open(broker.address())?;
    let last = connection.fetch(TOPIC, 0, i64::from(RECORDS) - 1)?;
    ensure!(last.error_code == 0, "the end of the log is refused as well: {last:?}");
    ensure!(split(last.records.bytes().cloned().unwrap_or_default())?.len() == 1, "{last:?}");
    let written = connection.produce(TOPIC, 0, plain_batch(RECORDS, 100))?;
    ensure!(written.error_code == 0, "a write is refused as well: {written:?}");
    ensure!(std::fs::read_to_string(&trace)?.contains("(INJECTED)"), "nothing was read from the file");

    drop(tracer);
    let served = read_all(broker.address(), TOPIC, 1)?.len();
    ensure!(served == RECORDS as usize + 1, "{served} records are served when the disk is well again");
    Ok(())
}

/// Makes the system forget what it has cached of a file.
fn forget(file: &Path) -> anyhow::Result<()> {
    let file = File::open(file)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}
