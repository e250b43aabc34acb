//! One file per API. A handler turns a request into a response, or into one that waits; it never touches a socket.

pub(crate) mod api_versions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_topics;
pub(crate) mod describe_groups;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;

use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::wire::Uuid;
use highwater_record::{LeaderEpoch, TopicId, TopicName};

use crate::broker::Broker;
use crate::partition::Partition;
use crate::topics::Topic;

/// The topic that a request names; names that cannot exist are unknown.
fn topic_by_name(broker: &Broker, name: &str) -> Result<Arc<Topic>, ErrorCode> {
    let name = TopicName::new(name).map_err(|_| ErrorCode::InvalidTopicException)?;
    broker.topics.by_name(&name).ok_or(ErrorCode::UnknownTopicOrPartition)
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
fn check_epoch(current: LeaderEpoch, claimed: i32) -> Result<(), ErrorCode> {
    match claimed {
        ..0 => Ok(()),
        epoch if epoch < current.get() => Err(ErrorCode::FencedLeaderEpoch),
        epoch if epoch > current.get() => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
