//! Retention: how much of a log's beginning is old enough, or too much, to go.
//!
//! Says where the log may begin and removes nothing: the caller makes the new start durable elsewhere, and then
//! calls [`Log::delete_before`]. Whole segments only, oldest first, and nothing at or above `until`.
//!
//! The age of a segment counts from the smaller of its largest timestamp and the time of its last append, so that
//! a record from the future does not keep a segment for ever (KAFKA-20609 is what Kafka does about it).

use highwater_record::{Offset, TimestampMs};

use crate::log::{AppendError, Log, LogOutline};
use crate::segment::{NO_TIMESTAMP, Segment};

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
    i128::from(now.0) >= older_from(since, age_ms)
}

/// From when on what ages `since` is older than `age_ms`.
fn older_from(since: TimestampMs, age_ms: u64) -> i128 {
    i128::from(since.0) + i128::from(age_ms) + 1
}

/// A moment, if it can be told as one.
pub(super) fn moment(ms: i128) -> Option<TimestampMs> {
    i64::try_from(ms).ok().map(TimestampMs)
}

/// What becomes of a segment if nothing more is appended, and what decides about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentOutlook {
    /// Its base offset.
    pub base: Offset,
    /// The offset after its last batch.
    pub end: Offset,
    /// Size of its file, as far as it is part of the log.
    pub bytes: u64,
    /// It takes the next batch.
    pub is_active: bool,
    /// Something of it is lost.
    pub is_damaged: bool,
    /// The largest timestamp of its records; `None` if none has one.
    pub max_timestamp: Option<TimestampMs>,
    /// When its last batch was appended; `None` if nobody knows.
    pub appended: Option<TimestampMs>,
    /// From when on a pass takes it for its age, and all before it; `None` is never.
    pub goes_at: Option<TimestampMs>,
    /// So many more bytes in the log, and a pass takes it for the log's size: with 0 the next one. `None` is never.
    pub goes_after_bytes: Option<u64>,
}

impl SegmentOutlook {
    /// Since when it ages: its largest timestamp, or its last append if that is earlier.
    pub fn ages_from(&self) -> Option<TimestampMs> {
        [self.max_timestamp, self.appended].into_iter().flatten().min()
    }
}

impl Log {
    /// When each segment goes, by the rules of [`Log::retained_from`].
    pub fn outlook(&self, retention: Retention) -> Vec<SegmentOutlook> {
        let total = self.view.size_bytes();
        let active = self.writer.as_ref().map(|writer| writer.segment().base());
        let (mut before, mut all_gone_at) = (0, Some(i128::MIN));
        let outlook = |segment: &std::sync::Arc<Segment>| {
            let bytes = segment.end().bytes;
            before += bytes;
            let goes_after_bytes =
                retention.bytes.map(|limit| before.saturating_add(limit).saturating_sub(total));
            let own = retention.age_ms.zip(segment.ages_from());
            let own = own.filter(|_| bytes > 0).map(|(age_ms, since)| older_from(since, age_ms));
            let goes_at = all_gone_at.zip(own).map(|(before, own)| before.max(own));
            all_gone_at = if goes_after_bytes == Some(0) { all_gone_at } else { goes_at };
            let known = |at: TimestampMs| Some(at).filter(|at| *at != NO_TIMESTAMP);
            SegmentOutlook {
                base: segment.base(),
                end: segment.end().offset,
                bytes,
                is_active: active == Some(segment.base()),
                is_damaged: segment.quarantine().concerns(segment.base()),
                max_timestamp: known(segment.max_time().timestamp),
                appended: known(segment.appended()),
                goes_at: goes_at.and_then(moment),
                goes_after_bytes,
            }
        };
        self.view.segments().iter().map(outlook).collect()
    }

    /// From when on a pass closes the active segment although nothing is appended; `None` if there is nothing in it, or
    /// never.
    pub fn rolls_at(&self) -> Option<TimestampMs> {
        self.writer.as_ref()?.overdue_from(&self.config).and_then(moment)
    }
}
