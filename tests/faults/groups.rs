//! A group under fire: members are killed and replaced, the broker is killed and started again, and producers go on.
//!
//! What must hold: every acknowledged record is processed before a commit passes it, and commits never move back.
//! Members are as many as `HIGHWATER_TRIALS` wants: a few for a change, fifty in a night.

use anyhow::ensure;

use crate::harness::broker::{Broker, Options};

use super::campaign::{Campaign, Crew, Outcome, under_load};
use super::client::Connection;
use super::group_calls::OUTSIDER;
use super::member::Habit;
use super::random::Random;
use super::setting::{Trials, say};
use super::trials::{run_controls, run_trials};

/// Partitions, if there are not more members: then one for each.
const PARTITIONS_MIN: u32 = 12;
/// Rounds of kills: more in trials that are not for a change.
const ROUNDS: Trials = Trials { pr: 3, nightly: 30, release: 60 };
const MEMBERS: Trials = Trials { pr: 8, nightly: 50, release: 50 };
const ONCE: Trials = Trials { pr: 1, nightly: 5, release: 20 };

/// This is about groups, not about bytes.
fn crew(members: u32) -> Crew {
    Crew {
        partitions: members.max(PARTITIONS_MIN) as i32,
        idempotent_sessions: 2,
        consumers: 0,
        members,
        value_bytes_max: 128,
        ..Crew::default()
    }
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_group_skips_nothing_and_never_goes_back_while_members_and_brokers_are_killed() -> anyhow::Result<()> {
    let (members, rounds) = (MEMBERS.amount()? as u32, ROUNDS.amount()?);
    let name = format!("T25 a group of {members} under kills");
    run_trials(&name, ONCE, |directory, seed| {
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        let mut tally = Tally::default();
        let outcome = under_load(&mut broker, &crew(members), seed, |broker, campaign| {
            kill_in_rounds(broker, campaign, rounds, seed, &mut tally)
        })?;
        say(&format!("{name}, seed {seed}: {tally}"));
        // The first generation, and one for each time at which new members had come and the group had settled.
        let generations = outcome.findings.generations as u64;
        ensure!(generations > tally.settled, "the group did not rebalance: {tally}; {outcome}");
        Ok(outcome)
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_member_that_commits_what_it_did_not_process_is_caught() -> anyhow::Result<()> {
    let is_caught = |outcome: &Outcome| {
        let findings = &outcome.findings;
        let goes_back = !findings.moved_back.is_empty() || !findings.emptied.is_empty();
        !findings.skipped.is_empty() && !findings.unprocessed.is_empty() && !goes_back
    };
    run_controls(
        "T9 a hasty member",
        ONCE,
        |directory, seed| {
            let mut broker = Broker::start(Options::new(&directory.join("data")))?;
            under_load(&mut broker, &crew(1), seed, |_, campaign| {
                campaign.hire(Habit::Hasty);
                campaign.let_commit(1_000)
            })
        },
        is_caught,
    )
}

#[test]
fn a_commit_that_an_outsider_moves_back_is_caught() -> anyhow::Result<()> {
    let is_caught = |outcome: &Outcome| {
        let findings = &outcome.findings;
        let is_lossy = !findings.skipped.is_empty() || !findings.unprocessed.is_empty();
        findings.moved_back.iter().any(|fault| fault.offset == 1) && !is_lossy
    };
    run_controls(
        "T9 an outsider's commit",
        ONCE,
        |directory, seed| {
            let mut broker = Broker::start(Options::new(&directory.join("data")))?;
            under_load(&mut broker, &crew(1), seed, |broker, campaign| {
                campaign.let_commit(1_000)?;
                campaign.drain()?;
                // Without members anybody may commit.
                let mut outsider = Connection::open(broker.address())?;
                let codes = campaign.group().commit(&mut outsider, OUTSIDER, &[(0, 1)])?;
                ensure!(codes.get(&0) == Some(&0), "the outsider is refused: {codes:?}");
                campaign.let_observe(2)
            })
        },
        is_caught,
    )
}

/// What was done to the group.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    /// Rounds in which the group settled again; the others run into one another.
    settled: u64,
    members_killed: u64,
    brokers_killed: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rounds, settled, members_killed, brokers_killed } = self;
        write!(
            f,
            "{rounds} rounds ({settled} to a settled group), {members_killed} members and {brokers_killed} brokers killed"
        )
    }
}

/// Kills members in every round, and the broker in every third; at rest and in the middle of rebalances.
fn kill_in_rounds(
    broker: &mut Broker,
    campaign: &mut Campaign,
    rounds: u64,
    seed: u64,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    campaign.let_settle()?;
    while tally.rounds < rounds {
        campaign.let_commit(1 + random.below(500))?;
        for _ in 0..=random.below(1 + campaign.member_count() as u64 / 8) {
            campaign.replace(random.index(campaign.member_count()));
            tally.members_killed += 1;
        }
        let mut has_settled = false;
        if tally.rounds % 3 == 1 {
            if random.below(2) == 0 {
                campaign.let_settle()?;
                has_settled = true;
                campaign.let_commit(1 + random.below(500))?;
            }
            broker.kill()?;
            broker.restart()?;
            campaign.gate.restarted();
            tally.brokers_killed += 1;
        }
        // Else the next round hits a group that rebalances.
        if random.below(3) != 0 {
            campaign.let_settle()?;
            has_settled = true;
        }
        tally.rounds += 1;
        tally.settled += u64::from(has_settled);
    }
    campaign.let_settle()
}
