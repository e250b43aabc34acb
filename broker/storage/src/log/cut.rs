//! Taking away: the end of a log (a failed sync, a truncation) and its beginning (retention).
//!
//! A reader may hold what is taken away. So the end is cut in two steps: readers get a new object for the shortened
//! segment at once; the file is shortened when nobody holds the old object, which owns the map. Until then the next
//! segment's base offset says where the old one ends, and recovery honours it. The beginning goes file by file;
//! whoever has one open keeps it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_record::{LeaderEpoch, Offset};
use thiserror::Error;

use crate::files::{Access, FileLayer};
use crate::log::recover::rebuild_producers;
use crate::log::{Log, manifest};
use crate::point::LogPoint;
use crate::producers::Fingerprint;
use crate::segment::{Extent, MaxTime, Segment, base_of};

/// Why a log is not cut.
#[derive(Debug, Error)]
pub enum CutError {
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
    /// What was recovered when the log was opened is not durable yet, and the failure leaves no way to make it so.
    /// It may have been acknowledged before, so it is not cut off: the log stays closed until it is opened again.
    #[error("recovered batches from {durable} to {recovered} are not durable and cannot be given up")]
    Unsynced {
        /// The durable end.
        durable: Offset,
        /// Where the log ended when it was opened.
        recovered: Offset,
    },
    /// The disk says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A segment that lost bytes, and the length that its file will have.
#[derive(Debug)]
pub(super) struct Retired {
    segment: Arc<Segment>,
    len: u64,
}

/// Segments that are no longer part of a log. Run it when the new log start is durable elsewhere; dropping it
/// leaves the files to the next one.
#[derive(Debug)]
pub struct RemovalJob {
    files: Arc<dyn FileLayer>,
    dir: PathBuf,
    below: Offset,
}

impl Log {
    /// Takes away everything from offset `to` on; batches get at least `new_epoch` from now on. A batch that `to`
    /// lies inside of goes as a whole. A checkpoint with a later recovery point must have been replaced before.
    pub fn truncate(&mut self, to: Offset, new_epoch: LeaderEpoch) -> Result<LogPoint, CutError> {
        let (start, end) = (self.view.log_start(), self.end.offset);
        if to < start || to > end {
            return Err(CutError::OutOfRange { requested: to, start, end });
        }
        self.set_epoch_min(new_epoch);
        if to < end {
            self.cut(to)?;
            self.recovered = self.recovered.min(self.end.offset);
        }
        Ok(self.end)
    }

    /// Makes a log take appends again after a failed write or sync, in a new segment and with at least `new_epoch`.
    /// Everything above both the durable end and `acknowledged` is cut off.
    pub fn resume(&mut self, new_epoch: LeaderEpoch, acknowledged: Offset) -> Result<LogPoint, CutError> {
        if self.failed {
            let keep = self.durable.offset.max(acknowledged.min(self.end.offset));
            if keep < self.recovered {
                return Err(CutError::Unsynced { durable: self.durable.offset, recovered: self.recovered });
            }
            self.set_epoch_min(new_epoch);
            self.cut(keep)?;
        }
        Ok(self.end)
    }

    /// Closes the log to appends.
    pub(super) fn fail(&mut self) {
        self.failed = true;
        self.generation += 1;
        self.syncing = false;
    }

