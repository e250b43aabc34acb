//! One blocking connection to a server under test. A thread each: the generator has no runtime to pay for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::frame::{self, LENGTH_BYTES};

/// A server that is silent for longer than this is taken for dead. Longer than the longest poll.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// No answer that the benches ask for comes near this.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Requests go out in order, answers come back in order; both are counted by correlation id.
pub(crate) struct Connection {
    stream: TcpStream,
    sent: i32,
    received: i32,
    answer: Vec<u8>,
}

/// One answer: its body and the correlation id that it must carry.
pub(crate) struct Answer<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) correlation: i32,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        stream.set_read_timeout(Some(SILENCE_MAX)).context("set a read timeout")?;
        Ok(Self { stream, sent: 0, received: 0, answer: Vec::new() })
    }

    /// Sends a finished request under the next correlation id.
    pub(crate) fn send(&mut self, request: &mut [u8]) -> Result<()> {
        frame::set_correlation(request, self.sent);
        self.sent = self.sent.wrapping_add(1);
        self.stream.write_all(request).context("send a request")
    }

    /// Waits for the oldest answer that is due.
    pub(crate) fn receive(&mut self) -> Result<Answer<'_>> {
        let mut length = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut length).context("wait for an answer")?;
        let length =
            usize::try_from(i32::from_be_bytes(length)).context("an answer has a negative length")?;
        ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes, {ANSWER_BYTES_MAX} are expected");
        if self.answer.len() < length {
            self.answer.resize(length, 0);
        }
        let body = &mut self.answer[..length];
        self.stream.read_exact(body).context("read an answer")?;
        let correlation = self.received;
        self.received = self.received.wrapping_add(1);
        Ok(Answer { body, correlation })
    }

    /// Makes sure that `topic` is there.
    pub(crate) fn create_topic(&mut self, topic: &str, partitions: i32, segment_bytes: u64) -> Result<()> {
        let segment_bytes = segment_bytes.to_string();
        self.send(&mut frame::create_topic(topic, partitions, &[("segment.bytes", &segment_bytes)]))?;
        let answer = self.receive()?;
        frame::topic_created(answer.body, answer.correlation)
    }
}
