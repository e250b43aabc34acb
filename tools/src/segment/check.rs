//! One segment, or a stretch of a large one, held against itself and its indexes in one pass.
//!
//! Memory does not grow with the segment: batches go by and are forgotten. Faults are told up to a bound and counted
//! beyond it. Knows nothing of other partitions and of the files beside the segments, but for the epochs it is given.

use std::io;
use std::path::Path;

use anyhow::Result;
use highwater_record::{BatchHeader, DecodeLimits, LeaderEpoch, Offset, TimestampMs};
use highwater_storage::{BatchFault, Crcs, Damage, DamageKind, Piece, SalvageScan, ScannedBatch, Stretch};

use super::epoch_check::EpochCheck;
use super::fault::{self, Fault, Kind, Severity};
use super::files::SegmentFile;
use super::index_check::{OffsetCheck, TimeCheck, TxnCheck};

/// How far a batch may be decompressed.
const LIMITS: DecodeLimits = DecodeLimits { bytes_max: 256 << 20, ratio_max: 1000 };
/// Faults of one stretch that are told.
const TOLD_MAX: usize = 1000;

/// How much is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Depth {
    /// Headers, indexes, names.
    Fast,
    /// And checksums.
    Crcs,
    /// And every record.
    Deep,
}

/// What is checked: a stretch of a segment, and what is known about it.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) segment: &'a SegmentFile,
    /// The offset that its indexes are relative to.
    pub(super) base: Offset,
    pub(super) stretch: Stretch,
    /// A broker may append to it.
    pub(super) is_live: bool,
    /// What a gap of offsets is worth here.
    pub(super) gaps: Severity,
    /// The entries of `leader-epoch-checkpoint`.
    pub(super) epochs: &'a [(LeaderEpoch, Offset)],
    pub(super) depth: Depth,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Checked {
    pub(super) faults: Vec<Fault>,
    /// Faults beyond those.
    pub(super) untold: u64,
    /// The offset after the last good batch or damage.
    pub(super) end: Offset,
    pub(super) bytes: u64,
}

/// Checks a part.
pub(super) fn check(part: &Part<'_>) -> Result<Checked> {
    let mut run = match Run::open(part) {
        Ok(run) => run,
        Err(error) => return unreadable(part, &error),
    };
    match run.walk() {
        Ok(()) => {}
        Err(error) => {
            run.is_cut_short = true;
            run.push(Fault::new(Kind::Unreadable, run.path, error.to_string()));
        }
    }
    Ok(run.finish())
}

/// A file that cannot be opened. One that retention took since it was found is no fault; a link that leads nowhere is.
fn unreadable(part: &Part<'_>, error: &io::Error) -> Result<Checked> {
    let mut checked = Checked { end: part.stretch.offsets.start, ..Checked::default() };
    let is_gone = error.kind() == io::ErrorKind::NotFound && part.segment.path.symlink_metadata().is_err();
    if !is_gone {
        checked.faults.push(Fault::new(Kind::Unreadable, &part.segment.path, error.to_string()));
    }
    Ok(checked)
}

struct Run<'a> {
    part: &'a Part<'a>,
    path: &'a Path,
    scan: SalvageScan,
    offsets: OffsetCheck,
    times: TimeCheck,
    transactions: TxnCheck,
    epochs: EpochCheck<'a>,
    /// The offset that should come next.
    expected: Offset,
    /// What lies behind an error of the disk was not seen: index entries into it are not to blame.
    is_cut_short: bool,
    /// Gaps that compaction may have left: how many, and how many offsets they have.
    gaps: (u64, u64),
    checked: Checked,
}

impl<'a> Run<'a> {
    fn open(part: &'a Part<'a>) -> io::Result<Self> {
        let (path, base, stretch) = (part.segment.path.as_path(), part.base, &part.stretch);
        let crcs = if part.depth == Depth::Fast { Crcs::Left } else { Crcs::Compared };
        Ok(Self {
            part,
            path,
            scan: SalvageScan::open_stretch(path, stretch.clone(), crcs)?,
            offsets: OffsetCheck::open(path, base, stretch)?,
            times: TimeCheck::open(path, base, stretch)?,
            transactions: TxnCheck::open(path, base, stretch)?,
            epochs: EpochCheck::new(path, part.epochs),
            expected: stretch.offsets.start,
            is_cut_short: false,
            gaps: (0, 0),
            checked: Checked::default(),
        })
    }

