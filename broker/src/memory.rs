//! The memory budget: what requests and answers hold in all, kept by making connections wait.
//!
//! Memory is charged before it is allocated and given back when its last owner drops it. Who wants what is not there
//! stops reading its socket until it is its turn, first come, first served; nobody is refused for it. Small requests
//! have a share of their own, so that a heartbeat never waits for a neighbour's 16 MiB. Produce requests hold their memory
//! for as long as the disk takes, so nobody but them waits for that: of the small frames a part is kept from them, and
//! what waits for its acknowledgement is charged to another share than answers are.
//!
//! It cannot deadlock. Shares are asked for in one order: small frame, large frame, answer, scratch. Only a large frame
//! asks for more of the share that it holds of, as its bytes arrive; when all wait in the middle of their frames, one
//! at a time holds the pass and is completed out of the reserve, which is as large as the largest frame allowed. Who
//! dawdles while others wait is disconnected (`inbound`). Answers end when the client has read them or is given up.
//!
//! Not charged, but bounded where they are made: the pieces of segment files in an answer, which leave by `sendfile`
//! and are never in this process; consumer groups (10,000 of 1,000 members, `highwater-group`); what partitions remember
//! of producers (10,000 each, `highwater-storage`); fetch sessions (`fetch/cache`); what a parked fetch remembers of its
//! partitions, each of which exists; and a connection by itself (under 20 KiB; HTTP: 64 KiB). What members of groups
//! bring stays, so that waiting for it makes no sense: it has a share, and is refused above it. The system's socket
//! buffers and its page cache are not this process's memory at all.

mod charge;
mod machine;
mod size;

use std::sync::Arc;
use std::time::Duration;

use highwater_record::DecodeLimits;
use tokio::time::Instant;

pub(crate) use charge::Charge;
use charge::{Lane, Ledger, units_of};
pub(crate) use machine::{default_budget, resident_peak_bytes};
use size::OWN_BYTES;
pub(crate) use size::{Bytes, bytes_of};
pub use size::{MemoryOrigin, MemorySize, MemorySizeError};

/// The buffer of small frames.
pub(crate) const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// The largest receive buffer that is used again. While a frame moves into a larger one it holds both.
pub(crate) const POOLED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most bytes that one decompression may make, if the budget is large.
const DECODE_BYTES_MAX: u64 = DecodeLimits::STORED.bytes_max as u64;
/// The same if it is small: more than twice what a batch may be by default, since most clients bound one before they
/// compress it.
const DECODE_BYTES_MIN: u64 = 5 << 19;
/// How many times its output a decompression takes: the output grows by doubling.
const DECODE_GROWTH: u64 = 2;
/// Decompressions at once, if there is scratch memory for all of them.
pub(crate) const DECODES_MAX: usize = 2;
/// What reading a cold range takes on the pool (`FileRange::warm`).
const COLD_READ_BYTES: u64 = 256 << 10;
/// The least that is set aside for decompression and cold reads: one decompression at a time.
const SCRATCH_BYTES_MIN: u64 = DECODE_GROWTH * DECODE_BYTES_MIN;
/// The most that is set aside for decompression and cold reads.
const SCRATCH_BYTES_MAX: u64 = DECODES_MAX as u64 * DECODE_GROWTH * DECODE_BYTES_MAX + (128 << 20);
/// The most that members of groups may bring and be assigned.
const MEMBERS_BYTES_MAX: u64 = 128 << 20;
/// The most unused receive buffers that are kept.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// The least that is left for large frames besides the reserve: one moves into a buffer of 1 MiB, with others beside it.
const LARGE_BYTES_MIN: u64 = 3 << 19;
/// Memory for large frames is short when somebody has been waiting for this long.
const LARGE_SHORT_AFTER: Duration = Duration::from_secs(5);
/// The same for small frames, among which are the first ones of clients that wait no more than seconds for anything.
const SMALL_SHORT_AFTER: Duration = Duration::from_secs(1);

/// What a frame asks for, as far as its memory depends on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FrameKind {
    /// To append records: its frame may be held for as long as the disk takes.
    Produce,
    /// Anything else.
    Call,
}

/// Whose memory a frame holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FrameShare {
    Small,
    Large,
}

