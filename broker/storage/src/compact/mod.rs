//! Compaction: of all records with the same key only the latest stays (Kafka's `LogCleaner`, `Cleaner`).
//!
//! A job is taken from a log, run without it, a group of segments at a time, and handed back after each group. First
//! the keys of the dirty part are noted, with the offset of their latest record, in a table of a fixed size; if that is
//! full, the pass ends there and the next one goes on. Then segments are written anew without what is out of date,
//! small ones together, oldest first. Offsets stay; a tombstone stays until its delete horizon has passed (KIP-534).
//!
//! It knows no clock and no thread: the time is given, and so is a pace that may wait. Invariants: the active segment
//! and what is not durable are left alone; no byte of a file that readers know ever changes; a batch that cannot be
//! read ends the cleaning before it, for good, since a tombstone behind it may be meant for it.

mod group;
mod key_map;
mod pieces;
mod swap;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_record::{DecodeLimits, Offset, TimestampMs};
use thiserror::Error;

use crate::batches::{WalkError, walk};
use crate::index::{Entry, OffsetEntry, TimeEntry};
use crate::segment::{Place, Segment};

pub(crate) use group::Cleaned;
pub use pieces::Pace;
pub(crate) use swap::{complete, swap};

use group::Verdicts;
use key_map::KeyMap;
use pieces::Pieces;

/// Segments that become one at most: while they are replaced, all of their files are open.
const GROUP_SEGMENTS_MAX: usize = 64;

/// When a log is compacted, and how. There is no default.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CompactionConfig {
    /// A record is left alone for this long (`min.compaction.lag.ms`), by its timestamp.
    pub min_lag_ms: u64,
    /// After this time a record is not left alone any longer (`max.compaction.lag.ms`), unless it is in the active
    /// segment.
    pub max_lag_ms: u64,
    /// The part of a log that must be dirty to be worth a pass (`min.cleanable.dirty.ratio`).
    pub dirty_ratio_min: Ratio,
    /// How long a tombstone stays after the first pass that met it (`delete.retention.ms`).
    pub delete_retention_ms: u64,
}

/// A part of a whole, from 0 to 1, in steps of a millionth.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ratio(u32);

impl Ratio {
    const WHOLE: u32 = 1_000_000;

    /// One half.
    pub const HALF: Self = Self(Self::WHOLE / 2);

    /// The ratio nearest to `value`; `None` unless that is from 0 to 1.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then(|| Self((value * f64::from(Self::WHOLE)).round() as u32))
    }

    /// The ratio as a number.
    pub fn get(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    pub(crate) fn of(part: u64, whole: u64) -> Self {
        let millionths = u128::from(part) * u128::from(Self::WHOLE) / u128::from(whole.max(1));
        Self(u32::try_from(millionths).unwrap_or(Self::WHOLE).min(Self::WHOLE))
    }
}

/// Why a pass ends early. Nothing is lost; what was cleaned before stays cleaned.
#[derive(Debug, Error)]
pub enum CompactionError {
    /// The pace said so.
    #[error("the pass was stopped")]
    Stopped,
    /// A batch cannot be read. It stays as it is, and nothing from there on is compacted.
    #[error("{} has a batch at offset {offset} that cannot be compacted, {cause}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the batch begins, or should begin.
        offset: Offset,
        /// What is wrong with it.
        cause: String,
    },
    /// The disk says no. A later pass may succeed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl CompactionError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// How far a run came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CompactionStep {
    /// New segments wait to take the place of old ones: hand the job back, then run it again.
    Swap,
    /// Everything is done.
    Done,
}

/// What of a log could be compacted: its sealed and durable segments.
#[derive(Clone, Debug)]
pub struct Dirt {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Everything below has been compacted.
    pub(crate) from: Offset,
    pub(crate) config: CompactionConfig,
}

/// What compaction thinks of a segment that is sealed, durable and whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DirtState {
    /// It has been compacted.
    Clean,
    /// It would be compacted by a pass.
    Dirty,
    /// It has a record that is younger than `min.compaction.lag.ms`.
    Young,
    /// It waits for a younger one before it.
    Behind,
}

