//! A client with a name: raw requests on one connection, each sent and answered when the test says so.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use highwater_protocol::{ApiRequest, ApiResponse, SIZE_PREFIX_BYTES, decode_response, encode_request};

use super::wire::read_frame;

/// One connection of a client that calls itself something.
pub(crate) struct Client {
    stream: TcpStream,
    name: String,
    correlation_id: i32,
}

impl Client {
    /// Connects as `name`.
    pub(crate) fn connect(address: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, name: name.to_owned(), correlation_id: 0 })
    }

    /// The connection itself.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends a request; the size of its frame without the length prefix.
    pub(crate) fn send<R: ApiRequest>(&mut self, version: i16, request: &R) -> anyhow::Result<u64> {
        self.correlation_id += 1;
        let frame = encode_request(self.correlation_id, Some(&self.name), version, request)?;
        self.stream.write_all(&frame)?;
        Ok((frame.len() - SIZE_PREFIX_BYTES) as u64)
    }

    /// Waits for the answer to the request that was sent last.
    pub(crate) fn receive<R: ApiResponse>(&mut self, version: i16) -> anyhow::Result<R> {
        let frame = read_frame(&mut self.stream)?.context("the broker hung up")?;
        let (id, response) = decode_response(Bytes::from(frame).slice(SIZE_PREFIX_BYTES..), version)?;
        ensure!(id == self.correlation_id, "an answer to {id} instead of {}", self.correlation_id);
        Ok(response)
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call<R: ApiRequest>(&mut self, version: i16, request: &R) -> anyhow::Result<R::Response> {
        self.send(version, request)?;
        self.receive(version)
    }
}
