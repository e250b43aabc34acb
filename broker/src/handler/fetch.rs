//! Fetch (1): whole batches from each partition, up to the high watermark, waiting for them if there are too few.
//!
//! Versions: 4-18. Record bytes are not read here: the answer carries file ranges that leave by `sendfile`. Sessions
//! (KIP-227) are kept as Kafka keeps them; an incremental request looks only at partitions that moved. Isolation (there
//! are no transactions: the last stable offset is the high watermark), rack and cluster id have no effect, and nobody
//! fetches as a replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_protocol::ErrorCode;
use highwater_protocol::api::fetch::{FetchTopic, FetchableTopicResponse, ForgottenTopic};
use highwater_protocol::api::{FetchRequest, FetchResponse};
use highwater_protocol::wire::{Str, Uuid};
use highwater_storage::FileRange;

use crate::answer_size;
use crate::context::{Context, throttle_time_ms};
use crate::fetch::{
    AnswerForm, Ask, Fetcher, Found, Increment, Key, Naming, Reading, Session, Settled, Superseded, TopicKey,
    Turn, read,
};
use crate::memory::Charge;
use crate::metrics;
use crate::quotas::Allowance;

/// The first version that names topics by id (KIP-516).
const TOPIC_ID_VERSION_MIN: i16 = 13;
/// The first version that says who fetches in a structure of its own (KIP-903).
const REPLICA_STATE_VERSION_MIN: i16 = 15;
/// The longest that a fetch is parked, whatever the client asks.
const PARKED_MAX: Duration = Duration::from_secs(600);
/// The epoch of a request that opens a session, and of one that wants none (Kafka: `FetchMetadata`).
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;
/// The id of no session.
const NO_SESSION: i32 = 0;

/// What a request is to its session.
#[derive(Clone, Copy)]
enum Kind {
    /// It has none.
    Sessionless,
    /// It opens one.
    Opening(Fetcher),
    /// It goes on with the one of this id.
    Incremental(i32),
}

/// The partitions of a request, and the epoch that stays their session's while nobody takes over.
struct Opened {
    kind: Kind,
    session: Arc<Session>,
    epoch: i32,
}

/// What a fetch waits for, and for how long.
struct Patience {
    bytes_min: u64,
    wait: Duration,
}

/// The response, the file ranges that its deferred records stand for, in order, and what it is charged for.
pub(crate) async fn handle(
    context: &Context<'_>,
    request: FetchRequest,
) -> (FetchResponse, Vec<Vec<FileRange>>, Charge) {
    let memory = &context.broker.memory;
    let alone = |response| (response, Vec::new(), memory.answer_unasked());
    let bytes_max =
        u32::try_from(request.max_bytes).unwrap_or(0).min(context.broker.config().fetch_bytes_max);
    let allowance = context.fetch_allowance(bytes_max);
    let bytes_max = if let Allowance::Bytes(bytes_max) = allowance { bytes_max } else { 0 };
    let form =
        AnswerForm { version: context.version, bytes_max, read_committed: request.isolation_level == 1 };
    let patience = Patience {
        bytes_min: u64::try_from(request.min_bytes).unwrap_or(0).min(bytes_max.into()),
        wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(PARKED_MAX),
    };
    let opened = match open(context, request) {
        Ok(opened) => opened,
        Err(code) => return alone(refusal(NO_SESSION, code)),
    };
    if let Allowance::Wait(wait) = allowance {
        return alone(throttled(opened.kind, wait));
    }
    let answered = match run(context, &opened, form, patience).await {
        Ok((reading, charge)) => {
            let bytes = reading.bytes;
            let found = opened.session.answer(opened.epoch, reading);
            found.inspect(|_| metrics::count_fetched(bytes)).map(|found| (found, charge))
        }
        Err(superseded) => Err(superseded),
    };
    match (answered, opened.kind) {
        (Ok((found, charge)), kind) => {
            let session_id = match kind {
                Kind::Sessionless => NO_SESSION,
                Kind::Opening(fetcher) => {
                    let admitted =
                        context.broker.fetch_sessions.admit(&opened.session, fetcher, Instant::now());
                    admitted.unwrap_or(NO_SESSION)
                }
                Kind::Incremental(id) => id,
            };
            let (response, ranges) = respond(session_id, found);
            (response, ranges, charge)
        }
        (Err(Superseded), Kind::Incremental(id)) => alone(refusal(id, ErrorCode::InvalidFetchSessionEpoch)),
        (Err(Superseded), _) => alone(refusal(NO_SESSION, ErrorCode::InvalidFetchSessionEpoch)),
    }
}

fn refusal(session_id: i32, code: ErrorCode) -> FetchResponse {
    FetchResponse { session_id, error_code: code.code(), ..FetchResponse::default() }
}

/// Nothing, and no error: a client above its quota asks again (Kafka: `FetchContext.getThrottledResponse`). No session is
/// opened, and one that goes on has taken note of what the request changed.
fn throttled(kind: Kind, wait: Duration) -> FetchResponse {
    let session_id = if let Kind::Incremental(id) = kind { id } else { NO_SESSION };
    FetchResponse { session_id, throttle_time_ms: throttle_time_ms(wait), ..FetchResponse::default() }
}

