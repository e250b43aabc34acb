//! Quotas of clients: who is held back, how they are told, and that nobody else is.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::describe_client_quotas::ComponentData;
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic};
use highwater_protocol::api::{
    AlterClientQuotasRequest, ApiVersionsRequest, DescribeClientQuotasRequest, FetchResponse, ProduceRequest,
};
use highwater_protocol::wire::Str;

use crate::faults::batches::plain_batch;
use crate::faults::client::{PRODUCE_VERSION, answers_of, produce_request};
use crate::harness::client::Client;
use crate::harness::quotas::{Entity, alter, alteration, describe, set};
use crate::harness::served::Served;
use crate::harness::wait;

const TOPIC: &str = "metered";
const FETCH_VERSION: i16 = 12;
const PRODUCED: &str = "producer_byte_rate";
const CONSUMED: &str = "consumer_byte_rate";
const LOUD: &Entity = &[("client-id", Some("loud"))];
/// Bytes of the one record that is sent at a time.
const VALUE_BYTES: usize = 40_000;

fn start() -> anyhow::Result<Served> {
    let served = Served::start(&[])?;
    served.connect()?.create_topic(TOPIC, 1, &[])?;
    Ok(served)
}

impl Served {
    fn client(&self, name: &str) -> anyhow::Result<Client> {
        Client::connect(self.address(), name)
    }

    fn set(&self, entity: &Entity, key: &str, rate: u32) -> anyhow::Result<()> {
        set(&mut self.client("operator")?, entity, key, rate)
    }
}

fn large_produce() -> ProduceRequest {
    produce_request(TOPIC, [(0, plain_batch(0, VALUE_BYTES))])
}

/// Sends a large batch; for how long the client is told to wait, and the size of the request.
fn produce(client: &mut Client) -> anyhow::Result<(Duration, u64)> {
    let bytes = client.send(PRODUCE_VERSION, &large_produce())?;
    let response: highwater_protocol::api::ProduceResponse = client.receive(PRODUCE_VERSION)?;
    let throttle = Duration::from_millis(response.throttle_time_ms.try_into()?);
    let answer = answers_of(response).pop().context("the answer names the partition")?;
    ensure!(answer.error_code == 0, "a client above its quota is refused: {answer:?}");
    Ok((throttle, bytes))
}

/// How long the broker takes for a request that needs no time.
fn round_trip(client: &mut Client) -> anyhow::Result<Duration> {
    let began = Instant::now();
    client.call(0, &ApiVersionsRequest::default())?;
    Ok(began.elapsed())
}

/// What a client waits that has sent so many bytes and had one second's worth to begin with.
fn wait_for(bytes: u64, rate: u64) -> Duration {
    Duration::from_millis((bytes * 1000).div_ceil(rate) - 1000)
}

/// The session id and epoch of a fetch that has no session.
const SESSIONLESS: (i32, i32) = (0, -1);

/// Fetches from an offset, or from where the session stands; the answer, and how many bytes of records it has.
fn fetch(
    client: &mut Client,
    (session_id, session_epoch): (i32, i32),
    from: Option<i64>,
) -> anyhow::Result<(FetchResponse, usize)> {
    let partition = |fetch_offset| FetchPartition {
        fetch_offset,
        partition_max_bytes: 50_000,
        ..FetchPartition::default()
    };
    let topic = |offset| FetchTopic {
        topic: Str::from(TOPIC),
        partitions: vec![partition(offset)],
        ..FetchTopic::default()
    };
    let request = FetchRequest {
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_id,
        session_epoch,
        topics: from.map(topic).into_iter().collect(),
        ..FetchRequest::default()
    };
    let response = client.call(FETCH_VERSION, &request)?;
    let data = response.responses.iter().flat_map(|topic| &topic.partitions);
    let bytes = data.filter_map(|data| data.records.bytes()).map(|bytes| bytes.len()).sum();
    Ok((response, bytes))
}

fn component(entity_type: &str, match_type: i8, name: Option<&str>) -> ComponentData {
    ComponentData { entity_type: entity_type.into(), match_type, match_: name.map(Str::from) }
}