/// How much of a log waits for compaction at some time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dirtiness {
    /// Bytes that were not compacted yet and may be.
    pub dirty_bytes: u64,
    /// The same and those that were.
    pub total_bytes: u64,
    /// Some of it has waited for as long as it may.
    pub is_due: bool,
    ratio_min: Ratio,
}

impl Dirtiness {
    /// The dirty part.
    pub fn ratio(&self) -> Ratio {
        Ratio::of(self.dirty_bytes, self.total_bytes)
    }

    /// Whether a pass is worth its while.
    pub fn is_eligible(&self) -> bool {
        self.dirty_bytes > 0 && (self.is_due || self.ratio() > self.ratio_min)
    }
}

impl Dirt {
    /// Looks at what may be compacted at `now`. Reads a header of each dirty segment if a largest lag is set.
    pub fn look(&self, now: TimestampMs) -> io::Result<Dirtiness> {
        let cleanable = self.cleanable(now);
        let (mut dirty_bytes, mut total_bytes, mut is_due) = (0, 0, false);
        for segment in cleanable {
            let bytes = segment.end().bytes;
            total_bytes += bytes;
            if segment.end().offset > self.from {
                dirty_bytes += bytes;
                is_due = is_due || self.is_due(segment, now)?;
            }
        }
        Ok(Dirtiness { dirty_bytes, total_bytes, is_due, ratio_min: self.config.dirty_ratio_min })
    }

    /// What may be compacted at all, by base offset: which segments, and whether they are dirty at `now`.
    pub fn states(&self, now: TimestampMs) -> Vec<(Offset, DirtState)> {
        let cleanable = self.cleanable(now).len();
        let state = |(place, segment): (usize, &Arc<Segment>)| {
            let state = match (segment.end().offset <= self.from, place < cleanable) {
                (true, _) => DirtState::Clean,
                (false, true) => DirtState::Dirty,
                (false, false) if self.is_old_enough(segment, now) => DirtState::Behind,
                (false, false) => DirtState::Young,
            };
            (segment.base(), state)
        };
        self.segments.iter().enumerate().map(state).collect()
    }

    /// The segments before the first one that is dirty and has a record that is too young.
    fn cleanable(&self, now: TimestampMs) -> &[Arc<Segment>] {
        let count = self.segments.iter().take_while(|segment| self.is_old_enough(segment, now)).count();
        &self.segments[..count]
    }

    fn is_old_enough(&self, segment: &Segment, now: TimestampMs) -> bool {
        let lag_ms = i64::try_from(self.config.min_lag_ms).unwrap_or(i64::MAX);
        lag_ms == 0
            || segment.end().offset <= self.from
            || segment.max_time().timestamp.0 <= now.0.saturating_sub(lag_ms)
    }

    /// Whether the first batch of a segment has waited for as long as it may.
    fn is_due(&self, segment: &Segment, now: TimestampMs) -> io::Result<bool> {
        let Ok(lag_ms) = i64::try_from(self.config.max_lag_ms) else { return Ok(false) };
        if lag_ms == i64::MAX {
            return Ok(false);
        }
        let first = walk(segment, 0, segment.end().bytes, segment.base(), |_, header| {
            ControlFlow::Break(header.max_timestamp.0)
        });
        match first {
            Ok(first) => Ok(first.is_some_and(|first| first > 0 && first < now.0.saturating_sub(lag_ms))),
            Err(WalkError::Io(error)) => Err(error),
            // The pass will say what is wrong with it.
            Err(WalkError::Fault { .. }) => Ok(true),
        }
    }
}

/// What segments may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) segment_bytes: u32,
    pub(crate) index_bytes_max: u32,
    pub(crate) index_interval_bytes: u32,
}

