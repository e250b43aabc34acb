//! The indexes beside a segment: whether they agree with it, and where they say to begin.
//!
//! An index is a hint. What it says is compared with the segment before it is followed; one that is missing or wrong
//! costs a longer read and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use highwater_record::{Offset, TimestampMs};
use highwater_storage::{
    IndexEntries, OffsetEntry, ScannedBatch, SegmentScan, TimeEntry, read_offset_index, read_time_index,
};

use super::files::SegmentFile;

/// What is true of an index.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum IndexState {
    /// Nobody has compared its entries.
    #[default]
    Unchecked,
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
            Self::Unchecked => "unchecked",
            Self::Good => "ok",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        }
    }
}

/// What can be told of both indexes of a segment without its batches: that they are there, and made of whole entries.
pub(super) fn shapes(segment: &SegmentFile) -> [IndexState; 2] {
    [("index", 8), ("timeindex", 12)].map(|(extension, entry_bytes)| {
        match fs::metadata(segment.path.with_extension(extension)) {
            Err(_) => IndexState::Missing,
            Ok(metadata) if metadata.len() % entry_bytes == 0 => IndexState::Unchecked,
            Ok(_) => IndexState::Wrong,
        }
    })
}

/// The last time in the time index, if it has one.
pub(super) fn last_time(segment: &SegmentFile) -> Option<TimestampMs> {
    let index = stored(read_time_index(&segment.path.with_extension("timeindex")))?;
    let last = index.entries.iter().rev().find(|entry| !is_preallocated_time(entry))?;
    Some(last.timestamp)
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

/// Moves `scan` to the last indexed batch whose last offset is at most `offset`; everything before it is earlier.
/// Stays at the front if there is none that the segment confirms, and says whether there was no such lie.
pub(super) fn seek(scan: &mut SegmentScan, segment: &SegmentFile, offset: Offset) -> bool {
    let Some(index) = stored(read_offset_index(&segment.path.with_extension("index"))) else { return true };
    let earlier = |entry: &&OffsetEntry| {
        !is_preallocated_offset(entry) && segment.base.advance(entry.relative_offset.into()) <= offset
    };
    let Some(entry) = index.entries.iter().filter(earlier).max_by_key(|entry| entry.relative_offset) else {
        return true;
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
    is_confirmed
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
