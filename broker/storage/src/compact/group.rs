//! Cleaning one group of segments: what stays of them goes into one new segment beside them, `<base>.log.cleaned`.
//!
//! Knows no log: which segments, which keys and which producers is told. The old segments are read and not touched.
//!
//! Invariant: the batches of the new segment follow each other without a gap, from where the old segments begin to where
//! they end. What is removed whole leaves an empty batch in its place, one for a run of them, and so does a gap that
//! Kafka's cleaner has left. No checksum covers a base offset: its neighbours vouch for it, and a file that lost its
//! end shows.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::sync::Arc;

use highwater_record::{Batch, BatchHeader, DecodeLimits, Offset, Record, Thinned, TimestampMs};

use super::key_map::KeyMap;
use super::pieces::{Pace, Pieces};
use super::{CompactionError, swap};
use crate::files::FileHandle;
use crate::log::{Indexer, no_time};
use crate::point::LogPoint;
use crate::segment::{Extent, NO_TIMESTAMP, Place, Segment};

/// Bytes that are written at a time, about.
const WRITE_BYTES: usize = 256 << 10;
/// Writeback is started whenever so many bytes were written.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// What decides about a record.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// The latest offset of each key below `end`.
    pub(super) keys: KeyMap,
    /// Records from here on are not decided about.
    pub(super) end: Offset,
    /// Base offsets of the batches that producers are known by.
    pub(super) remembered: HashSet<Offset>,
    pub(super) now: TimestampMs,
    pub(super) delete_retention_ms: u64,
}

/// A new segment that waits to take the place of old ones.
#[derive(Debug)]
pub(crate) struct Cleaned {
    pub(crate) old: Vec<Arc<Segment>>,
    pub(crate) extent: Extent,
}

impl Cleaned {
    pub(crate) fn base(&self) -> Offset {
        self.old[0].base()
    }

    /// Gives up: the old segments stay.
    pub(crate) fn discard(&self, place: &Place) {
        self.old.iter().for_each(|segment| segment.unpin());
        swap::remove_cleaned(place, self.base());
    }
}

impl Verdicts {
    /// What of a batch is written; `None` if nothing is.
    fn judge(&self, batch: Batch) -> Result<Option<Batch>, String> {
        let header = *batch.header();
        if header.attributes.is_control() || header.base_offset >= self.end {
            return Ok(Some(batch));
        }
        let retention_ms = i64::try_from(self.delete_retention_ms).unwrap_or(i64::MAX);
        let horizon = TimestampMs(self.now.0.saturating_add(retention_ms));
        let tombstones_stay = header.delete_horizon().is_none_or(|horizon| self.now < horizon);
        let keep = |record: &Record<'_>| {
            let is_latest = |key| self.keys.get(key).is_none_or(|latest| record.offset >= latest);
            record.offset >= self.end
                || (record.key.is_some_and(is_latest) && (record.value.is_some() || tombstones_stay))
        };
        match batch.thin(DecodeLimits::STORED, horizon, keep).map_err(|error| error.to_string())? {
            Thinned::Same => Ok(Some(batch)),
            Thinned::Rewritten(rest) => Ok(Some(rest)),
            Thinned::Emptied if self.remembered.contains(&header.base_offset) => Ok(Some(batch.emptied())),
            Thinned::Emptied => Ok(None),
        }
    }
}

/// Cleans a group. `None` if there is nothing to gain.
pub(super) fn clean(
    place: &Place,
    interval_bytes: u32,
    group: &[Arc<Segment>],
    verdicts: &Verdicts,
    pace: &mut Pace<'_>,
) -> Result<Option<Cleaned>, CompactionError> {
    let Some((first, last)) = group.first().zip(group.last()) else { return Ok(None) };
    let (base, end) = (first.base(), last.end().offset);
    swap::remove_cleaned(place, base);
    let cleaned = Output::create(place, base, interval_bytes).and_then(|mut output| {
        let changed = fill(&mut output, group, end, verdicts, pace)?;
        // Of a log that is clean already most groups are single segments that stay as they are.
        if (group.len() == 1 && !changed) || output.end.offset != end {
            return Ok(None);
        }
        let appended = group.iter().map(|segment| segment.appended()).max().unwrap_or(NO_TIMESTAMP);
        let extent = Extent { appended, ..output.finish(pace)? };
        for segment in group {
            segment.pin().map_err(|source| CompactionError::io(segment.path(), source))?;
        }
        Ok(Some(Cleaned { old: group.to_vec(), extent }))
    });
    if !matches!(cleaned, Ok(Some(_))) {
        group.iter().for_each(|segment| segment.unpin());
        swap::remove_cleaned(place, base);
    }
    cleaned
}