/// Who gets how much of a budget, in bytes. Together with [`OWN_BYTES`] they are the budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Shares {
    /// For the one frame that may always complete.
    reserve: u64,
    /// For frames that fit a connection's own buffer.
    small: u64,
    /// For those of them that append nothing, when there is no more of `small`.
    calls: u64,
    /// For all other frames.
    large: u64,
    /// For answers from the time when they are begun until they have left.
    answers: u64,
    /// The same for answers that wait for their records to be durable.
    pending: u64,
    /// For decompression and cold reads.
    scratch: u64,
    /// For receive buffers that nobody uses.
    kept: u64,
    /// For what the members of groups bring and are assigned.
    members: u64,
}

impl Shares {
    fn of(budget: MemorySize, request_bytes_max: u32) -> Self {
        let all = budget.bytes() - OWN_BYTES;
        let scratch = (all / 8).clamp(SCRATCH_BYTES_MIN, SCRATCH_BYTES_MAX);
        let kept = (all / 32).min(KEPT_BYTES_MAX);
        let members = (all / 16).min(MEMBERS_BYTES_MAX);
        let (small, calls, answers, pending) = (all / 16, all / 32, all / 16, all / 32);
        let left = all - scratch - kept - members - small - calls - answers - pending;
        let wanted = u64::from(request_bytes_max) + POOLED_BYTES_MAX as u64;
        let reserve = wanted.min(all / 2).min(left - LARGE_BYTES_MIN);
        Self { reserve, small, calls, large: left - reserve, answers, pending, scratch, kept, members }
    }

    /// The largest frame: one that moves between two buffers fits the reserve. Pooled buffers grow fourfold.
    fn frame_bytes_max(self) -> u32 {
        let pooled = POOLED_BYTES_MAX as u64;
        let beyond_the_pool = self.reserve - pooled;
        let bytes =
            if beyond_the_pool > pooled { beyond_the_pool } else { pooled.min(self.reserve - pooled / 4) };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// The largest request that a broker with this budget can receive, in bytes.
pub(crate) fn frame_bytes_max(budget: MemorySize, request_bytes_max: u32) -> u32 {
    Shares::of(budget, request_bytes_max).frame_bytes_max()
}

/// The budget of one broker.
pub(crate) struct Memory {
    budget: MemorySize,
    shares: Shares,
    ledger: Arc<Ledger>,
    small: Lane,
    calls: Lane,
    large: Lane,
    answers: Lane,
    pending: Lane,
    scratch: Lane,
    /// The right to the reserve.
    pass: Lane,
}

/// A reading of the budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryUse {
    pub(crate) budget_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) peak_bytes: u64,
    /// How many wait for their turn.
    pub(crate) waiting: usize,
}

impl Memory {
    /// Hands out `budget`. A request of `request_bytes_max` completes if the budget has room for it.
    pub(crate) fn new(budget: MemorySize, request_bytes_max: u32) -> Self {
        let shares = Shares::of(budget, request_bytes_max);
        Self {
            budget,
            shares,
            ledger: Arc::default(),
            small: Lane::new(shares.small),
            calls: Lane::new(shares.calls),
            large: Lane::new(shares.large),
            answers: Lane::new(shares.answers),
            pending: Lane::new(shares.pending),
            scratch: Lane::new(shares.scratch),
            pass: Lane::new(charge::UNIT_BYTES),
        }
    }

    /// The buffer of a small frame if it need not be waited for.
    pub(crate) fn try_small_frame(&self) -> Option<Charge> {
        self.small.try_charge(&self.ledger, SMALL_BUFFER_BYTES as u64)
    }

    /// The buffer of a small frame of this kind.
    pub(crate) async fn small_frame(&self, kind: FrameKind) -> Charge {
        const BYTES: u64 = SMALL_BUFFER_BYTES as u64;
        match (kind, self.try_small_frame()) {
            (_, Some(charge)) => charge,
            (FrameKind::Produce, None) => self.small.charge(&self.ledger, BYTES).await,
            (FrameKind::Call, None) => tokio::select! {
                biased;
                charge = self.calls.charge(&self.ledger, BYTES) => charge,
                permit = self.small.take(units_of(BYTES)) => Charge::of(&self.ledger, permit),
            },
        }
    }

