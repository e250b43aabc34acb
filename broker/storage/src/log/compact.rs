//! Compaction as the log's owner sees it: a job goes out, and what it made takes its place in the log.
//!
//! A job says nothing any more about segments that were cut or deleted meanwhile; those that are still in the list have
//! the bytes that the job read. Only while files are swapped is the log held, for one sync of its directory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_record::{Offset, TimestampMs};

use crate::compact::{
    Cleaned, CompactionConfig, CompactionError, CompactionJob, CompactionStep, Dirt, Ratio, Sizes, swap,
};
use crate::disk::DiskFiles;
use crate::files::FileLayer;
use crate::log::cut::last_batch;
use crate::log::{Log, LogConfig, LogOutline};
use crate::own_file::{self, Durable, Fields, Kind, frame, unframe};
use crate::segment::{Extent, Place, Segment, base_of};

/// Name of the file that says how far the log is compacted.
const FILE_NAME: &str = "compacted";
const KIND: Kind = Kind { magic: *b"HWCO", version: 1 };

/// What became of a run of a job.
#[derive(Debug)]
pub enum CompactionOutcome {
    /// A new segment took the place of old ones: run the job again.
    Swapped,
    /// The pass is complete: the log is compacted up to this offset.
    Done(Offset),
    /// The log was cut, or what was compacted is deleted. The pass ends.
    Superseded,
    /// The pass ends. After damage there is no other until the log is opened again or cut.
    Failed(CompactionError),
}

/// How far a log is compacted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compacted {
    /// Of what is below, only the latest record of each key is left.
    upto: Offset,
    /// A batch from here on cannot be read.
    blocked: bool,
}

impl Compacted {
    /// Reads what the last life left. It is disposable: without it everything is dirty.
    pub(super) fn load(place: &Place, config: &LogConfig, last_base: Offset) -> Self {
        let upto = config.compaction.map(|_| stored(&*place.files, &place.dir, last_base));
        Self { upto: upto.unwrap_or_default(), blocked: false }
    }

    fn advance(&mut self, place: &Place, upto: Offset) {
        if upto <= self.upto {
            return;
        }
        self.upto = upto;
        let bytes = frame(KIND, &upto.get().to_be_bytes());
        let path = place.dir.join(FILE_NAME);
        if let Err(error) = own_file::store(&*place.files, &path, &bytes, Durable::No) {
            tracing::warn!(path = %path.display(), %error, "the next start compacts the whole log again");
        }
    }

    /// Takes note of a cut. What is appended in place of what was cut is dirty, also after a crash: a tombstone in a
    /// part that is wrongly taken for clean would go before what it deletes.
    pub(super) fn cut(&mut self, place: &Place, end: Offset) {
        self.blocked = false;
        if end < self.upto {
            self.upto = Offset::ZERO;
            let _ = place.files.unlink(&place.dir.join(FILE_NAME));
        }
    }
}

/// Reads a partition's file `compacted` offline: the offset below which all is, or nothing if it does not hold together.
pub fn read_compacted(path: &Path) -> io::Result<Option<Offset>> {
    Ok(own_file::load(&DiskFiles, path)?.and_then(|bytes| decode(&bytes)))
}

fn decode(bytes: &[u8]) -> Option<Offset> {
    let mut fields = Fields(unframe(KIND, bytes)?);
    Offset::new(fields.i64()?).filter(|_| fields.0.is_empty())
}

/// How far the log in a directory is compacted, as the file there says; its last segment begins at `last_base`.
fn stored(files: &dyn FileLayer, dir: &Path, last_base: Offset) -> Offset {
    let bytes = own_file::load(files, &dir.join(FILE_NAME)).ok().flatten();
    let upto = bytes.and_then(|bytes| decode(&bytes));
    // The last segment is never compacted: who says so belongs to another log.
    upto.filter(|upto| *upto <= last_base).unwrap_or_default()
}

impl LogOutline {
    /// Whether the log in `dir`, which is at rest, may be dirty enough for a pass of compaction. It is no less dirty than
    /// it would be found to be if it were opened. Reads one small file and lists the directory.
    pub fn may_be_dirty(
        &self,
        files: &dyn FileLayer,
        dir: &Path,
        config: &CompactionConfig,
    ) -> io::Result<bool> {
        let Some(tail) = self.tail else { return Ok(false) };
        let upto = stored(files, dir, tail.base);
        let mut segments: Vec<(Offset, u64)> = (files.list(dir)?.into_iter())
            .filter_map(|entry| base_of(&entry.name, "log").map(|base| (base, entry.len)))
            .filter(|(base, _)| *base <= tail.base)
            .collect();
        segments.sort_unstable();
        let (mut dirty, mut total) = (0, 0);
        for pair in segments.windows(2) {
            let ((_, bytes), (end, _)) = (pair[0], pair[1]);
            total += bytes;
            dirty += if end > upto { bytes } else { 0 };
        }
        let is_bounded = i64::try_from(config.max_lag_ms).is_ok_and(|lag_ms| lag_ms < i64::MAX);
        Ok(dirty > 0 && (is_bounded || Ratio::of(dirty, total) > config.dirty_ratio_min))
    }
}

