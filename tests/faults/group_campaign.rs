//! A group under fire: members are killed and replaced, the broker is killed and started again, and producers go on.
//!
//! What must hold: every acknowledged record is processed before a commit passes it, and commits never move back. An
//! observer asks for the committed offsets all the time, from the moment on at which the port of a started broker
//! opens. By default a few kills; `HIGHWATER_MEMBERS=50 HIGHWATER_GROUP_SECONDS=300` is the full campaign.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::wire::Str;

use crate::harness::broker::{Broker, Options};

use super::campaign::trial;
use super::client::{Connection, is_lost_connection, name_of};
use super::gate::{Gate, Order, STUCK};
use super::group_calls::Group;
use super::group_history::{Findings, inspect};
use super::group_journal::Journal;
use super::history::{History, Verdict, check};
use super::member::{Habit, Member, Seat};
use super::producer::{Kind, Plan, Sent, Session};
use super::random::Random;
use super::reader::read_all;
use super::setting::{count, say, seed};

const TOPIC: &str = "watched";
/// Partitions, if there are not more members: then one for each.
const PARTITIONS_MIN: u32 = 12;
/// Largest size of a value, in bytes: this is about groups, not about bytes.
const VALUE_BYTES_MAX: u64 = 128;
/// The idempotent sessions; one plain session comes on top.
const IDEMPOTENT_SESSIONS: u32 = 2;
/// How many records producers may be ahead of what is committed.
const AHEAD: u64 = 4_000;
/// Rounds of kills, however short the time is.
const ROUNDS_MIN: u64 = 3;
/// How often the observer asks.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(20);

#[test]
fn a_group_skips_nothing_and_never_goes_back_while_members_and_brokers_are_killed() -> anyhow::Result<()> {
    let members = u32::try_from(count("HIGHWATER_MEMBERS", 12)?)?;
    let duration = Duration::from_secs(count("HIGHWATER_GROUP_SECONDS", 0)?);
    let name = format!("a group of {members} under kills");
    let seed = seed()?;
    say(&format!("{name}, seed {seed}"));
    let verdict = trial(&name, seed, |directory, seed| {
        let mut random = Random::new(seed);
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        let mut campaign = GroupCampaign::start(broker.address(), seed, members)?;
        for _ in 0..members {
            campaign.hire(Habit::Honest);
        }
        let mut tally = Tally::default();
        let killed = kill_in_rounds(&mut broker, &mut campaign, duration, &mut random, &mut tally);
        let outcome = campaign.finish(killed)?;
        say(&format!("{name}, seed {seed}: {tally}; {outcome}"));
        ensure!(outcome.findings.is_clean(), "{}", outcome.findings);
        // The first generation, and one for each time at which new members had come and the group had settled.
        let generations = outcome.findings.generations as u64;
        ensure!(generations > tally.settled, "the group did not rebalance: {tally}; {outcome}");
        Ok(outcome.verdict)
    })?;
    say(&format!("{name}, seed {seed}: {verdict}"));
    Ok(())
}

#[test]
fn a_member_that_commits_what_it_did_not_process_is_caught() -> anyhow::Result<()> {
    let seed = seed()?;
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&directory.path().join("data")))?;
    let mut campaign = GroupCampaign::start(broker.address(), seed, 2)?;
    campaign.hire(Habit::Honest);
    campaign.hire(Habit::Hasty);

    let worked = campaign.let_commit(1_000);
    let outcome = campaign.finish(worked)?;

    let findings = &outcome.findings;
    ensure!(!findings.skipped.is_empty() && !findings.unprocessed.is_empty(), "nothing was found: {outcome}");
    ensure!(findings.moved_back.is_empty() && findings.emptied.is_empty(), "{outcome}");
    say(&format!("control, seed {seed}: caught: {outcome}"));
    Ok(())
}