    fn push(&mut self, fault: Fault) {
        if self.checked.faults.len() < TOLD_MAX {
            self.checked.faults.push(fault)
        } else {
            self.checked.untold += 1
        }
    }

    fn walk(&mut self) -> Result<()> {
        while let Some(piece) = self.scan.next() {
            match piece? {
                Piece::Good(batch) => self.batch(&batch)?,
                Piece::Damaged(damage) => self.damage(&damage)?,
            }
        }
        let end = self.part.stretch.offsets.end;
        if end < Offset::MAX && self.expected < end {
            self.gap(self.scan.end_position(), end);
        }
        Ok(())
    }

    fn batch(&mut self, batch: &ScannedBatch) -> Result<()> {
        let header = &batch.header;
        if header.base_offset > self.expected {
            self.gap(batch.position, header.base_offset);
        }
        self.expected = header.next_offset();
        self.offsets.batch(batch)?;
        self.times.batch(batch)?;
        self.transactions.batch(batch)?;
        self.epochs.batch(batch);
        if self.part.depth == Depth::Deep
            && let Some(what) = self.wrong_records(batch)?
        {
            let fault = Fault::new(Kind::BadRecords, self.path, what).at(batch.position);
            self.push(fault.of(header.base_offset, header.next_offset()).fixed_by(fault::repair(self.path)));
        }
        Ok(())
    }

    fn gap(&mut self, position: u64, to: Offset) {
        let from = self.expected;
        if self.part.gaps == Severity::Note {
            self.gaps = (self.gaps.0 + 1, self.gaps.1 + to.since(from));
            return;
        }
        let what = format!(
            "{} offsets are missing: the batches before end at {from}, then comes {to}",
            to.since(from)
        );
        let fault = Fault::new(Kind::OffsetGap, self.path, what).with_severity(self.part.gaps);
        self.push(fault.at(position).of(from, to));
    }

