//! Those who wait for a partition: acknowledgements for durability, fetches for bytes.
//!
//! Neither holds a thread. An acknowledgement is one entry in its partition's queue, in offset order. A parked
//! fetch is one waiter with a count of the bytes that it still lacks; partitions credit it when their high
//! watermark moves, so it wakes when it can be answered and not at each append.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use highwater_record::Offset;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// Why an appended record will never be acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lost {
    /// The sync of its file failed; whether it is on disk is unknown.
    SyncFailed,
    /// The partition was closed: its topic was deleted or the broker stops.
    Closed,
}

/// Resolves when the awaited offset is below the high watermark, or never can be.
pub(crate) type Ack = oneshot::Receiver<Result<(), Lost>>;

/// Acknowledgements in the order of the offsets that they wait for.
#[derive(Default)]
pub(crate) struct AckQueue {
    waiting: Mutex<VecDeque<Waiting>>,
}

struct Waiting {
    end: Offset,
    answer: oneshot::Sender<Result<(), Lost>>,
}

impl AckQueue {
    /// Waits until the high watermark reaches `end`. `reached` is asked under the queue's lock, so that a
    /// watermark that moves meanwhile is not missed.
    pub(crate) fn wait(&self, end: Offset, reached: impl FnOnce() -> bool) -> Ack {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if reached() {
            drop(waiting);
            // The receiver is held by this function: sending cannot fail.
            let _ = sender.send(Ok(()));
            return receiver;
        }
        // A duplicate may wait for an earlier offset than the newest append: keep the order.
        let at = waiting.partition_point(|other| other.end <= end);
        waiting.insert(at, Waiting { end, answer: sender });
        receiver
    }

    /// Answers everything that waits for `high_watermark` or less.
    pub(crate) fn release(&self, high_watermark: Offset) {
        let mut waiting = self.waiting.lock();
        let ready = waiting.partition_point(|waiting| waiting.end <= high_watermark);
        let ready: Vec<_> = waiting.drain(..ready).collect();
        drop(waiting);
        for waiting in ready {
            // A dropped receiver is a closed connection: nobody left to tell.
            let _ = waiting.answer.send(Ok(()));
        }
    }

    /// Tells everyone that the awaited offset will not come.
    pub(crate) fn fail(&self, why: Lost) {
        let all = std::mem::take(&mut *self.waiting.lock());
        for waiting in all {
            let _ = waiting.answer.send(Err(why));
        }
    }
}

/// One parked fetch, registered with each partition that it reads.
pub(crate) struct FetchWaiter {
    lacking_bytes: AtomicI64,
    wake: Notify,
}

impl FetchWaiter {
    /// A waiter that wakes once `lacking_bytes` were credited.
    pub(crate) fn new(lacking_bytes: i64) -> Arc<Self> {
        Arc::new(Self { lacking_bytes: AtomicI64::new(lacking_bytes), wake: Notify::new() })
    }

    /// Counts `bytes` that became readable; wakes the fetch when nothing is lacking any more.
    pub(crate) fn credit(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        let before = self.lacking_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before > 0 && before <= bytes {
            self.wake_now();
        }
    }

    /// Wakes the fetch whatever it lacks: its partition is gone or the broker stops.
    pub(crate) fn wake_now(&self) {
        self.wake.notify_one();
    }

    /// Completes at the first wake, also one that came before this call.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// The fetches parked at one partition.
#[derive(Default)]
pub(crate) struct FetchWaiters {
    parked: Mutex<Vec<Parked>>,
}

struct Parked {
    waiter: Arc<FetchWaiter>,
    /// What this partition can contribute at most (`partition_max_bytes` less what it has already).
    contributes_bytes: u64,
}

impl FetchWaiters {
    /// Parks `waiter`, crediting it with at most `contributes_bytes` from this partition.
    pub(crate) fn park(&self, waiter: &Arc<FetchWaiter>, contributes_bytes: u64) {
        self.parked.lock().push(Parked { waiter: Arc::clone(waiter), contributes_bytes });
    }

    /// Takes `waiter` out again.
    pub(crate) fn leave(&self, waiter: &Arc<FetchWaiter>) {
        self.parked.lock().retain(|parked| !Arc::ptr_eq(&parked.waiter, waiter));
    }

    /// Credits every parked fetch with `bytes` newly below the high watermark.
    pub(crate) fn credit(&self, bytes: u64) {
        for parked in self.parked.lock().iter_mut() {
            let credit = bytes.min(parked.contributes_bytes);
            parked.contributes_bytes -= credit;
            if credit > 0 {
                parked.waiter.credit(credit);
            }
        }
    }

    /// Wakes every parked fetch.
    pub(crate) fn wake_all(&self) {
        for parked in self.parked.lock().iter() {
            parked.waiter.wake_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::new(raw).unwrap()
    }

    /// Whether the waiter was woken since it was asked last.
    fn takes_wake(waiter: &FetchWaiter) -> bool {
        let woken = std::pin::pin!(waiter.woken());
        woken.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn an_acknowledgement_comes_when_the_watermark_reaches_its_end() {
        let queue = AckQueue::default();
        let mut early = queue.wait(offset(3), || false);
        let mut late = queue.wait(offset(5), || false);

        queue.release(offset(4));

        assert_eq!(early.try_recv(), Ok(Ok(())));
        assert!(late.try_recv().is_err());
        queue.fail(Lost::SyncFailed);
        assert_eq!(late.try_recv(), Ok(Err(Lost::SyncFailed)));
    }

    #[test]
    fn a_duplicate_waits_for_its_own_offset_and_not_for_the_newest() {
        let queue = AckQueue::default();
        let mut newest = queue.wait(offset(9), || false);
        let mut duplicate = queue.wait(offset(4), || false);

        queue.release(offset(4));

        assert_eq!(duplicate.try_recv(), Ok(Ok(())));
        assert!(newest.try_recv().is_err());
    }

    #[test]
    fn a_fetch_wakes_once_when_its_bytes_are_there_and_not_before() {
        let waiters = FetchWaiters::default();
        let waiter = FetchWaiter::new(1000);
        waiters.park(&waiter, u64::MAX);

        for _ in 0..9 {
            waiters.credit(100);
        }
        assert!(!takes_wake(&waiter));
        waiters.credit(100);
        assert!(takes_wake(&waiter));
        waiters.credit(100);

        assert!(!takes_wake(&waiter));
    }

    #[test]
    fn a_partition_credits_no_more_than_it_can_contribute() {
        let (small, large) = (FetchWaiters::default(), FetchWaiters::default());
        let waiter = FetchWaiter::new(1000);
        small.park(&waiter, 600);
        large.park(&waiter, 600);

        small.credit(5000);
        assert!(!takes_wake(&waiter));
        large.credit(400);

        assert!(takes_wake(&waiter));
    }

    #[test]
    fn a_fetch_that_left_is_credited_no_more() {
        let waiters = FetchWaiters::default();
        let waiter = FetchWaiter::new(1);
        waiters.park(&waiter, 10);

        waiters.leave(&waiter);
        waiters.credit(10);

        assert!(!takes_wake(&waiter));
    }
}
