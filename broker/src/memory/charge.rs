//! Permits for memory: who wants some stands in line, and a charge gives back what it holds when it is dropped.
//!
//! The line is tokio's semaphore, which is fair: whoever asks for much is not overtaken by those who ask for little.
//! Knows nothing of what the memory is for.
//!
//! Invariants: (1) what a lane has handed out never exceeds its size; (2) memory is counted as used after its permits
//! are taken and before they are given back, so that the count never exceeds the permits; (3) a wait that is given up
//! leaves nothing taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What one permit stands for. Charges are rounded up to it.
pub(super) const UNIT_BYTES: u64 = 1024;

/// How much is used now, and how much was at most.
#[derive(Default)]
pub(super) struct Ledger {
    used: AtomicU64,
    peak: AtomicU64,
}

impl Ledger {
    fn take(&self, units: u64) {
        let used = self.used.fetch_add(units * UNIT_BYTES, Ordering::AcqRel) + units * UNIT_BYTES;
        self.peak.fetch_max(used, Ordering::AcqRel);
    }

    fn give(&self, units: u64) {
        self.used.fetch_sub(units * UNIT_BYTES, Ordering::AcqRel);
    }

    /// Bytes that are charged now.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The most bytes that were ever charged at once.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Acquire)
    }
}

/// Who stands in line.
#[derive(Default)]
struct Line {
    waiting: usize,
    /// Since when somebody has been waiting without a break.
    since: Option<Instant>,
}

/// Memory that is handed out first come, first served.
pub(super) struct Lane {
    permits: Arc<Semaphore>,
    units: u32,
    line: Mutex<Line>,
}

/// Counts as waiting until it is dropped.
pub(super) struct InLine<'a>(&'a Lane);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut line = self.0.line.lock();
        line.waiting -= 1;
        if line.waiting == 0 {
            line.since = None;
        }
    }
}

impl Lane {
    /// A lane of `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        Self { permits: Arc::new(Semaphore::new(units as usize)), units, line: Mutex::default() }
    }

    /// The permits for `units` if nobody waits and they are there.
    pub(super) fn try_take(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_many_owned(units).ok()
    }

    /// The permits for `units`, when it is their turn. Never, if the lane is smaller than that.
    pub(super) async fn take(&self, units: u32) -> OwnedSemaphorePermit {
        if units > self.units {
            return std::future::pending().await;
        }
        let acquired = Arc::clone(&self.permits).acquire_many_owned(units).await;
        acquired.expect("the semaphore is never closed")
    }

    /// Whoever keeps the result counts as waiting.
    pub(super) fn stand_in_line(&self) -> InLine<'_> {
        let mut line = self.line.lock();
        line.waiting += 1;
        line.since.get_or_insert_with(Instant::now);
        InLine(self)
    }

    /// A charge for `bytes`, or for the whole lane if it is smaller than that.
    pub(super) async fn charge(&self, ledger: &Arc<Ledger>, bytes: u64) -> Charge {
        if let Some(charge) = self.try_charge(ledger, bytes) {
            return charge;
        }
        let _in_line = self.stand_in_line();
        Charge::of(ledger, self.take(units_of(bytes).min(self.units)).await)
    }

    /// The same if nobody waits and it is there.
    pub(super) fn try_charge(&self, ledger: &Arc<Ledger>, bytes: u64) -> Option<Charge> {
        self.try_take(units_of(bytes).min(self.units)).map(|permit| Charge::of(ledger, permit))
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.line.lock().waiting
    }

    /// Since when somebody has been waiting without a break.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.line.lock().since
    }

    #[cfg(test)]
    pub(super) fn free_bytes(&self) -> u64 {
        self.permits.available_permits() as u64 * UNIT_BYTES
    }

    /// Its size.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT_BYTES
    }
}

/// How many permits `bytes` need.
pub(super) fn units_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Memory that its owner may hold. Given back when dropped.
pub(crate) struct Charge {
    ledger: Arc<Ledger>,
    permit: Option<OwnedSemaphorePermit>,
    /// The right to take from the reserve.
    pub(super) pass: Option<OwnedSemaphorePermit>,
    /// Units that are held and counted without a permit: of the reserve, or of an answer that outgrew its estimate.
    beyond: u64,
}

impl Charge {
    /// A charge of no bytes.
    pub(super) fn nothing(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), permit: None, pass: None, beyond: 0 }
    }

    /// A charge of what `permit` stands for.
    pub(super) fn of(ledger: &Arc<Ledger>, permit: OwnedSemaphorePermit) -> Self {
        let mut charge = Self::nothing(ledger);
        charge.add(permit);
        charge
    }

    /// Adds what `permit` stands for.
    pub(super) fn add(&mut self, permit: OwnedSemaphorePermit) {
        self.ledger.take(permit.num_permits() as u64);
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
    }

    /// Adds `units` that no permit stands for.
    pub(super) fn add_beyond(&mut self, units: u32) {
        self.ledger.take(units.into());
        self.beyond += u64::from(units);
    }

    /// Gives back `bytes`, permits first: others wait for those.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        let units = (bytes / UNIT_BYTES).min(self.units());
        self.ledger.give(units);
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) as u64;
        let of_permit = units.min(held);
        self.beyond -= units - of_permit;
        if let Some(permit) = &mut self.permit {
            drop(permit.split(usize::try_from(of_permit).unwrap_or(usize::MAX)));
        }
    }

    /// Settles on `bytes`. What was too much goes back; what is missing is counted at once, since it is held already.
    pub(crate) fn settle(&mut self, bytes: u64) {
        let wanted = u64::from(units_of(bytes));
        match wanted.checked_sub(self.units()) {
            None | Some(0) => self.give_back((self.units() - wanted) * UNIT_BYTES),
            Some(missing) => self.add_beyond(u32::try_from(missing).unwrap_or(u32::MAX)),
        }
    }

    fn units(&self) -> u64 {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) as u64 + self.beyond
    }

    /// What is held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.units() * UNIT_BYTES
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.give(self.units());
    }
}
