//! The indexes of a segment, held against its batches as they go by, in one pass and without keeping either.
//!
//! An entry that points into bytes which are damaged is not blamed for it. Kafka's entries are accepted as well: they
//! name the last offset of their batch, of the last batch that was appended with it, or, before Kafka 2.0, the first
//! one (`LogSegment.append`). Zeros behind the last entry are a file that was allocated ahead.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use highwater_record::{Offset, TimestampMs};
use highwater_storage::{Damage, ScannedBatch, Stretch};

use super::fault::{Fault, Kind, rebuild};
use super::files::SegmentFile;
use super::index::IndexState;

/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 32 << 10;
/// Entries that are told of in one file; more say nothing more.
const TOLD_MAX: usize = 3;

/// The entries of an index file, `N` bytes each.
struct Entries<const N: usize> {
    file: BufReader<File>,
    /// Where the next entry begins.
    position: u64,
    /// Whether zeros have begun.
    zeros: bool,
}

/// What comes next in an index.
enum Next<const N: usize> {
    Entry(u64, [u8; N]),
    /// Less than an entry is left: its position and size.
    Rest(u64, usize),
    /// An entry behind zeros.
    BehindZeros(u64),
    End,
}

impl<const N: usize> Entries<N> {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let file = BufReader::with_capacity(BLOCK_BYTES, file);
                Ok(Some(Self { file, position: 0, zeros: false }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn next(&mut self) -> io::Result<Next<N>> {
        loop {
            let mut entry = [0; N];
            let mut filled = 0;
            while filled < N {
                match self.file.read(&mut entry[filled..])? {
                    0 => break,
                    read => filled += read,
                }
            }
            let position = self.position;
            self.position += filled as u64;
            let is_zero = entry[..filled].iter().all(|byte| *byte == 0);
            return Ok(match filled {
                0 => Next::End,
                // Kafka cuts a preallocated file to whole entries of the other index at times.
                short if short < N && is_zero => Next::End,
                short if short < N => Next::Rest(position, short),
                _ if is_zero => {
                    self.zeros = true;
                    continue;
                }
                // The first entry may name the first offset at position or time 0. It leads nowhere wrong.
                _ if self.zeros && position > N as u64 => Next::BehindZeros(position),
                _ => {
                    self.zeros = false;
                    Next::Entry(position, entry)
                }
            });
        }
    }
}

/// What both checks of an index have.
struct Common {
    path: PathBuf,
    kind: Kind,
    base: Offset,
    faults: Vec<Fault>,
    /// Faults that were not told.
    untold: u64,
}

impl Common {
    fn new(log: &Path, extension: &str, kind: Kind, base: Offset) -> Self {
        Self { path: log.with_extension(extension), kind, base, faults: Vec::new(), untold: 0 }
    }

    fn blame(&mut self, position: u64, offset: Option<Offset>, what: String) {
        if self.faults.len() >= TOLD_MAX {
            self.untold += 1;
            return;
        }
        let mut fault = Fault::new(self.kind, &self.path, what).at(position).fixed_by(rebuild(&self.path));
        if let Some(offset) = offset {
            fault = fault.of(offset, offset.advance(1));
        }
        self.faults.push(fault);
    }

    fn odd<const N: usize>(&mut self, next: &Next<N>) {
        match next {
            Next::Rest(position, bytes) => {
                let what = format!(
                    "{bytes} bytes are left behind the last entry of {N}; the file is cut or damaged"
                );
                self.blame(*position, None, what);
            }
            Next::BehindZeros(position) => {
                self.blame(*position, None, "an entry stands behind zeros; it cannot be found".to_owned());
            }
            Next::Entry(..) | Next::End => {}
        }
    }

    fn finish(mut self) -> Vec<Fault> {
        if let Some(last) = self.faults.last_mut().filter(|_| self.untold > 0) {
            last.what = format!("{}; {} more entries are wrong", last.what, self.untold);
        }
        self.faults
    }
}

/// An entry of an offset index that waits for its batch.
#[derive(Clone, Copy)]
struct OffsetEntry {
    at: u64,
    offset: Offset,
    position: u64,
    /// Whether a batch was at its position.
    met: bool,
}

/// Both indexes of a segment that is walked as a whole.
pub(super) struct IndexChecks {
    offsets: OffsetCheck,
    times: TimeCheck,
}

impl IndexChecks {
    pub(super) fn open(segment: &SegmentFile) -> io::Result<Self> {
        let (path, base) = (&segment.path, segment.base);
        let whole = Stretch { bytes: 0..u64::MAX, offsets: base..Offset::MAX, is_followed: false };
        Ok(Self {
            offsets: OffsetCheck::open(path, base, &whole)?,
            times: TimeCheck::open(path, base, &whole)?,
        })
    }

    /// A good batch went by.
    pub(super) fn batch(&mut self, batch: &ScannedBatch) -> io::Result<()> {
        self.offsets.batch(batch)?;
        self.times.batch(batch)
    }

    /// Damage of the log went by.
    pub(super) fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.offsets.damage(damage.to_position)?;
        self.times.damage(damage.to)
    }

    /// The batches are through; the last one ends at `end`. Of the offset index, then of the time index.
    pub(super) fn finish(self, end: Offset) -> io::Result<[IndexState; 2]> {
        let missing = [self.offsets.is_missing(), self.times.is_missing()];
        let faults = [self.offsets.finish(end)?, self.times.finish(end)?];
        Ok([0, 1].map(|at| match (missing[at], faults[at].is_empty()) {
            (true, _) => IndexState::Missing,
            (false, true) => IndexState::Good,
            (false, false) => IndexState::Wrong,
        }))
    }
}

/// The check of an `.index`.
pub(super) struct OffsetCheck {
    common: Common,
    entries: Option<Entries<8>>,
    waiting: Option<OffsetEntry>,
    last: Option<(Offset, u64)>,
    bytes: Range<u64>,
}

impl OffsetCheck {
    /// The entries whose batches lie in a stretch of `log`.
    pub(super) fn open(log: &Path, base: Offset, stretch: &Stretch) -> io::Result<Self> {
        // What leads behind the end of the file is for its last stretch to see.
        let end = if stretch.is_followed { stretch.bytes.end } else { u64::MAX };
        let bytes = stretch.bytes.start..end;
        let common = Common::new(log, "index", Kind::BadIndex, base);
        let entries = Entries::open(&common.path)?;
        let mut check = Self { common, entries, waiting: None, last: None, bytes };
        check.advance()?;
        Ok(check)
    }

