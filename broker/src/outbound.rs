//! Putting one answer on the socket: header pieces with `write`, file ranges with `sendfile`.
//!
//! This is the one place that decides how bytes leave (design D3). A plaintext socket takes file ranges straight
//! from the page cache, so that record bytes are never copied through the broker.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use highwater_storage::FileRange;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// One stretch of an answer.
pub(crate) enum Piece {
    /// Bytes in memory.
    Memory(Bytes),
    /// Bytes of a segment file.
    File(FileRange),
}

impl Piece {
    /// How many bytes leave.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(range) => range.len().into(),
        }
    }

    /// How many bytes of this process's memory it holds. Bytes of files leave by `sendfile` and are never in it.
    pub(crate) fn held_bytes(&self) -> u64 {
        let content = if let Self::Memory(bytes) = self { bytes.len() } else { 0 };
        (content + size_of::<Self>()) as u64
    }
}

/// The bytes of answers that are ready to leave, in order.
#[derive(Default)]
pub(crate) struct Outbound {
    pieces: VecDeque<Piece>,
    /// Small pieces are gathered here, so that several short answers leave in one write.
    gathered: BytesMut,
}

/// A client that makes no room for more of its answer for this long is disconnected. The system is stricter with one
/// that does not read at all (`TCP_USER_TIMEOUT` in the listener); a large send buffer of a slow reader makes room in
/// large steps.
const STALL_DEADLINE: Duration = Duration::from_secs(60);
/// Pieces up to this size are copied together.
const GATHER_BYTES_MAX: usize = 16 * 1024;

impl Outbound {
    /// Queues `piece` behind everything queued before.
    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Memory(bytes) if bytes.len() + self.gathered.len() <= GATHER_BYTES_MAX => {
                self.gathered.extend_from_slice(&bytes);
            }
            other => {
                self.seal();
                self.pieces.push_back(other);
            }
        }
    }

    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = self.gathered.split().freeze();
            self.pieces.push_back(Piece::Memory(gathered));
        }
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.gathered.is_empty()
    }

    /// Writes everything that is queued.
    pub(crate) async fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.seal();
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Memory(bytes) => {
                    // A header leaves together with the file bytes behind it, not in a packet of its own.
                    let more = matches!(self.pieces.front(), Some(Piece::File(_)));
                    let flags = if more { SendFlags::MORE } else { SendFlags::empty() } | SendFlags::NOSIGNAL;
                    send_bytes(socket, bytes, flags).await?;
                }
                Piece::File(range) => send_file(socket, &range).await?,
            }
        }
        // An idle connection keeps no buffer.
        self.gathered = BytesMut::new();
        Ok(())
    }
}

async fn send_bytes(socket: &TcpStream, mut bytes: Bytes, flags: SendFlags) -> io::Result<()> {
    while bytes.has_remaining() {
        let sent = socket.try_io(Interest::WRITABLE, || Ok(rustix::net::send(socket, &bytes, flags)?));
        match sent {
            Ok(sent) => bytes.advance(sent),
            Err(error) => retry(socket, error).await?,
        }
    }
    Ok(())
}

async fn send_file(socket: &TcpStream, range: &FileRange) -> io::Result<()> {
    let file = range.as_fd().ok_or(io::ErrorKind::Unsupported)?;
    let mut position = range.position();
    let end = position + u64::from(range.len());
    while position < end {
        let want = usize::try_from(end - position).unwrap_or(usize::MAX);
        let sent = socket.try_io(Interest::WRITABLE, || {
            Ok(rustix::fs::sendfile(socket, file, Some(&mut position), want)?)
        });
        match sent {
            Ok(0) => {
                // The frame's length is already on the wire: all that is left is to close the connection.
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the segment file ends at {position}, the answer needs it up to {end}"),
                ));
            }
            Ok(_) => {}
            Err(error) => retry(socket, error).await?,
        }
    }
    Ok(())
}

/// Waits for room if that is what was missing; a client that reads nothing for too long is given up.
async fn retry(socket: &TcpStream, error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => match tokio::time::timeout(STALL_DEADLINE, socket.writable()).await {
            Ok(ready) => ready,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client has read nothing for {} s", STALL_DEADLINE.as_secs()),
            )),
        },
        _ => Err(error),
    }
}
