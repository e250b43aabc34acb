//! Which offsets of a log are lost: the book that a log, its view and its segments share.
//!
//! A range is what damage below the recovery point cost: from the end of the last good batch to the next good one. It
//! is never read, and nothing on disk is changed for it. Ranges are found when a log is opened and when it is read;
//! this file only keeps them, in order and merged, and says each one loudly when it becomes known.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use highwater_record::Offset;
use parking_lot::Mutex;

use crate::batches::Fault;
use crate::point::LogPoint;

/// Offsets that are lost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QuarantinedRange {
    /// The first of them.
    pub from: Offset,
    /// The first one after them, which is the place to go on reading.
    pub to: Offset,
    /// The file that is damaged or missing.
    pub path: PathBuf,
    /// Where in it the damage begins.
    pub position: u64,
    /// What is wrong, in words.
    pub cause: String,
}

/// A range, and the bytes of its segment that nobody may read.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) range: QuarantinedRange,
    /// Base offset of the segment.
    pub(crate) base: Offset,
    /// Empty if the bytes are not there.
    pub(crate) bytes: Range<u64>,
}

/// The ranges of one log.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    /// In the order of offsets; no two overlap.
    ranges: ArcSwap<Vec<Lost>>,
    /// Serialises changes.
    changing: Mutex<()>,
    /// Counts changes. Zero means that there never was a range, which is all that most readers look at.
    changes: AtomicU64,
}

impl Quarantine {
    /// How often ranges have changed; zero as long as there are none.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether there is no range.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes() == 0 || self.ranges.load().is_empty()
    }

    /// Every range.
    pub(crate) fn all(&self) -> Vec<QuarantinedRange> {
        if self.changes() == 0 {
            return Vec::new();
        }
        self.ranges.load().iter().map(|lost| lost.range.clone()).collect()
    }

    /// The range that an offset lies in.
    pub(crate) fn at(&self, offset: Offset) -> Option<QuarantinedRange> {
        self.find(|lost| (lost.range.from <= offset && offset < lost.range.to).then(|| lost.range.clone()))
    }

    /// Whether a segment has lost anything.
    pub(crate) fn concerns(&self, base: Offset) -> bool {
        self.find(|lost| (lost.base == base).then_some(())).is_some()
    }

    /// Where the quarantined bytes that a position of a segment lies in end, and the offset that comes after them.
    pub(crate) fn skip(&self, base: Offset, position: u64) -> Option<(u64, Offset)> {
        self.find(|lost| {
            let around = lost.base == base && lost.bytes.contains(&position);
            around.then_some((lost.bytes.end, lost.range.to))
        })
    }

    /// Whether an offset is lost with the bytes at a position of a segment; `None` if these are not quarantined.
    pub(crate) fn lost_with(&self, base: Offset, position: u64, offset: Offset) -> Option<bool> {
        self.find(|lost| {
            let around = lost.base == base && lost.bytes.contains(&position);
            around.then(|| lost.range.from <= offset && offset < lost.range.to)
        })
    }

    /// Where a walk goes on after a fault: behind the quarantined bytes that it lies in, or that the batch before lies in,
    /// which may have said that it is longer than it is.
    pub(crate) fn beyond(&self, base: Offset, fault: &Fault) -> LogPoint {
        let end_around = |position: u64| {
            self.find(|lost| {
                let around = lost.base == base && lost.bytes.contains(&position);
                around.then_some(LogPoint { offset: lost.range.to, bytes: lost.bytes.end })
            })
        };
        let before = fault.before.map_or(fault.position, |before| before.position);
        end_around(fault.position).or_else(|| end_around(before)).unwrap_or_else(|| {
            let known = self.last_before(base, fault.position);
            LogPoint { offset: known.map_or(base, |(_, offset)| offset), bytes: fault.position }
        })
    }

    /// The first quarantined bytes of a segment that begin at or after a position, and their offset.
    pub(crate) fn next(&self, base: Offset, position: u64) -> Option<(u64, Offset)> {
        self.find(|lost| {
            let later = lost.base == base && lost.bytes.start >= position;
            later.then_some((lost.bytes.start, lost.range.from))
        })
    }

    /// The last quarantined bytes of a segment that end at or before a position: their end, and what comes after.
    pub(crate) fn last_before(&self, base: Offset, position: u64) -> Option<(u64, Offset)> {
        if self.changes() == 0 {
            return None;
        }
        let ranges = self.ranges.load();
        let found = ranges
            .iter()
            .rfind(|lost| lost.base == base && lost.bytes.end <= position && !lost.bytes.is_empty());
        found.map(|lost| (lost.bytes.end, lost.range.to))
    }

    fn find<T>(&self, wanted: impl Fn(&Lost) -> Option<T>) -> Option<T> {
        if self.changes() == 0 {
            return None;
        }
        self.ranges.load().iter().find_map(wanted)
    }

    /// Adds a range; one that meets others of its segment becomes one with them. Counts as a change in any case, so
    /// that whoever found it looks again.
    pub(crate) fn add(&self, lost: Lost) {
        let _one_at_a_time = self.changing.lock();
        let mut ranges = Vec::clone(&self.ranges.load());
        let known = ranges.iter().any(|old| old.covers(&lost));
        if !known {
            let mut merged = lost;
            ranges.retain(|old| {
                let meets = old.meets(&merged);
                if meets {
                    merged = old.union(&merged);
                }
                !meets
            });
            merged.announce();
            let at = ranges.partition_point(|old| old.range.from < merged.range.from);
            ranges.insert(at, merged);
            self.ranges.store(Arc::new(ranges));
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets what lies at or above `end`: the log was cut there.
    pub(crate) fn truncate(&self, end: Offset) {
        if self.changes() == 0 {
            return;
        }
        let _one_at_a_time = self.changing.lock();
        let mut ranges = Vec::clone(&self.ranges.load());
        ranges.retain(|lost| lost.range.from < end);
        for lost in &mut ranges {
            lost.range.to = lost.range.to.min(end);
        }
        self.ranges.store(Arc::new(ranges));
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl Lost {
    fn covers(&self, other: &Self) -> bool {
        self.base == other.base
            && self.range.from <= other.range.from
            && self.range.to >= other.range.to
            && self.bytes.start <= other.bytes.start
            && self.bytes.end >= other.bytes.end
    }

    fn meets(&self, other: &Self) -> bool {
        self.base == other.base
            && self.range.from <= other.range.to
            && self.range.to >= other.range.from
            && self.bytes.start <= other.bytes.end
            && self.bytes.end >= other.bytes.start
    }

    /// Both as one; what is said of it is said of the first.
    fn union(&self, other: &Self) -> Self {
        let (first, second) = if self.range.from <= other.range.from { (self, other) } else { (other, self) };
        let mut both = first.clone();
        both.range.to = first.range.to.max(second.range.to);
        both.bytes = first.bytes.start.min(second.bytes.start)..first.bytes.end.max(second.bytes.end);
        both
    }

    fn announce(&self) {
        let QuarantinedRange { from, to, path, position, cause } = &self.range;
        tracing::error!(
            file = %path.display(), position, %from, %to,
            "offsets {from} to {} are lost and quarantined: {cause}. Nothing on disk was changed and everything else is \
             served; who reads them is told CORRUPT_MESSAGE. Stop the broker and put the file back from a copy, or let \
             consumers go on at offset {to} (highwater group seek, kafka-consumer-groups --reset-offsets)",
            to.get() - 1
        );
    }
}
