//! Appending: producer state, offsets, rolling, and what happens when the disk is full.
//!
//! The payload is never copied: the header is patched on the stack and written together with it. State changes only
//! after the write succeeded, so that there is nothing to take back.

use std::io;
use std::sync::Arc;

use highwater_record::{
    Batch, BatchHeader, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TimestampType,
    patch,
};
use thiserror::Error;

use crate::files::{Access, is_no_space};
use crate::log::writer::{Indexer, Stamped, Writer, no_time};
use crate::log::{Log, partition_metadata};
use crate::own_file::{self, Durable};
use crate::point::LogPoint;
use crate::producers::{Fingerprint, Verdict};
use crate::segment::{Extent, Segment};

/// Name of Kafka's file with the topic's UUID.
pub(crate) const METADATA_FILE_NAME: &str = "partition.metadata";

/// A batch that is in the log. It is durable when the durable end has passed `last_offset`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// The batch had been appended before; the offsets are those of then, and nothing was written.
    pub duplicate: bool,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// What the broker stamped the records with, if it does.
    pub log_append_time: Option<TimestampMs>,
}

/// Why a batch is not appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The producer's batches must come in sequence.
    #[error("producer {producer} sends sequence {actual}, {expected} comes next")]
    OutOfOrderSequence {
        /// The producer.
        producer: ProducerId,
        /// The sequence that comes next.
        expected: Sequence,
        /// The sequence that the batch begins with.
        actual: Sequence,
    },
    /// A newer session of the producer has taken over.
    #[error("producer {producer} has epoch {epoch}, the current one is {current}")]
    ProducerFenced {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The newest epoch seen.
        current: ProducerEpoch,
    },
    /// The disk or the quota is full. Nothing changed; a later append may succeed.
    #[error("no space for the batch: {0}")]
    NoSpace(io::Error),
    /// The batch does not fit into a segment.
    #[error("batch of {bytes} bytes does not fit into a segment of {limit} bytes")]
    TooLarge {
        /// Size of the batch.
        bytes: u32,
        /// `segment_bytes`.
        limit: u32,
    },
    /// The next segment's files cannot be made. Nothing changed; a later append may succeed.
    #[error("the next segment cannot be made: {0}")]
    Create(io::Error),
    /// The segment's file was closed for want of descriptors and cannot be opened again. Nothing changed; a later
    /// append may succeed.
    #[error("the segment's file cannot be opened: {0}")]
    Open(io::Error),
    /// The disk failed. The log takes nothing more until [`Log::resume`].
    #[error("the log cannot be written: {0}")]
    Io(io::Error),
    /// A write or sync failed earlier, and [`Log::resume`] was not called yet.
    #[error("the log is closed to appends after a failed write or sync")]
    Failed,
}

impl Log {
    /// Appends a batch at the end of the log, with the next offsets and `epoch`. An exact duplicate of one of its
    /// producer's last five batches is not appended again.
    pub fn append(
        &mut self,
        batch: &Batch,
        epoch: LeaderEpoch,
        now: TimestampMs,
    ) -> Result<Appended, AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        let size_bytes = batch.header().size_bytes;
        if size_bytes > self.config.segment_bytes {
            return Err(AppendError::TooLarge { bytes: size_bytes, limit: self.config.segment_bytes });
        }
        self.expire_producers(now);
        if let Some(duplicate) = self.check_producer(batch.header())? {
            return Ok(duplicate);
        }
        let stamped = self.stamp(batch, epoch.max(self.epoch_min), now);
        let end = self.write(&stamped, now)?;
        if let Some(writer) = &self.writer {
            writer.segment().set_appended(now);
        }

