//! kill -9 at random moments: whatever the durability, the page cache survives the process.

use std::path::Path;
use std::time::Duration;

use crate::harness::broker::{Broker, Options};

use super::campaign::{Campaign, trial};
use super::history::Verdict;
use super::random::Random;
use super::setting::{count, say, seed};

/// Kills in one data directory, before a fresh one.
const KILLS_PER_TRIAL: u64 = 10;

#[test]
fn kill_9_loses_nothing_acknowledged_under_fsync() -> anyhow::Result<()> {
    kill_campaign("fsync")
}

#[test]
fn kill_9_loses_nothing_acknowledged_under_os() -> anyhow::Result<()> {
    kill_campaign("os")
}

fn kill_campaign(durability: &str) -> anyhow::Result<()> {
    let mut left = count("HIGHWATER_KILLS", 5)?;
    let mut seed = seed()?;
    while left > 0 {
        let kills = left.min(KILLS_PER_TRIAL);
        let name = format!("{kills} kills under {durability}");
        let verdict = trial(&name, seed, |directory, seed| {
            kill_repeatedly(&directory.join("data"), durability, kills, seed)
        })?;
        say(&format!("{name}, seed {seed}: {verdict}"));
        left -= kills;
        seed = seed.wrapping_add(1);
    }
    Ok(())
}

fn kill_repeatedly(data: &Path, durability: &str, kills: u64, seed: u64) -> anyhow::Result<Verdict> {
    let mut random = Random::new(seed);
    let mut broker = Broker::start(Options::new(data).flags(&["--durability", durability]))?;
    let campaign = Campaign::start(broker.address(), seed)?;
    for _ in 0..kills {
        campaign.gate.wait_for_acks(1)?;
        campaign.gate.let_work(Duration::from_millis(100 + random.below(1400)));
        broker.kill()?;
        broker.restart()?;
        campaign.gate.restarted();
    }
    campaign.gate.wait_for_acks(1)?;
    campaign.finish()
}
