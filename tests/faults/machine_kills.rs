//! A machine that is killed as a whole while clients elsewhere are at work: its kernel, its page cache and the cache of
//! its disk are gone, what was acknowledged is not.

use std::path::Path;
use std::time::Duration;

use crate::harness::machine::Machine;
use crate::harness::machine_kit::{self, Kit};
use crate::harness::skip::or_skip;

use super::campaign::{Campaign, Crew, Outcome};
use super::controls::ACKS;
use super::gate::Order;
use super::random::Random;
use super::setting::Trials;
use super::trials::{run_controls, run_trials};

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_killed_machine_loses_nothing_acknowledged_under_fsync() -> anyhow::Result<()> {
    let Some(parts) = or_skip(machine_kit::parts())? else { return Ok(()) };
    let kit = Kit::pack(parts)?;
    let trials = Trials { pr: 1, nightly: 20, release: 100 };
    run_trials("T8 a virtual machine is killed", trials, |directory, seed| {
        let mut random = Random::new(seed);
        let mut machine = Machine::start(&kit, directory, &[])?;
        let campaign = crew_at(&machine, directory, seed)?;
        // A new group waits 3 s for members: some kills come before it is at work, most after.
        let load = Duration::from_millis(200 + random.below(7800));
        let killed = kill_under_load(&mut machine, &campaign, load);
        campaign.finish(killed)
    })
}

fn crew_at(machine: &Machine<'_>, directory: &Path, seed: u64) -> anyhow::Result<Campaign> {
    // Topics come and go as well: a machine forgets directories, too.
    let crew = Crew { administrator: true, ..Crew::default() };
    Campaign::start_at(machine.address(), directory.join("clients.log"), &crew, seed)
}

fn kill_under_load(machine: &mut Machine<'_>, campaign: &Campaign, load: Duration) -> anyhow::Result<()> {
    campaign.gate.wait_for_acks(1)?;
    campaign.gate.let_work(load);
    machine.kill()?;
    machine.restart()?;
    campaign.gate.restarted();
    campaign.let_everybody_work()
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_killed_machine_under_os_is_caught_losing_records() -> anyhow::Result<()> {
    let Some(parts) = or_skip(machine_kit::parts())? else { return Ok(()) };
    let kit = Kit::pack(parts)?;
    let lost = |outcome: &Outcome| outcome.verdict.lost_count() > 0;
    let trials = Trials { pr: 1, nightly: 10, release: 10 };
    let body = |directory: &Path, seed| {
        let mut machine = Machine::start(&kit, directory, &["HIGHWATER_DURABILITY=os"])?;
        let campaign = crew_at(&machine, directory, seed)?;
        campaign.gate.wait_for_acks(ACKS)?;
        // Nobody may write over what is missing.
        campaign.gate.give(Order::Abandon);
        machine.kill()?;
        machine.restart()?;
        campaign.abandon()
    };
    run_controls("T9 a virtual machine is killed under os", trials, body, lost)
}
