//! One partition as the broker sees it: a log with an owner's lock, a high watermark, and those who wait for it.
//!
//! The high watermark is the durable end under `fsync` and the appended end otherwise (design D4). Reads go through
//! the log's view and never take the owner's lock. A log may be dormant: in service and not open (`dormant`). Knows no
//! protocol and no connection.
//!
//! Invariants: (1) the high watermark is never moved past the durable end while the durability is `fsync`, and never
//! back but where the log is cut; (2) an acknowledgement is released only by the watermark, and is queued before the lock under which
//! its batch was appended is given back. Locks are taken in the order log, acknowledgements, watermark.

mod dormant;
#[cfg(test)]
mod opening_tests;
mod retained;
mod sync_mark;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use highwater_record::{Batch, Keys, LeaderEpoch, Offset, TimestampMs, TopicId, TopicPartition};
use highwater_storage::{
    AppendError, Appended, CutError, Log, LogCheckpoint, LogConfig, LogOutline, LogPoint, LogView,
    RemovalJob, Retention, SyncJob, SyncOutcome,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock;
use crate::config::Durability;
use crate::fetch::Watchers;
use crate::log_opener::LogOpener;
use crate::quarantine::Reread;
use crate::sync_scheduler::SyncScheduler;
use crate::topic_config::TopicConfig;
use crate::waiters::{Ack, AckQueue, Lost};

pub(crate) use dormant::Dormant;
use sync_mark::SyncMark;

/// How often a contended owner's lock is tried before the append goes to the pool.
const LOCK_TRIES: u32 = 64;

/// The settings in force on the partitions of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    /// Largest batch that is taken, in bytes (`max.message.bytes`).
    pub(crate) batch_bytes_max: u32,
    pub(crate) log: LogConfig,
    pub(crate) retention: Retention,
}

impl Settings {
    /// What a topic's configuration comes to on a broker with this durability.
    pub(crate) fn new(topic: &TopicConfig, broker: Durability, id: TopicId) -> Self {
        Self {
            durability: topic.durability(broker),
            batch_bytes_max: topic.message_bytes_max,
            log: topic.log_config(broker, id),
            retention: topic.retention(),
        }
    }
}

/// How many wait for one log on threads of the pool. With one alone each append would wait for a thread to be woken:
/// a crowd's 99th percentile was more than twice as long.
const TURNS: usize = 4;

/// One partition.
pub(crate) struct Partition {
    id: TopicPartition,
    /// Replaced under the log's lock, so that an append sees one set of them.
    settings: ArcSwap<Settings>,
    log: Mutex<Slot>,
    /// [`TURNS`] at a time wait for `log` on threads of the pool; the others wait here, which takes no thread.
    turn: Arc<Semaphore>,
    /// The leader epoch while the partition is in service, else -1. Beside the log, so that reads need no lock.
    epoch: AtomicI32,
    view: OnceLock<Arc<LogView>>,
    /// What the log was like when the partition came into service, if it was not opened for that.
    dormant: OnceLock<Dormant>,
    /// The log, which is not open, is not worth compacting by the settings in force.
    clean_at_rest: AtomicBool,
    high_watermark: Mutex<LogPoint>,
    sync_mark: SyncMark,
    /// A write failed and the log must be cut before it takes more.
    broken: AtomicBool,
    /// Which of its lost ranges were read through.
    pub(crate) reread: Reread,
    pub(crate) acks: AckQueue,
    pub(crate) fetches: Watchers,
}

/// Where the log is in its life.
enum Slot {
    Recovering,
    /// In service; the first use opens it.
    Dormant(Arc<LogOpener>),
    Open(Box<Log>),
    /// Something that passes kept it from being opened at the start, and it is tried again. This is true of it.
    Waiting(Option<LogCheckpoint>),
    /// It cannot be opened, and this is still true of it.
    Failed(Option<LogCheckpoint>),
    Closed,
}

/// What `epoch` says while the partition is not in service.
const NO_EPOCH: i32 = -1;

/// The partition has not recovered yet, or is gone: the client must ask for metadata again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NotLeader;

