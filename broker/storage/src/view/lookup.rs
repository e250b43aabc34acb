//! Lookups in a log: the record for a time, and where epochs begin and end.
//!
//! By indexes as far as they know, else by the batches' headers; only the batch that is found is decoded. Like every
//! reader it knows nothing of who may see what: it looks below `until`. A batch that turns out to be damaged is
//! quarantined and passed over.

use std::io;
use std::sync::Arc;

use highwater_record::{
    Batch, BatchHeader, DecodeLimits, LeaderEpoch, Offset, ReadError as RecordsError, TimestampMs,
};

use super::{LogView, ReadError};
use crate::batches::WalkError;
use crate::index::{OffsetEntry, TimeEntry, relative};
use crate::segment::{NO_TIMESTAMP, Segment, lenient};

/// A record that was found by its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimedOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: TimestampMs,
    /// The epoch that its batch was appended in.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl LogView {
    /// The first record below `until`, and not before the log's start, whose timestamp is at least `timestamp`. A batch
    /// that cannot be decompressed within `limits` is found by its header.
    pub fn offset_for_time(
        &self,
        timestamp: TimestampMs,
        until: Offset,
        limits: DecodeLimits,
    ) -> Result<Option<TimedOffset>, ReadError> {
        let start = self.log_start();
        for segment in self.segments.load().iter() {
            if segment.end().offset <= start || segment.max_time().timestamp < timestamp {
                continue;
            }
            if segment.base() >= until {
                break;
            }
            let found = first_at_or_after(segment, timestamp, start, limits)
                .map_err(|error| self.explain(error, start))?;
            if found.is_some() {
                return Ok(found.filter(|found| found.offset < until));
            }
        }
        Ok(None)
    }

    /// The first record below `until` that has the largest timestamp of the log; `None` if none has one. A batch
    /// that cannot be decompressed within `limits` is found by its header.
    pub fn max_timestamp(
        &self,
        until: Offset,
        limits: DecodeLimits,
    ) -> Result<Option<TimedOffset>, ReadError> {
        loop {
            let known = self.quarantine.changes();
            let found = self.max_timestamp_once(until, limits);
            if self.quarantine.changes() == known {
                return found;
            }
        }
    }

    fn max_timestamp_once(
        &self,
        until: Offset,
        limits: DecodeLimits,
    ) -> Result<Option<TimedOffset>, ReadError> {
        let start = self.log_start();
        let mut best: Option<(TimestampMs, Arc<Segment>, u64, BatchHeader)> = None;
        for segment in self.segments.load().iter() {
            let enough = best.as_ref().map_or(NO_TIMESTAMP, |best| best.0);
            if segment.base() >= until {
                break;
            }
            if segment.max_time().timestamp <= enough || segment.end().offset <= start {
                continue;
            }
            let found = max_batch(segment, start, until).map_err(|error| self.explain(error, start))?;
            if let Some((position, header)) = found.filter(|(_, header)| header.max_timestamp > enough) {
                best = Some((header.max_timestamp, Arc::clone(segment), position, header));
            }
        }
        let Some((_, segment, position, header)) = best else { return Ok(None) };
        let batch = match whole_batch(&segment, position, &header) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.explain(error, header.base_offset)),
        };
        let found = batch
            .max_timestamp_record(limits)
            .unwrap_or_else(|error| Some(by_header(&header, start, &error)));
        Ok(found.map(|(offset, timestamp)| TimedOffset {
            offset,
            timestamp,
            leader_epoch: header.leader_epoch,
        }))
    }

    /// The largest epoch with data that is at most `epoch`, and the offset where it ends: for the latest epoch the
    /// appended end. An epoch before all known ones ends where the first known one begins, as in Kafka. `None` if
    /// the log never had data.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let end = self.end().offset;
        self.epochs.load().end_of(epoch, end)
    }

    /// The epoch that the batch at `offset` was appended in; at the log's end, the newest one. `None` if the log never
    /// had data.
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.load().at(offset)
    }

    /// The epoch of the newest batch.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.load().latest()
    }
}

