//! Reading frames from a socket.
//!
//! Small frames are sliced out of the connection's own buffer, which an idle connection gives up. Large ones are
//! received into a pooled buffer that grows with the bytes that arrive, never with the length that a client claims.
//! Buffers are charged to the memory budget first; while there is nothing left of it, no more of a frame is read than its
//! head, which says what it waits for. Many a heartbeat is no longer than that.
//! A frame that has begun must go on at a least rate, so that a trickle cannot hold a connection for ever, and be whole
//! in a reasonable time when others wait for the memory that it holds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use highwater_protocol::{ApiKey, FrameError, SIZE_PREFIX_BYTES, frame_length};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;

use crate::buffers::BufferPool;
use crate::memory::{Bytes as Size, Charge, FrameKind, FrameShare, MemorySize, SMALL_BUFFER_BYTES};

/// Frames up to this size stay in the connection's own buffer.
const SMALL_FRAME_BYTES_MAX: usize = SMALL_BUFFER_BYTES;
/// How much of a frame is read while there is no memory for it: part of what a connection takes by itself.
const HEAD_BYTES: usize = 256;
/// What a frame begins with behind its length: the key of its API.
const KEY_BYTES: usize = size_of::<i16>();
/// A large frame is first given this much, however long it claims to be.
const FIRST_BYTES: usize = 64 * 1024;
/// A connection that has delivered larger frames is given what it delivered, up to this.
const FIRST_BYTES_MAX: usize = 1024 * 1024;
/// A frame that has begun is whole, or has made [`PACE_BYTES`] of progress, within this time.
const PACE_TIME: Duration = Duration::from_secs(30);
/// The progress of a slow frame: 1 KiB a second.
const PACE_BYTES: usize = 30 * 1024;
/// What a client does that sends less.
const TOO_SLOW: &str = "sent less than 1 KiB a second for 30 s";
/// A large frame is whole within this time if others wait for memory, not counting the time that it waited for some
/// itself.
const LARGE_WHOLE_TIME: Duration = Duration::from_secs(30);
/// The same for a small one, which fits one packet or a few.
const SMALL_WHOLE_TIME: Duration = Duration::from_secs(2);
/// How often a frame that takes longer is looked at.
const SHORTAGE_CHECK: Duration = Duration::from_millis(500);
/// What a client does that takes longer with a large frame.
const LARGE_DAWDLED: &str = "took longer than 30 s for it while others were waiting for the memory that it held; \
                             a larger --memory lets more of them in at once";
/// What a client does that takes longer with a small frame.
const SMALL_DAWDLED: &str = "took longer than 2 s for it while others were waiting for the memory that it held; \
                             a larger --memory lets more of them in at once";

/// The reading half of a connection.
pub(crate) struct Inbound {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    /// For the memory of `buffer`, which small frames are slices of. There is none while there is no buffer, or one that
    /// has room for a head only.
    charge: Option<Arc<Charge>>,
    pool: Arc<BufferPool>,
    frame_bytes_max: u32,
    /// The largest frame that arrived whole, as far as the next one's first buffer depends on it.
    delivered_bytes: usize,
}

/// A small frame, and what it is charged for.
struct SmallFrame {
    bytes: Bytes,
    _charge: Option<Arc<Charge>>,
}

impl AsRef<[u8]> for SmallFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// How a frame comes along.
struct Pace {
    deadline: Instant,
    /// How much of the frame moves the deadline.
    goal: usize,
    /// From here on it goes on only while nobody waits for memory of its share.
    whole_by: Instant,
    share: FrameShare,
}

impl Pace {
    /// A frame begins at `now`. It is a small one as long as nothing else is known.
    fn new(now: Instant) -> Self {
        Self {
            deadline: now + PACE_TIME,
            goal: PACE_BYTES,
            whole_by: now + SMALL_WHOLE_TIME,
            share: FrameShare::Small,
        }
    }

    /// The frame turns out to be a large one.
    fn is_large(&mut self) {
        self.share = FrameShare::Large;
        self.whole_by += LARGE_WHOLE_TIME - SMALL_WHOLE_TIME;
    }