impl Log {
    /// What could be compacted; `None` if the log is not to be compacted, or cannot be now.
    pub fn dirt(&self) -> Option<Dirt> {
        let config = self.config.compaction?;
        if self.failed || self.compacted.blocked || !self.retired.is_empty() {
            return None;
        }
        let segments = self.view.segments();
        let (_active, sealed) = segments.split_last()?;
        let durable = self.durable.offset;
        let mut expected = None;
        let sealed = sealed.iter().take_while(|segment| {
            // What has lost something stays as it is, and what follows a loss is not moved across it. So does what could
            // not be given its name: merged with others it would leave a `.swap` that the next start brings back.
            let follows = expected.is_none_or(|expected| expected == segment.base());
            expected = Some(segment.end().offset);
            let whole = !segment.is_marked() && !segment.quarantine().concerns(segment.base());
            follows && whole && segment.end().offset <= durable
        });
        let sealed = sealed.cloned().collect();
        let from = self.compacted.upto.max(self.view.log_start());
        Some(Dirt { segments: sealed, from, config })
    }

    /// Whether damage keeps the log from being compacted: until it is opened again or cut there is no
    /// [`Log::dirt`].
    pub const fn is_compaction_blocked(&self) -> bool {
        self.config.compaction.is_some() && self.compacted.blocked
    }

    /// A job that compacts what may be compacted at `now`. One at a time; it may be dropped. `None` if there is
    /// nothing.
    pub fn begin_compaction(&self, now: TimestampMs) -> Option<CompactionJob> {
        let dirt =
            self.dirt().filter(|dirt| dirt.segments.last().is_some_and(|s| s.end().offset > dirt.from))?;
        let sizes = Sizes {
            segment_bytes: self.config.segment_bytes,
            index_bytes_max: self.config.index_bytes_max,
            index_interval_bytes: self.config.index_interval_bytes,
        };
        let mut job = CompactionJob::new(&self.place, sizes, dirt, self.producers.batches().collect(), now);
        job.generation = self.generation;
        Some(job)
    }

    /// Takes up what a run of a job came to.
    pub fn finish_compaction(
        &mut self,
        job: &mut CompactionJob,
        result: Result<CompactionStep, CompactionError>,
    ) -> CompactionOutcome {
        let cleaned = job.take_cleaned();
        let superseded = self.failed || job.generation != self.generation;
        match result {
            _ if superseded => {
                cleaned.inspect(|cleaned| cleaned.discard(&self.place));
                CompactionOutcome::Superseded
            }
            Ok(CompactionStep::Done) => {
                self.compacted.advance(&self.place, job.end());
                CompactionOutcome::Done(job.end())
            }
            Ok(CompactionStep::Swap) => match cleaned {
                Some(cleaned) => self.take_cleaned(&cleaned),
                None => CompactionOutcome::Superseded,
            },
            Err(error) => {
                self.compacted.blocked |= matches!(error, CompactionError::Damaged { .. });
                CompactionOutcome::Failed(error)
            }
        }
    }

    /// Puts a new segment in the place of old ones.
    fn take_cleaned(&mut self, cleaned: &Cleaned) -> CompactionOutcome {
        let segments = self.view.segments();
        let at = segments.iter().position(|segment| Arc::ptr_eq(segment, &cleaned.old[0]));
        let same = at.filter(|at| {
            let found = segments.get(*at..*at + cleaned.old.len());
            found.is_some_and(|found| found.iter().zip(&cleaned.old).all(|(a, b)| Arc::ptr_eq(a, b)))
        });
        let Some(at) = same else {
            cleaned.discard(&self.place);
            return CompactionOutcome::Superseded;
        };
        let swapped = match swap(&self.place, &cleaned.old) {
            Ok(swapped) => swapped,
            Err(source) => {
                cleaned.discard(&self.place);
                return CompactionOutcome::Failed(CompactionError::Io {
                    path: self.place.dir.clone(),
                    source,
                });
            }
        };
        let mut extent = cleaned.extent;
        if !swapped.indexed {
            extent = Extent { offset_entries: 0, time_entries: 0, ..extent };
        }
        let segment = Segment::named(&self.place, cleaned.base(), &extent, 0, swapped.mark);
        segment.set_durable(extent.end);
        let mut segments = Vec::clone(&segments);
        segments.splice(at..at + cleaned.old.len(), [Arc::new(segment)]);
        self.owed.dir = true;
        self.owed.indexes.retain(|owed| segments.iter().any(|segment| Arc::ptr_eq(owed, segment)));
        if self.owed.sidecar_end.is_some_and(|end| end <= extent.end.offset) {
            // The batch that it ends with may be another one now.
            self.owed.sidecar_end = None;
        }
        match last_batch(&segments) {
            Ok(last) => self.last_batch = last,
            Err(error) => {
                tracing::warn!(dir = %self.place.dir.display(), %error, "cannot read the last batch")
            }
        }
        self.view.set_segments(segments);
        CompactionOutcome::Swapped
    }
}
