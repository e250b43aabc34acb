//! The one writer of an active segment: reserves space, writes batches, feeds the indexes.
//!
//! Knows one segment, not the log. After any error the file is cut back to the published end, so that its size is
//! always its appended end; if even that fails, the next write tries first.

use std::io::{self, IoSlice};
use std::sync::Arc;

use highwater_record::{BatchHeader, HEADER_BYTES, Offset, TimestampMs};

use crate::files::{FileHandle, is_no_space};
use crate::index::{Entry, OffsetEntry, TimeEntry, relative};
use crate::log::LogConfig;
use crate::point::LogPoint;
use crate::segment::{MaxTime, NO_TIMESTAMP, Segment};

/// The first reservation in a segment, in bytes; each later one is twice as large.
const RESERVE_BYTES_MIN: u64 = 64 << 10;
/// The largest reservation, in bytes.
const RESERVE_BYTES_MAX: u64 = 16 << 20;
/// Writeback is started whenever so many bytes were written.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// A batch as it goes to disk: what its header says, the header's bytes, and the bytes after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamped<'a> {
    pub(super) header: BatchHeader,
    pub(super) fixed: [u8; HEADER_BYTES],
    pub(super) payload: &'a [u8],
}

/// Decides which batches get index entries; used alike by appends and by recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexer {
    interval_bytes: u64,
    bytes_since_entry: u64,
    /// The largest timestamp that the time index has.
    last_time: TimestampMs,
    pub(crate) max_time: MaxTime,
}

impl Indexer {
    /// An indexer for a segment whose last entry is for the batch that comes next, or that has none.
    pub(crate) const fn new(interval_bytes: u32, max_time: MaxTime) -> Self {
        Self {
            interval_bytes: interval_bytes as u64,
            bytes_since_entry: 0,
            last_time: max_time.timestamp,
            max_time,
        }
    }

    /// Takes note of a batch, after it was written (Kafka: `LogSegment.append`).
    pub(crate) fn add(&mut self, segment: &Segment, position: u64, header: &BatchHeader) {
        let last = header.last_offset();
        // Of an emptied batch no record has that time.
        if header.record_count > 0 && header.max_timestamp > self.max_time.timestamp {
            self.max_time = MaxTime { timestamp: header.max_timestamp, offset: last };
        }
        if self.bytes_since_entry > self.interval_bytes
            && let Some(entry) = OffsetEntry::new(segment.base(), last, position)
        {
            self.add_time(segment);
            let due = segment.offsets.append(entry);
            self.bytes_since_entry = 0;
            if due {
                Self::flush(segment);
            }
        }
        self.bytes_since_entry += u64::from(header.size_bytes);
    }

    /// Brings the indexes of a segment that takes no more batches up to its end.
    pub(crate) fn complete(&mut self, segment: &Segment) {
        self.add_time(segment);
        Self::flush(segment);
    }

    fn flush(segment: &Segment) {
        if let Err(error) = segment.flush_indexes() {
            // The entries stay in memory, and the next flush tries again.
            tracing::warn!(path = %segment.path().display(), %error, "index entries are not written");
        }
    }

    /// Adds the largest timestamp to the time index, if it is not there.
    pub(super) fn add_time(&mut self, segment: &Segment) {
        if self.max_time.timestamp > self.last_time
            && let Some(entry) = TimeEntry::new(segment.base(), self.max_time.offset, self.max_time.timestamp)
        {
            segment.times.append(entry);
            self.last_time = self.max_time.timestamp;
        }
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    segment: Arc<Segment>,
    indexer: Indexer,
    /// Space is reserved up to here.
    reserved: u64,
    reserve_step: u64,
    /// The file may be longer than the published end.
    overlong: bool,
    /// Largest timestamp of the first batch.
    first_timestamp: Option<TimestampMs>,
    created: TimestampMs,
    written_back: u64,
}

impl Writer {
    /// A writer that goes on at the end of `segment`.
    pub(super) fn new(
        segment: Arc<Segment>,
        indexer: Indexer,
        first_timestamp: Option<TimestampMs>,
        created: TimestampMs,
    ) -> Self {
        let end = segment.end().bytes;
        Self {
            segment,
            indexer,
            reserved: end,
            reserve_step: RESERVE_BYTES_MIN,
            overlong: false,
            first_timestamp,
            created,
            written_back: end,
        }
    }

    /// The file to append to, opened again if it was closed meanwhile. Taken before [`Writer::append`]: a file that
    /// cannot be opened is no reason to distrust what was written.
    pub(super) fn file(&self) -> io::Result<Arc<dyn FileHandle>> {
        self.segment.log_file()
    }

    pub(super) const fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Whether a batch belongs into a new segment (Kafka: `LogSegment.shouldRoll`).
    pub(super) fn must_roll(&self, header: &BatchHeader, config: &LogConfig, now: TimestampMs) -> bool {
        let size = self.segment.end().bytes;
        if size == 0 {
            return false;
        }
        let index_full = |entries: u32, entry_bytes: usize| {
            (u64::from(entries) + 2) * entry_bytes as u64 > u64::from(config.index_bytes_max)
        };
        size + u64::from(header.size_bytes) > u64::from(config.segment_bytes)
            || self.age_ms(header, now) > i128::from(config.segment_ms)
            || index_full(self.segment.offsets.len(), OffsetEntry::BYTES)
            || index_full(self.segment.times.len(), TimeEntry::BYTES)
            || relative(self.segment.base(), header.last_offset()).is_none()
            // A reader has found damage. The file stays as it is, so that it can be put back from a copy.
            || self.segment.quarantine().concerns(self.segment.base())
    }

