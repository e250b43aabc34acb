//! Writing what is disposable anew, offline: both indexes of a segment, and the leader epochs of a log.
//!
//! By the same rules as appends and recovery, from headers that the caller has read and believes. It reads no segment,
//! and files go where the caller says, so that those of a log are not touched before others can take their place.

use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_record::{BatchHeader, LeaderEpoch, Offset};

use crate::disk::DiskFiles;
use crate::epochs::Epochs;
use crate::log::{Indexer, no_time};
use crate::segment::{Extent, Place, Segment};

/// The `.index` and `.timeindex` of one segment while they are written.
#[derive(Debug)]
pub struct IndexBuilder {
    segment: Segment,
    indexer: Indexer,
}

impl IndexBuilder {
    /// Makes both files, empty, in `dir`. An entry is made about every `interval_bytes` (`index.interval.bytes`).
    pub fn create(dir: &Path, base: Offset, interval_bytes: u32) -> io::Result<Self> {
        let place = Place::new(Arc::new(DiskFiles), dir.to_owned());
        let segment = Segment::new(&place, base, &Extent::empty(base), 0);
        segment.offsets.create()?;
        segment.times.create()?;
        Ok(Self { segment, indexer: Indexer::new(interval_bytes, no_time(base)) })
    }

    /// Takes note of the batch at `position`; positions and offsets grow.
    pub fn add(&mut self, position: u64, header: &BatchHeader) {
        self.indexer.add(&self.segment, position, header);
    }

    /// Writes what is left and syncs both files.
    pub fn finish(mut self) -> io::Result<()> {
        self.indexer.complete(&self.segment);
        // What the line before could not write is an error here.
        self.segment.flush_indexes()?;
        self.segment.offsets.sync()?;
        self.segment.times.sync()
    }
}

/// The leader epochs of a log as its batches say them.
///
/// No CRC covers an epoch. A batch whose epoch is larger than that of the next one lies and does not count.
#[derive(Clone, Debug, Default)]
pub struct EpochBook {
    epochs: Epochs,
    /// The epoch and base offset of the last batch, which the next one judges.
    held: Option<(LeaderEpoch, Offset)>,
}

impl EpochBook {
    /// Takes note of a batch; they come in the order of the log.
    pub fn add(&mut self, header: &BatchHeader) {
        if let Some(epoch) = header.leader_epoch
            && let Some((before, from)) = self.held.replace((epoch, header.base_offset))
            && before <= epoch
        {
            self.epochs.assign(before, from);
        }
    }

    fn whole(&self) -> Epochs {
        let mut whole = self.epochs.clone();
        if let Some((epoch, from)) = self.held {
            whole.assign(epoch, from);
        }
        whole
    }

    /// Whether a `leader-epoch-checkpoint` with this text belongs to a log with these batches: it can be read, and says
    /// their epochs where they begin, and of the last batch. It may know more: epochs whose batches are gone, and one
    /// that began at the end of the log and has none yet, as Kafka writes it when a broker starts.
    pub fn agrees_with(&self, text: &str) -> bool {
        let Some(stored) = Epochs::parse(text) else { return false };
        let whole = self.whole();
        // Below the first entry the file says nothing: the log was cut there.
        let begin = |&(epoch, from): &(LeaderEpoch, Offset)| stored.at(from).is_none_or(|told| told == epoch);
        // A last batch whose epoch is smaller lies.
        let last = self.held.filter(|held| Some(held.0) == whole.latest());
        whole.entries().iter().all(begin) && last.is_none_or(|(epoch, from)| stored.at(from) == Some(epoch))
    }

    /// The text of a `leader-epoch-checkpoint`; nothing if no batch has an epoch.
    pub fn text(&self) -> Option<String> {
        let whole = self.whole();
        whole.latest().map(|_| whole.to_text())
    }
}
