//! Valid frames of every API in every version, to be damaged.
//!
//! Each API has requests that a handler takes far: topics that exist and topics that do not, by name and by id,
//! batches of every codec. A field that a version cannot carry is left at its default there. With them come the
//! requests that real clients sent (`tests/golden/wire`).

mod admin;
mod groups;

use std::ops::Range;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use highwater_protocol::api::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use highwater_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use highwater_protocol::api::find_coordinator::FindCoordinatorRequest;
use highwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use highwater_protocol::api::metadata::{MetadataRequest, MetadataRequestTopic};
use highwater_protocol::api::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use highwater_protocol::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use highwater_protocol::api::{ApiVersionsRequest, InitProducerIdRequest};
use highwater_protocol::wire::{Records, Str, Uuid};
use highwater_protocol::{ApiRequest, Request, encode_request, parse_request};
use highwater_record::{
    BatchBuilder, Codec, NewRecord, Producer, ProducerEpoch, ProducerId, Sequence, TimestampMs,
};

use crate::faults::random::Random;
use crate::harness::toolbox::tests_dir;

/// The topic that exists, with [`PARTITIONS`] partitions.
pub(crate) const TOPIC: &str = "fuzz";
/// Its partitions.
pub(crate) const PARTITIONS: i32 = 2;

/// A request without its length prefix.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    /// Where its record batch lies, if it has one.
    pub(crate) batch: Option<Range<usize>>,
}

impl Frame {
    fn new(bytes: Vec<u8>) -> Self {
        let batch = batch_in(Bytes::copy_from_slice(&bytes));
        Self { bytes, batch }
    }
}

/// Where the batch of a produce request lies.
fn batch_in(frame: Bytes) -> Option<Range<usize>> {
    let start = frame.as_ptr() as usize;
    let Ok((_, Ok(Request::Produce(request)))) = parse_request(frame) else { return None };
    // What is decoded borrows from the frame.
    let records = request.topic_data.first()?.partition_data.first()?.records.bytes()?;
    let at = records.as_ptr() as usize - start;
    Some(at..at + records.len())
}

/// Frames to be damaged, sorted by API, so that each API is as likely as another.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    by_api: Vec<Vec<Frame>>,
    with_batch: Vec<Frame>,
}

impl Seeds {
    /// Every frame. `topic_id` is the id of [`TOPIC`].
    pub(crate) fn new(topic_id: Uuid) -> anyhow::Result<Self> {
        let mut frames = frames(topic_id);
        frames.extend(captured()?);
        frames.sort_by_key(|frame| frame.bytes.get(..2).map(<[u8]>::to_vec));
        let with_batch = frames.iter().filter(|frame| frame.batch.is_some()).cloned().collect();
        let by_api = frames.chunk_by(|one, next| one.bytes[..2] == next.bytes[..2]).map(<[Frame]>::to_vec);
        Ok(Self { by_api: by_api.collect(), with_batch })
    }

    /// Any frame.
    pub(crate) fn any(&self, random: &mut Random) -> &Frame {
        let api = random.choose(&self.by_api);
        random.choose(api)
    }

    /// A frame with a batch.
    pub(crate) fn with_batch(&self, random: &mut Random) -> &Frame {
        random.choose(&self.with_batch)
    }
}

fn frames(topic_id: Uuid) -> Vec<Frame> {
    let mut frames = Vec::new();
    for batch in batches() {
        for acks in [1, -1, 0] {
            produce(&mut frames, topic_id, &batch, acks);
        }
    }
    every_version(&mut frames, |version| fetch(version, topic_id));
    // Each partition may be asked for once.
    for timestamp in -5..=1 {
        every_version(&mut frames, |_| list_offsets(timestamp));
    }
    for create in [false, true] {
        every_version(&mut frames, |version| metadata(version, topic_id, create));
    }
    // All topics: null, or in version 0 an empty list.
    every_version(&mut frames, |version| MetadataRequest {
        topics: (version == 0).then(Vec::new),
        ..MetadataRequest::default()
    });
    every_version(&mut frames, find_coordinator);
    every_version(&mut frames, |_| ApiVersionsRequest {
        client_software_name: "fuzz".into(),
        client_software_version: "1.0".into(),
    });
    every_version(&mut frames, |_| create_topics());
    every_version(&mut frames, delete_topics);
    for transactional_id in [None, Some(Str::from("transaction"))] {
        every_version(&mut frames, |_| InitProducerIdRequest {
            transactional_id: transactional_id.clone(),
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        });
    }
    every_version(&mut frames, |_| offset_for_leader_epoch());
    groups::add(&mut frames);
    admin::frames(&mut frames);
    frames
}

