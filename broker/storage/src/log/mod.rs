//! One partition's log: open, append, sync, cut, delete before.
//!
//! One owner holds the [`Log`] and appends; readers hold its [`LogView`]. Nothing here waits for the disk's cache:
//! the owner takes a [`SyncJob`], runs it without holding the log, and hands the result back. Time is an argument,
//! the network and error codes are not known.
//!
//! Invariants:
//! 1. Segments are in offset order; each begins where the one before ends, and only the last grows. Inside the others
//!    compaction may have left gaps.
//! 2. `durable <= end`. Below the durable end everything was covered by a sync that succeeded, names included.
//! 3. What was recorded of producers and epochs is what a walk over the batch headers would record.
//! 4. After a failed write or sync nothing is appended until the log was cut at its durable end.

mod append;
mod compact;
mod cut;
mod manifest;
mod outline;
mod recover;
mod retention;
mod sync;
mod tail;
mod writer;

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use highwater_record::{LeaderEpoch, Offset, TimestampMs, TimestampType, TopicId};
use thiserror::Error;

use crate::compact::CompactionConfig;
use crate::epochs::{self, Epochs};
use crate::files::FileLayer;
use crate::own_file::{self, Durable};
use crate::point::LogPoint;
use crate::producers::{self, Fingerprint, Producers, Snapshot};
use crate::segment::{Place, Segment};
use crate::view::LogView;

pub(crate) use append::METADATA_FILE_NAME;
pub use append::{AppendError, Appended};
pub use compact::{CompactionOutcome, read_compacted};
pub use cut::{CutError, RemovalJob};
pub use manifest::{ManifestJob, SealedSegment, read_manifest};
pub use outline::{LogOutline, TailSegment};
pub use recover::Recovery;
pub use retention::{Retention, SegmentOutlook};
pub use sync::{SidecarJob, SyncJob, SyncOutcome};
pub(crate) use writer::{Indexer, no_time};

use compact::Compacted;
use cut::Retired;
use writer::Writer;

/// What a log is like. The caller chooses everything; there is no default.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogConfig {
    /// Largest size of a segment file (`segment.bytes`). At most `i32::MAX`, as in Kafka.
    pub segment_bytes: u32,
    /// How long a segment takes batches (`segment.ms`).
    pub segment_ms: u64,
    /// Bytes between two index entries (`index.interval.bytes`; Kafka's default is 4096).
    pub index_interval_bytes: u32,
    /// Largest size of an index file (`segment.index.bytes`; Kafka's default is 10 MiB).
    pub index_bytes_max: u32,
    /// Whose clock stamps records (`message.timestamp.type`).
    pub timestamp_type: TimestampType,
    /// Whether writeback is started as bytes arrive; only useful if they are going to be synced.
    pub writeback: bool,
    /// How long a silent producer is remembered (`producer.id.expiration.ms`).
    pub producer_expiry_ms: u64,
    /// How the log is compacted, if it is.
    pub compaction: Option<CompactionConfig>,
    /// The topic's UUID, written to `partition.metadata` when the directory is made.
    pub topic_id: Option<TopicId>,
}

/// What is known of a log from outside it, from the data directory's checkpoint file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogCheckpoint {
    /// First offset.
    pub log_start: Offset,
    /// Everything below was synced.
    pub recovery_point: Offset,
    /// What consumers had been shown. Storage keeps it and does not use it.
    pub high_watermark: Offset,
}

/// Why a log does not open. No batch was changed or removed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A sync failed, which is final: the log must not be opened again by this process, since a second sync may succeed
    /// and mean nothing.
    #[error("{} cannot be made durable: {source}", path.display())]
    Sync {
        /// The file or directory.
        path: PathBuf,
        /// What the disk says.
        source: io::Error,
    },
    /// Whoever opens it has thought better of it. The log can be opened again.
    #[error("given up after {opened} of {segments} segments")]
    GivenUp {
        /// Segments that were looked through before.
        opened: usize,
        /// Segments that there are.
        segments: usize,
    },
}

/// What is known when a log is opened, and where is said how far that has come.
#[derive(Clone, Debug)]
pub struct Opening {
    /// What the checkpoint says, if it says anything.
    pub known: Option<LogCheckpoint>,
    /// The time.
    pub now: TimestampMs,
    /// Counts bytes above the recovery point as they are checked, across any number of logs.
    pub scanned: Arc<AtomicU64>,
    /// Once it is set, the opening is given up before the next segment.
    pub give_up: Arc<AtomicBool>,
}

/// One partition's log.
#[derive(Debug)]
pub struct Log {
    place: Place,
    config: LogConfig,
    view: Arc<LogView>,
    dir_exists: bool,
    /// The active segment's writer; none before the first append and after a cut.
    writer: Option<Writer>,
    end: LogPoint,
    durable: LogPoint,
    /// Where the log ended when it was opened. What lies between the durable end and here may have been acknowledged
    /// in an earlier life, so it is never cut off after a failure.
    recovered: Offset,
    /// Batches get at least this epoch, whatever the caller says: epochs never go back.
    epoch_min: LeaderEpoch,
    producers: Producers,
    expired_at: TimestampMs,
    /// The batch that ends at `end`.
    last_batch: Option<Fingerprint>,
    owed: Owed,
    /// Counts cuts, so that a sync that began before one is not taken for one after it.
    generation: u64,
    syncing: bool,
    failed: bool,
    retired: Vec<Retired>,
    compacted: Compacted,
}

