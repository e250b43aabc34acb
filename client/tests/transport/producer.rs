//! The producer: order and count through retries, lost answers and refusals.

use std::time::Duration;

use highwater_client::{Client, Delivery, OutgoingRecord, ProduceError, Producer, ProducerConfig};
use highwater_protocol::ErrorCode;
use highwater_record::{NewRecord, TimestampMs, TopicName};

use crate::peer::Act::{Cut, Fail, Take};
use crate::peer::{Act, Broker, client_config};

/// Sends `count` records, each a batch of its own, to a broker that does what `acts` say, and waits for them.
async fn produce(acts: &[Act], gather: usize, count: usize) -> (Broker, Vec<Result<i64, ProduceError>>) {
    let broker = Broker::start(acts, gather).await;
    let client = Client::new(client_config(broker.address.clone()));
    let config = ProducerConfig { batch_bytes: 1, linger: Duration::ZERO, ..ProducerConfig::default() };
    let producer = Producer::new(client, config);
    let topic = TopicName::new("t").unwrap();
    let mut deliveries: Vec<Delivery> = Vec::new();
    for _ in 0..count {
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(b"v"), headers: &[] };
        deliveries.push(producer.send(&topic, &OutgoingRecord { partition: None, record }).await.unwrap());
    }
    producer.finish().await;
    let mut outcomes = Vec::new();
    for delivery in deliveries {
        outcomes.push(delivery.wait().await.map(|acked| acked.offset.unwrap().get()));
    }
    (broker, outcomes)
}

fn offsets(outcomes: &[Result<i64, ProduceError>]) -> Vec<i64> {
    outcomes.iter().map(|outcome| *outcome.as_ref().unwrap()).collect()
}

#[tokio::test]
async fn five_batches_are_in_flight() {
    // After the first the broker answers nothing before it has five.
    let acts: Vec<Act> = (0..6).map(Take).collect();

    let (broker, outcomes) = produce(&acts, 5, 6).await;

    assert_eq!(offsets(&outcomes), [0, 1, 2, 3, 4, 5]);
    assert_eq!(broker.arrivals(), [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
}

#[tokio::test]
async fn nothing_follows_the_first_batch_before_the_broker_knows_the_producer() {
    // A broker that knows nothing of a producer begins with any sequence: a second batch must not be the first.
    let acts = [Fail(ErrorCode::NotLeaderOrFollower), Take(0), Take(1), Take(2)];

    let (broker, outcomes) = produce(&acts, 2, 3).await;

    assert_eq!(offsets(&outcomes), [0, 1, 2]);
    assert_eq!(broker.arrivals(), [(1, 0), (1, 0), (1, 1), (1, 2)]);
}

#[tokio::test]
async fn a_failure_that_passes_repeats_the_window_in_order() {
    let behind = Fail(ErrorCode::OutOfOrderSequenceNumber);
    let failure = Fail(ErrorCode::NotLeaderOrFollower);
    let acts = [Take(9), failure, behind, behind, Take(10), Take(11), Take(12)];

    let (broker, outcomes) = produce(&acts, 3, 4).await;

    assert_eq!(offsets(&outcomes), [9, 10, 11, 12]);
    assert_eq!(broker.arrivals(), [(1, 0), (1, 1), (1, 2), (1, 3), (1, 1), (1, 2), (1, 3)]);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_sequence() {
    let acts = [Take(0), Cut, Take(1), Take(2)];

    let (broker, outcomes) = produce(&acts, 2, 3).await;

    assert_eq!(offsets(&outcomes), [0, 1, 2]);
    assert_eq!(broker.arrivals(), [(1, 0), (1, 1), (1, 2), (1, 1), (1, 2)]);
}

#[tokio::test]
async fn a_refused_batch_leaves_no_gap_behind_it() {
    let behind = Fail(ErrorCode::OutOfOrderSequenceNumber);
    let acts = [Take(0), Fail(ErrorCode::MessageTooLarge), behind, behind, Take(1), Take(2)];

    let (broker, outcomes) = produce(&acts, 3, 4).await;

    assert!(
        matches!(&outcomes[1], Err(ProduceError::Refused { records: 1, source, .. }) if source.is_too_large())
    );
    assert_eq!(offsets(&outcomes[2..]), [1, 2]);
    assert_eq!(broker.arrivals(), [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)]);
}

#[tokio::test]
async fn a_broker_that_lost_track_is_not_written_to_again() {
    let acts = [Take(0), Fail(ErrorCode::OutOfOrderSequenceNumber)];

    let (broker, outcomes) = produce(&acts, 2, 2).await;

    assert_eq!(outcomes[0].as_ref().unwrap(), &0);
    assert!(matches!(outcomes[1], Err(ProduceError::Forgotten { .. })), "{outcomes:?}");
    assert_eq!(broker.arrivals(), [(1, 0), (1, 1)]);
}