/// Encodes a request in every version that can carry it.
fn every_version<R: ApiRequest>(frames: &mut Vec<Frame>, request: impl Fn(i16) -> R) {
    let served = R::KEY.served();
    for version in served.min()..=served.max() {
        let encoded = encode_request(7, Some("fuzz"), version, &request(version));
        let encoded = encoded.unwrap_or_else(|error| panic!("{} {version}: {error}", R::KEY));
        frames.push(Frame::new(encoded[4..].to_vec()));
    }
}

fn produce(frames: &mut Vec<Frame>, topic_id: Uuid, batch: &Bytes, acks: i16) {
    every_version(frames, |_| {
        let partition_data = vec![PartitionProduceData { index: 1, records: Records::Bytes(batch.clone()) }];
        let topic = TopicProduceData { name: Str::from(TOPIC), topic_id, partition_data };
        ProduceRequest { acks, timeout_ms: 100, topic_data: vec![topic], ..ProduceRequest::default() }
    });
}

/// The requests that the interop tests keep, as digits.
fn captured() -> anyhow::Result<Vec<Frame>> {
    let mut frames = Vec::new();
    for client in std::fs::read_dir(tests_dir().join("golden/wire"))? {
        for file in std::fs::read_dir(client?.path())? {
            let path = file?.path();
            if !path.to_string_lossy().ends_with("_request.hex") {
                continue;
            }
            let digits: Vec<u8> =
                std::fs::read(&path)?.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let bytes = digits.chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
            let bytes =
                bytes.collect::<anyhow::Result<Vec<u8>>>().with_context(|| format!("read {path:?}"))?;
            frames.push(Frame::new(bytes[4..].to_vec()));
        }
    }
    ensure!(!frames.is_empty(), "there are no captured requests");
    Ok(frames)
}

fn batches() -> Vec<Bytes> {
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let mut batches: Vec<Bytes> = codecs.into_iter().map(|codec| fill(BatchBuilder::new(codec))).collect();
    let producer =
        Producer { id: ProducerId::ZERO, epoch: ProducerEpoch::ZERO, base_sequence: Some(Sequence::ZERO) };
    batches.push(fill(BatchBuilder::new(Codec::None).producer(producer)));
    batches.push(fill(BatchBuilder::new(Codec::None).producer(producer).transactional()));
    batches.push(fill(BatchBuilder::new(Codec::None).producer(producer).control()));
    batches
}

fn fill(mut builder: BatchBuilder) -> Bytes {
    for (key, value) in
        [(Some(&b"key"[..]), Some(&b"value"[..])), (None, Some(&[b'x'; 64])), (Some(b"gone"), None)]
    {
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"header", Some(b"1")), (b"header", None)];
        let record = NewRecord { timestamp: TimestampMs(1_700_000_000_000), key, value, headers: &headers };
        builder.append(&record).expect("three small records fit a batch");
    }
    builder.build().expect("a batch of records can be built")
}

fn fetch(version: i16, topic_id: Uuid) -> FetchRequest {
    let partition = |partition, fetch_offset| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 4096,
        ..FetchPartition::default()
    };
    let partitions = vec![partition(0, 0), partition(1, 1), partition(9, 0)];
    let topic = FetchTopic { topic: Str::from(TOPIC), topic_id, partitions };
    let forgotten = ForgottenTopic { topic: Str::from("other"), topic_id: other_id(), partitions: vec![0] };
    FetchRequest {
        max_wait_ms: 1,
        min_bytes: 1,
        max_bytes: 1 << 16,
        isolation_level: 1,
        topics: vec![topic],
        forgotten_topics_data: if version >= 7 { vec![forgotten] } else { Vec::new() },
        ..FetchRequest::default()
    }
}

