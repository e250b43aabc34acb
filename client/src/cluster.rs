//! What a client knows of a cluster: brokers, topics, leaders. A picture of one moment.

use std::collections::BTreeMap;

use highwater_protocol::api::MetadataResponse;
use highwater_protocol::api::metadata::{MetadataResponsePartition, MetadataResponseTopic};
use highwater_record::{LeaderEpoch, PartitionId, TopicId, TopicName, TopicPartition};

use crate::{Address, BrokerError};

/// The brokers and the topics that were asked about.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The cluster's id, if it has one.
    pub id: Option<String>,
    /// The brokers that are alive, by id.
    pub brokers: BTreeMap<i32, Address>,
    /// The broker that creates and deletes topics.
    pub controller: Option<i32>,
    /// The topics, or why a topic cannot be described.
    pub topics: BTreeMap<TopicName, Result<TopicInfo, BrokerError>>,
}

/// One topic.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// Its name.
    pub name: TopicName,
    /// Its id, from brokers that have ids (Kafka 2.8 and later).
    pub id: Option<TopicId>,
    /// Whether it belongs to the broker itself.
    pub is_internal: bool,
    /// Its partitions in their order.
    pub partitions: Vec<PartitionInfo>,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct PartitionInfo {
    /// Its number.
    pub id: PartitionId,
    /// The leader's broker id, if there is a leader.
    pub leader: Option<i32>,
    /// The leader's epoch, if the broker says it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
    /// What is wrong with it, if anything.
    pub error: Option<BrokerError>,
}

impl Cluster {
    /// Reads an answer. Names and numbers that no broker can have are left out.
    pub(crate) fn from_response(response: &MetadataResponse) -> Self {
        let brokers = response.brokers.iter().filter_map(|broker| {
            let port = u16::try_from(broker.port).ok()?;
            Some((broker.node_id, Address { host: broker.host.as_str().to_owned(), port }))
        });
        let topics = response.topics.iter().filter_map(|topic| {
            let name = TopicName::new(topic.name.as_deref()?).ok()?;
            let info = match BrokerError::from_answer(topic.error_code, None) {
                Some(error) => Err(error),
                None => Ok(TopicInfo::from_response(name.clone(), topic)),
            };
            Some((name, info))
        });
        Self {
            id: response.cluster_id.as_deref().map(str::to_owned),
            brokers: brokers.collect(),
            controller: Some(response.controller_id).filter(|id| *id >= 0),
            topics: topics.collect(),
        }
    }

    /// Puts a newer answer over this picture: brokers are replaced, topics that it names too.
    pub(crate) fn update(&mut self, newer: &Self) {
        self.id.clone_from(&newer.id);
        self.brokers.clone_from(&newer.brokers);
        self.controller = newer.controller;
        self.topics.extend(newer.topics.iter().map(|(name, topic)| (name.clone(), topic.clone())));
    }

    /// A topic that exists.
    pub fn topic(&self, name: &TopicName) -> Option<&TopicInfo> {
        self.topics.get(name)?.as_ref().ok()
    }

    /// A partition that exists.
    pub fn partition(&self, partition: &TopicPartition) -> Option<&PartitionInfo> {
        self.topic(&partition.topic)?.partition(partition.partition)
    }

    /// The leader of a partition: its id and its address.
    pub fn leader(&self, partition: &TopicPartition) -> Option<(i32, &Address)> {
        let leader = self.partition(partition)?.leader?;
        Some((leader, self.brokers.get(&leader)?))
    }
}

impl TopicInfo {
    fn from_response(name: TopicName, topic: &MetadataResponseTopic) -> Self {
        let mut partitions: Vec<PartitionInfo> =
            topic.partitions.iter().filter_map(PartitionInfo::from_response).collect();
        partitions.sort_by_key(|partition| partition.id);
        let id = TopicId::new(*topic.topic_id.as_bytes());
        Self { name, id, is_internal: topic.is_internal, partitions }
    }

    /// One of its partitions.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionInfo> {
        self.partitions.iter().find(|partition| partition.id == id)
    }
}

impl PartitionInfo {
    fn from_response(partition: &MetadataResponsePartition) -> Option<Self> {
        Some(Self {
            id: PartitionId::new(partition.partition_index)?,
            leader: Some(partition.leader_id).filter(|id| *id >= 0),
            leader_epoch: LeaderEpoch::new(partition.leader_epoch),
            replicas: partition.replica_nodes.clone(),
            in_sync: partition.isr_nodes.clone(),
            error: BrokerError::from_answer(partition.error_code, None),
        })
    }
}
