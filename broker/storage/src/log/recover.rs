//! Opening a log: what its files hold, what of it is good, and what is dropped.
//!
//! Below the recovery point everything had been synced: headers are walked from the last index entry, and a fault is
//! corruption, which refuses the log and changes nothing. Above it each batch is read, its CRC compared and its
//! offset matched; the first fault is the end of the log. Segments after such an end are moved aside
//! (`.log.dropped`), not deleted. Bytes at or above the next segment's base offset are what a cut left behind, and
//! are ignored. Indexes, epochs and producers are completed or rebuilt from batch headers. Doing it twice, or being
//! interrupted, changes nothing about the result: all that is written is either disposable or a cut of bytes that
//! would be cut again.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use highwater_record::{BatchHeader, CRC_START, HEADER_BYTES, Offset, TimestampMs, crc32c};

use crate::batches::{BatchFault, ReadAt, WalkError, checked_header, walk};
use crate::epochs::{self, Epochs};
use crate::index::{Entry, OffsetEntry, TimeEntry, relative};
use crate::log::writer::{Indexer, Writer, no_time};
use crate::log::{Log, LogCheckpoint, LogConfig, OpenError, Owed};
use crate::own_file;
use crate::point::LogPoint;
use crate::producers::{self, Fingerprint, Producers, Snapshot};
use crate::segment::{Extent, MaxTime, Place, Segment, base_of};
use crate::view::LogView;

/// Bytes that the scan of the tail reads at a time.
const SCAN_BYTES: usize = 256 << 10;

/// What opening a log found and did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recovery {
    /// Bytes above the recovery point whose CRC was compared.
    pub bytes_scanned: u64,
    /// Bytes of a torn tail that were cut off.
    pub bytes_dropped: u64,
    /// Segments after a torn one that were moved aside as `.log.dropped`.
    pub segments_dropped: u32,
    /// Indexes that were missing or not to be trusted.
    pub indexes_rebuilt: u32,
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
}

struct Recoverer {
    place: Place,
    config: LogConfig,
    recovery_point: Offset,
    recovery: Recovery,
    segments: Vec<Arc<Segment>>,
    durable: Offset,
    /// Bytes between the durable end and the end.
    unsynced_bytes: u64,
    last_header: Option<BatchHeader>,
    last_indexer: Option<Indexer>,
}

pub(super) fn open(
    place: Place,
    config: LogConfig,
    known: Option<LogCheckpoint>,
    now: TimestampMs,
) -> Result<(Log, Recovery), OpenError> {
    let listed = list(&place)?;
    let dir_exists = listed.is_some();
    let mut listed = listed.unwrap_or_default();
    let first = listed.first().map_or(Offset::ZERO, |first| first.base);
    let log_start = known.map_or(first, |known| known.log_start.max(first));
    // Segments that end at or below the log's start are no longer part of it; the next removal takes them.
    let below = listed.iter().skip(1).take_while(|next| next.base <= log_start).count();
    listed.drain(..below);
    let recovery_point = known.map_or(Offset::ZERO, |known| known.recovery_point);
    let mut recoverer = Recoverer {
        place,
        config,
        recovery_point: recovery_point.max(listed.first().map_or(Offset::ZERO, |first| first.base)),
        recovery: Recovery::default(),
        segments: Vec::new(),
        durable: log_start,
        unsynced_bytes: 0,
        last_header: None,
        last_indexer: None,
    };
    recoverer.segments(&listed)?;
    recoverer.check_reach(log_start, recovery_point)?;
    if recoverer.segments.last().is_some_and(|last| last.end().offset < log_start) {
        // The log's start was moved to where the log no longer reaches, which a power cut can do where nothing was
        // synced. All that is left lies below the start; the log goes on from there.
        recoverer.forget_segments(log_start);
    }
    recoverer.finish(log_start, dir_exists, now)
}

