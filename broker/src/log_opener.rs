//! What it takes to open the log of any partition, at the start or at its first use.

use std::sync::Arc;

use highwater_record::{LeaderEpoch, Offset, TopicId, TopicPartition};
use highwater_storage::{
    DataDir, FileLayer, Log, LogCheckpoint, LogConfig, LogOutline, OpenError, Opening, ReadOnlyFiles,
    Recovery, SyncOutcome,
};
use rustix::io::Errno;
use thiserror::Error;

use crate::meta::{LostRecord, Metadata, MetadataError};
use crate::progress::RecoveryProgress;
use crate::{clock, metrics};

/// From here on a scan is worth a line in the log.
const SCAN_TOLD_BYTES: u64 = 64 << 20;

/// Why a log is not opened.
#[derive(Debug, Error)]
pub(crate) enum OpenLogError {
    #[error("cannot read where the log begins: {0}")]
    Metadata(#[from] MetadataError),
    #[error("cannot open the topic's log: {0}")]
    Log(#[from] OpenError),
    #[error("cannot open the topic's log: {0}")]
    Io(#[from] std::io::Error),
    #[error("cannot make the topic's log durable: {0}")]
    Sync(std::io::Error),
    #[error(
        "the directory of {partition} is left over from another topic (id {found}); move it out of the data directory"
    )]
    Leftover { partition: TopicPartition, found: TopicId },
}

impl OpenLogError {
    /// Whether the process is short of something that it may have again soon, or the disk did not read this time, or the
    /// broker stops: the log is not to blame. A sync that failed never passes, since the next one may succeed and mean nothing (ADR 4); one
    /// without a descriptor has not reached the disk.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Log(OpenError::Io { source, .. }) | Self::Io(source) => {
                let errno = Errno::from_io_error(source);
                matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO))
            }
            Self::Log(OpenError::Sync { source, .. }) | Self::Sync(source) => {
                matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE))
            }
            Self::Log(OpenError::GivenUp { .. }) => true,
            Self::Metadata(_) | Self::Leftover { .. } => false,
        }
    }
}

/// Opens logs.
pub(crate) struct LogOpener {
    files: Arc<dyn FileLayer>,
    data: Arc<DataDir>,
    metadata: Arc<Metadata>,
    progress: Arc<RecoveryProgress>,
    epoch: LeaderEpoch,
}

impl LogOpener {
    /// An opener of the logs in `data`, for the incarnation `epoch`.
    pub(crate) fn new(
        data: Arc<DataDir>,
        metadata: Arc<Metadata>,
        progress: Arc<RecoveryProgress>,
        epoch: LeaderEpoch,
    ) -> Arc<Self> {
        Arc::new(Self { files: Arc::clone(data.files()), data, metadata, progress, epoch })
    }

    /// How far the start has come, and what did not open.
    pub(crate) fn progress(&self) -> &RecoveryProgress {
        &self.progress
    }

    /// Whether the log of a partition, which is at rest, may be dirty enough to be opened for compaction. If the disk does
    /// not say, it may be: opening it says what is wrong.
    pub(crate) fn may_be_dirty(
        &self,
        partition: &TopicPartition,
        outline: &LogOutline,
        config: &LogConfig,
    ) -> bool {
        let Some(compaction) = &config.compaction else { return false };
        outline.may_be_dirty(&*self.files, &self.data.partition_path(partition), compaction).unwrap_or(true)
    }