/// Finds or makes the session of a request (Kafka: `FetchManager.newContext`).
fn open(context: &Context<'_>, request: FetchRequest) -> Result<Opened, ErrorCode> {
    let naming = if context.version >= TOPIC_ID_VERSION_MIN { Naming::Ids } else { Naming::Names };
    let replica = if context.version >= REPLICA_STATE_VERSION_MIN {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    let fetcher = if replica >= 0 { Fetcher::Follower } else { Fetcher::Consumer };
    let (id, epoch) = (request.session_id, request.session_epoch);
    let asks = request.topics.into_iter().flat_map(|topic| asks_of(topic, naming));
    let fresh = |kind, session: Session| Opened { kind, epoch: session.epoch(), session: Arc::new(session) };
    match epoch {
        INITIAL_EPOCH | FINAL_EPOCH => {
            if id != NO_SESSION {
                context.broker.fetch_sessions.close(id);
            }
            let kind = if epoch == FINAL_EPOCH { Kind::Sessionless } else { Kind::Opening(fetcher) };
            Ok(fresh(kind, Session::new(naming, asks)))
        }
        epoch => {
            let forgotten = request.forgotten_topics_data.into_iter();
            let forgotten = forgotten.flat_map(|topic| forgotten_of(topic, naming)).collect();
            let increment = Increment { epoch, naming, asks: asks.collect(), forgotten };
            match context.broker.fetch_sessions.resume(id, &increment, Instant::now())? {
                Some((session, epoch)) => Ok(Opened { kind: Kind::Incremental(id), session, epoch }),
                None => Ok(fresh(Kind::Sessionless, Session::new(naming, increment.asks))),
            }
        }
    }
}

fn topic_key(name: &Str, id: Uuid, naming: Naming) -> TopicKey {
    match naming {
        // The name is a slice of the frame, which must not live as long as the fetch.
        Naming::Names => TopicKey::Name(name.detach()),
        Naming::Ids => TopicKey::Id(id),
    }
}

fn asks_of(topic: FetchTopic, naming: Naming) -> impl Iterator<Item = (Key, Ask)> {
    let key = topic_key(&topic.topic, topic.topic_id, naming);
    topic
        .partitions
        .into_iter()
        .map(move |partition| (Key { topic: key.clone(), index: partition.partition }, Ask::of(&partition)))
}

fn forgotten_of(topic: ForgottenTopic, naming: Naming) -> impl Iterator<Item = Key> {
    let key = topic_key(&topic.topic, topic.topic_id, naming);
    topic.partitions.into_iter().map(move |index| Key { topic: key.clone(), index })
}

/// Reads until there is enough, something is wrong, the wait is over, or the broker stops. What is read is charged; a
/// fetch that is parked holds nothing.
async fn run(
    context: &Context<'_>,
    opened: &Opened,
    form: AnswerForm,
    Patience { bytes_min, wait }: Patience,
) -> Result<(Reading, Charge), Superseded> {
    let memory = &context.broker.memory;
    let (session, epoch, topics) = (&opened.session, opened.epoch, &context.broker.topics);
    let deadline = tokio::time::Instant::now() + wait;
    let mut woke = Woke::NotYet;
    loop {
        let (turn, wanted) = session.begin(epoch, topics, bytes_min)?;
        let nothing_asked = session.partition_count() == 0;
        let charge = memory.answer(answer_size::of_fetch(wanted.len())).await;
        let reading = read(wanted, form, memory).await;
        let enough = reading.readable_bytes >= bytes_min;
        if enough && woke == Woke::ByPartitions {
            metrics::count_fetch_wake();
        }
        if enough || reading.failed || nothing_asked || wait.is_zero() || woke == Woke::ForGood {
            return Ok((reading, charge));
        }
        drop(charge);
        woke = match session.settle(epoch, &reading)? {
            Settled::Again => woke,
            Settled::Wait => park(context, session, turn, deadline).await,
        };
    }
}

/// Why a fetch is not parked.
#[derive(Clone, Copy, PartialEq)]
enum Woke {
    NotYet,
    ByPartitions,
    /// Its wait is over or the broker stops.
    ForGood,
}

/// Waits until another pass is worth it or no more waiting is.
async fn park(context: &Context<'_>, session: &Session, turn: Turn, deadline: tokio::time::Instant) -> Woke {
    let _parked = metrics::fetch_parked();
    let mut stopping = context.broker.stopping();
    tokio::select! {
        () = session.woken(turn) => Woke::ByPartitions,
        () = tokio::time::sleep_until(deadline) => Woke::ForGood,
        () = stopping.stopped() => Woke::ForGood,
    }
}

/// Puts partitions of a topic that follow each other into one entry, as Kafka does.
fn respond(session_id: i32, found: Vec<Found>) -> (FetchResponse, Vec<Vec<FileRange>>) {
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let (mut ranges, mut topic) = (Vec::new(), None);
    for found in found {
        if topic.as_ref() != Some(&found.topic) {
            responses.push(match &found.topic {
                TopicKey::Name(name) => {
                    FetchableTopicResponse { topic: name.clone(), ..FetchableTopicResponse::default() }
                }
                TopicKey::Id(id) => {
                    FetchableTopicResponse { topic_id: *id, ..FetchableTopicResponse::default() }
                }
            });
            topic = Some(found.topic);
        }
        if !found.ranges.is_empty() {
            ranges.push(found.ranges);
        }
        if let Some(response) = responses.last_mut() {
            response.partitions.push(found.data);
        }
    }
    (FetchResponse { session_id, responses, ..FetchResponse::default() }, ranges)
}
