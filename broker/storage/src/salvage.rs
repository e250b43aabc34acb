//! Walking a segment file past its damage: what is good, and what lies between, for the offline tools.
//!
//! Built on [`SegmentScan`]; nothing is written. After a fault the next batch is looked for whose header holds together,
//! whose offset may come there and whose CRC fits. A batch is given out only when what follows agrees with it, since
//! no CRC covers base offset and length: a batch that lies about them is named instead of the one behind it. Every byte
//! of the file belongs to exactly one piece. Message formats before 2 are walked but not searched for.

use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use highwater_record::{Batch, BatchHeader, HEADER_BYTES, MessageFormat, Offset};

use crate::batches::BatchFault;
use crate::damage::{CRC_BUDGET_BYTES, Search, crc_of};
use crate::scan::{ScanError, ScannedBatch, SegmentScan};

/// Bytes that are looked through for zeros at a time.
const WINDOW_BYTES: u64 = 256 << 10;

/// Whether a walk compares checksums.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Crcs {
    /// Of every batch.
    Compared,
    /// Headers alone are read, until there is damage to find the end of.
    Left,
}

/// A part of a segment file that is walked by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stretch {
    /// Its bytes. They begin with a batch.
    pub bytes: Range<u64>,
    /// The smallest offset that its first batch may have, and the offset that no batch may reach.
    pub offsets: Range<Offset>,
    /// Whether a good batch begins where it ends, as far as the caller knows: what is cut there is no torn tail.
    pub is_followed: bool,
}

/// A piece of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece {
    /// A batch that holds together and follows the one before it.
    Good(ScannedBatch),
    /// Bytes that are none.
    Damaged(Damage),
}

/// Bytes of a segment that are no batches that belong there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Damage {
    /// Where they begin.
    pub from_position: u64,
    /// Where they end: at the next good batch, or where the walk ends.
    pub to_position: u64,
    /// The first offset that may be lost.
    pub from: Offset,
    /// The offset after the last that is lost, as far as it can be known: it equals `from` where nothing tells.
    pub to: Offset,
    /// What it looks like.
    pub kind: DamageKind,
    /// What is wrong with the first batch of it.
    pub cause: BatchFault,
}

/// What damage looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DamageKind {
    /// A good batch follows.
    Middle,
    /// Nothing good follows, and it is not one of those below.
    Tail,
    /// The last batch is cut by the end of the file: a write that was under way.
    TornTail,
    /// Nothing but zeros up to the end of the file, as in one that was allocated ahead.
    ZeroTail,
    /// Good batches whose offsets belong to the next segment: a cut or a crash left them.
    Beyond,
}

/// A walk over a segment that does not end at damage.
#[derive(Debug)]
pub struct SalvageScan {
    scan: SegmentScan,
    stretch: Stretch,
    crcs: Crcs,
    /// Bytes whose CRC may still be computed to find good batches.
    budget: u64,
    /// The batch that waits for what follows to agree with it.
    held: Option<Held>,
    /// Damage that is told next.
    found: Option<Damage>,
    /// The batch that was given out last, if it is one that was converted.
    given: Option<(u64, Box<Batch>)>,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Held {
    batch: ScannedBatch,
    /// Smallest offset that it could have had.
    expected: Offset,
    /// Of an old format alone, which takes time to convert. Others are read again where they are wanted, so that a walk
    /// keeps no batches, however large they are.
    converted: Option<Box<Batch>>,
}

/// Bytes that are not the batch that should be there.
struct Fault {
    position: u64,
    expected: Offset,
    cause: BatchFault,
}

enum Step {
    Good(Held),
    Fault(Fault),
    End,
}

impl SalvageScan {
    /// Walks a whole file from offset `from` on; offsets from `next_base` on belong to the segment after it.
    pub fn open(path: &Path, from: Offset, next_base: Option<Offset>, crcs: Crcs) -> io::Result<Self> {
        let scan = SegmentScan::open(path)?;
        let stretch = Stretch {
            bytes: 0..scan.file_bytes(),
            offsets: from..next_base.unwrap_or(Offset::MAX),
            is_followed: false,
        };
        Ok(Self::new(scan, stretch, crcs))
    }

    /// Walks a part of a file.
    pub fn open_stretch(path: &Path, stretch: Stretch, crcs: Crcs) -> io::Result<Self> {
        Ok(Self::new(SegmentScan::open(path)?, stretch, crcs))
    }

    fn new(mut scan: SegmentScan, stretch: Stretch, crcs: Crcs) -> Self {
        scan.end_at(stretch.bytes.end);
        scan.seek(stretch.bytes.start, stretch.offsets.start);
        Self {
            scan,
            stretch,
            crcs,
            budget: CRC_BUDGET_BYTES,
            held: None,
            found: None,
            given: None,
            ended: false,
        }
    }

    /// Where the walk ends: the size of the file when it was opened, or the end of the stretch.
    pub const fn end_position(&self) -> u64 {
        self.scan.file_bytes()
    }

