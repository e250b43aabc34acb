//! The room on the disk as a state machine: measurements and failed writes in, full or not out.
//!
//! Full is entered below the reserve, or when a write found no space, and left a little above the reserve, when no write
//! has failed for a moment. Where a write found no space although there is some, a quota for example, measurements say
//! nothing: writes are tried again after a moment, and it is left once they have gone well for a while. So it does not
//! flutter. Without a reserve nothing is refused that was not tried.

use std::str::FromStr;
use std::time::{Duration, Instant};

use highwater_storage::Space;
use thiserror::Error;

use crate::memory::bytes_of;

const MIB: u64 = 1 << 20;
/// The largest reserve that is chosen without being asked for.
const DEFAULT_BYTES_MAX: u64 = 1 << 30;
/// What part of the file system the reserve is otherwise.
const DEFAULT_PART: u64 = 20;
/// What part of the reserve must be free above it before records are taken again.
const RESUME_PART: u64 = 8;
/// How much must be free before a disk without a reserve is called full no longer.
const RESUME_BYTES: u64 = MIB;
/// How long no write may have failed before it is tried again.
const HOLD: Duration = Duration::from_secs(2);
/// How long no write may have failed, if none should have, before it is full no longer.
const CALM: Duration = Duration::from_secs(30);

/// How much of the disk clients' records leave free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DiskReserve(u64);

/// Text that is no number of bytes.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error(
    "{0:?} is no size; write bytes, or a whole number with K, M, G or T, for example 512M, 512MB or 512MiB, or 0 for no reserve"
)]
pub struct DiskReserveError(String);

impl FromStr for DiskReserve {
    type Err = DiskReserveError;

    fn from_str(text: &str) -> Result<Self, DiskReserveError> {
        bytes_of(text).map(Self).ok_or_else(|| DiskReserveError(text.to_owned()))
    }
}

/// What is known of the room.
#[derive(Debug)]
pub(super) struct Room {
    reserve: Option<DiskReserve>,
    space: Option<Space>,
    full: bool,
    /// A write found no space, and it is full still.
    failure: Option<Failure>,
}

/// A write that found no space.
#[derive(Debug)]
struct Failure {
    /// When the last one did.
    at: Instant,
    /// What the measurements since then say.
    cause: Cause,
    /// Another has succeeded since then.
    succeeded: bool,
}

/// Why a write found no space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// Not known yet.
    Unknown,
    /// A measurement since then found little.
    Full,
    /// Measurements find enough: writes are tried again.
    Untold,
}

impl Room {
    /// Not measured yet. The reserve is the smaller of 1 GiB and 5 % of the file system unless it was said.
    pub(super) const fn new(reserve: Option<DiskReserve>) -> Self {
        Self { reserve, space: None, full: false, failure: None }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// Whether what is not the broker's own is refused.
    pub(super) fn refuses(&self) -> bool {
        let on_trial = self.failure.as_ref().is_some_and(|failure| failure.cause == Cause::Untold);
        self.full && !on_trial && self.reserve_bytes() > 0
    }

    /// Why a write found no space, if that is why it is full.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.failure.as_ref().map(|failure| failure.cause)
    }

    /// Whether it matters that a write succeeds.
    pub(super) fn awaits_success(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| !failure.succeeded)
    }

    /// Whether `bytes` more leave the reserve free, as far as is known.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        let after = self.free_bytes().map(|free| free.saturating_sub(bytes));
        !self.full && after.is_none_or(|after| after >= self.reserve_bytes())
    }

    /// Whether the reserve was said, and is more than there is.
    pub(super) fn asks_too_much(&self) -> bool {
        self.reserve.is_some() && self.is_below_reserve()
    }

    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.space.map(|space| space.total_bytes)
    }

    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.space.map(|space| space.free_bytes)
    }

    pub(super) fn is_below_reserve(&self) -> bool {
        self.free_bytes().is_some_and(|free| free < self.reserve_bytes())
    }

    /// What is left to the broker itself.
    pub(super) fn reserve_bytes(&self) -> u64 {
        let default =
            || self.space.map_or(0, |space| DEFAULT_BYTES_MAX.min(space.total_bytes / DEFAULT_PART));
        self.reserve.map_or_else(default, |reserve| reserve.0)
    }

    /// How much may be appended before it is worth measuring again. Half of what there is: logs reserve ahead.
    pub(super) fn margin_bytes(&self) -> i64 {
        let above = self.free_bytes().map_or(0, |free| free.saturating_sub(self.reserve_bytes()));
        i64::try_from(above / 2).unwrap_or(i64::MAX)
    }

    /// What must be free before it is full no longer.
    pub(super) fn resume_bytes(&self) -> u64 {
        match self.reserve_bytes() {
            0 => RESUME_BYTES,
            reserve => reserve.saturating_add(reserve / RESUME_PART),
        }
    }

    /// The file system was asked. True if it is full now and was not, or the other way round.
    pub(super) fn measured(&mut self, space: Space, now: Instant) -> bool {
        self.space = Some(space);
        let is_short = space.free_bytes < self.resume_bytes();
        let full = match &mut self.failure {
            None if self.full => is_short,
            None => self.is_below_reserve(),
            Some(failure) => failure.lasts(is_short, now),
        };
        if !full {
            self.failure = None;
        }
        std::mem::replace(&mut self.full, full) != full
    }

    /// A write found no space. True if it was not known to be full.
    pub(super) fn found_none(&mut self, now: Instant) -> bool {
        self.failure = Some(Failure { at: now, cause: Cause::Unknown, succeeded: false });
        !std::mem::replace(&mut self.full, true)
    }

    /// A write succeeded.
    pub(super) fn found_some(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.succeeded = true;
        }
    }
}