    /// Cuts the log and begins a new segment, so that the file that was cut is not written again, not even after it
    /// was opened again, and so that a reader of the files knows where it ends. Until that has succeeded the log
    /// takes no appends.
    fn cut(&mut self, to: Offset) -> Result<(), CutError> {
        self.failed = true;
        self.generation += 1;
        self.syncing = false;
        if to < self.durable.offset {
            // It vouches for what is about to go.
            manifest::forget(&self.place)?;
        }
        let mut segments = Vec::clone(&self.view.segments());
        // If the log's start was moved beyond what stays, nothing stays, and the log goes on from its start.
        let start = self.view.log_start();
        let keep = if to < start { 0 } else { segments.partition_point(|segment| segment.base() < to) };
        let dropped = segments.split_off(keep);
        let mut end = to.max(start);
        let mut retired = None;
        if let Some(last) = segments.pop_if(|last| last.end().offset > to) {
            let shorter = self.shortened(&last, to)?;
            end = shorter.end().offset;
            retired = Some(Retired { len: shorter.end().bytes, segment: last });
            segments.extend((shorter.end().bytes > 0).then(|| Arc::new(shorter)));
        }
        let (producers, sidecar_end) = rebuild_producers(&self.place, &segments, end, self.expired_at)?;
        self.last_batch = last_batch(&segments)?;

        // Nothing fails until the log is consistent again.
        self.writer = None;
        self.retired.extend(retired);
        self.producers = producers;
        self.owed.sidecar_end = sidecar_end;
        // By object: a segment that was replaced must not be held by anyone.
        self.owed.indexes.retain(|owed| segments.iter().any(|segment| Arc::ptr_eq(owed, segment)));
        self.owed.indexes.extend(segments.last().filter(|last| last.complete_indexes()).map(Arc::clone));
        self.set_epochs(|epochs| epochs.truncate_from_end(end));
        self.compacted.cut(&self.place, end);
        self.place.quarantine.truncate(end);
        self.publish_cut(segments, end);
        // Newest first, so that what a crash leaves has no hole.
        for segment in dropped.iter().rev() {
            self.remove_files(segment);
        }
        self.finish_cuts();
        self.start_segment(self.expired_at)?;
        self.failed = false;
        Ok(())
    }

    fn publish_cut(&mut self, segments: Vec<Arc<Segment>>, end: Offset) {
        let kept: u64 = segments.iter().map(|segment| segment.end().bytes).sum();
        let lost = self.view.size_bytes() - kept;
        let bytes =
            if end == self.durable.offset { self.durable.bytes } else { self.end.bytes.saturating_sub(lost) };
        let point = LogPoint { offset: end, bytes };
        self.set_end(point);
        if self.durable.offset > end || kept == 0 {
            self.set_durable(point);
        }
        self.view.set_segments(segments);
    }

    /// A new object for `segment`, which ends at the batch that contains `to`.
    fn shortened(&self, segment: &Segment, to: Offset) -> io::Result<Segment> {
        let base = segment.base();
        let durable = segment.durable();
        let end = if durable.offset == to {
            durable
        } else {
            // Where compaction left a gap around `to`, that is the end of the batch before the gap.
            let mut end = LogPoint { offset: base, bytes: 0 };
            segment.locate_from(None, |position, header| {
                let stays = header.last_offset() < to;
                if stays {
                    let bytes = position + u64::from(header.size_bytes);
                    end = LogPoint { offset: header.next_offset(), bytes };
                }
                !stays
            })?;
            // Lost offsets are not used again.
            let lost = self.place.quarantine.at(to).filter(|lost| lost.from >= end.offset);
            LogPoint { offset: lost.map_or(end.offset, |_| to), ..end }
        };
        segment.flush_indexes()?;
        let distance = end.offset.since(base);
        let offset_entries = segment.offsets.count_where(|e| u64::from(e.relative_offset) < distance)?;
        let time_entries = segment.times.count_where(|e| u64::from(e.relative_offset) < distance)?;
        let mut max_time = segment.max_time();
        if max_time.offset >= end.offset {
            max_time = MaxTime { timestamp: crate::segment::NO_TIMESTAMP, offset: base };
            segment.locate_from(None, |_, header| {
                let stays = header.base_offset < end.offset;
                if stays && header.max_timestamp > max_time.timestamp {
                    max_time = MaxTime { timestamp: header.max_timestamp, offset: header.last_offset() };
                }
                !stays
            })?;
        }
        let appended = segment.appended();
        let extent = Extent { end, max_time, appended, offset_entries, time_entries };
        let shorter = Segment::new(&self.place, base, &extent, 0);
        shorter.offsets.truncate(offset_entries)?;
        shorter.times.truncate(time_entries)?;
        shorter.set_durable(if durable.offset < end.offset { durable } else { end });
        let foreign = segment.vouched.foreign();
        shorter.vouched.set_foreign(if foreign.offset < end.offset { foreign } else { end });
        Ok(shorter)
    }