#[test]
fn quotas_are_described_as_they_were_set_also_after_a_kill() -> anyhow::Result<()> {
    let mut served = start()?;
    served.set(LOUD, PRODUCED, 1_048_576)?;
    served.set(LOUD, CONSUMED, 2_000_000_000)?;
    served.set(&[("user", None)], CONSUMED, 5)?;
    served.set(&[("user", Some("ANONYMOUS")), ("client-id", None)], PRODUCED, 7)?;
    let gone: &Entity = &[("client-id", Some("gone"))];
    served.set(gone, PRODUCED, 1)?;
    let mut operator = served.client("operator")?;
    ensure!(alter(&mut operator, &alteration(gone, &[(PRODUCED, None), (CONSUMED, None)]))?.0 == 0);
    let all = [
        "client-id loud: consumer_byte_rate=2000000000 producer_byte_rate=1048576",
        "user <default>: consumer_byte_rate=5",
        "user ANONYMOUS, client-id <default>: producer_byte_rate=7",
    ];
    assert_eq!(describe(&mut operator, vec![], false)?, all);

    served.kill()?;

    let mut operator = served.client("operator")?;
    assert_eq!(describe(&mut operator, vec![], false)?, all);
    assert_eq!(describe(&mut operator, vec![], true)?, [""; 0]);
    let named = component("user", 0, Some("ANONYMOUS"));
    assert_eq!(describe(&mut operator, vec![named.clone()], false)?, all[2..]);
    assert_eq!(describe(&mut operator, vec![named], true)?, [""; 0]);
    assert_eq!(describe(&mut operator, vec![component("user", 2, None)], true)?, all[1..2]);
    assert_eq!(describe(&mut operator, vec![component("client-id", 1, None)], false)?, all[2..]);
    Ok(())
}

#[test]
fn what_would_not_be_enforced_is_refused_with_a_sentence() -> anyhow::Result<()> {
    let served = start()?;
    let mut operator = served.client("operator")?;
    let invalid = ErrorCode::InvalidRequest.code();

    for (entity, key, value, words) in [
        (LOUD, "request_percentage", 50.0, "request_percentage is not enforced here"),
        (LOUD, "controller_mutation_rate", 5.0, "controller_mutation_rate is not enforced here"),
        (LOUD, "consumer_bite_rate", 5.0, "is no quota"),
        (LOUD, PRODUCED, 0.0, "from 1 to 2^53"),
        (LOUD, PRODUCED, 1.5, "whole number"),
        (&[("ip", Some("127.0.0.1"))], "connection_creation_rate", 5.0, "--max-connection-rate"),
        (&[("team", Some("red"))], PRODUCED, 5.0, "has no quotas"),
        (&[("client-id", Some(""))], PRODUCED, 5.0, "is empty"),
        (&[("user", None), ("user", Some("ann"))], PRODUCED, 5.0, "user twice"),
        (&[], PRODUCED, 5.0, "neither a user nor a client-id"),
    ] as [(&Entity, _, _, _); 10]
    {
        let (code, sentence) = alter(&mut operator, &alteration(entity, &[(key, Some(value))]))?;
        let sentence = sentence.unwrap_or_default();
        ensure!(
            code == invalid && sentence.contains(words),
            "{key}={value} of {entity:?}: {code} {sentence:?}"
        );
    }
    // All of an entity or nothing.
    let half = alteration(LOUD, &[(PRODUCED, Some(5.0)), ("request_percentage", Some(5.0))]);
    ensure!(alter(&mut operator, &half)?.0 == invalid, "half of a change is accepted");
    let twice = alteration(LOUD, &[(PRODUCED, Some(5.0)), (PRODUCED, Some(6.0))]);
    ensure!(alter(&mut operator, &twice)?.0 == invalid, "a key is set twice");
    let dry = AlterClientQuotasRequest { validate_only: true, ..alteration(LOUD, &[(PRODUCED, Some(5.0))]) };
    ensure!(alter(&mut operator, &dry)?.0 == 0, "a change that would be accepted is refused");
    assert_eq!(describe(&mut operator, vec![], false)?, [""; 0]);

    let two = AlterClientQuotasRequest {
        entries: [half.entries, alteration(LOUD, &[(CONSUMED, Some(5.0))]).entries].concat(),
        validate_only: false,
    };
    let codes: Vec<i16> = operator.call(1, &two)?.entries.iter().map(|entry| entry.error_code).collect();
    assert_eq!(codes, [invalid, 0]);
    assert_eq!(describe(&mut operator, vec![], false)?, ["client-id loud: consumer_byte_rate=5"]);
    let components = vec![component("team", 0, Some("red"))];
    let response = operator.call(1, &DescribeClientQuotasRequest { components, strict: false })?;
    assert_eq!((response.error_code, response.entries), (ErrorCode::UnsupportedVersion.code(), None));
    Ok(())
}

