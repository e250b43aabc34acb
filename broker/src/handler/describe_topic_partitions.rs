//! DescribeTopicPartitions (75): topics and their partitions, page by page.
//!
//! Versions: 0. Topics come in the order of their names, from the cursor on; a page ends when it has as many partitions
//! as it may, with a cursor to the next one. There are no eligible leaders besides the one there is.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use highwater_protocol::wire::{Str, Uuid};
use highwater_record::{LeaderEpoch, TopicName};

use super::topic_by_name;
use crate::broker::NODE_ID;
use crate::context::Context;
use crate::partition::Partition;
use crate::topics::Topic;

/// Most partitions of a page (`max.request.partition.size.limit`).
const PARTITIONS_MAX: usize = 2000;
/// Read, write, create, delete, alter, describe, describe and alter configs: what can be done with a topic, a bit for
/// each (`AclEntry.supportedOperations`, numbered as in `AclOperation`).
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

pub(crate) fn handle(
    context: &Context<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let everything = request.topics.is_empty();
    let mut names: BTreeSet<Str> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    if everything {
        names = context.broker.topics.all().iter().map(|topic| Str::from(topic.name.as_str())).collect();
    }
    if let Some(cursor) = &request.cursor {
        if cursor.partition_index < 0 || !everything && !names.contains(&cursor.topic_name) {
            return refuse(names);
        }
        names = names.split_off(&cursor.topic_name);
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PARTITIONS_MAX);
    page(context, names, request.cursor, Page { limit, everything })
}

/// What a page may hold.
#[derive(Clone, Copy)]
struct Page {
    limit: usize,
    /// Whether every topic is described: one that is gone by now is left out.
    everything: bool,
}

fn page(
    context: &Context<'_>,
    names: BTreeSet<Str>,
    cursor: Option<Cursor>,
    page: Page,
) -> DescribeTopicPartitionsResponse {
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = page.limit;
    for name in names {
        if left == 0 {
            response.next_cursor = Some(Cursor { topic_name: name, partition_index: 0 });
            break;
        }
        let from = cursor.as_ref().filter(|cursor| cursor.topic_name == name);
        let from = from.map_or(0, |cursor| usize::try_from(cursor.partition_index).unwrap_or(0));
        match topic_by_name(context.broker, &name) {
            Ok(topic) => {
                let described = describe(&topic, from, left);
                left -= described.partitions.len();
                let next = from + described.partitions.len();
                response.topics.push(described);
                if next < topic.partitions.len() {
                    let partition_index = i32::try_from(next).unwrap_or(i32::MAX);
                    response.next_cursor = Some(Cursor { topic_name: name, partition_index });
                    break;
                }
            }
            Err(_) if page.everything => {}
            Err(code) => response.topics.push(unknown(name, code)),
        }
    }
    response
}

/// Up to `limit` partitions of a topic, from number `from` on.
fn describe(topic: &Topic, from: usize, limit: usize) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(Str::from(topic.name.as_str())),
        topic_id: Uuid::from_bytes(topic.id.get()),
        is_internal: topic.name.is_internal(),
        partitions: topic.partitions.iter().skip(from).take(limit).map(describe_partition).collect(),
        topic_authorized_operations: ALL_OPERATIONS,
    }
}

fn describe_partition(partition: &Arc<Partition>) -> DescribeTopicPartitionsResponsePartition {
    let leader = partition.leader_epoch();
    DescribeTopicPartitionsResponsePartition {
        error_code: leader.as_ref().map_or(ErrorCode::LeaderNotAvailable, |_| ErrorCode::None).code(),
        partition_index: partition.id().partition.get(),
        leader_id: leader.as_ref().map_or(-1, |_| NODE_ID),
        leader_epoch: leader.map_or(-1, LeaderEpoch::get),
        replica_nodes: vec![NODE_ID],
        isr_nodes: vec![NODE_ID],
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: Vec::new(),
    }
}

fn unknown(name: Str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    let is_internal = TopicName::new(&name).is_ok_and(|name| name.is_internal());
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(name),
        is_internal,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

/// A cursor that points nowhere in the list: each topic says so, since the answer itself has no code.
fn refuse(names: BTreeSet<Str>) -> DescribeTopicPartitionsResponse {
    let topics = names.into_iter().map(|name| unknown(name, ErrorCode::InvalidRequest));
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..DescribeTopicPartitionsResponse::default() }
}
