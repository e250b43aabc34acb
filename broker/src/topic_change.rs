//! Changing topics that exist: their settings and how many partitions they have. Like creation and deletion, a change
//! is a transaction of the metadata store, made one at a time on the blocking pool; it is durable and in force when
//! the call returns.
//!
//! A topic that changed is a new [`Topic`] with the same partitions: who holds the old one goes on with what it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_record::TopicName;
use thiserror::Error;

use crate::broker::Broker;
use crate::config_keys::{TopicKey, ValueType, topic_key};
use crate::meta::{MetadataError, TopicRecord};
use crate::topic_admin::{self, CreateError};
use crate::topic_config::TopicConfig;
use crate::topics::Topic;

/// Why a topic is not changed.
#[derive(Debug, Error)]
pub(crate) enum ChangeError {
    #[error("there is no such topic")]
    Unknown,
    #[error("topic names that begin with __ are the broker's own")]
    Internal,
    #[error("{0}")]
    Config(String),
    #[error("the topic has {existing} partitions, {wanted} were asked for; partitions can only be added")]
    NotMore { existing: u32, wanted: i32 },
    #[error(
        "{wanted} partitions are too many; the topic can have {max} here, where {existing} of {total} partitions exist"
    )]
    TooMany { wanted: u32, max: usize, existing: usize, total: u32 },
    #[error("{added} partitions are to be added, one request may create {max}")]
    TooManyAtOnce { added: u32, max: u32 },
    #[error("{added} partitions are to be added, {assigned} are assigned")]
    Assignment { assigned: usize, added: u32 },
    #[error("cannot store the change: {0}")]
    Metadata(#[from] MetadataError),
    #[error("cannot open a new partition: {0}")]
    Open(#[from] CreateError),
    #[error("changing the topic panicked")]
    Panicked,
}

impl ChangeError {
    /// The code that a client is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown => ErrorCode::UnknownTopicOrPartition,
            Self::Internal => ErrorCode::InvalidTopicException,
            Self::Config(_) => ErrorCode::InvalidConfig,
            Self::NotMore { .. } | Self::TooMany { .. } => ErrorCode::InvalidPartitions,
            Self::TooManyAtOnce { .. } => ErrorCode::PolicyViolation,
            Self::Assignment { .. } => ErrorCode::InvalidReplicaAssignment,
            Self::Metadata(_) => ErrorCode::KafkaStorageError,
            Self::Open(error) => error.code(),
            Self::Panicked => ErrorCode::UnknownServerError,
        }
    }
}

/// A change of the settings that were set on a topic.
#[derive(Clone, Debug)]
pub(crate) enum ConfigChange {
    /// These and no others.
    Replace(BTreeMap<String, String>),
    /// One after the other.
    Edit(Vec<(String, Edit)>),
}

/// A change of one setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Edit {
    Set(String),
    /// The broker's default again.
    Delete,
    /// Values to add to a list, with commas between them.
    Append(String),
    /// Values to take from a list, with commas between them.
    Subtract(String),
}

/// How many partitions a topic is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// With those that exist.
    pub(crate) count: i32,
    /// The new partitions that were placed by hand, if any were.
    pub(crate) assigned: Option<usize>,
}

/// Whether a change is made or only checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    Make,
    Check,
}

impl Mode {
    /// The mode that a request asks for.
    pub(crate) const fn of(validate_only: bool) -> Self {
        if validate_only { Self::Check } else { Self::Make }
    }
}

/// Changes the settings of a topic, on its partitions too.
pub(crate) async fn alter_configs(
    broker: &Arc<Broker>,
    name: TopicName,
    change: ConfigChange,
    mode: Mode,
) -> Result<(), ChangeError> {
    run(broker, move |broker| {
        let topic = changeable(broker, &name)?;
        let configs = change.apply(&topic.record.configs, broker)?;
        let config = TopicConfig::parse(&configs, broker.config()).map_err(ChangeError::Config)?;
        if mode == Mode::Check || configs == topic.record.configs {
            return Ok(());
        }
        let record = TopicRecord { configs, ..topic.record.clone() };
        broker.metadata.update_topic(&topic.name, &record)?;
        let settings = topic_admin::settings(broker, &topic.name, topic.id, &config);
        let changed = Topic {
            name: topic.name.clone(),
            id: topic.id,
            record,
            settings: Arc::clone(&settings),
            partitions: topic.partitions.clone(),
        };
        broker.topics.replace(Arc::new(changed));
        for partition in &topic.partitions {
            partition.change_settings(Arc::clone(&settings), &broker.scheduler);
        }
        tracing::info!(topic = %topic.name, id = %topic.id, "changed the settings of a topic");
        Ok(())
    })
    .await
}