fn list_offsets(timestamp: i64) -> ListOffsetsRequest {
    let partitions = (0..PARTITIONS)
        .map(|partition_index| ListOffsetsPartition {
            partition_index,
            timestamp,
            ..ListOffsetsPartition::default()
        })
        .collect();
    let topic = ListOffsetsTopic { name: Str::from(TOPIC), partitions };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        timeout_ms: 100,
        ..ListOffsetsRequest::default()
    }
}

fn metadata(version: i16, topic_id: Uuid, create: bool) -> MetadataRequest {
    let named =
        |name: &str| MetadataRequestTopic { name: Some(Str::from(name)), ..MetadataRequestTopic::default() };
    let mut topics = vec![named(TOPIC), named("metadata-may-create-this"), named("no/such name")];
    if version >= 12 {
        topics.push(MetadataRequestTopic { topic_id, name: None });
        topics.push(MetadataRequestTopic { topic_id: other_id(), name: None });
    }
    MetadataRequest {
        topics: Some(topics),
        allow_auto_topic_creation: create || version < 4,
        include_topic_authorized_operations: version >= 8,
        ..MetadataRequest::default()
    }
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    if version < 4 {
        return FindCoordinatorRequest { key: "group".into(), ..FindCoordinatorRequest::default() };
    }
    let coordinator_keys = vec!["group".into(), "another group".into()];
    FindCoordinatorRequest { coordinator_keys, ..FindCoordinatorRequest::default() }
}

fn create_topics() -> CreateTopicsRequest {
    let config = |name: &str, value: &str| CreatableTopicConfig {
        name: Str::from(name),
        value: Some(Str::from(value)),
    };
    let plain = CreatableTopic {
        name: "created".into(),
        num_partitions: 3,
        replication_factor: 1,
        configs: vec![config("segment.bytes", "1048576"), config("max.message.bytes", "1000")],
        ..CreatableTopic::default()
    };
    let refused = CreatableTopic {
        name: "refused".into(),
        configs: vec![config("no.such.config", "1")],
        ..plain.clone()
    };
    let assigned = CreatableTopic {
        name: "assigned".into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1] }],
        configs: Vec::new(),
    };
    CreateTopicsRequest { topics: vec![plain, refused, assigned], timeout_ms: 100, validate_only: false }
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    let names = ["created", "no-such-topic", "metadata-may-create-this"];
    if version < 6 {
        let topic_names = names.map(Str::from).to_vec();
        return DeleteTopicsRequest { topic_names, timeout_ms: 100, ..DeleteTopicsRequest::default() };
    }
    let mut topics: Vec<DeleteTopicState> = names
        .map(|name| DeleteTopicState { name: Some(Str::from(name)), topic_id: Uuid::default() })
        .to_vec();
    topics.push(DeleteTopicState { name: None, topic_id: other_id() });
    DeleteTopicsRequest { topics, timeout_ms: 100, ..DeleteTopicsRequest::default() }
}

fn offset_for_leader_epoch() -> OffsetForLeaderEpochRequest {
    let partitions = [(1, 0), (1, 1), (1, 99), (9, 1)].map(|(partition, leader_epoch)| {
        OffsetForLeaderPartition { partition, current_leader_epoch: -1, leader_epoch }
    });
    let topic = OffsetForLeaderTopic { topic: Str::from(TOPIC), partitions: partitions.to_vec() };
    OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] }
}

/// The id of no topic.
fn other_id() -> Uuid {
    Uuid::from_bytes([7; 16])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use highwater_protocol::ApiKey;

    use super::*;

    #[test]
    fn there_is_a_decodable_seed_of_every_api_and_version() {
        let mut expected = BTreeSet::new();
        for key in ApiKey::ALL {
            expected.extend((key.served().min()..=key.served().max()).map(|version| (*key, version)));
        }

        let mut found = BTreeSet::new();
        for frame in frames(other_id()) {
            let (header, body) = parse_request(frame.bytes.into()).unwrap();
            found.insert((body.unwrap().key(), header.api_version));
        }

        assert_eq!(found, expected);
    }

    #[test]
    fn every_produce_seed_knows_where_its_batch_is() {
        let mut frames = frames(other_id());
        frames.extend(captured().unwrap());

        for frame in frames.iter().filter(|frame| frame.bytes[..2] == [0, 0]) {
            let batch = frame.bytes[frame.batch.clone().unwrap()].to_vec();
            assert!(highwater_record::Batch::new(batch.into()).is_ok());
        }
    }
}
