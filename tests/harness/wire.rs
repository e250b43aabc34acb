//! Raw frames to a broker, for what no client lets a test say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use highwater_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use highwater_protocol::{ApiRequest, SIZE_PREFIX_BYTES, decode_response, encode_request, frame_length};

/// Most bytes of a response that a test expects.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// One connection, one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    correlation_id: i32,
}

impl Connection {
    /// Connects to the broker at `address`.
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, correlation_id: 0 })
    }

    /// Sends `request` in `version` and waits for its answer.
    pub(crate) fn call<R: ApiRequest>(&mut self, version: i16, request: &R) -> anyhow::Result<R::Response> {
        self.correlation_id += 1;
        let frame = encode_request(self.correlation_id, Some("highwater-tests"), version, request)?;
        self.stream.write_all(&frame)?;
        let answer = read_frame(&mut self.stream)?.context("the broker hung up")?;
        let body = Bytes::from(answer).slice(SIZE_PREFIX_BYTES..);
        let (correlation_id, response) = decode_response(body, version)?;
        ensure!(correlation_id == self.correlation_id, "answer {correlation_id} to {}", self.correlation_id);
        Ok(response)
    }
}

/// The next frame with its size prefix, or None at the end of the stream.
pub(crate) fn read_frame(stream: &mut impl Read) -> anyhow::Result<Option<Vec<u8>>> {
    let mut prefix = [0; SIZE_PREFIX_BYTES];
    match stream.read_exact(&mut prefix) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut frame = prefix.to_vec();
    frame.resize(SIZE_PREFIX_BYTES + frame_length(prefix, FRAME_BYTES_MAX)?, 0);
    stream.read_exact(&mut frame[SIZE_PREFIX_BYTES..])?;
    Ok(Some(frame))
}

/// Creates a topic.
pub(crate) fn create_topic(address: SocketAddr, name: &str, partitions: usize) -> anyhow::Result<()> {
    create_topic_with(address, name, partitions, &[])
}

/// Creates a topic with settings of its own.
pub(crate) fn create_topic_with(
    address: SocketAddr,
    name: &str,
    partitions: usize,
    settings: &[(&str, &str)],
) -> anyhow::Result<()> {
    let setting = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
    };
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: i32::try_from(partitions)?,
        replication_factor: 1,
        configs: settings.iter().map(setting).collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let response = Connection::open(address)?.call(7, &request)?;
    let answer = response.topics.first().context("the answer names the topic")?;
    let (code, message) = (answer.error_code, &answer.error_message);
    ensure!(code == 0, "creating {name} ended with error {code}: {message:?}");
    Ok(())
}
