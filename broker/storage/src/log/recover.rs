//! Opening a log: what its files hold, what of it is good, and what is dropped.
//!
//! Below the recovery point everything had been synced: headers are walked from the last index entry, and what is
//! damaged or missing is quarantined as a range of offsets, changes nothing, and keeps nobody from the rest; a segment
//! that the disk cannot read at all is taken for what it was. A segment that lost anything takes no more appends.
//! Without a recovery point the manifest says what had been sealed and synced. Above it each batch is read, its CRC
//! compared and its offset matched; the first fault is the end of the log. An epoch that goes back is such a fault: it is
//! a batch from an earlier life that a crash brought back. Segments after such an end are moved aside (`.log.dropped`),
//! not deleted. In a sealed segment offsets may have gaps, where compaction took batches away, but it ends where the
//! next one begins. Of a compacted log the last one may have gaps too, and a segment may end before the next begins as far
//! as Kafka wrote the log, which its own producer snapshots tell. Bytes at or above the next segment's base offset are what
//! a cut left behind, and are cut off.
//! Indexes, epochs and producers are completed or rebuilt from batch headers. Doing it twice, or being
//! interrupted, changes nothing about the result: all that is written is either disposable or a cut of bytes that
//! would be cut again.

mod anchor;
mod headers;

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use highwater_record::{BatchHeader, Offset, TimestampMs};
use rustix::io::Errno;

use crate::compact;
use crate::index::{OffsetEntry, TimeEntry};
use crate::log::manifest::Manifest;
use crate::log::tail::{Gaps, Walk};
use crate::log::writer::{Indexer, Writer};
use crate::log::{Compacted, Log, LogConfig, OpenError, Opening, Owed};
use crate::point::LogPoint;
use crate::producers::Fingerprint;
use crate::quarantine::{Lost, QuarantinedRange};
use crate::segment::{Extent, MaxTime, NO_TIMESTAMP, Place, Segment, base_of, file_name};
use crate::view::LogView;

use anchor::entry_count;
pub(super) use headers::rebuild_producers;

/// What opening a log found and did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recovery {
    /// Bytes above the recovery point whose CRC was compared.
    pub bytes_scanned: u64,
    /// Bytes of a torn tail that were cut off.
    pub bytes_dropped: u64,
    /// Segments after a torn one that were moved aside as `.log.dropped`.
    pub segments_dropped: u32,
    /// Segments whose indexes were missing or broken.
    pub indexes_rebuilt: u32,
    /// Segments below the log's start, whose removal was cut short. They are no part of the log;
    /// [`Log::delete_before`] its start has a job that removes them.
    pub segments_below: u32,
    /// There are bytes that are not known to be durable; [`Log::begin_sync`] has a job.
    pub needs_sync: bool,
}

/// A segment's files as the directory lists them.
#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    base: Offset,
    log_bytes: u64,
    offset_bytes: u64,
    time_bytes: u64,
    modified: Option<TimestampMs>,
}

/// What is in a partition's directory.
#[derive(Debug, Default)]
struct Listing {
    /// By base offset.
    segments: Vec<Listed>,
    /// How far Kafka wrote the log.
    kafka_end: Offset,
}

struct Recoverer {
    place: Place,
    kafka_end: Offset,
    config: LogConfig,
    recovery_point: Offset,
    recovery: Recovery,
    scanned: Arc<AtomicU64>,
    give_up: Arc<AtomicBool>,
    segments: Vec<Arc<Segment>>,
    /// Sealed segments whose indexes may not be durable.
    owed_indexes: Vec<Arc<Segment>>,
    durable: Offset,
    /// Bytes between the durable end and the end.
    unsynced_bytes: u64,
    last_header: Option<BatchHeader>,
    /// The last batch is in a segment that the disk cannot read, so that nobody knows its header.
    last_unread: bool,
    last_indexer: Option<Indexer>,
}