#[test]
fn a_producer_above_its_quota_is_answered_at_once_and_then_not_read_from() -> anyhow::Result<()> {
    let served = start()?;
    served.set(LOUD, PRODUCED, 10_000)?;
    let (mut loud, mut other) = (served.client("loud")?, served.client("other")?);
    let mut second = served.client("loud")?;
    let began = Instant::now();

    let (throttle, bytes) = produce(&mut loud)?;

    assert_eq!(throttle, wait_for(bytes, 10_000));
    ensure!(began.elapsed() < throttle, "the answer took as long as the wait: {:?}", began.elapsed());
    // Neither other clients nor what its other connections ask is held back, but for what they produce.
    assert_eq!(produce(&mut other)?.0, Duration::ZERO);
    ensure!(round_trip(&mut second)? < throttle, "a connection that has produced nothing is muted");
    ensure!(produce(&mut second)?.0 > throttle, "connections of one client have a quota each");
    round_trip(&mut loud)?;
    // The broker's clock began a little before ours, and its wait was rounded up.
    let held = began.elapsed();
    ensure!(held >= throttle, "told to wait {throttle:?}, read after {held:?}");
    Ok(())
}

#[test]
fn a_change_of_other_quotas_forgives_nobody() -> anyhow::Result<()> {
    let served = start()?;
    served.set(LOUD, PRODUCED, 10_000)?;
    let (first, _) = produce(&mut served.client("loud")?)?;

    served.set(LOUD, PRODUCED, 10_000)?;
    served.set(LOUD, CONSUMED, 10_000)?;
    served.set(&[("client-id", Some("quiet"))], PRODUCED, 5)?;

    let (second, _) = produce(&mut served.client("loud")?)?;
    ensure!(second > first, "after {first:?} the client waits {second:?} for twice as much");
    served.set(LOUD, PRODUCED, 20_000)?;
    let (third, bytes) = produce(&mut served.client("loud")?)?;
    assert_eq!(third, wait_for(bytes, 20_000), "a client with another rate begins anew");
    Ok(())
}

#[test]
fn a_producer_that_wants_no_answer_is_muted_as_well() -> anyhow::Result<()> {
    let served = start()?;
    served.set(LOUD, PRODUCED, 20_000)?;
    let mut loud = served.client("loud")?;
    let began = Instant::now();

    let bytes = loud.send(PRODUCE_VERSION, &ProduceRequest { acks: 0, ..large_produce() })?;
    round_trip(&mut loud)?;

    let (held, wait) = (began.elapsed(), wait_for(bytes, 20_000));
    ensure!(held >= wait, "{bytes} bytes at 20000 a second are {wait:?}, read after {held:?}");
    Ok(())
}

#[test]
fn a_fetch_above_its_quota_gets_an_empty_answer_and_later_its_records() -> anyhow::Result<()> {
    let served = start()?;
    served.set(LOUD, CONSUMED, 20_000)?;
    let mut producer = served.client("other")?;
    for _ in 0..3 {
        produce(&mut producer)?;
    }
    let mut loud = served.client("loud")?;
    let (first, bytes) = fetch(&mut loud, SESSIONLESS, Some(0))?;
    ensure!(first.throttle_time_ms == 0 && bytes > VALUE_BYTES, "the first fetch got {bytes} bytes");
    let began = Instant::now();
    let (second, bytes) = fetch(&mut loud, SESSIONLESS, Some(0))?;
    ensure!(bytes == 0 && second.responses.is_empty(), "a throttled fetch got {bytes} bytes: {second:?}");
    ensure!((second.error_code, second.session_id) == (0, 0), "a throttled fetch ended with {second:?}");
    let throttle = Duration::from_millis(second.throttle_time_ms.try_into()?);
    let (third, bytes) = fetch(&mut loud, SESSIONLESS, Some(0))?;
    let held = began.elapsed();

    ensure!(!throttle.is_zero() && held >= throttle, "told to wait {throttle:?}, read after {held:?}");
    ensure!(third.throttle_time_ms == 0 && bytes > VALUE_BYTES, "after its wait a fetch got {bytes} bytes");
    ensure!(
        fetch(&mut served.client("other")?, SESSIONLESS, Some(0))?.1 > VALUE_BYTES,
        "another client is held back"
    );
    Ok(())
}

