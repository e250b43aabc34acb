//! Processes that stop for a while and go on as if nothing had been: the broker, its producers and consumers, a member
//! of the group that others have replaced meanwhile.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use crate::harness::broker::{Broker, Options};

use super::campaign::{Campaign, Crew, under_load};
use super::random::Random;
use super::setting::Trials;
use super::trials::run_trials;

/// The longest pause, in seconds: a few for a change, a minute in a night.
const PAUSE_SECONDS_MAX: Trials = Trials { pr: 5, nightly: 60, release: 60 };

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_broker_that_was_stopped_goes_on() -> anyhow::Result<()> {
    let seconds = PAUSE_SECONDS_MAX.amount()?;
    run_trials("T18 a stopped broker", Trials { pr: 1, nightly: 20, release: 100 }, |directory, seed| {
        let pause = Duration::from_secs(5 + Random::new(seed).below(seconds - 4));
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            campaign.let_everybody_work()?;
            broker.signal(Signal::STOP)?;
            campaign.gate.let_work(pause);
            broker.signal(Signal::CONT)?;
            campaign.let_everybody_work()
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn clients_that_were_stopped_go_on() -> anyhow::Result<()> {
    let seconds = PAUSE_SECONDS_MAX.amount()?;
    run_trials("T18 stopped clients", Trials { pr: 1, nightly: 20, release: 100 }, |directory, seed| {
        let pause = Duration::from_secs(5 + Random::new(seed).below(seconds - 4));
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew::default(), seed, |_, campaign| {
            campaign.let_everybody_work()?;
            campaign.gate.freeze();
            campaign.gate.let_work(pause);
            campaign.gate.thaw();
            campaign.let_everybody_work()
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_member_that_was_stopped_finds_its_place_taken() -> anyhow::Result<()> {
    run_trials("T18 a stopped member", Trials { pr: 1, nightly: 20, release: 100 }, |directory, seed| {
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew { members: 3, ..Crew::default() }, seed, |_, campaign| {
            campaign.let_settle()?;
            let before = campaign.generation();
            campaign.hold(0, true);
            others_go_on(campaign, before)?;
            // What it commits now it commits for a generation that is over.
            campaign.hold(0, false);
            campaign.let_settle()?;
            ensure!(campaign.generation() > before, "the group did not rebalance");
            campaign.let_everybody_work()
        })
    })
}

/// Waits until the others have a generation of their own, and have committed something in it.
fn others_go_on(campaign: &Campaign, before: Option<i32>) -> anyhow::Result<()> {
    campaign.journal.wait_for("the others to go on", |state| state.newest_generation() > before)?;
    campaign.let_commit(100)
}
