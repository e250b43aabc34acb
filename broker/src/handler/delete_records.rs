//! DeleteRecords (21): moves where partitions begin, and answers where they begin now.
//!
//! Versions: 0-2. An offset of -1 stands for the high watermark; one beyond it is refused, one below the start changes
//! nothing. When the answer leaves, what was deleted stays deleted, also if the broker dies.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};
use highwater_record::{Offset, TopicName};

use crate::context::Context;
use crate::log_starts::{self, Move, Moved, Target};

/// The offset that stands for the high watermark (`DeleteRecordsRequest.HIGH_WATERMARK`).
const HIGH_WATERMARK: i64 = -1;
/// The low watermark of a partition that was not moved (`DeleteRecordsResponse.INVALID_LOW_WATERMARK`).
const NO_LOW_WATERMARK: i64 = -1;

pub(crate) async fn handle(context: &Context<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut moves = Vec::new();
    // What cannot be tried, or the place of its answer among the moves.
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let name = TopicName::new(&asked.name).map_err(|_| ErrorCode::UnknownTopicOrPartition);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let planned = name.clone().and_then(|topic| plan(topic, &partition)).map(|planned| {
                moves.push(planned);
                moves.len() - 1
            });
            partitions.push((partition.partition_index, planned));
        }
        topics.push((asked.name, partitions));
    }
    let moved = log_starts::move_all(context.broker, moves).await;
    let topics = topics.into_iter().map(|(name, partitions)| DeleteRecordsTopicResult {
        name,
        partitions: partitions
            .into_iter()
            .map(|(index, planned)| answer(index, planned.and_then(|at| code_of(moved.get(at)))))
            .collect(),
    });
    DeleteRecordsResponse { topics: topics.collect(), ..DeleteRecordsResponse::default() }
}

fn plan(topic: TopicName, asked: &DeleteRecordsPartition) -> Result<Move, ErrorCode> {
    let target = match asked.offset {
        HIGH_WATERMARK => Target::HighWatermark,
        offset => Target::At(Offset::new(offset).ok_or(ErrorCode::OffsetOutOfRange)?),
    };
    Ok(Move { topic, partition: asked.partition_index, target })
}

fn code_of(moved: Option<&Moved>) -> Result<Offset, ErrorCode> {
    moved.map_or(Err(ErrorCode::UnknownServerError), |moved| moved.clone().map_err(|error| error.code()))
}

fn answer(partition_index: i32, moved: Result<Offset, ErrorCode>) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark: moved.as_ref().map_or(NO_LOW_WATERMARK, |start| start.get()),
        error_code: moved.err().unwrap_or(ErrorCode::None).code(),
    }
}
