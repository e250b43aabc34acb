//! Starting with metadata that is damaged or missing: read-only, and nothing is deleted.
//!
//! What the metadata does not say any more is no reason to delete, and nothing is built on what may be an old state of
//! it: incarnations and producer ids would be given out twice. Topics that it has lost are taken up again from the
//! directories of their partitions, which carry the topic's id. Nothing of that is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_record::{TopicId, TopicName, TopicPartition};
use highwater_storage::{DataDir, MetaDamage};

use crate::broker::Broker;
use crate::meta::{Metadata, MetadataError, TopicRecord};
use crate::topic_admin;
use crate::topic_config::TopicConfig;

/// The topic of the metadata's own log.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Why the broker must not change anything, if it must not: what is wrong, where, and how to go on.
pub(crate) fn reason(
    data: &DataDir,
    metadata: &Metadata,
    damage: Option<&MetaDamage>,
) -> Result<Option<String>, MetadataError> {
    let wrong = match (damage, metadata.incarnation()?) {
        (Some(damage), _) => Some(format!("the metadata log is damaged: {damage}")),
        (None, None) => lost(data),
        (None, Some(_)) => None,
    };
    Ok(wrong.map(|wrong| {
        format!(
            "{wrong}. The broker is read-only: topics that it knows, or finds by their directories, can be read, and \
             nothing is changed or deleted. Stop it and put {METADATA_TOPIC}-0 back from a copy, or start a broker \
             on an empty directory and copy the records to it with a client"
        )
    }))
}

/// Partitions without metadata.
fn lost(data: &DataDir) -> Option<String> {
    let listing = data.list().unwrap_or_else(|error| {
        tracing::error!(%error, "cannot list the data directory");
        Default::default()
    });
    let partitions = listing.partitions.iter().filter(|found| found.topic.as_str() != METADATA_TOPIC).count();
    (partitions > 0).then(|| {
        let path = data.path().join(format!("{METADATA_TOPIC}-0"));
        format!(
            "the metadata log {} is missing or empty, but there are {partitions} partitions",
            path.display()
        )
    })
}

/// Takes up topics that the metadata has lost, as far as their partitions' directories name them.
pub(crate) fn adopt(broker: &Broker) {
    let Ok(listing) = broker.data.list() else { return };
    let mut found: BTreeMap<TopicName, Vec<(TopicPartition, TopicId)>> = BTreeMap::new();
    for partition in listing.partitions {
        if partition.topic.as_str() == METADATA_TOPIC || broker.topics.by_name(&partition.topic).is_some() {
            continue;
        }
        match broker.data.topic_id(&partition) {
            Some(id) => found.entry(partition.topic.clone()).or_default().push((partition, id)),
            None => {
                tracing::error!(%partition, "the directory does not say which topic it belongs to; it is left alone")
            }
        }
    }
    for (name, partitions) in found {
        let id = partitions[0].1;
        if let Some((stranger, _)) = partitions.iter().find(|(_, other)| *other != id) {
            tracing::error!(partition = %stranger, "the directories of a topic name different topics; they are left alone");
            continue;
        }
        let last = partitions.iter().map(|(found, _)| found.partition.get()).max().unwrap_or_default();
        let count = u32::try_from(last).unwrap_or_default() + 1;
        // The number of a directory is anybody's; each partition up to it takes memory.
        let (existing, max) = (broker.topics.partition_count(), broker.config().partitions_max);
        if count as usize > (max as usize).saturating_sub(existing) {
            tracing::error!(
                topic = %name,
                "the directory {name}-{last} says that the topic has {count} partitions; with the {existing} of other \
                 topics that is more than the {max} that a broker has (partitions.max); the topic is left alone"
            );
            continue;
        }
        let record = TopicRecord { id: id.to_string(), partitions: count, configs: BTreeMap::new() };
        let Ok(config) = TopicConfig::parse(&record.configs, broker.config()) else { continue };
        // Partitions that never had a record have no directory.
        tracing::warn!(
            topic = %name, %id,
            "a topic is known by its directories alone, and by these has at least {count} partitions; it can be read"
        );
        let settings = topic_admin::settings(broker, &name, id, &config);
        let topic = topic_admin::assemble(name, id, record, settings);
        broker.recovery.total.fetch_add(topic.partitions.len(), Ordering::Relaxed);
        broker.topics.insert(Arc::new(topic));
    }
}
