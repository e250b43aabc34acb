//! Where a campaign and its sessions meet: who is up, how much is acknowledged, when to stop.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::history::Moment;

/// After this long without any progress something is stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(60);

/// What sessions should do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// Go on.
    Produce,
    /// Send nothing new, and end when everything sent is acknowledged.
    Finish,
    /// End at once; what is not acknowledged stays unknown.
    Abandon,
}

struct State {
    incarnation: u32,
    acked: u64,
    room: u64,
    order: Order,
    failed: bool,
    dark: bool,
    frozen: bool,
    /// The offsets up to which consumers read before they end.
    ends: Option<Vec<i64>>,
}

/// The meeting point.
pub(crate) struct Gate {
    start: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// A broker is up, nothing is acknowledged.
    pub(crate) fn new() -> Self {
        let state = State {
            incarnation: 0,
            acked: 0,
            room: u64::MAX,
            order: Order::Produce,
            failed: false,
            dark: false,
            frozen: false,
            ends: None,
        };
        Self { start: Instant::now(), state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until `done`, for at most `limit`. Whether it came to pass.
    fn wait(&self, limit: Duration, done: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while !done(&state) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Now.
    pub(crate) fn moment(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// A session reports acknowledgements.
    pub(crate) fn count_acked(&self, records: u64) {
        self.change(|state| state.acked += records);
    }

    /// A session reports that it cannot go on.
    pub(crate) fn fail(&self) {
        self.change(|state| state.failed = true);
    }

    /// Lets sessions produce until this many records are acknowledged, and hold still then. Unbounded until it is said.
    pub(crate) fn allow(&self, records: u64) {
        self.change(|state| state.room = records);
    }

    /// Whether sessions should produce something new.
    pub(crate) fn wants_more(&self) -> bool {
        let state = self.state();
        state.order == Order::Produce && state.acked < state.room
    }

    /// Waits while everything that is allowed is acknowledged; returns at once if the order is not to produce.
    pub(crate) fn wait_for_room(&self) {
        self.wait(STUCK, |state| state.order != Order::Produce || state.acked < state.room);
    }

    /// The campaign has started the broker again.
    pub(crate) fn restarted(&self) {
        self.change(|state| {
            state.incarnation += 1;
            state.dark = false;
        });
    }

    /// The power is about to be cut: what is received from now on does not count until the broker is started again.
    pub(crate) fn go_dark(&self) {
        self.change(|state| state.dark = true);
    }

    /// Whether what is received does not count.
    pub(crate) fn is_dark(&self) -> bool {
        self.state().dark
    }

    /// Everybody stops where they are, as if stopped by a signal, until [`Gate::thaw`].
    pub(crate) fn freeze(&self) {
        self.change(|state| state.frozen = true);
    }

    /// Everybody goes on.
    pub(crate) fn thaw(&self) {
        self.change(|state| state.frozen = false);
    }

    /// Waits while everybody is to stop.
    pub(crate) fn wait_while_frozen(&self) {
        self.wait(2 * STUCK, |state| !state.frozen || state.order == Order::Abandon);
    }

    /// Consumers end when they have read all partitions up to these offsets.
    pub(crate) fn read_to(&self, ends: Vec<i64>) {
        self.change(|state| state.ends = Some(ends));
    }

    /// Whether a consumer that is at these offsets has read everything.
    pub(crate) fn has_read_all(&self, offsets: &[i64]) -> bool {
        let state = self.state();
        let is_past = |ends: &Vec<i64>| offsets.iter().zip(ends).all(|(offset, end)| offset >= end);
        state.order == Order::Abandon || state.ends.as_ref().is_some_and(is_past)
    }

    /// Whether nothing more will be produced than consumers were told to read.
    pub(crate) fn is_read_out(&self) -> bool {
        self.state().ends.is_some()
    }

    /// What sessions should do from now on.
    pub(crate) fn give(&self, order: Order) {
        self.change(|state| state.order = order);
    }

    /// What sessions should do.
    pub(crate) fn order(&self) -> Order {
        self.state().order
    }

    /// How often the broker was started again.
    pub(crate) fn incarnation(&self) -> u32 {
        self.state().incarnation
    }

    /// Waits until `more` records are acknowledged from now on.
    pub(crate) fn wait_for_acks(&self, more: u64) -> anyhow::Result<()> {
        let target = self.state().acked + more;
        if !self.wait(STUCK, |state| state.failed || state.acked >= target) {
            bail!("{} of {target} records are acknowledged after {STUCK:?}: stuck", self.state().acked);
        }
        Ok(())
    }

    /// How many records are acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.state().acked
    }

    /// Whether a session cannot go on.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// Lets sessions work for this long, less if one of them fails.
    pub(crate) fn let_work(&self, duration: Duration) {
        self.wait(duration, |state| state.failed);
    }

    /// Waits until the broker was started again after `incarnation`, or there is nothing to wait for. Whether the
    /// broker was started again or the wait was for less than that.
    pub(crate) fn wait_past(&self, incarnation: u32, limit: Duration) -> bool {
        self.wait(limit, |state| state.incarnation > incarnation || state.order == Order::Abandon)
    }
}
