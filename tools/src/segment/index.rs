//! The indexes beside a segment: whether they agree with it, and where they say to begin.
//!
//! An index is a hint. What it says is compared with the segment before it is followed; one that is missing or wrong
//! costs a longer read and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use highwater_record::{Offset, TimestampMs};
use highwater_storage::{
    IndexEntries, OffsetEntry, ScannedBatch, SegmentScan, TimeEntry, read_offset_index, read_time_index,
};

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

/// Compares the offset index with the batches of the segment, given as base offset by position.
///
/// An entry leads to where a reader of its offset may begin, and that is all that can be asked of it. Kafka has the last
/// offset of the batch at its position, or of all batches that were appended with it; before 2.0 it has the first
/// offset (`LogSegment.append`).
pub(super) fn check_offsets(
    segment: &SegmentFile,
    batches: &BTreeMap<u64, Offset>,
    end: Offset,
) -> IndexState {
    let Some(index) = stored(read_offset_index(&segment.path.with_extension("index"))) else {
        return IndexState::Missing;
    };
    let mut before: Option<OffsetEntry> = None;
    state(&index, |entry| {
        if is_preallocated_offset(entry) {
            return true;
        }
        let follows = before.is_none_or(|before| {
            before.relative_offset < entry.relative_offset && before.position < entry.position
        });
        before = Some(*entry);
        let offset = segment.base.advance(entry.relative_offset.into());
        follows && offset < end && batches.get(&entry.position.into()).is_some_and(|base| *base <= offset)
    })
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

/// Moves `scan` to the last indexed batch whose entry has at most `offset`; everything before it is earlier.
/// Stays at the front if there is none that the segment confirms.
pub(super) fn seek(scan: &mut SegmentScan, segment: &SegmentFile, offset: Offset) {
    let Some(index) = stored(read_offset_index(&segment.path.with_extension("index"))) else { return };
    let earlier = |entry: &&OffsetEntry| {
        !is_preallocated_offset(entry) && segment.base.advance(entry.relative_offset.into()) <= offset
    };
    let Some(entry) = index.entries.iter().filter(earlier).max_by_key(|entry| entry.relative_offset) else {
        return;
    };
    scan.seek(entry.position.into(), segment.base);
    let last = segment.base.advance(entry.relative_offset.into());
    let is_confirmed = u64::from(entry.position) < scan.file_bytes()
        && matches!(scan.next(), Some(Ok(batch)) if batch.header.base_offset <= last && scan.read(&batch).is_ok());
    if is_confirmed {
        scan.seek(entry.position.into(), segment.base);
    } else {
        scan.seek(0, segment.base);
    }
}

/// An offset before which no record of the segment is at `timestamp` or later, by the time index.
pub(super) fn before_time(segment: &SegmentFile, timestamp: TimestampMs) -> Offset {
    let Some(index) = stored(read_time_index(&segment.path.with_extension("timeindex"))) else {
        return segment.base;
    };
    // An entry says that no record up to its offset has a larger timestamp than its own.
    let earlier = |entry: &&TimeEntry| !is_preallocated_time(entry) && entry.timestamp < timestamp;
    let last = index.entries.iter().filter(earlier).max_by_key(|entry| entry.relative_offset);
    last.map_or(segment.base, |entry| segment.base.advance(entry.relative_offset.into()))
}

/// The batches of a segment from `offset` on, found by the index. Bytes that belong to the next segment end it.
pub(super) fn open_at(
    segment: &SegmentFile,
    offset: Offset,
) -> io::Result<(SegmentScan, impl Fn(&ScannedBatch) -> bool)> {
    let mut scan = SegmentScan::open(Path::new(&segment.path))?;
    seek(&mut scan, segment, offset);
    let next_base = segment.next_base;
    let belongs = move |batch: &ScannedBatch| next_base.is_none_or(|next| batch.header.base_offset < next);
    Ok((scan, belongs))
}