    /// Reads a batch that the walk gave out and compares its CRC.
    pub fn read(&self, batch: &ScannedBatch) -> Result<Batch, ScanError> {
        match &self.given {
            Some((position, converted)) if *position == batch.position => Ok(Batch::clone(converted)),
            _ => self.scan.read(batch),
        }
    }

    /// Reads the bytes of a batch that the walk gave out as they are in the file, whatever its CRC says.
    pub fn bytes(&self, batch: &ScannedBatch) -> io::Result<Bytes> {
        self.scan.bytes(batch)
    }

    fn step(&mut self) -> Result<Step, ScanError> {
        let expected = self.scan.next_offset();
        let batch = match self.scan.next() {
            None => return Ok(Step::End),
            Some(Ok(batch)) => batch,
            Some(Err(ScanError::Fault { position, fault })) => {
                return Ok(Step::Fault(Fault { position, expected, cause: fault }));
            }
            Some(Err(error)) => return Err(error),
        };
        let position = batch.position;
        if batch.header.next_offset() > self.stretch.offsets.end {
            let cause = BatchFault::OffsetOrder { expected, actual: batch.header.base_offset };
            return Ok(Step::Fault(Fault { position, expected, cause }));
        }
        match self.checked(&batch) {
            Ok(converted) => Ok(Step::Good(Held { batch, expected, converted })),
            Err(ScanError::Fault { position, fault }) => {
                Ok(Step::Fault(Fault { position, expected, cause: fault }))
            }
            Err(error) => Err(error),
        }
    }

    /// Compares the CRC of a batch if that is wanted.
    fn checked(&mut self, batch: &ScannedBatch) -> Result<Option<Box<Batch>>, ScanError> {
        if self.crcs == Crcs::Left { Ok(None) } else { self.compare(batch) }
    }

    /// Compares the CRC of a batch. Gives the batch if it had to be converted for that.
    fn compare(&mut self, batch: &ScannedBatch) -> Result<Option<Box<Batch>>, ScanError> {
        // What is of an old format has another checksum, which the scan knows.
        if batch.format != MessageFormat::V2 {
            return self.scan.read(batch).map(|converted| Some(Box::new(converted)));
        }
        let (position, stored) = (batch.position, batch.header.crc);
        let fault = match self.scan.crc(batch).map_err(|source| ScanError::Io { position, source })? {
            Some(computed) if computed == stored => return Ok(None),
            Some(computed) => BatchFault::Crc { stored, computed },
            None => BatchFault::Missing { available: self.scan.file_bytes() },
        };
        Err(ScanError::Fault { position, fault })
    }

    /// What a fault cost. Puts the walk behind it.
    fn contain(&mut self, mut fault: Fault) -> io::Result<Damage> {
        if let Some(cause) = self.culprit(&fault)?
            && let Some(before) = self.held.take()
        {
            fault = Fault { position: before.batch.position, expected: before.expected, cause };
        }
        let damage = self.extent(&fault)?;
        // What was found may lie about its offset as well: what comes behind it is held against what was before.
        self.scan.seek(damage.to_position, damage.from);
        Ok(damage)
    }

    /// What is wrong with the batch before a fault, if it is that one which lies: a wrong length leads into the middle of
    /// another batch, and a base offset that is too large makes the next one seem too small.
    fn culprit(&mut self, fault: &Fault) -> io::Result<Option<BatchFault>> {
        let Some(before) = &self.held else { return Ok(None) };
        let (header, batch) = (&before.batch.header, before.batch);
        if let BatchFault::OffsetOrder { actual, .. } = fault.cause
            && header.base_offset > before.expected
            && actual < header.next_offset()
            && self.follows(before, fault.position, actual)?
        {
            let (expected, actual) = (before.expected, header.base_offset);
            return Ok(Some(BatchFault::OffsetOrder { expected, actual }));
        }
        // If CRCs are compared, this one was.
        if self.crcs == Crcs::Compared {
            return Ok(None);
        }
        match self.compare(&batch) {
            Ok(_) => Ok(None),
            Err(ScanError::Fault { fault, .. }) => Ok(Some(fault)),
            Err(ScanError::Io { source, .. }) => Err(source),
        }
    }

    /// Whether the batch at `position` would follow the one before it, did that have the offset which was expected there.
    fn follows(&self, before: &Held, position: u64, actual: Offset) -> io::Result<bool> {
        let header = &before.batch.header;
        let end = before.expected.advance(u64::from(header.last_offset_delta) + 1);
        if actual <= end {
            return Ok(actual == end);
        }
        // In a compacted log there are gaps. What comes behind both says which of them is out of line.
        let Some(this) = self.header(position)? else { return Ok(false) };
        let after = self.header(position + u64::from(this.size_bytes))?;
        Ok(after.is_some_and(|after| {
            after.base_offset >= this.next_offset() && after.base_offset < header.next_offset()
        }))
    }

