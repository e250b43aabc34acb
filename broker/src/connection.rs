//! One Kafka connection: a reader that decodes and appends, a writer that answers what waits in the same order.
//!
//! Produce requests pipeline: the reader appends them one after another and queues their pending answers, so that
//! one connection can fill a group commit. Every other request is a barrier: it is handled when all earlier
//! requests of its connection are answered, as Kafka does it, and the reader puts its answer on the socket itself. A client above a quota is answered at once and not read
//! from for as long as it was told to wait. Knows no message's meaning.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::{Request, RequestError};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::Instrument;

use crate::broker::Broker;
use crate::context::Caller;
use crate::dispatch::{self, Answer, Handled, Hangup, Incoming};
use crate::inbound::{Inbound, InboundError};
use crate::log_limit::note;
use crate::memory::Charge;
use crate::outbound::Outbound;

/// How many produce requests of one connection may wait for durability at once.
const PENDING_MAX: u32 = 256;
/// A connection that sends nothing for this long is closed (`connections.max.idle.ms`).
const IDLE_DEADLINE: Duration = Duration::from_secs(600);

/// An answer in its place in the order, and the permit that the barrier waits for.
struct Queued {
    answer: Answer,
    pending: OwnedSemaphorePermit,
    /// For the memory of the answer, until it has left.
    charge: Charge,
}

/// Serves one connection until it closes, misbehaves or the broker stops.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, broker: Arc<Broker>) {
    let local = match stream.local_addr() {
        Ok(local) => local,
        Err(error) => {
            tracing::debug!(%peer, %error, "connection closed before its first request");
            return;
        }
    };
    let span = tracing::info_span!("connection", %peer);
    let (read, write) = stream.into_split();
    // The semaphore bounds the queue: whoever sends holds a permit.
    let (answers, queue) = mpsc::channel(PENDING_MAX as usize);
    let writer = tokio::spawn(write_answers(write, queue).instrument(span.clone()));
    let inbound = Inbound::new(read, broker.buffers(), broker.config().request_bytes_max);
    let pending = Arc::new(Semaphore::new(PENDING_MAX as usize));
    let reader = Reader { broker, peer, local, inbound, pending, answers, out: Outbound::default() };
    if let Err(hangup) = reader.run().instrument(span.clone()).await {
        crate::metrics::count_hangup();
        match hangup {
            // How many clients leave; nobody needs to look.
            Hangup::Frame(InboundError::Io(error)) => {
                span.in_scope(|| tracing::debug!(%error, "the client left"));
            }
            hangup => {
                note(|dropped| span.in_scope(|| tracing::warn!(dropped, "closing the connection: {hangup}")));
            }
        }
    }
    // The writer ends when the queue is drained, which also answers what was appended before a hang-up.
    if let Err(error) = writer.await {
        span.in_scope(|| tracing::error!(%error, "the connection's writer panicked"));
    }
}

struct Reader {
    broker: Arc<Broker>,
    peer: SocketAddr,
    local: SocketAddr,
    inbound: Inbound,
    pending: Arc<Semaphore>,
    answers: mpsc::Sender<Queued>,
    /// For answers that need not wait in the queue.
    out: Outbound,
}

impl Reader {
    async fn run(mut self) -> Result<(), Hangup> {
        let mut stopping = self.broker.stopping();
        loop {
            let frame = tokio::select! {
                frame = self.inbound.frame(IDLE_DEADLINE) => frame?,
                () = stopping.stopped() => return Ok(()),
            };
            let Some(frame) = frame else { return Ok(()) };
            let incoming = dispatch::parse(frame)?;
            let permit = self.permit(&incoming.body).await;
            let Some(Handled { answer, mute, charge }) = self.handle(incoming).await? else { return Ok(()) };
            if let Some(answer) = answer
                && !self.answer(Queued { answer, pending: permit, charge }).await
            {
                return Ok(());
            }
            if let Some(mute) = mute {
                tokio::select! {
                    () = tokio::time::sleep(mute) => {}
                    () = self.inbound.gone() => {}
                    () = stopping.stopped() => return Ok(()),
                }
            }
        }
    }

    /// Produce takes one place in the queue; everything else waits until the queue is empty.
    async fn permit(&self, body: &Result<Request, RequestError>) -> OwnedSemaphorePermit {
        let permits = if matches!(body, Ok(Request::Produce(_))) { 1 } else { PENDING_MAX };
        let acquired = Arc::clone(&self.pending).acquire_many_owned(permits).await;
        acquired.expect("the semaphore is never closed")
    }

    /// Answers, or leaves that to the writer. Says whether the peer still reads.
    async fn answer(&mut self, queued: Queued) -> bool {
        match queued.answer {
            // A barrier: the writer has nothing to do, and to hand the answer over would buy a wake-up and nothing else.
            Answer::Ready(pieces) if queued.pending.num_permits() == PENDING_MAX as usize => {
                pieces.into_iter().for_each(|piece| self.out.push(piece));
                let sent = self.out.flush(self.inbound.stream()).await;
                sent.inspect_err(|error| tracing::debug!(%error, "the client left before its answer")).is_ok()
            }
            _ => self.answers.send(queued).await.is_ok(),
        }
    }

    /// `None` if the client left meanwhile.
    async fn handle(&mut self, incoming: Incoming) -> Result<Option<Handled>, Hangup> {
        let caller = Caller { peer: self.peer, local: self.local };
        // Long polls and members of a group wait for something that may never come. Everything else is finished and
        // answered, also for a client that has sent its last request and shut down its side.
        let may_park =
            matches!(incoming.body, Ok(Request::Fetch(_) | Request::JoinGroup(_) | Request::SyncGroup(_)));
        tokio::select! {
            biased;
            handled = dispatch::handle(&self.broker, caller, incoming) => handled.map(Some),
            () = self.inbound.closed(), if may_park => Ok(None),
        }
    }
}

async fn write_answers(socket: OwnedWriteHalf, mut queue: mpsc::Receiver<Queued>) {
    let mut out = Outbound::default();
    while let Some(mut queued) = queue.recv().await {
        let mut served = Vec::new();
        loop {
            if !queued.answer.is_ready() && !out.is_empty() && out.flush(socket.as_ref()).await.is_err() {
                return;
            }
            match queued.answer.resolve().await {
                Ok(pieces) => pieces.into_iter().for_each(|piece| out.push(piece)),
                Err(hangup) => {
                    note(|dropped| tracing::warn!(dropped, "closing the connection: {hangup}"));
                    return;
                }
            }
            served.push((queued.pending, queued.charge));
            match queue.try_recv() {
                Ok(next) => queued = next,
                Err(_) => break,
            }
        }
        if let Err(error) = out.flush(socket.as_ref()).await {
            tracing::debug!(%error, "the client left before its answer");
            return;
        }
    }
}