/// Writes what stays of a group, and empty batches for the rest; says whether it is less than there was.
fn fill(
    output: &mut Output,
    group: &[Arc<Segment>],
    end: Offset,
    verdicts: &Verdicts,
    pace: &mut Pace<'_>,
) -> Result<bool, CompactionError> {
    let (mut changed, mut before) = (false, None);
    for segment in group {
        let mut pieces = Pieces::new(segment, 0)?;
        while let Some(batch) = pieces.next(pace)? {
            let header = *batch.header();
            // What is missing has the epoch of what was there, so that each epoch still begins where it began.
            let like = before.replace(header).unwrap_or(header);
            if like.leader_epoch != header.leader_epoch {
                output.stand_in(header.base_offset, &like, pace)?;
            }
            let rest = verdicts.judge(batch).map_err(|cause| CompactionError::Damaged {
                path: segment.path().to_owned(),
                offset: header.base_offset,
                cause,
            })?;
            match rest {
                Some(rest) => {
                    output.stand_in(header.base_offset, &like, pace)?;
                    changed |= rest.header() != &header;
                    output.append(&rest, pace)?;
                }
                // An empty one is worth no new file.
                None => changed |= header.record_count > 0,
            }
        }
    }
    if let Some(like) = before {
        output.stand_in(end, &like, pace)?;
    }
    Ok(changed)
}

/// The new segment while it is written.
struct Output {
    segment: Segment,
    file: Arc<dyn FileHandle>,
    indexer: Indexer,
    end: LogPoint,
    pending: Vec<u8>,
    written: u64,
    written_back: u64,
}

impl Output {
    fn create(place: &Place, base: Offset, interval_bytes: u32) -> Result<Self, CompactionError> {
        let segment = Segment::named(place, base, &Extent::empty(base), 0, swap::CLEANED);
        let create = || {
            let file = segment.create_log_file()?;
            segment.offsets.create()?;
            segment.times.create()?;
            Ok(file)
        };
        let file = create().map_err(|source| CompactionError::io(segment.path(), source))?;
        Ok(Self {
            segment,
            file,
            indexer: Indexer::new(interval_bytes, no_time(base)),
            end: LogPoint { offset: base, bytes: 0 },
            pending: Vec::with_capacity(WRITE_BYTES),
            written: 0,
            written_back: 0,
        })
    }

    /// Puts an empty batch in the place of what is missing before the offset `to`; `like` is a batch beside it.
    fn stand_in(
        &mut self,
        to: Offset,
        like: &BatchHeader,
        pace: &mut Pace<'_>,
    ) -> Result<(), CompactionError> {
        match Batch::without_records(self.end.offset, to, like) {
            Some(empty) => self.append(&empty, pace),
            None => Ok(()),
        }
    }

    fn append(&mut self, batch: &Batch, pace: &mut Pace<'_>) -> Result<(), CompactionError> {
        let header = batch.header();
        let bytes = self.end.bytes + u64::from(header.size_bytes);
        if bytes > i32::MAX as u64 {
            let source = io::Error::other(format!("{bytes} bytes are too many for a segment"));
            return Err(CompactionError::io(self.segment.path(), source));
        }
        self.indexer.add(&self.segment, self.end.bytes, header);
        self.pending.extend_from_slice(batch.bytes());
        self.end = LogPoint { offset: header.next_offset(), bytes };
        if self.pending.len() >= WRITE_BYTES { self.flush(pace) } else { Ok(()) }
    }

    fn flush(&mut self, pace: &mut Pace<'_>) -> Result<(), CompactionError> {
        let len = self.pending.len() as u64;
        self.file
            .pwritev(&[IoSlice::new(&self.pending)], self.written)
            .map_err(|source| CompactionError::io(self.segment.path(), source))?;
        self.written += len;
        self.pending.clear();
        if self.written - self.written_back >= WRITEBACK_BYTES {
            // A hint, so that the sync has less to do; if it fails, the sync will say so.
            let _ = self.file.writeback(self.written_back, self.written - self.written_back);
            self.written_back = self.written;
        }
        if pace(len).is_break() { Err(CompactionError::Stopped) } else { Ok(()) }
    }

    /// Makes the segment durable; its name is not.
    fn finish(mut self, pace: &mut Pace<'_>) -> Result<Extent, CompactionError> {
        self.flush(pace)?;
        self.indexer.complete(&self.segment);
        let synced = self.file.fdatasync();
        synced.map_err(|source| CompactionError::io(self.segment.path(), source))?;
        // Indexes are disposable: one that does not hold is rebuilt.
        let indexed = self.segment.offsets.sync().and_then(|()| self.segment.times.sync()).is_ok();
        Ok(Extent {
            end: self.end,
            max_time: self.indexer.max_time,
            appended: NO_TIMESTAMP,
            offset_entries: if indexed { self.segment.offsets.len() } else { 0 },
            time_entries: if indexed { self.segment.times.len() } else { 0 },
        })
    }
}
