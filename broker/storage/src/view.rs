//! The read side of a log: lock-free, shared by any number of readers while one owner appends.
//!
//! A reader sees an immutable list of segments and a few atomic points. What it may see of the log is the caller's
//! business (`until`): this side knows the appended end and the durable end and promises nothing about either.
//!
//! Invariants: the segments are in offset order; every byte below a segment's end is complete and stays; a segment
//! that left the list stays readable for those who hold it; no byte is given out that this process neither appended nor
//! checked, and none of a range that is quarantined.

mod lookup;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use highwater_record::{BatchHeader, Offset};
use thiserror::Error;

use crate::batches::{WalkError, walk};
use crate::epochs::Epochs;
use crate::files::{FileHandle, read_exact_at};
use crate::map::SegmentMap;
use crate::point::{LogPoint, PointCell};
use crate::quarantine::{Quarantine, QuarantinedRange};
use crate::segment::Segment;
use crate::verify;

pub use lookup::TimedOffset;

/// How much of a cold range is read at once.
const WARM_BYTES: usize = 256 << 10;

/// What readers see of a log. Obtained from `Log::view`, valid as long as it is held.
#[derive(Debug)]
pub struct LogView {
    segments: ArcSwap<Vec<Arc<Segment>>>,
    start: AtomicI64,
    end: PointCell,
    durable: PointCell,
    epochs: ArcSwap<Epochs>,
    quarantine: Arc<Quarantine>,
}

/// Whether a read may return a first batch that is larger than its limit (KIP-74).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FirstBatch {
    /// The first batch is returned whole, whatever its size.
    Whole,
    /// Nothing is returned if the first batch is too large.
    WithinLimit,
}

/// Batches as ranges of files.
#[derive(Debug)]
pub struct ReadChunk {
    /// The bytes in their order: whole batches only. Empty if there is nothing to read.
    pub ranges: Vec<FileRange>,
    /// Bytes in all ranges.
    pub bytes: u32,
    /// Offset to read from next: the end of the last batch, or the requested offset if there is none; beyond it if
    /// compaction left nothing up to there.
    pub next_offset: Offset,
}

