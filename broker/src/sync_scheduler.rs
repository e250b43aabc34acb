//! Group commit: a few threads that sync partitions, and no timer on the way of an acknowledgement.
//!
//! A partition is in the queue at most once. While its sync is in flight, appends collect behind it and are
//! covered by the next one; the more writers wait, the more one sync acknowledges. Partitions under
//! `interval=<ms>` are queued when their time has come, and those under `os` a while after they have filled a segment:
//! nobody waits for these, so they never take all threads. Knows no protocol.

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
/// How many of them sync filled segments under `os` at most, each of which may have a GiB to write. While others wait it
/// is one, so that filled segments are synced on a busy broker too.
const THREADS_FOR_FILLED: usize = 2;

/// Gives out a new leader epoch, durably, for a partition whose sync failed; `None` if that is impossible.
pub(crate) type NextEpoch = Arc<dyn Fn() -> Option<LeaderEpoch> + Send + Sync>;

/// The queue of partitions to sync, and the threads that serve it.
pub(crate) struct SyncScheduler {
    shared: Arc<Shared>,
    filled_delay: Duration,
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
    /// Partitions that have filled a segment, and whose time has come.
    filled: VecDeque<Arc<Partition>>,
    /// How many threads are busy with those.
    filled_running: usize,
    timed: BinaryHeap<Reverse<Timed>>,
    stopping: bool,
}

/// Whether anybody waits for a sync.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Awaited,
    Filled,
}

struct Timed {
    due: Instant,
    partition: Arc<Partition>,
    kind: Kind,
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
    /// Starts the sync threads. What they do is noted in `under_way`. A filled segment waits for `filled_delay`: at once,
    /// its sync would hold up appends at the file system's journal, while the system writes it by itself a little later.
    pub(crate) fn start(
        next_epoch: NextEpoch,
        under_way: Arc<UnderWay>,
        filled_delay: Duration,
    ) -> std::io::Result<Self> {
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
        Ok(Self { shared, filled_delay, appended: AppendMeter::default(), threads: Mutex::new(threads) })
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

    /// Syncs `partition`, which has filled a segment, after a while, when a thread can be spared.
    pub(crate) fn request_filled(&self, partition: &Arc<Partition>) {
        self.request_later(partition, self.filled_delay, Kind::Filled);
    }

    /// Syncs `partition` when `within` has passed, unless it is queued already.
    pub(crate) fn request_within(&self, partition: &Arc<Partition>, within: Duration) {
        self.request_later(partition, within, Kind::Awaited);
    }

    fn request_later(&self, partition: &Arc<Partition>, delay: Duration, kind: Kind) {
        if partition.mark_dirty() {
            let (due, partition) = (Instant::now() + delay, Arc::clone(partition));
            self.shared.queue.lock().timed.push(Reverse(Timed { due, partition, kind }));
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
        while let Some((partition, kind)) = self.next() {
            // A filled segment takes long because it is large, which does not make the disk slow.
            let under_way = (kind == Kind::Awaited).then(|| self.under_way.begin(Instant::now()));
            let after = partition.sync(|| next_epoch());
            drop(under_way);
            let mut queue = self.queue.lock();
            queue.filled_running -= usize::from(kind == Kind::Filled);
            match after {
                AfterSync::Done => continue,
                AfterSync::Now if kind == Kind::Filled => queue.filled.push_back(partition),
                AfterSync::Now => queue.ready.push_back(partition),
                AfterSync::Within(time) => {
                    let due = Instant::now() + time;
                    queue.timed.push(Reverse(Timed { due, partition, kind: Kind::Awaited }));
                }
            }
            drop(queue);
            self.wake.notify_one();
        }
    }

    fn next(&self) -> Option<(Arc<Partition>, Kind)> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopping {
                return None;
            }
            let for_filled = if queue.ready.is_empty() { THREADS_FOR_FILLED } else { 1 };
            if queue.filled_running < for_filled
                && let Some(partition) = queue.filled.pop_front()
            {
                queue.filled_running += 1;
                return Some((partition, Kind::Filled));
            }
            if let Some(partition) = queue.ready.pop_front() {
                return Some((partition, Kind::Awaited));
            }
            let due = queue.timed.peek().map(|Reverse(timed)| timed.due);
            match due {
                Some(due) if due <= Instant::now() => match queue.timed.pop() {
                    Some(Reverse(Timed { partition, kind: Kind::Filled, .. })) => {
                        queue.filled.push_back(partition)
                    }
                    timed => return timed.map(|Reverse(timed)| (timed.partition, timed.kind)),
                },
                Some(due) => {
                    self.wake.wait_until(&mut queue, due);
                }
                None => self.wake.wait(&mut queue),
            }
        }
    }
}
