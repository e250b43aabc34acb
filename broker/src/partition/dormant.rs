//! A partition in service whose log is not open: what it answers by what the checkpoint knew, and how its first use
//! opens the log (ADR 16).
//!
//! Invariants: (1) nothing was appended behind the recovery point of a dormant log, so its end, its high watermark and
//! its durable end are one; (2) a log is opened once, under its owner's lock, and never on a reactor thread; (3) what
//! was told of a dormant log stays true when it is open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_record::{LeaderEpoch, Offset, TimestampMs};
use highwater_storage::{Log, LogCheckpoint, LogOutline, LogPoint, LogView, Retention};

use super::{NO_EPOCH, NotLeader, Partition, Slot};
use crate::log_opener::LogOpener;
use crate::waiters::Lost;

/// What is known of a log that is not open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dormant {
    pub(crate) known: LogCheckpoint,
    pub(crate) outline: LogOutline,
}

impl Dormant {
    /// Whether the log has more than is kept.
    pub(super) fn exceeds(&self, retention: Retention, now: TimestampMs) -> bool {
        retention.exceeds(&self.outline, now)
    }

    /// A log without a directory, which begins and ends at `start`.
    pub(crate) const fn empty(start: Offset) -> Self {
        let known = LogCheckpoint { log_start: start, recovery_point: start, high_watermark: start };
        Self { known, outline: LogOutline::EMPTY }
    }
}

/// What can be told of a log whether it is open or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Standing {
    pub(crate) log_start: Offset,
    /// The appended end.
    pub(crate) end: Offset,
    /// Bytes of its segments.
    pub(crate) size_bytes: u64,
    /// The epoch of its first record.
    pub(crate) first_epoch: Option<LeaderEpoch>,
    /// The epoch of its last record.
    pub(crate) latest_epoch: Option<LeaderEpoch>,
}

impl Standing {
    fn of_view(view: &LogView) -> Self {
        let log_start = view.log_start();
        Self {
            log_start,
            end: view.end().offset,
            size_bytes: view.size_bytes(),
            first_epoch: view.epoch_of(log_start),
            latest_epoch: view.latest_epoch(),
        }
    }

    const fn of_dormant(dormant: &Dormant) -> Self {
        let Dormant { known, outline } = dormant;
        Self {
            log_start: known.log_start,
            end: known.recovery_point,
            size_bytes: outline.size_bytes,
            first_epoch: outline.first_epoch,
            latest_epoch: outline.latest_epoch,
        }
    }

    /// Whether the log reaches over `offset`.
    pub(crate) fn has(&self, offset: Offset) -> bool {
        self.log_start <= offset && offset < self.end
    }

    /// Whether the log has no records.
    pub(crate) fn is_empty(&self) -> bool {
        self.log_start == self.end
    }
}

impl Partition {
    /// Brings a partition into service under `epoch` without opening its log, which `opener` does when it is needed.
    pub(crate) fn rest(&self, dormant: Dormant, opener: &Arc<LogOpener>, epoch: LeaderEpoch) {
        let mut slot = self.log.lock();
        if !matches!(*slot, Slot::Recovering) {
            return;
        }
        *self.high_watermark.lock() = LogPoint { offset: dormant.known.recovery_point, bytes: 0 };
        // Set once, under the slot's lock: a second call never gets here.
        let _ = self.dormant.set(dormant);
        *slot = Slot::Dormant(Arc::clone(opener));
        self.epoch.store(epoch.get(), Ordering::Release);
    }

    /// What can be told of the log without the disk. Like a read side that is held, it outlives the partition's service.
    pub(crate) fn standing(&self) -> Result<Standing, NotLeader> {
        if let Some(view) = self.view.get() {
            return Ok(Standing::of_view(view));
        }
        self.leader_epoch()?;
        self.dormant.get().map(Standing::of_dormant).ok_or(NotLeader)
    }

    /// The read side, if the log is open.
    pub(crate) fn view_if_open(&self) -> Option<&Arc<LogView>> {
        self.view.get()
    }

    /// The read side; opens a log that is not open. Waits for the disk: not for reactor threads, unless
    /// [`Partition::view_if_open`] has one.
    pub(crate) fn open_view(&self) -> Result<&Arc<LogView>, NotLeader> {
        if self.view.get().is_none() {
            self.wake(&mut self.log.lock());
        }
        self.view.get().ok_or(NotLeader)
    }

    /// Opens a dormant log that may be worth compacting; one that is not is not looked at again. Waits for the disk.
    pub(crate) fn wake_if_dirty(&self) {
        if self.view.get().is_some() || self.clean_at_rest.load(Ordering::Relaxed) {
            return;
        }
        let mut slot = self.log.lock();
        let (Slot::Dormant(opener), Some(dormant)) = (&*slot, self.dormant.get()) else { return };
        if opener.may_be_dirty(&self.id, &dormant.outline, &self.log_config()) {
            self.wake(&mut slot);
        } else {
            self.clean_at_rest.store(true, Ordering::Relaxed);
        }
    }

    /// Opens the log if it is dormant. One that cannot be opened is out of service from here on.
    pub(super) fn wake(&self, slot: &mut Slot) {
        let Slot::Dormant(opener) = slot else { return };
        let Some(dormant) = self.dormant.get() else { return };
        match opener.open_durably(&self.id, self.log_config(), Some(dormant.known)) {
            Ok(log) => self.put_in(slot, log),
            Err(error) if error.is_passing() => {
                tracing::warn!(partition = %self.id, %error, "cannot open a partition now; its next use tries again");
            }
            Err(error) => {
                opener.progress().fail_later(&self.id, &error);
                self.put_aside(slot, Some(dormant.known));
            }
        }
    }

    fn put_in(&self, slot: &mut Slot, log: Log) {
        let view = log.view();
        *slot = Slot::Open(Box::new(log));
        let _ = self.view.set(Arc::clone(&view));
        // Usually where it is already.
        self.advance(view.durable());
    }

    /// Takes a partition out of service, or never into it: its log cannot be opened. `known` is still true of it.
    pub(super) fn put_aside(&self, slot: &mut Slot, known: Option<LogCheckpoint>) {
        *slot = Slot::Failed(known);
        self.epoch.store(NO_EPOCH, Ordering::Release);
        self.acks.fail(Lost::Closed);
        self.fetches.disturb();
    }

    /// Keeps a partition out of service that something passing keeps from being opened at the start: it is tried again.
    pub(crate) fn wait(&self, known: Option<LogCheckpoint>) {
        let mut slot = self.log.lock();
        if matches!(*slot, Slot::Recovering) {
            *slot = Slot::Waiting(known);
        }
    }

    /// Whether the partition is going to be opened, although the start is over.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(*self.log.lock(), Slot::Waiting(_))
    }

    /// Keeps a partition out of service that cannot be opened at the start.
    pub(crate) fn stay_out(&self, known: Option<LogCheckpoint>) {
        self.put_aside(&mut self.log.lock(), known);
    }
}
