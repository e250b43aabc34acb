//! Where to begin reading: found by the indexes beside a segment, a few entries at a time.
//!
//! An index is a hint. What it says is compared with the segment before it is followed; one that is missing or wrong
//! costs a longer read and nothing else. Nothing but the entries of a binary search and one batch is read.

use std::io;

use highwater_record::{Offset, TimestampMs};
use highwater_storage::{OffsetEntry, OffsetIndexFile, ScannedBatch, SegmentScan, TimeIndexFile};

use super::files::SegmentFile;

/// The offset index of a segment, if there is one that can be read.
pub(super) fn offset_index(segment: &SegmentFile) -> Option<OffsetIndexFile> {
    OffsetIndexFile::open(&segment.path.with_extension("index")).ok()
}

/// Moves `scan` to the batch of an index entry, if the segment confirms that it begins there.
///
/// Kafka's entries have the last offset of the batch at their position, or of all that were appended with it; before 2.0
/// the first one (`LogSegment.append`). Everything before the position is earlier in any case.
pub(super) fn follow(scan: &mut SegmentScan, segment: &SegmentFile, entry: OffsetEntry) -> bool {
    let position = u64::from(entry.position);
    let named = segment.base.advance(entry.relative_offset.into());
    scan.seek(position, segment.base);
    let is_confirmed = position < scan.file_bytes()
        && matches!(scan.next(), Some(Ok(batch)) if batch.header.base_offset <= named && scan.read(&batch).is_ok());
    if is_confirmed {
        scan.seek(position, segment.base);
    }
    is_confirmed
}

/// Moves `scan` to the last indexed batch whose last offset is at most `offset`; everything before it is earlier.
/// Moves to the front if there is none that the segment confirms, and says whether it denied none.
pub(super) fn seek(scan: &mut SegmentScan, segment: &SegmentFile, offset: Offset) -> bool {
    let bytes = scan.file_bytes();
    let earlier = |entry: &OffsetEntry| {
        segment.base.advance(entry.relative_offset.into()) <= offset && u64::from(entry.position) < bytes
    };
    let found = offset_index(segment).and_then(|index| index.last_where(earlier).ok()?);
    let is_denied = found.is_some_and(|entry| !follow(scan, segment, entry));
    if found.is_none() || is_denied {
        scan.seek(0, segment.base);
    }
    !is_denied
}

/// The last time in the time index, if it has one.
pub(super) fn last_time(segment: &SegmentFile) -> Option<TimestampMs> {
    let index = TimeIndexFile::open(&segment.path.with_extension("timeindex")).ok()?;
    Some(index.last_where(|_| true).ok()??.timestamp)
}

/// An offset before which no record of the segment is at `timestamp` or later, by the time index.
pub(super) fn before_time(segment: &SegmentFile, timestamp: TimestampMs) -> Offset {
    let Ok(index) = TimeIndexFile::open(&segment.path.with_extension("timeindex")) else {
        return segment.base;
    };
    // An entry says that no record up to its offset has a larger timestamp than its own.
    let found = index.last_where(|entry| entry.timestamp < timestamp);
    found.ok().flatten().map_or(segment.base, |entry| segment.base.advance(entry.relative_offset.into()))
}

/// A scan of a segment from `offset` on, or from a little before it.
pub(super) fn open_at(segment: &SegmentFile, offset: Offset) -> io::Result<SegmentScan> {
    let mut scan = SegmentScan::open(&segment.path)?;
    if offset > segment.base {
        seek(&mut scan, segment, offset);
    }
    Ok(scan)
}

/// Whether a batch is the segment's own: bytes that belong to the next segment end it.
pub(super) fn belongs(segment: &SegmentFile, batch: &ScannedBatch) -> bool {
    segment.next_base.is_none_or(|next| batch.header.base_offset < next)
}
