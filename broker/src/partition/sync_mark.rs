//! The mark that keeps a partition in the sync queue once, and never out of it while something wants to be synced.
//!
//! Whoever appends marks, and queues the partition if nobody has. Whoever syncs begins before it looks at the log, and
//! learns at the end whether a mark came meanwhile. That the look sees what a mark speaks of is the log's lock's doing:
//! an append and a look are both made with it held. Knows no log and no queue.

use crate::sync::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const RUNNING_DIRTY: u8 = 3;

/// Whether a partition is queued for a sync or being synced.
pub(super) struct SyncMark(AtomicU8);

impl SyncMark {
    /// Nothing wants to be synced.
    pub(super) fn idle() -> Self {
        Self(AtomicU8::new(IDLE))
    }

    /// Notes that something wants to be synced. True if the partition must be put into the queue.
    pub(super) fn mark(&self) -> bool {
        let mark = |state| match state {
            IDLE => Some(QUEUED),
            RUNNING => Some(RUNNING_DIRTY),
            _ => None,
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, mark) == Ok(IDLE)
    }

    /// A sync begins. What is marked from here on is for the next one.
    pub(super) fn begin(&self) {
        self.0.store(RUNNING, Ordering::Release);
    }

    /// A sync is over. False if something was marked meanwhile: then the partition counts as queued, and must be.
    pub(super) fn end(&self) -> bool {
        let idle = self.0.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !idle {
            self.requeue();
        }
        idle
    }

    /// A sync is over and must be made again: the partition counts as queued, and must be.
    pub(super) fn requeue(&self) {
        self.0.store(QUEUED, Ordering::Release);
    }
}

#[cfg(all(test, highwater_loom))]
mod models {
    use std::collections::VecDeque;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::{Mutex, check, check_within};

    #[derive(Default)]
    struct Log {
        appended: u32,
        durable: u32,
        syncing: bool,
    }

    /// A partition and the queue, without a disk.
    struct Group {
        log: Mutex<Log>,
        mark: SyncMark,
        queue: Mutex<VecDeque<()>>,
    }

    /// What an append does after it has let go of the log.
    #[derive(Clone, Copy)]
    enum Told {
        Marks,
        /// The control: it looks whether somebody has queued the partition, and does not say that it wants to be synced.
        Looks,
    }

    impl Group {
        fn append(&self, told: Told) {
            self.log.lock().appended += 1;
            let queue = match told {
                Told::Marks => self.mark.mark(),
                Told::Looks => self.mark.0.load(Ordering::Acquire) == IDLE && self.mark.mark(),
            };
            if queue {
                self.queue.lock().push_back(());
            }
        }

        /// As `SyncScheduler::urge`.
        fn urge(&self) {
            self.mark.mark();
            self.queue.lock().push_back(());
        }

        /// What a sync thread does until nothing is queued.
        fn serve(&self) {
            while self.queue.lock().pop_front().is_some() {
                self.mark.begin();
                let job = {
                    let mut log = self.log.lock();
                    let due = !log.syncing && log.durable < log.appended;
                    due.then(|| {
                        log.syncing = true;
                        log.appended
                    })
                };
                if let Some(target) = job {
                    let mut log = self.log.lock();
                    log.syncing = false;
                    log.durable = target;
                }
                if !self.mark.end() {
                    self.queue.lock().push_back(());
                }
            }
        }
    }

    /// Once nothing is queued and nobody syncs, everything must be durable.
    fn appends_and_syncs(told: Told, urged: bool) {
        let group =
            Arc::new(Group { log: Mutex::default(), mark: SyncMark::idle(), queue: Mutex::default() });
        group.append(told);
        if urged {
            group.urge();
        }
        let servers = if urged { 2 } else { 1 };
        let servers: Vec<_> = (0..servers)
            .map(|_| {
                let group = Arc::clone(&group);
                thread::spawn(move || group.serve())
            })
            .collect();
        group.append(told);
        servers.into_iter().for_each(|server| server.join().unwrap());
        group.serve();

        let log = group.log.lock();
        assert_eq!(log.durable, log.appended, "appended and never synced");
    }

    #[test]
    fn what_is_appended_is_synced() {
        check(|| appends_and_syncs(Told::Marks, false));
    }

    #[test]
    fn a_second_entry_in_the_queue_does_no_harm() {
        check_within(3, || appends_and_syncs(Told::Marks, true));
    }

    #[test]
    #[should_panic(expected = "appended and never synced")]
    fn control_an_append_that_leaves_no_mark_is_forgotten() {
        check(|| appends_and_syncs(Told::Looks, false));
    }
}
