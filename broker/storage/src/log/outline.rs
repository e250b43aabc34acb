//! What can be told of a log that is not open, and whether it still holds.
//!
//! A log at rest is one to which nothing was appended behind its recovery point. Of such a log the checkpoint knows
//! all that most questions need, so it may stay closed until somebody reads or appends. Whether it is at rest is told
//! by the sizes of at most two files: appends grow the last segment or make the one that begins at the log's end.

use std::io;
use std::path::Path;

use highwater_record::{LeaderEpoch, Offset, TimestampMs};

use crate::files::FileLayer;
use crate::log::{Log, LogCheckpoint};
use crate::segment::{base_of, file_name};

/// What a log is like below its recovery point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogOutline {
    /// Bytes of the segments, up to the recovery point.
    pub size_bytes: u64,
    /// The segment that the recovery point lies in; `None` if there are no segments.
    pub tail: Option<TailSegment>,
    /// The epoch of the first record; `None` if there never was one.
    pub first_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record; `None` if there never was one.
    pub latest_epoch: Option<LeaderEpoch>,
    /// Since when the oldest segment ages; `None` if there is none, or if nobody knows.
    pub oldest: Option<TimestampMs>,
}

/// The segment that takes the next batch of a log at rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TailSegment {
    /// Its base offset.
    pub base: Offset,
    /// How many of its bytes lie below the recovery point.
    pub bytes: u64,
}

impl LogOutline {
    /// The outline of a log that never had a record.
    pub const EMPTY: Self =
        Self { size_bytes: 0, tail: None, first_epoch: None, latest_epoch: None, oldest: None };

    /// Whether the log in `dir` is at rest: that no byte lies behind the recovery point of `known`. Opens no file.
    pub fn is_at_rest(&self, files: &dyn FileLayer, dir: &Path, known: &LogCheckpoint) -> io::Result<bool> {
        let log_bytes = |base| files.file_len(&dir.join(file_name(base, "log")));
        let end = known.recovery_point;
        match self.tail {
            Some(tail) if log_bytes(tail.base)? != Some(tail.bytes) => Ok(false),
            // An empty segment is itself the one that begins at the end.
            Some(tail) if tail.base == end => Ok(true),
            _ => Ok(log_bytes(end)?.is_none()),
        }
    }

    /// How many bytes lie behind the recovery point, all of which opening the log scans. Without an outline that is
    /// everything, or what the recovery point's segment and the later ones have.
    pub fn unsynced_bytes(
        outline: Option<&Self>,
        files: &dyn FileLayer,
        dir: &Path,
        known: Option<&LogCheckpoint>,
    ) -> io::Result<u64> {
        let mut segments: Vec<(Offset, u64)> = (files.list(dir)?.into_iter())
            .filter_map(|entry| base_of(&entry.name, "log").map(|base| (base, entry.len)))
            .collect();
        segments.sort_unstable();
        let recovery_point = known.map_or(Offset::ZERO, |known| known.recovery_point);
        let first = segments.partition_point(|(base, _)| *base <= recovery_point).saturating_sub(1);
        let bytes: u64 = segments[first..].iter().map(|(_, bytes)| bytes).sum();
        let tail = outline.and_then(|outline| outline.tail);
        let below = tail.filter(|tail| segments.get(first).is_some_and(|(base, _)| *base == tail.base));
        Ok(bytes.saturating_sub(below.map_or(0, |tail| tail.bytes)))
    }
}

impl Log {
    /// What can be told of the log by who knows its checkpoint. `None` while that is not sure: if nothing of it is durable
    /// but it has records, or the place of the recovery point is not known to the byte.
    pub fn outline(&self) -> Option<LogOutline> {
        let (segments, epochs) = (self.view.segments(), self.view.epochs());
        let (start, durable) = (self.view.log_start(), self.durable.offset);
        if start >= durable && durable < self.end.offset {
            // Whether the epochs there are have anything below the recovery point is not told by their starts.
            return None;
        }
        let at = segments.partition_point(|segment| segment.base() <= durable).checked_sub(1);
        let tail = match at {
            None if segments.is_empty() => None,
            None => return None,
            Some(at) => {
                let points = [segments[at].durable(), segments[at].end()];
                let point = points.into_iter().find(|point| point.offset == durable)?;
                Some(TailSegment { base: segments[at].base(), bytes: point.bytes })
            }
        };
        let before: u64 = segments[..at.unwrap_or(0)].iter().map(|segment| segment.end().bytes).sum();
        let latest_epoch = if durable == self.end.offset {
            epochs.latest()
        } else {
            // An epoch that begins at the durable end has nothing below it.
            Offset::new(durable.get() - 1).and_then(|last| epochs.at(last))
        };
        Some(LogOutline {
            size_bytes: before + tail.map_or(0, |tail| tail.bytes),
            tail,
            first_epoch: epochs.at(start),
            latest_epoch,
            oldest: segments.first().and_then(|first| first.ages_from()),
        })
    }
}
