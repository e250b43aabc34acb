//! Produce (0): appends one batch per partition and answers when the records are durable.
//!
//! Versions: 3-13 (0-2 are listed for librdkafka and refused). The append happens before the next request of the
//! connection is looked at, the wait for durability does not: that is what lets one connection fill a group commit.
//! `acks=1` and `acks=all` both mean the topic's durability; `acks=0` promises nothing and gets no answer.
//! What is not durable within the request's `timeout_ms` is answered REQUEST_TIMED_OUT, stored or not; on a full disk all is
//! refused before it is tried. A client above its quota is told to wait after its records are appended (KIP-219). Not here: transactions (refused),
//! internal topics (not writable).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_protocol::ErrorCode;
use highwater_protocol::api::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use highwater_protocol::api::{ProduceRequest, ProduceResponse};
use highwater_protocol::wire::{Records, Str, Uuid};
use highwater_record::{
    Batch, CodecError, Compressed, Keys, ProduceError, ProduceRules, TimestampMs, needs_decompression,
    validate,
};
use highwater_storage::AppendError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;

use super::{partition, topic_by_id, topic_by_name};
use crate::broker::Broker;
use crate::clock;
use crate::context::{Context, throttle_time_ms};
use crate::metrics;
use crate::partition::{Accepted, Partition, Refused};
use crate::quotas::Direction;
use crate::refusal::{Refusal, refuse};
use crate::topics::Topic;
use crate::waiters::{Ack, Lost};

/// The first version that names topics by id (KIP-516).
const TOPIC_ID_VERSION_MIN: i16 = 13;
/// Up to here KAFKA_STORAGE_ERROR is not known and NOT_LEADER_OR_FOLLOWER stands for it (`PRODUCE_REQUEST_V4`).
const NO_STORAGE_ERROR_VERSION_MAX: i16 = 3;
/// How long a client waits that does not say it (`request.timeout.ms`).
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// A produce request whose batches are appended and whose acknowledgements are awaited.
pub(crate) struct PendingProduce {
    version: i16,
    appended: Instant,
    /// When the client waits no longer.
    deadline: Instant,
    topics: Vec<PendingTopic>,
    /// How long the client has to wait before its next request.
    throttle: Option<Duration>,
}

struct PendingTopic {
    name: Str,
    topic_id: Uuid,
    partitions: Vec<PendingPartition>,
}

struct PendingPartition {
    response: PartitionProduceResponse,
    /// Gone once it has resolved.
    ack: Option<Ack>,
}

/// A batch that may not be appended, and what the client is told.
#[derive(Debug)]
struct Rejection {
    code: ErrorCode,
    message: Option<String>,
    /// The record that is the cause, by its place in the batch.
    record: Option<u32>,
}

impl From<ErrorCode> for Rejection {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, record: None }
    }
}

/// A checked batch on its way to its partition.
struct Append {
    partition: Arc<Partition>,
    batch: Batch,
}

impl Append {
    fn try_run(&self, broker: &Broker, now: TimestampMs) -> Option<Result<Accepted, Refused>> {
        self.partition.try_append(&self.batch, now, &broker.scheduler)
    }

    fn run(&self, broker: &Broker, now: TimestampMs, deadline: Instant) -> Result<Accepted, Refused> {
        self.partition.append_until(&self.batch, now, &broker.scheduler, deadline)
    }
}

