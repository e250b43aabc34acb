//! Creating and deleting topics. Both are transactions of the metadata store, made one at a time on the blocking
//! pool; the caller waits until the topic is in service or gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use highwater_protocol::ErrorCode;
use highwater_record::{Offset, TopicId, TopicName, TopicPartition};
use thiserror::Error;

use crate::broker::Broker;
use crate::groups;
use crate::log_opener::OpenLogError;
use crate::meta::{MetadataError, TopicRecord, new_topic_id, partition_ids};
use crate::partition::{Dormant, Partition, Settings};
use crate::topic_config::{Cleanup, TopicConfig, forced_durability, note_accepted};
use crate::topics::Topic;

/// Size of the segments of the broker's own topics. Kafka's `offsets.topic.segment.bytes` is 100 MiB; what is in the
/// active segment is not compacted, and a start replays it.
const INTERNAL_SEGMENT_BYTES: u32 = 2 << 20;

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
    #[error(
        "the topic was deleted a short while ago and is not created again by asking for it; create it explicitly"
    )]
    Rests,
    #[error("{0}")]
    Frozen(String),
    #[error("cannot store the topic: {0}")]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Log(#[from] OpenLogError),
    #[error("creating the topic panicked")]
    Panicked,
}

impl CreateError {
    /// The code that a client is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Exists(_) => ErrorCode::TopicAlreadyExists,
            Self::Collides { .. } | Self::Internal => ErrorCode::InvalidTopicException,
            Self::Rests | Self::Frozen(_) => ErrorCode::UnknownTopicOrPartition,
            Self::Config(_) => ErrorCode::InvalidConfig,
            Self::Partitions { .. } => ErrorCode::InvalidPartitions,
            Self::Metadata(error) => error.code(),
            Self::Log(_) => ErrorCode::KafkaStorageError,
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
    #[error("the broker is still opening its partitions; delete the topic again when it is ready")]
    Recovering,
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
            // Clients take it for a controller that is not elected yet, and try again.
            Self::Recovering => ErrorCode::NotController,
            Self::Metadata(error) => error.code(),
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

/// Creates a topic and brings it into service, because somebody wants it created.
pub(crate) async fn create(broker: &Arc<Broker>, new: NewTopic) -> Result<Arc<Topic>, CreateError> {
    create_as(broker, new, Wish::Explicit).await
}

/// Creates a topic because a client asked for it as if it were there. One that was deleted a short while ago is not.
pub(crate) async fn create_on_demand(broker: &Arc<Broker>, new: NewTopic) -> Result<Arc<Topic>, CreateError> {
    // Asked here as well: a client that polls for a deleted topic costs neither a thread nor a lock.
    if broker.graves.refuses(&new.name, Instant::now()) {
        return Err(CreateError::Rests);
    }
    if let Some(reason) = broker.metadata.read_only() {
        // Unknown, which clients try again: the topic may be one that the metadata has lost.
        return Err(CreateError::Frozen(reason.to_owned()));
    }
    create_as(broker, new, Wish::Implied).await
}

/// Whether somebody said that a topic is to be created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    Explicit,
    Implied,
}

async fn create_as(broker: &Arc<Broker>, new: NewTopic, wish: Wish) -> Result<Arc<Topic>, CreateError> {
    let broker = Arc::clone(broker);
    let created = tokio::task::spawn_blocking(move || {
        let _one_at_a_time = broker.topic_changes.lock();
        if wish == Wish::Implied && broker.graves.refuses(&new.name, Instant::now()) {
            return Err(CreateError::Rests);
        }
        // Checked under the lock: of racing creators one creates, the others find its topic.
        let (partitions, config) = check(&broker, &new)?;
        let topic = store(&broker, new.name, partitions, new.configs, config)?;
        note_accepted(&topic.name, &topic.record.configs, &BTreeMap::new());
        Ok(topic)
    });
    created.await.unwrap_or_else(|error| {
        tracing::error!(%error, "creating a topic panicked");
        Err(CreateError::Panicked)
    })
}