/// Adds partitions to a topic until it has as many as are wanted, and brings them into service.
pub(crate) async fn add_partitions(
    broker: &Arc<Broker>,
    name: TopicName,
    growth: Growth,
    mode: Mode,
) -> Result<(), ChangeError> {
    run(broker, move |broker| {
        let topic = changeable(broker, &name)?;
        let wanted = growth.check(broker, &topic)?;
        if mode == Mode::Check {
            return Ok(());
        }
        let config =
            TopicConfig::parse(&topic.record.configs, broker.config()).map_err(ChangeError::Config)?;
        let record = TopicRecord { partitions: wanted, ..topic.record.clone() };
        let mut grown = topic_admin::assemble(broker, topic.name.clone(), topic.id, record, &config);
        let existing = topic.partitions.len();
        for partition in &grown.partitions[existing..] {
            topic_admin::begin(broker, partition)?;
        }
        broker.metadata.update_topic(&topic.name, &grown.record)?;
        grown.partitions.splice(..existing, topic.partitions.iter().cloned());
        broker.topics.replace(Arc::new(grown));
        tracing::info!(topic = %topic.name, id = %topic.id, partitions = wanted, "added partitions to a topic");
        Ok(())
    })
    .await
}

/// Runs a change on the blocking pool while nobody else creates, deletes or changes topics.
pub(crate) async fn run<T: Send + 'static>(
    broker: &Arc<Broker>,
    change: impl FnOnce(&Arc<Broker>) -> Result<T, ChangeError> + Send + 'static,
) -> Result<T, ChangeError> {
    let broker = Arc::clone(broker);
    let changed = tokio::task::spawn_blocking(move || {
        let _one_at_a_time = broker.topic_changes.lock();
        change(&broker)
    });
    changed.await.unwrap_or_else(|error| {
        tracing::error!(%error, "changing a topic panicked");
        Err(ChangeError::Panicked)
    })
}

/// The topic of that name, if its users may change it.
fn changeable(broker: &Broker, name: &TopicName) -> Result<Arc<Topic>, ChangeError> {
    let topic = broker.topics.by_name(name).ok_or(ChangeError::Unknown)?;
    if name.is_internal() { Err(ChangeError::Internal) } else { Ok(topic) }
}

impl Growth {
    /// How many partitions the topic is to have, if it may.
    fn check(self, broker: &Broker, topic: &Topic) -> Result<u32, ChangeError> {
        let existing = topic.record.partitions;
        let Some(wanted) = u32::try_from(self.count).ok().filter(|wanted| *wanted > existing) else {
            return Err(ChangeError::NotMore { existing, wanted: self.count });
        };
        let (all, total) = (broker.topics.partition_count(), broker.config().partitions_max);
        let max = (total as usize).saturating_sub(all) + existing as usize;
        if wanted as usize > max {
            return Err(ChangeError::TooMany { wanted, max, existing: all, total });
        }
        let (added, at_once) = (wanted - existing, broker.config().partitions_per_request_max);
        if added > at_once {
            return Err(ChangeError::TooManyAtOnce { added, max: at_once });
        }
        match self.assigned.filter(|assigned| *assigned != added as usize) {
            Some(assigned) => Err(ChangeError::Assignment { assigned, added }),
            None => Ok(wanted),
        }
    }
}

impl ConfigChange {
    /// What is set after the change of `current`.
    fn apply(
        self,
        current: &BTreeMap<String, String>,
        broker: &Broker,
    ) -> Result<BTreeMap<String, String>, ChangeError> {
        let edits = match self {
            Self::Replace(configs) => return Ok(configs),
            Self::Edit(edits) => edits,
        };
        let mut configs = current.clone();
        for (key, edit) in edits {
            let value = match edit {
                Edit::Set(value) => Some(value),
                Edit::Delete => None,
                Edit::Append(values) => {
                    let mut list = list(&key, &configs, broker)?;
                    for value in split(&values) {
                        if !list.contains(&value) {
                            list.push(value);
                        }
                    }
                    Some(list.join(","))
                }
                Edit::Subtract(values) => {
                    let mut list = list(&key, &configs, broker)?;
                    list.retain(|value| !split(&values).contains(value));
                    Some(list.join(","))
                }
            };
            match value {
                Some(value) => configs.insert(key, value),
                None => configs.remove(&key),
            };
        }
        Ok(configs)
    }
}

/// The values of a list that is set, or else of its default.
fn list(key: &str, configs: &BTreeMap<String, String>, broker: &Broker) -> Result<Vec<String>, ChangeError> {
    let known: Option<&TopicKey> = topic_key(key);
    let Some(known) = known.filter(|known| known.value == ValueType::List) else {
        return Err(ChangeError::Config(format!(
            "topic config {key:?} is no list: it can be set or deleted only"
        )));
    };
    let value = configs.get(key).cloned().unwrap_or_else(|| known.default_value(broker.config()));
    Ok(split(&value))
}

fn split(values: &str) -> Vec<String> {
    let values = values.split(',').map(str::trim).filter(|value| !value.is_empty());
    values.map(str::to_owned).collect()
}
