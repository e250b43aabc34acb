//! One TCP connection to one broker: frames out, frames in, versions agreed on.
//!
//! Requests pipeline: as many as the caller starts are in flight, and a broker answers them in their order. One task
//! writes, one reads; they share a queue of those who wait. This file knows no topics.
//!
//! Invariants:
//! 1. Who waits is queued before the request is written, so that every answer finds its question.
//! 2. A fault ends the connection for all: it is noted before any waiting caller is woken.
//! 3. Memory for an answer grows with the bytes that arrive, not with the size that the frame claims.

use std::collections::HashMap;
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use highwater_protocol::api::{ApiVersionsRequest, ApiVersionsResponse};
use highwater_protocol::wire::Versions;
use highwater_protocol::{
    ApiKey, ApiRequest, ErrorCode, SIZE_PREFIX_BYTES, decode_response, encode_request, frame_length,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Address, BrokerError, CallError, ConnectError, Fault};

/// Requests that may wait for the writer or for their answer before a caller waits to start another.
const QUEUE_LENGTH: usize = 64;
/// Room made for an answer before its bytes arrive.
const READ_CHUNK_BYTES: usize = 64 << 10;

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// The name that brokers log.
    pub client_id: String,
    /// How long dialling and agreeing on versions may take.
    pub connect_timeout: Duration,
    /// How long a broker may take to answer, beyond the time that the request itself grants it.
    pub request_timeout: Duration,
    /// Largest answer, in bytes.
    pub frame_bytes_max: usize,
}

/// A connection to a broker. Dropping it fails what is in flight.
#[derive(Debug)]
pub struct Connection {
    address: Address,
    config: ConnectionConfig,
    versions: HashMap<ApiKey, Versions>,
    correlation: AtomicI32,
    outgoing: mpsc::Sender<Outgoing>,
    fault: Arc<OnceLock<Fault>>,
    tasks: [AbortHandle; 2],
}

/// A frame to write, and who waits for the answer.
#[derive(Debug)]
struct Outgoing {
    frame: Bytes,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    correlation: i32,
    reply: oneshot::Sender<Bytes>,
}

/// A request in flight. Dropping it forgets the answer; the request is not taken back.
#[derive(Debug)]
pub struct Pending<R: ApiRequest> {
    version: i16,
    deadline: Instant,
    after: Duration,
    address: Address,
    reply: oneshot::Receiver<Bytes>,
    fault: Arc<OnceLock<Fault>>,
    request: PhantomData<fn() -> R>,
}

impl Connection {
    /// Dials `address` and agrees on versions.
    ///
    /// # Errors
    ///
    /// If nobody answers there, or somebody who does not speak Kafka's protocol.
    pub async fn open(address: Address, config: ConnectionConfig) -> Result<Self, ConnectError> {
        let after = config.connect_timeout;
        let dial = TcpStream::connect((address.host.as_str(), address.port));
        let stream = match timeout(after, dial).await {
            Err(_) => return Err(ConnectError::Timeout { address, after }),
            Ok(Err(source)) => return Err(ConnectError::Dial { address, source: Arc::new(source) }),
            Ok(Ok(stream)) => stream,
        };
        if let Err(source) = stream.set_nodelay(true) {
            return Err(ConnectError::Dial { address, source: Arc::new(source) });
        }
        let mut connection = Self::over(stream, address, config);
        connection.negotiate().await?;
        Ok(connection)
    }

    fn over(stream: TcpStream, address: Address, config: ConnectionConfig) -> Self {
        let (read, write) = stream.into_split();
        let (outgoing, requests) = mpsc::channel(QUEUE_LENGTH);
        let (queue, waiting) = mpsc::channel(QUEUE_LENGTH);
        let fault = Arc::new(OnceLock::new());
        let writer = tokio::spawn(write_requests(write, requests, queue, Arc::clone(&fault)));
        let reader = tokio::spawn(read_answers(read, waiting, Arc::clone(&fault), config.frame_bytes_max));
        Self {
            address,
            config,
            versions: HashMap::new(),
            correlation: AtomicI32::new(0),
            outgoing,
            fault,
            tasks: [writer.abort_handle(), reader.abort_handle()],
        }
    }