    /// Whether there is no file.
    pub(super) const fn is_missing(&self) -> bool {
        self.entries.is_none()
    }

    /// Takes the next entry that is in order and in the range.
    fn advance(&mut self) -> io::Result<()> {
        self.waiting = None;
        let Some(entries) = &mut self.entries else { return Ok(()) };
        loop {
            let next = entries.next()?;
            let Next::Entry(at, bytes) = next else {
                if self.bytes.start == 0 {
                    self.common.odd(&next);
                }
                return Ok(());
            };
            let relative = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let position = u64::from(u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]));
            let offset = self.common.base.advance(relative.into());
            let follows = self.last.is_none_or(|last| last.0 < offset && last.1 < position);
            if !follows && self.bytes.contains(&position) {
                let what = format!(
                    "entry {} says offset {offset} at position {position}, the one before says offset {} at position {}",
                    at / 8,
                    self.last.map_or(0, |last| last.0.get()),
                    self.last.map_or(0, |last| last.1)
                );
                self.common.blame(at, Some(offset), what);
                continue;
            }
            self.last = Some((offset, position));
            if position < self.bytes.start {
                continue;
            }
            if position < self.bytes.end {
                self.waiting = Some(OffsetEntry { at, offset, position, met: false });
                return Ok(());
            }
        }
    }

    /// A good batch went by.
    pub(super) fn batch(&mut self, batch: &ScannedBatch) -> io::Result<()> {
        let header = &batch.header;
        while let Some(entry) = self.waiting {
            if entry.position > batch.position {
                return Ok(());
            }
            if entry.position < batch.position && !entry.met {
                let what = format!(
                    "entry {} says that offset {} is at position {}, where no batch begins",
                    entry.at / 8,
                    entry.offset,
                    entry.position
                );
                self.common.blame(entry.at, Some(entry.offset), what);
                self.advance()?;
                continue;
            }
            if entry.offset == header.last_offset() || (!entry.met && entry.offset == header.base_offset) {
                return self.advance();
            }
            if entry.offset < header.next_offset() {
                self.blame_offset(&entry, header.base_offset, header.last_offset());
                return self.advance();
            }
            // It may be that of the last batch of several that were appended at once.
            self.waiting = Some(OffsetEntry { met: true, ..entry });
            return Ok(());
        }
        Ok(())
    }

    fn blame_offset(&mut self, entry: &OffsetEntry, first: Offset, last: Offset) {
        let what = format!(
            "entry {} says that offset {} is at position {}, the batches from there have none that ends with it; there is {first} to {last}",
            entry.at / 8,
            entry.offset,
            entry.position,
        );
        self.common.blame(entry.at, Some(entry.offset), what);
    }

    /// Damage of the log went by, up to a position: entries into it are not to blame.
    pub(super) fn damage(&mut self, to_position: u64) -> io::Result<()> {
        while self.waiting.is_some_and(|entry| entry.position < to_position) {
            self.advance()?;
        }
        Ok(())
    }

    /// The batches are through; the last one ends at `end`.
    pub(super) fn finish(mut self, end: Offset) -> io::Result<Vec<Fault>> {
        while let Some(entry) = self.waiting {
            let what = format!(
                "entry {} says that offset {} is at position {}, the log ends at offset {end}",
                entry.at / 8,
                entry.offset,
                entry.position
            );
            self.common.blame(entry.at, Some(entry.offset), what);
            self.advance()?;
        }
        Ok(self.common.finish())
    }
}

