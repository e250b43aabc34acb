//! The hand-built frames against an independent codec, both ways.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse,
    RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::*;

const TARGET: Target<'_> = Target { topic: "logs", partition: 3 };

/// Reads a finished request with the oracle; nothing may be left over.
#[track_caller]
fn decode<T: Decodable>(mut frame: Vec<u8>, api_key: i16, api_version: i16) -> T {
    set_correlation(&mut frame, 77);
    let length = i32::from_be_bytes(frame[..4].try_into().unwrap());
    assert_eq!(length as usize, frame.len() - 4);
    let mut body = Bytes::from(frame).slice(4..);
    let header = RequestHeader::decode(&mut body, 1).unwrap();
    assert_eq!((header.request_api_key, header.request_api_version), (api_key, api_version));
    assert_eq!(header.correlation_id, 77);
    let request = T::decode(&mut body, api_version).unwrap();
    assert!(body.is_empty());
    request
}

/// Writes a response with the oracle, correlation id in front.
fn encode<T: Encodable>(response: &T, correlation: i32, api_version: i16) -> BytesMut {
    let mut body = BytesMut::from(correlation.to_be_bytes().as_slice());
    response.encode(&mut body, api_version).unwrap();
    body
}

fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str("logs"))
}

#[test]
fn a_produce_request_carries_the_batch() {
    let request: ProduceRequest = decode(produce(TARGET, b"batch"), PRODUCE, 7);

    let topic = &request.topic_data[0];
    assert_eq!((request.acks, topic.name.as_str()), (-1, "logs"));
    assert_eq!(topic.partition_data[0].index, 3);
    assert_eq!(topic.partition_data[0].records.as_deref(), Some(b"batch".as_slice()));
}

#[test]
fn a_session_is_opened_over_all_partitions_and_polled_without_naming_one() {
    let opening: FetchRequest = decode(open_session("logs", 500, 1 << 20), FETCH, 11);
    let poll: FetchRequest = decode(poll_session((9, 4), 5, 1 << 20), FETCH, 11);

    assert_eq!((opening.session_id, opening.session_epoch), (0, 0));
    assert_eq!(opening.topics[0].partitions.len(), 500);
    assert_eq!(opening.topics[0].partitions[499].partition, 499);
    assert_eq!((poll.session_id, poll.session_epoch, poll.max_wait_ms), (9, 4, 5));
    assert!(poll.topics.is_empty());
}

#[test]
fn an_idle_poll_is_answered_with_its_session_and_nothing_else() {
    let response = FetchResponse::default().with_session_id(9);

    let body = encode(&response, 6, 11);

    assert_eq!(session(&body, 6).unwrap(), (9, 0));
}

#[test]
fn a_fetch_request_asks_for_the_offset() {
    let spec = FetchSpec { offset: 1234, max_wait_ms: 30_000, min_bytes: 1, max_bytes: 1 << 20 };

    let request: FetchRequest = decode(fetch(TARGET, spec), FETCH, 11);

    assert_eq!((request.max_wait_ms, request.min_bytes, request.max_bytes), (30_000, 1, 1 << 20));
    assert_eq!((request.session_id, request.session_epoch), (0, -1));
    let partition = &request.topics[0].partitions[0];
    assert_eq!((partition.partition, partition.fetch_offset), (3, 1234));
    assert_eq!((partition.partition_max_bytes, partition.current_leader_epoch), (1 << 20, -1));
}

#[test]
fn a_create_topics_request_carries_its_configs() {
    let frame = create_topic("logs", 4, &[("segment.bytes", "134217728")]);

    let request: CreateTopicsRequest = decode(frame, CREATE_TOPICS, 4);

    let topic = &request.topics[0];
    assert_eq!((topic.name.as_str(), topic.num_partitions, topic.replication_factor), ("logs", 4, 1));
    assert_eq!(topic.configs[0].name.as_str(), "segment.bytes");
    assert_eq!(topic.configs[0].value.as_deref(), Some("134217728"));
    assert!(!request.validate_only);
}

#[test]
fn a_produce_answer_gives_its_offset_or_its_error() {
    let answer = |code| {
        let partition = PartitionProduceResponse::default().with_base_offset(99).with_error_code(code);
        let topic =
            TopicProduceResponse::default().with_name(topic_name()).with_partition_responses(vec![partition]);
        encode(&ProduceResponse::default().with_responses(vec![topic]), 5, 7)
    };

    assert_eq!(produced(&answer(0), 5).unwrap(), 99);
    assert_eq!(produced(&answer(6), 5).unwrap_err().to_string(), "Produce was answered with Kafka error 6");
    assert_eq!(produced(&answer(0), 4).unwrap_err().to_string(), "answer 5 came where 4 was due");
}

#[test]
fn a_fetch_answer_gives_records_and_high_watermark() {
    let partition =
        PartitionData::default().with_high_watermark(500).with_records(Some(Bytes::from_static(b"records")));
    let topic = FetchableTopicResponse::default().with_topic(topic_name()).with_partitions(vec![partition]);
    let body = encode(&FetchResponse::default().with_responses(vec![topic]), 5, 11);

    let fetched = fetched(&body, 5).unwrap();

    assert_eq!((fetched.high_watermark, fetched.records), (500, b"records".as_slice()));
}

#[test]
fn a_topic_that_exists_already_will_do() {
    let answer = |code| {
        let message = StrBytes::from_static_str("no");
        let result = CreatableTopicResult::default()
            .with_name(topic_name())
            .with_error_code(code)
            .with_error_message(Some(message));
        encode(&CreateTopicsResponse::default().with_topics(vec![result]), 1, 4)
    };

    assert!(topic_created(&answer(0), 1).is_ok());
    assert!(topic_created(&answer(ERROR_TOPIC_EXISTS), 1).is_ok());
    let refused = topic_created(&answer(40), 1).unwrap_err().to_string();
    assert_eq!(refused, "topic logs was not created, Kafka error 40: no");
}

#[test]
fn a_short_answer_is_an_error() {
    assert!(produced(&[0, 0, 0, 5, 0, 0], 5).is_err());
    assert!(fetched(&[0, 0, 0, 5, 0, 0, 0, 0, 0, 0], 5).is_err());
}