pub(super) fn open(
    place: Place,
    config: LogConfig,
    Opening { known, now, scanned, give_up }: Opening,
) -> Result<(Log, Recovery), OpenError> {
    if compact::complete(&place).map_err(|source| OpenError::Io { path: place.dir.clone(), source })? {
        let synced = place.files.sync_dir(&place.dir);
        synced.map_err(|source| OpenError::Sync { path: place.dir.clone(), source })?;
    }
    let listing = list(&place)?;
    let dir_exists = listing.is_some();
    let Listing { segments: mut listed, kafka_end } = listing.unwrap_or_default();
    let first = listed.first().map_or(Offset::ZERO, |first| first.base);
    let log_start = known.map_or(first, |known| known.log_start);
    // Segments that end at or below the log's start are no longer part of it; the caller is told to remove them.
    let below = listed.iter().skip(1).take_while(|next| next.base <= log_start).count();
    listed.drain(..below);
    let recovery_point = known.map_or(Offset::ZERO, |known| known.recovery_point);
    // A log that nobody knows anything about is as good as its manifest says.
    let unknown = dir_exists && recovery_point == Offset::ZERO;
    let manifest = if unknown { Manifest::load(&place) } else { None };
    let recovery_point = manifest.map_or(recovery_point, |manifest| manifest.end());
    let first = listed.first().map_or(Offset::ZERO, |first| first.base);
    // A recovery point at or below the log's start vouches for nothing that is still in the log.
    let trusted = if recovery_point > log_start { recovery_point.max(first) } else { first };
    let mut recoverer = Recoverer {
        place,
        kafka_end,
        config,
        recovery_point: trusted,
        recovery: Recovery { segments_below: below as u32, ..Recovery::default() },
        scanned,
        give_up,
        segments: Vec::new(),
        owed_indexes: Vec::new(),
        durable: log_start,
        unsynced_bytes: 0,
        last_header: None,
        last_unread: false,
        last_indexer: None,
    };
    if known.is_some() && log_start < first {
        recoverer.miss(log_start, first);
    }
    recoverer.segments(&listed)?;
    if recoverer.segments.is_empty() && recovery_point > log_start {
        recoverer.miss(log_start, recovery_point);
    }
    if recoverer.segments.last().is_some_and(|last| last.end().offset < log_start) {
        // The log's start was moved to where the log no longer reaches, which a power cut can do where nothing was
        // synced. All that is left lies below the start; the log goes on from there.
        recoverer.forget_segments(log_start);
    }
    let end = if recoverer.segments.is_empty() { recovery_point.max(log_start) } else { log_start };
    recoverer.finish(log_start, end, dir_exists, now)
}

/// The segments of a directory; `None` if there is no directory.
fn list(place: &Place) -> Result<Option<Listing>, OpenError> {
    let entries = match place.files.list(&place.dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path: place.dir.clone(), source }),
    };
    let mut listed: Vec<Listed> = entries
        .iter()
        .filter_map(|e| {
            base_of(&e.name, "log").map(|base| Listed {
                base,
                log_bytes: e.len,
                modified: e.modified,
                ..Listed::default()
            })
        })
        .collect();
    listed.sort_unstable_by_key(|segment| segment.base);
    for entry in &entries {
        let find = |base: Offset| listed.binary_search_by_key(&base, |segment| segment.base).ok();
        if let Some(at) = base_of(&entry.name, "index").and_then(find) {
            listed[at].offset_bytes = entry.len;
        } else if let Some(at) = base_of(&entry.name, "timeindex").and_then(find) {
            listed[at].time_bytes = entry.len;
        }
    }
    // Kafka notes the state of producers at each roll and at a stop, under the offset that comes next.
    let kafka_end = entries.iter().filter_map(|entry| base_of(&entry.name, "snapshot")).max();
    Ok(Some(Listing { segments: listed, kafka_end: kafka_end.unwrap_or_default() }))
}

impl Recoverer {
    fn segments(&mut self, listed: &[Listed]) -> Result<(), OpenError> {
        for (at, segment) in listed.iter().enumerate() {
            if self.give_up.load(Ordering::Relaxed) {
                return Err(OpenError::GivenUp { opened: at, segments: listed.len() });
            }
            let next = listed.get(at + 1).map(|next| next.base);
            let torn = match (self.segment(*segment, next), next) {
                (Err(OpenError::Io { source, .. }), Some(next))
                    if next <= self.recovery_point && is_unreadable(&source) =>
                {
                    self.keep_unread(*segment, next, &source);
                    false
                }
                (torn, _) => torn?,
            };
            if torn {
                return self.drop_segments(&listed[at + 1..]);
            }
        }
        Ok(())
    }

