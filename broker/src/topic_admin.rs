//! Creating and deleting topics. Both are transactions of the metadata store, made one at a time on the blocking
//! pool; the caller waits until the topic is in service or gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_record::{Offset, TimestampMs, TopicId, TopicName, TopicPartition};
use highwater_storage::{Log, LogCheckpoint};
use thiserror::Error;

use crate::broker::Broker;
use crate::clock;
use crate::meta::{MetadataError, TopicRecord, new_topic_id, partition_ids};
use crate::partition::{Partition, Settings};
use crate::topic_config::TopicConfig;
use crate::topics::Topic;

/// A topic to create.
#[derive(Clone, Debug)]
pub(crate) struct NewTopic {
    pub(crate) name: TopicName,
    /// `None` means the broker's default.
    pub(crate) partitions: Option<u32>,
    pub(crate) configs: BTreeMap<String, String>,
}

/// Why a topic is not created.
#[derive(Debug, Error)]
pub(crate) enum CreateError {
    #[error("topic {:?} exists already", .0.name.as_str())]
    Exists(Arc<Topic>),
    #[error(
        "topic {name:?} collides with {other:?}: they differ only in '.' and '_', which metrics cannot tell apart"
    )]
    Collides { name: String, other: String },
    #[error("{0}")]
    Config(String),
    #[error(
        "{wanted} partitions are too few or too many; a topic has 1 to {max} here, where {existing} of {total} partitions exist"
    )]
    Partitions { wanted: u32, max: u32, existing: usize, total: u32 },
    #[error("topic names that begin with __ are the broker's own")]
    Internal,
    #[error("cannot store the topic: {0}")]
    Metadata(#[from] MetadataError),
    #[error("cannot open the topic's log: {0}")]
    Log(#[from] highwater_storage::OpenError),
    #[error(
        "the directory of {partition} is left over from another topic (id {found}); move it out of the data directory"
    )]
    Leftover { partition: TopicPartition, found: TopicId },
    #[error("creating the topic panicked")]
    Panicked,
}

impl CreateError {
    /// The code that a client is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Exists(_) => ErrorCode::TopicAlreadyExists,
            Self::Collides { .. } | Self::Internal => ErrorCode::InvalidTopicException,
            Self::Config(_) => ErrorCode::InvalidConfig,
            Self::Partitions { .. } => ErrorCode::InvalidPartitions,
            Self::Metadata(_) | Self::Log(_) | Self::Leftover { .. } => ErrorCode::KafkaStorageError,
            Self::Panicked => ErrorCode::UnknownServerError,
        }
    }
}

/// Why a topic is not deleted.
#[derive(Debug, Error)]
pub(crate) enum DeleteError {
    #[error("there is no such topic")]
    Unknown,
    #[error("topic names that begin with __ are the broker's own")]
    Internal,
    #[error("cannot store the deletion: {0}")]
    Metadata(#[from] MetadataError),
    #[error("deleting the topic panicked")]
    Panicked,
}

impl DeleteError {
    /// The code that a client is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown => ErrorCode::UnknownTopicOrPartition,
            Self::Internal => ErrorCode::InvalidTopicException,
            Self::Metadata(_) => ErrorCode::KafkaStorageError,
            Self::Panicked => ErrorCode::UnknownServerError,
        }
    }
}

/// Everything about a new topic that can be checked without creating it.
pub(crate) fn check(broker: &Broker, new: &NewTopic) -> Result<(u32, TopicConfig), CreateError> {
    if new.name.is_internal() {
        return Err(CreateError::Internal);
    }
    if let Some(topic) = broker.topics.by_name(&new.name) {
        return Err(CreateError::Exists(topic));
    }
    if let Some(other) = broker.topics.colliding(&new.name) {
        return Err(CreateError::Collides { name: new.name.to_string(), other: other.to_string() });
    }
    let wanted = new.partitions.unwrap_or(broker.config().partitions_default);
    let (existing, total) = (broker.topics.partition_count(), broker.config().partitions_max);
    let max = total.saturating_sub(u32::try_from(existing).unwrap_or(u32::MAX));
    if wanted == 0 || wanted > max {
        return Err(CreateError::Partitions { wanted, max, existing, total });
    }
    let config = TopicConfig::parse(&new.configs, broker.config()).map_err(CreateError::Config)?;
    Ok((wanted, config))
}

