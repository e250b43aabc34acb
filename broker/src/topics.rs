//! The topics in service: found by name or by id, changed only by the topic administration.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use highwater_record::{PartitionId, TopicId, TopicName};
use parking_lot::RwLock;

use crate::meta::TopicRecord;
use crate::partition::{Partition, Settings};

/// One topic and its partitions.
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    pub(crate) id: TopicId,
    pub(crate) record: TopicRecord,
    pub(crate) settings: Arc<Settings>,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// The partition numbered `index` on the wire.
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        PartitionId::new(index).and_then(|_| self.partitions.get(usize::try_from(index).ok()?))
    }
}

/// All topics. Reads take a short lock and clone an `Arc`.
#[derive(Default)]
pub(crate) struct Topics {
    registry: RwLock<Registry>,
}

#[derive(Default)]
struct Registry {
    by_name: BTreeMap<TopicName, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
    partitions: usize,
}

impl Topics {
    /// The topic of that name.
    pub(crate) fn by_name(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.registry.read().by_name.get(name).cloned()
    }

    /// The topic with that id.
    pub(crate) fn by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.registry.read().by_id.get(&id).cloned()
    }

    /// Every topic, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.registry.read().by_name.values().cloned().collect()
    }

    /// How many partitions all topics have together.
    pub(crate) fn partition_count(&self) -> usize {
        self.registry.read().partitions
    }

    /// A topic whose name differs from `name` only in dots and underscores.
    pub(crate) fn colliding(&self, name: &TopicName) -> Option<TopicName> {
        self.registry.read().by_name.keys().find(|other| other.collides_with(name)).cloned()
    }

    /// Brings `topic` into service.
    pub(crate) fn insert(&self, topic: Arc<Topic>) {
        let mut registry = self.registry.write();
        registry.partitions += topic.partitions.len();
        registry.by_id.insert(topic.id, Arc::clone(&topic));
        registry.by_name.insert(topic.name.clone(), topic);
        crate::metrics::set_topics(registry.by_name.len(), registry.partitions);
    }

    /// Puts a changed topic in the place of the one with the same name and id.
    pub(crate) fn replace(&self, topic: Arc<Topic>) {
        let mut registry = self.registry.write();
        registry.partitions += topic.partitions.len();
        registry.by_id.insert(topic.id, Arc::clone(&topic));
        let before = registry.by_name.insert(topic.name.clone(), topic);
        registry.partitions -= before.map_or(0, |before| before.partitions.len());
        crate::metrics::set_topics(registry.by_name.len(), registry.partitions);
    }

    /// Takes a topic out of service.
    pub(crate) fn remove(&self, name: &TopicName) -> Option<Arc<Topic>> {
        let mut registry = self.registry.write();
        let topic = registry.by_name.remove(name)?;
        registry.by_id.remove(&topic.id);
        registry.partitions -= topic.partitions.len();
        crate::metrics::set_topics(registry.by_name.len(), registry.partitions);
        Some(topic)
    }
}

// The derived form would print every partition's log.
impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}
