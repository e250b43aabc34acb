//! A broker by script: it reads real frames from a real socket and answers what the test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use highwater_client::{Address, ClientConfig, ConnectionConfig};
use highwater_protocol::api::{
    ApiVersionsResponse, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataResponse,
    fetch, list_offsets, metadata, produce,
};
use highwater_protocol::{
    ApiResponse, ErrorCode, Request, RequestHeader, encode_response, parse_request, wire,
};
use highwater_record::BatchHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The other end of one connection.
pub(crate) struct Peer {
    socket: TcpStream,
}

/// A listener and its address.
pub(crate) struct Stage {
    listener: TcpListener,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn address(&self) -> Address {
        self.listener.local_addr().unwrap().to_string().parse().unwrap()
    }

    pub(crate) async fn accept(&self) -> Peer {
        Peer { socket: self.listener.accept().await.unwrap().0 }
    }

    /// Accepts and answers the first question of every client.
    pub(crate) async fn accept_negotiated(&self) -> Peer {
        let mut peer = self.accept().await;
        let (header, _) = peer.read().await.unwrap();
        peer.answer(&header, &ApiVersionsResponse::advertised()).await;
        peer
    }
}

impl Peer {
    /// The next request; `None` when the client hangs up.
    pub(crate) async fn read(&mut self) -> Option<(RequestHeader, Request)> {
        let length = self.socket.read_u32().await.ok()?;
        let mut frame = BytesMut::zeroed(length as usize);
        self.socket.read_exact(&mut frame).await.ok()?;
        let (header, request) = parse_request(frame.freeze()).unwrap();
        Some((header, request.unwrap()))
    }

    pub(crate) async fn answer<R: ApiResponse>(&mut self, header: &RequestHeader, response: &R) {
        self.answer_in(header, header.api_version, response).await;
    }

    pub(crate) async fn answer_in<R: ApiResponse>(
        &mut self,
        header: &RequestHeader,
        version: i16,
        response: &R,
    ) {
        let encoded = encode_response(header.correlation_id, version, response).unwrap();
        self.write(&encoded.bytes).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }
}

pub(crate) fn connection_config() -> ConnectionConfig {
    ConnectionConfig {
        client_id: "test".to_owned(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        frame_bytes_max: 1 << 20,
    }
}

pub(crate) fn client_config(address: Address) -> ClientConfig {
    ClientConfig { connection: connection_config(), ..ClientConfig::new(vec![address], "test") }
}

/// What the broker does with a produced batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Says that the batch is at this offset.
    Take(i64),
    /// Answers with an error.
    Fail(ErrorCode),
    /// Hangs up.
    Cut,
}

/// A batch that reached the broker: producer id and base sequence.
pub(crate) type Arrival = (i64, i32);

/// A broker with one topic `t` that it leads, of one partition or as many as are served. Produce requests are answered by `acts`, in their order;
/// Fetch requests with `log`.
#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) address: Address,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    acts: Vec<Act>,
    arrivals: Vec<Arrival>,
    producers: i64,
    /// A batch of the last producer was taken.
    is_known: bool,
    log: Vec<fetch::PartitionData>,
}

impl Broker {
    /// Plays until the test ends. Once a batch of the producer was taken, as many batches as `gather` says are read before
    /// the first of them is answered, so that what is in flight together is known.
    pub(crate) async fn start(acts: &[Act], gather: usize) -> Self {
        let stage = Stage::new().await;
        let shared = Shared {
            acts: acts.to_vec(),
            arrivals: Vec::new(),
            producers: 0,
            is_known: false,
            log: vec![fetch::PartitionData::default()],
        };
        let broker = Self { address: stage.address(), shared: Arc::new(Mutex::new(shared)) };
        let player = broker.clone();
        tokio::spawn(async move {
            loop {
                let peer = stage.accept().await;
                tokio::spawn(player.clone().play(peer, gather));
            }
        });
        broker
    }

    /// Answers fetches with `log` from now on.
    pub(crate) fn serve(&self, log: fetch::PartitionData) {
        self.serve_all(vec![log]);
    }

    /// The same with one log per partition.
    pub(crate) fn serve_all(&self, mut log: Vec<fetch::PartitionData>) {
        for (index, partition) in (0..).zip(&mut log) {
            partition.partition_index = index;
        }
        self.shared.lock().unwrap().log = log;
    }

