//! Twice as much load as a control group has memory: the kernel kills nobody, and nothing acknowledged is lost.
//!
//! What pushes back is the default budget, a part of the group's limit. Needs root and a mounted memory controller of
//! version 1 or 2.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use crate::harness::broker::{Broker, Options};
use crate::harness::metrics::metric;
use crate::harness::skip::{Absent, Unavailable, or_skip};

use super::batches::plain_batch;
use super::client::{Connection, answers_of, produce_request};
use super::setting::{is_root, say};

const TOPIC: &str = "limited";
const LIMIT_BYTES: u64 = 256 << 20;
const BATCH_BYTES: usize = 8 << 20;
/// So many requests at once are twice the limit.
const PRODUCERS: u64 = 2 * LIMIT_BYTES / BATCH_BYTES as u64;
/// How often each of them sends one.
const ROUNDS: u32 = 3;

/// A control group with a memory limit. Removed when dropped.
struct Limited {
    group: PathBuf,
    /// Where the kernel counts whom it killed.
    kills: &'static str,
}

impl Limited {
    fn new() -> Result<Self, Unavailable> {
        if !is_root() {
            return Err(Absent::Root("a control group needs root".to_owned()).into());
        }
        let name = format!("highwater-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let versions = [
            (root.join("memory"), "memory.limit_in_bytes", "memory.oom_control"),
            (root.to_owned(), "memory.max", "memory.events"),
        ];
        for (mount, limit, kills) in versions {
            let group = mount.join(&name);
            if std::fs::create_dir(&group).is_err() {
                continue;
            }
            let limited = Self { group, kills };
            let file = limited.group.join(limit);
            if file.exists() && std::fs::write(&file, LIMIT_BYTES.to_string()).is_ok() {
                return Ok(limited);
            }
        }
        Err(Absent::Root("this root may limit no control group's memory".to_owned()).into())
    }

    /// Runs a broker inside.
    fn wrap(&self, mut options: Options) -> Options {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.group.display());
        options.wrapper = vec!["sh".to_owned(), "-c".to_owned(), enter, "sh".to_owned()];
        options
    }

    /// How many processes the kernel has killed for want of memory.
    fn kills(&self) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(self.group.join(self.kills))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .with_context(|| format!("no oom_kill in {text:?}"))?
            .trim()
            .parse()
            .context("oom_kill is a number")
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // It is empty when its broker is gone, which the kernel may need a moment to see.
        let began = Instant::now();
        while std::fs::remove_dir(&self.group).is_err() && began.elapsed() < Duration::from_secs(10) {
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

#[test]
fn twice_the_load_that_a_memory_limit_allows_kills_nobody_and_loses_nothing() -> anyhow::Result<()> {
    let Some(limited) = or_skip(Limited::new())? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let mut broker = Broker::start(limited.wrap(Options::new(&directory.path().join("data"))))?;
    let address = broker.address();
    assert_eq!(metric(address, "highwater_memory_budget_bytes")?, LIMIT_BYTES / 4);
    Connection::open(address)?.create_topic(TOPIC, 1, &[("max.message.bytes", "16777216")])?;

    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            thread::spawn(move || {
                let mut connection = Connection::open_patient(address)?;
                let mut offsets = Vec::new();
                for round in 0..ROUNDS {
                    let request = produce_request(TOPIC, [(0, plain_batch(round, BATCH_BYTES))]);
                    let answer = connection.call(super::client::PRODUCE_VERSION, &request)?;
                    let answer = answers_of(answer).pop().context("the answer names the partition")?;
                    ensure!(answer.error_code == 0, "a good batch is refused: {answer:?}");
                    offsets.push(answer.base_offset);
                }
                anyhow::Ok(offsets)
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for producer in producers {
        acknowledged.extend(producer.join().map_err(|_| anyhow!("a producer panicked"))??);
    }
    let peak = metric(address, "highwater_memory_peak_bytes")?;
    let resident = metric(address, "highwater_memory_resident_peak_bytes")?;
    let kills = limited.kills()?;
    broker.kill()?;
    broker.restart()?;

    acknowledged.sort_unstable();
    assert_eq!(acknowledged, (0..(PRODUCERS * u64::from(ROUNDS)) as i64).collect::<Vec<_>>());
    let end = Connection::open(address)?.latest_offset(TOPIC, 0)?;
    say(&format!(
        "{PRODUCERS} producers of {} MiB each under a limit of {} MiB: used {} MiB at most, resident {} MiB, {kills} \
         killed; {} acknowledged, the end is {end:?} after kill -9",
        BATCH_BYTES >> 20,
        LIMIT_BYTES >> 20,
        peak >> 20,
        resident >> 20,
        acknowledged.len()
    ));
    assert_eq!(kills, 0);
    assert_eq!(end, Some(acknowledged.len() as i64), "acknowledged batches are lost");
    Ok(())
}
