//! A segment: consecutive batches in one file, and the two indexes that find them.
//!
//! This is the side that readers share; the one writer of an active segment is `log::writer`. Offsets are at least
//! the base offset and grow; bytes below the published end never change (the invariants of `map.rs`). A segment
//! that loses published bytes is replaced by a new object for the same file.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::Guard;
use highwater_record::{Batch, BatchHeader, Offset, TimestampMs};

use crate::batches::{BatchFault, Fault, ReadAt, WalkError, walk};
use crate::damage::{self, Bounds};
use crate::files::{FileHandle, FileLayer, read_exact_at};
use crate::gate::Gate;
use crate::index::{Index, OffsetEntry, TimeEntry, relative};
use crate::lazy_file::LazyFile;
use crate::map::{PublishedEnd, SegmentMap};
use crate::map_slot::MapSlot;
use crate::point::{LogPoint, PointCell};
use crate::quarantine::Quarantine;
use crate::verify::{self, Vouched};

/// No record of a batch has a timestamp (Kafka: `RecordBatch.NO_TIMESTAMP`).
pub(crate) const NO_TIMESTAMP: TimestampMs = TimestampMs(-1);

/// How far behind the end lookups go through the map. What lies further back is read with `pread`: in a map it would
/// count as memory of this process, and a log that was read once would be all in it.
const HOT_TAIL_BYTES: u64 = 1 << 20;

/// The name of a file of the segment with this base offset, such as `00000000000000000042.index`.
pub(crate) fn file_name(base: Offset, suffix: &str) -> String {
    format!("{base:020}.{suffix}")
}

/// The base offset that a segment file's name says, if its suffix is `suffix`.
pub(crate) fn base_of(name: &str, suffix: &str) -> Option<Offset> {
    let digits = name.strip_suffix(suffix)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Offset::new(digits.parse().ok()?)
}

/// The largest timestamp of a segment and the last offset of the batch that has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MaxTime {
    pub(crate) timestamp: TimestampMs,
    pub(crate) offset: Offset,
}

/// What the files of a segment hold, as far as it is known to be good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Next offset and position after the last batch.
    pub(crate) end: LogPoint,
    pub(crate) max_time: MaxTime,
    /// When the last batch was appended, by the broker's clock; if nobody knows, [`NO_TIMESTAMP`].
    pub(crate) appended: TimestampMs,
    pub(crate) offset_entries: u32,
    pub(crate) time_entries: u32,
}

impl Extent {
    pub(crate) const fn empty(base: Offset) -> Self {
        Self {
            end: LogPoint { offset: base, bytes: 0 },
            max_time: MaxTime { timestamp: NO_TIMESTAMP, offset: base },
            appended: NO_TIMESTAMP,
            offset_entries: 0,
            time_entries: 0,
        }
    }
}

/// Where a log's files are, until it gives them up.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) files: Arc<dyn FileLayer>,
    pub(crate) dir: PathBuf,
    /// What the log has lost.
    pub(crate) quarantine: Arc<Quarantine>,
    /// What `files` goes through.
    gate: Arc<Gate>,
}

impl Place {
    pub(crate) fn new(files: Arc<dyn FileLayer>, dir: PathBuf) -> Self {
        let gate = Gate::new(files);
        Self { files: Arc::<Gate>::clone(&gate), dir, quarantine: Arc::default(), gate }
    }

    /// From here on no name is used, by any clone.
    pub(crate) fn give_up(&self) {
        self.gate.shut();
    }

    pub(crate) fn path(&self, base: Offset, suffix: &str) -> PathBuf {
        self.dir.join(file_name(base, suffix))
    }
}

#[derive(Debug)]
pub(crate) struct Segment {
    base: Offset,
    log: LazyFile,
    pub(crate) offsets: Index<OffsetEntry>,
    pub(crate) times: Index<TimeEntry>,
    published: Arc<PublishedEnd>,
    end: PointCell,
    durable: PointCell,
    /// A `MaxTime`: the timestamp's bits stand in `bytes`.
    max_time: PointCell,
    /// Which of its bytes are known to be good.
    pub(crate) vouched: Vouched,
    quarantine: Arc<Quarantine>,
    /// [`Extent::appended`].
    appended: AtomicI64,
    /// Bytes to map; zero for a segment that is not hot, which is read by `pread` alone.
    map_bytes: u64,
    map: MapSlot,
}

