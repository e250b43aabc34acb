//! Reading frames from a socket.
//!
//! Small frames are sliced out of the connection's own buffer, which an idle connection gives up. Large ones are
//! received into a pooled buffer that grows with the bytes that arrive, never with the length that a client claims.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use highwater_protocol::{FrameError, SIZE_PREFIX_BYTES, frame_length};
use thiserror::Error;
use tokio::net::tcp::OwnedReadHalf;

use crate::buffers::BufferPool;

/// Frames up to this size stay in the connection's own buffer.
const SMALL_FRAME_BYTES_MAX: usize = 16 * 1024;
/// How much is asked of the socket at once while no large frame is under way.
const READ_BYTES: usize = 16 * 1024;
/// A large frame is first given this much, however long it claims to be.
const FIRST_BYTES_MAX: usize = 1024 * 1024;
/// A frame that has begun must make progress within this time.
const STALL_DEADLINE: Duration = Duration::from_secs(30);

/// The reading half of a connection.
pub(crate) struct Inbound {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    pool: Arc<BufferPool>,
    frame_bytes_max: u32,
}

/// Why no further frame can be read.
#[derive(Debug, Error)]
pub(crate) enum InboundError {
    /// The length prefix is negative or above the limit.
    #[error(transparent)]
    Length(#[from] FrameError),
    /// The peer closed or stalled in the middle of a frame.
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
        Self { socket, buffer: BytesMut::new(), pool, frame_bytes_max }
    }

    /// The next frame without its length prefix; `None` if the peer closed between two frames.
    pub(crate) async fn frame(&mut self) -> Result<Option<Bytes>, InboundError> {
        if self.buffer.is_empty() {
            // Reused if the slices of earlier frames are gone, given up otherwise.
            self.buffer = BytesMut::new();
            self.socket.readable().await?;
        }
        while self.buffer.len() < SIZE_PREFIX_BYTES {
            if self.fill().await? == 0 {
                return match self.buffer.len() {
                    0 => Ok(None),
                    received => Err(cut(received, SIZE_PREFIX_BYTES, "closed the connection")),
                };
            }
        }
        let prefix = [self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]];
        let length = frame_length(prefix, self.frame_bytes_max as usize)?;
        self.buffer.advance(SIZE_PREFIX_BYTES);
        if length > SMALL_FRAME_BYTES_MAX && length > self.buffer.len() {
            return self.large(length).await.map(Some);
        }
        while self.buffer.len() < length {
            if self.fill_in_time(self.buffer.len(), length).await? == 0 {
                return Err(cut(self.buffer.len(), length, "closed the connection"));
            }
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Completes when the peer has closed; never if it has sent more instead, since that may be a next request.
    pub(crate) async fn closed(&mut self) {
        let open = self.buffer.is_empty() && matches!(self.socket.peek(&mut [0]).await, Ok(1));
        if open || !self.buffer.is_empty() {
            std::future::pending::<()>().await;
        }
    }

    async fn large(&mut self, length: usize) -> Result<Bytes, InboundError> {
        let mut frame = self.pool.take(length.min(FIRST_BYTES_MAX));
        let mut received = self.buffer.len();
        frame.as_mut()[..received].copy_from_slice(&self.buffer);
        self.buffer.clear();
        while received < length {
            let room = frame.as_mut().len().min(length);
            if received == room {
                let mut larger = self.pool.take(length.min(room * 2));
                larger.as_mut()[..received].copy_from_slice(&frame.as_mut()[..received]);
                frame = larger;
                continue;
            }
            match self.socket.try_read(&mut frame.as_mut()[received..room]) {
                Ok(0) => return Err(cut(received, length, "closed the connection")),
                Ok(count) => received += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let readable = tokio::time::timeout(STALL_DEADLINE, self.socket.readable()).await;
                    readable.map_err(|_| cut(received, length, "stalled"))??;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(frame.freeze(length))
    }

    async fn fill_in_time(&mut self, received: usize, expected: usize) -> Result<usize, InboundError> {
        let filled = tokio::time::timeout(STALL_DEADLINE, self.fill()).await;
        filled.map_err(|_| cut(received, expected, "stalled"))?
    }

    async fn fill(&mut self) -> Result<usize, InboundError> {
        loop {
            self.buffer.reserve(READ_BYTES);
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.readable().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn cut(received: usize, expected: usize, ended: &'static str) -> InboundError {
    InboundError::Cut { received, expected, ended }
}
