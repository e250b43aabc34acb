//! Fetch (1): whole batches from each partition, up to the high watermark, waiting for them if there are too few.
//!
//! Versions: 4-18. Record bytes are not read here: the answer carries file ranges that leave by `sendfile`. There
//! are no fetch sessions yet: session id 0 is answered and clients send full requests. Replicas, isolation (there
//! are no transactions: the last stable offset is the high watermark), rack and cluster id have no effect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::fetch::{FetchPartition, FetchTopic, FetchableTopicResponse, PartitionData};
use highwater_protocol::api::{FetchRequest, FetchResponse};
use highwater_protocol::wire::{Records, Str, Uuid};
use highwater_record::Offset;
use highwater_storage::{FileRange, FirstBatch, ReadError};

use super::{check_epoch, partition, topic_by_id, topic_by_name};
use crate::context::{Context, throttle_time_ms};
use crate::metrics;
use crate::partition::Partition;
use crate::quotas::Allowance;
use crate::waiters::FetchWaiter;

/// The first version that names topics by id (KIP-516).
const TOPIC_ID_VERSION_MIN: i16 = 13;
/// Up to here KAFKA_STORAGE_ERROR is not known and NOT_LEADER_OR_FOLLOWER stands for it.
const NO_STORAGE_ERROR_VERSION_MAX: i16 = 5;
/// The longest that a fetch is parked, whatever the client asks.
const PARKED_MAX: Duration = Duration::from_secs(600);

/// One partition of the request with what was found for it.
struct Asked {
    request: FetchPartition,
    partition: Result<Arc<Partition>, ErrorCode>,
}

struct AskedTopic {
    name: Str,
    id: Uuid,
    partitions: Vec<Asked>,
}

/// What shapes an answer besides the partitions.
#[derive(Clone, Copy)]
struct AnswerForm {
    version: i16,
    bytes_max: u32,
    read_committed: bool,
}

impl AnswerForm {
    /// What a failing disk is called in this version.
    const fn storage_error(self) -> ErrorCode {
        if self.version <= NO_STORAGE_ERROR_VERSION_MAX {
            ErrorCode::NotLeaderOrFollower
        } else {
            ErrorCode::KafkaStorageError
        }
    }
}

/// What one pass over the partitions found.
#[derive(Default)]
struct Pass {
    topics: Vec<FetchableTopicResponse>,
    /// The file ranges of each deferred records field.
    ranges: Vec<Vec<FileRange>>,
    bytes: u64,
    failed: bool,
}

/// The response and the file ranges that its deferred records stand for, in order.
pub(crate) async fn handle(
    context: &Context<'_>,
    request: FetchRequest,
) -> (FetchResponse, Vec<Vec<FileRange>>) {
    if request.session_id != 0 && request.session_epoch > 0 {
        let error_code = ErrorCode::FetchSessionIdNotFound.code();
        return (FetchResponse { error_code, ..FetchResponse::default() }, Vec::new());
    }
    let bytes_max =
        u32::try_from(request.max_bytes).unwrap_or(0).min(context.broker.config().fetch_bytes_max);
    let bytes_max = match context.fetch_allowance(bytes_max) {
        Allowance::Bytes(bytes_max) => bytes_max,
        // Empty and without an error (Kafka: `FetchContext.getThrottledResponse`).
        Allowance::Wait(wait) => {
            let throttle_time_ms = throttle_time_ms(wait);
            return (FetchResponse { throttle_time_ms, ..FetchResponse::default() }, Vec::new());
        }
    };
    let bytes_min = u64::try_from(request.min_bytes).unwrap_or(0).min(bytes_max.into());
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(PARKED_MAX);
    let read_committed = request.isolation_level == 1;
    let topics: Arc<[_]> = request.topics.into_iter().map(|topic| resolve(context, topic)).collect();
    let answer = AnswerForm { version: context.version, bytes_max, read_committed };

    let mut pass = read(&topics, answer).await;
    if pass.bytes < bytes_min && !pass.failed && !wait.is_zero() && !topics.is_empty() {
        park(context, &topics, answer, bytes_min, wait).await;
        pass = read(&topics, answer).await;
    }
    metrics::count_fetched(pass.bytes);
    (FetchResponse { responses: pass.topics, ..FetchResponse::default() }, pass.ranges)
}

fn resolve(context: &Context<'_>, asked: FetchTopic) -> AskedTopic {
    let topic = if context.version >= TOPIC_ID_VERSION_MIN {
        topic_by_id(context.broker, asked.topic_id)
    } else {
        topic_by_name(context.broker, &asked.topic)
    };
    let find = |request: FetchPartition| {
        let found =
            topic.as_ref().map_err(|code| *code).and_then(|topic| partition(topic, request.partition));
        Asked { partition: found.cloned(), request }
    };
    // The name is a slice of the frame, which must not live as long as the fetch is parked.
    AskedTopic {
        name: asked.topic.detach(),
        id: asked.topic_id,
        partitions: asked.partitions.into_iter().map(find).collect(),
    }
}

/// Reads every partition: here if all is in memory, on the blocking pool if the disk may have to be waited for.
async fn read(topics: &Arc<[AskedTopic]>, answer: AnswerForm) -> Pass {
    if topics.iter().flat_map(|topic| &topic.partitions).all(is_hot) {
        let pass = read_now(topics, answer);
        if pass.ranges.iter().flatten().all(FileRange::is_resident) {
            return pass;
        }
    }
    metrics::count_cold_fetch();
    let topics = Arc::clone(topics);
    let pooled = tokio::task::spawn_blocking(move || {
        let mut pass = read_now(&topics, answer);
        warm(&mut pass, answer);
        pass
    });
    pooled.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a read panicked");
        Pass { failed: true, ..Pass::default() }
    })
}