impl Segment {
    pub(crate) fn new(place: &Place, base: Offset, extent: &Extent, map_bytes: u64) -> Self {
        Self::named(place, base, extent, map_bytes, "")
    }

    /// A segment whose files have `mark` at the end of their names.
    pub(crate) fn named(place: &Place, base: Offset, extent: &Extent, map_bytes: u64, mark: &str) -> Self {
        let path = |suffix| place.path(base, &format!("{suffix}{mark}"));
        let files = || Arc::clone(&place.files);
        let segment = Self {
            base,
            log: LazyFile::new(files(), path("log")),
            offsets: Index::new(files(), path("index"), extent.offset_entries),
            times: Index::new(files(), path("timeindex"), extent.time_entries),
            published: Arc::new(PublishedEnd::new(extent.end.bytes)),
            end: PointCell::new(extent.end),
            durable: PointCell::new(LogPoint { offset: base, bytes: 0 }),
            max_time: PointCell::new(LogPoint::default()),
            vouched: Vouched::new(extent.end),
            quarantine: Arc::clone(&place.quarantine),
            appended: AtomicI64::new(extent.appended.0),
            map_bytes,
            map: MapSlot::new(place.files.pool().cloned()),
        };
        segment.set_max_time(extent.max_time);
        segment
    }

    pub(crate) const fn base(&self) -> Offset {
        self.base
    }

    pub(crate) fn path(&self) -> &Path {
        self.log.path()
    }

    /// Whether its files have names that are not a segment's.
    pub(crate) fn is_marked(&self) -> bool {
        self.log.path().extension().is_none_or(|extension| extension != "log")
    }

    /// Notes that bytes were written to the log file that somebody is going to sync. Its handle must still be held.
    pub(crate) fn note_unsynced(&self) {
        self.log.note_unsynced();
    }

    /// Makes the log file durable.
    pub(crate) fn sync_log(&self) -> io::Result<()> {
        self.log.sync()
    }

    /// The error of a sync of the log file that failed when it was closed for want of descriptors.
    pub(crate) fn known_failure(&self) -> io::Result<()> {
        self.log.known_failure()
    }

    pub(crate) fn log_file(&self) -> io::Result<Arc<dyn FileHandle>> {
        self.log.get()
    }

    pub(crate) fn create_log_file(&self) -> io::Result<Arc<dyn FileHandle>> {
        self.log.create_new()
    }

    /// Next offset, and the position where its batch will begin.
    pub(crate) fn end(&self) -> LogPoint {
        self.end.load()
    }

    /// Makes appended bytes visible. Only the writer calls this.
    pub(crate) fn publish(&self, end: LogPoint) {
        self.published.publish(end.bytes);
        self.end.store(end);
    }

    /// The place up to which the segment is durable.
    pub(crate) fn durable(&self) -> LogPoint {
        self.durable.load()
    }

    pub(crate) fn set_durable(&self, point: LogPoint) {
        self.durable.store(point);
    }

    pub(crate) fn max_time(&self) -> MaxTime {
        let point = self.max_time.load();
        MaxTime { timestamp: TimestampMs(point.bytes as i64), offset: point.offset }
    }

    pub(crate) fn set_max_time(&self, max: MaxTime) {
        self.max_time.store(LogPoint { offset: max.offset, bytes: max.timestamp.0 as u64 });
    }

    /// When the last batch was appended, by the broker's clock; [`NO_TIMESTAMP`] if nobody knows.
    pub(crate) fn appended(&self) -> TimestampMs {
        TimestampMs(self.appended.load(Ordering::Relaxed))
    }

    pub(crate) fn set_appended(&self, at: TimestampMs) {
        self.appended.store(at.0, Ordering::Relaxed);
    }

