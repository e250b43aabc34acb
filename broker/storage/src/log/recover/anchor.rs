//! Where the walk through a segment begins: at the last index entry that can be trusted.
//!
//! Indexes are disposable: entries out of order, of a tail that must be walked again or of a cut are cut off, all of them
//! if the last one lies about its batch, and the walk completes what is left. It changes nothing but index files, and
//! knows nothing of what is lost.

use std::io;
use std::ops::ControlFlow;

use highwater_record::{HEADER_BYTES, Offset};

use super::{Listed, Recoverer};
use crate::batches::{ReadAt, WalkError, checked_header, walk};
use crate::index::{Entry, Index, OffsetEntry, relative};
use crate::log::tail::Anchor;
use crate::log::writer::{Indexer, no_time};
use crate::segment::{MaxTime, Segment};

impl Recoverer {
    /// Keeps the index entries that can be trusted, and finds the batch to begin with.
    pub(super) fn anchor(
        &mut self,
        segment: &Segment,
        listed: &Listed,
        trusted: bool,
        limit: Offset,
    ) -> io::Result<Anchor> {
        let (base, interval) = (segment.base(), self.config.index_interval_bytes);
        let mut sound = keep(&segment.offsets, segment.offsets.len(), listed.offset_bytes)?;
        sound &= keep(&segment.times, segment.times.len(), listed.time_bytes)?;
        // Every batch but the first few has an entry at or before it.
        sound &= segment.offsets.len() > 0 || listed.log_bytes <= 2 * u64::from(interval);
        sound &= segment.offsets.len() == 0 || segment.times.len() > 0;
        sound &= keep_below(segment, limit, trusted)?;
        let time = segment.times.last()?.map(|time| MaxTime {
            timestamp: time.timestamp,
            offset: base.advance(time.relative_offset.into()),
        });
        let anchor = match (time, segment.offsets.last()?) {
            (Some(max_time), Some(entry)) => {
                let good = Self::is_batch(segment, entry, listed.log_bytes)?
                    && Self::is_time(segment, max_time, listed.log_bytes)?;
                sound &= good;
                good.then_some((max_time, u64::from(entry.position)))
            }
            _ => None,
        };
        self.recovery.indexes_rebuilt += u32::from(!sound);
        if let Some((max_time, position)) = anchor {
            return Ok(Anchor { position, indexer: Indexer::new(interval, max_time) });
        }
        if segment.offsets.len() > 0 || segment.times.len() > 0 {
            segment.offsets.truncate(0)?;
            segment.times.truncate(0)?;
        }
        Ok(Anchor { position: 0, indexer: Indexer::new(interval, no_time(base)) })
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

    /// Whether the last time entry names a batch that ends where it says and has that timestamp.
    fn is_time(segment: &Segment, max_time: MaxTime, log_bytes: u64) -> io::Result<bool> {
        let wanted = relative(segment.base(), max_time.offset).unwrap_or(u32::MAX);
        let before = segment.offsets.last_where(|entry| entry.relative_offset <= wanted)?;
        let start = before.map_or(0, |entry| u64::from(entry.position));
        let found = walk(segment, start, log_bytes, segment.base(), |_, header| {
            if header.last_offset() < max_time.offset {
                return ControlFlow::Continue(());
            }
            ControlFlow::Break(
                header.last_offset() == max_time.offset && header.max_timestamp == max_time.timestamp,
            )
        });
        match found {
            Ok(found) => Ok(found.unwrap_or(false)),
            Err(WalkError::Fault(_)) => Ok(false),
            Err(WalkError::Io(error)) => Err(error),
        }
    }
}

/// Number of entries in an index file; zero if its length is not a multiple of theirs.
pub(super) fn entry_count<E: Entry>(bytes: u64) -> u32 {
    if bytes.is_multiple_of(E::BYTES as u64) {
        u32::try_from(bytes / E::BYTES as u64).unwrap_or(0)
    } else {
        0
    }
}

/// Keeps index entries of batches that end below `limit`: later ones are of a tail that must be walked again, or of a
/// cut. The indexes of a segment that was not sealed and synced may besides hold anything after a power cut, or stop
/// anywhere. Of those, entries in order stay, and of the offset entries only those up to the last time entry: the
/// batches after it are walked again, so that no larger timestamp is overlooked. Says whether all were in order.
fn keep_below(segment: &Segment, limit: Offset, trusted: bool) -> io::Result<bool> {
    let mut in_order = true;
    let limit = u32::try_from(limit.since(segment.base())).unwrap_or(u32::MAX);
    if !trusted {
        let (offsets, times) = (segment.offsets.entries_in_order()?, segment.times.entries_in_order()?);
        in_order = offsets == segment.offsets.len() && times == segment.times.len();
        segment.offsets.truncate_if_shorter(offsets)?;
        segment.times.truncate_if_shorter(times)?;
    }
    if segment.times.last()?.is_some_and(|last| last.relative_offset >= limit) {
        in_order &= !trusted;
        segment.times.truncate(segment.times.count_where(|entry| entry.relative_offset < limit)?)?;
    }
    let last_time = segment.times.last()?.map(|entry| entry.relative_offset);
    let limit = match last_time {
        Some(last) if !trusted => limit.min(last.saturating_add(1)),
        None if !trusted => 0,
        _ => limit,
    };
    if segment.offsets.last()?.is_some_and(|last| last.relative_offset >= limit) {
        in_order &= !trusted;
        segment.offsets.truncate(segment.offsets.count_where(|entry| entry.relative_offset < limit)?)?;
    }
    Ok(in_order)
}

/// Cuts an index file to its first `entries`; says whether there was nothing to cut.
fn keep<E: Entry>(index: &Index<E>, entries: u32, file_bytes: u64) -> io::Result<bool> {
    let whole = u64::from(entries) * E::BYTES as u64 == file_bytes;
    if !whole {
        index.truncate(entries)?;
    }
    Ok(whole)
}
