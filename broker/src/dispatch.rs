//! From a frame to an answer: one exhaustive match over the APIs.
//!
//! Handlers get a decoded request and give back a response; this file decodes, encodes and decides what ends a
//! connection. Knows no API's meaning.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_protocol::api::{ApiVersionsResponse, FetchRequest, ProduceRequest};
use highwater_protocol::wire::{DecodeError, EncodeError, Encoded, Piece as WirePiece};
use highwater_protocol::{
    ApiKey, ApiResponse, Request, RequestError, RequestHeader, encode_response, parse_request,
};
use highwater_storage::FileRange;
use thiserror::Error;

use crate::answer_size;
use crate::broker::Broker;
use crate::context::{Caller, Context};
use crate::handler;
use crate::handler::produce::PendingProduce;
use crate::inbound::InboundError;
use crate::memory::Charge;
use crate::metrics;
use crate::outbound::Piece;
use crate::quotas::Direction;

/// Why a connection is closed from this side.
#[derive(Debug, Error)]
pub(crate) enum Hangup {
    /// What arrived is no frame.
    #[error(transparent)]
    Frame(#[from] InboundError),
    /// The frame has no header.
    #[error("the request header is malformed: {0}")]
    Header(DecodeError),
    /// The request cannot be decoded; Kafka closes the connection as well, there is no answer for it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A produce without acknowledgement failed: closing is the only way to say so.
    #[error("a produce request with acks=0 failed: {0}")]
    Unacknowledged(String),
    /// The answer does not fit its version.
    #[error("the answer cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
}

/// An answer in its place in a connection's order.
pub(crate) enum Answer {
    /// Ready to leave.
    Ready(Vec<Piece>),
    /// Waits for durability.
    Produce { pending: PendingProduce, correlation_id: i32, version: i16, began: Instant },
}

impl Answer {
    /// Whether [`Answer::resolve`] would not wait.
    pub(crate) fn is_ready(&mut self) -> bool {
        match self {
            Self::Ready(_) => true,
            Self::Produce { pending, .. } => pending.settle(),
        }
    }