    /// Since when the segment ages: its newest record, or its last append if that is earlier.
    pub(crate) fn ages_from(&self) -> Option<TimestampMs> {
        let known = [self.max_time().timestamp, self.appended()].into_iter().filter(|at| *at != NO_TIMESTAMP);
        known.min()
    }

    /// Whether this process writes or wrote the segment, so that its pages are likely in memory.
    pub(crate) const fn is_hot(&self) -> bool {
        self.map_bytes > 0
    }

    /// Whether a read of up to `bytes_max` bytes from `offset` on finds everything in memory, and its bytes checked.
    pub(crate) fn is_at_hand(&self, offset: Offset, bytes_max: u32) -> bool {
        let wanted = relative(self.base, offset).unwrap_or(u32::MAX);
        let floor = self.offsets.last_at_hand(|entry| entry.relative_offset < wanted);
        let Some(start) = floor.map(|entry| entry.map_or(0, |entry| u64::from(entry.position))) else {
            return false;
        };
        // The index is sparse: up to a batch lies between its entry and what is asked for.
        let bytes = start..(start + 2 * u64::from(bytes_max)).min(self.end().bytes);
        let is_resident = || {
            let file = self.log_file();
            file.is_ok_and(|file| file.is_resident(bytes.start, bytes.end.saturating_sub(bytes.start)))
        };
        self.vouched.covers(&bytes) && is_resident()
    }

    /// The map of a hot segment. A map that cannot be had is not asked for again.
    pub(crate) fn map(&self) -> Option<Guard<Option<Arc<SegmentMap>>>> {
        let open = || {
            let map = self.log_file()?.map(self.map_bytes, Arc::clone(&self.published));
            map.inspect_err(|error| {
                tracing::warn!(path = %self.path().display(), %error, "segment is read without a map");
            })
        };
        (self.map_bytes > 0).then(|| self.map.get(open))
    }

    /// Writes pending index entries. Times first: offset entries in the file vouch for the time entries before them.
    pub(crate) fn flush_indexes(&self) -> io::Result<()> {
        self.times.flush()?;
        self.offsets.flush()
    }

    /// Completes the indexes of a segment that takes no more batches. Says whether they have all that they should; if
    /// not, they are rebuilt when the log is opened again.
    pub(crate) fn complete_indexes(&self) -> bool {
        let max = self.max_time();
        let completed = self.times.last().and_then(|last| {
            if last.is_none_or(|last| last.timestamp < max.timestamp)
                && let Some(entry) = TimeEntry::new(self.base, max.offset, max.timestamp)
                && max.timestamp != NO_TIMESTAMP
            {
                self.times.append(entry);
            }
            self.flush_indexes()
        });
        if let Err(error) = &completed {
            tracing::warn!(path = %self.path().display(), %error, "indexes are not complete");
        }
        completed.is_ok()
    }

    /// Makes the indexes durable. If that fails they are removed, so that nobody trusts them later.
    pub(crate) fn sync_indexes(&self) {
        if let Err(error) = self.offsets.sync().and_then(|()| self.times.sync()) {
            tracing::warn!(path = %self.path().display(), %error, "indexes are not durable");
            self.offsets.remove();
            self.times.remove();
        }
        self.close_indexes();
    }

    /// Keeps all files open from now on, because their names are about to be given to other files or to nobody.
    pub(crate) fn pin(&self) -> io::Result<()> {
        self.log.pin()?;
        self.offsets.pin()?;
        self.times.pin()
    }

    /// Takes that back: the names are still this segment's.
    pub(crate) fn unpin(&self) {
        self.log.unpin();
        self.offsets.unpin();
        self.times.unpin();
    }

    /// Forgets the open files; whoever uses them keeps them.
    pub(crate) fn close_files(&self) {
        self.log.close();
        self.close_indexes();
    }

    pub(crate) fn close_indexes(&self) {
        self.offsets.close();
        self.times.close();
    }

