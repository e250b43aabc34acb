//! Bytes that this process did not write are checked once before anybody gets them.
//!
//! Batches that were found at a start, not appended, are read on their first use, their CRCs compared, and the two fields
//! that no CRC covers held against their neighbours: base offsets follow each other, and a leader epoch that does not lie
//! between those of its neighbours is wrong. What passed is remembered by position. Bytes that this process
//! appended are never looked at here; who reads only those pays one comparison.

use std::io;
use std::ops::Range;

use highwater_record::{BatchHeader, HEADER_BYTES, Offset};
use parking_lot::Mutex;

use crate::batches::{BatchFault, Fault, checked_header};
use crate::damage::crc_of;
use crate::files::FileHandle;
use crate::point::{LogPoint, PointCell};
use crate::segment::{Segment, lenient};

/// Stretches that are remembered per segment. Consumers read in order, so there are few; what is forgotten is checked
/// again.
const STRETCHES_MAX: usize = 64;

/// Who reads what nobody has checked has so many times as much checked behind it, so that the next reads need not wait.
const AHEAD_READS: u64 = 4;
/// But not more than this.
const AHEAD_BYTES_MAX: u64 = 8 << 20;

/// What is known to be good of one segment.
#[derive(Debug)]
pub(crate) struct Vouched {
    /// Everything from here on was appended by this process.
    foreign: PointCell,
    /// What was checked below that, in order and apart.
    stretches: Mutex<Vec<Stretch>>,
}

#[derive(Clone, Debug)]
struct Stretch {
    bytes: Range<u64>,
    /// The offset after it.
    next: Offset,
}

impl Vouched {
    pub(crate) fn new(foreign: LogPoint) -> Self {
        Self { foreign: PointCell::new(foreign), stretches: Mutex::new(Vec::new()) }
    }

    /// The end of what this process did not write.
    pub(crate) fn foreign(&self) -> LogPoint {
        self.foreign.load()
    }

    pub(crate) fn set_foreign(&self, end: LogPoint) {
        self.foreign.store(end);
    }

    /// Remembers that a stretch is good.
    pub(crate) fn vouch(&self, bytes: Range<u64>, next: Offset) {
        if bytes.is_empty() {
            return;
        }
        let mut stretches = self.stretches.lock();
        let mut new = Stretch { bytes, next };
        stretches.retain(|old| {
            let meets = old.bytes.start <= new.bytes.end && new.bytes.start <= old.bytes.end;
            if meets {
                new.next = new.next.max(old.next);
                new.bytes = old.bytes.start.min(new.bytes.start)..old.bytes.end.max(new.bytes.end);
            }
            !meets
        });
        if stretches.len() == STRETCHES_MAX {
            stretches.remove(0);
        }
        if new.bytes.start == 0 && new.bytes.end >= self.foreign.load().bytes {
            // Stored under the lock: one thread at a time.
            self.foreign.store(LogPoint::default());
            stretches.clear();
            return;
        }
        let at = stretches.partition_point(|old| old.bytes.start < new.bytes.start);
        stretches.insert(at, new);
    }

    /// Where what is good from a position on ends, and the offset after it; the position itself if it is not known.
    fn end_from(&self, position: u64) -> Option<LogPoint> {
        let stretches = self.stretches.lock();
        let found = stretches.iter().find(|stretch| stretch.bytes.contains(&position))?;
        Some(LogPoint { offset: found.next, bytes: found.bytes.end })
    }

    /// Whether all bytes of a range are good.
    pub(crate) fn covers(&self, bytes: &Range<u64>) -> bool {
        let foreign = self.foreign.load().bytes;
        bytes.start >= foreign
            || self.end_from(bytes.start).is_some_and(|good| good.bytes >= bytes.end.min(foreign))
    }

    /// The end of the last good stretch that ends at or before a position.
    fn last_before(&self, position: u64) -> Option<LogPoint> {
        let stretches = self.stretches.lock();
        let found = stretches.iter().rfind(|stretch| stretch.bytes.end <= position)?;
        Some(LogPoint { offset: found.next, bytes: found.bytes.end })
    }
}

/// Checks the batches of a segment from position `start` to `end`, as far as nobody has yet. Says up to where they may be
/// given out: less than asked if the disk fails on the way. Damage is quarantined, and changes the quarantine.
pub(crate) fn first_read(segment: &Segment, start: u64, end: LogPoint) -> io::Result<LogPoint> {
    let foreign = segment.vouched.foreign().bytes;
    if start >= foreign {
        return Ok(end);
    }
    let to = end.bytes.min(foreign);
    let begin = match segment.vouched.end_from(start) {
        Some(good) if good.bytes >= to => return Ok(end),
        Some(good) => good,
        None => anchor(segment, start)?,
    };
    let file = segment.log_file()?;
    let mut check = Check { segment, file: &*file, at: begin, before: None };
    let ahead = ((to - start) * AHEAD_READS).min(AHEAD_BYTES_MAX);
    let checked = check.run((to + ahead).min(foreign));
    let at = check.at;
    segment.vouched.vouch(begin.bytes..at.bytes, at.offset);
    match checked {
        Ok(None) => Ok(end),
        Ok(Some(fault)) => {
            segment.contain(&fault)?;
            // The quarantine has changed: whoever reads begins anew.
            Ok(end)
        }
        // It was further ahead than anybody has asked for yet.
        Err(_) if at.bytes >= to => Ok(end),
        // What was read before the error is good.
        Err(_) if at.bytes > start => Ok(at),
        Err(error) => Err(error),
    }
}

