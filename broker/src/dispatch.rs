//! From a frame to an answer: one exhaustive match over the APIs.
//!
//! Handlers get a decoded request and give back a response; this file decodes, encodes and decides what ends a
//! connection. Knows no API's meaning.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use highwater_protocol::api::{ApiVersionsResponse, ProduceRequest};
use highwater_protocol::wire::{DecodeError, EncodeError, Encoded, Piece as WirePiece};
use highwater_protocol::{
    ApiKey, ApiResponse, Request, RequestError, RequestHeader, encode_response, parse_request,
};
use highwater_storage::FileRange;
use thiserror::Error;

use crate::broker::Broker;
use crate::context::{Caller, Context};
use crate::handler;
use crate::handler::produce::PendingProduce;
use crate::inbound::InboundError;
use crate::metrics;
use crate::outbound::Piece;

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

/// Reads the key and the rest of the header, so that the connection knows its place in the order.
pub(crate) fn parse(frame: Bytes) -> Result<(RequestHeader, Result<Request, RequestError>), Hangup> {
    parse_request(frame).map_err(Hangup::Header)
}

/// Handles one request. `None` means that there is nothing to answer (a successful produce with acks=0).
pub(crate) async fn handle(
    broker: &Arc<Broker>,
    caller: Caller,
    header: RequestHeader,
    body: Result<Request, RequestError>,
) -> Result<Option<Answer>, Hangup> {
    let began = Instant::now();
    let request = match body {
        Ok(request) => request,
        Err(RequestError::UnsupportedVersion { key: ApiKey::ApiVersions, .. }) => {
            let response = ApiVersionsResponse::unsupported();
            return Ok(Some(Answer::Ready(plain(encode_response(header.correlation_id, 0, &response)?))));
        }
        Err(error) => return Err(error.into()),
    };
    let key = request.key();
    let (correlation_id, version) = (header.correlation_id, header.api_version);
    // Detached: a parked fetch must not hold the frame that it came in.
    let client_id = header.client_id.map(|id| id.detach());
    let context = Context { broker, local: caller.local, peer: caller.peer, version, client_id };
    let answer = respond(&context, correlation_id, request, began).await?;
    if let Some(Answer::Ready(_)) = &answer {
        metrics::observe_request(key, began.elapsed());
    }
    Ok(answer)
}

/// Appends, and leaves the answer to the time when the records are durable.
async fn produce(
    context: &Context<'_>,
    correlation_id: i32,
    request: ProduceRequest,
    began: Instant,
) -> Result<Option<Answer>, Hangup> {
    let acks_nothing = request.acks == 0;
    let mut pending = handler::produce::handle(context, request).await;
    match (acks_nothing, pending.first_error()) {
        (true, None) => Ok(None),
        (true, Some(error)) => Err(Hangup::Unacknowledged(error)),
        (false, _) => Ok(Some(Answer::Produce { pending, correlation_id, version: context.version, began })),
    }
}

/// The match over the APIs. The rare and large futures are boxed: a connection's own holds room for the largest of
/// what it awaits.
async fn respond(
    context: &Context<'_>,
    id: i32,
    request: Request,
    began: Instant,
) -> Result<Option<Answer>, Hangup> {
    let version = context.version;
    let pieces = match request {
        Request::Produce(request) => return produce(context, id, request, began).await,
        Request::Fetch(request) => {
            let (response, ranges) = Box::pin(handler::fetch::handle(context, request)).await;
            with_files(encode_response(id, version, &response)?, ranges)
        }
        Request::ListOffsets(request) => {
            encode(id, version, Box::pin(handler::list_offsets::handle(context, request)).await)?
        }
        Request::Metadata(request) => {
            encode(id, version, Box::pin(handler::metadata::handle(context, request)).await)?
        }
        Request::FindCoordinator(request) => {
            encode(id, version, handler::find_coordinator::handle(context, request))?
        }
        Request::ApiVersions(request) => {
            encode(id, version, handler::api_versions::handle(context, &request))?
        }
        Request::CreateTopics(request) => {
            encode(id, version, Box::pin(handler::create_topics::handle(context, request)).await)?
        }
        Request::DeleteTopics(request) => {
            encode(id, version, Box::pin(handler::delete_topics::handle(context, request)).await)?
        }
        Request::InitProducerId(request) => {
            encode(id, version, Box::pin(handler::init_producer_id::handle(context, request)).await)?
        }
        Request::OffsetForLeaderEpoch(request) => {
            encode(id, version, handler::offset_for_leader_epoch::handle(context, request))?
        }
        Request::OffsetCommit(_)
        | Request::OffsetFetch(_)
        | Request::JoinGroup(_)
        | Request::Heartbeat(_)
        | Request::LeaveGroup(_)
        | Request::SyncGroup(_)
        | Request::DescribeGroups(_)
        | Request::ListGroups(_)
        | Request::DeleteGroups(_)
        | Request::OffsetDelete(_) => respond_about_groups(context, id, request).await?,
    };
    Ok(Some(Answer::Ready(pieces)))
}

/// The APIs of groups.
async fn respond_about_groups(
    context: &Context<'_>,
    id: i32,
    request: Request,
) -> Result<Vec<Piece>, EncodeError> {
    let version = context.version;
    match request {
        Request::OffsetCommit(request) => {
            encode(id, version, Box::pin(handler::offset_commit::handle(context, request)).await)
        }
        Request::OffsetFetch(request) => {
            encode(id, version, Box::pin(handler::offset_fetch::handle(context, request)).await)
        }
        Request::JoinGroup(request) => {
            encode(id, version, Box::pin(handler::join_group::handle(context, request)).await)
        }
        Request::Heartbeat(request) => encode(id, version, handler::heartbeat::handle(context, request)),
        Request::LeaveGroup(request) => {
            encode(id, version, Box::pin(handler::leave_group::handle(context, request)).await)
        }
        Request::SyncGroup(request) => {
            encode(id, version, Box::pin(handler::sync_group::handle(context, request)).await)
        }
        Request::DescribeGroups(request) => {
            encode(id, version, Box::pin(handler::describe_groups::handle(context, request)).await)
        }
        Request::ListGroups(request) => {
            encode(id, version, Box::pin(handler::list_groups::handle(context, request)).await)
        }
        Request::DeleteGroups(request) => {
            encode(id, version, Box::pin(handler::delete_groups::handle(context, request)).await)
        }
        Request::OffsetDelete(request) => {
            encode(id, version, Box::pin(handler::offset_delete::handle(context, request)).await)
        }
        other => unreachable!("{} is not an API of groups", other.key()),
    }
}

fn encode<R: ApiResponse>(correlation_id: i32, version: i16, response: R) -> Result<Vec<Piece>, EncodeError> {
    Ok(plain(encode_response(correlation_id, version, &response)?))
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