fn is_hot(asked: &Asked) -> bool {
    let (Ok(partition), Some(from)) = (&asked.partition, Offset::new(asked.request.fetch_offset)) else {
        return true;
    };
    partition.view().map_or(true, |view| view.is_hot(from))
}

/// Brings every range into memory. What cannot be read is answered as an error of its partition alone.
fn warm(pass: &mut Pass, answer: AnswerForm) {
    let mut ranges = std::mem::take(&mut pass.ranges).into_iter();
    for data in pass.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let Records::Deferred { len } = data.records else { continue };
        let Some(ranges) = ranges.next() else { continue };
        match ranges.iter().try_for_each(FileRange::warm) {
            Ok(()) => pass.ranges.push(ranges),
            Err(error) => {
                tracing::error!(partition = data.partition_index, %error, "cannot read from the disk");
                data.error_code = answer.storage_error().code();
                data.records = Records::Bytes(Bytes::new());
                pass.bytes -= u64::from(len);
            }
        }
    }
}

/// Reads every partition in request order. The first batch of the answer may exceed the limits (KIP-74).
fn read_now(topics: &[AskedTopic], answer: AnswerForm) -> Pass {
    let mut pass = Pass::default();
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let left = u64::from(answer.bytes_max).saturating_sub(pass.bytes);
            let first = if pass.bytes == 0 { FirstBatch::Whole } else { FirstBatch::WithinLimit };
            let mut data = read_partition(asked, u32::try_from(left).unwrap_or(u32::MAX), first, &mut pass);
            if data.error_code == ErrorCode::KafkaStorageError.code() {
                data.error_code = answer.storage_error().code();
            }
            data.aborted_transactions = answer.read_committed.then(Vec::new);
            partitions.push(data);
        }
        pass.topics.push(FetchableTopicResponse {
            topic: topic.name.clone(),
            topic_id: topic.id,
            partitions,
        });
    }
    pass
}

fn read_partition(asked: &Asked, bytes_left: u32, first: FirstBatch, pass: &mut Pass) -> PartitionData {
    let mut data = PartitionData {
        partition_index: asked.request.partition,
        high_watermark: -1,
        records: Records::Bytes(Bytes::new()),
        ..PartitionData::default()
    };
    let result = asked.partition.as_ref().map_err(|code| *code).and_then(|partition| {
        let (epoch, view) = partition.leader().map_err(|_| ErrorCode::NotLeaderOrFollower)?;
        check_epoch(epoch, asked.request.current_leader_epoch)?;
        let high_watermark = partition.high_watermark();
        data.high_watermark = high_watermark.get();
        data.last_stable_offset = high_watermark.get();
        data.log_start_offset = view.log_start().get();
        let from = Offset::new(asked.request.fetch_offset).ok_or(ErrorCode::OffsetOutOfRange)?;
        let bytes_max = u32::try_from(asked.request.partition_max_bytes).unwrap_or(0).min(bytes_left);
        view.read(from, bytes_max, high_watermark, first).map_err(|error| code_of(&error, partition))
    });
    match result {
        Ok(chunk) => {
            if chunk.bytes > 0 {
                pass.bytes += u64::from(chunk.bytes);
                data.records = Records::Deferred { len: chunk.bytes };
                pass.ranges.push(chunk.ranges);
            }
        }
        Err(code) => {
            pass.failed = true;
            data.error_code = code.code();
        }
    }
    data
}

fn code_of(error: &ReadError, partition: &Partition) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        _ => {
            tracing::error!(partition = %partition.id(), %error, "cannot read");
            ErrorCode::KafkaStorageError
        }
    }
}

/// Waits until `bytes_min` bytes can be read, the wait is over, or the broker stops.
async fn park(
    context: &Context<'_>,
    topics: &Arc<[AskedTopic]>,
    answer: AnswerForm,
    bytes_min: u64,
    wait: Duration,
) {
    let _parked = metrics::fetch_parked();
    let waiter = FetchWaiter::new(i64::try_from(bytes_min).unwrap_or(i64::MAX));
    let registered = Registered { waiter: &waiter, topics };
    registered.enter();
    // Counted after the registration, so that nothing that arrives in between is missed.
    waiter.credit(read(topics, answer).await.bytes);
    let mut stopping = context.broker.stopping();
    tokio::select! {
        () = waiter.woken() => metrics::count_fetch_wake(),
        () = tokio::time::sleep(wait) => {}
        () = stopping.stopped() => {}
    }
}

/// A waiter at all partitions of a fetch; leaves them when dropped, also if the connection goes away.
struct Registered<'a> {
    waiter: &'a Arc<FetchWaiter>,
    topics: &'a [AskedTopic],
}

impl Registered<'_> {
    fn asked(&self) -> impl Iterator<Item = (&Asked, &Arc<Partition>)> {
        let all = self.topics.iter().flat_map(|topic| &topic.partitions);
        all.filter_map(|asked| Some((asked, asked.partition.as_ref().ok()?)))
    }

    fn enter(&self) {
        for (asked, partition) in self.asked() {
            let contributes = u64::try_from(asked.request.partition_max_bytes).unwrap_or(0);
            partition.fetches.park(self.waiter, contributes);
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for (_, partition) in self.asked() {
            partition.fetches.leave(self.waiter);
        }
    }
}
