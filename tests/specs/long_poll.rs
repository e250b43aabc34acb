//! Long polls: a fetch waits for the bytes that it asks for, and answers keep the order of their requests.

use anyhow::{Context as _, ensure};
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use highwater_protocol::api::{ApiVersionsRequest, ApiVersionsResponse, FetchResponse, ProduceResponse};
use highwater_protocol::wire::Str;

use crate::faults::batches::plain_batch;
use crate::faults::client::{Connection, PRODUCE_VERSION, answers_of, produce_request};
use crate::faults::reader::split;
use crate::harness::served::Served;
use crate::harness::wait;

const TOPIC: &str = "polled";
const FETCH_VERSION: i16 = 12;
const MIB: i32 = 1 << 20;
/// Longer than any test runs: a fetch that is answered was answered for another reason.
const FOR_EVER_MS: i32 = 600_000;

/// A broker with a topic of one partition, empty.
fn start() -> anyhow::Result<Served> {
    let served = Served::start(&[])?;
    served.connect()?.create_topic(TOPIC, 1, &[])?;
    Ok(served)
}

impl Served {
    fn parked(&self) -> anyhow::Result<u64> {
        self.metric("highwater_fetches_parked")
    }

    /// Sends a fetch on a connection of its own and returns once the broker has parked it.
    fn park(&self, min_bytes: i32, max_wait_ms: i32) -> anyhow::Result<Connection> {
        let mut connection = self.connect()?;
        connection.send(FETCH_VERSION, &fetch(0, min_bytes, max_wait_ms))?;
        wait::until("a parked fetch", || Ok(self.parked()? == 1))?;
        Ok(connection)
    }
}

fn fetch(fetch_offset: i64, min_bytes: i32, max_wait_ms: i32) -> FetchRequest {
    let partition =
        FetchPartition { fetch_offset, partition_max_bytes: 8 * MIB, ..FetchPartition::default() };
    let topic = FetchTopic { topic: Str::from(TOPIC), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest {
        min_bytes,
        max_bytes: 8 * MIB,
        max_wait_ms,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

/// The next answer, which must be that of a fetch; its correlation id and the partition.
fn fetched(connection: &mut Connection) -> anyhow::Result<(i32, PartitionData)> {
    let (id, response) = connection.receive::<FetchResponse>(FETCH_VERSION)?;
    let data = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
    let data = data.context("the answer names the partition")?;
    ensure!(data.error_code == 0, "the fetch failed: {data:?}");
    Ok((id, data))
}

fn record_bytes(data: &PartitionData) -> usize {
    data.records.bytes().map_or(0, |bytes| bytes.len())
}

/// The next answer, which must be that of a produce; its correlation id and the offset that its batch got.
fn produced(connection: &mut Connection) -> anyhow::Result<(i32, i64)> {
    let (id, response) = connection.receive::<ProduceResponse>(PRODUCE_VERSION)?;
    let answer = answers_of(response).into_iter().next().context("the answer names the partition")?;
    ensure!(answer.error_code == 0, "the batch was refused: {answer:?}");
    Ok((id, answer.base_offset))
}

#[test]
fn eighty_appends_wake_a_fetch_once_when_its_mebibyte_is_there() -> anyhow::Result<()> {
    let served = start()?;
    let mut poll = served.park(MIB, 30_000)?;
    let mut producer = served.connect()?;

    for counter in 0..80 {
        let answer = producer.produce(TOPIC, 0, plain_batch(counter, 16 << 10))?;
        ensure!(answer.error_code == 0, "the batch was refused: {answer:?}");
    }

    let (_, data) = fetched(&mut poll)?;
    assert!(record_bytes(&data) >= MIB as usize, "{} bytes came", record_bytes(&data));
    let sent = poll.send(0, &ApiVersionsRequest::default())?;
    let (answered, _) = poll.receive::<ApiVersionsResponse>(0)?;
    assert_eq!(answered, sent, "a fetch is answered once");
    assert_eq!(served.metric("highwater_fetch_wakes_total")?, 1);
    assert_eq!(served.parked()?, 0);
    Ok(())
}

#[test]
fn a_fetch_whose_wait_is_over_is_answered_with_what_there_is() -> anyhow::Result<()> {
    let served = start()?;
    let mut connection = served.connect()?;
    connection.produce(TOPIC, 0, plain_batch(0, 100))?;

    connection.send(FETCH_VERSION, &fetch(0, MIB, 50))?;
    let (_, data) = fetched(&mut connection)?;

    assert_eq!(split(data.records.bytes().cloned().unwrap_or_default())?.len(), 1);
    Ok(())
}

#[test]
fn sigterm_answers_a_parked_fetch_with_nothing() -> anyhow::Result<()> {
    let mut served = start()?;
    let mut poll = served.park(1, FOR_EVER_MS)?;

    let status = served.broker.terminate()?;

    let (_, data) = fetched(&mut poll)?;
    assert_eq!(record_bytes(&data), 0);
    assert_eq!(status.code(), Some(0), "{}", served.broker.log());
    Ok(())
}

#[test]
fn a_client_that_leaves_takes_its_parked_fetch_along() -> anyhow::Result<()> {
    let served = start()?;
    let poll = served.park(1, FOR_EVER_MS)?;

    drop(poll);

    wait::until("the waiter to be freed", || Ok(served.parked()? == 0))?;
    served.connect()?.produce(TOPIC, 0, plain_batch(0, 100))?;
    assert_eq!(served.metric("highwater_fetch_wakes_total")?, 0);
    Ok(())
}

#[test]
fn a_fetch_behind_a_produce_of_its_connection_sees_the_batch() -> anyhow::Result<()> {
    let served = start()?;
    let mut connection = served.connect()?;

    let produce = connection.send(PRODUCE_VERSION, &produce_request(TOPIC, [(0, plain_batch(0, 1000))]))?;
    let fetch = connection.send(FETCH_VERSION, &fetch(0, 0, 0))?;

    assert_eq!(produced(&mut connection)?, (produce, 0));
    let (answered, data) = fetched(&mut connection)?;
    assert_eq!(answered, fetch);
    assert!(record_bytes(&data) > 1000, "{} bytes came", record_bytes(&data));
    Ok(())
}

#[test]
fn a_produce_behind_a_fetch_of_its_connection_waits_its_turn() -> anyhow::Result<()> {
    let served = start()?;
    let mut connection = served.connect()?;

    let fetch = connection.send(FETCH_VERSION, &fetch(0, 1, 100))?;
    let produce = connection.send(PRODUCE_VERSION, &produce_request(TOPIC, [(0, plain_batch(0, 1000))]))?;

    let (answered, data) = fetched(&mut connection)?;
    assert_eq!((answered, record_bytes(&data)), (fetch, 0));
    assert_eq!(produced(&mut connection)?, (produce, 0));
    Ok(())
}

#[test]
fn five_produces_in_flight_are_answered_in_order() -> anyhow::Result<()> {
    let served = start()?;
    let mut connection = served.connect()?;
    let mut sent = Vec::new();

    // The first is the largest: an order by size or speed would show.
    for counter in 0..5 {
        let batch = plain_batch(counter, 400_000 >> (2 * counter));
        sent.push(connection.send(PRODUCE_VERSION, &produce_request(TOPIC, [(0, batch)]))?);
    }

    for (offset, id) in (0..).zip(sent) {
        assert_eq!(produced(&mut connection)?, (id, offset));
    }
    Ok(())
}