    /// The batches that came, in their order.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.lock().unwrap().arrivals.clone()
    }

    async fn play(self, mut peer: Peer, gather: usize) {
        let mut held = Vec::new();
        while let Some((header, request)) = peer.read().await {
            match request {
                Request::ApiVersions(_) => peer.answer(&header, &ApiVersionsResponse::advertised()).await,
                Request::Metadata(_) => peer.answer(&header, &self.metadata()).await,
                Request::InitProducerId(_) => peer.answer(&header, &self.producer_id()).await,
                Request::ListOffsets(request) => peer.answer(&header, &offsets(&request)).await,
                Request::Fetch(_) => peer.answer(&header, &self.fetched()).await,
                Request::Produce(request) => {
                    self.note_arrival(&request);
                    held.push(header);
                    if held.len() < self.together(gather) {
                        continue;
                    }
                    for header in held.drain(..) {
                        let act = self.shared.lock().unwrap().acts.remove(0);
                        let response = match act {
                            Act::Cut => return,
                            Act::Take(offset) => {
                                self.shared.lock().unwrap().is_known = true;
                                produced(0, offset)
                            }
                            Act::Fail(code) => produced(code.code(), -1),
                        };
                        peer.answer(&header, &response).await;
                    }
                }
                other => panic!("the script has no answer to {other:?}"),
            }
        }
    }

    fn together(&self, gather: usize) -> usize {
        let shared = self.shared.lock().unwrap();
        if shared.is_known { gather.min(shared.acts.len()) } else { 1 }
    }

    fn note_arrival(&self, request: &produce::ProduceRequest) {
        let records = &request.topic_data[0].partition_data[0].records;
        let header = BatchHeader::parse(records.bytes().unwrap()).unwrap();
        let producer = header.producer.unwrap();
        let arrival = (producer.id.get(), producer.base_sequence.unwrap().get());
        self.shared.lock().unwrap().arrivals.push(arrival);
    }

    fn metadata(&self) -> MetadataResponse {
        let broker = metadata::MetadataResponseBroker {
            node_id: 1,
            host: self.address.host.as_str().into(),
            port: self.address.port.into(),
            rack: None,
        };
        let partition = |partition_index| metadata::MetadataResponsePartition {
            partition_index,
            leader_id: 1,
            ..Default::default()
        };
        let count = i32::try_from(self.shared.lock().unwrap().log.len()).unwrap();
        let topic = metadata::MetadataResponseTopic {
            name: Some("t".into()),
            partitions: (0..count).map(partition).collect(),
            ..Default::default()
        };
        MetadataResponse {
            brokers: vec![broker],
            controller_id: 1,
            topics: vec![topic],
            ..Default::default()
        }
    }

    fn producer_id(&self) -> InitProducerIdResponse {
        let mut shared = self.shared.lock().unwrap();
        shared.producers += 1;
        shared.is_known = false;
        InitProducerIdResponse { producer_id: shared.producers, producer_epoch: 0, ..Default::default() }
    }

    fn fetched(&self) -> fetch::FetchResponse {
        let partitions = self.shared.lock().unwrap().log.clone();
        let topic = fetch::FetchableTopicResponse { topic: "t".into(), partitions, ..Default::default() };
        fetch::FetchResponse { responses: vec![topic], ..Default::default() }
    }
}

fn produced(error_code: i16, base_offset: i64) -> produce::ProduceResponse {
    let partition = produce::PartitionProduceResponse { error_code, base_offset, ..Default::default() };
    let topic = produce::TopicProduceResponse {
        name: "t".into(),
        partition_responses: vec![partition],
        ..Default::default()
    };
    produce::ProduceResponse { responses: vec![topic], ..Default::default() }
}

/// Logs from 100 to 100, whatever is asked.
fn offsets(request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let partition = |asked: &list_offsets::ListOffsetsPartition| list_offsets::ListOffsetsPartitionResponse {
        partition_index: asked.partition_index,
        offset: 100,
        ..Default::default()
    };
    let partitions = request.topics[0].partitions.iter().map(partition).collect();
    let topic = list_offsets::ListOffsetsTopicResponse { name: "t".into(), partitions };
    ListOffsetsResponse { topics: vec![topic], ..Default::default() }
}

/// Fetched records.
pub(crate) fn fetched(bytes: impl Into<Bytes>) -> fetch::PartitionData {
    fetch::PartitionData {
        high_watermark: 1000,
        records: wire::Records::Bytes(bytes.into()),
        ..Default::default()
    }
}
