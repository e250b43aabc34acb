//! OffsetCommit (8): stores how far a group has read.
//!
//! Versions: 2-9. Offsets of topics and partitions that do not exist are refused one by one, the rest is committed;
//! what is wrong with the group or the member is said of every partition. The answer waits until the offsets are
//! durable. Not here: the newer group protocol (its member epochs are taken for generations and refused as such).

use highwater_group::{CommitOffset, CommitRequest, Generation};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::offset_commit::{
    OffsetCommitRequestPartition, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use highwater_protocol::api::{OffsetCommitRequest, OffsetCommitResponse};
use highwater_protocol::wire::Str;
use highwater_record::LeaderEpoch;

use super::{partition, topic_by_name};
use crate::context::Context;
use crate::groups;
use crate::topics::Topic;

/// From here on the client understands GROUP_ID_NOT_FOUND.
const GROUP_ID_NOT_FOUND_VERSION_MIN: i16 = 9;

pub(crate) async fn handle(context: &Context<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = topic_by_name(context.broker, &asked.name).ok();
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for asked_partition in asked.partitions {
            let partition_index = asked_partition.partition_index;
            let offset = topic.as_ref().and_then(|topic| offset(topic, asked_partition));
            let error = if offset.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
            offsets.extend(offset);
            partitions.push(OffsetCommitResponsePartition { partition_index, error_code: error.code() });
        }
        topics.push(OffsetCommitResponseTopic { name: asked.name, partitions });
    }
    // With nothing that may be committed there is nothing to ask the group.
    if !offsets.is_empty() {
        let commit = CommitRequest {
            group: request.group_id,
            generation: Generation::new(request.generation_id_or_member_epoch),
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            retention_ms: u64::try_from(request.retention_time_ms).ok(),
            offsets,
            knows_group_id_not_found: context.version >= GROUP_ID_NOT_FOUND_VERSION_MIN,
            may_create: context.broker.groups.may_create(),
        };
        enter(&mut topics, commit_all(context, commit).await);
    }
    OffsetCommitResponse { topics, ..OffsetCommitResponse::default() }
}

/// An offset to commit, if there is such a partition.
fn offset(topic: &Topic, asked: OffsetCommitRequestPartition) -> Option<CommitOffset> {
    let partition = partition(topic, asked.partition_index).ok()?;
    Some(CommitOffset {
        topic: Str::from(topic.name.as_str()),
        topic_id: Some(topic.id),
        partition: partition.id().partition,
        offset: asked.committed_offset,
        leader_epoch: LeaderEpoch::new(asked.committed_leader_epoch),
        metadata: asked.committed_metadata.unwrap_or_default(),
    })
}

/// What became of each offset, in their order.
async fn commit_all(context: &Context<'_>, commit: CommitRequest) -> Vec<ErrorCode> {
    let count = commit.offsets.len();
    let group = commit.group.clone();
    let answer = groups::ask(context.broker, &group, |machine, now| machine.commit(commit, now)).await;
    match answer {
        Ok(Ok(results)) => results
            .into_iter()
            .map(|result| result.map_or_else(|error| groups::code_of(&error), |()| ErrorCode::None))
            .collect(),
        Ok(Err(error)) => vec![groups::code_of(&error); count],
        Err(unavailable) => vec![unavailable.code(); count],
    }
}

/// Enters the results into the places that were left open for them.
fn enter(topics: &mut [OffsetCommitResponseTopic], results: Vec<ErrorCode>) {
    let asked = topics
        .iter_mut()
        .flat_map(|topic| &mut topic.partitions)
        .filter(|partition| partition.error_code == ErrorCode::None.code());
    for (partition, result) in asked.zip(results) {
        partition.error_code = result.code();
    }
}
