//! Moving where logs begin, because somebody wants records gone (DeleteRecords) or because they are old (`retention`).
//!
//! A log's start is kept in the metadata before the log moves: what was deleted does not come back, whatever happens
//! (design D2). Whole segments below the start are removed then. Knows no message.
//!
//! Topics do not change while starts are kept, else one that is deleted would leave its starts behind, nor while files
//! are removed, which are found by the topic's name. They may change in between: a log whose disk hangs keeps those
//! waiting who move its start, and nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_record::{Offset, TopicId, TopicName, TopicPartition};
use thiserror::Error;

use crate::broker::Broker;
use crate::meta::MetadataError;
use crate::metrics;
use crate::partition::Partition;

/// Where a log is to begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    HighWatermark,
    At(Offset),
}

/// Why a log does not begin elsewhere.
#[derive(Clone, Debug, Error)]
pub(crate) enum MoveError {
    #[error("there is no such partition")]
    Unknown,
    #[error("topic names that begin with __ are the broker's own")]
    Internal,
    #[error("the partition is not in service")]
    NotLeader,
    #[error("offset {wanted} is beyond the high watermark {high_watermark}")]
    OutOfRange { wanted: Offset, high_watermark: Offset },
    #[error("cannot store where the log begins: {0}")]
    Metadata(Arc<MetadataError>),
    #[error("deleting records panicked")]
    Panicked,
}

impl MoveError {
    /// The code that a client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown => ErrorCode::UnknownTopicOrPartition,
            Self::Internal => ErrorCode::InvalidTopicException,
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::Metadata(error) => error.code(),
            Self::Panicked => ErrorCode::UnknownServerError,
        }
    }
}

/// A partition and where its log is to begin.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) topic: TopicName,
    /// The partition's number on the wire.
    pub(crate) partition: i32,
    pub(crate) target: Target,
}

/// What became of a move: where the log begins now.
pub(crate) type Moved = Result<Offset, MoveError>;

/// Makes the moves, in one transaction; each on its own succeeds or not. The answers are in their order.
pub(crate) async fn move_all(broker: &Arc<Broker>, moves: Vec<Move>) -> Vec<Moved> {
    let (broker, count) = (Arc::clone(broker), moves.len());
    let moved = tokio::task::spawn_blocking(move || move_found(&broker, &moves));
    moved.await.unwrap_or_else(|error| {
        tracing::error!(%error, "deleting records panicked");
        vec![Err(MoveError::Panicked); count]
    })
}

fn move_found(broker: &Broker, moves: &[Move]) -> Vec<Moved> {
    let found: Vec<_> = moves.iter().map(|wanted| find(broker, wanted)).collect();
    // Each partition once, however often it is named; of several moves the furthest counts.
    let mut furthest: BTreeMap<&TopicPartition, Found> = BTreeMap::new();
    for found in found.iter().flatten().filter(|found| found.is_ahead()) {
        let entry = furthest.entry(found.partition.id()).or_insert_with(|| found.clone());
        entry.start = entry.start.max(found.start);
    }
    let moved = begin_all(broker, &furthest);
    let result = |found: &Found| match moved.get(found.partition.id()) {
        Some(moved) => moved.clone(),
        None => {
            found.partition.standing().map(|standing| standing.log_start).map_err(|_| MoveError::NotLeader)
        }
    };
    found.iter().map(|found| found.as_ref().map_err(Clone::clone).and_then(result)).collect()
}

/// Makes the moves that retention wants. Blocks on the disk.
pub(crate) fn retain(broker: &Broker, wanted: &[Found]) {
    let wanted = wanted.iter().filter(|found| found.is_ahead());
    begin_all(broker, &wanted.map(|found| (found.partition.id(), found.clone())).collect());
}

/// Keeps in the metadata where logs begin, in one transaction, and then has them begin there.
fn begin_all<'a>(
    broker: &Broker,
    furthest: &BTreeMap<&'a TopicPartition, Found>,
) -> BTreeMap<&'a TopicPartition, Moved> {
    if furthest.is_empty() {
        return BTreeMap::new();
    }
    let kept = keep(broker, furthest).map_err(|error| MoveError::Metadata(Arc::new(error)));
    if let Err(error) = &kept {
        tracing::error!(%error, "records are not deleted");
    }
    let begin = |found: &Found| {
        if !kept.clone()?.contains(&found.topic) {
            return Err(MoveError::Unknown);
        }
        begin_at(broker, found)
    };
    furthest.iter().map(|(id, found)| (*id, begin(found))).collect()
}

/// Keeps in the metadata where logs of topics begin that exist still, and says which topics these are.
fn keep(
    broker: &Broker,
    furthest: &BTreeMap<&TopicPartition, Found>,
) -> Result<BTreeSet<TopicId>, MetadataError> {
    let _one_at_a_time = broker.topic_changes.lock();
    let exists = |found: &&Found| broker.topics.by_id(found.topic).is_some();
    let existing: Vec<&Found> = furthest.values().filter(exists).collect();
    let starts = existing.iter().map(|found| (found.topic, found.partition.id().partition, found.start));
    broker.metadata.advance_log_starts(starts)?;
    Ok(existing.iter().map(|found| found.topic).collect())
}

/// A partition, and the offset where it is to begin.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) topic: TopicId,
    pub(crate) partition: Arc<Partition>,
    pub(crate) start: Offset,
}

impl Found {
    /// Whether the log begins earlier now.
    fn is_ahead(&self) -> bool {
        self.partition.standing().is_ok_and(|standing| standing.log_start < self.start)
    }
}

/// The partition and the offset that a move stands for.
fn find(broker: &Broker, wanted: &Move) -> Result<Found, MoveError> {
    let topic = broker.topics.by_name(&wanted.topic).ok_or(MoveError::Unknown)?;
    if topic.name.is_internal() {
        return Err(MoveError::Internal);
    }
    let partition = topic.partition(wanted.partition).ok_or(MoveError::Unknown)?;
    partition.leader_epoch().map_err(|_| MoveError::NotLeader)?;
    let high_watermark = partition.high_watermark();
    let start = match wanted.target {
        Target::HighWatermark => high_watermark,
        Target::At(offset) if offset > high_watermark => {
            return Err(MoveError::OutOfRange { wanted: offset, high_watermark });
        }
        Target::At(offset) => offset,
    };
    Ok(Found { topic: topic.id, partition: Arc::clone(partition), start })
}

/// Moves the start of a log that is not beyond the wanted one, and removes what lies below.
fn begin_at(broker: &Broker, found: &Found) -> Moved {
    let Found { topic, partition, start } = found;
    let start = *start;
    match partition.delete_before(start).ok_or(MoveError::NotLeader)? {
        Ok((removal, log_start)) => {
            let _one_at_a_time = broker.topic_changes.lock();
            if broker.topics.by_id(*topic).is_none() {
                // Its files went with it, and a topic of the same name may have begun others.
                return Err(MoveError::Unknown);
            }
            match removal.run() {
                Ok(removed) => {
                    metrics::count_deleted(removed);
                    tracing::info!(partition = %partition.id(), %log_start, removed, "deleted records");
                }
                Err(error) => {
                    tracing::warn!(partition = %partition.id(), %error, "segments below the log's start stay for now");
                }
            }
            Ok(log_start)
        }
        Err(error) => {
            // The log was cut meanwhile, below what consumers had been shown.
            tracing::error!(partition = %partition.id(), %error, "the log begins where it began until the next start");
            Err(MoveError::OutOfRange { wanted: start, high_watermark: partition.high_watermark() })
        }
    }
}