/// One pass over a log. Taken from it, run without it, and handed back after each run.
#[derive(Debug)]
pub struct CompactionJob {
    place: Place,
    sizes: Sizes,
    dirt: Dirt,
    /// What the log counted of its cuts when the job was taken.
    pub(crate) generation: u64,
    verdicts: Option<Verdicts>,
    remembered: HashSet<Offset>,
    now: TimestampMs,
    groups: VecDeque<Vec<Arc<Segment>>>,
    cleaned: Option<Cleaned>,
    /// What keeps the pass from going further, told when the rest is done.
    blocked: Option<CompactionError>,
    /// Bytes that were read and written.
    bytes: u64,
    /// Files were swapped since the directory was last synced.
    swapped: bool,
}

impl CompactionJob {
    pub(crate) fn new(
        place: &Place,
        sizes: Sizes,
        dirt: Dirt,
        remembered: HashSet<Offset>,
        now: TimestampMs,
    ) -> Self {
        Self {
            place: place.clone(),
            sizes,
            dirt,
            generation: 0,
            verdicts: None,
            remembered,
            now,
            groups: VecDeque::new(),
            cleaned: None,
            blocked: None,
            bytes: 0,
            swapped: false,
        }
    }

    /// How many bytes were read and written.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn take_cleaned(&mut self) -> Option<Cleaned> {
        self.swapped |= self.cleaned.is_some();
        self.cleaned.take()
    }

    /// Where the pass ends: everything below has been compacted when it is done.
    pub(crate) fn end(&self) -> Offset {
        self.verdicts.as_ref().map_or(self.dirt.from, |verdicts| verdicts.end)
    }

    /// Does the next part of the work, on any thread, without the log: the keys and the first group, then a group at a
    /// time. At most `map_bytes_max` bytes are used to note keys, besides some for the batch at hand.
    pub fn run(
        &mut self,
        map_bytes_max: usize,
        pace: &mut Pace<'_>,
    ) -> Result<CompactionStep, CompactionError> {
        let mut bytes = 0;
        let mut counted = |count| {
            bytes += count;
            pace(count)
        };
        let step = self.step(map_bytes_max, &mut counted);
        self.bytes += bytes;
        step
    }

    fn step(&mut self, map_bytes_max: usize, pace: &mut Pace<'_>) -> Result<CompactionStep, CompactionError> {
        if self.verdicts.is_none() {
            let verdicts = self.note_keys(map_bytes_max, pace)?;
            let end = verdicts.end;
            let affected = self.dirt.cleanable(self.now).iter().take_while(|segment| segment.base() < end);
            if end > self.dirt.from {
                self.groups = groups(affected.cloned().collect(), self.sizes);
            }
            self.verdicts = Some(verdicts);
        }
        let Some(verdicts) = &self.verdicts else { return Ok(CompactionStep::Done) };
        while let Some(group) = self.groups.pop_front() {
            let interval_bytes = self.sizes.index_interval_bytes;
            self.cleaned = group::clean(&self.place, interval_bytes, &group, verdicts, pace)?;
            if self.cleaned.is_some() {
                return Ok(CompactionStep::Swap);
            }
        }
        if std::mem::take(&mut self.swapped) {
            let synced = self.place.files.sync_dir(&self.place.dir);
            synced.map_err(|source| CompactionError::io(&self.place.dir, source))?;
        }
        match self.blocked.take() {
            Some(error) => Err(error),
            None => Ok(CompactionStep::Done),
        }
    }

    /// Notes the latest record of each key, from where the last pass ended.
    fn note_keys(&mut self, map_bytes_max: usize, pace: &mut Pace<'_>) -> Result<Verdicts, CompactionError> {
        let from = self.dirt.from;
        let dirty: Vec<_> = (self.dirt.cleanable(self.now).iter())
            .filter(|segment| segment.end().offset > from)
            .cloned()
            .collect();
        let end = dirty.last().map_or(from, |last| last.end().offset);
        let mut noted = Noted { keys: KeyMap::new(end.since(from), map_bytes_max), from, end };
        for segment in &dirty {
            match noted.add(segment, pace) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error @ CompactionError::Damaged { .. }) => {
                    self.blocked = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let remembered = std::mem::take(&mut self.remembered);
        let Noted { keys, end, .. } = noted;
        let (now, delete_retention_ms) = (self.now, self.dirt.config.delete_retention_ms);
        Ok(Verdicts { keys, end, remembered, now, delete_retention_ms })
    }
}

