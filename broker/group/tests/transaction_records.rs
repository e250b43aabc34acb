//! Records of `__transaction_state` byte by byte, as a broker of Apache Kafka 4.1 wrote them
//! (`tests/golden/segments/kafka-4.1-killed`).

use bytes::Bytes;
use highwater_group::ReplayError;
use highwater_group::transaction_records::{
    DecodedTransaction, PartitionsSchema, TransactionLogKey, TransactionLogValue, decode, status_name,
};
use highwater_wire::Str;

const KEY: &str = "00000005656e646564";
const ONGOING: &str = "0001000000000000000200000000ea600102116f70656e2d7472616e73616374696f6e020000000000000001a200a43d62000001a200a43d620102020002";

fn bytes(hex: &str) -> Bytes {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

#[test]
fn a_state_is_read_with_its_tagged_fields() {
    let partitions = PartitionsSchema { topic: Str::from("open-transaction"), partition_ids: vec![0] };
    let value = TransactionLogValue {
        producer_id: 2,
        previous_producer_id: -1,
        next_producer_id: -1,
        producer_epoch: 0,
        transaction_timeout_ms: 60_000,
        transaction_status: 1,
        transaction_partitions: Some(vec![partitions]),
        transaction_last_update_timestamp_ms: 1_795_307_093_346,
        transaction_start_timestamp_ms: 1_795_307_093_346,
        client_transaction_version: 2,
    };
    let key = TransactionLogKey { transactional_id: Str::from("ended") };

    let decoded = decode(bytes(KEY), Some(bytes(ONGOING)));

    assert_eq!(decoded, Ok(DecodedTransaction::State { key: key.clone(), value: Some(value) }));
    assert_eq!(decode(bytes(KEY), None), Ok(DecodedTransaction::State { key, value: None }));
    assert_eq!((status_name(1), status_name(8)), (Some("Ongoing"), None));
}

#[test]
fn versions_of_a_newer_kafka_are_named() {
    let unknown = |key_version, value_version| Ok(DecodedTransaction::Unknown { key_version, value_version });

    assert_eq!(decode(bytes("0001"), None), unknown(1, None));
    assert_eq!(decode(bytes(KEY), Some(bytes("0002ff"))), unknown(0, Some(2)));
}

#[test]
fn bytes_that_end_early_are_an_error_wherever_they_end() {
    let (key, value) = (bytes(KEY), bytes(ONGOING));

    for end in 0..key.len() {
        assert!(matches!(decode(key.slice(..end), None), Err(ReplayError::Key(_))), "key of {end}");
    }
    for end in 0..value.len() {
        assert!(decode(key.clone(), Some(value.slice(..end))).is_err(), "value of {end}");
    }
}
