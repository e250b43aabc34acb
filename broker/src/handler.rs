//! One file per API. A handler turns a request into a response, or into one that waits; it never touches a socket.

pub(crate) mod alter_client_quotas;
pub(crate) mod alter_configs;
pub(crate) mod alter_partition_reassignments;
pub(crate) mod api_versions;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_client_quotas;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_quorum;
pub(crate) mod describe_topic_partitions;
pub(crate) mod elect_leaders;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_config_resources;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_partition_reassignments;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;
pub(crate) mod update_features;

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::wire::{Str, Uuid};
use highwater_record::{LeaderEpoch, TopicId, TopicName};

use crate::broker::Broker;
use crate::partition::Partition;
use crate::refusal::{Refusal, refuse};
use crate::topics::Topic;

/// Create, alter, describe, act in the cluster, describe and alter configs, write idempotently: what can be done with
/// the cluster, a bit for each (`AclEntry.supportedOperations`, numbered as in `AclOperation`). Without authorization
/// everyone may do everything.
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
/// Read, write, create, delete, alter, describe, describe and alter configs: what can be done with a topic.
const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// Read, delete, describe, describe and alter configs: what can be done with a group.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// The topic that a request names; names that no topic can have are unknown, as in Kafka, where they are looked up
/// like others. Only what creates or describes topics tells the two apart (`Topic.validate`).
fn topic_by_name(broker: &Broker, name: &str) -> Result<Arc<Topic>, ErrorCode> {
    let topic = TopicName::new(name).ok().and_then(|name| broker.topics.by_name(&name));
    topic.ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// The topic with the id that a request names.
fn topic_by_id(broker: &Broker, id: Uuid) -> Result<Arc<Topic>, ErrorCode> {
    let id = TopicId::new(*id.as_bytes()).ok_or(ErrorCode::UnknownTopicId)?;
    broker.topics.by_id(id).ok_or(ErrorCode::UnknownTopicId)
}

/// The partition numbered `index`.
fn partition(topic: &Topic, index: i32) -> Result<&Arc<Partition>, ErrorCode> {
    topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// Compares the epoch that a client believes in with the leader's; -1 means that it does not say (KIP-320).
pub(crate) fn check_epoch(current: LeaderEpoch, claimed: i32) -> Result<(), ErrorCode> {
    match claimed {
        ..0 => Ok(()),
        epoch if epoch < current.get() => Err(ErrorCode::FencedLeaderEpoch),
        epoch if epoch > current.get() => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// What a request names more than once.
fn named_twice<T: Clone + Eq + Hash>(names: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(name.clone())).collect()
}

/// Refuses names within one thing that a request names more than once.
fn no_duplicates<'a>(names: impl Iterator<Item = &'a Str>) -> Result<(), Refusal> {
    match named_twice(names).into_iter().next() {
        Some(name) => {
            Err(refuse(ErrorCode::InvalidRequest, format!("the request names {:?} twice", name.as_str())))
        }
        None => Ok(()),
    }
}

/// Does something about each thing that a request names, one after the other. Those of a `kind` that it names more
/// than once are refused. Each name with what came of it, in the order of the request.
async fn each_once<Asked, Name: Clone + Eq + Hash, Done, Act: Future<Output = Result<Done, Refusal>>>(
    all: Vec<Asked>,
    kind: &'static str,
    name_of: impl Fn(&Asked) -> Name,
    act: impl Fn(Asked) -> Act,
) -> Vec<(Name, Result<Done, Refusal>)> {
    let twice = named_twice(all.iter().map(&name_of));
    let mut results = Vec::with_capacity(all.len());
    for asked in all {
        let name = name_of(&asked);
        let result = if twice.contains(&name) {
            Err(refuse(ErrorCode::InvalidRequest, format!("the request names the {kind} twice")))
        } else {
            act(asked).await
        };
        results.push((name, result));
    }
    results
}