    /// Asks for the broker's versions in the newest form, and again in an older one if it says so (KIP-511).
    async fn negotiate(&mut self) -> Result<(), ConnectError> {
        let refuse = |address: &Address, source| ConnectError::Negotiate {
            address: address.clone(),
            source: Box::new(source),
        };
        let mut version = ApiKey::ApiVersions.served().max();
        let deadline = Instant::now() + self.config.connect_timeout;
        let answer = loop {
            let request = ApiVersionsRequest {
                client_software_name: "highwater".into(),
                client_software_version: env!("CARGO_PKG_VERSION").into(),
            };
            let pending = self
                .start_as(&request, version, deadline)
                .await
                .map_err(|source| refuse(&self.address, source))?;
            let frame = pending.frame().await.map_err(|source| refuse(&self.address, source))?;
            // An unknown version is answered in version 0, whatever was asked for.
            let unsupported = frame.get(4..6) == Some(&ErrorCode::UnsupportedVersion.code().to_be_bytes());
            let answered_in = if unsupported { 0 } else { version };
            let (_, answer) =
                decode_response::<ApiVersionsResponse>(frame, answered_in).map_err(|source| {
                    let (address, api) = (self.address.clone(), ApiKey::ApiVersions);
                    refuse(&self.address, CallError::Decode { address, api, version: answered_in, source })
                })?;
            if !unsupported || version == 0 {
                break answer;
            }
            let theirs = answer.api_keys.iter().find(|key| key.api_key == ApiKey::ApiVersions.code());
            version = theirs.map_or(0, |key| key.max_version.clamp(0, version - 1));
        };
        if let Some(source) = BrokerError::from_answer(answer.error_code, None) {
            return Err(ConnectError::Refused { address: self.address.clone(), source });
        }
        self.versions = answer
            .api_keys
            .iter()
            .filter_map(|key| {
                Some((ApiKey::from_code(key.api_key)?, Versions::new(key.min_version, key.max_version)))
            })
            .collect();
        Ok(())
    }

    /// The broker.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.fault.get().is_some() || self.outgoing.is_closed()
    }

    /// The newest version of `R` that both sides know, and that is at most `version_max`.
    ///
    /// # Errors
    ///
    /// [`CallError::NoVersion`] if there is none.
    pub fn version<R: ApiRequest>(&self, version_max: i16) -> Result<i16, CallError> {
        let (api, ours) = (R::KEY, R::KEY.served());
        let theirs = self.versions.get(&api).copied();
        theirs
            .map(|theirs| theirs.max().min(ours.max()).min(version_max))
            .filter(|version| ours.contains(*version) && theirs.is_some_and(|all| all.contains(*version)))
            .ok_or_else(|| CallError::NoVersion { address: self.address.clone(), api, ours, theirs })
    }

    /// Sends a request in `version` and returns as soon as it is queued; requests are written in the order in which
    /// they are started. The broker may take `grant` longer than usual, for requests that it is asked to hold.
    ///
    /// # Errors
    ///
    /// If the connection has ended or the version cannot express the request.
    pub async fn start<R: ApiRequest>(
        &self,
        request: &R,
        version: i16,
        grant: Duration,
    ) -> Result<Pending<R>, CallError> {
        self.start_as(request, version, Instant::now() + self.config.request_timeout + grant).await
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn call<R: ApiRequest>(
        &self,
        request: &R,
        version: i16,
        grant: Duration,
    ) -> Result<R::Response, CallError> {
        self.start(request, version, grant).await?.wait().await
    }

    /// Sends a request that the broker does not answer: Produce with acks 0.
    ///
    /// # Errors
    ///
    /// As for [`Connection::start`].
    pub async fn send<R: ApiRequest>(&self, request: &R, version: i16) -> Result<(), CallError> {
        let (_, frame) = self.encode(request, version)?;
        self.queue(Outgoing { frame, waiting: None }).await
    }

    async fn start_as<R: ApiRequest>(
        &self,
        request: &R,
        version: i16,
        deadline: Instant,
    ) -> Result<Pending<R>, CallError> {
        let (correlation, frame) = self.encode(request, version)?;
        let (reply, receiver) = oneshot::channel();
        self.queue(Outgoing { frame, waiting: Some(Waiting { correlation, reply }) }).await?;
        Ok(Pending {
            version,
            deadline,
            after: deadline.saturating_duration_since(Instant::now()),
            address: self.address.clone(),
            reply: receiver,
            fault: Arc::clone(&self.fault),
            request: PhantomData,
        })
    }

    fn encode<R: ApiRequest>(&self, request: &R, version: i16) -> Result<(i32, Bytes), CallError> {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed);
        encode_request(correlation, Some(&self.config.client_id), version, request)
            .map(|frame| (correlation, frame))
            .map_err(|source| CallError::Encode { api: R::KEY, version, source })
    }

    async fn queue(&self, outgoing: Outgoing) -> Result<(), CallError> {
        self.outgoing.send(outgoing).await.map_err(|_| broken(&self.address, &self.fault))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What was only sent and waits for no answer still goes out: the writer ends by itself once its queue is
        // empty, and the reader when the broker closes its side. Aborting is for the case that it never does.
        if self.fault.get().is_some() {
            self.tasks.iter().for_each(AbortHandle::abort);
        }
    }
}