/// Appends every batch of the request, in order. What is returned waits for durability.
pub(crate) async fn handle(context: &Context<'_>, request: ProduceRequest) -> PendingProduce {
    let began = Instant::now();
    let wait = u64::try_from(request.timeout_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
    let deadline = began + wait.unwrap_or(TIMEOUT_DEFAULT);
    let throttle = context.charge(Direction::Produced, context.request_bytes as u64);
    let version = context.version;
    let mut pending = PendingProduce { version, appended: began, deadline, topics: Vec::new(), throttle };
    if let Some(refusal) = refusal_of_all(context.broker, &request) {
        pending.topics = refuse_topics(request.topic_data, &refusal);
        return pending;
    }
    let needs_decompression = |data: &TopicProduceData| needs_decompression_of(context, data);
    let (topics, appends) = if request.topic_data.iter().any(needs_decompression) {
        Box::pin(check_on_the_pool(context, request.topic_data)).await
    } else {
        check_topics(context, request.topic_data)
    };
    pending.topics = topics;
    context.broker.disk.count(context.request_bytes);
    let results = append_in_order(context.broker, appends, deadline).await;
    pending.appended = Instant::now();
    pending.record(context.broker, results);
    pending
}

/// Why nothing of the request is tried.
fn refusal_of_all(broker: &Broker, request: &ProduceRequest) -> Option<Refusal> {
    if !matches!(request.acks, -1..=1) {
        let sentence = format!("acks is {}; it must be -1, 0 or 1", request.acks);
        return Some(refuse(ErrorCode::InvalidRequiredAcks, sentence));
    }
    if request.transactional_id.is_some() {
        let sentence = "transactions are not built yet; send without a transactional id";
        return Some(refuse(ErrorCode::TransactionalIdAuthorizationFailed, sentence));
    }
    let reason = broker.metadata.read_only().map(str::to_owned).or_else(|| broker.disk.refusal())?;
    Some(refuse(ErrorCode::KafkaStorageError, reason))
}

/// Refuses every partition of a request.
fn refuse_topics(data: Vec<TopicProduceData>, refusal: &Refusal) -> Vec<PendingTopic> {
    let mut parts = 0..;
    let mut refuse_partition = |data: PartitionProduceData| {
        let (code, message) = refusal.told_of_part(parts.next().unwrap_or(usize::MAX));
        let mut response =
            PartitionProduceResponse { index: data.index, ..PartitionProduceResponse::default() };
        let code = ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
        reject(
            &mut response,
            Rejection { code, message: message.map(|message| message.to_string()), record: None },
        );
        PendingPartition { response, ack: None }
    };
    let topics = data.into_iter().map(|data| PendingTopic {
        name: data.name.detach(),
        topic_id: data.topic_id,
        partitions: data.partition_data.into_iter().map(&mut refuse_partition).collect(),
    });
    topics.collect()
}

/// Whether checking a batch of this topic may take long.
fn needs_decompression_of(context: &Context<'_>, data: &TopicProduceData) -> bool {
    let topic = topic_of(context, data);
    data.partition_data.iter().any(|data| {
        let partition = topic.as_ref().ok().and_then(|topic| partition(topic, data.index).ok());
        let keys = partition.map_or(Keys::Optional, |partition| partition.keys());
        data.records.bytes().is_some_and(|bytes| needs_decompression(bytes, keys))
    })
}

/// The topic that is meant.
fn topic_of(context: &Context<'_>, data: &TopicProduceData) -> Result<Arc<Topic>, ErrorCode> {
    if context.version >= TOPIC_ID_VERSION_MIN {
        topic_by_id(context.broker, data.topic_id)
    } else {
        topic_by_name(context.broker, &data.name)
    }
}

/// Checks in turn with others on the pool: what is small on the wire may be large in memory and long in time.
async fn check_on_the_pool(
    context: &Context<'_>,
    data: Vec<TopicProduceData>,
) -> (Vec<PendingTopic>, Vec<Append>) {
    let _turn = context.broker.decode_turn().await;
    let broker = Arc::clone(context.broker);
    let (local, peer, version) = (context.local, context.peer, context.version);
    let (client_id, request_bytes) = (context.client_id.clone(), context.request_bytes);
    let checked = tokio::task::spawn_blocking(move || {
        let context = Context { broker: &broker, local, peer, version, client_id, request_bytes };
        check_topics(&context, data)
    });
    match checked.await.map_err(JoinError::try_into_panic) {
        Ok(checked) => checked,
        // What panics there would have panicked here.
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down, and this connection with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

fn check_topics(context: &Context<'_>, data: Vec<TopicProduceData>) -> (Vec<PendingTopic>, Vec<Append>) {
    let mut appends = Vec::new();
    let topics = data.into_iter().map(|data| check_topic(context, data, &mut appends));
    (topics.collect(), appends)
}

fn check_topic(context: &Context<'_>, data: TopicProduceData, appends: &mut Vec<Append>) -> PendingTopic {
    let topic = topic_of(context, &data).and_then(|topic| match topic.name.is_internal() {
        true => Err(ErrorCode::InvalidTopicException),
        false => Ok(topic),
    });
    let mut partitions = Vec::with_capacity(data.partition_data.len());
    for data in data.partition_data {
        let index = data.index;
        let checked = topic.as_ref().map_err(|code| (*code).into()).and_then(|topic| {
            let partition = partition(topic, index)?;
            Ok(Append { partition: Arc::clone(partition), batch: check_batch(context, partition, data)? })
        });
        let mut response =
            PartitionProduceResponse { index, base_offset: -1, ..PartitionProduceResponse::default() };
        match checked {
            Ok(append) => appends.push(append),
            Err(rejection) => reject(&mut response, rejection),
        }
        partitions.push(PendingPartition { response, ack: None });
    }
    // The name is a slice of the request's frame, which must not live as long as the answer is pending.
    PendingTopic { name: data.name.detach(), topic_id: data.topic_id, partitions }
}

fn check_batch(
    context: &Context<'_>,
    partition: &Partition,
    data: PartitionProduceData,
) -> Result<Batch, Rejection> {
    let Records::Bytes(bytes) = data.records else {
        let message = Some("the request has no record batch for this partition".to_owned());
        return Err(Rejection { code: ErrorCode::InvalidRecord, message, record: None });
    };
    let rules = ProduceRules {
        batch_bytes_max: partition.message_bytes_max(),
        produce_version: context.version,
        compressed: Compressed::Trust,
        keys: partition.keys(),
        limits: context.broker.decode_limits(),
    };
    validate(bytes, &rules).map_err(|error| {
        let message = match &error {
            ProduceError::TooLarge { .. } => format!(
                "{error} on {:?}; send smaller batches or create the topic with a larger max.message.bytes",
                partition.id().topic.as_str()
            ),
            ProduceError::Codec(CodecError::TooLarge { limit, .. }) if is_for_memory(context, *limit) => format!(
                "{error}, the most that fits a memory budget of {}; send smaller batches or start the broker with a larger \
                 --memory",
                context.broker.memory.budget()
            ),
            _ => error.to_string(),
        };
        let record = match &error {
            ProduceError::NoKey { index } => Some(*index),
            _ => None,
        };
        let client_id = context.client_id.as_deref().unwrap_or_default();
        tracing::debug!(partition = %partition.id(), peer = %context.peer, client_id, message, "refused a batch");
        Rejection { code: code_of(&error), message: Some(message), record }
    })
}

/// Whether this limit of a decompression is the memory budget's, and not the ratio's.
fn is_for_memory(context: &Context<'_>, limit: usize) -> bool {
    let memory = &context.broker.memory;
    memory.limits_decodes() && limit == memory.decode_bytes_max()
}

fn code_of(error: &ProduceError) -> ErrorCode {
    match error {
        ProduceError::TooLarge { .. } | ProduceError::Codec(CodecError::TooLarge { .. }) => {
            ErrorCode::MessageTooLarge
        }
        ProduceError::Batch(_) => ErrorCode::CorruptMessage,
        ProduceError::LogAppendTime => ErrorCode::InvalidTimestamp,
        ProduceError::ZstdVersion { .. } => ErrorCode::UnsupportedCompressionType,
        ProduceError::Transactional => ErrorCode::TransactionalIdAuthorizationFailed,
        _ => ErrorCode::InvalidRecord,
    }
}

/// How often an append looks whether slots and locks are free, other tasks being run in between. Most are held for
/// microseconds, and a thread of the pool costs more than that.
const ATTEMPTS: usize = 8;

/// Appends on this thread while slots and locks are free, and on the pool from the first one that is not for long; either
/// way in order, and completed before the connection's next request. What has not begun by the deadline never does.
async fn append_in_order(
    broker: &Arc<Broker>,
    appends: Vec<Append>,
    deadline: Instant,
) -> Vec<Result<Accepted, Refused>> {
    let now = clock::now();
    let mut results = Vec::with_capacity(appends.len());
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::task::yield_now().await;
        }
        if broker.append_pace.is_slow() {
            break;
        }
        let Ok(_slot) = broker.append_slots.try_acquire() else { continue };
        let began = Instant::now();
        let _under_way = broker.disk.under_way().begin(began);
        for append in &appends[results.len()..] {
            let Some(result) = append.try_run(broker, now) else { break };
            results.push(result);
        }
        broker.append_pace.observe(began.elapsed());
        if results.len() == appends.len() {
            return results;
        }
    }
    metrics::count_pooled_append();
    Box::pin(append_on_the_pool(broker, appends, results, deadline)).await
}

/// Appends what `results` lacks, on threads of the pool. A log that is not free keeps a few of them, however many wait
/// for it: the others wait for their turn without a thread.
async fn append_on_the_pool(
    broker: &Arc<Broker>,
    mut appends: Vec<Append>,
    mut results: Vec<Result<Accepted, Refused>>,
    deadline: Instant,
) -> Vec<Result<Accepted, Refused>> {
    let (count, now) = (appends.len(), clock::now());
    let mut rest = VecDeque::from(appends.split_off(results.len()));
    while let Some(first) = rest.front() {
        let partition = Arc::clone(&first.partition);
        let broker = Arc::clone(broker);
        let pooled = async {
            let turn = partition.turn().await;
            tokio::task::spawn_blocking(move || append_while_free(&broker, rest, turn, now, deadline)).await
        };
        match tokio::time::timeout_at(deadline.into(), pooled).await {
            Ok(Ok((done, left))) => {
                results.extend(done);
                rest = left;
            }
            // One write may be under way still; the rest gives up by itself.
            Err(_) => {
                results.resize_with(count, || Err(Refused::TimedOut));
                break;
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "an append panicked");
                results.resize_with(count, || Err(Refused::NotLeader));
                break;
            }
        }
    }
    results
}

