//! Frames from a broker, and topics that are made for those who only know an address.

use std::io::Read;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use highwater_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use highwater_protocol::{SIZE_PREFIX_BYTES, frame_length};

use super::client::Client;

/// Most bytes of a response that a test expects.
const FRAME_BYTES_MAX: usize = 64 << 20;

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
    let response = Client::connect(address, "highwater-tests")?.call(7, &request)?;
    let answer = response.topics.first().context("the answer names the topic")?;
    let (code, message) = (answer.error_code, &answer.error_message);
    ensure!(code == 0, "creating {name} ended with error {code}: {message:?}");
    Ok(())
}