impl<R: ApiRequest> Pending<R> {
    /// The answer.
    ///
    /// # Errors
    ///
    /// If the connection ends first, the time is up, or the answer is malformed.
    pub async fn wait(self) -> Result<R::Response, CallError> {
        let (version, address) = (self.version, self.address.clone());
        let frame = self.frame().await?;
        let (_, answer) = decode_response::<R::Response>(frame, version)
            .map_err(|source| CallError::Decode { address, api: R::KEY, version, source })?;
        Ok(answer)
    }

    async fn frame(self) -> Result<Bytes, CallError> {
        match timeout_at(self.deadline, self.reply).await {
            Err(_) => Err(CallError::Timeout { address: self.address, api: R::KEY, after: self.after }),
            Ok(Err(_)) => Err(broken(&self.address, &self.fault)),
            Ok(Ok(frame)) => Ok(frame),
        }
    }
}

fn broken(address: &Address, fault: &OnceLock<Fault>) -> CallError {
    CallError::Broken { address: address.clone(), fault: fault.get().cloned().unwrap_or(Fault::Closed) }
}

async fn write_requests(
    mut socket: OwnedWriteHalf,
    mut requests: mpsc::Receiver<Outgoing>,
    queue: mpsc::Sender<Waiting>,
    fault: Arc<OnceLock<Fault>>,
) {
    loop {
        let next = tokio::select! {
            next = requests.recv() => next,
            () = queue.closed() => None,
        };
        let Some(Outgoing { frame, waiting }) = next else { return };
        if let Some(waiting) = waiting
            && queue.send(waiting).await.is_err()
        {
            return;
        }
        if let Err(error) = socket.write_all(&frame).await {
            // The first fault is the cause; a later one is its consequence.
            let _ = fault.set(Fault::Io(Arc::new(error)));
            return;
        }
    }
}

async fn read_answers(
    mut socket: OwnedReadHalf,
    mut waiting: mpsc::Receiver<Waiting>,
    fault: Arc<OnceLock<Fault>>,
    frame_bytes_max: usize,
) {
    loop {
        let frame = match read_frame(&mut socket, frame_bytes_max).await {
            Ok(frame) => frame,
            Err(error) => {
                let _ = fault.set(error);
                return;
            }
        };
        let actual = frame.first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        // Nobody waiting means that the broker speaks unasked, or that the writer ended.
        let Ok(Waiting { correlation: expected, reply }) = waiting.try_recv() else {
            let _ = fault.set(Fault::Correlation { expected: -1, actual });
            return;
        };
        if actual != expected {
            let _ = fault.set(Fault::Correlation { expected, actual });
            return;
        }
        // Whoever asked may have stopped waiting.
        let _ = reply.send(frame);
    }
}

async fn read_frame(socket: &mut OwnedReadHalf, frame_bytes_max: usize) -> Result<Bytes, Fault> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Closed,
        _ => Fault::Io(Arc::new(error)),
    };
    let mut prefix = [0; SIZE_PREFIX_BYTES];
    socket.read_exact(&mut prefix).await.map_err(fail)?;
    match prefix {
        [b'H', b'T', b'T', b'P'] => return Err(Fault::OtherProtocol { protocol: "HTTP" }),
        [0x15, 3, ..] => return Err(Fault::OtherProtocol { protocol: "TLS" }),
        _ => {}
    }
    let length = frame_length(prefix, frame_bytes_max)?;
    let mut frame = BytesMut::new();
    while frame.len() < length {
        let missing = length - frame.len();
        frame.reserve(missing.min(frame.len().max(READ_CHUNK_BYTES)));
        let count = (&mut *socket).take(missing as u64).read_buf(&mut frame).await.map_err(fail)?;
        if count == 0 {
            return Err(Fault::Closed);
        }
    }
    Ok(frame.freeze())
}
