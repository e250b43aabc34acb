//! Writing what is disposable anew, offline: both indexes of a segment, and the leader epochs of a log.
//!
//! By the same rules as appends and recovery, from headers that the caller has read and believes. It reads no segment,
//! and files go where the caller says, so that those of a log are not touched before others can take their place.

use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_record::{BatchHeader, Offset};

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
#[derive(Clone, Debug, Default)]
pub struct EpochBook(Epochs);

impl EpochBook {
    /// Takes note of a batch; they come in the order of the log.
    pub fn add(&mut self, header: &BatchHeader) {
        if let Some(epoch) = header.leader_epoch {
            self.0.assign(epoch, header.base_offset);
        }
    }

    /// Whether a `leader-epoch-checkpoint` with this text belongs to a log with these batches: it can be read, and its
    /// last epoch is theirs. Earlier ones may be of batches that are gone.
    pub fn agrees_with(&self, text: &str) -> bool {
        Epochs::parse(text).is_some_and(|stored| stored.latest() == self.0.latest())
    }

    /// The text of a `leader-epoch-checkpoint`; nothing if no batch has an epoch.
    pub fn text(&self) -> Option<String> {
        self.0.latest().map(|_| self.0.to_text())
    }
}