    /// Opens one segment; says whether the log ends in it although there are more.
    fn segment(&mut self, listed: Listed, next: Option<Offset>) -> Result<bool, OpenError> {
        let base = listed.base;
        let extent = Extent {
            offset_entries: entry_count::<OffsetEntry>(listed.offset_bytes),
            time_entries: entry_count::<TimeEntry>(listed.time_bytes),
            appended: listed.modified.unwrap_or(NO_TIMESTAMP),
            ..Extent::empty(base)
        };
        let hot_bytes = if next.is_none() { u64::from(self.config.segment_bytes) } else { 0 };
        let segment = Segment::new(&self.place, base, &extent, hot_bytes);
        let io_error = |source| OpenError::Io { path: segment.path().to_owned(), source };
        let synced = next.is_some_and(|next| next <= self.recovery_point);
        let rebuilt_before = self.recovery.indexes_rebuilt;
        // Indexes are synced together with the first batches of the next segment.
        let indexed = next.is_some_and(|next| next < self.recovery_point);
        let limit = next.unwrap_or(Offset::MAX);
        let limit = if indexed { limit } else { limit.min(self.recovery_point) };
        let anchor = self.anchor(&segment, &listed, indexed, limit).map_err(io_error)?;
        let gaps = if self.config.compaction.is_some() { Gaps::Anywhere } else { Gaps::Sealed };
        let mut walk = Walk::new(&segment, anchor, listed.log_bytes, next, gaps);
        walk.goes_on_from(self.last_header);

        walk.below(self.recovery_point).map_err(io_error)?;
        self.quarantine(&mut walk, &listed, next);
        let durable = walk.end;
        let mut torn = false;
        if !synced {
            let fault = walk.above(&mut self.recovery, &self.scanned).map_err(io_error)?;
            if let Some(next_base) = next.filter(|_| !fault && !walk.reached(next))
                && self.is_gap(&listed, next, walk.end.offset..next_base)
            {
                walk.end.offset = next_base;
            }
            torn = next.is_some() && (fault || !walk.reached(next));
        }
        let damaged = self.place.quarantine.concerns(base);
        if !damaged {
            self.cut_tail(&segment, &walk, listed.log_bytes)?;
        }
        walk.confirm();
        let Walk { end, mut indexer, last_header, .. } = walk;
        if next.is_some() || damaged {
            indexer.complete(&segment);
        }
        segment.set_max_time(indexer.max_time);
        segment.publish(end);
        segment.set_durable(durable);
        segment.vouched.set_foreign(end);
        // Above the recovery point every batch was read.
        segment.vouched.vouch(durable.bytes..end.bytes, end.offset);
        // Of a log that is only opened, one file stays open: the one that is appended to.
        if next.is_some() {
            segment.close_files();
        } else {
            segment.close_indexes();
        }
        self.unsynced_bytes += end.bytes - durable.bytes;
        if self.unsynced_bytes == end.bytes - durable.bytes {
            // No earlier segment has unsynced bytes, so the durable end lies in this one.
            self.durable = durable.offset;
        }
        self.last_header = last_header;
        self.last_unread &= last_header.is_none();
        self.last_indexer = Some(indexer);
        let segment = Arc::new(segment);
        let rebuilt = self.recovery.indexes_rebuilt > rebuilt_before;
        self.owed_indexes.extend((next.is_some() && (rebuilt || !indexed)).then(|| Arc::clone(&segment)));
        self.segments.push(segment);
        Ok(torn)
    }

    /// Enters what a walk found to be lost.
    fn quarantine(&self, walk: &mut Walk<'_>, listed: &Listed, next: Option<Offset>) {
        for lost in walk.lost.drain(..) {
            // Without bytes it lies behind the last batch.
            if !lost.bytes.is_empty() || !self.is_gap(listed, next, lost.range.from..lost.range.to) {
                self.place.quarantine.add(self.named(lost, listed.log_bytes));
            }
        }
    }