/// Appends the first of `appends`, whose turn it is, and those behind it that get a turn at once. Gives back what they
/// came to and the others.
fn append_while_free(
    broker: &Broker,
    mut appends: VecDeque<Append>,
    turn: OwnedSemaphorePermit,
    now: TimestampMs,
    deadline: Instant,
) -> (Vec<Result<Accepted, Refused>>, VecDeque<Append>) {
    let began = Instant::now();
    let _under_way = broker.disk.under_way().begin(began);
    let (mut results, mut turn) = (Vec::new(), Some(turn));
    while let Some(append) = appends.front() {
        let Some(turn) = turn.take().or_else(|| append.partition.try_turn()) else { break };
        results.push(append.run(broker, now, deadline));
        drop(turn);
        appends.pop_front();
    }
    broker.append_pace.observe(began.elapsed());
    (results, appends)
}

impl PendingProduce {
    /// Enters what the log said into the places that were left open for it, in order.
    fn record(&mut self, broker: &Broker, results: Vec<Result<Accepted, Refused>>) {
        let mut results = results.into_iter();
        for partition in self.partitions() {
            if partition.response.error_code != ErrorCode::None.code() {
                continue;
            }
            match results.next() {
                Some(Ok(accepted)) => {
                    broker.disk.found_space();
                    partition.accept(accepted);
                }
                Some(Err(refused)) => reject(&mut partition.response, rejection_of(broker, &refused)),
                None => reject(&mut partition.response, ErrorCode::UnknownServerError.into()),
            }
        }
    }