    /// Position and header of the first batch that ends at or after `offset`; `None` if there is none below the end.
    pub(crate) fn locate(&self, offset: Offset) -> io::Result<Option<(u64, BatchHeader)>> {
        let wanted = relative(self.base, offset).unwrap_or(u32::MAX);
        let floor = self.offsets.last_where(|entry| entry.relative_offset < wanted);
        self.locate_from(lenient(self, floor), |_, header| header.last_offset() >= offset)
    }

    /// Position and header of the first batch from an index entry on that `matches`. Falls back to the start of the
    /// segment if the entry does not point to a batch that ends where it says.
    pub(crate) fn locate_from(
        &self,
        entry: Option<OffsetEntry>,
        mut matches: impl FnMut(u64, &BatchHeader) -> bool,
    ) -> io::Result<Option<(u64, BatchHeader)>> {
        let limit = self.end().bytes;
        let entry = entry.filter(|entry| u64::from(entry.position) < limit && self.may_follow(*entry));
        let mut find = |position, header: &BatchHeader| {
            if matches(position, header) {
                ControlFlow::Break((position, *header))
            } else {
                ControlFlow::Continue(())
            }
        };
        if let Some(entry) = entry {
            let start = u64::from(entry.position);
            match walk(self, start, limit, self.base, |position, header| {
                if position == start && !self.is_entry_of(entry, header) {
                    return ControlFlow::Break(None);
                }
                find(position, header).map_break(Some)
            }) {
                Ok(Some(None)) => self.doubt(entry),
                Err(WalkError::Fault(fault)) if fault.position == start => self.doubt(entry),
                Err(WalkError::Fault(fault)) => {
                    self.contain_near(&fault)?;
                    return self.walk(start, limit, find);
                }
                Err(WalkError::Io(error)) => return Err(error),
                Ok(found) => return Ok(found.flatten()),
            }
        }
        self.walk(0, limit, find)
    }

    /// Whether a walk may begin at an index entry. One into quarantined bytes cannot be held against the batch that it
    /// names, but if the offset is lost with them, nothing before them is wanted.
    fn may_follow(&self, entry: OffsetEntry) -> bool {
        let last = self.base.advance(entry.relative_offset.into());
        let lost = self.quarantine.lost_with(self.base, entry.position.into(), last);
        if lost == Some(false) {
            self.doubt(entry);
        }
        lost != Some(false)
    }

    fn doubt(&self, entry: OffsetEntry) {
        tracing::warn!(path = %self.path().display(), ?entry, "index entry points to no batch");
    }

    /// Walks the batches from a position on, below `limit`. What is damaged on the way is quarantined and stepped over.
    pub(crate) fn walk<B>(
        &self,
        start: u64,
        limit: u64,
        mut visit: impl FnMut(u64, &BatchHeader) -> ControlFlow<B>,
    ) -> io::Result<Option<B>> {
        let mut from = LogPoint { offset: self.base, bytes: start };
        loop {
            match walk(self, from.bytes, limit, from.offset, &mut visit) {
                Ok(found) => return Ok(found),
                Err(WalkError::Io(error)) => return Err(error),
                Err(WalkError::Fault(fault)) => {
                    // If it was the batch before that lied, it was visited: who walks by headers is told no more
                    // than those say.
                    self.contain_near(&fault)?;
                    from = self.quarantine.beyond(self.base, &fault);
                }
            }
        }
    }

    /// Quarantines what a fault cost that a walk came upon. Such a walk compares no CRC and may not know which offset was
    /// to come, so the damage is looked for from a place where that is known.
    pub(crate) fn contain_near(&self, fault: &Fault) -> io::Result<()> {
        self.contain(&verify::first_fault(self, fault)?)
    }

    /// Quarantines what a fault in the segment cost.
    pub(crate) fn contain(&self, fault: &Fault) -> io::Result<()> {
        let end = self.end();
        let lost = damage::extent(self, Bounds { bytes: end.bytes, offset: end.offset }, fault)?;
        self.quarantine.add(lost);
        Ok(())
    }

    /// What the segment's log has lost.
    pub(crate) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    pub(crate) fn is_entry_of(&self, entry: OffsetEntry, header: &BatchHeader) -> bool {
        relative(self.base, header.last_offset()) == Some(entry.relative_offset)
    }

