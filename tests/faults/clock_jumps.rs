//! A clock that jumps by an hour, either way: nobody's session ends by it, and nothing is lost.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::{Absent, Unavailable, or_skip};
use crate::harness::toolbox;

use super::batches::plain_batch;
use super::campaign::{Crew, under_load};
use super::client::Connection;
use super::setting::Trials;
use super::trials::run_trials;

/// A topic whose records have the broker's time.
const STAMPED: &str = "stamped";
const HOUR_MS: i64 = 60 * 60 * 1000;

/// The library that bends the time of a program, threads included.
fn library() -> Result<PathBuf, Unavailable> {
    toolbox::debian("faketime", "faketime")?;
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64"];
    let mut files = places.iter().map(|place| Path::new(place).join("faketime/libfaketimeMT.so.1"));
    let found = files.find(|file| file.is_file());
    found.ok_or_else(|| Absent::Toolchain("libfaketime is not where it is looked for".to_owned()).into())
}

/// The time that the broker stamps a record with.
fn stamp_ms(probe: &mut Connection) -> anyhow::Result<i64> {
    let answer = probe.produce(STAMPED, 0, plain_batch(0, 10))?;
    ensure!(answer.error_code == 0, "{answer:?}");
    Ok(answer.log_append_time_ms)
}

fn now_ms() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_clock_that_jumps_an_hour_ends_no_session() -> anyhow::Result<()> {
    let Some(library) = or_skip(library())? else { return Ok(()) };
    run_trials("T22 clock jumps", Trials { pr: 1, nightly: 20, release: 60 }, |directory, seed| {
        let offset = directory.join("offset");
        std::fs::write(&offset, "+0\n")?;
        let mut options = Options::new(&directory.join("data"));
        let variable = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
        options.environment = vec![
            variable("LD_PRELOAD", &library),
            variable("FAKETIME_TIMESTAMP_FILE", &offset),
            variable("FAKETIME_NO_CACHE", Path::new("1")),
            // What measures how long something takes, as `Instant` does, does not jump on a real machine either.
            variable("DONT_FAKE_MONOTONIC", Path::new("1")),
        ];
        let mut broker = Broker::start(options)?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            campaign.let_settle()?;
            let generation = campaign.generation();
            let mut probe = Connection::open(broker.address())?;
            probe.create_topic(STAMPED, 1, &[("message.timestamp.type", "LogAppendTime")])?;
            let jumps = if seed % 2 == 0 { [1, -1] } else { [-1, 1] };
            for hours in jumps {
                std::fs::write(&offset, format!("{hours:+}h\n"))?;
                campaign.let_everybody_work()?;
                let ahead_ms = stamp_ms(&mut probe)? - now_ms()?;
                let off_by_ms = ahead_ms - hours * HOUR_MS;
                ensure!(
                    off_by_ms.abs() < HOUR_MS / 2,
                    "{hours} h: the broker's clock is {ahead_ms} ms ahead"
                );
            }
            ensure!(campaign.generation() == generation, "members were dropped when the clock jumped");
            broker.kill()?;
            broker.restart()?;
            campaign.gate.restarted();
            campaign.let_everybody_work()
        })
    })
}
