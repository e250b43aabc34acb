//! A full disk is an error to those who write, nothing to those who read, and over when there is space again.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use highwater_protocol::ErrorCode;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;
use crate::harness::{metrics, wait};

use super::batches::plain_batch;
use super::campaign::{Crew, TOPIC as CAMPAIGN, under_load};
use super::client::{Connection, name_of};
use super::history::{History, Placed, Stamp, check};
use super::mounts::{FileSystem, Mount, can_mount, can_mount_images};
use super::reader::read_all;
use super::setting::Trials;
use super::trials::run_trials;

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

#[test]
fn a_full_disk_stops_nobody_for_good() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() {
        return Ok(());
    }
    // Trials take the file systems in turn.
    run_trials("T12 a full disk", Trials { pr: 3, nightly: 30, release: 60 }, |directory, seed| {
        let data = directory.join("data");
        let _disk = match seed % 3 {
            0 => Mount::tmpfs(32 << 20, &data)?,
            1 => Mount::image_of(32 << 20, FileSystem::Ext4, &data)?,
            _ => Mount::image_of(320 << 20, FileSystem::Xfs, &data)?,
        };
        let mut broker = Broker::start(Options::new(&data))?;
        let crew = Crew { value_bytes_max: 128, ..Crew::default() };
        under_load(&mut broker, &crew, seed, |broker, campaign| {
            campaign.let_everybody_work()?;
            let mut probe = Connection::open(broker.address())?;
            probe.create_topic(TOPIC, 1, &[])?;
            let mut write = || -> anyhow::Result<i16> {
                Ok(probe.produce(TOPIC, 0, plain_batch(0, VALUE_BYTES))?.error_code)
            };
            let ballast = fill(&data)?;
            wait::until("the disk to be full", || {
                let code = write()?;
                let expected = [0, ErrorCode::KafkaStorageError.code()];
                ensure!(expected.contains(&code), "a full disk is answered {}", name_of(code));
                Ok(code != 0)
            })?;
            metrics::livez(broker.address())?;
            let read = Connection::open(broker.address())?.fetch(CAMPAIGN, 0, 0)?;
            ensure!(read.error_code == 0, "while the disk is full a read is answered {read:?}");

            drop(ballast);
            std::fs::remove_file(data.join("ballast"))?;
            let freed = Instant::now();
            while write()? != 0 {
                ensure!(freed.elapsed() < RESUME_DEADLINE, "no write within {RESUME_DEADLINE:?}");
            }
            campaign.let_everybody_work()?;
            broker.kill()?;
            broker.restart()?;
            campaign.gate.restarted();
            campaign.let_everybody_work()
        })
    })
}

/// Takes all the space there is, in a file called `ballast`.
fn fill(directory: &Path) -> anyhow::Result<File> {
    let ballast = File::create(directory.join("ballast"))?;
    let mut length = 0;
    let mut step: u64 = 64 << 20;
    while step >= 4096 {
        match rustix::fs::fallocate(&ballast, FallocateFlags::empty(), length, step) {
            Ok(()) => length += step,
            Err(Errno::NOSPC) => step /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ballast)
}
