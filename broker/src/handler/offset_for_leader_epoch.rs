//! OffsetForLeaderEpoch (23): where a leader epoch ended, so that clients notice truncation (KIP-101, KIP-320).
//!
//! Versions: 2-4. The current epoch ends at the log end even if nothing was appended in it yet.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use highwater_protocol::api::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use highwater_record::LeaderEpoch;

use super::{check_epoch, partition, topic_by_name};
use crate::context::Context;
use crate::topics::Topic;

pub(crate) fn handle(
    context: &Context<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = topic_by_name(context.broker, &asked.topic);
        let answer = |asked: &OffsetForLeaderPartition| {
            let found = topic.as_ref().map_err(|e| *e).and_then(|topic| end_of_epoch(topic, asked));
            let (error, (epoch, end)) = match found {
                Ok(found) => (ErrorCode::None, found),
                Err(error) => (error, (-1, -1)),
            };
            EpochEndOffset {
                error_code: error.code(),
                partition: asked.partition,
                leader_epoch: epoch,
                end_offset: end,
            }
        };
        let partitions = asked.partitions.iter().map(answer).collect();
        topics.push(OffsetForLeaderTopicResult { topic: asked.topic, partitions });
    }
    OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() }
}

/// Epoch and end offset, both -1 if the epoch is not known.
fn end_of_epoch(topic: &Topic, asked: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let partition = partition(topic, asked.partition)?;
    let (current, view) = partition.leader().map_err(|_| ErrorCode::NotLeaderOrFollower)?;
    check_epoch(current, asked.current_leader_epoch)?;
    let Some(epoch) = LeaderEpoch::new(asked.leader_epoch) else { return Ok((-1, -1)) };
    if epoch == current {
        return Ok((current.get(), view.end().offset.get()));
    }
    if epoch > current {
        return Ok((-1, -1));
    }
    Ok(view.end_of_epoch(epoch).map_or((-1, -1), |(epoch, end)| (epoch.get(), end.get())))
}
