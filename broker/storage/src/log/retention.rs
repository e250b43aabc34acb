//! Retention: how much of a log's beginning is old enough, or too much, to go.
//!
//! Says where the log may begin and removes nothing: the caller makes the new start durable elsewhere, and then
//! calls [`Log::delete_before`]. Whole segments only, oldest first, and nothing at or above `until`.
//!
//! The age of a segment counts from the smaller of its largest timestamp and the time of its last append, so that
//! a record from the future does not keep a segment for ever (KAFKA-20609 is what Kafka does about it).

use highwater_record::{Offset, TimestampMs};

use crate::log::{AppendError, Log, LogOutline};
use crate::segment::Segment;

/// What of a log is kept. Nothing is removed for what is not set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Retention {
    /// A segment goes when it is older, in milliseconds (`retention.ms`).
    pub age_ms: Option<u64>,
    /// The oldest segments go while the others together have at least so many bytes (`retention.bytes`).
    pub bytes: Option<u64>,
}

impl Retention {
    /// Whether a log that is not open has more than is kept, so that opening it is worth its while.
    pub fn exceeds(self, outline: &LogOutline, now: TimestampMs) -> bool {
        let is_old = |age_ms| outline.oldest.is_some_and(|since| is_older(since, age_ms, now));
        self.age_ms.is_some_and(is_old) || self.bytes.is_some_and(|bytes| outline.size_bytes > bytes)
    }
}

impl Log {
    /// The offset that the log should begin at to keep what `retention` says and no more, below `until`. If that
    /// takes all there is, a new segment is started, so that the old one can go (Kafka:
    /// `UnifiedLog.deleteOldSegments`).
    pub fn retained_from(
        &mut self,
        retention: Retention,
        until: Offset,
        now: TimestampMs,
    ) -> Result<Offset, AppendError> {
        let segments = self.view.segments();
        let closed = segments.iter().take_while(|segment| {
            let end = segment.end();
            end.bytes > 0 && end.offset <= until
        });
        let mut excess = retention.bytes.map(|bytes| self.view.size_bytes().saturating_sub(bytes));
        let gone = closed
            .take_while(|segment| {
                let is_old = is_expired(segment, retention, now);
                let bytes = segment.end().bytes;
                // Kept in step for segments that go by age, so that no more goes by size than has to.
                let is_excess = excess.is_some_and(|excess| excess >= bytes);
                excess = excess.map(|excess| excess.saturating_sub(bytes));
                is_old || is_excess
            })
            .last();
        let Some(last) = gone else { return Ok(self.view.log_start()) };
        let start = last.end().offset;
        if start == self.end.offset {
            self.roll(now)?;
        }
        Ok(start.max(self.view.log_start()))
    }

    /// Starts a new segment for the next append if the active one has taken batches for longer than `segment_ms`, also
    /// if none comes any more.
    pub fn roll_overdue(&mut self, now: TimestampMs) -> Result<(), AppendError> {
        match &self.writer {
            Some(writer) if writer.is_overdue(&self.config, now) => self.roll(now),
            _ => Ok(()),
        }
    }
}

fn is_expired(segment: &Segment, retention: Retention, now: TimestampMs) -> bool {
    match (retention.age_ms, segment.ages_from()) {
        (Some(age_ms), Some(since)) => is_older(since, age_ms, now),
        _ => false,
    }
}

/// Whether more than `age_ms` lie between.
fn is_older(since: TimestampMs, age_ms: u64, now: TimestampMs) -> bool {
    i128::from(now.0) - i128::from(since.0) > i128::from(age_ms)
}