/// The keys that were noted so far.
struct Noted {
    keys: KeyMap,
    from: Offset,
    /// Everything from here on was not noted.
    end: Offset,
}

impl Noted {
    /// Notes the keys of a segment; says whether there may be more.
    fn add(&mut self, segment: &Segment, pace: &mut Pace<'_>) -> Result<bool, CompactionError> {
        let start = if segment.base() < self.from { segment.locate(self.from) } else { Ok(None) };
        let start = start.map_err(|source| CompactionError::io(segment.path(), source))?;
        let start = start.map_or(0, |(position, _)| position);
        let whole = self.end;
        // Until the segment is through, it ends with the batch before the one at hand.
        self.end = self.from.max(segment.base());
        let mut pieces = Pieces::new(segment, start)?;
        while let Some(batch) = pieces.next(pace)? {
            let header = *batch.header();
            if header.next_offset() <= self.from {
                continue;
            }
            self.end = self.from.max(header.base_offset);
            if !header.attributes.is_control() {
                let damaged = |cause: &dyn std::fmt::Display| CompactionError::Damaged {
                    path: segment.path().to_owned(),
                    offset: header.base_offset,
                    cause: cause.to_string(),
                };
                let records = batch.decompress(DecodeLimits::STORED).map_err(|error| damaged(&error))?;
                for record in records.records() {
                    let record = record.map_err(|error| damaged(&error))?;
                    let Some(key) = record.key.filter(|_| record.offset >= self.from) else { continue };
                    if self.keys.put(key, record.offset).is_err() {
                        self.end = record.offset;
                        return Ok(false);
                    }
                }
            }
            self.end = header.next_offset();
        }
        self.end = whole;
        Ok(true)
    }
}

/// Puts neighbours together that fit into one segment (Kafka: `Cleaner.groupSegmentsBySize`).
fn groups(segments: Vec<Arc<Segment>>, sizes: Sizes) -> VecDeque<Vec<Arc<Segment>>> {
    let mut groups: VecDeque<Vec<Arc<Segment>>> = VecDeque::new();
    let (mut bytes, mut offset_bytes, mut time_bytes) = (0, 0, 0);
    for segment in segments {
        let own = (
            segment.end().bytes,
            u64::from(segment.offsets.len()) * OffsetEntry::BYTES as u64,
            u64::from(segment.times.len()) * TimeEntry::BYTES as u64,
        );
        let fits = |group: &Vec<Arc<Segment>>| {
            bytes + own.0 <= u64::from(sizes.segment_bytes)
                && offset_bytes + own.1 <= u64::from(sizes.index_bytes_max)
                && time_bytes + own.2 <= u64::from(sizes.index_bytes_max)
                && segment.end().offset.since(group[0].base()) <= i32::MAX as u64
                && group.len() < GROUP_SEGMENTS_MAX
        };
        match groups.back_mut().filter(|group| fits(group)) {
            Some(group) => {
                (bytes, offset_bytes, time_bytes) = (bytes + own.0, offset_bytes + own.1, time_bytes + own.2);
                group.push(segment);
            }
            None => {
                (bytes, offset_bytes, time_bytes) = own;
                groups.push_back(vec![segment]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_from_zero_to_one() {
        assert_eq!(Ratio::new(0.5).map(Ratio::get), Some(0.5));
        assert_eq!(Ratio::of(1, 4), Ratio::new(0.25).unwrap());
        assert_eq!(Ratio::of(0, 0), Ratio::new(0.0).unwrap());
        for value in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Ratio::new(value), None, "{value}");
        }
    }
}