#[test]
fn a_commit_that_an_outsider_moves_back_is_caught() -> anyhow::Result<()> {
    let seed = seed()?;
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&directory.path().join("data")))?;
    let mut campaign = GroupCampaign::start(broker.address(), seed, 2)?;
    campaign.hire(Habit::Honest);

    let worked = campaign.let_commit(1_000).and_then(|()| campaign.drain()).and_then(|()| {
        // Without members anybody may commit.
        let mut outsider = Connection::open(broker.address())?;
        let codes = campaign.group.commit(&mut outsider, (&Str::default(), -1), &[(0, 1)])?;
        ensure!(codes.get(&0) == Some(&0), "the outsider is refused: {codes:?}");
        campaign.let_observe(2)
    });
    let outcome = campaign.finish(worked)?;

    let findings = &outcome.findings;
    ensure!(findings.moved_back.iter().any(|fault| fault.offset == 1), "nothing was found: {outcome}");
    ensure!(findings.skipped.is_empty() && findings.unprocessed.is_empty(), "{outcome}");
    say(&format!("control, seed {seed}: caught: {outcome}"));
    Ok(())
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
    campaign: &mut GroupCampaign,
    duration: Duration,
    random: &mut Random,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + duration;
    campaign.let_settle()?;
    while tally.rounds < ROUNDS_MIN || Instant::now() < deadline {
        campaign.let_commit(1 + random.below(500))?;
        for _ in 0..=random.below(1 + campaign.workers.len() as u64 / 8) {
            campaign.replace(random.index(campaign.workers.len()));
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

/// A member at work.
struct Worker {
    number: u32,
    seat: Arc<Seat>,
}

/// A group, its topic, its producers and its observer.
struct GroupCampaign {
    address: SocketAddr,
    group: Group,
    gate: Arc<Gate>,
    journal: Arc<Journal>,
    sessions: Vec<JoinHandle<anyhow::Result<Sent>>>,
    observer: JoinHandle<anyhow::Result<()>>,
    workers: Vec<Worker>,
    /// Of members that live and of members that are gone.
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    hired: u32,
    history: History,
}

/// What the campaign has found.
struct Outcome {
    findings: Findings,
    verdict: Verdict,
    put_off: u64,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { findings, verdict, put_off } = self;
        write!(f, "{findings}; {put_off} requests put off by the coordinator; {verdict}")
    }
}

impl GroupCampaign {
    /// Creates the topic and sets the producers and the observer to work; nobody is hired yet.
    fn start(address: SocketAddr, seed: u64, members: u32) -> anyhow::Result<Self> {
        let partitions = i32::try_from(members.max(PARTITIONS_MIN))?;
        Connection::open(address)?.create_topic(TOPIC, partitions, &[])?;
        let group = Group { name: "watchers".into(), topic: TOPIC.into(), partitions };
        let gate = Arc::new(Gate::new());
        gate.allow(AHEAD);
        let journal = Arc::new(Journal::default());
        let plan = Plan { address, topic: TOPIC.to_owned(), partitions, value_bytes_max: VALUE_BYTES_MAX };
        let sessions = (0..=IDEMPOTENT_SESSIONS).map(|id| {
            let kind = if id == 0 { Kind::Plain } else { Kind::Idempotent };
            let seed = seed.wrapping_mul(16).wrapping_add(u64::from(id));
            let session = Session::new(id, kind, plan.clone(), Arc::clone(&gate), seed);
            thread::spawn(move || session.run())
        });
        let sessions = sessions.collect();
        let observer = {
            let (group, gate, journal) = (group.clone(), Arc::clone(&gate), Arc::clone(&journal));
            thread::spawn(move || {
                let observed = observe(address, &group, &gate, &journal);
                if observed.is_err() {
                    journal.fail();
                }
                observed.context("observer")
            })
        };
        let history = History { idempotent: (1..=IDEMPOTENT_SESSIONS).collect(), ..History::default() };
        let (workers, threads) = (Vec::new(), Vec::new());
        Ok(Self { address, group, gate, journal, sessions, observer, workers, threads, hired: 0, history })
    }

    /// Sets a new member to work.
    fn hire(&mut self, habit: Habit) {
        let number = self.hired;
        self.hired += 1;
        let seat = Arc::new(Seat::new());
        self.journal.came(number);
        let place = (self.address, self.group.clone());
        let member = Member::new(number, habit, place, Arc::clone(&seat), Arc::clone(&self.journal));
        self.threads.push(thread::spawn(move || member.run()));
        self.workers.push(Worker { number, seat });
    }

    /// Kills a member; a new one takes its place.
    fn replace(&mut self, index: usize) {
        let killed = self.workers.swap_remove(index);
        killed.seat.kill();
        self.journal.went(killed.number);
        self.hire(Habit::Honest);
    }

    /// Waits until all members are assigned in one generation.
    fn let_settle(&self) -> anyhow::Result<()> {
        self.journal.wait_for("the group to settle", |state| state.is_settled())
    }

    /// Waits until this many more records are committed.
    fn let_commit(&self, records: u64) -> anyhow::Result<()> {
        let target = self.journal.look(|state| state.committed_records()) + records;
        self.journal.wait_for("commits", |state| state.committed_records() >= target)
    }

    /// Waits until the observer was answered this many times more.
    fn let_observe(&self, polls: u64) -> anyhow::Result<()> {
        let target = self.journal.look(|state| state.polls) + polls;
        self.journal.wait_for("the observer", |state| state.polls >= target)
    }

    /// Ends the producers, waits until everything in the topic is committed, and lets all members leave.
    fn drain(&mut self) -> anyhow::Result<()> {
        self.gate.give(Order::Finish);
        for session in self.sessions.drain(..) {
            let sent = session.join().map_err(|_| anyhow!("a session panicked"))??;
            self.history.acked.extend(sent.acked);
            self.history.unknown.extend(sent.unknown);
        }
        let mut connection = Connection::open(self.address)?;
        for partition in 0..self.group.partitions {
            let end = connection.latest_offset(TOPIC, partition)?.context("the partition has an end")?;
            self.journal
                .wait_for(&format!("partition {partition} to be committed up to {end}"), |state| {
                    state.committed.get(&partition).copied().unwrap_or(0) >= end
                })?;
        }
        for worker in self.workers.drain(..) {
            self.journal.went(worker.number);
            worker.seat.leave();
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a member panicked"))??;
        }
        Ok(())
    }

    /// Ends everything, after `worked`; what was found. If something went wrong before, that.
    fn finish(mut self, worked: anyhow::Result<()>) -> anyhow::Result<Outcome> {
        let drained = worked.and_then(|()| self.drain());
        self.gate.give(Order::Abandon);
        self.workers.iter().for_each(|worker| worker.seat.kill());
        let mut ends: Vec<anyhow::Result<()>> = Vec::new();
        for thread in self.threads {
            ends.push(thread.join().unwrap_or_else(|_| Err(anyhow!("a member panicked"))));
        }
        for session in self.sessions {
            ends.push(session.join().unwrap_or_else(|_| Err(anyhow!("a session panicked"))).map(drop));
        }
        ends.push(self.observer.join().unwrap_or_else(|_| Err(anyhow!("the observer panicked"))));
        // What a thread says tells more than that waiting for it was in vain.
        ends.into_iter().collect::<anyhow::Result<()>>()?;
        drained?;

        let state = self.journal.take();
        self.history.seen = state.seen;
        let log = read_all(self.address, TOPIC, self.group.partitions)?;
        Ok(Outcome {
            findings: inspect(&state.events, &self.history.acked),
            verdict: check(&self.history, &log),
            put_off: state.put_off,
        })
    }
}

/// Asks for what is committed, again and again, through restarts, until the campaign is over.
fn observe(address: SocketAddr, group: &Group, gate: &Gate, journal: &Journal) -> anyhow::Result<()> {
    let mut last_reached = Instant::now();
    while gate.order() != Order::Abandon {
        let connected = Connection::open(address);
        if connected.is_ok() {
            last_reached = Instant::now();
        }
        match connected.and_then(|connection| observe_on(connection, group, gate, journal)) {
            Err(error) if !is_lost_connection(&error) => return Err(error.into()),
            Err(_) if last_reached.elapsed() > STUCK => bail!("no broker for {STUCK:?}"),
            _ => {}
        }
        gate.wait_past(gate.incarnation(), OBSERVE_INTERVAL);
    }
    Ok(())
}

fn observe_on(
    mut connection: Connection,
    group: &Group,
    gate: &Gate,
    journal: &Journal,
) -> std::io::Result<()> {
    let all: Vec<i32> = (0..group.partitions).collect();
    while gate.order() != Order::Abandon {
        let asked_at = journal.mark();
        match group.committed(&mut connection, &all)? {
            Ok(offsets) => {
                journal.answered(&offsets, asked_at);
                gate.allow(journal.polled() + AHEAD);
            }
            Err(code) if is_put_off(code) => journal.put_off(),
            Err(code) => {
                let sentence = format!("the observer is answered {}", name_of(code));
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, sentence));
            }
        }
        gate.wait_past(gate.incarnation(), OBSERVE_INTERVAL);
    }
    Ok(())
}

/// Whether a coordinator asks to come back later.
fn is_put_off(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(ErrorCode::CoordinatorLoadInProgress | ErrorCode::CoordinatorNotAvailable)
    )
}
