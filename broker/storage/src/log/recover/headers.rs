//! What batch headers say of producers and epochs, as far as the files that keep it do not.
//!
//! A file is believed if it agrees with the log that was recovered; else its content is rebuilt from the headers. What the
//! disk cannot read is passed over: that keeps nobody from the rest of the log. It writes nothing.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use highwater_record::{Offset, TimestampMs};

use super::{Recoverer, is_unreadable};
use crate::epochs::{self, Epochs};
use crate::own_file;
use crate::producers::{self, Producers, Snapshot};
use crate::segment::{Place, Segment};

impl Recoverer {
    /// The epochs by the file, if the last header agrees or nobody knows it; else from all headers that can be read.
    pub(super) fn epochs(&self, log_start: Offset, end: Offset) -> io::Result<(Epochs, bool)> {
        let path = self.place.dir.join(epochs::FILE_NAME);
        let text = own_file::load(&*self.place.files, &path).ok().flatten();
        let stored = text.and_then(|text| Epochs::parse(std::str::from_utf8(&text).ok()?));
        let mut epochs = stored.clone().unwrap_or_default();
        epochs.truncate_from_end(end);
        epochs.truncate_from_start(log_start);
        let newest = self.last_header.and_then(|last| last.leader_epoch);
        let believed = if self.last_unread { stored.is_some() } else { epochs.latest() == newest };
        if !believed {
            epochs = Epochs::default();
            for segment in &self.segments {
                let walked = segment.walk(0, segment.end().bytes, |_, header| {
                    if let Some(epoch) = header.leader_epoch {
                        epochs.assign(epoch, header.base_offset);
                    }
                    ControlFlow::<()>::Continue(())
                });
                pass_over_unreadable(segment, walked)?;
            }
            epochs.truncate_from_start(log_start);
        }
        let changed = stored.as_ref() != Some(&epochs) && (stored.is_some() || newest.is_some());
        Ok((epochs, changed))
    }
}

/// Producer state at `end`, and where the sidecar on disk ends if it could be used: by the sidecar, completed from the
/// headers after it; from all headers without a good one. What the disk cannot read is passed over.
pub(in crate::log) fn rebuild_producers(
    place: &Place,
    segments: &[Arc<Segment>],
    end: Offset,
    now: TimestampMs,
) -> io::Result<(Producers, Option<Offset>)> {
    let path = place.dir.join(producers::FILE_NAME);
    let stored = own_file::load(&*place.files, &path).ok().flatten();
    let sidecar = stored
        .and_then(|bytes| Snapshot::decode(&bytes))
        .filter(|sidecar| sidecar.end <= end && belongs(sidecar, segments));
    let (mut producers, from) = match &sidecar {
        Some(sidecar) => (sidecar.producers.clone(), sidecar.end),
        None => (Producers::default(), Offset::ZERO),
    };
    for segment in segments {
        if segment.end().offset <= from || segment.base() >= end {
            continue;
        }
        let Some((start, _)) = pass_over_unreadable(segment, segment.locate(from))? else { continue };
        let walked = segment.walk(start, segment.end().bytes, |_, header| {
            // A base offset beyond the end may be a damaged one, which the batch after it shows: no reason to stop.
            if (from..end).contains(&header.base_offset) {
                producers.record(header, now);
            }
            ControlFlow::<()>::Continue(())
        });
        pass_over_unreadable(segment, walked)?;
    }
    Ok((producers, sidecar.map(|sidecar| sidecar.end)))
}

/// Whether the log has the batch that a sidecar ends with, as far as the disk lets anybody look.
fn belongs(sidecar: &Snapshot, segments: &[Arc<Segment>]) -> bool {
    let Some(last) = sidecar.last else {
        return sidecar.end <= segments.first().map_or(sidecar.end, |s| s.base());
    };
    let holder = segments.iter().rfind(|segment| segment.base() <= last.base_offset);
    let Some(holder) = holder else { return false };
    match holder.locate(last.base_offset) {
        Ok(found) => found.is_some_and(|(_, header)| {
            header.base_offset == last.base_offset
                && header.crc == last.crc
                && header.next_offset() == sidecar.end
        }),
        Err(error) => is_unreadable(&error),
    }
}

/// What was asked of a segment, or nothing if the disk cannot read it: that keeps nobody from the rest of the log.
fn pass_over_unreadable<T>(segment: &Segment, asked: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match asked {
        Err(error) if is_unreadable(&error) => {
            tracing::warn!(
                path = %segment.path().display(), %error,
                "what this segment says of producers and epochs is not known"
            );
            Ok(None)
        }
        other => other,
    }
}
