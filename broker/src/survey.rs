//! Which partitions can serve at once at a start, and which must be opened first.
//!
//! A partition stays dormant (ADR 16) if it has no directory and needs none, or if the checkpoint knows all of its log
//! and nothing was appended since: after a clean stop the mark says so, else the sizes of two files. Reads no file.

use std::collections::HashSet;
use std::sync::Arc;

use highwater_record::TopicPartition;
use highwater_storage::{Checkpoint, LogOutline, PartitionCheckpoint};

use crate::broker::Broker;
use crate::meta::MetadataError;
use crate::partition::{Dormant, Partition};
use crate::topics::Topic;

/// How the last stop was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LastStop {
    Clean,
    Unclean,
}

/// A partition whose log must be opened before it serves.
#[derive(Clone)]
pub(crate) struct ToOpen {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) known: Option<PartitionCheckpoint>,
    /// Bytes behind the recovery point, as far as the directory tells.
    pub(crate) unsynced_bytes: u64,
}

/// What a start has to go by.
pub(crate) struct Survey<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) last_stop: LastStop,
    /// The partitions that have a directory.
    pub(crate) directories: HashSet<TopicPartition>,
}

impl Survey<'_> {
    /// Brings a partition into service if it can be without its log; if not, says what there is to do.
    pub(crate) fn visit(&self, topic: &Arc<Topic>, partition: &Arc<Partition>) -> Option<ToOpen> {
        let known = self.checkpoint.partitions.get(partition.id());
        // A log of an earlier topic of the same name is not meant.
        let known = known.filter(|known| known.topic_id == Some(topic.id)).copied();
        match self.dormant(topic, partition, known) {
            Ok(Some(dormant)) => {
                // As for a log that is opened: the metadata may have lost the epoch.
                let epoch = self.broker.epoch.max(dormant.outline.latest_epoch.unwrap_or_default());
                partition.rest(dormant, &self.broker.opener, epoch);
                None
            }
            // Opening it says what is wrong.
            Ok(None) | Err(_) => Some(ToOpen {
                topic: Arc::clone(topic),
                partition: Arc::clone(partition),
                known,
                unsynced_bytes: self.unsynced_bytes(partition, known),
            }),
        }
    }

    fn dormant(
        &self,
        topic: &Topic,
        partition: &Partition,
        known: Option<PartitionCheckpoint>,
    ) -> Result<Option<Dormant>, MetadataError> {
        let start = self.broker.metadata.log_start(topic.id, partition.id().partition)?;
        if !self.directories.contains(partition.id()) {
            let log_start = known.map(|known| known.log.log_start).max(start).unwrap_or_default();
            // Whoever expects records of a log without a directory must hear that they are missing.
            let nothing_lost = known.is_none_or(|known| known.log.recovery_point <= log_start);
            return Ok(nothing_lost.then(|| Dormant::empty(log_start)));
        }
        let Some(PartitionCheckpoint { log, outline: Some(outline), .. }) = known else { return Ok(None) };
        let sound = start.is_none_or(|start| start <= log.log_start) && log.log_start <= log.recovery_point;
        let dir = self.broker.data.partition_path(partition.id());
        let at_rest = sound
            && (self.last_stop == LastStop::Clean
                || outline.is_at_rest(&*self.broker.files, &dir, &log).unwrap_or(false));
        Ok(at_rest.then_some(Dormant { known: log, outline }))
    }

    fn unsynced_bytes(&self, partition: &Partition, known: Option<PartitionCheckpoint>) -> u64 {
        let (log, outline) = (known.map(|known| known.log), known.and_then(|known| known.outline));
        let dir = self.broker.data.partition_path(partition.id());
        LogOutline::unsynced_bytes(outline.as_ref(), &*self.broker.files, &dir, log.as_ref()).unwrap_or(0)
    }
}
