//! How far damage reaches in a segment: from the end of the last good batch to the next good one.
//!
//! The next good batch is one whose header holds together, whose offset may come there and whose CRC fits. An index
//! entry that leads to one bounds the search; what lies before it is looked through byte by byte, in pieces of bounded
//! size. Without one the segment is lost up to where the caller says that it ends. Reads only.

use std::io;

use highwater_record::{BatchHeader, CRC_START, Crc32c, HEADER_BYTES, Offset};

use crate::batches::{BatchFault, Fault, Walked, checked_header};
use crate::files::FileHandle;
use crate::index::relative;
use crate::quarantine::{Lost, QuarantinedRange};
use crate::segment::Segment;

/// Bytes that are looked through at a time.
const WINDOW_BYTES: usize = 256 << 10;
/// Bytes whose CRC is computed at most in one search. Records may be made to look like batch headers by the thousand;
/// a search that meets them gives up instead of taking for ever.
pub(crate) const CRC_BUDGET_BYTES: u64 = 4 << 30;
/// Index entries that are tried.
const ENTRIES_MAX: u32 = 64;

/// Where a segment ends, as far as a search may go: its bytes, and the offset that comes after them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) offset: Offset,
}

/// What a fault cost.
pub(crate) fn extent(segment: &Segment, bounds: Bounds, fault: &Fault) -> io::Result<Lost> {
    let (mut start, mut from) = (fault.position, fault.expected);
    if let Some(before) = &fault.before
        && is_culprit(segment, before, fault)?
    {
        (start, from) = (before.position, before.expected);
    }
    let found = next_good(segment, start + 1, bounds, from)?;
    // A search that found nothing cannot say less than the fault.
    let (end, to) = found.map_or((bounds.bytes.max(start), bounds.offset.max(from)), |(position, header)| {
        (position, header.base_offset)
    });
    let path = segment.path().to_owned();
    let range = QuarantinedRange { from, to, path, position: start, cause: fault.fault.to_string() };
    Ok(Lost { range, base: segment.base(), bytes: start..end })
}

/// Whether the batch before a fault is the damaged one: a wrong length leads into the middle of another batch, and a
/// base offset that is too large, which no CRC covers, makes the next one seem too small.
fn is_culprit(segment: &Segment, before: &Walked, fault: &Fault) -> io::Result<bool> {
    let header = &before.header;
    if let BatchFault::OffsetOrder { actual, .. } = fault.fault
        && header.base_offset > before.expected
        && actual == before.expected.advance(u64::from(header.last_offset_delta) + 1)
    {
        return Ok(true);
    }
    Ok(crc_of(&*segment.log_file()?, before.position, header)? != Some(header.crc))
}

/// The first good batch that begins at or after `from` and at or after the offset `floor`.
fn next_good(
    segment: &Segment,
    from: u64,
    bounds: Bounds,
    floor: Offset,
) -> io::Result<Option<(u64, BatchHeader)>> {
    let mut search = Search {
        file: &*segment.log_file()?,
        limit: bounds.bytes,
        floor,
        ceiling: bounds.offset,
        budget: CRC_BUDGET_BYTES,
    };
    let landing = search.by_index(segment, from)?;
    if let Some((_, header)) = &landing {
        search.ceiling = header.base_offset;
    }
    let to = landing.as_ref().map_or(bounds.bytes, |(position, _)| *position);
    Ok(search.by_bytes(from, to)?.or(landing))
}

/// A search for the next good batch.
pub(crate) struct Search<'a> {
    pub(crate) file: &'a dyn FileHandle,
    /// Where the bytes end.
    pub(crate) limit: u64,
    /// The smallest offset that the batch may begin at.
    pub(crate) floor: Offset,
    /// The offset that it may not reach, if it does not begin there.
    pub(crate) ceiling: Offset,
    /// Bytes whose CRC may still be computed.
    pub(crate) budget: u64,
}

impl Search<'_> {
    fn by_index(&mut self, segment: &Segment, from: u64) -> io::Result<Option<(u64, BatchHeader)>> {
        let Ok(first) = segment.offsets.count_where(|entry| u64::from(entry.position) < from) else {
            return Ok(None);
        };
        for number in first..first.saturating_add(ENTRIES_MAX) {
            let Ok(Some(entry)) = segment.offsets.entry(number) else { return Ok(None) };
            let position = u64::from(entry.position);
            let mut head = [0; HEADER_BYTES];
            let read = self.file.pread(&mut head, position)?;
            let found = self.good(&head[..read], position)?;
            let named = |header: &BatchHeader| {
                relative(segment.base(), header.last_offset()) == Some(entry.relative_offset)
            };
            if let Some(header) = found.filter(named) {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    /// Looks at every position from `from` to `to`.
    pub(crate) fn by_bytes(&mut self, from: u64, to: u64) -> io::Result<Option<(u64, BatchHeader)>> {
        let mut window = vec![0; WINDOW_BYTES.min((self.limit.saturating_sub(from)) as usize)];
        let mut start = from;
        while start < to {
            let read = self.file.pread(&mut window, start)?;
            let Some(positions) = read.checked_sub(HEADER_BYTES).map(|rest| rest + 1) else {
                return Ok(None);
            };
            for at in 0..positions {
                let position = start + at as u64;
                if position >= to || self.budget == 0 {
                    return Ok(None);
                }
                if let Some(header) = self.good(&window[at..read], position)? {
                    return Ok(Some((position, header)));
                }
            }
            start += positions as u64;
        }
        Ok(None)
    }

    /// The batch at a position whose first bytes are `head`, if it is good and may come here.
    pub(crate) fn good(&mut self, head: &[u8], position: u64) -> io::Result<Option<BatchHeader>> {
        let available = self.limit.saturating_sub(position);
        let Ok(header) = checked_header(head, available, self.floor) else { return Ok(None) };
        let fits = header.next_offset() <= self.ceiling || header.base_offset == self.ceiling;
        if !fits || u64::from(header.size_bytes) > self.budget {
            return Ok(None);
        }
        self.budget -= u64::from(header.size_bytes);
        Ok((crc_of(self.file, position, &header)? == Some(header.crc)).then_some(header))
    }
}

/// The checksum of a batch by its bytes, read in pieces; `None` if the file ends before.
pub(crate) fn crc_of(file: &dyn FileHandle, position: u64, header: &BatchHeader) -> io::Result<Option<u32>> {
    let mut left = header.size_bytes as usize - CRC_START;
    let mut at = position + CRC_START as u64;
    let mut window = vec![0; WINDOW_BYTES.min(left)];
    let mut crc = Crc32c::new();
    while left > 0 {
        let piece = &mut window[..left.min(WINDOW_BYTES)];
        if file.pread(piece, at)? < piece.len() {
            return Ok(None);
        }
        crc.update(piece);
        at += piece.len() as u64;
        left -= piece.len();
    }
    Ok(Some(crc.finish()))
}