    /// Opens, and if need be recovers, the log of one partition of the topic that `config` names. `known` is what the
    /// checkpoint says of it.
    pub(crate) fn open(
        &self,
        partition: &TopicPartition,
        config: LogConfig,
        known: Option<LogCheckpoint>,
    ) -> Result<Log, OpenLogError> {
        let mut known = known;
        if let Some(topic_id) = config.topic_id {
            if let Some(found) = self.data.other_topic(partition, topic_id) {
                return Err(OpenLogError::Leftover { partition: partition.clone(), found });
            }
            let start = self.metadata.log_start(topic_id, partition.partition)?;
            known = at_least(known, start, &self.metadata.lost(topic_id, partition.partition)?);
        }
        let dir = self.data.partition_path(partition);
        let RecoveryProgress { scanned_bytes, given_up, .. } = &*self.progress;
        let (scanned, give_up) = (Arc::clone(scanned_bytes), Arc::clone(given_up));
        let opening = Opening { known, now: clock::now(), scanned, give_up };
        let read_only = self.metadata.read_only().is_some();
        let files = Arc::clone(&self.files);
        let files = if read_only { Arc::new(ReadOnlyFiles::new(files)) } else { files };
        // Lines of storage about what it cuts or moves aside are true in memory alone then, and say so.
        let span = read_only.then(|| tracing::warn_span!("read_only", %partition, files = "unchanged"));
        let (mut log, recovery) = {
            let _entered = span.as_ref().map(tracing::Span::enter);
            Log::open_counting(files, dir, config, opening)?
        };
        if recovery.segments_below > 0 && !read_only {
            remove_below_start(partition, &mut log);
        }
        tell(partition, &log, recovery, read_only);
        Ok(log)
    }

    /// The same, and makes durable what the log has more than was known of it: nobody may be shown what is not.
    pub(crate) fn open_durably(
        &self,
        partition: &TopicPartition,
        config: LogConfig,
        known: Option<LogCheckpoint>,
    ) -> Result<Log, OpenLogError> {
        let mut log = self.open(partition, config, known)?;
        let Some(job) = log.begin_sync() else { return Ok(log) };
        let result = job.run();
        match log.finish_sync(job, result, self.epoch) {
            SyncOutcome::Durable(_) | SyncOutcome::Superseded => Ok(log),
            SyncOutcome::Postponed(error) | SyncOutcome::Failed { error, .. } => {
                Err(OpenLogError::Sync(error))
            }
        }
    }
}

/// Says what opening a log came to.
fn tell(partition: &TopicPartition, log: &Log, recovery: Recovery, read_only: bool) {
    let Recovery { bytes_scanned: scanned, bytes_dropped: dropped, segments_dropped, .. } = recovery;
    if read_only && (dropped > 0 || segments_dropped > 0) {
        tracing::warn!(
            %partition, end = %log.view().end().offset, bytes = dropped, segments = segments_dropped,
            "the log is served up to a torn or damaged batch; what follows it stays in its files and is not served"
        );
    } else if dropped > 0 || scanned >= SCAN_TOLD_BYTES {
        tracing::info!(%partition, scanned, dropped, "recovered a log");
    } else if scanned > 0 {
        // After a kill there may be thousands of these.
        tracing::debug!(%partition, scanned, "recovered a log");
    }
}

/// Removes the segments below a log's start, which is durable, that a stop kept from being removed: a log that nobody
/// writes to may never have others.
fn remove_below_start(partition: &TopicPartition, log: &mut Log) {
    let removal = log.delete_before(log.view().log_start()).and_then(|removal| Ok(removal.run()?));
    match removal {
        Ok(removed) => {
            metrics::count_deleted(removed);
            tracing::info!(%partition, removed, "removed what a stop left below the log's start");
        }
        Err(error) => {
            tracing::warn!(%partition, %error, "segments below the log's start stay for now");
        }
    }
}

/// What is known of a log, by the checkpoint and by the metadata. The larger start wins; and the log had reached as far
/// as the end of what it lost, so that no offset is used a second time.
fn at_least(
    known: Option<LogCheckpoint>,
    start: Option<Offset>,
    lost: &[LostRecord],
) -> Option<LogCheckpoint> {
    // Without a checkpoint nothing is known to be durable, but a log begins at 0 unless the metadata says otherwise.
    let zero =
        LogCheckpoint { log_start: Offset::ZERO, recovery_point: Offset::ZERO, high_watermark: Offset::ZERO };
    let known = known.unwrap_or(zero);
    let reached = lost.iter().filter_map(|lost| Offset::new(lost.to)).max().unwrap_or_default();
    Some(LogCheckpoint {
        log_start: known.log_start.max(start.unwrap_or_default()),
        recovery_point: known.recovery_point.max(reached),
        ..known
    })
}