    /// The header at a position, if there is one.
    fn header(&self, position: u64) -> io::Result<Option<BatchHeader>> {
        let mut head = [0; HEADER_BYTES];
        let wanted = self.scan.file_bytes().saturating_sub(position).min(HEADER_BYTES as u64) as usize;
        let read = self.scan.file().pread(&mut head[..wanted], position)?;
        Ok(BatchHeader::parse(&head[..read]).ok())
    }

    fn extent(&mut self, fault: &Fault) -> io::Result<Damage> {
        let (position, from, cause) = (fault.position, fault.expected, fault.cause);
        let limit = self.scan.file_bytes();
        let stated = self.header(position)?;
        let is_zero = self.is_zero_from(position)?;
        let found = if is_zero { None } else { self.next_good(position, from, stated.as_ref())? };
        if let Some((end, next)) = found {
            let (to_position, to, kind) = (end, next.base_offset, DamageKind::Middle);
            return Ok(Damage { from_position: position, to_position, from, to, kind, cause });
        }
        let ceiling = self.stretch.offsets.end;
        let is_beyond = match stated.filter(|header| header.base_offset >= ceiling) {
            Some(header) => crc_of(self.scan.file(), position, &header)? == Some(header.crc),
            None => false,
        };
        let is_short = limit - position < HEADER_BYTES as u64;
        let kind = if self.stretch.is_followed {
            DamageKind::Middle
        } else if is_zero {
            DamageKind::ZeroTail
        } else if is_beyond {
            DamageKind::Beyond
        } else if is_short || matches!(cause, BatchFault::PastEnd { .. }) {
            DamageKind::TornTail
        } else {
            DamageKind::Tail
        };
        // Without a next segment the header is all that tells how much there was.
        let claimed = stated.filter(|header| header.base_offset == from).map(|header| header.next_offset());
        let to = if ceiling < Offset::MAX { ceiling } else { claimed.unwrap_or(from) };
        let to = to.max(from);
        Ok(Damage { from_position: position, to_position: limit, from, to, kind, cause })
    }

    /// Where the next good batch begins behind `position`, and its header.
    fn next_good(
        &mut self,
        position: u64,
        floor: Offset,
        stated: Option<&BatchHeader>,
    ) -> io::Result<Option<(u64, BatchHeader)>> {
        let limit = self.scan.file_bytes();
        let mut search = Search {
            file: self.scan.file(),
            limit,
            floor,
            ceiling: self.stretch.offsets.end,
            budget: self.budget,
        };
        // Mostly the batch is as long as it says. A search would look at records that may look like batches.
        let mut found = None;
        if let Some(stated) = stated {
            let end = position + u64::from(stated.size_bytes);
            let mut head = [0; HEADER_BYTES];
            let read = if end < limit { search.file.pread(&mut head, end)? } else { 0 };
            let next = floor.advance(u64::from(stated.last_offset_delta) + 1);
            let good = search.good(&head[..read], end)?.filter(|header| header.base_offset == next);
            found = good.map(|header| (end, header));
        }
        if found.is_none() {
            found = search.by_bytes(position + 1, limit)?;
        }
        self.budget = search.budget;
        Ok(found)
    }

    /// Whether there is nothing but zeros from a position on.
    fn is_zero_from(&self, mut position: u64) -> io::Result<bool> {
        let limit = self.scan.file_bytes();
        // Mostly the first bytes tell.
        let mut wanted = HEADER_BYTES as u64;
        while position < limit {
            let mut window = vec![0; wanted.min(limit - position) as usize];
            let read = self.scan.file().pread(&mut window, position)?;
            if read == 0 || window[..read].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += read as u64;
            wanted = WINDOW_BYTES;
        }
        Ok(true)
    }

    fn give(&mut self, held: Held) -> Piece {
        self.given = held.converted.map(|converted| (held.batch.position, converted));
        Piece::Good(held.batch)
    }

    /// What the end of the stretch says of the last batch.
    fn end(&mut self) -> Option<Piece> {
        self.ended = true;
        self.held.take().map(|held| self.give(held))
    }
}

impl Iterator for SalvageScan {
    type Item = Result<Piece, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(damage) = self.found.take() {
                return Some(Ok(Piece::Damaged(damage)));
            }
            if self.ended {
                return None;
            }
            let before = match self.step() {
                Ok(Step::End) => return self.end().map(Ok),
                Ok(Step::Good(held)) => self.held.replace(held),
                Ok(Step::Fault(fault)) => {
                    let position = fault.position;
                    match self.contain(fault) {
                        Ok(damage) => self.found = Some(damage),
                        Err(source) => {
                            self.ended = true;
                            return Some(Err(ScanError::Io { position, source }));
                        }
                    }
                    self.held.take()
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            };
            if let Some(before) = before {
                return Some(Ok(self.give(before)));
            }
        }
    }
}
