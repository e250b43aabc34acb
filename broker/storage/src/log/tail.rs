//! The walk that recovery makes through one segment: by headers as far as everything had been synced, by whole batches
//! from there on.
//!
//! It feeds the indexes as it goes and changes no batch. A fault below the recovery point is collected and stepped over;
//! what one above it means is for `recover` to say.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_record::{BatchHeader, CRC_START, HEADER_BYTES, LeaderEpoch, Offset, crc32c};

use crate::batches::{BatchFault, Fault, WalkError, Walked, checked_header, walk};
use crate::damage::{self, Bounds};
use crate::log::recover::Recovery;
use crate::log::writer::Indexer;
use crate::point::LogPoint;
use crate::quarantine::Lost;
use crate::segment::Segment;

/// Bytes that are read at a time.
const SCAN_BYTES: usize = 256 << 10;

/// Where a segment's walk may begin, and what is known up to there.
pub(super) struct Anchor {
    pub(super) position: u64,
    pub(super) indexer: Indexer,
}

/// In which segments compaction may have left gaps between batches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Gaps {
    /// In those that are not the last.
    Sealed,
    /// In the last one too: it may have been sealed, and the later ones are gone.
    Anywhere,
}

/// A walk over one segment, first by headers, then by whole batches.
pub(super) struct Walk<'a> {
    segment: &'a Segment,
    pub(super) indexer: Indexer,
    pub(super) end: LogPoint,
    log_bytes: u64,
    next: Option<Offset>,
    gaps: Gaps,
    pub(super) last_header: Option<BatchHeader>,
    /// What is damaged or missing below the recovery point.
    pub(super) lost: Vec<Lost>,
    /// The last batch, which is not in the indexes yet.
    before: Option<Walked>,
    confirmed: Option<BatchHeader>,
    /// Nothing was walked yet, and the first batch is one that an index entry vouches for.
    anchored: bool,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(
        segment: &'a Segment,
        anchor: Anchor,
        log_bytes: u64,
        next: Option<Offset>,
        gaps: Gaps,
    ) -> Self {
        let end = LogPoint { offset: segment.base(), bytes: anchor.position };
        let anchored = anchor.position > 0;
        Self {
            segment,
            indexer: anchor.indexer,
            end,
            log_bytes,
            next,
            gaps,
            last_header: None,
            lost: Vec::new(),
            before: None,
            confirmed: None,
            anchored,
        }
    }

    /// The batch that the segments before end with.
    pub(super) const fn goes_on_from(&mut self, last: Option<BatchHeader>) {
        self.last_header = last;
        self.confirmed = last;
    }

    /// Whether the batches reach the next segment.
    pub(super) fn reached(&self, next: Option<Offset>) -> bool {
        next.is_some_and(|next| self.end.offset >= next)
    }

    fn take(&mut self, position: u64, header: &BatchHeader) {
        self.confirm();
        let expected = if std::mem::take(&mut self.anchored) { header.base_offset } else { self.end.offset };
        self.before = Some(Walked { position, expected, header: *header });
        self.end = LogPoint { offset: header.next_offset(), bytes: position + u64::from(header.size_bytes) };
        self.last_header = Some(*header);
    }

    /// Enters the batch before into the indexes: only the one that follows shows that it did not lie about its offset.
    pub(super) fn confirm(&mut self) {
        if let Some(before) = self.before.take() {
            self.indexer.add(self.segment, before.position, &before.header);
            self.confirmed = Some(before.header);
        }
    }

    /// Walks the headers of the batches that end at or below `recovery_point`, all of which had been synced. What is
    /// damaged or missing of them is collected in `lost`.
    pub(super) fn below(&mut self, recovery_point: Offset) -> io::Result<()> {
        let next = self.next.unwrap_or(Offset::MAX);
        let stop = recovery_point.min(next);
        if self.end.bytes == 0 && self.segment.base() >= stop {
            return Ok(());
        }
        while self.end.offset < stop {
            let (segment, end, log_bytes) = (self.segment, self.end, self.log_bytes);
            let walked = walk(segment, end.bytes, log_bytes, end.offset, |position, header| {
                if header.next_offset() > stop && !self.stands_in(header, stop) {
                    return ControlFlow::Break(*header);
                }
                self.take(position, header);
                // What follows may be a tail that nobody vouches for: do not even parse it.
                if header.next_offset() >= stop {
                    ControlFlow::Break(*header)
                } else {
                    ControlFlow::Continue(())
                }
            });
            let fault = match walked {
                Ok(_) if self.end.offset >= stop => match self.short_last()? {
                    Some(fault) => fault,
                    None => return Ok(()),
                },
                Ok(Some(beyond)) if beyond.base_offset >= stop && self.belongs(&beyond) => {
                    // What ended at the stop was compacted away.
                    self.end.offset = stop;
                    return Ok(());
                }
                Ok(beyond) => self.short(beyond),
                Err(WalkError::Fault(fault)) => Fault { before: self.before, ..*fault },
                Err(WalkError::Io(error)) => return Err(error),
            };
            let lost = damage::extent(segment, Bounds { bytes: log_bytes, offset: stop }, &fault)?;
            self.end = LogPoint { offset: lost.range.to, bytes: lost.bytes.end };
            if self.before.is_some_and(|before| before.position >= lost.bytes.start) {
                self.before = None;
                self.last_header = self.confirmed;
            }
            self.confirm();
            self.lost.push(lost);
        }
        Ok(())
    }

    /// Whether a batch is what compaction left of those on both sides of the stop, since the recovery point was noted.
    /// Only what is durable is compacted, so all of it is.
    fn stands_in(&self, header: &BatchHeader, stop: Offset) -> bool {
        header.record_count == 0 && header.base_offset < stop && self.belongs(header)
    }

    /// Whether a batch ends in this segment, which is sealed: one that does not, lies about its offset.
    fn belongs(&self, header: &BatchHeader) -> bool {
        self.next.is_some_and(|next| header.next_offset() <= next)
    }

    /// Whether a batch above the recovery point may come where it is.
    fn may_come(&self, header: &BatchHeader) -> bool {
        match (self.next, self.gaps) {
            (Some(_), _) => self.belongs(header),
            (None, Gaps::Anywhere) => true,
            // Nothing can have been compacted: a batch behind a gap is no part of the log.
            (None, Gaps::Sealed) => header.base_offset == self.end.offset,
        }
    }

    /// Takes back a batch that seemed to come after a gap, if the next one follows what was before the gap: then it lied
    /// about its offset, which no CRC covers.
    fn take_back(&mut self, fault: &BatchFault) {
        let BatchFault::OffsetOrder { actual, .. } = *fault else { return };
        let lied = |before: &Walked| {
            before.header.base_offset > before.expected
                && actual == before.expected.advance(u64::from(before.header.last_offset_delta) + 1)
        };
        if let Some(before) = self.before.take_if(|before| lied(before)) {
            self.end = LogPoint { offset: before.expected, bytes: before.position };
            self.last_header = self.confirmed;
        }
    }

    /// Whether the last batch lies about its end, though more bytes follow: by its length, or by a base offset that is too
    /// large, which no checksum covers. Then what follows is no tail, and must not be cut.
    fn short_last(&self) -> io::Result<Option<Fault>> {
        let Some(last) = self.before.filter(|_| self.end.bytes < self.log_bytes) else { return Ok(None) };
        let file = self.segment.log_file()?;
        if last.header.base_offset > last.expected {
            let follows = last.expected.advance(u64::from(last.header.last_offset_delta) + 1);
            let mut head = [0; HEADER_BYTES];
            let read = file.pread(&mut head, self.end.bytes)?;
            let next = BatchHeader::parse(&head[..read]).ok().filter(|next| next.base_offset == follows);
            if let Some(next) = next {
                let (position, expected) = (self.end.bytes, self.end.offset);
                let fault = BatchFault::OffsetOrder { expected, actual: next.base_offset };
                return Ok(Some(Fault { position, expected, fault, before: Some(last) }));
            }
        }
        let stored = last.header.crc;
        let computed = damage::crc_of(&*file, last.position, &last.header)?;
        Ok(computed.filter(|computed| *computed != stored).map(|computed| Fault {
            position: last.position,
            expected: last.expected,
            fault: BatchFault::Crc { stored, computed },
            before: None,
        }))
    }

    /// The batches do not reach as far as they did: the next one lies beyond, or there is none.
    fn short(&self, beyond: Option<BatchHeader>) -> Fault {
        let (position, expected) = (self.end.bytes, self.end.offset);
        let fault = match beyond {
            Some(header) => BatchFault::OffsetOrder { expected, actual: header.base_offset },
            None => BatchFault::Missing { available: self.log_bytes },
        };
        Fault { position, expected, fault, before: self.before }
    }

    /// The batch whose epoch the next one may not go back behind. No checksum covers an epoch, and a flipped bit in one of
    /// the last two below the recovery point must not cost what was appended after them: the smaller one counts. Where
    /// there are no two in this segment and at the end of the one before, the first batch above is not compared.
    fn epoch_floor(&self) -> Option<BatchHeader> {
        let (last, earlier) = (self.before?.header, self.confirmed?);
        Some(if earlier.leader_epoch < last.leader_epoch { earlier } else { last })
    }

    /// Reads whole batches to the end of the log. Says whether a fault ended it.
    pub(super) fn above(&mut self, recovery: &mut Recovery, scanned: &AtomicU64) -> io::Result<bool> {
        let mut tail = Tail::default();
        let mut before = self.epoch_floor();
        while self.end.bytes < self.log_bytes && !self.reached(self.next) {
            let position = self.end.bytes;
            let available = self.log_bytes - position;
            let fault = match tail.batch(self.segment, position, available, self.end.offset)? {
                Ok(header) if !self.may_come(&header) => {
                    BatchFault::OffsetOrder { expected: self.end.offset, actual: header.base_offset }
                }
                Ok(header) if before.is_some_and(|before| header.leader_epoch < before.leader_epoch) => {
                    let epoch = |header: &BatchHeader| header.leader_epoch.map_or(-1, LeaderEpoch::get);
                    BatchFault::EpochOrder {
                        before: before.as_ref().map_or(-1, epoch),
                        actual: epoch(&header),
                    }
                }
                Ok(header) => {
                    recovery.bytes_scanned += u64::from(header.size_bytes);
                    scanned.fetch_add(header.size_bytes.into(), Ordering::Relaxed);
                    self.take(position, &header);
                    before = self.last_header;
                    continue;
                }
                Err(fault) => fault,
            };
            self.take_back(&fault);
            let position = self.end.bytes;
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
