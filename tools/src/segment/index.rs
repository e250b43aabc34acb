//! The indexes beside a segment: whether they agree with it.

use std::collections::BTreeMap;
use std::io;

use highwater_record::{Offset, TimestampMs};
use highwater_storage::{IndexEntries, OffsetEntry, TimeEntry, read_offset_index, read_time_index};

use super::files::SegmentFile;

/// What is true of an index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum IndexState {
    /// Every entry agrees with the segment.
    Good,
    /// There is no file.
    Missing,
    /// An entry does not agree, or the file is cut.
    Wrong,
}

impl IndexState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        }
    }
}

/// Compares the offset index with the batches of the segment, given as last offset by position.
pub(super) fn check_offsets(segment: &SegmentFile, batches: &BTreeMap<u64, Offset>) -> IndexState {
    let Some(index) = stored(read_offset_index(&segment.path.with_extension("index"))) else {
        return IndexState::Missing;
    };
    let agrees = |entry: &OffsetEntry| {
        batches.get(&entry.position.into()) == Some(&segment.base.advance(entry.relative_offset.into()))
    };
    state(&index, |entry| is_preallocated_offset(entry) || agrees(entry))
}

/// Compares the time index with the batches of the segment: times and offsets ascend, and no later than the end.
pub(super) fn check_times(segment: &SegmentFile, end: Offset) -> IndexState {
    let Some(index) = stored(read_time_index(&segment.path.with_extension("timeindex"))) else {
        return IndexState::Missing;
    };
    let mut last: Option<TimeEntry> = None;
    let mut in_order = |entry: &TimeEntry| {
        if is_preallocated_time(entry) {
            return true;
        }
        let follows = last.is_none_or(|last| {
            last.timestamp <= entry.timestamp && last.relative_offset <= entry.relative_offset
        });
        last = Some(*entry);
        follows && segment.base.advance(entry.relative_offset.into()) < end
    };
    let mut good = index.trailing_bytes == 0;
    for entry in &index.entries {
        good &= in_order(entry);
    }
    if good { IndexState::Good } else { IndexState::Wrong }
}

fn state<E>(index: &IndexEntries<E>, agrees: impl FnMut(&E) -> bool) -> IndexState {
    if index.trailing_bytes == 0 && index.entries.iter().all(agrees) {
        IndexState::Good
    } else {
        IndexState::Wrong
    }
}

fn stored<E>(read: io::Result<IndexEntries<E>>) -> Option<IndexEntries<E>> {
    read.ok()
}

/// Kafka makes the indexes of active segments as large as they may get; the rest is zeros.
fn is_preallocated_offset(entry: &OffsetEntry) -> bool {
    entry.relative_offset == 0 && entry.position == 0
}

fn is_preallocated_time(entry: &TimeEntry) -> bool {
    entry.timestamp == TimestampMs(0) && entry.relative_offset == 0
}
