//! Group commit: a few threads that sync partitions, and no timer on the way of an acknowledgement.
//!
//! A partition is in the queue at most once. While its sync is in flight, appends collect behind it and are
//! covered by the next one; the more writers wait, the more one sync acknowledges. Partitions under
//! `interval=<ms>` are queued when their time has come. Knows no protocol.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use highwater_record::LeaderEpoch;
use parking_lot::{Condvar, Mutex};

use crate::append_meter::AppendMeter;
use crate::disk::UnderWay;
use crate::partition::{AfterSync, Partition};

/// How many syncs run at once. Eight keep a disk's queue busy; more gain nothing (measured on virtio).
const THREADS: usize = 8;

/// Gives out a new leader epoch, durably, for a partition whose sync failed; `None` if that is impossible.
pub(crate) type NextEpoch = Arc<dyn Fn() -> Option<LeaderEpoch> + Send + Sync>;

/// The queue of partitions to sync, and the threads that serve it.
pub(crate) struct SyncScheduler {
    shared: Arc<Shared>,
    appended: AppendMeter,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    under_way: Arc<UnderWay>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<Partition>>,
    timed: BinaryHeap<Reverse<Timed>>,
    stopping: bool,
}

struct Timed {
    due: Instant,
    partition: Arc<Partition>,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

impl SyncScheduler {
    /// Starts the sync threads. What they do is noted in `under_way`.
    pub(crate) fn start(next_epoch: NextEpoch, under_way: Arc<UnderWay>) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue::default());
        let shared = Arc::new(Shared { queue, wake: Condvar::new(), under_way });
        let mut threads = Vec::with_capacity(THREADS);
        for number in 0..THREADS {
            let (shared, next_epoch) = (Arc::clone(&shared), Arc::clone(&next_epoch));
            let thread = std::thread::Builder::new()
                .name(format!("sync-{number}"))
                .stack_size(256 * 1024)
                .spawn(move || shared.serve(&next_epoch))?;
            threads.push(thread);
        }
        Ok(Self { shared, appended: AppendMeter::default(), threads: Mutex::new(threads) })
    }

    /// Where every append is counted.
    pub(crate) const fn appended(&self) -> &AppendMeter {
        &self.appended
    }

    /// Syncs `partition` as soon as a thread is free.
    pub(crate) fn request(&self, partition: &Arc<Partition>) {
        if partition.mark_dirty() {
            self.shared.queue.lock().ready.push_back(Arc::clone(partition));
            self.shared.wake.notify_one();
        }
    }

    /// Syncs `partition` when `within` has passed, unless it is queued already.
    pub(crate) fn request_within(&self, partition: &Arc<Partition>, within: Duration) {
        if partition.mark_dirty() {
            let due = Instant::now() + within;
            self.shared.queue.lock().timed.push(Reverse(Timed { due, partition: Arc::clone(partition) }));
            self.shared.wake.notify_one();
        }
    }

    /// Takes up `partition` as soon as a thread is free, also if it is queued for later: it takes no appends until
    /// it was seen to. A second entry in the queue does no harm.
    pub(crate) fn urge(&self, partition: &Arc<Partition>) {
        partition.mark_dirty();
        self.shared.queue.lock().ready.push_back(Arc::clone(partition));
        self.shared.wake.notify_one();
    }

    /// Lets the threads finish what they are doing and joins them. What is still queued is left to the caller.
    pub(crate) fn stop(&self) {
        self.shared.queue.lock().stopping = true;
        self.shared.wake.notify_all();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a sync thread panicked");
            }
        }
    }
}

impl Shared {
    fn serve(&self, next_epoch: &NextEpoch) {
        while let Some(partition) = self.next() {
            let under_way = self.under_way.begin(Instant::now());
            let after = partition.sync(|| next_epoch());
            drop(under_way);
            let mut queue = self.queue.lock();
            match after {
                AfterSync::Done => continue,
                AfterSync::Now => queue.ready.push_back(partition),
                AfterSync::Within(time) => {
                    queue.timed.push(Reverse(Timed { due: Instant::now() + time, partition }));
                }
            }
            drop(queue);
            self.wake.notify_one();
        }
    }

    fn next(&self) -> Option<Arc<Partition>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopping {
                return None;
            }
            if let Some(partition) = queue.ready.pop_front() {
                return Some(partition);
            }
            let due = queue.timed.peek().map(|Reverse(timed)| timed.due);
            match due {
                Some(due) if due <= Instant::now() => {
                    return queue.timed.pop().map(|Reverse(timed)| timed.partition);
                }
                Some(due) => {
                    self.wake.wait_until(&mut queue, due);
                }
                None => self.wake.wait(&mut queue),
            }
        }
    }
}