/// An entry of a time index that waits for its batch.
#[derive(Clone, Copy)]
struct TimeEntry {
    at: u64,
    timestamp: TimestampMs,
    offset: Offset,
}

/// The check of a `.timeindex`.
pub(super) struct TimeCheck {
    common: Common,
    entries: Option<Entries<12>>,
    waiting: Option<TimeEntry>,
    last: Option<(TimestampMs, Offset)>,
    offsets: Range<Offset>,
    /// Whether the segment ends with the stretch: the one that tells of what is behind all batches.
    is_last: bool,
}

impl TimeCheck {
    /// The entries whose offsets lie in a stretch of `log`.
    pub(super) fn open(log: &Path, base: Offset, stretch: &Stretch) -> io::Result<Self> {
        let common = Common::new(log, "timeindex", Kind::BadTimeIndex, base);
        let entries = Entries::open(&common.path)?;
        let (offsets, is_last) = (stretch.offsets.clone(), !stretch.is_followed);
        let mut check = Self { common, entries, waiting: None, last: None, offsets, is_last };
        check.advance()?;
        Ok(check)
    }

    /// Whether there is no file.
    pub(super) const fn is_missing(&self) -> bool {
        self.entries.is_none()
    }

    fn advance(&mut self) -> io::Result<()> {
        self.waiting = None;
        let Some(entries) = &mut self.entries else { return Ok(()) };
        loop {
            let next = entries.next()?;
            let Next::Entry(at, bytes) = next else {
                if self.is_last {
                    self.common.odd(&next);
                }
                return Ok(());
            };
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[..8]);
            let timestamp = TimestampMs(i64::from_be_bytes(raw));
            let relative = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            let offset = self.common.base.advance(relative.into());
            let follows = self.last.is_none_or(|last| last.0 <= timestamp && last.1 <= offset);
            if !follows && self.offsets.contains(&offset) {
                let what = format!(
                    "entry {} says time {timestamp} at offset {offset}, the one before says time {} at offset {}",
                    at / 12,
                    self.last.map_or(0, |last| last.0.0),
                    self.last.map_or(0, |last| last.1.get())
                );
                self.common.blame(at, Some(offset), what);
                continue;
            }
            self.last = Some((timestamp, offset));
            if offset < self.offsets.start {
                continue;
            }
            if offset < self.offsets.end {
                self.waiting = Some(TimeEntry { at, timestamp, offset });
            } else if self.is_last {
                let what = format!(
                    "entry {} says time {timestamp} at offset {offset}, the segment ends at {}",
                    at / 12,
                    self.offsets.end
                );
                self.common.blame(at, Some(offset), what);
                continue;
            }
            return Ok(());
        }
    }

    /// A good batch went by.
    pub(super) fn batch(&mut self, batch: &ScannedBatch) -> io::Result<()> {
        let header = &batch.header;
        while let Some(entry) = self.waiting.filter(|entry| entry.offset <= header.last_offset()) {
            // One before the batch lies in a gap: what it named was compacted away.
            if entry.offset >= header.base_offset && entry.timestamp != header.max_timestamp {
                let what = format!(
                    "entry {} says time {} at offset {}, the batch there has {}",
                    entry.at / 12,
                    entry.timestamp,
                    entry.offset,
                    header.max_timestamp
                );
                self.common.blame(entry.at, Some(entry.offset), what);
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Damage of the log went by, up to an offset.
    pub(super) fn damage(&mut self, to: Offset) -> io::Result<()> {
        while self.waiting.is_some_and(|entry| entry.offset < to) {
            self.advance()?;
        }
        Ok(())
    }

    /// The batches are through; the last one ends at `end`.
    pub(super) fn finish(mut self, end: Offset) -> io::Result<Vec<Fault>> {
        while let Some(entry) = self.waiting {
            let what = format!(
                "entry {} says time {} at offset {}, the log ends at offset {end}",
                entry.at / 12,
                entry.timestamp,
                entry.offset
            );
            self.common.blame(entry.at, Some(entry.offset), what);
            self.advance()?;
        }
        Ok(self.common.finish())
    }
}

/// The check of a `.txnindex`, which is Kafka's: an entry for each transaction that was aborted in the segment.
pub(super) struct TxnCheck {
    common: Common,
    entries: Option<Entries<34>>,
    waiting: Option<(u64, i64, Offset)>,
    offsets: Range<Offset>,
    /// Whether the segment ends with the stretch: the one that tells of what belongs to none.
    is_last: bool,
}

impl TxnCheck {
    /// The entries whose last offsets lie in a stretch of `log`.
    pub(super) fn open(log: &Path, base: Offset, stretch: &Stretch) -> io::Result<Self> {
        let common = Common::new(log, "txnindex", Kind::BadTxnIndex, base);
        let entries = Entries::open(&common.path)?;
        let (offsets, is_last) = (stretch.offsets.clone(), !stretch.is_followed);
        let mut check = Self { common, entries, waiting: None, offsets, is_last };
        check.advance()?;
        Ok(check)
    }

    fn advance(&mut self) -> io::Result<()> {
        self.waiting = None;
        let Some(entries) = &mut self.entries else { return Ok(()) };
        loop {
            let next = entries.next()?;
            let Next::Entry(at, bytes) = next else {
                if self.is_last {
                    self.common.odd(&next);
                }
                return Ok(());
            };
            let number = |from: usize| {
                let mut raw = [0; 8];
                raw.copy_from_slice(&bytes[from..from + 8]);
                i64::from_be_bytes(raw)
            };
            let version = i16::from_be_bytes([bytes[0], bytes[1]]);
            let (producer, first, last, stable) = (number(2), number(10), number(18), number(26));
            let is_sound = version == 0 && producer >= 0 && first >= 0 && first <= last && stable >= 0;
            let Some(last) = Offset::new(last).filter(|_| is_sound) else {
                let what = format!(
                    "entry {} is of version {version}, for producer {producer}, from {first} to {last}: that is none",
                    at / 34
                );
                if self.is_last {
                    self.common.blame(at, None, what);
                }
                continue;
            };
            if last >= self.offsets.start && last < self.offsets.end {
                self.waiting = Some((at, producer, last));
                return Ok(());
            }
            if self.is_last && (last < self.common.base || last >= self.offsets.end) {
                let (base, end) = (self.common.base, self.offsets.end);
                let what =
                    format!("entry {} ends at {last}, the segment has offsets {base} up to {end}", at / 34);
                self.common.blame(at, Some(last), what);
            }
        }
    }

    /// A good batch went by.
    pub(super) fn batch(&mut self, batch: &ScannedBatch) -> io::Result<()> {
        let header = &batch.header;
        while let Some((at, producer, last)) = self.waiting.filter(|entry| entry.2 <= header.last_offset()) {
            let is_marker = header.attributes.is_control()
                && header.producer.is_some_and(|found| found.id.get() == producer);
            if last >= header.base_offset && !is_marker {
                let what = format!(
                    "entry {} says that producer {producer} aborted at offset {last}, the batch there is no marker of it",
                    at / 34
                );
                self.common.blame(at, Some(last), what);
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Damage of the log went by, up to an offset.
    pub(super) fn damage(&mut self, to: Offset) -> io::Result<()> {
        while self.waiting.is_some_and(|entry| entry.2 < to) {
            self.advance()?;
        }
        Ok(())
    }

    /// The batches are through; the last one ends at `end`.
    pub(super) fn finish(mut self, end: Offset) -> io::Result<Vec<Fault>> {
        while let Some((at, producer, last)) = self.waiting {
            let what = format!(
                "entry {} says that producer {producer} aborted at offset {last}, the log ends at {end}",
                at / 34
            );
            self.common.blame(at, Some(last), what);
            self.advance()?;
        }
        Ok(self.common.finish())
    }
}