/// Creates a topic and brings it into service.
pub(crate) async fn create(broker: &Arc<Broker>, new: NewTopic) -> Result<Arc<Topic>, CreateError> {
    let broker = Arc::clone(broker);
    let created = tokio::task::spawn_blocking(move || {
        let _one_at_a_time = broker.topic_changes.lock();
        // Checked under the lock: of racing creators one creates, the others find its topic.
        let (partitions, config) = check(&broker, &new)?;
        let id = new_topic_id();
        let record = TopicRecord { id: id.to_string(), partitions, configs: new.configs };
        let topic = Arc::new(assemble(&broker, new.name, id, record, config));
        for partition in &topic.partitions {
            let log = open_log(&broker, &topic, partition, None, clock::now())?;
            partition.open(log, broker.epoch);
        }
        broker.metadata.create_topic(&topic.name, &topic.record)?;
        broker.topics.insert(Arc::clone(&topic));
        tracing::info!(topic = %topic.name, id = %topic.id, partitions, "created a topic");
        Ok(topic)
    });
    created.await.unwrap_or_else(|error| {
        tracing::error!(%error, "creating a topic panicked");
        Err(CreateError::Panicked)
    })
}

/// A topic whose partitions have not recovered.
pub(crate) fn assemble(
    broker: &Broker,
    name: TopicName,
    id: TopicId,
    record: TopicRecord,
    config: TopicConfig,
) -> Topic {
    let settings = Arc::new(Settings::new(&config, broker.config().durability, id));
    let partition = |partition| {
        let id = TopicPartition { topic: name.clone(), partition };
        Arc::new(Partition::recovering(id, Arc::clone(&settings)))
    };
    let partitions = partition_ids(record.partitions).map(partition).collect();
    Topic { name, id, record, settings, partitions }
}

/// Opens, and if need be recovers, the log of one partition.
pub(crate) fn open_log(
    broker: &Broker,
    topic: &Topic,
    partition: &Partition,
    known: Option<LogCheckpoint>,
    now: TimestampMs,
) -> Result<Log, CreateError> {
    if let Some(found) = broker.data.topic_id(partition.id()).filter(|found| *found != topic.id) {
        return Err(CreateError::Leftover { partition: partition.id().clone(), found });
    }
    let id = partition.id().partition;
    let known = at_least(known, broker.metadata.log_start(topic.id, id)?);
    let config = topic.settings.log.clone();
    let dir = broker.data.partition_path(partition.id());
    let (log, recovery) = Log::open(Arc::clone(&broker.files), dir, config, known, now)?;
    if recovery.bytes_scanned > 0 || recovery.bytes_dropped > 0 {
        tracing::info!(
            partition = %partition.id(), scanned = recovery.bytes_scanned, dropped = recovery.bytes_dropped,
            "recovered a log"
        );
    }
    Ok(log)
}

/// What is known of a log whose start was also kept in the metadata: the larger start wins.
fn at_least(known: Option<LogCheckpoint>, start: Option<Offset>) -> Option<LogCheckpoint> {
    let Some(start) = start else { return known };
    // Without a checkpoint nothing is known to be durable.
    let zero = LogCheckpoint { log_start: start, recovery_point: Offset::ZERO, high_watermark: Offset::ZERO };
    let known = known.unwrap_or(zero);
    Some(LogCheckpoint { log_start: known.log_start.max(start), ..known })
}

/// Deletes the topic of that name and id: out of the metadata, out of service, and its files out of the way. A topic
/// that took the name meanwhile is another one.
pub(crate) async fn delete(broker: &Arc<Broker>, name: TopicName, id: TopicId) -> Result<(), DeleteError> {
    let broker = Arc::clone(broker);
    let deleted = tokio::task::spawn_blocking(move || {
        let _one_at_a_time = broker.topic_changes.lock();
        if name.is_internal() {
            return Err(DeleteError::Internal);
        }
        let topic =
            broker.topics.by_name(&name).filter(|topic| topic.id == id).ok_or(DeleteError::Unknown)?;
        broker.metadata.delete_topic(&topic.name, &topic.record)?;
        broker.topics.remove(&name);
        for partition in &topic.partitions {
            // Dropped, not closed: its files are about to go, readers keep theirs until they are done.
            drop(partition.close());
        }
        tracing::info!(topic = %topic.name, id = %topic.id, "deleted a topic");
        bury(&broker, topic.id, &topic.name, topic.record.partitions);
        Ok(())
    });
    deleted.await.unwrap_or_else(|error| {
        tracing::error!(%error, "deleting a topic panicked");
        Err(DeleteError::Panicked)
    })
}

/// Removes what is left of a deleted topic. Whatever fails is tried again at the next start: the tombstone stays.
pub(crate) fn bury(broker: &Broker, id: TopicId, name: &TopicName, partitions: u32) {
    for partition in partition_ids(partitions) {
        let partition = TopicPartition { topic: name.clone(), partition };
        if let Err(error) = broker.data.delete_partition(&partition, id) {
            tracing::error!(%partition, %error, "cannot remove a deleted partition; it is tried again at the next start");
            return;
        }
    }
    if let Err(error) = broker.data.purge() {
        tracing::error!(topic = %name, %error, "cannot remove the files of a deleted topic; it is tried again later");
        return;
    }
    if let Err(error) = broker.metadata.bury(id) {
        tracing::error!(topic = %name, %error, "cannot forget a deleted topic; it is tried again at the next start");
    }
}
