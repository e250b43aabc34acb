//! Creating and deleting topics, and looking offsets up.
//!
//! Creating and deleting are not repeated after a lost answer: the first attempt may have worked, and the second would
//! then report an error that misleads. Looking up is repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreatableTopicResult};
use highwater_protocol::api::delete_topics::DeleteTopicState;
use highwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use highwater_protocol::api::{CreateTopicsRequest, DeleteTopicsRequest, ListOffsetsRequest};
use highwater_record::{Offset, PartitionId, TimestampMs, TopicId, TopicName, TopicPartition};
use thiserror::Error;
use tokio::time::Instant;

use crate::client::Lane;
use crate::retry::Backoff;
use crate::{BrokerError, CallError, Client, ClientError};

/// First DeleteTopics version that takes ids beside names.
const DELETE_BY_ID_VERSION: i16 = 6;

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions; `None` leaves it to the broker (Kafka 2.4 and later).
    pub partitions: Option<i32>,
    /// How many replicas of each; `None` leaves it to the broker.
    pub replication: Option<i16>,
    /// Settings by name.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created.
#[derive(Clone, Debug)]
pub struct CreatedTopic {
    /// Its id, from brokers that have ids.
    pub id: Option<TopicId>,
    /// How many partitions it has, if the broker says so.
    pub partitions: Option<i32>,
    /// How many replicas each has, if the broker says so.
    pub replication: Option<i16>,
}

/// Why no topic of the request was created.
#[derive(Clone, Debug, Error)]
pub enum CreateTopicsError {
    /// The broker that creates topics cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There was no answer. The topics may exist.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why no topic of the request was deleted.
#[derive(Clone, Debug, Error)]
pub enum DeleteTopicsError {
    /// The broker that deletes topics cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There was no answer. The topics may be gone.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why offsets were not found.
#[derive(Clone, Debug, Error)]
pub enum ListOffsetsError {
    /// A leader cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A leader answers with an error.
    #[error("{partition}: {source}")]
    Partition {
        /// The partition.
        partition: TopicPartition,
        /// The answer.
        source: BrokerError,
    },
}

/// Which offset to look up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OffsetQuery {
    /// The first offset of the log.
    Earliest,
    /// The offset that the next visible record gets.
    Latest,
    /// The first record whose timestamp is at least this.
    AtTime(TimestampMs),
}

impl OffsetQuery {
    const fn wire(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::AtTime(TimestampMs(timestamp)) => timestamp,
        }
    }
}