    /// The end of the last batch that ends at or before position `limit`, from the batch at `start` on, which is
    /// counted if it is `whole` although it ends after `limit`.
    pub(crate) fn cut_at(&self, start: u64, limit: u64, whole: bool) -> io::Result<LogPoint> {
        let near = self.offsets.last_where(|entry| u64::from(entry.position) <= limit);
        let near = lenient(self, near).filter(|entry| u64::from(entry.position) > start);
        let mut end = LogPoint { offset: self.base, bytes: start };
        let stop = |end: &mut LogPoint, position: u64, header: &BatchHeader| {
            let next = position + u64::from(header.size_bytes);
            if next > limit && !(whole && position == start) {
                if end.bytes != position {
                    *end = LogPoint { offset: header.base_offset, bytes: position };
                }
                return ControlFlow::Break(());
            }
            *end = LogPoint { offset: header.next_offset(), bytes: next };
            if next >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        if let Some(entry) = near {
            let from = u64::from(entry.position);
            let mut good = true;
            let walked = walk(self, from, self.end().bytes, self.base, |position, header| {
                good &= position != from || self.is_entry_of(entry, header);
                if good { stop(&mut end, position, header) } else { ControlFlow::Break(()) }
            });
            match walked {
                Ok(_) if good => return Ok(end),
                Err(WalkError::Io(error)) => return Err(error),
                Ok(_) | Err(WalkError::Fault(_)) => {}
            }
        }
        self.walk(start, self.end().bytes, |position, header| stop(&mut end, position, header))?;
        Ok(end)
    }

    /// Reads one whole batch and compares its CRC.
    pub(crate) fn read_batch(&self, position: u64, header: &BatchHeader) -> Result<Batch, WalkError> {
        let mut bytes = vec![0; header.size_bytes as usize];
        read_exact_at(&*self.log_file()?, &mut bytes, position)?;
        let stored = header.crc;
        Batch::new(bytes.into()).map_err(|error| {
            let fault = match error {
                highwater_record::BatchError::Crc { computed, .. } => BatchFault::Crc { stored, computed },
                highwater_record::BatchError::Header(fault) => fault.into(),
                highwater_record::BatchError::Size { expected, actual } => {
                    BatchFault::PastEnd { size_bytes: expected, available: actual as u64 }
                }
            };
            let expected = header.base_offset;
            WalkError::Fault(Box::new(Fault { position, expected, fault, before: None }))
        })
    }
}

impl ReadAt for Segment {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let file = self.log_file()?;
        let near_end = position + HOT_TAIL_BYTES >= self.published.get();
        let map = near_end.then(|| self.map()).flatten();
        let map = map.as_deref().and_then(Option::as_ref);
        // Only what is in memory is touched through the map: elsewhere an error of the disk would be a SIGBUS, and here
        // it is one of this read alone.
        if let Some(bytes) = map.and_then(|map| map.slice(position..position + buffer.len() as u64))
            && file.is_resident(position, buffer.len() as u64)
        {
            buffer.copy_from_slice(bytes);
            map.inspect(|map| map.forget_below(position.saturating_sub(HOT_TAIL_BYTES)));
            return Ok(buffer.len());
        }
        file.pread(buffer, position)
    }

    fn skip(&self, position: u64) -> Option<(u64, Offset)> {
        self.quarantine.skip(self.base, position)
    }
}

/// An index that cannot be read costs a walk, not the read.
pub(crate) fn lenient<E>(segment: &Segment, entry: io::Result<Option<E>>) -> Option<E> {
    entry.unwrap_or_else(|error| {
        tracing::warn!(path = %segment.path().display(), %error, "index is not readable");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_named_as_kafka_names_it() {
        let base = Offset::new(42).unwrap();

        assert_eq!(file_name(base, "log"), "00000000000000000042.log");
        assert_eq!(base_of("00000000000000000042.log", "log"), Some(base));
        for name in
            ["42.log", "00000000000000000042.index", "00000000000000000042log", "99999999999999999999.log"]
        {
            assert_eq!(base_of(name, "log"), None, "{name}");
        }
    }
}