/// An append that the log took.
pub(crate) struct Accepted {
    pub(crate) appended: Appended,
    pub(crate) log_start: Offset,
    pub(crate) ack: Ack,
}

/// An append that the log did not take.
#[derive(Debug)]
pub(crate) enum Refused {
    NotLeader,
    /// Its time was over before the log was free. It may be stored or not.
    TimedOut,
    Log(AppendError),
}

/// Whether a sync reached the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Synced {
    /// It did, or there was nothing to do.
    Tried,
    /// There was no descriptor to sync with.
    Postponed,
}

/// What is to become of a partition after a sync thread has seen to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AfterSync {
    /// Nothing: everything is durable.
    Done,
    /// It must be synced again at once: more was appended meanwhile.
    Now,
    /// It must be synced again when this time has passed.
    Within(Duration),
}

impl From<Durability> for AfterSync {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Interval(every) => Self::Within(every),
            Durability::Fsync | Durability::Os => Self::Now,
        }
    }
}

/// How soon a sync that could not be tried is tried again.
const POSTPONED: Duration = Duration::from_millis(50);

impl Partition {
    /// A partition whose log is not open yet.
    pub(crate) fn recovering(id: TopicPartition, settings: Arc<Settings>) -> Self {
        Self {
            id,
            settings: ArcSwap::new(settings),
            log: Mutex::new(Slot::Recovering),
            turn: Arc::new(Semaphore::new(TURNS)),
            epoch: AtomicI32::new(NO_EPOCH),
            view: OnceLock::new(),
            dormant: OnceLock::new(),
            clean_at_rest: AtomicBool::new(false),
            high_watermark: Mutex::new(LogPoint::default()),
            sync_mark: SyncMark::idle(),
            broken: AtomicBool::new(false),
            reread: Reread::default(),
            acks: AckQueue::default(),
            fetches: Watchers::default(),
        }
    }

    /// Topic and number.
    pub(crate) const fn id(&self) -> &TopicPartition {
        &self.id
    }

    /// Largest batch that the partition takes, in bytes (`max.message.bytes`).
    pub(crate) fn message_bytes_max(&self) -> u32 {
        self.settings.load().batch_bytes_max
    }

    /// What the log is like by the settings in force.
    pub(crate) fn log_config(&self) -> LogConfig {
        self.settings.load().log.clone()
    }

    /// Whether records need a key: they do where the log is compacted.
    pub(crate) fn keys(&self) -> Keys {
        if self.settings.load().log.compaction.is_some() { Keys::Required } else { Keys::Optional }
    }

    /// What an acknowledgement waits for.
    pub(crate) fn durability(&self) -> Durability {
        self.settings.load().durability
    }

    /// Puts other settings in force, from the next append on.
    ///
    /// What was appended before is synced soon if they ask for it, and is shown at once if they no longer do.
    pub(crate) fn change_settings(self: &Arc<Self>, settings: Arc<Settings>, scheduler: &SyncScheduler) {
        let mut slot = self.log.lock();
        let durability = settings.durability;
        let before = self.settings.swap(Arc::clone(&settings));
        self.clean_at_rest.store(false, Ordering::Relaxed);
        if let Slot::Open(log) = &mut *slot {
            log.set_config(settings.log.clone());
            if durability != Durability::Fsync && durability != before.durability {
                // While the log is held: a cut that comes in between would be undone.
                self.advance(log.view().end());
            }
        }
        drop(slot);
        if durability != before.durability && durability != Durability::Os {
            // The partition may be queued for a time that is now too late.
            scheduler.urge(self);
        }
    }

    /// Brings a log into service under `epoch`. All of it is durable, and all of it may be read.
    pub(crate) fn open(&self, mut log: Log, epoch: LeaderEpoch) {
        let view = log.view();
        let mut slot = self.log.lock();
        if !matches!(*slot, Slot::Recovering | Slot::Waiting(_)) {
            return;
        }
        // They may have changed while the log was recovering.
        log.set_config(self.settings.load().log.clone());
        *self.high_watermark.lock() = view.durable();
        *slot = Slot::Open(Box::new(log));
        // Set once, under the slot's lock: a second call never gets here.
        let _ = self.view.set(view);
        self.epoch.store(epoch.get(), Ordering::Release);
    }

