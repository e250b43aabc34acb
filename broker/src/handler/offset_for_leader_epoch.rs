//! OffsetForLeaderEpoch (23): where a leader epoch ended, so that clients notice truncation (KIP-101, KIP-320).
//!
//! Versions: 2-4. The current epoch ends at the log end even if nothing was appended in it yet. Only the end of an epoch
//! before the log's latest one opens a log.

use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use highwater_protocol::api::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use highwater_record::LeaderEpoch;
use highwater_storage::LogView;

use super::{check_epoch, partition, topic_by_name};
use crate::context::Context;
use crate::partition::Partition;
use crate::topics::Topic;

pub(crate) async fn handle(
    context: &Context<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = topic_by_name(context.broker, &asked.topic);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for asked in asked.partitions {
            let found = match &topic {
                Ok(topic) => end_of_epoch(topic, &asked).await,
                Err(error) => Err(*error),
            };
            let (error, (epoch, end)) = match found {
                Ok(found) => (ErrorCode::None, found),
                Err(error) => (error, (-1, -1)),
            };
            partitions.push(EpochEndOffset {
                error_code: error.code(),
                partition: asked.partition,
                leader_epoch: epoch,
                end_offset: end,
            });
        }
        topics.push(OffsetForLeaderTopicResult { topic: asked.topic, partitions });
    }
    OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() }
}

/// Epoch and end offset, both -1 if the epoch is not known.
async fn end_of_epoch(topic: &Topic, asked: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let partition = partition(topic, asked.partition)?;
    let out_of_service = |_| ErrorCode::NotLeaderOrFollower;
    let current = partition.leader_epoch().map_err(out_of_service)?;
    check_epoch(current, asked.current_leader_epoch)?;
    let Some(epoch) = LeaderEpoch::new(asked.leader_epoch) else { return Ok((-1, -1)) };
    let standing = partition.standing().map_err(out_of_service)?;
    if epoch == current {
        return Ok((current.get(), standing.end.get()));
    }
    if epoch > current {
        return Ok((-1, -1));
    }
    match standing.latest_epoch {
        // The log never had data.
        None => return Ok((-1, -1)),
        Some(latest) if epoch >= latest => return Ok((latest.get(), standing.end.get())),
        Some(_) => {}
    }
    let view = match partition.view_if_open() {
        Some(view) => Arc::clone(view),
        None => opened(partition).await?,
    };
    Ok(view.end_of_epoch(epoch).map_or((-1, -1), |(epoch, end)| (epoch.get(), end.get())))
}

/// The read side of a log that is not open: the ends of older epochs are in its files.
async fn opened(partition: &Arc<Partition>) -> Result<Arc<LogView>, ErrorCode> {
    let partition = Arc::clone(partition);
    match tokio::task::spawn_blocking(move || partition.open_view().map(Arc::clone)).await {
        Ok(opened) => opened.map_err(|_| ErrorCode::NotLeaderOrFollower),
        Err(error) => {
            tracing::error!(%error, "opening a log panicked");
            Err(ErrorCode::UnknownServerError)
        }
    }
}
