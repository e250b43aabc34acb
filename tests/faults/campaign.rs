//! The one driver of the fault tests: producers, consumers and a group at work on one topic while a test breaks
//! something, and the check of everything that they were told against the log.
//!
//! It does not know what is broken. A test hands in what it does to the broker; what must hold is always the same.

use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, anyhow, ensure};

use crate::harness::broker::Broker;

use super::administrator::Administrator;
use super::client::Connection;
use super::consumer::Consumer;
use super::gate::{Gate, Order, STUCK};
use super::group_calls::Group;
use super::group_history::{Findings, inspect};
use super::group_journal::Journal;
use super::history::{History, Placed, Verdict, check};
use super::member::{Habit, Member, Place, Seat};
use super::observer::observe;
use super::producer::{Kind, Plan, Sent, Session};
use super::reader::read_all;

/// The topic of every campaign.
pub(crate) const TOPIC: &str = "campaign";

/// Its settings: segments of 1 MiB roll every few seconds.
const SETTINGS: &[(&str, &str)] = &[("segment.bytes", "1048576")];

/// Who is at work.
#[derive(Clone, Debug)]
pub(crate) struct Crew {
    pub(crate) partitions: i32,
    /// The first session is plain, these come on top.
    pub(crate) idempotent_sessions: u32,
    /// Consumers by assignment.
    pub(crate) consumers: u32,
    /// Members of the group; with none there is no group.
    pub(crate) members: u32,
    /// Whether somebody creates and deletes topics meanwhile.
    pub(crate) administrator: bool,
    /// Largest size of a value, in bytes.
    pub(crate) value_bytes_max: u64,
    /// Where clients find the broker, if not at its own address.
    pub(crate) proxy: Option<SocketAddr>,
}

impl Default for Crew {
    fn default() -> Self {
        Self {
            partitions: 4,
            idempotent_sessions: 3,
            consumers: 2,
            members: 2,
            administrator: false,
            value_bytes_max: 2048,
            proxy: None,
        }
    }
}

/// A member at work.
struct Worker {
    number: u32,
    seat: Arc<Seat>,
}

/// Everybody at work.
pub(crate) struct Campaign {
    pub(crate) gate: Arc<Gate>,
    pub(crate) journal: Arc<Journal>,
    place: Place,
    /// Where what clients know is written down at the end, unless all is well.
    client_log: PathBuf,
    /// Where the log is read in the end.
    broker: SocketAddr,
    sessions: Vec<JoinHandle<anyhow::Result<Sent>>>,
    consumers: Vec<JoinHandle<anyhow::Result<Vec<Placed>>>>,
    /// The observer and the administrator.
    others: Vec<JoinHandle<anyhow::Result<()>>>,
    /// Members that live and members that are gone.
    members: Vec<JoinHandle<anyhow::Result<()>>>,
    workers: Vec<Worker>,
    hired: u32,
    /// Whether the group has had the time to process everything.
    is_processed: bool,
    history: History,
}

/// What a campaign has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) findings: Findings,
    pub(crate) verdict: Verdict,
}

impl Outcome {
    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_clean() && self.verdict.is_clean()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.verdict, self.findings)
    }
}

/// One trial: sets a crew to work, breaks something, and checks.
pub(crate) fn under_load(
    broker: &mut Broker,
    crew: &Crew,
    seed: u64,
    fault: impl FnOnce(&mut Broker, &mut Campaign) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let mut campaign = Campaign::start(broker, crew, seed)?;
    let worked = fault(broker, &mut campaign);
    campaign.finish(worked)
}

impl Campaign {
    /// Creates the topic and sets everybody to work.
    pub(crate) fn start(broker: &Broker, crew: &Crew, seed: u64) -> anyhow::Result<Self> {
        let client_log = broker.data().with_file_name("clients.log");
        Self::start_at(broker.address(), client_log, crew, seed)
    }