    fn partitions(&mut self) -> impl Iterator<Item = &mut PendingPartition> {
        self.topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut())
    }

    /// How long the client has to wait before its next request.
    pub(crate) const fn throttle(&self) -> Option<Duration> {
        self.throttle
    }

    /// The first partition that failed already, in words.
    pub(crate) fn first_error(&mut self) -> Option<String> {
        let failed = self.partitions().find(|p| p.response.error_code != ErrorCode::None.code())?;
        let code = ErrorCode::from_code(failed.response.error_code).map_or("UNKNOWN", ErrorCode::name);
        let message = failed.response.error_message.as_ref().map_or("", |message| message.as_str());
        Some(format!("partition {}: {code} {message}", failed.response.index))
    }

    /// Takes up the acknowledgements that are there. True if none is outstanding.
    pub(crate) fn settle(&mut self) -> bool {
        self.partitions().all(|partition| {
            let Some(ack) = &mut partition.ack else { return true };
            match ack.try_recv() {
                Ok(result) => partition.acknowledge(result),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => return false,
                Err(tokio::sync::oneshot::error::TryRecvError::Closed) => {
                    partition.acknowledge(Err(Lost::Closed))
                }
            }
            true
        })
    }

    /// Waits for every acknowledgement, as long as the client does.
    pub(crate) async fn finish(mut self) -> ProduceResponse {
        let (version, deadline) = (self.version, self.deadline);
        for partition in self.partitions() {
            if let Some(ack) = partition.ack.take() {
                match tokio::time::timeout_at(deadline.into(), ack).await {
                    Ok(ack) => partition.acknowledge(ack.unwrap_or(Err(Lost::Closed))),
                    Err(_) => reject(&mut partition.response, timed_out()),
                }
            }
            let code = &mut partition.response.error_code;
            if version <= NO_STORAGE_ERROR_VERSION_MAX && *code == ErrorCode::KafkaStorageError.code() {
                *code = ErrorCode::NotLeaderOrFollower.code();
            }
        }
        metrics::observe_ack_wait(self.appended.elapsed());
        let responses = self.topics.into_iter().map(|topic| TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses: topic.partitions.into_iter().map(|partition| partition.response).collect(),
        });
        ProduceResponse {
            responses: responses.collect(),
            throttle_time_ms: self.throttle.map_or(0, throttle_time_ms),
            ..ProduceResponse::default()
        }
    }
}

