//! OffsetFetch (9): says how far groups have read.
//!
//! Versions: 1-9. An offset that was never committed is -1 without an error, so nothing is ever answered as absent
//! that is merely not loaded: the error says so. An offset that was committed for an earlier topic of the same name
//! is absent. Where the log of the groups has lost records, an offset that is not known is CORRUPT_MESSAGE: absent would
//! make a consumer start over, or skip to the end. There are no transactions, so that every offset is stable. Not here:
//! the newer group protocol (member id and epoch of version 9 are not looked at, as Kafka does for classic groups).

use highwater_group::{Committed, Coordinator, FetchedOffset, WantedOffset};
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
        let groups = fetch(context, request.groups).await;
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
    single(context.version, fetch(context, vec![asked]).await.pop().unwrap_or_default())
}

/// What is asked about one group.
struct Asked {
    group: OffsetFetchRequestGroup,
    /// A place for each partition that is named; one that does not exist is not looked up.
    places: Vec<Option<WantedOffset>>,
    existing: Vec<WantedOffset>,
}

/// What was found in one group.
enum Found {
    /// For each partition that was looked up.
    Named(Vec<Option<Committed>>),
    /// Of all that are committed.
    All(Vec<FetchedOffset>),
}

impl Asked {
    fn new(broker: &Broker, group: OffsetFetchRequestGroup) -> Self {
        let topics = group.topics.iter().flatten();
        let indexes = topics.flat_map(|topic| topic.partition_indexes.iter().map(move |i| (topic, *i)));
        let places: Vec<_> = indexes.map(|(topic, index)| wanted(broker, &topic.name, index)).collect();
        let existing = places.iter().flatten().cloned().collect();
        Self { group, places, existing }
    }

    fn look(&self, machine: &Coordinator, broker: &Broker) -> Found {
        if self.group.topics.is_some() {
            return Found::Named(machine.fetch_offsets(&self.group.group_id, &self.existing));
        }
        let is_current = |name: &str, committed_for: Option<TopicId>| {
            let topic = TopicName::new(name).ok().and_then(|name| broker.topics.by_name(&name));
            topic.is_some_and(|topic| committed_for.is_none_or(|id| id == topic.id))
        };
        Found::All(machine.fetch_all_offsets(&self.group.group_id, is_current))
    }

    fn answer(self, context: &Context<'_>, found: Result<Found, Unavailable>) -> OffsetFetchResponseGroup {
        let group_id = self.group.group_id;
        let unknown = if groups::may_have_lost(context.broker, &group_id) {
            ErrorCode::CorruptMessage
        } else {
            ErrorCode::None
        };
        let (topics, error) = match found {
            Ok(Found::Named(found)) => {
                (named(self.group.topics.unwrap_or_default(), &self.places, found, unknown), ErrorCode::None)
            }
            Ok(Found::All(found)) => (all(&found), ErrorCode::None),
            Err(unavailable) => {
                let error = unavailable.code();
                // The oldest version has a place for errors beside its partitions alone.
                let topics = self.group.topics.filter(|_| context.version < TOP_LEVEL_ERROR_VERSION_MIN);
                (failed(topics.unwrap_or_default(), error), error)
            }
        };
        OffsetFetchResponseGroup { group_id, topics, error_code: error.code() }
    }
}

async fn fetch(context: &Context<'_>, groups: Vec<OffsetFetchRequestGroup>) -> Vec<OffsetFetchResponseGroup> {
    let broker = context.broker;
    let asked: Vec<_> = groups.into_iter().map(|group| Asked::new(broker, group)).collect();
    let found = groups::look_each(
        broker,
        &asked,
        |asked| asked.group.group_id.as_str(),
        |machine, asked| asked.look(machine, broker),
    );
    let found = found.await;
    asked.into_iter().zip(found).map(|(asked, found)| asked.answer(context, found)).collect()
}

fn failed(topics: Vec<OffsetFetchRequestTopics>, error: ErrorCode) -> Vec<OffsetFetchResponseTopics> {
    let failed = |topic: OffsetFetchRequestTopics| {
        let partitions = topic
            .partition_indexes
            .iter()
            .map(|index| OffsetFetchResponsePartitions { error_code: error.code(), ..answer(*index, None) });
        OffsetFetchResponseTopics { name: topic.name, partitions: partitions.collect() }
    };
    topics.into_iter().map(failed).collect()
}

/// `unknown` is what is said of a partition for which nothing is committed.
fn named(
    topics: Vec<OffsetFetchRequestTopics>,
    places: &[Option<WantedOffset>],
    found: Vec<Option<Committed>>,
    unknown: ErrorCode,
) -> Vec<OffsetFetchResponseTopics> {
    let (mut places, mut found) = (places.iter(), found.into_iter());
    let answer_topic = |topic: OffsetFetchRequestTopics| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            // What does not exist was not asked for.
            let exists = places.next().is_some_and(Option::is_some);
            let committed = if exists { found.next().flatten() } else { None };
            let error = if committed.is_some() { ErrorCode::None } else { unknown };
            OffsetFetchResponsePartitions { error_code: error.code(), ..answer(*index, committed) }
        });
        OffsetFetchResponseTopics { partitions: partitions.collect(), name: topic.name }
    };
    topics.into_iter().map(answer_topic).collect()
}

fn all(found: &[FetchedOffset]) -> Vec<OffsetFetchResponseTopics> {
    let topics = found.chunk_by(|one, next| one.topic == next.topic).map(|partitions| {
        let answers = partitions.iter().map(|one| answer(one.partition.get(), Some(one.committed.clone())));
        OffsetFetchResponseTopics { name: partitions[0].topic.clone(), partitions: answers.collect() }
    });
    topics.collect()
}

/// A partition to look up; `None` if there is no such partition, for which nothing can be committed.
fn wanted(broker: &Broker, name: &Str, index: i32) -> Option<WantedOffset> {
    let topic = topic_by_name(broker, name).ok()?;
    let partition = partition(&topic, index).ok()?.id().partition;
    Some(WantedOffset { topic: name.clone(), topic_id: Some(topic.id), partition })
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
