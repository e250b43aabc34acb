//! ListOffsets (2): the offset of a timestamp, or one of the ends of a log.
//!
//! Versions: 1-10. There are no transactions and no tiers: the last stable offset is the high watermark, the
//! earliest local offset is the log start, and nothing is tiered. A lookup by time may read the disk and decompress a
//! batch, so a few at a time run on the blocking pool. A partition that is asked for twice gets INVALID_REQUEST, as
//! Kafka answers it: a short request must not cost many lookups of the same.

use std::collections::HashSet;
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use highwater_protocol::api::{ListOffsetsRequest, ListOffsetsResponse};
use highwater_protocol::wire::Str;
use highwater_record::{LeaderEpoch, Offset, TimestampMs};
use highwater_storage::{LogView, ReadError, TimedOffset};

use super::{check_epoch, partition, topic_by_name};
use crate::context::Context;
use crate::partition::Partition;
use crate::topics::Topic;

/// From here on the answer names the epoch of the offset.
const EPOCH_VERSION_MIN: i16 = 4;

/// What a timestamp asks for (`ListOffsetsRequest.java`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wanted {
    Latest,
    Earliest,
    MaxTimestamp,
    EarliestLocal,
    LatestTiered,
    At(TimestampMs),
}

impl Wanted {
    fn parse(timestamp: i64, version: i16) -> Result<Self, ErrorCode> {
        match timestamp {
            -1 => Ok(Self::Latest),
            -2 => Ok(Self::Earliest),
            -3 if version >= 7 => Ok(Self::MaxTimestamp),
            -4 if version >= 8 => Ok(Self::EarliestLocal),
            -5 if version >= 9 => Ok(Self::LatestTiered),
            0.. => Ok(Self::At(TimestampMs(timestamp))),
            _ => Err(ErrorCode::UnsupportedVersion),
        }
    }
}

/// An offset, its timestamp if the question was about time, and the epoch it was written in.
#[derive(Default)]
struct Found {
    offset: Option<Offset>,
    timestamp: Option<TimestampMs>,
    epoch: Option<LeaderEpoch>,
}

pub(crate) async fn handle(context: &Context<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let twice = twice(&request);
    for asked in request.topics {
        let name = asked.name.clone();
        let topic = topic_by_name(context.broker, &name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for asked in asked.partitions {
            let found = match &topic {
                Ok(_) if twice.contains(&(name.clone(), asked.partition_index)) => {
                    Err(ErrorCode::InvalidRequest)
                }
                Ok(topic) => find(context, topic, &asked).await,
                Err(error) => Err(*error),
            };
            partitions.push(answer(asked.partition_index, found, context.version));
        }
        topics.push(ListOffsetsTopicResponse { name: asked.name, partitions });
    }
    ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
}

/// What the request asks for more than once.
fn twice(request: &ListOffsetsRequest) -> HashSet<(Str, i32)> {
    let mut seen = HashSet::new();
    let all = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.clone(), partition.partition_index))
    });
    all.filter(|asked| !seen.insert(asked.clone())).collect()
}

async fn find(
    context: &Context<'_>,
    topic: &Topic,
    asked: &ListOffsetsPartition,
) -> Result<Found, ErrorCode> {
    let partition = partition(topic, asked.partition_index)?;
    let out_of_service = |_| ErrorCode::NotLeaderOrFollower;
    let current = partition.leader_epoch().map_err(out_of_service)?;
    check_epoch(current, asked.current_leader_epoch)?;
    let (standing, view) = (partition.standing().map_err(out_of_service)?, partition.view_if_open());
    let until = partition.high_watermark();
    let at = |offset, epoch: Option<LeaderEpoch>| Found {
        offset: Some(offset),
        epoch: epoch.or(Some(current)),
        timestamp: None,
    };
    match Wanted::parse(asked.timestamp, context.version)? {
        // Of a log that is not open the high watermark is the end.
        Wanted::Latest => Ok(at(until, view.map_or(standing.latest_epoch, |view| view.epoch_of(until)))),
        Wanted::Earliest | Wanted::EarliestLocal => Ok(at(standing.log_start, standing.first_epoch)),
        Wanted::LatestTiered => Ok(Found::default()),
        // A log without records is not opened to find none.
        Wanted::MaxTimestamp | Wanted::At(_) if standing.is_empty() => Ok(Found::default()),
        Wanted::MaxTimestamp => search(context, partition, move |view| view.max_timestamp(until)).await,
        Wanted::At(timestamp) => {
            search(context, partition, move |view| view.offset_for_time(timestamp, until)).await
        }
    }
}

async fn search(
    context: &Context<'_>,
    partition: &Arc<Partition>,
    lookup: impl FnOnce(&LogView) -> Result<Option<TimedOffset>, ReadError> + Send + 'static,
) -> Result<Found, ErrorCode> {
    let _turn = context.broker.decode_turn().await;
    let partition = Arc::clone(partition);
    let looked_up = tokio::task::spawn_blocking(move || partition.open_view().map(|view| lookup(view)));
    let looked_up = match looked_up.await {
        Ok(found) => Ok(found.map_err(|_| ErrorCode::NotLeaderOrFollower)?),
        Err(error) => Err(error),
    };
    match looked_up {
        Ok(Ok(Some(found))) => Ok(Found {
            offset: Some(found.offset),
            timestamp: Some(found.timestamp),
            epoch: found.leader_epoch,
        }),
        Ok(Ok(None)) => Ok(Found::default()),
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot look up an offset by time");
            Err(ErrorCode::KafkaStorageError)
        }
        Err(error) => {
            tracing::error!(%error, "a lookup by time panicked");
            Err(ErrorCode::UnknownServerError)
        }
    }
}

fn answer(
    partition_index: i32,
    found: Result<Found, ErrorCode>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let (error, found) = match found {
        Ok(found) => (ErrorCode::None, found),
        Err(error) => (error, Found::default()),
    };
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: error.code(),
        timestamp: found.timestamp.map_or(-1, |t| t.0),
        offset: found.offset.map_or(-1, Offset::get),
        leader_epoch: found.epoch.filter(|_| version >= EPOCH_VERSION_MIN).map_or(-1, LeaderEpoch::get),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_special_timestamp_needs_the_version_that_introduced_it() {
        assert_eq!(Wanted::parse(-3, 6), Err(ErrorCode::UnsupportedVersion));
        assert_eq!(Wanted::parse(-3, 7), Ok(Wanted::MaxTimestamp));
        assert_eq!(Wanted::parse(-6, 10), Err(ErrorCode::UnsupportedVersion));
        assert_eq!(Wanted::parse(0, 1), Ok(Wanted::At(TimestampMs(0))));
    }
}