/// Consecutive bytes of one segment. They never change, and stay readable while this is held.
#[derive(Clone, Debug)]
pub struct FileRange {
    segment: Arc<Segment>,
    file: Arc<dyn FileHandle>,
    position: u64,
    len: u32,
    /// Held from the first look at the bytes in place on.
    map: OnceLock<Option<Arc<SegmentMap>>>,
}

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The log does not reach there.
    #[error("offset {requested} is outside {start}..={end}")]
    OutOfRange {
        /// The offset that was asked for.
        requested: Offset,
        /// First offset of the log.
        start: Offset,
        /// Offset after the last.
        end: Offset,
    },
    /// The offset is lost. The range says how far, and why.
    #[error("offsets {} to {} are quarantined: {} at position {}: {}", .0.from, .0.to, .0.path.display(), .0.position, .0.cause)]
    Quarantined(Box<QuarantinedRange>),
    /// The disk says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl LogView {
    pub(crate) fn new(start: Offset, end: LogPoint, durable: LogPoint, quarantine: Arc<Quarantine>) -> Self {
        Self {
            quarantine,
            segments: ArcSwap::default(),
            start: AtomicI64::new(start.get()),
            end: PointCell::new(end),
            durable: PointCell::new(durable),
            epochs: ArcSwap::default(),
        }
    }

    /// First offset of the log. It may lie inside a batch.
    pub fn log_start(&self) -> Offset {
        Offset::new(self.start.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// The appended end: what the next batch will begin at.
    pub fn end(&self) -> LogPoint {
        self.end.load()
    }

    /// The durable end: everything below it is on stable storage.
    pub fn durable(&self) -> LogPoint {
        self.durable.load()
    }

    /// Bytes in all segment files.
    pub fn size_bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.end().bytes).sum()
    }

    /// The ranges between the log's start and its end that are lost, as far as they are known.
    pub fn quarantined(&self) -> Vec<QuarantinedRange> {
        let mut ranges = self.quarantine.all();
        let (start, end) = (self.log_start(), self.end().offset);
        for range in &mut ranges {
            (range.from, range.to) = (range.from.max(start), range.to.min(end));
        }
        ranges.retain(|range| range.from < range.to);
        ranges
    }

    /// Whether a range of the log is known to be lost.
    pub fn is_damaged(&self) -> bool {
        !self.quarantine.is_empty()
    }

    /// The offset itself, or if it is lost the first one after it that is not.
    pub fn readable_from(&self, offset: Offset) -> Offset {
        let mut offset = offset;
        while let Some(range) = self.quarantine.at(offset) {
            offset = range.to;
        }
        offset
    }

    pub(crate) fn set_start(&self, start: Offset) {
        self.start.store(start.get(), Ordering::Release);
    }

    pub(crate) fn set_end(&self, end: LogPoint) {
        self.end.store(end);
    }

    pub(crate) fn set_durable(&self, durable: LogPoint) {
        self.durable.store(durable);
    }

    pub(crate) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        self.segments.load_full()
    }

    pub(crate) fn set_segments(&self, segments: Vec<Arc<Segment>>) {
        self.segments.store(Arc::new(segments));
    }

    pub(crate) fn epochs(&self) -> Arc<Epochs> {
        self.epochs.load_full()
    }

    pub(crate) fn set_epochs(&self, epochs: Epochs) {
        self.epochs.store(Arc::new(epochs));
    }

    /// Batches from the one that contains `from` on: whole ones, wholly below `until`, and at most `bytes_max`
    /// bytes of them unless `first` says otherwise. Empty batches at the front are left out if there are records behind
    /// them in the segment. At the end of the log there is nothing, which is no error. A read
    /// ends before a quarantined range, and one that begins in such a range is an error.
    ///
    /// Batches that this process did not append are checked when they are first read, which waits for the disk.
    pub fn read(
        &self,
        from: Offset,
        bytes_max: u32,
        until: Offset,
        first: FirstBatch,
    ) -> Result<ReadChunk, ReadError> {
        loop {
            let known = self.quarantine.changes();
            let chunk = self.read_once(from, bytes_max, until, first);
            // Damage that was found on the way is not read: look again, now that it is known.
            if self.quarantine.changes() == known {
                return chunk;
            }
        }
    }

    fn read_once(
        &self,
        from: Offset,
        bytes_max: u32,
        until: Offset,
        first: FirstBatch,
    ) -> Result<ReadChunk, ReadError> {
        // Before the start is looked at, which moves before segments go: else what goes in between is skipped unsaid.
        let segments = self.segments.load();
        self.check_range(from)?;
        if let Some(range) = self.quarantine.at(from).filter(|_| from < until) {
            return Err(ReadError::Quarantined(Box::new(range)));
        }
        let mut chunk = ReadChunk { ranges: Vec::new(), bytes: 0, next_offset: from };
        let mut has_records = false;
        let at = segments.partition_point(|segment| segment.base() <= from).saturating_sub(1);
        for segment in &segments[at..] {
            if chunk.next_offset >= until
                || segment.base() >= until
                || self.quarantine.at(chunk.next_offset).is_some()
            {
                break;
            }
            let left = bytes_max - chunk.bytes.min(bytes_max);
            let whole = !has_records && first == FirstBatch::Whole;
            let read = read_segment(segment, chunk.next_offset, left, until, whole)
                .map_err(|error| self.explain(error, from));
            let read = match read {
                // What could be read before the disk failed is worth having.
                Err(ReadError::Io(_)) if chunk.bytes > 0 => break,
                read => read?,
            };
            match read {
                Found::Range { range, end, more, is_empty } => {
                    has_records |= !is_empty;
                    chunk.bytes += range.len;
                    chunk.next_offset = end;
                    chunk.ranges.push(range);
                    if !more {
                        break;
                    }
                }
                Found::NothingHere => {}
                Found::Gap => {
                    chunk.next_offset = until;
                    break;
                }
                Found::TooLarge => break,
            }
        }
        Ok(chunk)
    }

    /// Whether a read of up to `bytes_max` bytes from `from` on is unlikely to wait for the disk: it begins with what this
    /// process appended, or with what was checked before and is in memory. Reads elsewhere belong on a thread that may
    /// wait.
    pub fn is_hot(&self, from: Offset, bytes_max: u32) -> bool {
        let segments = self.segments.load();
        let at = segments.partition_point(|segment| segment.base() <= from).saturating_sub(1);
        segments.get(at).is_none_or(|segment| {
            let own = segment.is_hot() && segment.vouched.foreign().offset <= from;
            own || segment.is_at_hand(from, bytes_max)
        })
    }

    fn check_range(&self, requested: Offset) -> Result<(), ReadError> {
        let (start, end) = (self.log_start(), self.end().offset);
        if requested < start || requested > end {
            return Err(ReadError::OutOfRange { requested, start, end });
        }
        Ok(())
    }

    /// A file may have been removed while a reader was on its way to it.
    fn explain(&self, error: io::Error, requested: Offset) -> ReadError {
        match error.kind() {
            io::ErrorKind::NotFound => self.check_range(requested).err().unwrap_or(ReadError::Io(error)),
            _ => ReadError::Io(error),
        }
    }
}

enum Found {
    /// Batches up to the offset `end`; `more` if the segment was exhausted, so that the next one may follow. `is_empty` if
    /// the first has no records; if that would not do, none has.
    Range { range: FileRange, end: Offset, more: bool, is_empty: bool },
    /// The segment has no batch from the offset on.
    NothingHere,
    /// It has, but up to the limit compaction has left nothing.
    Gap,
    /// It has, but not within the limits.
    TooLarge,
}

