//! A blocking connection to a broker: one request at a time, or many in flight.
//!
//! Made of the protocol crate and std alone, so that a fault of the client crate cannot hide a fault of the broker.
//! Nothing here waits for longer than [`DEADLINE`].

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use highwater_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use highwater_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use highwater_protocol::api::init_producer_id::InitProducerIdRequest;
use highwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use highwater_protocol::api::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use highwater_protocol::wire::{Records, Str, Uuid};
use highwater_protocol::{ApiRequest, ApiResponse, ErrorCode, decode_response, encode_request};
use highwater_record::{Producer, ProducerEpoch, ProducerId, Sequence};

use super::gate::Gate;

/// How long a broker may take for an answer before the test calls it stuck.
const DEADLINE: Duration = Duration::from_secs(90);
/// How long a client waits that knows that its broker is short of something.
const PATIENCE: Duration = Duration::from_secs(300);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// The newest version that names topics, in Produce.
pub(crate) const PRODUCE_VERSION: i16 = 12;

/// The timestamp that asks ListOffsets for the end.
const LATEST: i64 = -1;

/// A connection to a broker.
pub(crate) struct Connection {
    stream: TcpStream,
    correlation_id: i32,
    gate: Option<Arc<Gate>>,
}

impl Connection {
    /// Connects. What comes while the gate is dark was never received: the connection is lost then.
    pub(crate) fn watched(address: SocketAddr, gate: &Arc<Gate>) -> io::Result<Self> {
        Ok(Self { gate: Some(Arc::clone(gate)), ..Self::open(address)? })
    }

    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        // While nobody listens on a port of the ephemeral range, a socket can be connected to itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, correlation_id: 0, gate: None })
    }

    /// Connects, and waits as long as a broker that pushes back may take.
    pub(crate) fn open_patient(address: SocketAddr) -> io::Result<Self> {
        let connection = Self::open(address)?;
        connection.stream.set_read_timeout(Some(PATIENCE))?;
        connection.stream.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// The socket, for somebody who wants to close it while another waits on it.
    pub(crate) fn socket(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// The same connection once more, for somebody who takes the answers while another sends.
    pub(crate) fn twin(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, correlation_id: 0, gate: self.gate.clone() })
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call<R: ApiRequest>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let sent = self.send(version, request)?;
        let (received, response) = self.receive::<R::Response>(version)?;
        if received != sent {
            return Err(invalid(format!("the answer to {sent} names {received}")));
        }
        Ok(response)
    }

    /// Sends a request; its correlation id.
    pub(crate) fn send<R: ApiRequest>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        self.correlation_id += 1;
        let frame = encode_request(self.correlation_id, Some("faults"), version, request).map_err(invalid)?;
        self.stream.write_all(&frame)?;
        Ok(self.correlation_id)
    }

    /// The correlation id of the next request.
    pub(crate) const fn next_correlation_id(&self) -> i32 {
        self.correlation_id + 1
    }

    /// Waits for the next answer; the correlation id that it names, and what it says.
    pub(crate) fn receive<R: ApiResponse>(&mut self, version: i16) -> io::Result<(i32, R)> {
        decode_response(self.receive_frame()?, version).map_err(invalid)
    }

    /// Sends bytes as they are and says that there are no more; everything that comes back until the broker closes.
    pub(crate) fn exchange_bytes(mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let sent = self.stream.write_all(bytes).and_then(|()| self.stream.shutdown(Shutdown::Write));
        or_closed(sent)?;
        self.receive_to_end()
    }

    /// Sends bytes as they are; everything that comes back until the broker closes by itself.
    pub(crate) fn send_and_listen(mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        or_closed(self.stream.write_all(bytes))?;
        self.receive_to_end()
    }

    fn receive_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        or_closed(self.stream.read_to_end(&mut received).map(drop))?;
        Ok(received)
    }

    /// Waits for the next frame; without its length.
    fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let length = highwater_protocol::frame_length(prefix, ANSWER_BYTES_MAX).map_err(invalid)?;
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        if self.gate.as_ref().is_some_and(|gate| gate.is_dark()) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(frame.into())
    }

    /// Creates a topic; its id.
    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<Uuid> {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: Str::from(*name),
                value: Some(Str::from(*value)),
            })
            .collect();
        let topic = CreatableTopic {
            name: Str::from(name),
            num_partitions: partitions,
            replication_factor: 1,
            configs,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let response = self.call(7, &request).context("create a topic")?;
        let result = response.topics.first().context("the answer names the topic")?;
        ensure!(result.error_code == 0, "creating {name:?} was refused: {result:?}");
        Ok(result.topic_id)
    }

    /// Deletes a topic.
    pub(crate) fn delete_topic(&mut self, name: &str) -> anyhow::Result<()> {
        let topics = vec![DeleteTopicState { name: Some(Str::from(name)), ..DeleteTopicState::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..DeleteTopicsRequest::default() };
        let response = self.call(6, &request).context("delete a topic")?;
        let result = response.responses.first().context("the answer names the topic")?;
        ensure!(result.error_code == 0, "deleting {name:?} was refused: {result:?}");
        Ok(())
    }

    /// Takes a producer id. A broker that cannot hand one out now is as good as not reached.
    pub(crate) fn init_producer(&mut self) -> io::Result<(ProducerId, ProducerEpoch)> {
        let response = self.call(4, &InitProducerIdRequest::default())?;
        match (ProducerId::new(response.producer_id), ProducerEpoch::new(response.producer_epoch)) {
            (Some(id), Some(epoch)) if response.error_code == 0 => Ok((id, epoch)),
            _ if response.error_code == ErrorCode::CoordinatorNotAvailable.code() => {
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => Err(invalid(format!("no producer id: {response:?}"))),
        }
    }

    /// The end of a partition that consumers see; `None` if there is no such partition.
    pub(crate) fn latest_offset(&mut self, topic: &str, index: i32) -> io::Result<Option<i64>> {
        let partition = ListOffsetsPartition {
            partition_index: index,
            timestamp: LATEST,
            ..ListOffsetsPartition::default()
        };
        let topic = ListOffsetsTopic { name: Str::from(topic), partitions: vec![partition] };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        let response = self.call(7, &request)?;
        let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        Ok(found.filter(|found| found.error_code == 0).map(|found| found.offset))
    }

    /// Appends one batch to one partition and waits for the answer.
    pub(crate) fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> anyhow::Result<PartitionProduceResponse> {
        let request = produce_request(topic, [(partition, batch)]);
        let response = self.call(PRODUCE_VERSION, &request).context("produce")?;
        let mut answers = answers_of(response).into_iter();
        match (answers.next(), answers.next()) {
            (Some(answer), None) => Ok(answer),
            _ => bail!("one batch was sent, the answer speaks of another number of partitions"),
        }
    }
}

/// A request that appends these batches and asks for every acknowledgement there is.
pub(crate) fn produce_request(
    topic: &str,
    batches: impl IntoIterator<Item = (i32, Bytes)>,
) -> ProduceRequest {
    let partition_data = batches
        .into_iter()
        .map(|(index, batch)| PartitionProduceData { index, records: Records::Bytes(batch) })
        .collect();
    let topic = TopicProduceData { name: Str::from(topic), partition_data, ..TopicProduceData::default() };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

/// The answers per partition.
pub(crate) fn answers_of(response: ProduceResponse) -> Vec<PartitionProduceResponse> {
    response.responses.into_iter().flat_map(|topic| topic.partition_responses).collect()
}

/// A producer at a sequence.
pub(crate) fn producer_at((id, epoch): (ProducerId, ProducerEpoch), sequence: i32) -> Producer {
    let base_sequence = Sequence::new(sequence).expect("sequences of tests do not wrap");
    Producer { id, epoch, base_sequence: Some(base_sequence) }
}

/// Kafka's name of an error code.
pub(crate) fn name_of(code: i16) -> &'static str {
    ErrorCode::from_code(code).map_or("an unknown code", ErrorCode::name)
}

/// A broker that closes while bytes of ours are unread resets the connection, which is an end like another.
fn or_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_lost_connection(&error) => Ok(()),
        result => result,
    }
}

/// Whether the connection broke, in contrast to a broker that says something wrong or nothing at all.
pub(crate) fn is_lost_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | UnexpectedEof
    )
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
