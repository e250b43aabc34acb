//! Abusers: clients that take all they can get are held to their quota, and others are not harmed.
//!
//! The full measure is `HIGHWATER_QUOTA_SECONDS=30`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic};
use highwater_protocol::wire::Str;

use crate::harness::broker::{Broker, Options};
use crate::harness::client::Client;
use crate::harness::quotas::set;

use super::batches::plain_batch;
use super::client::{Connection, PRODUCE_VERSION, answers_of, produce_request};
use super::setting::{count, say};

const TOPIC: &str = "abused";
const RATE: u32 = 400_000;
/// Connections of one abuser.
const CONNECTIONS: usize = 4;
const VALUE_BYTES: usize = 10_000;

/// What one request of a client takes: bytes, and whether it was told to wait.
type Turn = fn(&mut Client) -> anyhow::Result<(u64, bool)>;

fn produce(client: &mut Client) -> anyhow::Result<(u64, bool)> {
    let request = produce_request(TOPIC, [(0, plain_batch(0, VALUE_BYTES))]);
    let bytes = client.send(PRODUCE_VERSION, &request)?;
    let response: highwater_protocol::api::ProduceResponse = client.receive(PRODUCE_VERSION)?;
    let throttled = response.throttle_time_ms > 0;
    ensure!(answers_of(response).iter().all(|answer| answer.error_code == 0), "a batch is refused");
    Ok((bytes, throttled))
}

fn fetch(client: &mut Client) -> anyhow::Result<(u64, bool)> {
    let partition = FetchPartition { partition_max_bytes: 50_000, ..FetchPartition::default() };
    let topic = FetchTopic { topic: Str::from(TOPIC), partitions: vec![partition], ..FetchTopic::default() };
    let request =
        FetchRequest { min_bytes: 1, max_bytes: 1 << 20, topics: vec![topic], ..FetchRequest::default() };
    let response = client.call(12, &request)?;
    ensure!(response.error_code == 0, "a fetch ended with {response:?}");
    let data = response.responses.iter().flat_map(|topic| &topic.partitions);
    let bytes: usize = data.filter_map(|data| data.records.bytes()).map(|bytes| bytes.len()).sum();
    Ok((bytes as u64, response.throttle_time_ms > 0))
}

/// Takes turns until told to stop; the bytes taken after the first wait, and how many waits there were.
fn take(address: SocketAddr, name: &str, turn: Turn, stop: &AtomicBool) -> anyhow::Result<(u64, u64)> {
    let mut client = Client::connect(address, name)?;
    let (mut taken, mut waits) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let (bytes, throttled) = turn(&mut client)?;
        // What comes before the first wait is the second's worth that is free.
        taken += if waits > 0 { bytes } else { 0 };
        waits += u64::from(throttled);
    }
    Ok((taken, waits))
}

/// Turns a second of a client that has no quota; none of them may be told to wait.
fn pace(address: SocketAddr, turn: Turn, time: Duration) -> anyhow::Result<f64> {
    let mut client = Client::connect(address, "modest")?;
    let (began, mut turns) = (Instant::now(), 0);
    while began.elapsed() < time {
        ensure!(!turn(&mut client)?.1, "a client without a quota is told to wait");
        turns += 1;
    }
    Ok(f64::from(turns) / began.elapsed().as_secs_f64())
}

/// Sets an abuser loose beside a modest client.
fn abuse(key: &str, turn: Turn) -> anyhow::Result<()> {
    let time = Duration::from_secs(count("HIGHWATER_QUOTA_SECONDS", 8)?);
    let directory = tempfile::tempdir()?;
    let options = Options::new(&directory.path().join("data")).flags(&["--durability", "os"]);
    let broker = Broker::start(options)?;
    let address = broker.address();
    Connection::open(address)?.create_topic(TOPIC, 1, &[])?;
    for _ in 0..10 {
        produce(&mut Client::connect(address, "modest")?)?;
    }
    let stop = AtomicBool::new(false);
    let unlimited = {
        let began = Instant::now();
        let mut taken = 0;
        let mut client = Client::connect(address, "abuser")?;
        while began.elapsed() < Duration::from_secs(1) {
            taken += turn(&mut client)?.0;
        }
        taken as f64 / began.elapsed().as_secs_f64()
    };
    let alone = pace(address, turn, Duration::from_secs(2))?;
    set(&mut Client::connect(address, "operator")?, &[("client-id", Some("abuser"))], key, RATE)?;

    let (taken, waits, took, beside) = thread::scope(|scope| {
        let began = Instant::now();
        let abusers: Vec<_> =
            (0..CONNECTIONS).map(|_| scope.spawn(|| take(address, "abuser", turn, &stop))).collect();
        let beside = pace(address, turn, time);
        stop.store(true, Ordering::Relaxed);
        let mut sum = (0, 0);
        for abuser in abusers {
            let (taken, waits) = abuser.join().map_err(|_| anyhow!("an abuser panicked"))??;
            sum = (sum.0 + taken, sum.1 + waits);
        }
        anyhow::Ok((sum.0, sum.1, began.elapsed(), beside?))
    })?;

    let share = taken as f64 / (f64::from(RATE) * took.as_secs_f64());
    say(&format!(
        "{key}: an abuser at {:.0} times its quota gets {:.1} % of it over {took:?}, with {waits} waits; a modest \
         client makes {alone:.0} requests a second alone and {beside:.0} beside it ({:.0} %)",
        unlimited / f64::from(RATE),
        100.0 * share,
        100.0 * beside / alone
    ));
    ensure!((0.9..=1.1).contains(&share), "an abuser gets {share} of its quota");
    ensure!(
        beside > alone / 10.0,
        "a modest client gets {beside} answers a second, {alone} without the abuser"
    );
    Ok(())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_producer_far_above_its_quota_is_held_within_a_tenth_of_it() -> anyhow::Result<()> {
    abuse("producer_byte_rate", produce)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_consumer_far_above_its_quota_is_held_within_a_tenth_of_it() -> anyhow::Result<()> {
    abuse("consumer_byte_rate", fetch)
}