    /// The leader epoch; the ownership check that every handler goes through.
    pub(crate) fn leader_epoch(&self) -> Result<LeaderEpoch, NotLeader> {
        LeaderEpoch::new(self.epoch.load(Ordering::Acquire)).ok_or(NotLeader)
    }

    /// What consumers may see: everything below.
    pub(crate) fn high_watermark(&self) -> Offset {
        self.high_watermark.lock().offset
    }

    /// Appends if the owner's lock is free and the log is open, else gives the batch back.
    pub(crate) fn try_append(
        self: &Arc<Self>,
        batch: &Batch,
        now: TimestampMs,
        scheduler: &SyncScheduler,
    ) -> Option<Result<Accepted, Refused>> {
        for _ in 0..LOCK_TRIES {
            if let Some(slot) = self.log.try_lock() {
                if matches!(*slot, Slot::Dormant(_)) {
                    return None;
                }
                return Some(self.append_locked(slot, batch, now, scheduler));
            }
            std::hint::spin_loop();
        }
        None
    }

    /// The right to append on a thread of the pool, first come, first served.
    pub(crate) async fn turn(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.turn).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// The same if nobody has it or waits for it.
    pub(crate) fn try_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turn).try_acquire_owned().ok()
    }

    /// Appends, waiting for the owner's lock and for the log to be opened: not for reactor threads.
    pub(crate) fn append(
        self: &Arc<Self>,
        batch: &Batch,
        now: TimestampMs,
        scheduler: &SyncScheduler,
    ) -> Result<Accepted, Refused> {
        let mut slot = self.log.lock();
        self.wake(&mut slot);
        self.append_locked(slot, batch, now, scheduler)
    }

    /// The same, unless the log is not free before `deadline`: then nothing is appended, so that what a client was told
    /// has timed out does not come in after what it sent since. For whoever has the [`Self::turn`].
    pub(crate) fn append_until(
        self: &Arc<Self>,
        batch: &Batch,
        now: TimestampMs,
        scheduler: &SyncScheduler,
        deadline: Instant,
    ) -> Result<Accepted, Refused> {
        let slot = self.log.try_lock_until(deadline).filter(|_| Instant::now() < deadline);
        let mut slot = slot.ok_or(Refused::TimedOut)?;
        self.wake(&mut slot);
        // Opening a log may take long.
        if Instant::now() >= deadline {
            return Err(Refused::TimedOut);
        }
        self.append_locked(slot, batch, now, scheduler)
    }

    fn append_locked(
        self: &Arc<Self>,
        mut slot: MutexGuard<'_, Slot>,
        batch: &Batch,
        now: TimestampMs,
        scheduler: &SyncScheduler,
    ) -> Result<Accepted, Refused> {
        let Slot::Open(log) = &mut *slot else { return Err(Refused::NotLeader) };
        let epoch = LeaderEpoch::new(self.epoch.load(Ordering::Acquire)).ok_or(Refused::NotLeader)?;
        let appended = match log.append(batch, epoch, now) {
            Ok(appended) => appended,
            Err(error) => {
                if matches!(error, AppendError::Io(_) | AppendError::Failed) {
                    // The log must be cut before it takes more; that is work for a sync thread.
                    self.broken.store(true, Ordering::Release);
                    scheduler.urge(self);
                }
                return Err(Refused::Log(error));
            }
        };
        if appended.duplicate {
            crate::metrics::count_duplicate();
        } else {
            crate::metrics::count_append(batch.bytes().len(), batch.header().record_count);
            scheduler.appended().count(batch.bytes().len() as u64);
        }
        let (end, log_start) = (log.view().end(), log.view().log_start());
        // Queued while the log is held: a failed sync that cuts this append off also finds its acknowledgement.
        let last = appended.last_offset.advance(1);
        let ack = self.acks.wait(last, || self.high_watermark() >= last);
        let durability = self.durability();
        if durability != Durability::Fsync {
            // Also while the log is held: a cut that comes in between would be undone.
            self.advance(end);
        }
        let filled = log.has_sealed();
        drop(slot);

        match durability {
            Durability::Fsync => scheduler.request(self),
            Durability::Interval(every) => scheduler.request_within(self, every),
            // So that the recovery point moves, and a kill costs a scan of what was appended since.
            Durability::Os if filled => scheduler.request_filled(self),
            Durability::Os => {}
        }
        Ok(Accepted { appended, log_start, ack })
    }

    /// Moves the high watermark to `point`, if that is ahead, and tells those who wait.
    pub(crate) fn advance(&self, point: LogPoint) {
        let mut watermark = self.high_watermark.lock();
        if point.offset <= watermark.offset {
            return;
        }
        let bytes = point.bytes.saturating_sub(watermark.bytes);
        *watermark = point;
        drop(watermark);
        // In this order: who polls a fetch session after an acknowledgement must find the partition marked.
        self.fetches.credit(bytes);
        self.acks.release(point.offset);
    }

    /// Notes that something wants to be synced. True if the partition must be put into the queue.
    pub(crate) fn mark_dirty(&self) -> bool {
        self.sync_mark.mark()
    }

    /// Syncs what is appended, without the owner's lock while the disk works. Called by a sync thread that took
    /// the partition from the queue.
    pub(crate) fn sync(&self, next_epoch: impl FnOnce() -> Option<LeaderEpoch>) -> AfterSync {
        self.sync_mark.begin();
        let mut synced = Synced::Tried;
        if self.broken.swap(false, Ordering::AcqRel) {
            self.mend(next_epoch());
        } else if let Some(job) = self.with_log(Log::begin_sync).flatten() {
            let began = Instant::now();
            let result = job.run();
            crate::metrics::observe_sync(began.elapsed());
            // A new epoch is a metadata transaction: only a failure of a partition in service needs one.
            let epoch = if result.is_err() && self.leader_epoch().is_ok() { next_epoch() } else { None };
            synced = self.finish_sync(job, result, epoch);
        }
        match synced {
            Synced::Postponed => {
                self.sync_mark.requeue();
                AfterSync::Within(POSTPONED)
            }
            Synced::Tried if self.sync_mark.end() => AfterSync::Done,
            Synced::Tried => self.durability().into(),
        }
    }

    /// Takes note of what a sync said; after a failure the partition goes on under `epoch`.
    pub(crate) fn finish_sync(
        &self,
        job: SyncJob,
        result: io::Result<()>,
        epoch: Option<LeaderEpoch>,
    ) -> Synced {
        let mut slot = self.log.lock();
        let Slot::Open(log) = &mut *slot else { return Synced::Tried };
        let Some(epoch) = self.enter_epoch(epoch) else { return Synced::Tried };
        match log.finish_sync(job, result, epoch) {
            SyncOutcome::Durable(point) => self.advance(point),
            SyncOutcome::Superseded => {}
            SyncOutcome::Postponed(error) => {
                tracing::warn!(partition = %self.id, %error, "no descriptor to sync with; it is tried again shortly");
                return Synced::Postponed;
            }
            SyncOutcome::Failed { error, end, resumed } => {
                crate::metrics::count_sync_failure();
                tracing::error!(
                    partition = %self.id, %error, durable_end = %end.offset, resumed,
                    "a sync failed: what was not acknowledged is cut, the partition goes on in a new segment"
                );
                self.cut_back(end);
            }
        }
        Synced::Tried
    }

    /// Cuts a log that a failed write closed, so that it takes appends again under `epoch`.
    fn mend(&self, epoch: Option<LeaderEpoch>) {
        let mut slot = self.log.lock();
        let Slot::Open(log) = &mut *slot else { return };
        let Some(epoch) = epoch.and_then(|epoch| self.enter_epoch(Some(epoch))) else {
            // Without a new epoch nobody could notice that the log was cut.
            tracing::error!(partition = %self.id, "no new leader epoch is to be had; the next append tries again");
            return;
        };
        // Under `fsync` that is the durable end; otherwise what was acknowledged is in the file and stays.
        match log.resume(epoch, self.high_watermark()) {
            Ok(end) => {
                tracing::warn!(partition = %self.id, end = %end.offset, "a failed write was cut off, appends go on");
                self.cut_back(end);
            }
            Err(error) => {
                tracing::error!(partition = %self.id, %error, "the partition takes no appends; the next one tries again");
            }
        }
    }

    /// The epoch in force after taking up a new one, if there is one; `None` if the partition is out of service.
    fn enter_epoch(&self, new: Option<LeaderEpoch>) -> Option<LeaderEpoch> {
        if let Some(epoch) = new {
            self.epoch.store(epoch.get(), Ordering::Release);
        }
        LeaderEpoch::new(self.epoch.load(Ordering::Acquire))
    }

    /// After the log was cut to `end`, with its owner's lock held: nobody may wait for, or see, what is gone.
    fn cut_back(&self, end: LogPoint) {
        self.acks.release(end.offset);
        self.acks.fail(Lost::SyncFailed);
        *self.high_watermark.lock() = end;
        self.fetches.disturb();
    }

    /// What the checkpoint file should say about the partition. A log that was not opened is what it was; one that
    /// cannot be opened has no outline, so that every start tries it.
    pub(crate) fn checkpoint(&self) -> Option<(LogCheckpoint, Option<LogOutline>)> {
        match &*self.log.lock() {
            Slot::Open(log) => Some((log.checkpoint(), log.outline())),
            Slot::Dormant(_) => self.dormant.get().map(|dormant| (dormant.known, Some(dormant.outline))),
            Slot::Waiting(known) | Slot::Failed(known) => known.map(|known| (known, None)),
            Slot::Recovering | Slot::Closed => None,
        }
    }

    /// Runs `change` on the open log under the owner's lock.
    pub(crate) fn with_log<T>(&self, change: impl FnOnce(&mut Log) -> T) -> Option<T> {
        match &mut *self.log.lock() {
            Slot::Open(log) => Some(change(log)),
            _ => None,
        }
    }

    /// Moves the log's start forward, as far as the log reaches; who waits for the partition hears of it. `None` if it
    /// is not in service. The job removes the files below; the start is where the log begins now.
    pub(crate) fn delete_before(&self, start: Offset) -> Option<Result<(RemovalJob, Offset), CutError>> {
        self.open_view().ok()?;
        let moved = self.with_log(|log| {
            if start == log.view().end().offset
                && let Err(error) = log.roll(clock::now())
            {
                tracing::warn!(
                    partition = %self.id, %error,
                    "cannot start a new segment, so the file of the last one stays although all of it is deleted"
                );
            }
            log.delete_before(start).map(|job| (job, log.view().log_start()))
        });
        self.fetches.disturb();
        moved
    }

    /// Gives back the space that its log has reserved. Waits for the disk.
    pub(crate) fn give_back_space(&self) {
        if let Some(Err(error)) = self.with_log(Log::give_back_space) {
            tracing::warn!(partition = %self.id, %error, "cannot give back reserved space");
        }
    }

    /// Takes the partition out of service; waits for a running append. The log is handed back for closing.
    pub(crate) fn close(&self) -> Option<Log> {
        let slot = std::mem::replace(&mut *self.log.lock(), Slot::Closed);
        self.epoch.store(NO_EPOCH, Ordering::Release);
        self.acks.fail(Lost::Closed);
        self.fetches.disturb();
        match slot {
            Slot::Open(log) => Some(*log),
            _ => None,
        }
    }

    /// Stores the producers' state if nothing was appended since the last sync, so that a start after a kill need
    /// not walk the log for it. Waits for the disk, without the owner's lock.
    pub(crate) fn store_producers(&self) {
        let Some(job) = self.with_log(|log| log.sidecar_job()).flatten() else { return };
        match job.run() {
            Ok(()) => {
                self.with_log(|log| log.finish_sidecar(&job));
            }
            // Deleted meanwhile.
            Err(_) if self.leader_epoch().is_err() => {}
            Err(error) => {
                tracing::warn!(partition = %self.id, %error, "producer state is not stored; the next start walks the log for it");
            }
        }
    }
}
