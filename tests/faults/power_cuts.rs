//! Power cuts: what was acknowledged under `fsync` is there when the power comes back, and under `interval` all but the
//! last interval of it.
//!
//! Only what was received before the cut counts. The machine of a real cut is dead at once; the shutdown ioctl takes a
//! moment, in which Linux 6.18 now and then lets an `fdatasync` that is under way return 0 without effect (seen on
//! ext4 and on xfs with four threads that did nothing but append and sync, in 5 of 100 cuts).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::harness::broker::{Broker, Options};
use crate::harness::metrics::metric;
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering, is_stopped};
use crate::harness::wait;

use super::batches::plain_batch;
use super::campaign::{Campaign, Crew, Outcome, TOPIC, under_load, wait_for};
use super::client::Connection;
use super::gate::Order;
use super::history::Verdict;
use super::kills::{PATIENCE, STEP_COUNT, early_step, step_of};
use super::mounts::{FileSystem, Mount, can_mount_images};
use super::random::Random;
use super::setting::{Trials, say};
use super::trials::run_trials;

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_power_cut_on_ext4_loses_nothing_acknowledged_under_fsync() -> anyhow::Result<()> {
    cut_at_random("T3 a power cut on ext4", FileSystem::Ext4)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_power_cut_on_xfs_loses_nothing_acknowledged_under_fsync() -> anyhow::Result<()> {
    cut_at_random("T4 a power cut on xfs", FileSystem::Xfs)
}

fn cut_at_random(name: &str, file_system: FileSystem) -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() {
        return Ok(());
    }
    run_trials(name, Trials { pr: 2, nightly: 300, release: 1000 }, |directory, seed| {
        let mut random = Random::new(seed);
        let data = directory.join("data");
        let mut mount = Mount::image(file_system, &data)?;
        let mut broker = Broker::start(Options::new(&data))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            campaign.gate.wait_for_acks(1)?;
            campaign.gate.let_work(Duration::from_millis(100 + random.below(1400)));
            campaign.gate.go_dark();
            mount.cut_power()?;
            // The broker lives on without a disk for a moment: what it acknowledged now would be a lie.
            let answer = Connection::open(broker.address())?.produce(TOPIC, 0, plain_batch(u32::MAX, 10))?;
            ensure!(answer.error_code != 0, "the broker acknowledges without a disk: {answer:?}");
            broker.kill()?;
            mount.power_up()?;
            come_back(broker, campaign)
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_power_cut_under_interval_loses_nothing_that_a_sync_came_after() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() {
        return Ok(());
    }
    let trials = Trials { pr: 2, nightly: 100, release: 500 };
    run_trials("T3, T4 a power cut under interval", trials, cut_under_interval)
}

/// What was in the log when a sync began that was seen to end must be there. Of what came later a suffix may be missing,
/// and nothing else may be wrong.
fn cut_under_interval(directory: &Path, seed: u64) -> anyhow::Result<Outcome> {
    let mut random = Random::new(seed);
    let data = directory.join("data");
    let mut mount = Mount::image(FileSystem::of_trial(seed), &data)?;
    let flags = ["--durability", &format!("interval={}", 50 + random.below(450))];
    let mut broker = Broker::start(Options::new(&data).flags(&flags))?;
    let address = broker.address();
    // Syncs of one partition follow each other, and with no group there are no others.
    let crew = Crew { partitions: 1, members: 0, ..Crew::default() };
    let campaign = Campaign::start(&broker, &crew, seed)?;
    campaign.gate.wait_for_acks(100)?;
    // Ends of the log, and how many syncs were over then.
    let mut seen: Vec<(i64, u64)> = Vec::new();
    let (mut connection, rounds) = (Connection::open(address)?, random.below(300));
    wait::until("some syncs", || {
        let end = connection.latest_offset(TOPIC, 0)?.context("the partition has an end")?;
        seen.push((end, metric(address, "highwater_sync_seconds_count")?));
        Ok(seen.len() as u64 > rounds
            && seen.last().map(|last| last.1) >= seen.first().map(|first| first.1 + 2))
    })?;
    // Of two syncs that ended after an end was seen, the second had begun after it.
    let syncs = seen.last().map_or(0, |last| last.1);
    let end = seen.iter().filter(|seen| seen.1 + 2 <= syncs).map(|seen| seen.0).max().unwrap_or(0);

    campaign.gate.go_dark();
    campaign.gate.give(Order::Abandon);
    mount.cut_power()?;
    broker.kill()?;
    mount.power_up()?;
    broker.restart()?;

    let mut outcome = campaign.abandon()?;
    let lost = outcome.verdict.forgive_suffix(end);
    let Verdict { acked_count, log_count, .. } = outcome.verdict;
    ensure!(
        log_count as i64 >= end,
        "the log ends at {log_count}; a sync had covered everything below {end}"
    );
    say(&format!(
        "{}: of {acked_count} acknowledged records {lost} at the end are lost, none below {end}",
        flags[1]
    ));
    Ok(outcome)
}

/// Starts the broker when the power is back, and lets everybody get on.
fn come_back(broker: &mut Broker, campaign: &Campaign) -> anyhow::Result<()> {
    broker.restart()?;
    campaign.gate.restarted();
    campaign.let_everybody_work()
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_power_cut_at_any_step_leaves_no_ghost_and_loses_nothing() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() || or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    let name = "T5 a power cut during a roll, a topic's creation or deletion, a checkpoint";
    let trials = Trials { pr: 3, nightly: 2 * STEP_COUNT, release: 10 * STEP_COUNT };
    run_trials(name, trials, |directory, seed| {
        let (calls, nth) = step_of(seed);
        cut_at_step(directory, calls, nth, seed)
    })
}

/// Stops the broker right after a system call, and cuts the power then.
fn cut_at_step(directory: &Path, calls: &str, nth: u64, seed: u64) -> anyhow::Result<Outcome> {
    let data = directory.join("data");
    let mut mount = Mount::image(FileSystem::of_trial(nth), &data)?;
    let mut broker = Broker::start(Options::new(&data))?;
    let crew = Crew { administrator: true, ..Crew::default() };
    under_load(&mut broker, &crew, seed, |broker, campaign| {
        campaign.gate.wait_for_acks(1)?;
        let stop = format!("signal=STOP:when={nth}");
        let trace = directory.join("trace");
        let _tracer =
            Tampering { calls, injection: &stop, files: &[], trace: &trace }.attach(broker.pid())?;
        let pid = broker.pid();
        let last = campaign.gate.acked() + PATIENCE;
        wait_for(&campaign.gate, "the broker to stop", || campaign.gate.acked() >= last || is_stopped(pid))?;
        let hit = if is_stopped(pid) { "stopped" } else { "not stopped" };
        say(&format!("{hit} at call {nth} of {calls} in a thread"));
        campaign.gate.go_dark();
        mount.cut_power()?;
        broker.kill()?;
        mount.power_up()?;
        come_back(broker, campaign)
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_power_cut_while_it_recovers_changes_nothing() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() || or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let trials = Trials { pr: 1, nightly: 50, release: 300 };
    run_trials("T6 power cuts while it recovers", trials, |directory, seed| {
        let mut random = Random::new(seed);
        let data = directory.join("data");
        let mut mount = Mount::image(FileSystem::of_trial(seed), &data)?;
        let mut broker = Broker::start(Options::new(&data))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            campaign.gate.wait_for_acks(100)?;
            campaign.gate.let_work(Duration::from_millis(random.below(700)));
            campaign.gate.go_dark();
            mount.cut_power()?;
            broker.kill()?;
            mount.power_up()?;
            for _ in 0..3 {
                let (calls, nth) = early_step(&mut random);
                let kill = format!("signal=KILL:when={nth}");
                let trace = directory.join("trace");
                let wrapper = Tampering { calls, injection: &kill, files: &[], trace: &trace }.wrapper();
                // Killed or ready: what it has written and not synced is gone with the power.
                let recovering = Broker::spawn(broker.again().under(wrapper))?.ready_or_ended()?;
                mount.cut_power()?;
                drop(recovering);
                mount.power_up()?;
            }
            come_back(broker, campaign)
        })
    })
}