/// What the next sync has to make durable besides the segments.
#[derive(Debug, Default)]
struct Owed {
    /// The partition's directory has names that are not durable.
    dir: bool,
    /// So has its parent, and `partition.metadata` was written.
    parent: bool,
    /// The epoch file is older than the log.
    epochs: bool,
    /// Indexes of sealed segments.
    indexes: Vec<Arc<Segment>>,
    /// The producers' sidecar should be written with the next sync.
    sidecar: bool,
    /// Where the sidecar on disk ends.
    sidecar_end: Option<Offset>,
    /// Segments were sealed that the manifest does not have.
    manifest: bool,
}

impl Log {
    /// Opens the log in a directory; a missing directory is an empty log, and is made at the first append.
    ///
    /// What lies above the recovery point of `known` is checked batch by batch, and a torn tail is dropped. Without
    /// `known`, what the manifest says was sealed counts as synced. What is damaged or missing below the recovery point is
    /// lost as a range of offsets, which [`LogView::quarantined`] tells; the log goes on at or above the recovery point.
    pub fn open(
        files: Arc<dyn FileLayer>,
        dir: PathBuf,
        config: LogConfig,
        known: Option<LogCheckpoint>,
        now: TimestampMs,
    ) -> Result<(Self, Recovery), OpenError> {
        let opening = Opening { known, now, scanned: Arc::default(), give_up: Arc::default() };
        Self::open_counting(files, dir, config, opening)
    }

    /// The same, and whoever holds `opening.scanned` sees how far it has come, and may end it by `opening.give_up`.
    pub fn open_counting(
        files: Arc<dyn FileLayer>,
        dir: PathBuf,
        config: LogConfig,
        opening: Opening,
    ) -> Result<(Self, Recovery), OpenError> {
        recover::open(Place::new(files, dir), config, opening)
    }

    /// The read side. It stays valid as long as it is held.
    pub fn view(&self) -> Arc<LogView> {
        Arc::clone(&self.view)
    }

    /// What must be known to open the log again without reading all of it. The high watermark is the durable end;
    /// a caller with another idea of it puts its own.
    pub fn checkpoint(&self) -> LogCheckpoint {
        LogCheckpoint {
            log_start: self.view.log_start(),
            recovery_point: self.durable.offset,
            high_watermark: self.durable.offset,
        }
    }

    /// Takes another configuration from the next append on. A segment keeps the distance of its index entries.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Gives later batches at least this epoch. A log that was opened again must get a larger one than before, here or
    /// with each append: that is how recovery tells new batches from those that a crash brings back.
    pub fn set_epoch_min(&mut self, epoch: LeaderEpoch) {
        self.epoch_min = self.epoch_min.max(epoch);
    }

    /// Number of idempotent producers that are remembered.
    #[cfg(test)]
    pub(crate) fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// Whether a write or a sync failed and [`Log::resume`] was not called yet.
    pub const fn is_failed(&self) -> bool {
        self.failed
    }

    /// Puts the log away: writes what is pending to the indexes, the epoch file and the producers' sidecar, and gives
    /// reserved space back. Syncs nothing: whoever marks a clean stop syncs the file system first.
    pub fn close(mut self) -> io::Result<()> {
        self.finish_cuts();
        if let Some(writer) = self.writer.take() {
            writer.seal()?;
        }
        if !self.dir_exists {
            return Ok(());
        }
        if self.owed.epochs {
            self.store_epochs()?;
        }
        if self.owed.sidecar_end != Some(self.end.offset) {
            let path = self.place.dir.join(producers::FILE_NAME);
            own_file::store(&*self.place.files, &path, &self.snapshot().encode(), Durable::No)?;
        }
        Ok(())
    }

    /// Lets go of the log's files: they are about to be renamed and removed, and another log may begin under the same
    /// path. From here on nothing that was taken from this log, a job under way included, opens, replaces or removes a
    /// file by its name. Who has a file open keeps it.
    pub fn give_up(self) {
        self.place.give_up();
    }

    fn store_epochs(&self) -> io::Result<()> {
        let text = self.view.epochs().to_text();
        let path = self.place.dir.join(epochs::FILE_NAME);
        own_file::store(&*self.place.files, &path, text.as_bytes(), Durable::No)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { end: self.end.offset, last: self.last_batch, producers: self.producers.clone() }
    }

    fn set_epochs(&mut self, change: impl FnOnce(&mut Epochs) -> bool) {
        let mut epochs = Epochs::clone(&self.view.epochs());
        if change(&mut epochs) {
            self.view.set_epochs(epochs);
            self.owed.epochs = true;
        }
    }

    fn set_end(&mut self, end: LogPoint) {
        self.end = end;
        self.view.set_end(end);
    }

    fn set_durable(&mut self, durable: LogPoint) {
        self.durable = durable;
        self.view.set_durable(durable);
    }
}

/// The text of Kafka's `partition.metadata`.
fn partition_metadata(topic_id: TopicId) -> String {
    let mut text = String::from("version: 0\n");
    writeln!(text, "topic_id: {topic_id}").expect("writing to a string cannot fail");
    text
}