    /// What is wrong with the records of a batch, if something is.
    fn wrong_records(&self, batch: &ScannedBatch) -> Result<Option<String>> {
        let records = match self.scan.read(batch).map(|whole| whole.decompress(LIMITS)) {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => return Ok(Some(error.to_string())),
            Err(error) => return Ok(Some(error.to_string())),
        };
        let header = &batch.header;
        let (mut count, mut next, mut latest) = (0u32, header.base_offset, None);
        for record in records.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Ok(Some(error.to_string())),
            };
            if record.offset < next || record.offset > header.last_offset() {
                let last = header.last_offset();
                return Ok(Some(format!(
                    "record {count} has offset {}, it must be from {next} to {last}",
                    record.offset
                )));
            }
            next = record.offset.advance(1);
            latest = latest.max(Some(record.timestamp));
            count += 1;
        }
        Ok(contradiction(header, count, latest))
    }

    fn damage(&mut self, damage: &Damage) -> Result<()> {
        self.offsets.damage(damage.to_position)?;
        let to = damage.to.max(damage.from);
        self.times.damage(to)?;
        self.transactions.damage(to)?;
        let fault = self.fault_of(damage);
        self.push(fault);
        if damage.kind == DamageKind::Beyond && damage.from < damage.to {
            self.gap(damage.from_position, damage.to);
        }
        self.expected = self.expected.max(to);
        Ok(())
    }

    fn fault_of(&self, damage: &Damage) -> Fault {
        let bytes = damage.to_position - damage.from_position;
        let is_last = self.part.stretch.offsets.end == Offset::MAX;
        let (kind, what) = match damage.kind {
            DamageKind::Middle | DamageKind::Tail => (kind_of(&damage.cause), damage.cause.to_string()),
            DamageKind::TornTail => (Kind::TornTail, damage.cause.to_string()),
            DamageKind::ZeroTail => (Kind::ZeroTail, format!("{bytes} bytes up to the end are zeros")),
            DamageKind::Beyond => {
                let next = self.part.stretch.offsets.end;
                (
                    Kind::Overlap,
                    format!("{bytes} bytes at the end belong to the segment that begins at offset {next}"),
                )
            }
        };
        let what = match damage.kind {
            DamageKind::Middle => format!("{what}; a good batch follows {bytes} bytes later"),
            DamageKind::Tail => format!("{what}; nothing good follows in {bytes} bytes"),
            _ => what,
        };
        let is_tail = damage.kind != DamageKind::Middle;
        if is_tail && self.part.is_live {
            let what = format!("{what}; a broker has the file open");
            return Fault::new(Kind::UnstableTail, self.path, what).at(damage.from_position);
        }
        let mut fault = Fault::new(kind, self.path, what).at(damage.from_position);
        if damage.from < damage.to && damage.kind != DamageKind::Beyond {
            fault = fault.of(damage.from, damage.to);
        }
        if kind == Kind::ZeroTail && is_last {
            // Kafka makes active segments as large as they may get, if it is told to.
            return fault.with_severity(Severity::Note);
        }
        fault.fixed_by(fault::repair(self.path))
    }

    /// Indexes that a segment with bytes does not have.
    fn missing_indexes(&self) -> Vec<Fault> {
        let bytes = &self.part.stretch.bytes;
        if bytes.start > 0 || bytes.is_empty() {
            return Vec::new();
        }
        let missing = [(self.offsets.is_missing(), "index"), (self.times.is_missing(), "timeindex")];
        let told = |(_, ending): (bool, &str)| {
            let fault =
                Fault::new(Kind::MissingIndex, &self.path.with_extension(ending), "there is no such file");
            fault.fixed_by(fault::rebuild(self.path))
        };
        missing.into_iter().filter(|missing| missing.0).map(told).collect()
    }

    /// What is told at the end.
    fn finish(mut self) -> Checked {
        let (path, part) = (self.path, self.part);
        let mut last = self.missing_indexes();
        for found in [
            self.offsets.finish(self.expected),
            self.times.finish(self.expected),
            self.transactions.finish(self.expected),
        ] {
            match found {
                // Of a live segment the index may be ahead of what was read of the log.
                Ok(_) if part.is_live || self.is_cut_short => {}
                Ok(faults) => last.extend(faults),
                Err(error) => last.push(Fault::new(Kind::Unreadable, path, format!("index: {error}"))),
            }
        }
        last.extend(self.epochs.finish());
        if self.gaps.0 > 0 {
            let what = format!("compaction left {} gaps of {} offsets together", self.gaps.0, self.gaps.1);
            last.push(Fault::new(Kind::OffsetGap, path, what).with_severity(Severity::Note));
        }
        if self.checked.untold > 0 {
            last.push(Fault::new(Kind::More, path, format!("{} more faults", self.checked.untold)));
        }
        self.checked.faults.append(&mut last);
        self.checked.end = self.expected;
        self.checked.bytes = part.stretch.bytes.end - part.stretch.bytes.start;
        self.checked
    }
}

/// What a header says that its records do not.
fn contradiction(header: &BatchHeader, count: u32, latest: Option<TimestampMs>) -> Option<String> {
    if count != header.record_count {
        return Some(format!("the header says {} records, there are {count}", header.record_count));
    }
    let latest = latest?;
    // A delete horizon takes the place of the base timestamp, the largest one stays.
    (latest != header.max_timestamp).then(|| {
        format!("the header says that the largest timestamp is {}, it is {latest}", header.max_timestamp)
    })
}

const fn kind_of(cause: &BatchFault) -> Kind {
    match cause {
        BatchFault::Crc { .. } => Kind::BadCrc,
        BatchFault::OffsetOrder { .. } => Kind::BadOffset,
        BatchFault::EpochOrder { .. } => Kind::BadEpoch,
        _ => Kind::BadHeader,
    }
}