impl PendingPartition {
    fn accept(&mut self, accepted: Accepted) {
        self.response.base_offset = accepted.appended.base_offset.get();
        self.response.log_append_time_ms = accepted.appended.log_append_time.map_or(-1, |time| time.0);
        self.response.log_start_offset = accepted.log_start.get();
        self.ack = Some(accepted.ack);
    }

    fn acknowledge(&mut self, result: Result<(), Lost>) {
        self.ack = None;
        let (code, message) = match result {
            Ok(()) => return,
            Err(Lost::SyncFailed) => (
                ErrorCode::KafkaStorageError,
                "the disk did not confirm the sync of this batch; it is not stored, send it again",
            ),
            Err(Lost::Closed) => {
                (ErrorCode::NotLeaderOrFollower, "the partition was closed before the batch was durable")
            }
        };
        reject(&mut self.response, Rejection { code, message: Some(message.to_owned()), record: None });
    }
}

fn reject(response: &mut PartitionProduceResponse, rejection: Rejection) {
    response.error_code = rejection.code.code();
    response.record_errors = (rejection.record.into_iter())
        .map(|index| BatchIndexAndErrorMessage {
            batch_index: i32::try_from(index).unwrap_or(i32::MAX),
            batch_index_error_message: rejection.message.clone().map(Str::from),
        })
        .collect();
    response.error_message = rejection.message.map(Str::from);
    response.base_offset = -1;
    response.log_append_time_ms = -1;
    response.log_start_offset = -1;
}

fn timed_out() -> Rejection {
    let message =
        "the disk did not confirm the batch within the request's timeout_ms; it may be stored or not";
    Rejection { code: ErrorCode::RequestTimedOut, message: Some(message.to_owned()), record: None }
}

/// What the client is told about an append that the log refused.
fn rejection_of(broker: &Broker, refused: &Refused) -> Rejection {
    let error = match refused {
        Refused::NotLeader => return ErrorCode::NotLeaderOrFollower.into(),
        Refused::TimedOut => return timed_out(),
        Refused::Log(AppendError::NoSpace(_)) => {
            // Said in the log when it becomes so, not for each request.
            let message = Some(broker.disk.no_space(Instant::now()));
            return Rejection { code: ErrorCode::KafkaStorageError, message, record: None };
        }
        Refused::Log(error) => error,
    };
    let code = match error {
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::ProducerFenced { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::TooLarge { .. } => ErrorCode::RecordListTooLarge,
        _ => ErrorCode::KafkaStorageError,
    };
    if code == ErrorCode::KafkaStorageError {
        tracing::error!(%error, "an append failed");
    }
    Rejection { code, message: Some(error.to_string()), record: None }
}
