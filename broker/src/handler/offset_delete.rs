//! OffsetDelete (47): deletes offsets that a group has committed (KIP-496).
//!
//! Versions: 0. Offsets of topics that the group's members are subscribed to stay, partition by partition; what is
//! wrong with the group is the error of the whole answer, which then lists nothing.

use highwater_group::TopicPartitionRef;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::offset_delete::{
    OffsetDeleteRequestTopic, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use highwater_protocol::api::{OffsetDeleteRequest, OffsetDeleteResponse};
use highwater_protocol::wire::Str;

use super::{partition, topic_by_name};
use crate::broker::Broker;
use crate::context::Context;
use crate::groups;

pub(crate) async fn handle(context: &Context<'_>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let (mut topics, mut existing) = (Vec::new(), Vec::new());
    for asked in request.topics {
        topics.push(check(context.broker, asked, &mut existing));
    }
    let group = request.group_id;
    let deleted =
        groups::ask(context.broker, &group, |machine, now| machine.delete_offsets(&group, &existing, now));
    let error = match deleted.await {
        Ok(Ok(results)) => {
            enter(
                &mut topics,
                results
                    .into_iter()
                    .map(|result| result.map_or_else(|error| groups::code_of(&error), |()| ErrorCode::None)),
            );
            return OffsetDeleteResponse { topics, ..OffsetDeleteResponse::default() };
        }
        Ok(Err(error)) => groups::code_of(&error),
        Err(unavailable) => unavailable.code(),
    };
    OffsetDeleteResponse { error_code: error.code(), ..OffsetDeleteResponse::default() }
}

/// The answer with a place for each partition that exists, and those partitions.
fn check(
    broker: &Broker,
    asked: OffsetDeleteRequestTopic,
    existing: &mut Vec<TopicPartitionRef>,
) -> OffsetDeleteResponseTopic {
    let topic = topic_by_name(broker, &asked.name).ok();
    let mut partitions = Vec::with_capacity(asked.partitions.len());
    for asked in asked.partitions {
        let partition_index = asked.partition_index;
        let found = topic.as_ref().and_then(|topic| {
            let partition = partition(topic, partition_index).ok()?.id().partition;
            Some(TopicPartitionRef { topic: Str::from(topic.name.as_str()), partition })
        });
        let error = if found.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
        existing.extend(found);
        partitions.push(OffsetDeleteResponsePartition { partition_index, error_code: error.code() });
    }
    OffsetDeleteResponseTopic { name: asked.name, partitions }
}

/// Enters the results into the places that were left open for them.
fn enter(topics: &mut [OffsetDeleteResponseTopic], results: impl Iterator<Item = ErrorCode>) {
    let asked = topics
        .iter_mut()
        .flat_map(|topic| &mut topic.partitions)
        .filter(|partition| partition.error_code == ErrorCode::None.code());
    for (partition, result) in asked.zip(results) {
        partition.error_code = result.code();
    }
}