    /// As [`Campaign::start`], with a broker that runs elsewhere; what clients know goes to `client_log` in the end,
    /// unless all is well.
    pub(crate) fn start_at(
        broker: SocketAddr,
        client_log: PathBuf,
        crew: &Crew,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let address = crew.proxy.unwrap_or(broker);
        Connection::open(address)?.create_topic(TOPIC, crew.partitions, SETTINGS)?;
        let gate = Arc::new(Gate::new());
        let group = Group { name: "watchers".into(), topic: TOPIC.into(), partitions: crew.partitions };
        let place = Place { address, group, gate: Arc::clone(&gate) };
        let mut campaign = Self {
            gate,
            journal: Arc::default(),
            place,
            client_log,
            broker,
            sessions: Vec::new(),
            consumers: Vec::new(),
            others: Vec::new(),
            members: Vec::new(),
            workers: Vec::new(),
            hired: 0,
            is_processed: false,
            history: History::default(),
        };
        campaign.start_sessions(crew, seed);
        for _ in 0..crew.consumers {
            let gate = Arc::clone(&campaign.gate);
            let consumer = Consumer::new(address, TOPIC, crew.partitions, gate);
            campaign.consumers.push(thread::spawn(move || consumer.run()));
        }
        if crew.administrator {
            let administrator = Administrator::new(address, Arc::clone(&campaign.gate));
            campaign.others.push(thread::spawn(move || administrator.run()));
        }
        if crew.members > 0 {
            let (place, journal) = (campaign.place.clone(), Arc::clone(&campaign.journal));
            campaign.others.push(thread::spawn(move || observe(&place, &journal)));
        }
        (0..crew.members).for_each(|_| campaign.hire(Habit::Honest));
        Ok(campaign)
    }

    fn start_sessions(&mut self, crew: &Crew, seed: u64) {
        let plan = Plan {
            address: self.place.address,
            topic: TOPIC.to_owned(),
            partitions: crew.partitions,
            value_bytes_max: crew.value_bytes_max,
        };
        for id in 0..=crew.idempotent_sessions {
            let kind = if id == 0 { Kind::Plain } else { Kind::Idempotent };
            let seed = seed.wrapping_mul(16).wrapping_add(u64::from(id));
            let session = Session::new(id, kind, plan.clone(), Arc::clone(&self.gate), seed);
            self.sessions.push(thread::spawn(move || session.run()));
        }
        self.history.idempotent = (1..=crew.idempotent_sessions).collect::<HashSet<u32>>();
    }

    /// Sets a new member to work.
    pub(crate) fn hire(&mut self, habit: Habit) {
        let number = self.hired;
        self.hired += 1;
        let seat = Arc::new(Seat::new());
        self.journal.came(number);
        let place = self.place.clone();
        let member = Member::new(number, habit, place, Arc::clone(&seat), Arc::clone(&self.journal));
        self.members.push(thread::spawn(move || member.run()));
        self.workers.push(Worker { number, seat });
    }

    /// How many members are at work.
    pub(crate) const fn member_count(&self) -> usize {
        self.workers.len()
    }

    /// Kills a member; a new one takes its place.
    pub(crate) fn replace(&mut self, index: usize) {
        let killed = self.workers.swap_remove(index);
        killed.seat.kill();
        self.journal.went(killed.number);
        self.hire(Habit::Honest);
    }

    /// Stops a member as a signal would, or lets it go on.
    pub(crate) fn hold(&self, index: usize, held: bool) {
        self.workers[index].seat.hold(held);
    }

    /// The newest generation that a member works in.
    pub(crate) fn generation(&self) -> Option<i32> {
        self.journal.look(|state| state.newest_generation())
    }

    /// Waits until all members are assigned in one generation.
    pub(crate) fn let_settle(&self) -> anyhow::Result<()> {
        self.journal.wait_for("the group to settle", |state| state.is_settled())
    }

    /// Waits until this many more records are committed.
    pub(crate) fn let_commit(&self, records: u64) -> anyhow::Result<()> {
        let target = self.journal.look(|state| state.committed_records()) + records;
        self.journal.wait_for("commits", |state| state.committed_records() >= target)
    }

    /// Waits until the observer was answered this many times more.
    pub(crate) fn let_observe(&self, polls: u64) -> anyhow::Result<()> {
        let target = self.journal.look(|state| state.polls) + polls;
        self.journal.wait_for("the observer", |state| state.polls >= target)
    }

    /// Waits until some records more are acknowledged and, if there is a group, some more are committed: everybody
    /// gets on, also after what the test did.
    pub(crate) fn let_everybody_work(&self) -> anyhow::Result<()> {
        self.gate.wait_for_acks(100)?;
        if self.workers.is_empty() { Ok(()) } else { self.let_commit(100) }
    }

    /// The group, for an outsider.
    pub(crate) const fn group(&self) -> &Group {
        &self.place.group
    }

    /// Ends the producers when everything that they have sent is acknowledged, waits until everybody has read it and
    /// the group has committed it, and lets all members leave.
    pub(crate) fn drain(&mut self) -> anyhow::Result<()> {
        self.gate.give(Order::Finish);
        self.join_sessions()?;
        let mut connection = Connection::open(self.place.address)?;
        let mut ends = Vec::new();
        for partition in 0..self.place.group.partitions {
            ends.push(connection.latest_offset(TOPIC, partition)?.context("the partition has an end")?);
        }
        self.gate.read_to(ends.clone());
        self.join_consumers()?;
        if self.workers.is_empty() {
            return Ok(());
        }
        for (partition, end) in (0..).zip(ends) {
            self.journal
                .wait_for(&format!("partition {partition} to be committed up to {end}"), |state| {
                    state.committed.get(&partition).copied().unwrap_or(0) >= end
                })?;
        }
        self.is_processed = true;
        for worker in self.workers.drain(..) {
            self.journal.went(worker.number);
            worker.seat.leave();
        }
        join(&mut self.members)
    }