        let header = stamped.header;
        self.producers.record(&header, now);
        self.last_batch = Some(Fingerprint { base_offset: header.base_offset, crc: header.crc });
        if let Some(epoch) = header.leader_epoch.filter(|epoch| Some(*epoch) != self.view.latest_epoch()) {
            self.set_epochs(|epochs| epochs.assign(epoch, header.base_offset));
            self.epoch_min = epoch;
        }
        // Last, so that a reader who sees the new end finds everything that belongs to it.
        self.set_end(end);
        Ok(Appended {
            duplicate: false,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time: self.log_append_time(header.max_timestamp),
        })
    }

    /// Starts a new segment for the next append, unless the active one is empty.
    pub fn roll(&mut self, now: TimestampMs) -> Result<(), AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        match &self.writer {
            Some(writer) if writer.segment().end().bytes > 0 => self.start_segment(now).map_err(create_error),
            _ => Ok(()),
        }
    }

    /// Gives back the space that is reserved for appends, because it is short.
    ///
    /// # Errors
    /// If the file cannot be opened or cut; the space stays reserved.
    pub fn give_back_space(&mut self) -> io::Result<()> {
        match &mut self.writer {
            Some(writer) if !self.failed => writer.give_back(),
            _ => Ok(()),
        }
    }

    fn check_producer(&self, header: &BatchHeader) -> Result<Option<Appended>, AppendError> {
        match self.producers.check(header) {
            Verdict::New => Ok(None),
            Verdict::Duplicate { base_offset, last_offset, timestamp } => Ok(Some(Appended {
                duplicate: true,
                base_offset,
                last_offset,
                log_append_time: self.log_append_time(timestamp),
            })),
            Verdict::OutOfOrder { producer, expected, actual } => {
                Err(AppendError::OutOfOrderSequence { producer, expected, actual })
            }
            Verdict::Fenced { producer, epoch, current } => {
                Err(AppendError::ProducerFenced { producer, epoch, current })
            }
        }
    }

    fn log_append_time(&self, max_timestamp: TimestampMs) -> Option<TimestampMs> {
        (self.config.timestamp_type == TimestampType::LogAppendTime).then_some(max_timestamp)
    }

    /// The batch as it goes to disk. Offset and epoch are outside the CRC and everything else stays as it was sent,
    /// also what means nothing to us; the broker's time is inside and needs another CRC.
    fn stamp<'a>(&self, batch: &'a Batch, epoch: LeaderEpoch, now: TimestampMs) -> Stamped<'a> {
        let mut header = *batch.header();
        header.base_offset = self.end.offset;
        header.leader_epoch = Some(epoch);
        if self.config.timestamp_type == TimestampType::LogAppendTime {
            header.attributes = header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
            header.max_timestamp = now;
            header.crc = header.compute_crc(batch.payload());
            return Stamped { header, fixed: header.encode(), payload: batch.payload() };
        }
        let mut fixed = *batch.bytes().first_chunk().expect("a batch has a whole header");
        patch(&mut fixed, header.base_offset, epoch);
        Stamped { header, fixed, payload: batch.payload() }
    }

    fn write(&mut self, stamped: &Stamped<'_>, now: TimestampMs) -> Result<LogPoint, AppendError> {
        self.finish_cuts();
        let header = &stamped.header;
        if self.writer.as_ref().is_none_or(|writer| writer.must_roll(header, &self.config, now)) {
            self.start_segment(now).map_err(create_error)?;
        }
        let writer = self.writer.as_mut().expect("a segment was started above");
        let file = writer.file().map_err(AppendError::Open)?;
        let point = match writer.append(&*file, stamped, &self.config) {
            Ok(point) => point,
            Err(error) if is_no_space(&error) => return Err(AppendError::NoSpace(error)),
            Err(error) => {
                // Nobody knows what reached the file, so it is not trusted any further.
                self.fail();
                return Err(AppendError::Io(error));
            }
        };
        Ok(LogPoint { offset: point.offset, bytes: self.end.bytes + u64::from(header.size_bytes) })
    }

    fn expire_producers(&mut self, now: TimestampMs) {
        // A sweep costs a look at each producer, so there are at most ten in the time that one is remembered.
        let pause = i64::try_from(self.config.producer_expiry_ms / 10).unwrap_or(i64::MAX);
        if now.0.saturating_sub(self.expired_at.0) > pause {
            self.producers.expire(now, self.config.producer_expiry_ms);
            self.expired_at = now;
        }
    }

    /// Makes the next segment, then seals the one before. If the new one cannot be made, the old one stays active.
    pub(super) fn start_segment(&mut self, now: TimestampMs) -> io::Result<()> {
        self.ensure_dir()?;
        let base = self.end.offset;
        let segment =
            Segment::new(&self.place, base, &Extent::empty(base), u64::from(self.config.segment_bytes));
        self.create_files(&segment)?;
        let segment = Arc::new(segment);
        let indexer = Indexer::new(self.config.index_interval_bytes, no_time(base));
        let writer = Writer::new(Arc::clone(&segment), indexer, None, now);
        if let Some(sealed) = self.writer.replace(writer) {
            self.owed.indexes.push(Arc::clone(sealed.segment()));
            self.owed.sidecar = true;
            self.owed.manifest = true;
            if let Err(error) = sealed.seal() {
                // Indexes and spare space are disposable; recovery completes them.
                tracing::warn!(dir = %self.place.dir.display(), %error, "sealed segment is not tidy");
            }
        }
        self.owed.dir = true;
        let mut segments = Vec::clone(&self.view.segments());
        segments.push(segment);
        self.view.set_segments(segments);
        Ok(())
    }

    fn create_files(&self, segment: &Segment) -> io::Result<()> {
        match segment.create_log_file() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Left over from a segment that was cut away. It is not ours to delete.
                let mut aside = segment.path().as_os_str().to_owned();
                aside.push(".dropped");
                self.place.files.rename(segment.path(), aside.as_ref())?;
                segment.create_log_file()?;
            }
            other => drop(other?),
        }
        let indexes = segment.offsets.create().and_then(|()| segment.times.create());
        if indexes.is_err() {
            for path in [segment.path(), segment.offsets.path(), segment.times.path()] {
                // All of them are new and empty. What stays is moved aside by the next attempt.
                let _ = self.place.files.unlink(path);
            }
        }
        indexes
    }

    fn ensure_dir(&mut self) -> io::Result<()> {
        if self.dir_exists {
            return Ok(());
        }
        match self.place.files.create_dir(&self.place.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(topic_id) = self.config.topic_id {
            let path = self.place.dir.join(METADATA_FILE_NAME);
            own_file::store(&*self.place.files, &path, partition_metadata(topic_id).as_bytes(), Durable::No)?;
        }
        self.dir_exists = true;
        self.owed.parent = true;
        self.owed.dir = true;
        Ok(())
    }

    /// Syncs `partition.metadata`, once, with the directory that it is in.
    pub(super) fn metadata_path(&self) -> Option<std::path::PathBuf> {
        self.config.topic_id?;
        Some(self.place.dir.join(METADATA_FILE_NAME))
            .filter(|path| self.place.files.open(path, Access::Read).is_ok())
    }
}

fn create_error(error: io::Error) -> AppendError {
    if is_no_space(&error) { AppendError::NoSpace(error) } else { AppendError::Create(error) }
}