/// Finds one of the broker's own topics, or creates it. It does not count against the limit of partitions. Blocks on
/// the disk.
pub(crate) fn create_internal(
    broker: &Broker,
    name: TopicName,
    partitions: u32,
) -> Result<Arc<Topic>, CreateError> {
    let _one_at_a_time = broker.topic_changes.lock();
    if let Some(topic) = broker.topics.by_name(&name) {
        return Ok(topic);
    }
    let configs = internal_configs();
    let config = TopicConfig::parse(&configs, broker.config()).map_err(CreateError::Config)?;
    store(broker, name, partitions, configs, config)
}

/// The settings of the broker's own topics, whatever was stored when they were made.
pub(crate) fn internal_configs() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("cleanup.policy".to_owned(), Cleanup::Compact.name().to_owned()),
        ("segment.bytes".to_owned(), INTERNAL_SEGMENT_BYTES.to_string()),
    ])
}

/// Opens the logs of a new topic, makes it durable and brings it into service. Its changes are the caller's alone.
fn store(
    broker: &Broker,
    name: TopicName,
    partitions: u32,
    configs: BTreeMap<String, String>,
    config: TopicConfig,
) -> Result<Arc<Topic>, CreateError> {
    let id = new_topic_id();
    let record = TopicRecord { id: id.to_string(), partitions, configs };
    let settings = settings(broker, &name, id, &config);
    let topic = Arc::new(assemble(name, id, record, settings));
    topic.partitions.iter().try_for_each(|partition| begin(broker, partition))?;
    broker.metadata.create_topic(&topic.name, &topic.record)?;
    broker.graves.open(&topic.name);
    broker.topics.insert(Arc::clone(&topic));
    tracing::info!(topic = %topic.name, id = %topic.id, partitions, "created a topic");
    Ok(topic)
}

/// What a topic's configuration comes to on this broker.
pub(crate) fn settings(
    broker: &Broker,
    name: &TopicName,
    id: TopicId,
    config: &TopicConfig,
) -> Arc<Settings> {
    let durability = broker.config().durability;
    let forced = forced_durability(name, durability);
    let config = TopicConfig { durability: forced.or(config.durability), ..config.clone() };
    Arc::new(Settings::new(&config, durability, id))
}

/// A topic whose partitions have not recovered.
pub(crate) fn assemble(name: TopicName, id: TopicId, record: TopicRecord, settings: Arc<Settings>) -> Topic {
    let partition = |partition| {
        let id = TopicPartition { topic: name.clone(), partition };
        Arc::new(Partition::recovering(id, Arc::clone(&settings)))
    };
    let partitions = partition_ids(record.partitions).map(partition).collect();
    Topic { name, id, record, settings, partitions }
}

/// Brings a new partition into service. One without a directory gets it, and its log, at its first append.
pub(crate) fn begin(broker: &Broker, partition: &Partition) -> Result<(), CreateError> {
    if !broker.data.has_directory(partition.id()).map_err(OpenLogError::from)? {
        partition.rest(Dormant::empty(Offset::ZERO), &broker.opener, broker.epoch);
        return Ok(());
    }
    let log = broker.opener.open(partition.id(), partition.log_config(), None)?;
    partition.open(log, broker.epoch);
    Ok(())
}

/// Deletes the topic of that name and id: out of the metadata, out of service, its files out of the way, and what
/// groups committed for it forgotten. A topic that took the name meanwhile is another one.
pub(crate) async fn delete(broker: &Arc<Broker>, name: TopicName, id: TopicId) -> Result<(), DeleteError> {
    let shared = Arc::clone(broker);
    let deleted = tokio::task::spawn_blocking(move || withdraw(&shared, &name, id));
    let topic = deleted.await.unwrap_or_else(|error| {
        tracing::error!(%error, "deleting a topic panicked");
        Err(DeleteError::Panicked)
    })?;
    finish_deletion(broker, topic.id, topic.name.clone(), topic.record.partitions).await;
    Ok(())
}

