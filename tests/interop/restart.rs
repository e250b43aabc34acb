//! Clients with their default retries live through a broker that stops, or dies, and comes back.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::harness::broker::{Broker, Options};
use crate::harness::clients::{Client, Running};
use crate::harness::skip::or_skip;
use crate::harness::wire::create_topic;

/// What a stop under load may take.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How often the broker goes away in a test.
const RESTARTS: u64 = 3;

/// How many more records are acknowledged before it goes away again.
const RECORDS_BETWEEN: u64 = 3_000;

#[test]
fn a_stop_under_load_is_quick_and_the_java_client_loses_nothing() -> anyhow::Result<()> {
    // Kafka's producer is idempotent by default.
    assert_exactly_once(restarted_under_load(Client::Java, &[], stop)?);
    Ok(())
}

#[test]
fn a_stop_under_load_is_quick_and_librdkafka_loses_nothing() -> anyhow::Result<()> {
    let Some(run) = restarted_under_load(Client::Confluent, &[], stop)? else { return Ok(()) };
    // librdkafka is not idempotent by default: a retry may double or overtake, but nothing is missing.
    let read: BTreeSet<u64> = run.read.iter().copied().collect();
    assert!(read.into_iter().eq(0..run.sent));
    Ok(())
}

#[test]
fn idempotent_librdkafka_goes_on_where_it_was_after_a_stop() -> anyhow::Result<()> {
    assert_exactly_once(restarted_under_load(Client::Confluent, &["enable.idempotence=true"], stop)?);
    Ok(())
}

#[test]
fn idempotent_librdkafka_goes_on_where_it_was_after_a_kill() -> anyhow::Result<()> {
    assert_exactly_once(restarted_under_load(Client::Confluent, &["enable.idempotence=true"], Broker::kill)?);
    Ok(())
}

#[test]
fn the_idempotent_java_producer_goes_on_where_it_was_after_a_kill() -> anyhow::Result<()> {
    assert_exactly_once(restarted_under_load(Client::Java, &[], Broker::kill)?);
    Ok(())
}

/// What a client sent, and what the same kind of client read meanwhile.
struct Run {
    sent: u64,
    read: Vec<u64>,
}

fn stop(broker: &mut Broker) -> anyhow::Result<()> {
    let start = Instant::now();
    let status = broker.terminate()?;
    let took = start.elapsed();
    ensure!(status.code() == Some(0), "the broker ended with {status}:\n{}", broker.log());
    ensure!(took <= STOP_MAX, "the broker took {took:?} to stop");
    Ok(())
}

/// Produces and consumes while the broker goes away and comes back. None if the client cannot be had here.
fn restarted_under_load(
    client: Client,
    settings: &[&str],
    go_away: fn(&mut Broker) -> anyhow::Result<()>,
) -> anyhow::Result<Option<Run>> {
    if or_skip(client.install())?.is_none() {
        return Ok(None);
    }
    let dir = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&dir.path().join("data")))?;
    create_topic(broker.address(), "numbers", 1)?;
    let file = dir.path().join("read");
    let mut load = client.load(&broker.bootstrap(), "numbers", settings)?;
    let tail = client.tail(&broker.bootstrap(), "numbers", &file)?;
    for round in 1..=RESTARTS {
        wait_for(&mut load, round * RECORDS_BETWEEN)?;
        go_away(&mut broker)?;
        broker.restart()?;
    }

    // The end of the input makes the client send its last record, so that it has to get through again.
    let said = String::from_utf8(load.finish()?)?;
    tail.finish()?;

    let sent =
        said.lines().last().and_then(|line| line.strip_prefix("sent ")).context("the client counts")?;
    let text = fs::read_to_string(&file)?;
    let numbers = text.lines().filter(|line| *line != "end");
    let read = numbers.map(|line| Ok(line.parse()?)).collect::<anyhow::Result<Vec<u64>>>()?;
    Ok(Some(Run { sent: sent.parse()?, read }))
}

/// Waits until the client says that `count` records are acknowledged.
fn wait_for(load: &mut Running, count: u64) -> anyhow::Result<()> {
    while load.line()?.parse::<u64>()? < count {}
    Ok(())
}

fn assert_exactly_once(run: Option<Run>) {
    let Some(run) = run else { return };
    let wrong = run.read.iter().copied().zip(0..).find(|(read, expected)| read != expected);
    assert_eq!(wrong, None, "the first number out of its place, and what belongs there");
    assert_eq!(run.read.len() as u64, run.sent);
}
