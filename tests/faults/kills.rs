//! kill -9, at random moments and at chosen system calls, at work and while it recovers: whatever the durability, the
//! page cache survives the process.

use std::time::Duration;

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};

use super::campaign::{Crew, under_load, wait_for};
use super::random::Random;
use super::setting::{Trials, say};
use super::trials::run_trials;

/// Kills in one data directory, before a fresh one.
const KILLS_PER_TRIAL: u64 = 10;
/// A system call, and the largest number of it in one thread at which something is done to the broker.
type Step = (&'static str, u64);
/// The calls that change what a start finds; several names where there are several ways to ask for one thing. Topics
/// come and go a few times in a trial, what is appended is written and synced often.
const STEPS: &[Step] = &[
    ("fdatasync,fsync", 24),
    ("rename", 8),
    ("fallocate", 8),
    ("pwritev,pwrite64", 24),
    ("ftruncate", 8),
    ("unlink", 8),
    ("mkdir", 4),
    ("rmdir", 2),
];
/// How many steps there are: all of them once in a night.
pub(super) const STEP_COUNT: u64 = 86;

/// The step of a trial: seeds that follow each other go through all of them, kind after kind.
pub(super) fn step_of(seed: u64) -> Step {
    let (calls, last) = STEPS[(seed % STEPS.len() as u64) as usize];
    (calls, 1 + seed / STEPS.len() as u64 % last)
}

/// A step early in a thread's life, as a start takes it.
pub(super) fn early_step(random: &mut Random) -> Step {
    (random.choose(STEPS).0, 1 + random.below(3))
}

/// How many records are acknowledged at most before a trial goes on without the kill that it waited for.
pub(super) const PATIENCE: u64 = 5_000;

/// Whatever an acknowledgement waits for: seeds that follow each other go through all of them.
const DURABILITIES: [&str; 3] = ["fsync", "interval=200", "os"];

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kill_9_loses_nothing_acknowledged_whatever_the_durability() -> anyhow::Result<()> {
    let name = format!("T1 {KILLS_PER_TRIAL} kills");
    run_trials(&name, Trials { pr: 3, nightly: 150, release: 900 }, |directory, seed| {
        let mut random = Random::new(seed);
        let durability = DURABILITIES[(seed % 3) as usize];
        say(&format!("under {durability}"));
        let options = Options::new(&directory.join("data")).flags(&["--durability", durability]);
        let mut broker = Broker::start(options)?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            for _ in 0..KILLS_PER_TRIAL {
                campaign.gate.wait_for_acks(1)?;
                campaign.gate.let_work(Duration::from_millis(100 + random.below(600)));
                broker.kill()?;
                broker.restart()?;
                campaign.gate.restarted();
            }
            campaign.let_everybody_work()
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_kill_at_any_step_loses_nothing_acknowledged() -> anyhow::Result<()> {
    if or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    let trials = Trials { pr: 3, nightly: 2 * STEP_COUNT, release: 10 * STEP_COUNT };
    run_trials("T2 a kill at a system call", trials, |directory, seed| {
        let (calls, nth) = step_of(seed);
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        let crew = Crew { administrator: true, ..Crew::default() };
        under_load(&mut broker, &crew, seed, |broker, campaign| {
            campaign.gate.wait_for_acks(1)?;
            let kill = format!("signal=KILL:when={nth}");
            let trace = directory.join("trace");
            let _tracer =
                Tampering { calls, injection: &kill, files: &[], trace: &trace }.attach(broker.pid())?;
            let last = campaign.gate.acked() + PATIENCE;
            wait_for(&campaign.gate, "the kill", || {
                campaign.gate.acked() >= last || broker.has_ended().unwrap_or(true)
            })?;
            let hit = if broker.has_ended()? { "killed" } else { "not killed" };
            say(&format!("{hit} at call {nth} of {calls} in a thread"));
            broker.kill()?;
            broker.restart()?;
            campaign.gate.restarted();
            campaign.let_everybody_work()
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_kill_while_it_recovers_changes_nothing() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    run_trials(
        "T6 kills while it recovers",
        Trials { pr: 1, nightly: 50, release: 300 },
        |directory, seed| {
            let mut random = Random::new(seed);
            let mut broker = Broker::start(Options::new(&directory.join("data")))?;
            under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
                for _ in 0..3 {
                    campaign.gate.wait_for_acks(100)?;
                    campaign.gate.let_work(Duration::from_millis(random.below(300)));
                    broker.kill()?;
                    for _ in 0..3 {
                        let (calls, nth) = early_step(&mut random);
                        let (kill, trace) = (format!("signal=KILL:when={nth}"), directory.join("trace"));
                        let kill = Tampering { calls, injection: &kill, files: &[], trace: &trace };
                        let wrapper = kill.wrapper();
                        if Broker::spawn(broker.again().under(wrapper))?.ready_or_ended()?.is_some() {
                            break;
                        }
                    }
                    broker.restart()?;
                    campaign.gate.restarted();
                }
                campaign.let_everybody_work()
            })
        },
    )
}