    /// The bytes to send. Waits for what it must.
    pub(crate) async fn resolve(self) -> Result<Vec<Piece>, Hangup> {
        match self {
            Self::Ready(pieces) => Ok(pieces),
            Self::Produce { pending, correlation_id, version, began } => {
                let response = pending.finish().await;
                metrics::observe_request(ApiKey::Produce, began.elapsed());
                Ok(plain(encode_response(correlation_id, version, &response)?))
            }
        }
    }
}

/// A request that has arrived.
pub(crate) struct Incoming {
    pub(crate) header: RequestHeader,
    pub(crate) body: Result<Request, RequestError>,
    /// Size of its frame without the length prefix.
    pub(crate) bytes: usize,
}

/// What became of a request.
pub(crate) struct Handled {
    /// `None` means that there is nothing to answer (a successful produce with acks=0).
    pub(crate) answer: Option<Answer>,
    /// For how long the client is not read from: it is above a quota (KIP-219).
    pub(crate) mute: Option<Duration>,
    /// For the memory of the answer.
    pub(crate) charge: Charge,
}

impl Handled {
    /// An answer that can leave. From here on it is charged for what it is.
    fn ready(pieces: Vec<Piece>, mut charge: Charge) -> Self {
        charge.settle(pieces.iter().map(Piece::held_bytes).sum());
        Self { answer: Some(Answer::Ready(pieces)), mute: None, charge }
    }
}

/// Reads the key and the rest of the header, so that the connection knows its place in the order.
pub(crate) fn parse(frame: Bytes) -> Result<Incoming, Hangup> {
    let bytes = frame.len();
    let (header, body) = parse_request(frame).map_err(Hangup::Header)?;
    Ok(Incoming { header, body, bytes })
}

/// Handles one request.
pub(crate) async fn handle(
    broker: &Arc<Broker>,
    caller: Caller,
    Incoming { header, body, bytes }: Incoming,
) -> Result<Handled, Hangup> {
    let began = Instant::now();
    let request = match body {
        Ok(request) => request,
        Err(RequestError::UnsupportedVersion { key: ApiKey::ApiVersions, .. }) => {
            let response = ApiVersionsResponse::unsupported();
            let pieces = plain(encode_response(header.correlation_id, 0, &response)?);
            return Ok(Handled::ready(pieces, broker.memory.answer_unasked()));
        }
        Err(error) => return Err(error.into()),
    };
    let key = request.key();
    let (correlation_id, version) = (header.correlation_id, header.api_version);
    // Detached: a parked fetch must not hold the frame that it came in.
    let client_id = header.client_id.map(|id| id.detach());
    let context =
        Context { broker, local: caller.local, peer: caller.peer, version, client_id, request_bytes: bytes };
    let handled = respond(&context, correlation_id, request, began).await?;
    if let Some(Answer::Ready(_)) = &handled.answer {
        metrics::observe_request(key, began.elapsed());
    }
    if handled.mute.is_some() {
        metrics::count_throttle(key);
    }
    Ok(handled)
}

/// Appends, and leaves the answer to the time when the records are durable.
async fn produce(
    context: &Context<'_>,
    correlation_id: i32,
    request: ProduceRequest,
    began: Instant,
) -> Result<Handled, Hangup> {
    let acks_nothing = request.acks == 0;
    let charge = context.broker.memory.pending(answer_size::of_produce(&request)).await;
    let mut pending = handler::produce::handle(context, request).await;
    let mute = pending.throttle();
    let answer = match (acks_nothing, pending.first_error()) {
        (true, None) => None,
        (true, Some(error)) => return Err(Hangup::Unacknowledged(error)),
        (false, _) => Some(Answer::Produce { pending, correlation_id, version: context.version, began }),
    };
    Ok(Handled { answer, mute, charge })
}

/// Reads, and takes what is read from the client's quota.
async fn fetch(context: &Context<'_>, correlation_id: i32, request: FetchRequest) -> Result<Handled, Hangup> {
    let (response, ranges, charge) = Box::pin(handler::fetch::handle(context, request)).await;
    let throttle = u64::try_from(response.throttle_time_ms).ok().filter(|ms| *ms > 0);
    let pieces = with_files(encode_response(correlation_id, context.version, &response)?, ranges);
    if throttle.is_none() {
        context.charge(Direction::Consumed, pieces.iter().map(Piece::len).sum());
    }
    Ok(Handled { mute: throttle.map(Duration::from_millis), ..Handled::ready(pieces, charge) })
}

/// The match over the APIs.
async fn respond(
    context: &Context<'_>,
    id: i32,
    request: Request,
    began: Instant,
) -> Result<Handled, Hangup> {
    let form = Form { correlation_id: id, version: context.version };
    let charge = match answer_size::estimate(context, &request) {
        Some(bytes) => context.broker.memory.answer(bytes).await,
        None => context.broker.memory.answer_unasked(),
    };
    let answer = match request {
        Request::Produce(r) => return produce(context, id, r, began).await,
        Request::Fetch(r) => return fetch(context, id, r).await,
        Request::ListOffsets(r) => answer(form, handler::list_offsets::handle(context, r)),
        Request::Metadata(r) => answer(form, handler::metadata::handle(context, r)),
        Request::OffsetCommit(r) => answer(form, handler::offset_commit::handle(context, r)),
        Request::OffsetFetch(r) => answer(form, handler::offset_fetch::handle(context, r)),
        Request::FindCoordinator(r) => at_once(form, handler::find_coordinator::handle(context, r)),
        Request::JoinGroup(r) => answer(form, handler::join_group::handle(context, r)),
        Request::Heartbeat(r) => at_once(form, handler::heartbeat::handle(context, r)),
        Request::LeaveGroup(r) => answer(form, handler::leave_group::handle(context, r)),
        Request::SyncGroup(r) => answer(form, handler::sync_group::handle(context, r)),
        Request::DescribeGroups(r) => answer(form, handler::describe_groups::handle(context, r)),
        Request::ListGroups(r) => answer(form, handler::list_groups::handle(context, r)),
        Request::ApiVersions(r) => at_once(form, handler::api_versions::handle(context, &r)),
        Request::CreateTopics(r) => answer(form, handler::create_topics::handle(context, r)),
        Request::DeleteTopics(r) => answer(form, handler::delete_topics::handle(context, r)),
        Request::DeleteRecords(r) => answer(form, handler::delete_records::handle(context, r)),
        Request::InitProducerId(r) => answer(form, handler::init_producer_id::handle(context, r)),
        Request::OffsetForLeaderEpoch(r) => {
            answer(form, handler::offset_for_leader_epoch::handle(context, r))
        }
        Request::DescribeConfigs(r) => at_once(form, handler::describe_configs::handle(context, r)),
        Request::AlterConfigs(r) => answer(form, handler::alter_configs::handle(context, r)),
        Request::DescribeLogDirs(r) => answer(form, handler::describe_log_dirs::handle(context, r)),
        Request::CreatePartitions(r) => answer(form, handler::create_partitions::handle(context, r)),
        Request::DeleteGroups(r) => answer(form, handler::delete_groups::handle(context, r)),
        Request::ElectLeaders(r) => at_once(form, handler::elect_leaders::handle(context, r)),
        Request::IncrementalAlterConfigs(r) => {
            answer(form, handler::incremental_alter_configs::handle(context, r))
        }
        Request::AlterPartitionReassignments(r) => {
            at_once(form, handler::alter_partition_reassignments::handle(context, r))
        }
        Request::ListPartitionReassignments(_) => {
            at_once(form, handler::list_partition_reassignments::handle())
        }
        Request::OffsetDelete(r) => answer(form, handler::offset_delete::handle(context, r)),
        Request::DescribeClientQuotas(r) => {
            at_once(form, handler::describe_client_quotas::handle(context, r))
        }
        Request::AlterClientQuotas(r) => answer(form, handler::alter_client_quotas::handle(context, r)),
        Request::DescribeQuorum(r) => at_once(form, handler::describe_quorum::handle(context, &r)),
        Request::UpdateFeatures(r) => at_once(form, handler::update_features::handle(context, r)),
        Request::DescribeCluster(r) => at_once(form, handler::describe_cluster::handle(context, &r)),
        Request::ListConfigResources(r) => at_once(form, handler::list_config_resources::handle(context, &r)),
        Request::DescribeTopicPartitions(r) => {
            at_once(form, handler::describe_topic_partitions::handle(context, r))
        }
    };
    Ok(Handled::ready(answer.await?, charge))
}

/// What an answer takes from its request.
#[derive(Clone, Copy)]
struct Form {
    correlation_id: i32,
    version: i16,
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Vec<Piece>, EncodeError>> + Send + 'a>>;

/// Encodes the response of a handler that waits for nothing.
fn at_once<'a, R: ApiResponse + Send + 'a>(form: Form, response: R) -> Answering<'a> {
    answer(form, std::future::ready(response))
}

/// Runs a handler and encodes its response. Boxed: a connection's own future holds room for the largest of what it
/// awaits, and these are rare and large.
fn answer<'a, R: ApiResponse + Send + 'a>(
    form: Form,
    handling: impl Future<Output = R> + Send + 'a,
) -> Answering<'a> {
    Box::pin(async move {
        let response = handling.await;
        Ok(plain(encode_response(form.correlation_id, form.version, &response)?))
    })
}

fn plain(encoded: Encoded) -> Vec<Piece> {
    vec![Piece::Memory(encoded.bytes.freeze())]
}

/// Puts file ranges where the encoder left room for them; both are in the order of the partitions.
fn with_files(encoded: Encoded, ranges: Vec<Vec<FileRange>>) -> Vec<Piece> {
    let mut ranges = ranges.into_iter();
    let mut pieces = Vec::new();
    for piece in encoded.into_pieces() {
        match piece {
            WirePiece::Bytes(bytes) => pieces.push(Piece::Memory(bytes)),
            WirePiece::Deferred { len } => {
                let ranges =
                    ranges.next().expect("the fetch handler gives ranges for each deferred records field");
                let bytes: usize = ranges.iter().map(|range| range.len() as usize).sum();
                assert_eq!(bytes, len, "ranges have the length that their frame announces");
                pieces.extend(ranges.into_iter().map(Piece::File));
            }
        }
    }
    pieces
}
