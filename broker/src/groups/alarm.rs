//! When the timers of all machines are looked at next: what a machine that names a time and the task that sleeps until
//! the earliest one tell each other.
//!
//! The task says that it looks and then reads what each machine names; a machine names a time and then reads when the
//! task looks. Of two such threads one must see the other, or a time is missed until the task happens to wake. Only a
//! full fence between the write and the read on both sides promises that: without it either read may be made first.

use tokio::sync::Notify;

use crate::sync::{AtomicU64, Ordering, fence};

/// Nothing is due.
pub(super) const NEVER_MS: u64 = u64::MAX;

/// When a machine wants its timers to be looked at, in milliseconds on the groups' clock.
pub(super) struct Due(AtomicU64);

impl Due {
    /// Never.
    pub(super) fn never() -> Self {
        Self(AtomicU64::new(NEVER_MS))
    }

    /// The time; `None` if nothing is due.
    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|due| *due != NEVER_MS)
    }

    /// Takes the time back.
    pub(super) fn clear(&self) {
        self.0.store(NEVER_MS, Ordering::Release);
    }

    /// Names a time, or [`NEVER_MS`]; wakes the task if it would look too late.
    pub(super) fn set(&self, due_ms: u64, alarm: &Alarm) {
        self.0.store(due_ms, Ordering::Release);
        fence(Ordering::SeqCst);
        if due_ms < alarm.looks_at_ms.load(Ordering::Acquire) {
            alarm.sooner.notify_one();
        }
    }
}

/// What the task that runs the timers tells the machines.
pub(super) struct Alarm {
    /// When it looks, in milliseconds on the groups' clock.
    looks_at_ms: AtomicU64,
    /// Wakes it when something is due earlier than it knows.
    sooner: Notify,
}

impl Alarm {
    /// Nobody has looked yet.
    pub(super) fn new() -> Self {
        Self { looks_at_ms: AtomicU64::new(u64::MAX), sooner: Notify::new() }
    }

    /// The task is about to read what is due: until it sleeps, every time that a machine names wakes it.
    pub(super) fn look(&self) {
        self.looks_at_ms.store(u64::MAX, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The task is about to sleep until then.
    pub(super) fn looks_at(&self, until_ms: u64) {
        self.looks_at_ms.store(until_ms, Ordering::Release);
    }

    /// Completes when a machine named an earlier time since the task looked.
    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }
}

#[cfg(all(test, highwater_loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::{Without, check, check_without};

    fn is_woken(alarm: &Alarm) -> bool {
        let sooner = std::pin::pin!(alarm.sooner());
        sooner.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    /// A machine names the time 5 while the task, which looked at 3, looks again and goes to sleep until 100.
    fn a_time_is_named_while_the_task_looks() {
        let shared = Arc::new((Alarm::new(), Due::never()));
        shared.0.looks_at(3);
        let machine = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.1.set(5, &shared.0)
        });
        let (alarm, due) = &*shared;
        alarm.look();
        let until_ms = due.get().unwrap_or(100).min(100);
        alarm.looks_at(until_ms);
        machine.join().unwrap();

        assert!(until_ms == 5 || is_woken(alarm), "it sleeps over a time that was named");
    }

    #[test]
    fn a_time_that_is_named_is_seen_or_wakes() {
        check(a_time_is_named_while_the_task_looks);
    }

    #[test]
    #[should_panic(expected = "sleeps over a time")]
    fn control_without_fences_a_time_is_slept_over() {
        check_without(Without::Fences, a_time_is_named_while_the_task_looks);
    }
}