/// The fault that a walk by headers came upon, or the one before it that led there.
pub(crate) fn first_fault(segment: &Segment, fault: &Fault) -> io::Result<Fault> {
    let begin = anchor(segment, fault.before.map_or(fault.position, |before| before.position))?;
    let file = segment.log_file()?;
    let mut check = Check { segment, file: &*file, at: begin, before: None };
    let found = check.run(fault.position + 1)?;
    // Without one, what the walk saw stands.
    Ok(found.unwrap_or(Fault { expected: fault.expected.min(check.at.offset), ..*fault }))
}

/// A place at or before `start` where it is known which offset comes next.
fn anchor(segment: &Segment, start: u64) -> io::Result<LogPoint> {
    let origin = LogPoint { offset: segment.base(), bytes: 0 };
    let good = segment.vouched.last_before(start);
    let hole = segment.quarantine().last_before(segment.base(), start);
    let hole = hole.map(|(bytes, offset)| LogPoint { offset, bytes });
    let entry = segment.offsets.last_where(|entry| u64::from(entry.position) <= start);
    let entry = match lenient(segment, entry) {
        Some(entry) => {
            let mut head = [0; HEADER_BYTES];
            let position = u64::from(entry.position);
            let read = segment.log_file()?.pread(&mut head, position)?;
            let header = BatchHeader::parse(&head[..read]).ok();
            let header = header.filter(|header| segment.is_entry_of(entry, header));
            header.map(|header| LogPoint { offset: header.base_offset, bytes: position })
        }
        None => None,
    };
    let known = [good, hole, entry].into_iter().flatten();
    Ok(known.fold(origin, |best, other| if other.bytes > best.bytes { other } else { best }))
}

/// A walk that compares everything.
struct Check<'a> {
    segment: &'a Segment,
    file: &'a dyn FileHandle,
    /// The place up to which all is good.
    at: LogPoint,
    before: Option<BatchHeader>,
}

impl Check<'_> {
    /// Checks up to position `to`, or to the first fault.
    fn run(&mut self, to: u64) -> io::Result<Option<Fault>> {
        while self.at.bytes < to {
            let (position, expected) = (self.at.bytes, self.at.offset);
            if let Some((bytes, offset)) = self.segment.quarantine().skip(self.segment.base(), position) {
                self.at = LogPoint { offset, bytes };
                self.before = None;
                continue;
            }
            let fault = |fault| Some(Fault { position, expected, fault, before: None });
            let header = match self.header(position, expected)? {
                Ok(header) => header,
                Err(wrong) => return Ok(fault(wrong)),
            };
            match crc_of(self.file, position, &header)? {
                Some(computed) if computed == header.crc => {}
                Some(computed) => return Ok(fault(BatchFault::Crc { stored: header.crc, computed })),
                None => {
                    let available = self.file.len()?.saturating_sub(position);
                    return Ok(fault(BatchFault::PastEnd { size_bytes: header.size_bytes, available }));
                }
            }
            let end = position + u64::from(header.size_bytes);
            if let Some(wrong) = self.misplaced(&header, end)? {
                return Ok(fault(wrong));
            }
            self.at = LogPoint { offset: header.next_offset(), bytes: end };
            self.before = Some(header);
        }
        Ok(None)
    }

    fn header(&self, position: u64, expected: Offset) -> io::Result<Result<BatchHeader, BatchFault>> {
        let mut head = [0; HEADER_BYTES];
        let read = self.file.pread(&mut head, position)?;
        let available = self.segment.end().bytes.saturating_sub(position);
        Ok(checked_header(&head[..read], available, expected))
    }

    /// Whether the fields that no CRC covers do not fit the batches around.
    fn misplaced(&self, header: &BatchHeader, end: u64) -> io::Result<Option<BatchFault>> {
        let expected = self.at.offset;
        let order = BatchFault::OffsetOrder { expected, actual: header.base_offset };
        let segment_end = self.segment.end();
        if header.next_offset() > segment_end.offset {
            return Ok(Some(order));
        }
        if end >= segment_end.bytes || self.segment.quarantine().skip(self.segment.base(), end).is_some() {
            return Ok(None);
        }
        // If it is the next one that is damaged, it says so itself when its turn comes.
        let Ok(next) = self.header(end, expected)? else { return Ok(None) };
        let follows = expected.advance(u64::from(header.last_offset_delta) + 1) == next.base_offset;
        if header.base_offset > expected && follows {
            return Ok(Some(order));
        }
        // Epochs never go back. Where the batches around are in order, this one is not if it does not lie between.
        let epochs = self.before.and_then(|before| Some((before.leader_epoch?, next.leader_epoch?)));
        let Some((before, after)) = epochs.filter(|(before, after)| before <= after) else { return Ok(None) };
        let is_between = header.leader_epoch.is_some_and(|epoch| (before..=after).contains(&epoch));
        Ok((!is_between).then(|| BatchFault::EpochOrder {
            before: before.get(),
            actual: header.leader_epoch.map_or(-1, highwater_record::LeaderEpoch::get),
        }))
    }
}