#[test]
fn a_throttled_fetch_session_goes_on() -> anyhow::Result<()> {
    let served = start()?;
    served.set(LOUD, CONSUMED, 20_000)?;
    let mut producer = served.client("other")?;
    for _ in 0..3 {
        produce(&mut producer)?;
    }
    let mut loud = served.client("loud")?;

    let (opened, bytes) = fetch(&mut loud, (0, 0), Some(0))?;
    let session = opened.session_id;
    ensure!(session != 0 && bytes > VALUE_BYTES, "no session was opened, or it got {bytes} bytes");
    // The wait is told in the session, which takes note of where the client stands now.
    let (throttled, bytes) = fetch(&mut loud, (session, 1), Some(2))?;
    ensure!(throttled.throttle_time_ms > 0 && bytes == 0, "a fetch above its quota got {bytes} bytes");
    assert_eq!((throttled.error_code, throttled.session_id), (0, session));
    let (after, bytes) = fetch(&mut loud, (session, 2), None)?;

    assert_eq!((after.error_code, after.session_id, after.throttle_time_ms), (0, session, 0));
    ensure!((VALUE_BYTES..2 * VALUE_BYTES).contains(&bytes), "from offset 2 on {bytes} bytes came");
    Ok(())
}

#[test]
fn the_quota_of_a_pair_goes_before_that_of_a_user_and_that_before_a_client_id() -> anyhow::Result<()> {
    let served = start()?;
    let ladder: [(&Entity, u32); 5] = [
        (&[("client-id", None)], 30_000),
        (LOUD, 25_000),
        (&[("user", None)], 20_000),
        (&[("user", Some("ANONYMOUS"))], 15_000),
        (&[("user", Some("ANONYMOUS")), ("client-id", Some("loud"))], 10_000),
    ];

    for (entity, rate) in ladder {
        served.set(entity, PRODUCED, rate)?;
        let (throttle, bytes) = produce(&mut served.client("loud")?)?;
        assert_eq!(throttle, wait_for(bytes, rate.into()), "{entity:?} at {rate}");
    }

    // Another client still shares the user's quota, with what was taken from it before.
    let (throttle, bytes) = produce(&mut served.client("quiet")?)?;
    let both = wait_for(2 * bytes, 15_000);
    ensure!(throttle > wait_for(bytes, 15_000) && throttle <= both, "{throttle:?} of {both:?}");
    Ok(())
}

#[test]
fn a_muted_connection_notices_that_its_client_left_and_that_the_broker_stops() -> anyhow::Result<()> {
    let mut served = start()?;
    // A wait of a quarter of an hour.
    served.set(LOUD, PRODUCED, 40)?;
    // The page that tells is read over a connection of its own.
    let connections = || anyhow::Ok(served.metric("highwater_connections")? - 1);
    wait::until("everybody to leave", || Ok(connections()? == 0))?;
    let muted = || {
        let mut client = served.client("loud")?;
        ensure!(produce(&mut client)?.0 > Duration::from_secs(600));
        anyhow::Ok(client)
    };

    drop(muted()?);
    wait::until("the end of a connection that was closed", || Ok(connections()? == 0))?;
    let mut talkative = muted()?;
    talkative.send(0, &ApiVersionsRequest::default())?;
    let stream = talkative.into_stream();
    // Closed without a linger, a connection is reset.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    drop(stream);
    wait::until("the end of a connection that was reset", || Ok(connections()? == 0))?;

    let _still_here = muted()?;
    let status = served.broker.terminate()?;
    assert_eq!(status.code(), Some(0), "{}", served.broker.log());
    ensure!(!served.broker.log().contains("did not finish"), "{}", served.broker.log());
    Ok(())
}
