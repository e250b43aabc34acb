//! Acknowledgements that wait for durability.
//!
//! None holds a thread: each is one entry in its partition's queue, in offset order.

use std::collections::VecDeque;

use highwater_record::Offset;
use tokio::sync::oneshot;

use crate::sync::Mutex;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::new(raw).unwrap()
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
}

#[cfg(all(test, highwater_loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::check;

    /// When it is asked whether the watermark is there.
    #[derive(Clone, Copy)]
    enum Asked {
        UnderTheLock,
        Before,
    }

    /// As `Partition::append_locked` and `Partition::advance`: one thread waits for an offset, one moves the watermark.
    fn an_acknowledgement_and_a_watermark(asked: Asked) {
        let shared = Arc::new((AckQueue::default(), Mutex::new(Offset::ZERO)));
        let end = Offset::ZERO.advance(1);
        let mover = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                *shared.1.lock() = end;
                shared.0.release(end);
            }
        });
        let (queue, watermark) = &*shared;
        let mut ack = match asked {
            Asked::UnderTheLock => queue.wait(end, || *watermark.lock() >= end),
            Asked::Before => {
                let reached = *watermark.lock() >= end;
                queue.wait(end, || reached)
            }
        };
        mover.join().unwrap();

        assert_eq!(ack.try_recv(), Ok(Ok(())), "nobody answers");
    }

    #[test]
    fn a_watermark_that_moves_meanwhile_is_not_missed() {
        check(|| an_acknowledgement_and_a_watermark(Asked::UnderTheLock));
    }

    #[test]
    #[should_panic(expected = "nobody answers")]
    fn control_a_watermark_that_is_read_before_the_lock_is_missed() {
        check(|| an_acknowledgement_and_a_watermark(Asked::Before));
    }
}