impl Client {
    /// Creates topics. The answer holds one result per topic.
    ///
    /// # Errors
    ///
    /// If nothing was answered.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<BTreeMap<TopicName, Result<CreatedTopic, BrokerError>>, CreateTopicsError> {
        let connection = self.controller().await?;
        let version = connection.version::<CreateTopicsRequest>(i16::MAX)?;
        let timeout = self.config().connection.request_timeout;
        let request = CreateTopicsRequest {
            topics: topics.iter().map(NewTopic::request).collect(),
            timeout_ms: millis(timeout),
            validate_only,
        };
        let answer = connection.call(&request, version, timeout).await.inspect_err(|_| {
            self.forget(&connection);
        })?;
        let results = answer.topics.iter().filter_map(|topic| {
            let outcome = match BrokerError::from_answer(topic.error_code, topic.error_message.as_ref()) {
                Some(error) => Err(error),
                None => Ok(CreatedTopic::from_response(topic)),
            };
            Some((TopicName::new(&topic.name).ok()?, outcome))
        });
        Ok(results.collect())
    }

    /// Deletes topics. The answer holds one result per topic.
    ///
    /// # Errors
    ///
    /// If nothing was answered.
    pub async fn delete_topics(
        &self,
        topics: &[TopicName],
    ) -> Result<BTreeMap<TopicName, Result<(), BrokerError>>, DeleteTopicsError> {
        let connection = self.controller().await?;
        let version = connection.version::<DeleteTopicsRequest>(i16::MAX)?;
        let timeout = self.config().connection.request_timeout;
        let mut request =
            DeleteTopicsRequest { timeout_ms: millis(timeout), ..DeleteTopicsRequest::default() };
        if version >= DELETE_BY_ID_VERSION {
            let state = |name: &TopicName| DeleteTopicState {
                name: Some(name.as_str().into()),
                ..DeleteTopicState::default()
            };
            request.topics = topics.iter().map(state).collect();
        } else {
            request.topic_names = topics.iter().map(|name| name.as_str().into()).collect();
        }
        let answer = connection.call(&request, version, timeout).await.inspect_err(|_| {
            self.forget(&connection);
        })?;
        let results = answer.responses.iter().filter_map(|topic| {
            let name = TopicName::new(topic.name.as_deref()?).ok()?;
            Some((name, BrokerError::check(topic.error_code, topic.error_message.as_ref())))
        });
        Ok(results.collect())
    }

    /// Looks offsets up, one per partition. `None` if no record is so late.
    ///
    /// # Errors
    ///
    /// If a partition does not exist, or its leader cannot be asked within the time for trying again.
    pub async fn list_offsets(
        &self,
        queries: &BTreeMap<TopicPartition, OffsetQuery>,
    ) -> Result<BTreeMap<TopicPartition, Option<Offset>>, ListOffsetsError> {
        let mut backoff = Backoff::until(Instant::now() + self.config().retry_for);
        let mut open = queries.clone();
        let mut found = BTreeMap::new();
        loop {
            let failure = self.list_offsets_once(&open, &mut found).await.err();
            open.retain(|partition, _| !found.contains_key(partition));
            let Some(failure) = failure else { return Ok(found) };
            if !failure.is_retriable() || !backoff.pause().await {
                return Err(failure);
            }
            let topics: Vec<TopicName> = open.keys().map(|partition| partition.topic.clone()).collect();
            // If this fails too, the next attempt says why.
            let _ = self.describe(&topics).await;
        }
    }

    /// One attempt at all leaders. What was found stays found if a later leader fails.
    async fn list_offsets_once(
        &self,
        open: &BTreeMap<TopicPartition, OffsetQuery>,
        found: &mut BTreeMap<TopicPartition, Option<Offset>>,
    ) -> Result<(), ListOffsetsError> {
        let mut leaders = BTreeMap::new();
        for (partition, query) in open {
            let connection = self.leader(partition, Lane::Control).await?;
            let address = connection.address().clone();
            let (_, group) = leaders.entry(address).or_insert_with(|| (connection, Vec::new()));
            group.push((partition.clone(), *query));
        }
        let mut failure = None;
        for (connection, group) in leaders.into_values() {
            let ask = async {
                let version = connection.version::<ListOffsetsRequest>(i16::MAX)?;
                connection.call(&list_offsets_request(&group), version, Duration::ZERO).await
            };
            let answer = ask.await.map_err(|error| {
                self.forget(&connection);
                ClientError::Call(error)
            })?;
            for topic in &answer.topics {
                for partition in &topic.partitions {
                    let (Ok(name), Some(id)) =
                        (TopicName::new(&topic.name), PartitionId::new(partition.partition_index))
                    else {
                        continue;
                    };
                    let key = TopicPartition { topic: name, partition: id };
                    match BrokerError::from_answer(partition.error_code, None) {
                        None => {
                            found.insert(key, Offset::new(partition.offset));
                        }
                        Some(source) => {
                            failure.get_or_insert(ListOffsetsError::Partition { partition: key, source });
                        }
                    }
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => {
                open.keys().find(|partition| !found.contains_key(partition)).map_or(Ok(()), |partition| {
                    Err(ClientError::NoLeader { partition: partition.clone() }.into())
                })
            }
        }
    }
}

impl ListOffsetsError {
    fn is_retriable(&self) -> bool {
        match self {
            Self::Client(error) => error.is_retriable(),
            Self::Partition { source, .. } => source.is_retriable(),
        }
    }
}

impl NewTopic {
    fn request(&self) -> CreatableTopic {
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        };
        CreatableTopic {
            name: self.name.as_str().into(),
            num_partitions: self.partitions.unwrap_or(-1),
            replication_factor: self.replication.unwrap_or(-1),
            assignments: Vec::new(),
            configs: self.configs.iter().map(config).collect(),
        }
    }
}

impl CreatedTopic {
    fn from_response(topic: &CreatableTopicResult) -> Self {
        Self {
            id: TopicId::new(*topic.topic_id.as_bytes()),
            partitions: Some(topic.num_partitions).filter(|count| *count > 0),
            replication: Some(topic.replication_factor).filter(|count| *count > 0),
        }
    }
}

fn list_offsets_request(group: &[(TopicPartition, OffsetQuery)]) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&TopicName, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (partition, query) in group {
        topics.entry(&partition.topic).or_default().push(ListOffsetsPartition {
            partition_index: partition.partition.get(),
            timestamp: query.wire(),
            ..ListOffsetsPartition::default()
        });
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| ListOffsetsTopic { name: name.as_str().into(), partitions })
        .collect();
    ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