    /// Shortens the files of segments that nobody holds any more.
    pub(super) fn finish_cuts(&mut self) {
        let files = Arc::clone(&self.place.files);
        self.retired.retain_mut(|retired| {
            // Nobody can take another reference: the list that readers begin from no longer has it.
            if Arc::strong_count(&retired.segment) > 1 {
                return true;
            }
            let cut =
                files.open(retired.segment.path(), Access::Write).and_then(|file| file.set_len(retired.len));
            if let Err(error) = &cut
                && error.kind() != io::ErrorKind::NotFound
            {
                let path = retired.segment.path().display();
                tracing::error!(%path, %error, "bytes after the cut stay in the file");
            }
            false
        });
    }

    fn remove_files(&self, segment: &Segment) {
        for path in [segment.offsets.path(), segment.times.path()].map(PathBuf::as_path) {
            let _ = self.place.files.unlink(path);
        }
        if let Err(error) = self.place.files.unlink(segment.path()) {
            tracing::error!(path = %segment.path().display(), %error, "segment after the cut stays");
        }
    }

    /// Moves the log's start forward; it may come to lie inside a batch. Segments that end at or below it are
    /// gone for readers from now on, and their files when the job has run.
    pub fn delete_before(&mut self, offset: Offset) -> Result<RemovalJob, CutError> {
        let (start, end) = (self.view.log_start(), self.end.offset);
        if offset > end {
            return Err(CutError::OutOfRange { requested: offset, start, end });
        }
        let start = start.max(offset);
        let segments = self.view.segments();
        let keep_from = segments.iter().skip(1).take_while(|next| next.base() <= start).count();
        self.view.set_start(start);
        if keep_from > 0 {
            self.view.set_segments(segments[keep_from..].to_vec());
        }
        self.set_epochs(|epochs| epochs.truncate_from_start(start));
        let below = segments.get(keep_from).map_or(Offset::ZERO, |first| first.base());
        Ok(RemovalJob { files: Arc::clone(&self.place.files), dir: self.place.dir.clone(), below })
    }
}

impl RemovalJob {
    /// Removes the files, oldest segment first, so that what a crash leaves is the end of the log without a hole.
    /// Says how many log bytes were removed.
    pub fn run(&self) -> io::Result<u64> {
        if self.below == Offset::ZERO {
            return Ok(0);
        }
        let mut removed = 0;
        let mut old: Vec<_> = (self.files.list(&self.dir)?.into_iter())
            .filter_map(|entry| base_of(&entry.name, "log").map(|base| (base, entry)))
            .filter(|(base, _)| *base < self.below)
            .collect();
        old.sort_unstable_by_key(|(base, _)| *base);
        for (base, entry) in old {
            for suffix in ["index", "timeindex", "log"] {
                match self.files.unlink(&self.dir.join(crate::segment::file_name(base, suffix))) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            removed += entry.len;
        }
        Ok(removed)
    }
}

/// The batch that a list of segments ends with.
pub(super) fn last_batch(segments: &[Arc<Segment>]) -> io::Result<Option<Fingerprint>> {
    let Some(last) = segments.iter().rfind(|segment| segment.end().bytes > 0) else { return Ok(None) };
    let wanted = Offset::new(last.end().offset.get() - 1).unwrap_or_default();
    let found = last.locate(wanted)?;
    Ok(found.map(|(_, header)| Fingerprint { base_offset: header.base_offset, crc: header.crc }))
}