impl Failure {
    /// Takes note of a measurement that says whether space `is_short`. Whether it is full still.
    fn lasts(&mut self, is_short: bool, now: Instant) -> bool {
        let ago = now.saturating_duration_since(self.at);
        if is_short {
            self.cause = Cause::Full;
        } else if self.cause == Cause::Full {
            return ago < HOLD;
        } else if ago >= HOLD {
            self.cause = Cause::Untold;
        }
        is_short || !self.succeeded || ago < CALM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(reserve: &str) -> Room {
        Room::new(Some(reserve.parse().unwrap()))
    }

    fn free(free_bytes: u64) -> Space {
        Space { free_bytes, total_bytes: 100 * MIB }
    }

    #[test]
    fn it_is_full_below_the_reserve_and_until_a_little_above_it() {
        let (mut room, now) = (room("8MiB"), Instant::now());

        assert!(!room.measured(free(8 * MIB), now));
        assert!(!room.refuses());
        assert!(room.measured(free(8 * MIB - 1), now));
        assert!(room.refuses());
        assert!(!room.measured(free(9 * MIB - 1), now), "it flutters around the reserve");
        assert!(room.measured(free(9 * MIB), now));
        assert!(!room.refuses());
    }

    #[test]
    fn a_write_that_finds_no_space_fills_it_at_once_and_for_a_moment() {
        let (mut room, now) = (room("8MiB"), Instant::now());
        room.measured(free(50 * MIB), now);

        assert!(room.found_none(now));
        assert!(!room.found_none(now), "it is told once");
        assert!(room.refuses() && !room.is_below_reserve());

        assert!(!room.measured(free(MIB), now));
        assert!(!room.measured(free(50 * MIB), now + HOLD - Duration::from_millis(1)));
        assert!(room.measured(free(50 * MIB), now + HOLD));
        assert!(!room.refuses());
    }

    #[test]
    fn writes_that_fail_for_another_reason_than_space_are_tried_again_and_it_is_told_once() {
        let (mut room, began) = (room("8MiB"), Instant::now());
        let mut now = began;
        room.measured(free(50 * MIB), now);
        assert!(room.found_none(now));
        for _ in 0..100 {
            assert!(!room.measured(free(50 * MIB), now + HOLD / 2) && room.refuses());
            now += HOLD;
            assert!(!room.measured(free(50 * MIB), now), "it flutters");
            assert!(room.is_full() && !room.refuses(), "nothing is tried");
            // A small one may succeed where a large one fails.
            room.found_some();
            assert!(!room.found_none(now));
        }

        assert!(!room.measured(free(50 * MIB), now + 2 * CALM), "nothing was tried since");
        room.found_some();
        assert!(room.measured(free(50 * MIB), now + 2 * CALM));
        assert!(!room.is_full());
    }

    #[test]
    fn what_fits_leaves_the_reserve_free() {
        let mut room = room("8MiB");
        assert!(room.fits(u64::MAX), "nothing is known yet");
        room.measured(free(10 * MIB), Instant::now());

        assert!(room.fits(2 * MIB) && !room.fits(2 * MIB + 1));
        room.found_none(Instant::now());
        assert!(!room.fits(0));
    }

    #[test]
    fn without_a_reserve_nothing_is_refused_that_was_not_tried() {
        let (mut room, now) = (room("0"), Instant::now());

        assert!(!room.measured(free(0), now));
        assert!(room.found_none(now));
        assert!(room.is_full() && !room.refuses());
        assert!(!room.measured(free(MIB - 1), now + HOLD));
        assert!(room.measured(free(MIB), now + HOLD));
    }

    #[test]
    fn the_reserve_is_five_percent_of_the_file_system_and_a_gibibyte_at_most() {
        let reserve_of = |total_bytes| {
            let mut room = Room::new(None);
            room.measured(Space { free_bytes: total_bytes, total_bytes }, Instant::now());
            room.reserve_bytes()
        };

        assert_eq!(reserve_of(100 * MIB), 5 * MIB);
        assert_eq!(reserve_of(1 << 40), DEFAULT_BYTES_MAX);
        assert_eq!("2GiB".parse(), Ok(DiskReserve(2 << 30)));
        assert!("5%".parse::<DiskReserve>().is_err());
    }
}