    fn join_sessions(&mut self) -> anyhow::Result<()> {
        let mut ended = Ok(());
        for session in self.sessions.drain(..) {
            match session.join().unwrap_or_else(|_| Err(anyhow!("a session panicked"))) {
                Ok(sent) => {
                    self.history.acked.extend(sent.acked);
                    self.history.calls.extend(sent.calls);
                    self.history.unknown.extend(sent.unknown);
                }
                Err(error) => ended = ended.and(Err(error)),
            }
        }
        ended
    }

    fn join_consumers(&mut self) -> anyhow::Result<()> {
        let mut ended = Ok(());
        for consumer in self.consumers.drain(..) {
            match consumer.join().unwrap_or_else(|_| Err(anyhow!("a consumer panicked"))) {
                Ok(polled) => self.history.polled.push(polled),
                Err(error) => ended = ended.and(Err(error)),
            }
        }
        ended
    }

    /// Ends everything, after `worked`, and holds the log against what everybody knows. If something went wrong
    /// before, that.
    pub(crate) fn finish(mut self, worked: anyhow::Result<()>) -> anyhow::Result<Outcome> {
        let drained = worked.and_then(|()| self.drain());
        self.end(drained)
    }

    /// Ends everything at once, with what is under way left unknown, and holds the log against what everybody knows.
    pub(crate) fn abandon(self) -> anyhow::Result<Outcome> {
        self.end(Ok(()))
    }

    fn end(mut self, drained: anyhow::Result<()>) -> anyhow::Result<Outcome> {
        self.gate.give(Order::Abandon);
        self.workers.iter().for_each(|worker| worker.seat.kill());
        let producers_and_consumers = self.join_sessions().and(self.join_consumers());
        let ended = producers_and_consumers.and(join(&mut self.members)).and(join(&mut self.others));
        let state = self.journal.take();
        self.history.seen = state.seen;
        // What a thread says tells more than that waiting for it was in vain.
        let partitions = self.place.group.partitions;
        let read = ended.and(drained).and_then(|()| read_all(self.broker, TOPIC, partitions));
        let to_process = if self.is_processed { self.history.acked.as_slice() } else { &[] };
        let outcome = read.map(|log| Outcome {
            findings: inspect(&state.events, to_process, &log),
            verdict: check(&self.history, &log),
        });
        if !outcome.as_ref().is_ok_and(Outcome::is_clean) {
            std::fs::write(&self.client_log, lines_of(&self.history, &state.events)?)?;
        }
        outcome
    }
}

/// Waits for all of them; the first error of any.
fn join(threads: &mut Vec<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    let ends: Vec<_> = threads.drain(..).map(JoinHandle::join).collect();
    ends.into_iter().try_for_each(|end| end.unwrap_or_else(|_| Err(anyhow!("somebody panicked"))))
}

/// What the clients know, a line for each fact.
fn lines_of(history: &History, events: &[super::group_history::Event]) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut idempotent: Vec<&u32> = history.idempotent.iter().collect();
    idempotent.sort_unstable();
    writeln!(text, "idempotent sessions: {idempotent:?}")?;
    for call in &history.calls {
        writeln!(
            text,
            "{} ns to {} ns: acknowledged {} ...",
            call.sent_at.0, call.answered_at.0, call.first
        )?;
    }
    for record in &history.acked {
        writeln!(text, "acknowledged {record}")?;
    }
    for (consumer, polled) in history.polled.iter().enumerate() {
        for record in polled {
            writeln!(text, "consumer {consumer} was given {record}")?;
        }
    }
    for (index, event) in events.iter().enumerate() {
        writeln!(text, "group event {index}: {event:?}")?;
    }
    Ok(text)
}

/// Waits until `done`, while nobody of the campaign has failed.
pub(crate) fn wait_for(gate: &Gate, what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + STUCK;
    while !done() {
        ensure!(!gate.has_failed(), "somebody failed while the campaign waited for {what}");
        ensure!(std::time::Instant::now() < deadline, "waited {STUCK:?} for {what}");
        gate.let_work(std::time::Duration::from_millis(2));
    }
    Ok(())
}