/// The segments of a directory by base offset; `None` if there is no directory.
fn list(place: &Place) -> Result<Option<Vec<Listed>>, OpenError> {
    let entries = match place.files.list(&place.dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path: place.dir.clone(), source }),
    };
    let mut listed: Vec<Listed> = entries
        .iter()
        .filter_map(|e| {
            base_of(&e.name, "log").map(|base| Listed { base, log_bytes: e.len, ..Listed::default() })
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
    Ok(Some(listed))
}

/// Where a segment's walk may begin, and what is known up to there.
struct Anchor {
    position: u64,
    indexer: Indexer,
}

impl Recoverer {
    fn segments(&mut self, listed: &[Listed]) -> Result<(), OpenError> {
        for (at, segment) in listed.iter().enumerate() {
            let next = listed.get(at + 1).map(|next| next.base);
            let torn = self.segment(*segment, next)?;
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
            ..Extent::empty(base)
        };
        let hot_bytes = if next.is_none() { u64::from(self.config.segment_bytes) } else { 0 };
        let segment = Segment::new(&self.place, base, &extent, hot_bytes);
        let io_error = |source| OpenError::Io { path: segment.path().to_owned(), source };
        let synced = next.is_some_and(|next| next <= self.recovery_point);
        let anchor = self.anchor(&segment, &listed, synced).map_err(io_error)?;
        let mut walk = Walk::new(&segment, anchor, listed.log_bytes, next);

        walk.below(self.recovery_point).map_err(|error| open_error(&segment, error))?;
        if walk.end.offset < self.recovery_point && !walk.reached(next) {
            // Everything below the recovery point, or up to the next segment, had been synced.
            let expected = next.map_or(self.recovery_point, |next| next.min(self.recovery_point));
            let (path, found) = (segment.path().to_owned(), walk.end.offset);
            return Err(OpenError::Missing { path, expected, found });
        }
        let durable = walk.end;
        let mut torn = false;
        if !synced {
            let fault = walk.above(&mut self.recovery).map_err(io_error)?;
            torn = next.is_some() && (fault || !walk.reached(next));
            self.cut_tail(&segment, &walk, listed.log_bytes).map_err(io_error)?;
        }
        let Walk { end, mut indexer, last_header, .. } = walk;
        if next.is_some() {
            indexer.add_time(&segment);
        }
        segment.set_max_time(indexer.max_time);
        segment.publish(end);
        segment.set_durable(durable);
        if next.is_some() {
            segment.close_files();
        }
        self.unsynced_bytes += end.bytes - durable.bytes;
        if self.unsynced_bytes == end.bytes - durable.bytes {
            // No earlier segment has unsynced bytes, so the durable end lies in this one.
            self.durable = durable.offset;
        }
        self.last_header = last_header.or(self.last_header);
        self.last_indexer = Some(indexer);
        self.segments.push(Arc::new(segment));
        Ok(torn)
    }

    /// Keeps the index entries that can be trusted, and finds the batch to begin with.
    fn anchor(&mut self, segment: &Segment, listed: &Listed, synced: bool) -> io::Result<Anchor> {
        let (base, interval) = (segment.base(), self.config.index_interval_bytes);
        keep(&segment.offsets, segment.offsets.len(), listed.offset_bytes)?;
        keep(&segment.times, segment.times.len(), listed.time_bytes)?;
        if !synced {
            self.keep_trusted(segment)?;
        }
        let time = segment.times.last()?.map(|time| MaxTime {
            timestamp: time.timestamp,
            offset: base.advance(time.relative_offset.into()),
        });
        if let (Some(max_time), Some(entry)) = (time, segment.offsets.last()?)
            && Self::is_batch(segment, entry, listed.log_bytes)?
        {
            let indexer = Indexer::new(interval, max_time);
            return Ok(Anchor { position: u64::from(entry.position), indexer });
        }
        if listed.log_bytes > u64::from(interval) + HEADER_BYTES as u64 {
            self.recovery.indexes_rebuilt += 1;
        }
        if segment.offsets.len() > 0 || segment.times.len() > 0 {
            segment.offsets.truncate(0)?;
            segment.times.truncate(0)?;
        }
        Ok(Anchor { position: 0, indexer: Indexer::new(interval, no_time(base)) })
    }

    /// The indexes of a segment that was not sealed and synced may hold anything after a power cut, or stop
    /// anywhere. Entries in order and below the recovery point stay, and of the offset entries only those up to the
    /// last time entry: the batches after it are walked again, so that no larger timestamp is overlooked.
    fn keep_trusted(&self, segment: &Segment) -> io::Result<()> {
        segment.offsets.truncate_if_shorter(segment.offsets.entries_in_order()?)?;
        segment.times.truncate_if_shorter(segment.times.entries_in_order()?)?;
        let point = relative(segment.base(), self.recovery_point).unwrap_or(u32::MAX);
        let times = segment.times.count_where(|entry| entry.relative_offset < point)?;
        segment.times.truncate_if_shorter(times)?;
        let last = segment.times.last()?.map(|entry| entry.relative_offset);
        let offsets =
            segment.offsets.count_where(|entry| last.is_some_and(|last| entry.relative_offset <= last))?;
        segment.offsets.truncate_if_shorter(offsets)
    }

    /// Whether an index entry points to the batch that it names.
    fn is_batch(segment: &Segment, entry: OffsetEntry, log_bytes: u64) -> io::Result<bool> {
        let position = u64::from(entry.position);
        let mut bytes = [0; HEADER_BYTES];
        let read = segment.read_at(&mut bytes, position)?;
        let header = checked_header(&bytes[..read], log_bytes.saturating_sub(position), segment.base());
        let last = header.ok().map(|header| header.last_offset());
        Ok(last.and_then(|last| relative(segment.base(), last)) == Some(entry.relative_offset))
    }

    fn cut_tail(&mut self, segment: &Segment, walk: &Walk<'_>, log_bytes: u64) -> io::Result<()> {
        let excess = log_bytes.saturating_sub(walk.end.bytes);
        if excess > 0 {
            segment.log_file()?.set_len(walk.end.bytes)?;
            self.recovery.bytes_dropped += excess;
            tracing::info!(path = %segment.path().display(), excess, "dropped a torn tail");
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
        Ok(())
    }

    fn forget_segments(&mut self, log_start: Offset) {
        self.segments.clear();
        self.durable = log_start;
        self.unsynced_bytes = 0;
        self.last_header = None;
        self.last_indexer = None;
    }

    /// A log must reach its recovery point.
    fn check_reach(&self, log_start: Offset, recovery_point: Offset) -> Result<(), OpenError> {
        let found = self.segments.last().map_or(log_start, |segment| segment.end().offset);
        if found < recovery_point {
            return Err(OpenError::Missing { path: self.place.dir.clone(), expected: recovery_point, found });
        }
        Ok(())
    }

    fn finish(
        mut self,
        log_start: Offset,
        dir_exists: bool,
        now: TimestampMs,
    ) -> Result<(Log, Recovery), OpenError> {
        let dir = self.place.dir.clone();
        let io_error = |source| OpenError::Io { path: dir.clone(), source };
        let end = self.segments.last().map_or(log_start, |segment| segment.end().offset);
        let durable = LogPoint { offset: self.durable.min(end), bytes: 0 };
        let end = LogPoint { offset: end, bytes: self.unsynced_bytes };
        let (epochs, epochs_changed) = self.epochs(log_start, end.offset).map_err(|e| self.walk_error(e))?;
        let (producers, sidecar_end) = self.producers(end.offset, now).map_err(|e| self.walk_error(e))?;
        let writer = self.writer(now).map_err(io_error)?;
        self.recovery.needs_sync = durable.offset < end.offset;

        let view = LogView::new(log_start, end, durable);
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
            sidecar_end,
            ..Owed::default()
        };
        let log = Log {
            place: self.place,
            config: self.config,
            view: Arc::new(view),
            dir_exists,
            writer,
            end,
            durable,
            epoch_min,
            producers,
            expired_at: now,
            last_batch,
            owed,
            generation: 0,
            syncing: false,
            failed: false,
            retired: Vec::new(),
        };
        Ok((log, self.recovery))
    }

    fn walk_error(&self, error: WalkError) -> OpenError {
        match error {
            WalkError::Fault { position, fault } => {
                OpenError::Corrupt { path: self.place.dir.clone(), position, fault }
            }
            WalkError::Io(source) => OpenError::Io { path: self.place.dir.clone(), source },
        }
    }

    /// The epochs by the file, completed from the newest headers; from all headers if the file is not to be trusted.
    fn epochs(&self, log_start: Offset, end: Offset) -> Result<(Epochs, bool), WalkError> {
        let path = self.place.dir.join(epochs::FILE_NAME);
        let text = own_file::load(&*self.place.files, &path).ok().flatten();
        let stored = text.and_then(|text| Epochs::parse(std::str::from_utf8(&text).ok()?));
        let mut epochs = stored.clone().unwrap_or_default();
        epochs.truncate_from_end(end);
        epochs.truncate_from_start(log_start);
        let newest = self.last_header.and_then(|last| last.leader_epoch);
        if epochs.latest() != newest {
            epochs = Epochs::default();
            for segment in &self.segments {
                walk(&**segment, 0, segment.end().bytes, segment.base(), |_, header| {
                    if let Some(epoch) = header.leader_epoch {
                        epochs.assign(epoch, header.base_offset);
                    }
                    ControlFlow::<()>::Continue(())
                })?;
            }
            epochs.truncate_from_start(log_start);
        }
        let changed = stored.as_ref() != Some(&epochs) && (stored.is_some() || newest.is_some());
        Ok((epochs, changed))
    }

    /// The producers by the sidecar, completed from the headers after it; from all headers without a good sidecar.
    fn producers(&self, end: Offset, now: TimestampMs) -> Result<(Producers, Option<Offset>), WalkError> {
        rebuild_producers(&self.place, &self.segments, end, now)
    }

    fn writer(&self, now: TimestampMs) -> io::Result<Option<Writer>> {
        let (Some(segment), Some(indexer)) = (self.segments.last(), self.last_indexer) else {
            return Ok(None);
        };
        let first = match walk(&**segment, 0, segment.end().bytes, segment.base(), |_, header| {
            ControlFlow::Break(header.max_timestamp)
        }) {
            Ok(first) => first,
            Err(WalkError::Io(error)) => return Err(error),
            Err(WalkError::Fault { .. }) => None,
        };
        Writer::new(Arc::clone(segment), indexer, first, now).map(Some)
    }
}

/// Producer state at `end`, and where the sidecar on disk ends if it could be used.
pub(super) fn rebuild_producers(
    place: &Place,
    segments: &[Arc<Segment>],
    end: Offset,
    now: TimestampMs,
) -> Result<(Producers, Option<Offset>), WalkError> {
    let path = place.dir.join(producers::FILE_NAME);
    let stored = own_file::load(&*place.files, &path).ok().flatten();
    let sidecar = stored
        .and_then(|bytes| Snapshot::decode(&bytes))
        .filter(|sidecar| sidecar.end <= end && belongs(sidecar, segments));
    let (mut producers, from) = match &sidecar {
        Some(sidecar) => (sidecar.producers.clone(), sidecar.end),
        None => (Producers::default(), Offset::ZERO),
    };
    for segment in segments {
        if segment.end().offset <= from || segment.base() >= end {
            continue;
        }
        let Some((start, _)) = segment.locate(from)? else { continue };
        walk(&**segment, start, segment.end().bytes, segment.base(), |_, header| {
            if header.base_offset >= end {
                return ControlFlow::Break(());
            }
            if header.base_offset >= from {
                producers.record(header, now);
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok((producers, sidecar.map(|sidecar| sidecar.end)))
}

/// Whether the log has the batch that a sidecar ends with.
fn belongs(sidecar: &Snapshot, segments: &[Arc<Segment>]) -> bool {
    let Some(last) = sidecar.last else {
        return sidecar.end <= segments.first().map_or(sidecar.end, |s| s.base());
    };
    let holder = segments.iter().rfind(|segment| segment.base() <= last.base_offset);
    let Some(holder) = holder else { return false };
    matches!(
        holder.locate(last.base_offset),
        Ok(Some((_, header)))
            if header.base_offset == last.base_offset
                && header.crc == last.crc
                && header.next_offset() == sidecar.end
    )
}

/// A walk over one segment, first by headers, then by whole batches.
struct Walk<'a> {
    segment: &'a Segment,
    indexer: Indexer,
    end: LogPoint,
    log_bytes: u64,
    next: Option<Offset>,
    last_header: Option<BatchHeader>,
}

impl<'a> Walk<'a> {
    const fn new(segment: &'a Segment, anchor: Anchor, log_bytes: u64, next: Option<Offset>) -> Self {
        let end = LogPoint { offset: segment.base(), bytes: anchor.position };
        Self { segment, indexer: anchor.indexer, end, log_bytes, next, last_header: None }
    }

    /// Whether the batches reach the next segment.
    fn reached(&self, next: Option<Offset>) -> bool {
        next.is_some_and(|next| self.end.offset >= next)
    }

    fn take(&mut self, position: u64, header: &BatchHeader) {
        self.indexer.add(self.segment, position, header);
        self.end = LogPoint { offset: header.next_offset(), bytes: position + u64::from(header.size_bytes) };
        self.last_header = Some(*header);
    }

    /// Walks the headers of the batches that end at or below `recovery_point`.
    fn below(&mut self, recovery_point: Offset) -> Result<(), WalkError> {
        let next = self.next.unwrap_or(Offset::MAX);
        let stop = recovery_point.min(next);
        if self.end.bytes == 0 && self.segment.base() >= stop {
            return Ok(());
        }
        let (segment, start, log_bytes, base) =
            (self.segment, self.end.bytes, self.log_bytes, self.segment.base());
        let walked = walk(segment, start, log_bytes, base, |position, header| {
            if header.next_offset() > stop {
                return ControlFlow::Break(());
            }
            self.take(position, header);
            // What follows may be a tail that nobody vouches for: do not even parse it.
            if header.next_offset() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        walked.map(drop)
    }

    /// Reads whole batches to the end of the log. Says whether a fault ended it.
    fn above(&mut self, recovery: &mut Recovery) -> io::Result<bool> {
        let mut tail = Tail::default();
        while self.end.bytes < self.log_bytes && !self.reached(self.next) {
            let position = self.end.bytes;
            let available = self.log_bytes - position;
            let fault = match tail.batch(self.segment, position, available, self.end.offset)? {
                Ok(header) if self.next.is_some_and(|next| header.next_offset() > next) => {
                    BatchFault::OffsetOrder { expected: self.end.offset, actual: header.base_offset }
                }
                Ok(header) => {
                    recovery.bytes_scanned += u64::from(header.size_bytes);
                    self.take(position, &header);
                    continue;
                }
                Err(fault) => fault,
            };
            tracing::info!(path = %self.segment.path().display(), position, %fault, "the log ends here");
            return Ok(true);
        }
        Ok(false)
    }
}

/// Reads a tail in large pieces.
#[derive(Default)]
struct Tail {
    buffer: Vec<u8>,
    start: u64,
}

impl Tail {
    /// Bytes from `position` on, at least `wanted` unless the file ends before.
    fn bytes(
        &mut self,
        segment: &Segment,
        position: u64,
        wanted: usize,
        available: u64,
    ) -> io::Result<&[u8]> {
        let skip = position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let held = skip.and_then(|skip| self.buffer.len().checked_sub(skip)).unwrap_or(0);
        if held < wanted {
            let len = available.min(wanted.max(SCAN_BYTES) as u64) as usize;
            self.buffer.resize(len, 0);
            let read = segment.log_file()?.pread(&mut self.buffer, position)?;
            self.buffer.truncate(read);
            self.start = position;
        }
        Ok(&self.buffer[(position - self.start) as usize..])
    }

    fn batch(
        &mut self,
        segment: &Segment,
        position: u64,
        available: u64,
        expected: Offset,
    ) -> io::Result<Result<BatchHeader, BatchFault>> {
        let head = self.bytes(segment, position, HEADER_BYTES, available)?;
        let header = match checked_header(head, available, expected) {
            Ok(header) if header.base_offset != expected => {
                return Ok(Err(BatchFault::OffsetOrder { expected, actual: header.base_offset }));
            }
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        let size = header.size_bytes as usize;
        let bytes = self.bytes(segment, position, size, available)?;
        if bytes.len() < size {
            let available = bytes.len() as u64;
            return Ok(Err(BatchFault::PastEnd { size_bytes: header.size_bytes, available }));
        }
        let computed = crc32c(&bytes[CRC_START..size]);
        if computed != header.crc {
            return Ok(Err(BatchFault::Crc { stored: header.crc, computed }));
        }
        Ok(Ok(header))
    }
}

/// Number of entries in an index file; zero if its length is not a multiple of theirs.
fn entry_count<E: Entry>(bytes: u64) -> u32 {
    if bytes.is_multiple_of(E::BYTES as u64) {
        u32::try_from(bytes / E::BYTES as u64).unwrap_or(0)
    } else {
        0
    }
}

/// Cuts an index file to its first `entries`.
fn keep<E: Entry>(index: &crate::index::Index<E>, entries: u32, file_bytes: u64) -> io::Result<()> {
    if u64::from(entries) * E::BYTES as u64 == file_bytes { Ok(()) } else { index.truncate(entries) }
}

fn open_error(segment: &Segment, error: WalkError) -> OpenError {
    let path = segment.path().to_owned();
    match error {
        WalkError::Fault { position, fault } => OpenError::Corrupt { path, position, fault },
        WalkError::Io(source) => OpenError::Io { path, source },
    }
}
