//! One partition's coordinator: the machine behind its lock, the queue towards the log, and those who wait.
//!
//! An event changes the machine at once. Its records and answers go as one entry into the queue; one task at a time
//! takes all entries, appends them, waits until they are durable and lets the answers go. So the disk is on nobody's
//! way to the machine, and one append and one sync carry whatever came meanwhile. An answer that rests on nothing
//! that is under way leaves at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use highwater_group::{Answered, Call, Coordinator, Counts, Effects, Now, Record, Reply};
use highwater_record::TimestampMs;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::alarm::{Due, NEVER_MS};
use super::{Unavailable, append, load};
use crate::broker::Broker;
use crate::log_limit::note;
use crate::metrics;

/// Most bytes of records that wait for the task that appends; beyond it nothing that may write is begun. One event may
/// exceed it.
pub(super) const QUEUE_BYTES_MAX: usize = 8 << 20;

/// The coordinator of one partition.
pub(super) struct Shard {
    inner: Mutex<Inner>,
    /// When the machine wants to look at its timers, on the monotonic clock.
    due: Due,
    /// How many groups the machine has.
    groups: AtomicUsize,
    /// How many bytes the members of its groups bring and are assigned.
    member_bytes: AtomicUsize,
    /// The next call's number. Never starts over, so that a call of a machine that was lost is not taken for one of
    /// the next machine.
    next_call: AtomicU64,
    /// How often in a row the machine was lost.
    losses: AtomicU32,
    /// The log that it was loaded from has lost records.
    has_lost: AtomicBool,
}

struct Inner {
    state: State,
    queue: Vec<Entry>,
    /// Size of the records in the queue.
    queue_bytes: usize,
    /// Whether a task appends what is in the queue.
    driven: bool,
}

enum State {
    Loading,
    Active(Box<Active>),
    Failed,
}

struct Active {
    machine: Coordinator,
    /// Those who wait for a reply that the machine owes.
    parked: HashMap<Call, oneshot::Sender<Reply>>,
    /// What the metrics were told last.
    told: Counts,
}

/// What one event did: records to append, and answers that wait for them.
pub(super) struct Entry {
    pub(super) at: TimestampMs,
    pub(super) records: Vec<Record>,
    releases: Vec<Release>,
}

enum Release {
    Durable(oneshot::Sender<()>),
    Reply(oneshot::Sender<Reply>, Reply),
}

impl Release {
    fn send(self) {
        // Whoever is gone need not be told.
        match self {
            Self::Durable(sender) => drop(sender.send(())),
            Self::Reply(sender, reply) => drop(sender.send(reply)),
        }
    }
}

/// One partition of a broker.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) broker: &'a Arc<Broker>,
    pub(super) index: usize,
}

impl Shard {
    /// A coordinator that is not loaded yet.
    pub(super) fn loading() -> Self {
        Self {
            inner: Mutex::new(Inner {
                state: State::Loading,
                queue: Vec::new(),
                queue_bytes: 0,
                driven: false,
            }),
            due: Due::never(),
            groups: AtomicUsize::new(0),
            member_bytes: AtomicUsize::new(0),
            next_call: AtomicU64::new(0),
            losses: AtomicU32::new(0),
            has_lost: AtomicBool::new(false),
        }
    }