    /// Bytes have come: `received` in all.
    fn advance(&mut self, now: impl FnOnce() -> Instant, received: usize) {
        if received >= self.goal {
            self.deadline = now() + PACE_TIME;
            self.goal = received.saturating_add(PACE_BYTES);
        }
    }

    /// The frame had to wait from `began` to `ended`, which is not the client's fault.
    fn pardon(&mut self, began: Instant, ended: Instant) {
        let waited = ended.saturating_duration_since(began);
        self.deadline += waited;
        self.whole_by += waited;
    }
}

/// Why no further frame can be read.
#[derive(Debug, Error)]
pub(crate) enum InboundError {
    /// The length prefix is negative or above the limit.
    #[error(transparent)]
    Length(#[from] FrameError),
    /// The length prefix is above what the memory budget has room for.
    #[error(
        "a request of {} is larger than {}, the most that fits a memory budget of {budget}; start the broker with a larger \
         --memory, or let the client send smaller requests",
        Size(*size as u64), Size(u64::from(*limit))
    )]
    OverBudget {
        /// The size claimed.
        size: usize,
        /// The largest size that fits.
        limit: u32,
        /// The budget.
        budget: MemorySize,
    },
    /// The system has no memory although the budget does.
    #[error("the system gives no memory for a frame: {0}")]
    Memory(io::Error),
    /// The peer closed or slowed down in the middle of a frame.
    #[error("the client sent {received} of the {expected} bytes of a frame and then {ended}")]
    Cut {
        /// Bytes of the frame that arrived.
        received: usize,
        /// Its length.
        expected: usize,
        /// What the client did.
        ended: &'static str,
    },
    /// The socket failed.
    #[error("cannot read from the socket: {0}")]
    Io(#[from] io::Error),
}

impl Inbound {
    /// Reads frames of up to `frame_bytes_max` bytes from `socket`.
    pub(crate) fn new(socket: OwnedReadHalf, pool: Arc<BufferPool>, frame_bytes_max: u32) -> Self {
        Self { socket, buffer: BytesMut::new(), charge: None, pool, frame_bytes_max, delivered_bytes: 0 }
    }