fn read_segment(
    segment: &Arc<Segment>,
    from: Offset,
    bytes_max: u32,
    until: Offset,
    whole: bool,
) -> io::Result<Found> {
    let end = segment.end();
    if from >= end.offset {
        return Ok(Found::NothingHere);
    }
    let limit = limit_of(segment, until)?;
    let Some((start, first)) = segment.locate(from)? else { return Ok(Found::NothingHere) };
    let hole = segment.quarantine().next(segment.base(), start).filter(|hole| hole.0 <= limit.bytes);
    let limit = hole.map_or(limit, |(bytes, offset)| LogPoint { offset, bytes });
    let (start, first) = if whole && first.record_count == 0 {
        first_with_records(segment, start, limit)?.unwrap_or((start, first))
    } else {
        (start, first)
    };
    if start >= limit.bytes {
        return Ok(if first.base_offset >= until { Found::Gap } else { Found::TooLarge });
    }
    let first_end = start + u64::from(first.size_bytes);
    let to = if limit.bytes - start <= u64::from(bytes_max) {
        limit
    } else if first_end - start > u64::from(bytes_max) {
        if !whole {
            return Ok(Found::TooLarge);
        }
        LogPoint { offset: first.next_offset(), bytes: first_end }
    } else {
        segment.cut_at(start, start + u64::from(bytes_max), whole)?
    };
    let to = verify::first_read(segment, start, to)?;
    // A range is answered in one response, whose size is a u32; no segment is larger.
    let len = u32::try_from(to.bytes - start).unwrap_or(u32::MAX);
    let (map, file) = (OnceLock::new(), segment.log_file()?);
    let range = FileRange { segment: Arc::clone(segment), file, position: start, len, map };
    Ok(Found::Range { range, end: to.offset, more: to.bytes == end.bytes, is_empty: first.record_count == 0 })
}

/// The first batch with records between the empty one at `start` and `limit`. Compaction leaves empty batches, and there are
/// clients that ask for the same offset again, for ever, after an answer without a record (kafkajs, its issue 1072).
fn first_with_records(
    segment: &Segment,
    start: u64,
    limit: LogPoint,
) -> io::Result<Option<(u64, BatchHeader)>> {
    let found = walk(segment, start, limit.bytes, segment.base(), |position, header| {
        if header.record_count == 0 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break((position, *header))
        }
    });
    let Some((position, header)) = (match found {
        Ok(found) => found,
        // What is wrong is found by whoever reads it.
        Err(WalkError::Fault(_)) => None,
        Err(WalkError::Io(error)) => return Err(error),
    }) else {
        return Ok(None);
    };
    // A batch may seem to be empty because a bit of its count is wrong.
    let end = LogPoint { offset: header.base_offset, bytes: position };
    let checked = verify::first_read(segment, start, end)?;
    Ok((checked.bytes == position).then_some((position, header)))
}

/// The end of the batches that lie wholly below `until`.
fn limit_of(segment: &Segment, until: Offset) -> io::Result<LogPoint> {
    let end = segment.end();
    if until >= end.offset {
        return Ok(end);
    }
    let durable = segment.durable();
    if until == durable.offset {
        return Ok(durable);
    }
    Ok(match segment.locate(until)? {
        // Compaction may have left a gap around `until`.
        Some((position, header)) => LogPoint { offset: header.base_offset.min(until), bytes: position },
        None => end,
    })
}

impl FileRange {
    /// Where the range begins in its file, in bytes.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes it has.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether sending the range would not wait for the disk.
    pub fn is_resident(&self) -> bool {
        self.file.is_resident(self.position, self.len.into())
    }

    /// Reads the range into the page cache, so that sending it does not wait for the disk. An error of the disk
    /// shows here.
    pub fn warm(&self) -> io::Result<()> {
        let mut buffer = vec![0; WARM_BYTES.min(self.len as usize)];
        let end = self.position + u64::from(self.len);
        for position in (self.position..end).step_by(WARM_BYTES) {
            let left = usize::try_from(end - position).unwrap_or(WARM_BYTES).min(buffer.len());
            read_exact_at(&*self.file, &mut buffer[..left], position)?;
        }
        Ok(())
    }

    /// The file, for `sendfile`; `None` if the file layer has no descriptors.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_fd()
    }

    /// The bytes in place, if the segment is mapped: one that this process writes or wrote.
    pub fn mapped(&self) -> Option<&[u8]> {
        let map = self.map.get_or_init(|| self.segment.map().and_then(|map| Option::clone(&map)));
        map.as_ref()?.slice(self.position..self.position + u64::from(self.len))
    }

    /// Appends the bytes to `out`, read with `pread`.
    pub fn copy_to(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        out.resize(before + self.len as usize, 0);
        read_exact_at(&*self.file, &mut out[before..], self.position)
    }
}