    /// How many groups it has.
    pub(super) fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed)
    }

    /// How many bytes the members of its groups bring and are assigned.
    pub(super) fn member_bytes(&self) -> usize {
        self.member_bytes.load(Ordering::Relaxed)
    }

    /// When its timers want to be looked at; `None` if nothing is due.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due.get()
    }

    /// The machine's numbers, if it is in service. Looks at every group.
    pub(super) fn observe(&self) -> Option<Counts> {
        match &mut self.inner.lock().state {
            State::Active(active) => Some(active.observe()),
            State::Loading | State::Failed => None,
        }
    }

    /// Whether a task appends.
    #[cfg(test)]
    pub(super) fn is_driven(&self) -> bool {
        self.inner.lock().driven
    }

    /// Size of the records in the queue.
    #[cfg(test)]
    pub(super) fn queue_bytes(&self) -> usize {
        self.inner.lock().queue_bytes
    }

    /// How many wait for a reply that the machine owes.
    #[cfg(test)]
    pub(super) fn parked(&self) -> usize {
        match &self.inner.lock().state {
            State::Active(active) => active.parked.len(),
            State::Loading | State::Failed => 0,
        }
    }

    /// Says whether the log that it is loaded from has lost records.
    pub(super) fn set_has_lost(&self, has_lost: bool) {
        self.has_lost.store(has_lost, Ordering::Release);
    }

    /// Says that the partition cannot be loaded.
    pub(super) fn fail(&self) {
        self.inner.lock().state = State::Failed;
    }

    /// Everything that is queued, for the task that appends; `None` ends that task.
    fn take_round(&self) -> Option<Vec<Entry>> {
        let mut inner = self.inner.lock();
        inner.driven = !inner.queue.is_empty();
        inner.queue_bytes = 0;
        inner.driven.then(|| std::mem::take(&mut inner.queue))
    }

    /// Throws the machine away with everyone who waits for it. Until it is loaded again nothing is answered. Returns
    /// how often in a row this has happened before.
    fn lose(&self) -> u32 {
        let mut inner = self.inner.lock();
        let mut lost = std::mem::replace(&mut inner.state, State::Loading);
        if let State::Active(active) = &mut lost {
            active.observe();
        }
        let queued = std::mem::take(&mut inner.queue);
        inner.queue_bytes = 0;
        inner.driven = false;
        self.due.clear();
        self.groups.store(0, Ordering::Relaxed);
        self.member_bytes.store(0, Ordering::Relaxed);
        drop(inner);
        // Dropping the senders tells the receivers.
        drop((lost, queued));
        self.losses.fetch_add(1, Ordering::Relaxed)
    }

    /// After an event: how much there is, and when something is due.
    fn take_note(&self, broker: &Broker, machine: &Coordinator) {
        self.groups.store(machine.group_count(), Ordering::Relaxed);
        self.member_bytes.store(machine.member_bytes(), Ordering::Relaxed);
        self.due.set(machine.next_deadline().unwrap_or(NEVER_MS), &broker.groups.alarm);
    }
}

impl Active {
    /// Tells the metrics what has happened since they were told last.
    fn observe(&mut self) -> Counts {
        let counts = self.machine.counts();
        metrics::count_groups(&self.told, &counts);
        self.told = counts;
        counts
    }
}

impl<'a> Place<'a> {
    fn shard(self) -> &'a Shard {
        self.broker.groups.shard(self.index)
    }

    /// The machine, for an event that may write.
    fn enter_to_write(self) -> Result<MutexGuard<'a, Inner>, Unavailable> {
        let inner = self.shard().inner.lock();
        if inner.queue_bytes < QUEUE_BYTES_MAX {
            return Ok(inner);
        }
        note(|dropped| {
            tracing::warn!(
                dropped,
                partition = self.index,
                waiting = inner.queue_bytes,
                "the disk does not keep up with the state of groups: what would add to it is refused"
            );
        });
        Err(Unavailable::Behind)
    }

    /// The machine, for what must go on while the disk is slow.
    fn enter(self) -> MutexGuard<'a, Inner> {
        self.shard().inner.lock()
    }

    /// The call's reply is not wanted any more.
    fn abandon(self, call: Call) {
        let mut inner = self.enter();
        let State::Active(active) = &mut inner.state else { return };
        // Gone from the map means that the reply is on its way: the machine has nothing to forget.
        if active.parked.remove(&call).is_none() {
            return;
        }
        let now = self.broker.groups.now();
        let effects = active.machine.abandon(call, now);
        self.settle(&mut inner, effects, None, now);
    }

    /// Queues what an event did, or lets its answers go if they rest on nothing that is under way.
    fn settle(self, inner: &mut Inner, effects: Effects, waiting: Option<oneshot::Sender<()>>, now: Now) {
        let State::Active(active) = &mut inner.state else { return };
        let mut releases: Vec<Release> = waiting.map(Release::Durable).into_iter().collect();
        for (call, reply) in effects.replies {
            if let Some(sender) = active.parked.remove(&call) {
                releases.push(Release::Reply(sender, reply));
            }
        }
        self.shard().take_note(self.broker, &active.machine);
        if effects.records.is_empty() && !inner.driven {
            releases.into_iter().for_each(Release::send);
            return;
        }
        if effects.records.is_empty() && releases.is_empty() {
            return;
        }
        inner.queue_bytes += effects.records.iter().map(Record::size).sum::<usize>();
        inner.queue.push(Entry { at: now.wall, records: effects.records, releases });
        // Without a runtime the process is on its way out: nobody waits any more.
        if !inner.driven
            && let Ok(runtime) = Handle::try_current()
        {
            inner.driven = true;
            runtime.spawn(drive(Arc::clone(self.broker), self.index));
        }
    }
}

/// Whether the log of a partition has lost records.
pub(super) fn has_lost(place: Place<'_>) -> bool {
    place.shard().has_lost.load(Ordering::Acquire)
}

/// Brings a loaded machine into service.
pub(super) fn activate(place: Place<'_>, mut machine: Coordinator) {
    let mut inner = place.shard().inner.lock();
    let now = place.broker.groups.now();
    let effects = machine.loaded(now);
    let told = machine.counts();
    inner.state = State::Active(Box::new(Active { machine, parked: HashMap::new(), told }));
    place.settle(&mut inner, effects, None, now);
}