    /// The socket, for what leaves by it.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.socket.as_ref()
    }

    /// The next frame without its length prefix; `None` if the peer closed between two frames, or began none for as
    /// long as `idle_max`.
    pub(crate) async fn frame(&mut self, idle_max: Duration) -> Result<Option<Bytes>, InboundError> {
        if self.buffer.is_empty() {
            match tokio::time::timeout(idle_max, self.first_bytes()).await {
                Ok(Ok(0)) | Err(_) => return Ok(None),
                Ok(first) => first?,
            };
        }
        let mut pace = Pace::new(Instant::now());
        while self.buffer.len() < SIZE_PREFIX_BYTES {
            if self.fill(&pace, SIZE_PREFIX_BYTES).await? == 0 {
                return Err(cut(self.buffer.len(), SIZE_PREFIX_BYTES, "closed the connection"));
            }
        }
        let prefix = [self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]];
        let length = frame_length(prefix, self.frame_bytes_max as usize)?;
        let memory = self.pool.memory();
        let (limit, budget) = (memory.frame_bytes_max(), memory.budget());
        if length > limit as usize {
            return Err(InboundError::OverBudget { size: length, limit, budget });
        }
        self.buffer.advance(SIZE_PREFIX_BYTES);
        if length > SMALL_FRAME_BYTES_MAX && length > self.buffer.len() {
            return self.large(length, pace).await.map(Some);
        }
        if length > self.buffer.len() && self.charge.is_none() {
            self.charge_late(length, &mut pace).await?;
        }
        while self.buffer.len() < length {
            if self.fill(&pace, length).await? == 0 {
                return Err(cut(self.buffer.len(), length, "closed the connection"));
            }
            pace.advance(Instant::now, self.buffer.len());
        }
        let bytes = self.buffer.split_to(length).freeze();
        let frame = SmallFrame { bytes, _charge: self.charge.clone() };
        if self.buffer.is_empty() {
            self.give_up_buffer();
        }
        Ok(Some(Bytes::from_owner(frame)))
    }

    /// Takes the memory for a small frame of which only the head was read, once there is more of it: who sends no more
    /// than that holds nothing.
    async fn charge_late(&mut self, length: usize, pace: &mut Pace) -> Result<(), InboundError> {
        while self.buffer.len() < KEY_BYTES.min(length) {
            if self.fill(pace, KEY_BYTES.min(length)).await? == 0 {
                return Err(cut(self.buffer.len(), length, "closed the connection"));
            }
        }
        let is_produce = self.buffer.starts_with(&ApiKey::Produce.code().to_be_bytes());
        let kind = if is_produce { FrameKind::Produce } else { FrameKind::Call };
        let more = tokio::time::timeout_at(pace.deadline, self.socket.peek(&mut [0])).await;
        more.map_err(|_| cut(self.buffer.len(), length, TOO_SLOW))??;
        let began = Instant::now();
        self.charge = Some(Arc::new(self.pool.memory().small_frame(kind).await));
        pace.pardon(began, Instant::now());
        Ok(())
    }

    /// An empty buffer is worth nothing: the memory is its frames' alone.
    fn give_up_buffer(&mut self) {
        self.buffer = BytesMut::new();
        self.charge = None;
    }

    /// Completes when the peer has closed; never if it has sent more instead, since that may be a next request.
    pub(crate) async fn closed(&mut self) {
        let open = self.buffer.is_empty() && matches!(self.socket.peek(&mut [0]).await, Ok(1));
        if open || !self.buffer.is_empty() {
            std::future::pending::<()>().await;
        }
    }

    /// Completes when the peer has closed, or reset the connection whatever it has sent before.
    pub(crate) async fn gone(&mut self) {
        if self.buffer.is_empty() && !matches!(self.socket.peek(&mut [0]).await, Ok(1)) {
            return;
        }
        // What fails here is a socket that is gone as well.
        let _ = self.socket.ready(Interest::ERROR).await;
    }

    async fn large(&mut self, length: usize, mut pace: Pace) -> Result<Bytes, InboundError> {
        let first = self.delivered_bytes.max(FIRST_BYTES).max(self.buffer.len());
        pace.is_large();
        let began = Instant::now();
        let mut frame = self.pool.take(length.min(first)).await.map_err(InboundError::Memory)?;
        pace.pardon(began, Instant::now());
        let mut received = self.buffer.len();
        frame.as_mut()[..received].copy_from_slice(&self.buffer);
        self.give_up_buffer();
        while received < length {
            let room = frame.room().min(length);
            if received == room {
                // More room is taken when there are bytes for it, not when there might be.
                let more = tokio::time::timeout_at(pace.deadline, self.socket.peek(&mut [0])).await;
                more.map_err(|_| cut(received, length, TOO_SLOW))??;
                let began = Instant::now();
                frame.grow(length).await.map_err(InboundError::Memory)?;
                pace.pardon(began, Instant::now());
                continue;
            }
            match self.socket.try_read(&mut frame.as_mut()[received..room]) {
                Ok(0) => return Err(cut(received, length, "closed the connection")),
                Ok(count) => received += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable(&pace, received, length).await?;
                }
                Err(error) => return Err(error.into()),
            }
            pace.advance(Instant::now, received);
        }
        self.delivered_bytes = self.delivered_bytes.max(length).min(FIRST_BYTES_MAX);
        Ok(frame.freeze(length))
    }

    /// Waits for bytes of a frame of `expected` bytes, as long as its pace allows.
    async fn readable(&self, pace: &Pace, received: usize, expected: usize) -> Result<(), InboundError> {
        loop {
            let now = Instant::now();
            let holds = pace.share == FrameShare::Large || self.charge.is_some();
            let late = holds && now >= pace.whole_by;
            if late && self.pool.memory().is_short(pace.share, now) {
                let dawdled = match pace.share {
                    FrameShare::Small => SMALL_DAWDLED,
                    FrameShare::Large => LARGE_DAWDLED,
                };
                return Err(cut(received, expected, dawdled));
            }
            let look_again = if late { now + SHORTAGE_CHECK } else { pace.whole_by };
            let until = pace.deadline.min(look_again);
            match tokio::time::timeout_at(until, self.socket.readable()).await {
                Ok(readable) => return Ok(readable?),
                Err(_) if until == pace.deadline => return Err(cut(received, expected, TOO_SLOW)),
                Err(_) => {}
            }
        }
    }

    /// Waits for the next frame to begin. An idle connection keeps no buffer. 0 is the end of the stream.
    async fn first_bytes(&mut self) -> Result<usize, InboundError> {
        loop {
            self.charge = self.pool.memory().try_small_frame().map(Arc::new);
            self.buffer = BytesMut::with_capacity(self.buffer_bytes());
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.give_up_buffer();
                    // Tried first: until a read finds nothing, the socket counts as readable.
                    self.socket.readable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How large the connection's own buffer may be.
    const fn buffer_bytes(&self) -> usize {
        if self.charge.is_some() { SMALL_BUFFER_BYTES } else { HEAD_BYTES }
    }

    /// Reads into the connection's own buffer for a frame of `expected` bytes. 0 is the end of the stream.
    async fn fill(&mut self, pace: &Pace, expected: usize) -> Result<usize, InboundError> {
        loop {
            let size = self.buffer_bytes();
            make_room(&mut self.buffer, expected, size);
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable(pace, self.buffer.len(), expected).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Room for a small frame of `expected` bytes, in a buffer of the size that is charged.
fn make_room(buffer: &mut BytesMut, expected: usize, size: usize) {
    if buffer.capacity() < expected {
        let mut whole = BytesMut::with_capacity(size);
        whole.extend_from_slice(buffer);
        *buffer = whole;
    }
}

fn cut(received: usize, expected: usize, ended: &'static str) -> InboundError {
    InboundError::Cut { received, expected, ended }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::memory::Memory;

    /// A client and what reads from it, with the least budget.
    async fn connected() -> (TcpStream, Inbound, Arc<Memory>) {
        let memory = Arc::new(Memory::new("32MiB".parse().unwrap(), 100 << 20));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (read, _) = listener.accept().await.unwrap().0.into_split();
        let pool = Arc::new(BufferPool::new(Arc::clone(&memory)));
        (client, Inbound::new(read, pool, 100 << 20), memory)
    }

    /// What comes of a future at the first look.
    async fn look<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
        std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
    }

    /// Takes all memory for small frames.
    async fn take_all(memory: &Memory) -> Vec<Charge> {
        let mut charges = Vec::new();
        for kind in [FrameKind::Produce, FrameKind::Call] {
            while let Poll::Ready(charge) = look(&mut Box::pin(memory.small_frame(kind))).await {
                charges.push(charge);
            }
        }
        charges
    }

    /// A frame of `length` bytes behind its prefix, which asks for `key`.
    fn frame_of(key: ApiKey, length: u32) -> Vec<u8> {
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&key.code().to_be_bytes());
        frame.resize(SIZE_PREFIX_BYTES + length as usize, 7);
        frame
    }

    #[tokio::test]
    async fn what_appends_nothing_is_read_while_produce_requests_hold_all_that_they_may() {
        let (mut client, mut inbound, memory) = connected().await;
        let mut charges = Vec::new();
        while let Some(charge) = memory.try_small_frame() {
            charges.push(charge);
        }

        let heartbeat = frame_of(ApiKey::Heartbeat, 100);
        let fetch = frame_of(ApiKey::Fetch, 10_000);
        let produce = frame_of(ApiKey::Produce, 1_000);
        for frame in [&heartbeat, &fetch] {
            client.write_all(frame).await.unwrap();
            let read = inbound.frame(PACE_TIME).await.unwrap().unwrap();
            assert_eq!(read, frame[SIZE_PREFIX_BYTES..]);
        }

        client.write_all(&produce).await.unwrap();
        let mut frame = Box::pin(inbound.frame(PACE_TIME));
        while memory.reading().waiting == 0 {
            assert!(look(&mut frame).await.is_pending());
            tokio::task::yield_now().await;
        }
        drop(charges);

        assert_eq!(frame.await.unwrap().unwrap(), produce[SIZE_PREFIX_BYTES..]);
    }

    #[tokio::test]
    async fn who_sends_no_more_than_a_head_while_memory_is_short_holds_nothing() {
        let (mut client, mut inbound, memory) = connected().await;
        let charges = take_all(&memory).await;
        let held = memory.reading().used_bytes;
        let fetch = frame_of(ApiKey::Fetch, 10_000);
        client.write_all(&fetch[..8]).await.unwrap();
        let mut frame = Box::pin(inbound.frame(PACE_TIME));
        for _ in 0..1_000 {
            assert!(look(&mut frame).await.is_pending());
            tokio::task::yield_now().await;
        }
        drop(charges);

        assert!(look(&mut frame).await.is_pending());
        assert_eq!(
            (memory.reading().used_bytes, memory.reading().waiting),
            (0, 0),
            "{held} were held before"
        );

        client.write_all(&fetch[8..]).await.unwrap();
        assert_eq!(frame.await.unwrap().unwrap(), fetch[SIZE_PREFIX_BYTES..]);
    }

    #[tokio::test]
    async fn who_trickles_a_small_frame_is_cut_soon_once_others_wait_for_its_memory() {
        let (mut client, mut inbound, memory) = connected().await;
        client.write_all(&15_000_u32.to_be_bytes()).await.unwrap();
        client.write_all(&[0, 18, 0, 3]).await.unwrap();
        let mut frame = Box::pin(inbound.frame(PACE_TIME));
        while memory.reading().used_bytes == 0 {
            assert!(look(&mut frame).await.is_pending());
            tokio::task::yield_now().await;
        }

        let began = Instant::now();
        let _charges = take_all(&memory).await;
        let mut other = Box::pin(memory.small_frame(FrameKind::Call));
        assert!(look(&mut other).await.is_pending());

        let error = frame.await.unwrap_err().to_string();
        assert!(error.contains("the 15000 bytes of a frame and then took longer than 2 s"), "{error}");
        assert!(error.contains("--memory"), "{error}");
        assert!(began.elapsed() < PACE_TIME / 2, "it held the memory for {:?}", began.elapsed());
        drop(inbound);
        assert!(look(&mut other).await.is_ready());
    }

    #[test]
    fn a_frame_has_thirty_seconds_for_each_thirty_kibibytes() {
        let began = Instant::now();
        let later = |seconds| began + Duration::from_secs(seconds);
        let mut pace = Pace::new(began);

        pace.advance(|| later(29), PACE_BYTES - 1);
        assert_eq!(pace.deadline, later(30), "a byte too few moves the deadline");
        pace.advance(|| later(29), PACE_BYTES);
        assert_eq!(pace.deadline, later(59));
        pace.advance(|| later(58), 2 * PACE_BYTES - 1);
        assert_eq!(pace.deadline, later(59));
        pace.advance(|| later(58), 5 * PACE_BYTES);

        assert_eq!(pace.deadline, later(88));
    }

    #[test]
    fn a_frame_that_had_to_wait_for_memory_has_that_much_longer() {
        let began = Instant::now();
        let later = |seconds| began + Duration::from_secs(seconds);
        let mut pace = Pace::new(began);
        assert_eq!(pace.whole_by, later(2));
        pace.is_large();

        pace.pardon(later(1), later(21));
        assert_eq!((pace.deadline, pace.whole_by), (later(50), later(50)));
        pace.advance(|| later(40), PACE_BYTES);

        assert_eq!((pace.deadline, pace.whole_by), (later(70), later(50)), "progress makes nobody less late");
    }

    #[test]
    fn a_small_buffer_stays_as_large_as_what_it_is_charged_for() {
        let mut buffer = BytesMut::with_capacity(SMALL_BUFFER_BYTES);
        buffer.extend_from_slice(&[7; 10_000]);
        let frame = buffer.split_to(9_000).freeze();

        make_room(&mut buffer, SMALL_FRAME_BYTES_MAX, SMALL_BUFFER_BYTES);

        assert_eq!(
            (buffer.capacity(), &buffer[..], frame.len()),
            (SMALL_BUFFER_BYTES, &[7; 1_000][..], 9_000)
        );
    }
}
