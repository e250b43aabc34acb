//! The journal that all members of a group campaign write, and what can be waited for in it.
//!
//! It does not judge what is written.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::group_history::{Event, Mark};
use super::history::Placed;

/// After this long without what must happen something is stuck.
const STUCK: Duration = Duration::from_secs(120);

/// Where a member stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    Joining,
    /// Assigned in this generation.
    Working(i32),
}

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// What happened, in its order.
    pub(crate) events: Vec<Event>,
    /// Every record that was processed, as often as it was.
    pub(crate) seen: Vec<Placed>,
    /// The living members.
    pub(crate) seats: BTreeMap<u32, Stage>,
    /// The largest offset that is certainly committed, per partition.
    pub(crate) committed: BTreeMap<i32, i64>,
    /// How often the observer was answered.
    pub(crate) polls: u64,
    /// How often a coordinator said to come back later.
    pub(crate) put_off: u64,
    failed: bool,
}

impl State {
    /// How many records are below what is committed.
    pub(crate) fn committed_records(&self) -> u64 {
        self.committed.values().map(|offset| offset.unsigned_abs()).sum()
    }

    /// Whether all members are assigned in one generation.
    pub(crate) fn is_settled(&self) -> bool {
        let mut stages = self.seats.values();
        let first = stages.next().copied().unwrap_or(Stage::Joining);
        first != Stage::Joining && stages.all(|stage| *stage == first)
    }

    /// The newest generation that a member works in.
    pub(crate) fn newest_generation(&self) -> Option<i32> {
        let generation = |stage: &Stage| match stage {
            Stage::Joining => None,
            Stage::Working(generation) => Some(*generation),
        };
        self.seats.values().filter_map(generation).max()
    }

    fn raise(&mut self, partition: i32, offset: i64) {
        let committed = self.committed.entry(partition).or_insert(0);
        *committed = offset.max(*committed);
    }
}

/// The journal.
#[derive(Default)]
pub(crate) struct Journal {
    state: Mutex<State>,
    changed: Condvar,
}

impl Journal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    /// The present.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.state().events.len())
    }

    /// A member is about to join for the first time.
    pub(crate) fn came(&self, member: u32) {
        self.change(|state| state.seats.insert(member, Stage::Joining));
    }

    /// A member is gone; what it still does is no longer looked at.
    pub(crate) fn went(&self, member: u32) {
        self.change(|state| state.seats.remove(&member));
    }

    /// A member joins again.
    pub(crate) fn joining(&self, member: u32) {
        self.change(|state| {
            state.seats.entry(member).and_modify(|stage| *stage = Stage::Joining);
        });
    }

    /// A member has its assignment.
    pub(crate) fn assigned(&self, member: u32, generation: i32, partitions: &[i32]) {
        self.change(|state| {
            state.seats.entry(member).and_modify(|stage| *stage = Stage::Working(generation));
            let assigned = |partition: &i32| Event::Assigned { member, generation, partition: *partition };
            state.events.extend(partitions.iter().map(assigned));
        });
    }

    /// Records are processed, in the order of one partition.
    pub(crate) fn processed(&self, records: &[Placed]) {
        self.change(|state| {
            for run in records.chunk_by(|one, next| one.offset + 1 == next.offset) {
                if let (Some(first), Some(last)) = (run.first(), run.last()) {
                    let (from, to) = (first.offset, last.offset + 1);
                    state.events.push(Event::Processed { partition: first.partition, from, to });
                }
            }
            state.seen.extend_from_slice(records);
        });
    }

    /// These offsets are about to be committed.
    pub(crate) fn commit_sent(&self, offsets: &[(i32, i64)]) -> Mark {
        self.change(|state| {
            let mark = Mark(state.events.len());
            let sent = |&(partition, offset): &(i32, i64)| Event::CommitSent { partition, offset };
            state.events.extend(offsets.iter().map(sent));
            mark
        })
    }

    /// One offset of those sent at a mark is acknowledged.
    pub(crate) fn commit_acked(&self, partition: i32, offset: i64, sent_at: Mark) {
        self.change(|state| {
            state.events.push(Event::CommitAcked { partition, offset, sent_at });
            state.raise(partition, offset);
        });
    }

    /// What is committed, as it was asked for at a mark.
    pub(crate) fn answered(&self, offsets: &BTreeMap<i32, Option<i64>>, asked_at: Mark) {
        self.change(|state| {
            for (&partition, &offset) in offsets {
                state.events.push(Event::Answered { partition, offset, asked_at });
                if let Some(offset) = offset {
                    state.raise(partition, offset);
                }
            }
        });
    }

    /// The observer was answered; how many records are committed.
    pub(crate) fn polled(&self) -> u64 {
        self.change(|state| {
            state.polls += 1;
            state.committed_records()
        })
    }

    /// A coordinator said to come back later.
    pub(crate) fn put_off(&self) {
        self.change(|state| state.put_off += 1);
    }

    /// Somebody cannot go on.
    pub(crate) fn fail(&self) {
        self.change(|state| state.failed = true);
    }

    /// Looks at what is known.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state())
    }

    /// Waits for `what`, which must come.
    pub(crate) fn wait_for(&self, what: &str, done: impl Fn(&State) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + STUCK;
        let mut state = self.state();
        while !done(&state) {
            ensure!(!state.failed, "somebody failed while the campaign waited for {what}");
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("waited {STUCK:?} for {what}; members: {:?}", state.seats);
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Everything that was written.
    pub(crate) fn take(&self) -> State {
        self.change(std::mem::take)
    }
}
