//! A full disk is an error to those who write, nothing to those who read, and over when there is space again.

use std::time::{Duration, Instant};

use anyhow::ensure;
use highwater_protocol::ErrorCode;

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;

use super::batches::plain_batch;
use super::client::{Connection, name_of};
use super::history::{History, Placed, Stamp, check};
use super::mounts::{Mount, can_mount};
use super::reader::read_all;

const TOPIC: &str = "full";
const DISK_BYTES: u64 = 8 << 20;
const BALLAST_BYTES: usize = 3 << 20;
const VALUE_BYTES: usize = 64 << 10;
/// How soon writes must go on when there is space.
const RESUME_DEADLINE: Duration = Duration::from_secs(5);

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_without_a_restart() -> anyhow::Result<()> {
    if or_skip(can_mount())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let _disk = Mount::tmpfs(DISK_BYTES, &data)?;
    let ballast = data.join("ballast");
    std::fs::write(&ballast, vec![0xff; BALLAST_BYTES])?;
    let mut broker = Broker::start(Options::new(&data))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 1, &[])?;
    let mut history = History::default();
    let mut produce = |connection: &mut Connection, counter: u32| -> anyhow::Result<i16> {
        let answer = connection.produce(TOPIC, 0, plain_batch(counter, VALUE_BYTES))?;
        if answer.error_code == 0 {
            let stamp = Some(Stamp { session: 0, counter });
            history.acked.push(Placed { partition: 0, offset: answer.base_offset, key: 0, stamp });
        }
        Ok(answer.error_code)
    };

    let refused = (0..).map(|counter| (counter, produce(&mut connection, counter)));
    let (full_at, code) =
        refused.take(1000).find(|(_, code)| !matches!(code, Ok(0))).expect("8 MiB are not endless");
    ensure!(code? == ErrorCode::KafkaStorageError.code(), "a full disk is answered with another error");
    for counter in full_at + 1..full_at + 10 {
        let code = produce(&mut connection, counter)?;
        ensure!(code == ErrorCode::KafkaStorageError.code(), "while the disk is full: {}", name_of(code));
    }
    let served = read_all(broker.address(), TOPIC, 1)?;
    ensure!(served.len() == full_at as usize, "{} of {full_at} records are served", served.len());

    std::fs::remove_file(&ballast)?;
    let freed = Instant::now();
    let mut counter = full_at + 10;
    while produce(&mut connection, counter)? != 0 {
        ensure!(freed.elapsed() < RESUME_DEADLINE, "no write within {RESUME_DEADLINE:?}:\n{}", broker.log());
        counter += 1;
    }
    let verdict = check(&history, &read_all(broker.address(), TOPIC, 1)?);
    ensure!(verdict.is_clean(), "while it runs: {verdict}");
    broker.kill()?;
    broker.restart()?;
    let verdict = check(&history, &read_all(broker.address(), TOPIC, 1)?);
    ensure!(verdict.is_clean(), "after a restart: {verdict}");
    Ok(())
}