/// Takes a topic out of the metadata and out of service, and its files out of the way.
fn withdraw(broker: &Broker, name: &TopicName, id: TopicId) -> Result<Arc<Topic>, DeleteError> {
    let _one_at_a_time = broker.topic_changes.lock();
    if name.is_internal() {
        return Err(DeleteError::Internal);
    }
    if !broker.recovery.read().is_ready() {
        // A log that is being opened looks its files up by name, and would meet those of the next topic.
        return Err(DeleteError::Recovering);
    }
    let topic = broker.topics.by_name(name).filter(|topic| topic.id == id).ok_or(DeleteError::Unknown)?;
    broker.metadata.delete_topic(&topic.name, &topic.record)?;
    // Before the topic is gone for those who ask for it.
    let given_way = broker.graves.dig(topic.name.clone(), Instant::now());
    broker.topics.remove(name);
    for partition in &topic.partitions {
        // Given up, not closed: its files are about to go, readers keep theirs until they are done, and a sync
        // under way must not touch those of a later topic of that name.
        if let Some(log) = partition.close() {
            log.give_up();
        }
    }
    tracing::info!(topic = %topic.name, id = %topic.id, "deleted a topic");
    remove_files(broker, topic.id, &topic.name, topic.record.partitions);
    forget_graves(broker, given_way.as_slice());
    Ok(topic)
}

/// Has the groups forget a deleted topic, and then forgets its tombstone. What fails is tried again when the groups
/// are loaded the next time: the tombstone stays. Until then the topic's id, which every committed offset carries,
/// keeps the offsets from a new topic of the same name.
pub(crate) async fn finish_deletion(broker: &Arc<Broker>, id: TopicId, name: TopicName, partitions: u32) {
    if !groups::forget_topic(broker, &name, id).await {
        tracing::warn!(topic = %name, "not every group has forgotten a deleted topic; it is tried again later");
        return;
    }
    let broker = Arc::clone(broker);
    let buried = tokio::task::spawn_blocking(move || {
        let _one_at_a_time = broker.topic_changes.lock();
        if !remove_files(&broker, id, &name, partitions) {
            return;
        }
        if let Err(error) = broker.metadata.bury(id) {
            tracing::error!(topic = %name, %error, "cannot forget a deleted topic; it is tried again at the next start");
        }
    });
    if let Err(error) = buried.await {
        tracing::error!(%error, "forgetting a deleted topic panicked");
    }
}

/// Forgets the names that have rested long enough.
pub(crate) fn sweep_graves(broker: &Broker) {
    if broker.metadata.read_only().is_none() && broker.graves.is_any_over(Instant::now()) {
        // A topic that is deleted meanwhile must not lose its grave again.
        let _one_at_a_time = broker.topic_changes.lock();
        forget_graves(broker, &broker.graves.take_over(Instant::now()));
    }
}

fn forget_graves(broker: &Broker, names: &[TopicName]) {
    if !names.is_empty()
        && let Err(error) = broker.metadata.forget_graves(names)
    {
        tracing::warn!(%error, "cannot forget names of deleted topics; after the next start they rest once more");
    }
}

/// Removes the files of a deleted topic. False if some are left; they are tried again at the next start.
pub(crate) fn remove_files(broker: &Broker, id: TopicId, name: &TopicName, partitions: u32) -> bool {
    for partition in partition_ids(partitions) {
        let partition = TopicPartition { topic: name.clone(), partition };
        if let Err(error) = broker.data.delete_partition(&partition, id) {
            tracing::error!(%partition, %error, "cannot remove a deleted partition; it is tried again at the next start");
            return false;
        }
    }
    if let Err(error) = broker.data.purge() {
        tracing::error!(topic = %name, %error, "cannot remove the files of a deleted topic; it is tried again later");
        return false;
    }
    true
}