    /// A large frame of which nothing is held yet.
    pub(crate) fn large_frame(&self) -> Charge {
        Charge::nothing(&self.ledger)
    }

    /// `bytes` more of a large frame: when it is its turn, or out of the reserve when that is free.
    pub(crate) async fn extend(&self, frame: &mut Charge, bytes: usize) {
        let units = units_of(bytes as u64);
        if frame.pass.is_none() {
            if let Some(permit) = self.large.try_take(units) {
                return frame.add(permit);
            }
            let _in_line = self.large.stand_in_line();
            tokio::select! {
                biased;
                permit = self.large.take(units) => return frame.add(permit),
                pass = self.pass.take(1) => frame.pass = Some(pass),
            }
        }
        frame.add_beyond(units);
    }

    /// Whether somebody has been waiting for memory of `share` for so long that those who hold it must hurry.
    pub(crate) fn is_short(&self, share: FrameShare, now: Instant) -> bool {
        let waits = |lane: &Lane, after| {
            lane.waiting_since().is_some_and(|since| now.saturating_duration_since(since) >= after)
        };
        match share {
            FrameShare::Small => {
                [&self.small, &self.calls].into_iter().any(|lane| waits(lane, SMALL_SHORT_AFTER))
            }
            FrameShare::Large => waits(&self.large, LARGE_SHORT_AFTER),
        }
    }

    /// An answer that may become as large as `bytes`.
    pub(crate) async fn answer(&self, bytes: u64) -> Charge {
        self.answers.charge(&self.ledger, bytes).await
    }

    /// The answer to a produce request, which waits for its records to be durable.
    pub(crate) async fn pending(&self, bytes: u64) -> Charge {
        self.pending.charge(&self.ledger, bytes).await
    }

    /// An answer that waits for nobody, because somebody may be waiting for it. It is settled when it is there.
    pub(crate) fn answer_unasked(&self) -> Charge {
        Charge::nothing(&self.ledger)
    }

    /// One decompression of up to [`Self::decode_bytes_max`].
    pub(crate) async fn decode(&self) -> Charge {
        self.scratch.charge(&self.ledger, DECODE_GROWTH * self.decode_bytes_max() as u64).await
    }

    /// The most bytes that one decompression may make.
    pub(crate) fn decode_bytes_max(&self) -> usize {
        let each = self.shares.scratch / DECODES_MAX as u64 / DECODE_GROWTH;
        usize::try_from(each.clamp(DECODE_BYTES_MIN, DECODE_BYTES_MAX)).unwrap_or(usize::MAX)
    }

    /// Whether a larger budget would let one decompression make more.
    pub(crate) fn limits_decodes(&self) -> bool {
        (self.decode_bytes_max() as u64) < DECODE_BYTES_MAX
    }

    /// One read of a cold range.
    pub(crate) async fn cold_read(&self) -> Charge {
        self.scratch.charge(&self.ledger, COLD_READ_BYTES).await
    }

    /// How many bytes of unused receive buffers may be kept.
    pub(crate) fn kept_bytes_max(&self) -> usize {
        usize::try_from(self.shares.kept).unwrap_or(usize::MAX)
    }

    /// How many bytes the members of all groups may bring and be assigned.
    pub(crate) fn members_bytes_max(&self) -> usize {
        usize::try_from(self.shares.members).unwrap_or(usize::MAX)
    }

    /// The largest frame that can be received.
    pub(crate) fn frame_bytes_max(&self) -> u32 {
        self.shares.frame_bytes_max()
    }

    /// The whole budget.
    pub(crate) const fn budget(&self) -> MemorySize {
        self.budget
    }

    /// How it is used.
    pub(crate) fn reading(&self) -> MemoryUse {
        let lanes = [&self.small, &self.calls, &self.large, &self.answers, &self.pending, &self.scratch];
        MemoryUse {
            budget_bytes: self.budget.bytes(),
            used_bytes: self.ledger.used_bytes(),
            peak_bytes: self.ledger.peak_bytes(),
            waiting: lanes.into_iter().map(Lane::waiting).sum(),
        }
    }
}

#[cfg(test)]
mod tests;