/// Reads one whole batch; `None` if it is damaged, and quarantined now.
fn whole_batch(segment: &Segment, position: u64, header: &BatchHeader) -> io::Result<Option<Batch>> {
    match segment.read_batch(position, header) {
        Ok(batch) => Ok(Some(batch)),
        Err(WalkError::Fault(fault)) => segment.contain_near(&fault).map(|()| None),
        Err(WalkError::Io(error)) => Err(error),
    }
}

/// The place and time of a batch whose records cannot be decoded. The broker takes compressed records unseen (D1), so
/// a producer may have sent some that no codec reads; such a batch must not fail every lookup that meets it. Who
/// starts at its first record misses nothing.
fn by_header(header: &BatchHeader, start: Offset, error: &RecordsError) -> (Offset, TimestampMs) {
    tracing::debug!(base_offset = %header.base_offset, %error, "a lookup by time takes a batch as a whole");
    (header.base_offset.max(start), header.max_timestamp)
}

fn first_at_or_after(
    segment: &Segment,
    timestamp: TimestampMs,
    start: Offset,
    limits: DecodeLimits,
) -> io::Result<Option<TimedOffset>> {
    // All records up to the entry's offset are older, so the search may begin with the batch that ends there.
    let time = lenient(segment, segment.times.last_where(|entry: &TimeEntry| entry.timestamp < timestamp));
    let skip = time.map_or(0, |entry| entry.relative_offset);
    let skip = skip.max(relative(segment.base(), start).unwrap_or(0));
    let mut entry = lenient(segment, segment.offsets.last_where(|entry| entry.relative_offset < skip));
    let mut after = None;
    loop {
        let candidate = segment.locate_from(entry, |position, header| {
            after.is_none_or(|after| position > after)
                && header.max_timestamp >= timestamp
                && header.last_offset() >= start
        })?;
        let Some((position, header)) = candidate else { return Ok(None) };
        // A damaged one is quarantined by now, and not met again.
        let Some(batch) = whole_batch(segment, position, &header)? else { continue };
        let found = first_in_batch(&batch, timestamp, start, limits)
            .unwrap_or_else(|error| Some(by_header(&header, start, &error)));
        if let Some((offset, timestamp)) = found {
            return Ok(Some(TimedOffset { offset, timestamp, leader_epoch: header.leader_epoch }));
        }
        // The header promised more than its records keep, or the record lies before the log's start: go on after
        // this batch.
        after = Some(position);
        entry = OffsetEntry::new(segment.base(), header.last_offset(), position);
    }
}

fn first_in_batch(
    batch: &Batch,
    timestamp: TimestampMs,
    start: Offset,
    limits: DecodeLimits,
) -> Result<Option<(Offset, TimestampMs)>, RecordsError> {
    for record in batch.decompress(limits)?.records() {
        let record = record?;
        if record.timestamp >= timestamp && record.offset >= start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

/// The first batch of a segment with the largest timestamp among those below `until`.
fn max_batch(segment: &Segment, start: Offset, until: Offset) -> io::Result<Option<(u64, BatchHeader)>> {
    let max = segment.max_time();
    if max.offset >= start && max.offset < until {
        // The common case: the batch is known by its last offset.
        let found = segment.locate(max.offset)?;
        if found.is_some_and(|(_, header)| header.last_offset() == max.offset) {
            return Ok(found);
        }
    }
    let mut best: Option<(u64, BatchHeader)> = None;
    segment.locate_from(None, |position, header| {
        let newer = best.is_none_or(|(_, best)| header.max_timestamp > best.max_timestamp);
        if header.record_count > 0 && header.last_offset() >= start && header.last_offset() < until && newer {
            best = Some((position, *header));
        }
        header.last_offset() >= until
    })?;
    Ok(best)
}