/// Runs an event whose answer waits for nobody.
pub(super) fn tell<T>(
    place: Place<'_>,
    event: impl FnOnce(&mut Coordinator, Now) -> (T, Effects),
) -> Result<T, Unavailable> {
    run(place, place.enter(), None, |active, now| event(&mut active.machine, now))
}

/// An answer that may not be given yet.
pub(super) struct Pending<T> {
    answer: T,
    durable: oneshot::Receiver<()>,
}

impl<T> Pending<T> {
    /// The answer, when everything it rests on is durable.
    pub(super) async fn settled(self, deadline: Instant) -> Result<T, Unavailable> {
        match tokio::time::timeout_at(deadline, self.durable).await {
            Ok(Ok(())) => Ok(self.answer),
            Ok(Err(_)) => Err(Unavailable::Lost),
            Err(_) => Err(Unavailable::TimedOut),
        }
    }
}

/// Runs an event that may write. Its answer waits for the disk.
pub(super) fn ask<T>(
    place: Place<'_>,
    event: impl FnOnce(&mut Coordinator, Now) -> Answered<T>,
) -> Result<Pending<T>, Unavailable> {
    run_durably(place, place.enter_to_write()?, event)
}

/// Runs an event that writes nothing or must not be refused. Its answer waits for the disk.
pub(super) fn ask_always<T>(
    place: Place<'_>,
    event: impl FnOnce(&mut Coordinator, Now) -> Answered<T>,
) -> Result<Pending<T>, Unavailable> {
    run_durably(place, place.enter(), event)
}

fn run_durably<T>(
    place: Place<'_>,
    inner: MutexGuard<'_, Inner>,
    event: impl FnOnce(&mut Coordinator, Now) -> Answered<T>,
) -> Result<Pending<T>, Unavailable> {
    let (sender, durable) = oneshot::channel();
    let answer = run(place, inner, Some(sender), |active, now| {
        let Answered { answer, effects } = event(&mut active.machine, now);
        (answer, effects)
    })?;
    Ok(Pending { answer, durable })
}

fn run<T>(
    place: Place<'_>,
    mut inner: MutexGuard<'_, Inner>,
    waiting: Option<oneshot::Sender<()>>,
    event: impl FnOnce(&mut Active, Now) -> (T, Effects),
) -> Result<T, Unavailable> {
    let active = match &mut inner.state {
        State::Active(active) => active,
        State::Loading => return Err(Unavailable::Loading),
        State::Failed => return Err(Unavailable::Lost),
    };
    // Read under the lock, so that time does not run backwards for the machine.
    let now = place.broker.groups.now();
    let (answer, effects) = event(active, now);
    place.settle(&mut inner, effects, waiting, now);
    Ok(answer)
}

/// A reply that is awaited. Dropped before it came, it tells the machine.
struct Parked<'a> {
    place: Place<'a>,
    call: Call,
    reply: oneshot::Receiver<Reply>,
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.place.abandon(self.call);
    }
}

/// Runs an event whose reply comes later, and waits for it.
pub(super) async fn park(
    place: Place<'_>,
    event: impl FnOnce(&mut Coordinator, Call, Now) -> Effects,
) -> Result<Reply, Unavailable> {
    let (sender, reply) = oneshot::channel();
    let call = Call(place.shard().next_call.fetch_add(1, Ordering::Relaxed));
    run(place, place.enter_to_write()?, None, |active, now| {
        active.parked.insert(call, sender);
        ((), event(&mut active.machine, call, now))
    })?;
    let mut parked = Parked { place, call, reply };
    let mut stopping = place.broker.stopping();
    tokio::select! {
        reply = &mut parked.reply => reply.map_err(|_| Unavailable::Lost),
        () = stopping.stopped() => Err(Unavailable::Stopping),
    }
}

/// Appends rounds of entries until the queue is empty.
async fn drive(broker: Arc<Broker>, index: usize) {
    let shard = broker.groups.shard(index);
    while let Some(round) = shard.take_round() {
        match append::durably(&broker, index, round).await {
            Ok(round) => {
                shard.losses.store(0, Ordering::Relaxed);
                round.into_iter().flat_map(|entry| entry.releases).for_each(Release::send);
            }
            Err(error) => {
                tracing::error!(
                    partition = index, %error,
                    "the state of groups could not be stored; its partition is loaded again"
                );
                let lost_before = shard.lose();
                tokio::spawn(load::reload(Arc::clone(&broker), index, lost_before));
                return;
            }
        }
    }
}
