//! The broker's shared state: what handlers reach through `&Broker`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_record::{DecodeLimits, LeaderEpoch};
use highwater_storage::{DataDir, FileLayer};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::buffers::BufferPool;
use crate::config::Config;
use crate::disk::Disk;
use crate::fetch::FetchSessions;
use crate::graves::Graves;
use crate::groups::Groups;
use crate::log_opener::LogOpener;
use crate::memory::{Charge, Memory, resident_peak_bytes};
use crate::meta::{Metadata, ProducerIds};
use crate::progress::{Progress, RecoveryProgress};
use crate::quotas::Quotas;
use crate::shutdown::{Shutdown, Stopping};
use crate::sync_scheduler::SyncScheduler;
use crate::topics::Topics;
use crate::{metrics, quarantine};

/// This broker's id. There is one broker; Kafka's numbering starts at 1 as well.
pub(crate) const NODE_ID: i32 = 1;

/// Everything that outlives a request.
pub(crate) struct Broker {
    pub(crate) config: Config,
    pub(crate) files: Arc<dyn FileLayer>,
    pub(crate) data: Arc<DataDir>,
    pub(crate) disk: Disk,
    pub(crate) opener: Arc<LogOpener>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) cluster_id: String,
    /// This start's incarnation: the leader epoch of what it appends.
    pub(crate) epoch: LeaderEpoch,
    /// The incarnation before this one, if there was one.
    pub(crate) previous_epoch: Option<LeaderEpoch>,
    pub(crate) topics: Topics,
    /// Topics are created and deleted one at a time.
    pub(crate) topic_changes: Mutex<()>,
    pub(crate) graves: Graves,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) quotas: Quotas,
    /// Quotas are changed by one request at a time.
    pub(crate) quota_changes: Mutex<()>,
    pub(crate) scheduler: SyncScheduler,
    /// How many appends may run on reactor threads at once: one thread always stays free (design D10).
    pub(crate) append_slots: Semaphore,
    pub(crate) append_pace: AppendPace,
    /// How many batches may be decompressed at once: each may take much memory and time.
    pub(crate) decode_slots: Semaphore,
    pub(crate) memory: Arc<Memory>,
    pub(crate) buffers: Arc<BufferPool>,
    pub(crate) shutdown: Shutdown,
    pub(crate) recovery: Arc<RecoveryProgress>,
    pub(crate) groups: Groups,
}

/// Whether appends have been slow lately: then they stay off the reactor threads altogether (design D10).
#[derive(Default)]
pub(crate) struct AppendPace {
    slow: AtomicBool,
}

/// A request whose appends take longer than this says that the disk blocks writers.
const APPEND_SLOW: Duration = Duration::from_millis(20);
/// A request whose appends are back below this says that it does not.
const APPEND_FAST: Duration = Duration::from_millis(5);

impl AppendPace {
    /// Whether the last word was slow.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Takes note of how long the appends of one request took.
    pub(crate) fn observe(&self, elapsed: Duration) {
        if elapsed >= APPEND_SLOW {
            self.slow.store(true, Ordering::Relaxed);
        } else if elapsed < APPEND_FAST && self.is_slow() {
            self.slow.store(false, Ordering::Relaxed);
        }
    }
}

impl Broker {
    /// The configuration.
    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// The pool of receive buffers.
    pub(crate) fn buffers(&self) -> Arc<BufferPool> {
        Arc::clone(&self.buffers)
    }

    /// Waits for its turn to decompress, and for the memory.
    pub(crate) async fn decode_turn(&self) -> (SemaphorePermit<'_>, Charge) {
        let slot = self.decode_slots.acquire().await.expect("the semaphore is never closed");
        (slot, self.memory.decode().await)
    }

    /// How far a batch may be decompressed: no further than what is stored may be later.
    pub(crate) fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits { bytes_max: self.memory.decode_bytes_max(), ..DecodeLimits::STORED }
    }

    /// Tells when the broker stops.
    pub(crate) fn stopping(&self) -> Stopping {
        self.shutdown.listen()
    }

    /// How far recovery has come, and what is in service since it is done.
    pub(crate) fn progress(&self) -> Progress {
        let progress = self.recovery.read();
        if !progress.is_ready() {
            return progress;
        }
        let topics = self.topics.all();
        let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
        let in_service = partitions().filter(|partition| partition.leader_epoch().is_ok()).count();
        progress.of(partitions().count(), in_service)
    }

    /// The metrics in Prometheus' text format.
    pub(crate) fn render_metrics(&self) -> String {
        metrics::set_groups(&self.groups.counts());
        metrics::set_memory(&self.memory.reading(), resident_peak_bytes());
        metrics::set_disk(&self.disk.reading());
        let (ranges, offsets) = quarantine::count(self);
        metrics::set_quarantine(ranges, offsets);
        metrics::set_read_only(self.metadata.read_only().is_some());
        metrics::render()
    }
}
