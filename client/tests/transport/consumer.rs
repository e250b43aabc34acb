//! The consumer: offsets, markers, and bytes that are not what they should be.

use highwater_client::{Client, Consumer, ConsumerConfig, FetchError};
use highwater_protocol::ErrorCode;
use highwater_record::{
    BatchBuilder, Codec, NewRecord, Offset, PartitionId, TimestampMs, TopicName, TopicPartition,
};

use crate::peer::{Broker, client_config, fetched};

fn batch(base: i64, values: &[&str], control: bool) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::Lz4).base_offset(Offset::new(base).unwrap());
    if control {
        builder = builder.control();
    }
    for value in values {
        let record =
            NewRecord { timestamp: TimestampMs(1), key: None, value: Some(value.as_bytes()), headers: &[] };
        builder.append(&record).unwrap();
    }
    builder.build().unwrap().to_vec()
}

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicName::new("t").unwrap(), partition: PartitionId::ZERO }
}

/// Polls until there is an error.
async fn poll_for_error(consumer: &mut Consumer) -> FetchError {
    loop {
        if let Err(error) = consumer.poll().await {
            return error;
        }
    }
}

async fn consumer(from: i64) -> (Broker, Consumer) {
    let broker = Broker::start(&[], 0).await;
    let client = Client::new(client_config(broker.address.clone()));
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(partition(), Offset::new(from).unwrap());
    (broker, consumer)
}

#[tokio::test]
async fn records_come_from_the_offset_on_without_markers() {
    let (broker, mut consumer) = consumer(11).await;
    let mut log =
        [batch(10, &["a", "b", "c"], false), batch(13, &["m"], true), batch(14, &["d"], false)].concat();
    // The broker may cut the last batch.
    log.extend_from_slice(&batch(15, &["e"], false)[..40]);
    broker.serve(fetched(log));

    let got = consumer.poll().await.unwrap();

    let records = got[0].batches.iter().flat_map(|batch| batch.records().map(Result::unwrap));
    let values: Vec<(i64, &[u8])> =
        records.map(|record| (record.offset.get(), record.value.unwrap())).collect();
    assert_eq!(values, [(11, &b"b"[..]), (12, b"c"), (14, b"d")]);
    assert_eq!(got[0].next.get(), 15);
    assert_eq!(consumer.positions()[&partition()].get(), 15);
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_with_both_ends() {
    let (broker, mut consumer) = consumer(7).await;
    let mut log = fetched(Vec::new());
    log.error_code = ErrorCode::OffsetOutOfRange.code();
    broker.serve(log);

    let error = poll_for_error(&mut consumer).await;

    assert_eq!(error.to_string(), "t-0 has offsets 100 to 100, not 7");
    assert_eq!(consumer.positions()[&partition()].get(), 7);
}

#[tokio::test]
async fn a_batch_that_was_changed_on_the_way_is_an_error() {
    let (broker, mut consumer) = consumer(0).await;
    let mut log = batch(0, &["a"], false);
    *log.last_mut().unwrap() ^= 1;
    broker.serve(fetched(log));

    let error = poll_for_error(&mut consumer).await;

    assert!(matches!(error, FetchError::Batch { .. }), "{error}");
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[tokio::test]
async fn a_first_batch_that_is_cut_is_an_error_and_no_endless_loop() {
    let (broker, mut consumer) = consumer(0).await;
    let log = batch(0, &["a"], false);
    broker.serve(fetched(log[..log.len() - 1].to_vec()));

    let error = poll_for_error(&mut consumer).await;

    assert!(matches!(error, FetchError::Cut { .. }), "{error}");
}

#[tokio::test]
async fn what_one_partition_has_is_handed_out_before_the_trouble_of_another() {
    let broker = Broker::start(&[], 0).await;
    let mut bad = fetched(Vec::new());
    bad.error_code = ErrorCode::OffsetOutOfRange.code();
    broker.serve_all(vec![fetched(batch(0, &["a"], false)), bad]);
    let client = Client::new(client_config(broker.address.clone()));
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    let other = TopicPartition { partition: PartitionId::new(1).unwrap(), ..partition() };
    consumer.assign(partition(), Offset::ZERO);
    consumer.assign(other.clone(), Offset::new(7).unwrap());

    let got = consumer.poll().await.unwrap();
    let error = poll_for_error(&mut consumer).await;

    assert_eq!((got.len(), &got[0].partition), (1, &partition()));
    assert_eq!(error.to_string(), "t-1 has offsets 100 to 100, not 7");
    assert_eq!(consumer.positions()[&other].get(), 7);
}
