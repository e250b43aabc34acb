//! OffsetFetch (9): says how far groups have read.
//!
//! Versions: 1-9. An offset that was never committed is -1 without an error, so nothing is ever answered as absent
//! that is merely not loaded: the error says so. An offset that was committed for an earlier topic of the same name
//! is absent. Where the log of the groups has lost records, an offset that is not known is CORRUPT_MESSAGE: absent would
//! make a consumer start over, or skip to the end. There are no transactions, so that every offset is stable. Not here:
//! the newer group protocol (member id and epoch of version 9 are not looked at, as Kafka does for classic groups).

use highwater_group::{Committed, WantedOffset};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use highwater_protocol::api::{OffsetFetchRequest, OffsetFetchResponse};
use highwater_protocol::wire::Str;
use highwater_record::{LeaderEpoch, TopicId, TopicName};

use super::{partition, topic_by_name};
use crate::broker::Broker;
use crate::context::Context;
use crate::groups::{self, Unavailable};

/// From here on a request asks for many groups.
const GROUPS_VERSION_MIN: i16 = 8;
/// From here on the answer has an error of its own.
const TOP_LEVEL_ERROR_VERSION_MIN: i16 = 2;

pub(crate) async fn handle(context: &Context<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.version >= GROUPS_VERSION_MIN {
        let mut groups = Vec::with_capacity(request.groups.len());
        for asked in request.groups {
            groups.push(fetch(context, asked).await);
        }
        return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
    }
    let topics = request.topics.map(|topics| {
        topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
        })
    });
    let asked = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: topics.map(Iterator::collect),
        ..OffsetFetchRequestGroup::default()
    };
    single(context.version, fetch(context, asked).await)
}

async fn fetch(context: &Context<'_>, asked: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let group_id = asked.group_id;
    let found = match &asked.topics {
        Some(topics) => fetch_some(context, &group_id, topics).await,
        None => fetch_all(context, &group_id).await,
    };
    match found {
        Ok(topics) => OffsetFetchResponseGroup { group_id, topics, error_code: ErrorCode::None.code() },
        Err(unavailable) => {
            let error_code = unavailable.code().code();
            // The oldest version has a place for errors beside its partitions alone.
            let failed = |topic: OffsetFetchRequestTopics| {
                let partitions = topic
                    .partition_indexes
                    .iter()
                    .map(|index| OffsetFetchResponsePartitions { error_code, ..answer(*index, None) });
                OffsetFetchResponseTopics { name: topic.name, partitions: partitions.collect() }
            };
            let topics = if context.version < TOP_LEVEL_ERROR_VERSION_MIN {
                asked.topics.unwrap_or_default().into_iter().map(failed).collect()
            } else {
                Vec::new()
            };
            OffsetFetchResponseGroup { group_id, topics, error_code }
        }
    }
}

async fn fetch_some(
    context: &Context<'_>,
    group: &str,
    topics: &[OffsetFetchRequestTopics],
) -> Result<Vec<OffsetFetchResponseTopics>, Unavailable> {
    let indexes = || topics.iter().flat_map(|topic| topic.partition_indexes.iter().map(move |i| (topic, *i)));
    let wanted: Vec<Option<WantedOffset>> =
        indexes().map(|(topic, index)| wanted(context.broker, &topic.name, index)).collect();
    let existing: Vec<WantedOffset> = wanted.iter().flatten().cloned().collect();
    let found =
        groups::look(context.broker, group, |machine| machine.fetch_offsets(group, &existing)).await?;
    let unknown = if groups::may_have_lost(context.broker, group) {
        ErrorCode::CorruptMessage
    } else {
        ErrorCode::None
    };
    let mut found = found.into_iter();
    let mut wanted = wanted.into_iter();
    let answer_topic = |topic: &OffsetFetchRequestTopics| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            // What does not exist was not asked for.
            let committed = wanted.next().flatten().and_then(|_| found.next().flatten());
            let error = if committed.is_some() { ErrorCode::None } else { unknown };
            OffsetFetchResponsePartitions { error_code: error.code(), ..answer(*index, committed) }
        });
        OffsetFetchResponseTopics { name: topic.name.clone(), partitions: partitions.collect() }
    };
    Ok(topics.iter().map(answer_topic).collect())
}

/// A partition to look up; `None` if there is no such partition, for which nothing can be committed.
fn wanted(broker: &Broker, name: &Str, index: i32) -> Option<WantedOffset> {
    let topic = topic_by_name(broker, name).ok()?;
    let partition = partition(&topic, index).ok()?.id().partition;
    Some(WantedOffset { topic: name.clone(), topic_id: Some(topic.id), partition })
}

async fn fetch_all(
    context: &Context<'_>,
    group: &str,
) -> Result<Vec<OffsetFetchResponseTopics>, Unavailable> {
    let broker = context.broker;
    let is_current = |name: &str, committed_for: Option<TopicId>| {
        let topic = TopicName::new(name).ok().and_then(|name| broker.topics.by_name(&name));
        topic.is_some_and(|topic| committed_for.is_none_or(|id| id == topic.id))
    };
    let found = groups::look(broker, group, |machine| machine.fetch_all_offsets(group, is_current)).await?;
    let topics = found.chunk_by(|one, next| one.topic == next.topic).map(|partitions| {
        let answers = partitions.iter().map(|one| answer(one.partition.get(), Some(one.committed.clone())));
        OffsetFetchResponseTopics { name: partitions[0].topic.clone(), partitions: answers.collect() }
    });
    Ok(topics.collect())
}

fn answer(partition_index: i32, committed: Option<Committed>) -> OffsetFetchResponsePartitions {
    let (committed_offset, committed_leader_epoch, metadata) = match committed {
        Some(committed) => {
            (committed.offset, committed.leader_epoch.map_or(-1, LeaderEpoch::get), committed.metadata)
        }
        None => (-1, -1, Str::default()),
    };
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset,
        committed_leader_epoch,
        metadata: Some(metadata),
        error_code: ErrorCode::None.code(),
    }
}

/// The answer about one group in the form of the versions that know only one.
fn single(version: i16, group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| OffsetFetchResponsePartition {
            partition_index: partition.partition_index,
            committed_offset: partition.committed_offset,
            committed_leader_epoch: partition.committed_leader_epoch,
            metadata: partition.metadata,
            error_code: partition.error_code,
        });
        OffsetFetchResponseTopic { name: topic.name, partitions: partitions.collect() }
    });
    let has_error = version >= TOP_LEVEL_ERROR_VERSION_MIN;
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: if has_error { group.error_code } else { ErrorCode::None.code() },
        ..OffsetFetchResponse::default()
    }
}
