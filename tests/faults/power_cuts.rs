//! Power cuts: what was acknowledged under `fsync` is there when the power comes back, and under `os` it is not,
//! which shows that the cut is one.
//!
//! Only what was received before the cut counts. The machine of a real cut is dead at once; the shutdown ioctl takes a
//! moment, in which Linux 6.18 now and then lets an `fdatasync` that is under way return 0 without effect (seen on
//! ext4 and on xfs with four threads that did nothing but append and sync, in 5 of 100 cuts).

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;

use super::batches::plain_batch;
use super::campaign::{Campaign, TOPIC, read_topic, trial};
use super::client::Connection;
use super::gate::Order;
use super::history::{Verdict, check};
use super::mounts::{FileSystem, Mount, can_mount_images};
use super::random::Random;
use super::setting::{count, say, seed};

/// Acknowledgements before a control's cut: long before the system writes anything back by itself.
const CONTROL_ACKS: u64 = 500;

#[test]
fn a_power_cut_loses_nothing_acknowledged_under_fsync() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() {
        return Ok(());
    }
    let seed = seed()?;
    for cut in 0..count("HIGHWATER_CUTS", 2)? {
        let (file_system, seed) = (file_system(cut), seed.wrapping_add(cut));
        let name = format!("a power cut on {file_system} under fsync");
        let verdict = trial(&name, seed, |directory, seed| cut_power(directory, file_system, seed))?;
        say(&format!("{name}, seed {seed}: {verdict}"));
    }
    Ok(())
}

#[test]
fn a_power_cut_under_os_is_caught_losing_records() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() {
        return Ok(());
    }
    let seed = seed()?;
    for control in 0..count("HIGHWATER_CONTROLS", 1)? {
        let (file_system, seed) = (file_system(control), seed.wrapping_add(control));
        let directory = tempfile::tempdir()?;
        let verdict = cut_power_without_syncs(directory.path(), file_system, seed)?;
        ensure!(verdict.lost_count() > 0, "a power cut on {file_system} under os lost nothing: {verdict}");
        say(&format!("control on {file_system} under os, seed {seed}: caught: {verdict}"));
    }
    Ok(())
}

const fn file_system(trial: u64) -> FileSystem {
    if trial.is_multiple_of(2) { FileSystem::Ext4 } else { FileSystem::Xfs }
}

fn cut_power(directory: &Path, file_system: FileSystem, seed: u64) -> anyhow::Result<Verdict> {
    let mut random = Random::new(seed);
    let data = directory.join("data");
    let mut mount = Mount::image(file_system, &data)?;
    let mut broker = Broker::start(Options::new(&data))?;
    let campaign = Campaign::start(broker.address(), seed)?;
    campaign.gate.wait_for_acks(1)?;
    campaign.gate.let_work(Duration::from_millis(100 + random.below(1400)));

    campaign.gate.go_dark();
    mount.cut_power()?;
    // The broker lives on without a disk for a moment: what it acknowledged now would be a lie.
    let answer = Connection::open(broker.address())?.produce(TOPIC, 0, plain_batch(u32::MAX, 10))?;
    ensure!(answer.error_code != 0, "the broker acknowledges without a disk: {answer:?}");
    broker.kill()?;
    mount.power_up()?;
    broker.restart()?;
    campaign.gate.restarted();

    campaign.gate.wait_for_acks(CONTROL_ACKS)?;
    campaign.finish()
}

fn cut_power_without_syncs(directory: &Path, file_system: FileSystem, seed: u64) -> anyhow::Result<Verdict> {
    let data = directory.join("data");
    let mut mount = Mount::image(file_system, &data)?;
    let mut broker = Broker::start(Options::new(&data).flags(&["--durability", "os"]))?;
    let campaign = Campaign::start(broker.address(), seed)?;
    campaign.gate.wait_for_acks(CONTROL_ACKS)?;

    // Nobody may write over what is missing.
    campaign.gate.give(Order::Abandon);
    mount.cut_power()?;
    broker.kill()?;
    mount.power_up()?;
    broker.restart()?;

    let address = broker.address();
    Ok(check(&campaign.abandon()?, &read_topic(address)?))
}