    /// Whether the offsets between the last batch of a segment and `next`, or the recovery point in the last one, are a gap
    /// that Kafka's cleaner left. Ours leaves none there, so it is none where Kafka never was; and none if the manifest
    /// knows better. Behind the last segment it must know, since nothing else tells a gap from segments that are gone.
    fn is_gap(&self, listed: &Listed, next: Option<Offset>, gap: Range<Offset>) -> bool {
        if self.config.compaction.is_none() || gap.end > self.kafka_end {
            return false;
        }
        let manifest = Manifest::load(&self.place).unwrap_or_default();
        (next.is_some() || manifest.knows(listed.base))
            && manifest.allows_gap(listed.base, listed.log_bytes, gap)
    }

    /// Takes a segment for what it was when it was sealed and synced, since the disk does not let anybody look: reads
    /// of it fail or, on another day, find what there is. Nobody is kept from the rest of the log.
    fn keep_unread(&mut self, listed: Listed, next: Offset, error: &io::Error) {
        let end = LogPoint { offset: next, bytes: listed.log_bytes };
        let extent = Extent {
            end,
            // Unknown, so that lookups by time fail here instead of passing it over.
            max_time: MaxTime { timestamp: TimestampMs(i64::MAX), offset: listed.base },
            appended: listed.modified.unwrap_or(NO_TIMESTAMP),
            offset_entries: entry_count::<OffsetEntry>(listed.offset_bytes),
            time_entries: entry_count::<TimeEntry>(listed.time_bytes),
        };
        let segment = Segment::new(&self.place, listed.base, &extent, 0);
        segment.set_durable(end);
        segment.vouched.set_foreign(end);
        tracing::error!(
            path = %segment.path().display(), %error,
            "the disk cannot read this segment; its offsets cannot be read, the rest of the log is served"
        );
        if self.unsynced_bytes == 0 {
            self.durable = next;
        }
        (self.last_header, self.last_unread, self.last_indexer) = (None, true, None);
        self.segments.push(Arc::new(segment));
    }

    fn cut_tail(&mut self, segment: &Segment, walk: &Walk<'_>, log_bytes: u64) -> Result<(), OpenError> {
        let path = || segment.path().to_owned();
        let excess = log_bytes.saturating_sub(walk.end.bytes);
        if excess > 0 {
            // Made durable at once: a later crash must neither mix what is cut with what is appended in its place, nor
            // find a tail that looks good because the segments after it have gone.
            let cut = segment.log_file().and_then(|file| file.set_len(walk.end.bytes).map(|()| file));
            let file = cut.map_err(|source| OpenError::Io { path: path(), source })?;
            file.fdatasync().map_err(|source| OpenError::Sync { path: path(), source })?;
            self.recovery.bytes_dropped += excess;
            tracing::info!(path = %segment.path().display(), excess, "dropped bytes after the last batch");
        }
        Ok(())
    }

    fn drop_segments(&mut self, rest: &[Listed]) -> Result<(), OpenError> {
        for listed in rest {
            let path = self.place.path(listed.base, "log");
            let aside = self.place.path(listed.base, "log.dropped");
            tracing::warn!(path = %path.display(), "segment after a torn one is moved aside");
            self.place
                .files
                .rename(&path, &aside)
                .map_err(|source| OpenError::Io { path: path.clone(), source })?;
            for suffix in ["index", "timeindex"] {
                // Without its log an index means nothing; a new segment of the same name empties it.
                let _ = self.place.files.unlink(&self.place.path(listed.base, suffix));
            }
            self.recovery.segments_dropped += 1;
        }
        if rest.is_empty() {
            return Ok(());
        }
        // A crash must not bring them back among batches that are appended from here on.
        self.place
            .files
            .sync_dir(&self.place.dir)
            .map_err(|source| OpenError::Sync { path: self.place.dir.clone(), source })
    }

    fn forget_segments(&mut self, log_start: Offset) {
        self.segments.clear();
        self.owed_indexes.clear();
        self.durable = log_start;
        self.unsynced_bytes = 0;
        self.last_header = None;
        self.last_unread = false;
        self.last_indexer = None;
    }