    /// Whether a segment that nobody appends to has been taking batches for long enough by our clock. Kafka looks at
    /// this with the next append only, so that the last records of an idle partition stay for ever.
    pub(super) fn is_overdue(&self, config: &LogConfig, now: TimestampMs) -> bool {
        self.overdue_from(config).is_some_and(|from| i128::from(now.0) >= from)
    }

    /// From when on the segment is overdue.
    pub(super) fn overdue_from(&self, config: &LogConfig) -> Option<i128> {
        let appended = Some(self.segment.appended()).filter(|at| *at != NO_TIMESTAMP);
        let since = appended.map_or(self.created, |at| at.min(self.created));
        let has_batches = self.segment.end().bytes > 0;
        has_batches.then(|| i128::from(since.0) + i128::from(config.segment_ms) + 1)
    }

    /// How long the segment has been taking batches: by the batches' own time if the first has one, else by ours.
    fn age_ms(&self, header: &BatchHeader, now: TimestampMs) -> i128 {
        match self.first_timestamp.filter(|first| first.0 >= 0) {
            Some(first) => i128::from(header.max_timestamp.0) - i128::from(first.0),
            None => i128::from(now.0) - i128::from(self.created.0),
        }
    }

    /// Appends a batch and makes it visible. After an error the segment is as it was before.
    pub(super) fn append(
        &mut self,
        file: &dyn FileHandle,
        stamped: &Stamped<'_>,
        config: &LogConfig,
    ) -> io::Result<LogPoint> {
        let position = self.segment.end().bytes;
        let header = &stamped.header;
        let written = self.write(file, stamped, position, u64::from(config.segment_bytes));
        if config.writeback {
            // Where appends are left to the system (`os`), nobody waits for a sync.
            self.segment.note_unsynced();
        }
        written?;
        let end = LogPoint { offset: header.next_offset(), bytes: position + u64::from(header.size_bytes) };
        self.segment.publish(end);
        self.indexer.add(&self.segment, position, header);
        self.segment.set_max_time(self.indexer.max_time);
        self.first_timestamp.get_or_insert(header.max_timestamp);
        if config.writeback && end.bytes - self.written_back >= WRITEBACK_BYTES {
            // A hint: if it fails, the sync will say so.
            let _ = file.writeback(self.written_back, end.bytes - self.written_back);
            self.written_back = end.bytes;
        }
        Ok(end)
    }

    fn write(
        &mut self,
        file: &dyn FileHandle,
        stamped: &Stamped<'_>,
        position: u64,
        segment_bytes: u64,
    ) -> io::Result<()> {
        if self.overlong {
            file.set_len(position)?;
            self.overlong = false;
        }
        let parts = [IoSlice::new(&stamped.fixed), IoSlice::new(stamped.payload)];
        let end = position + (parts[0].len() + parts[1].len()) as u64;
        let written = self.reserve(file, end, segment_bytes).and_then(|()| file.pwritev(&parts, position));
        if written.is_err() {
            self.overlong = file.set_len(position).is_err();
            self.reserved = position;
        }
        written
    }

    /// Reserves space up to `end` and some more. A full disk shows here.
    fn reserve(&mut self, file: &dyn FileHandle, end: u64, segment_bytes: u64) -> io::Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let generous = (self.reserved + self.reserve_step).clamp(end, segment_bytes.max(end));
        let target = match file.allocate(self.reserved, generous - self.reserved) {
            Err(error) if is_no_space(&error) && generous > end => {
                file.allocate(self.reserved, end - self.reserved)?;
                end
            }
            other => other.map(|()| generous)?,
        };
        self.reserved = target;
        self.reserve_step = (self.reserve_step * 2).min(RESERVE_BYTES_MAX);
        Ok(())
    }

    /// Gives back the space that is reserved beyond the end; the next append reserves anew.
    pub(super) fn give_back(&mut self) -> io::Result<()> {
        let end = self.segment.end().bytes;
        if self.reserved > end {
            self.segment.log_file()?.set_len(end)?;
            (self.reserved, self.reserve_step, self.overlong) = (end, RESERVE_BYTES_MIN, false);
        }
        Ok(())
    }

    /// Completes the indexes and gives reserved space back. The segment takes no more batches through this writer.
    pub(super) fn seal(mut self) -> io::Result<()> {
        self.indexer.add_time(&self.segment);
        self.segment.flush_indexes()?;
        let end = self.segment.end().bytes;
        if self.reserved > end || self.overlong {
            self.segment.log_file()?.set_len(end)?;
        }
        Ok(())
    }
}

/// The largest time of a segment without batches.
pub(crate) const fn no_time(base: Offset) -> MaxTime {
    MaxTime { timestamp: NO_TIMESTAMP, offset: base }
}