    /// Says of a range without bytes which file was cut or is gone.
    fn named(&self, mut lost: Lost, log_bytes: u64) -> Lost {
        if !lost.bytes.is_empty() {
            return lost;
        }
        let manifest = Manifest::load(&self.place).unwrap_or_default();
        let sealed_bytes = manifest.bytes_of(lost.base);
        let range = &mut lost.range;
        if let Some(bytes) = sealed_bytes.filter(|bytes| *bytes > log_bytes) {
            range.cause = format!("the file has {log_bytes} bytes, it had {bytes} when it was sealed");
            return lost;
        }
        (range.path, range.position) = (self.place.path(range.from, "log"), 0);
        let name = file_name(lost.base, "log");
        // A file that ends with a whole batch is more often whole than cut, and the next one began where it ends.
        range.cause = missing(&manifest, range.from, range.to).unwrap_or_else(|| {
            format!("this segment file is missing, or {name} was cut after a whole batch")
        });
        lost
    }

    /// Quarantines offsets whose segments are gone.
    fn miss(&self, from: Offset, to: Offset) {
        let manifest = Manifest::load(&self.place).unwrap_or_default();
        let cause = missing(&manifest, from, to)
            .unwrap_or_else(|| "the segment files that held them are missing".to_owned());
        let path = self.place.path(from, "log");
        let range = QuarantinedRange { from, to, path, position: 0, cause };
        self.place.quarantine.add(Lost { range, base: from, bytes: 0..0 });
    }

    fn finish(
        mut self,
        log_start: Offset,
        end_min: Offset,
        dir_exists: bool,
        now: TimestampMs,
    ) -> Result<(Log, Recovery), OpenError> {
        let dir = self.place.dir.clone();
        let io_error = |source| OpenError::Io { path: dir.clone(), source };
        let end = self.segments.last().map_or(end_min, |segment| segment.end().offset);
        if self.segments.is_empty() {
            self.durable = end;
        }
        // What lies below the log's start needs no sync.
        let durable = self.durable.max(log_start).min(end);
        let durable =
            LogPoint { offset: durable, bytes: if durable == end { self.unsynced_bytes } else { 0 } };
        let end = LogPoint { offset: end, bytes: self.unsynced_bytes };
        let (epochs, epochs_changed) = self.epochs(log_start, end.offset).map_err(io_error)?;
        let (producers, sidecar_end) =
            rebuild_producers(&self.place, &self.segments, end.offset, now).map_err(io_error)?;
        let writer = self.writer(now).map_err(io_error)?;
        self.recovery.needs_sync = durable.offset < end.offset;

        let view = LogView::new(log_start, end, durable, Arc::clone(&self.place.quarantine));
        view.set_segments(self.segments);
        let epoch_min = epochs.latest().unwrap_or_default();
        view.set_epochs(epochs);
        let last_batch =
            self.last_header.map(|last| Fingerprint { base_offset: last.base_offset, crc: last.crc });
        let owed = Owed {
            // Nothing says that the names were ever synced; the first sync after an append makes sure.
            dir: dir_exists,
            parent: dir_exists,
            epochs: epochs_changed,
            indexes: self.owed_indexes,
            sidecar_end,
            ..Owed::default()
        };
        let last = view.segments().last().map_or(log_start, |last| last.base());
        let compacted = Compacted::load(&self.place, &self.config, last);
        let log = Log {
            place: self.place,
            config: self.config,
            view: Arc::new(view),
            dir_exists,
            writer,
            end,
            durable,
            recovered: end.offset,
            epoch_min,
            producers,
            expired_at: now,
            last_batch,
            owed,
            generation: 0,
            syncing: false,
            failed: false,
            retired: Vec::new(),
            compacted,
        };
        Ok((log, self.recovery))
    }

    fn writer(&self, now: TimestampMs) -> io::Result<Option<Writer>> {
        let (Some(segment), Some(indexer)) = (self.segments.last(), self.last_indexer) else {
            return Ok(None);
        };
        let first =
            segment.walk(0, segment.end().bytes, |_, header| ControlFlow::Break(header.max_timestamp))?;
        if self.place.quarantine.concerns(segment.base()) {
            // Its file stays as it is: appends go to a new one.
            segment.complete_indexes();
            return Ok(None);
        }
        Ok(Some(Writer::new(Arc::clone(segment), indexer, first, now)))
    }
}

/// Whether the disk says that it cannot read.
fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// What the manifest knows of the files that held a range, all of which are gone.
fn missing(manifest: &Manifest, from: Offset, to: Offset) -> Option<String> {
    let names = manifest.names(from, to);
    (!names.is_empty()).then(|| format!("these segment files are missing: {}", names.join(", ")))
}
