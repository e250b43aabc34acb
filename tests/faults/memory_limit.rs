//! Twice as much load as a control group has memory: the kernel kills nobody, and nothing acknowledged is lost.
//!
//! What pushes back is the default budget, a part of the group's limit. Needs root and a mounted memory controller of
//! version 1 or 2.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};

use crate::harness::broker::{Broker, Options};
use crate::harness::cgroup::MemoryLimit;
use crate::harness::metrics::metric;
use crate::harness::skip::or_skip;

use super::batches::plain_batch;
use super::client::{Connection, answers_of, produce_request};
use super::overload::{Crowd, Tally};
use super::setting::{Trials, say};

const TOPIC: &str = "limited";
const LIMIT_BYTES: u64 = 256 << 20;
const BATCH_BYTES: usize = 8 << 20;
/// So many requests at once are twice the limit.
const PRODUCERS: u64 = 2 * LIMIT_BYTES / BATCH_BYTES as u64;
/// How often each of them sends one.
const ROUNDS: u32 = 3;

/// The limit for a load without an end, page cache included.
const ROOMY_BYTES: u64 = 512 << 20;
/// How long it is offered twice what it takes, in seconds.
const LENGTH_S: Trials = Trials { pr: 10, nightly: 600, release: 600 };

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn twice_the_load_that_a_memory_limit_allows_kills_nobody_and_loses_nothing() -> anyhow::Result<()> {
    let Some(limit) = or_skip(MemoryLimit::new("twice", LIMIT_BYTES))? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&directory.path().join("data")).under(limit.wrapper()))?;
    let address = broker.address();
    assert_eq!(metric(address, "highwater_memory_budget_bytes")?, LIMIT_BYTES / 4);
    Connection::open(address)?.create_topic(TOPIC, 1, &[("max.message.bytes", "16777216")])?;

    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            thread::spawn(move || {
                let mut connection = Connection::open_patient(address)?;
                let mut offsets = Vec::new();
                for round in 0..ROUNDS {
                    let request = produce_request(TOPIC, [(0, plain_batch(round, BATCH_BYTES))]);
                    let answer = connection.call(super::client::PRODUCE_VERSION, &request)?;
                    let answer = answers_of(answer).pop().context("the answer names the partition")?;
                    ensure!(answer.error_code == 0, "a good batch is refused: {answer:?}");
                    offsets.push(answer.base_offset);
                }
                anyhow::Ok(offsets)
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for producer in producers {
        acknowledged.extend(producer.join().map_err(|_| anyhow!("a producer panicked"))??);
    }
    let peak = metric(address, "highwater_memory_peak_bytes")?;
    let resident = metric(address, "highwater_memory_resident_peak_bytes")?;
    let kills = limit.kills()?;
    broker.kill()?;
    broker.restart()?;

    acknowledged.sort_unstable();
    assert_eq!(acknowledged, (0..(PRODUCERS * u64::from(ROUNDS)) as i64).collect::<Vec<_>>());
    let end = Connection::open(address)?.latest_offset(TOPIC, 0)?;
    say(&format!(
        "{PRODUCERS} producers of {} MiB each under a limit of {} MiB: used {} MiB at most, resident {} MiB, {kills} \
         killed; {} acknowledged, the end is {end:?} after kill -9",
        BATCH_BYTES >> 20,
        LIMIT_BYTES >> 20,
        peak >> 20,
        resident >> 20,
        acknowledged.len()
    ));
    assert_eq!(kills, 0);
    assert_eq!(end, Some(acknowledged.len() as i64), "acknowledged batches are lost");
    Ok(())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_busy_broker_stays_within_its_memory_limit() -> anyhow::Result<()> {
    let length = Duration::from_secs(LENGTH_S.amount()?);
    let count = Trials { pr: 1, nightly: 3, release: 10 }.count()?;
    for trial in 1..=count {
        let Some(limit) = or_skip(MemoryLimit::new("limit", ROOMY_BYTES))? else { return Ok(()) };
        let sentence = overload(&limit, length)?;
        say(&format!("T23 a memory limit, trial {trial} of {count}: {sentence}"));
    }
    Ok(())
}

/// Offers twice what the broker was seen to take.
fn overload(limit: &MemoryLimit, length: Duration) -> anyhow::Result<String> {
    let directory = tempfile::tempdir()?;
    let options = Options::new(&directory.path().join("data"))
        .flags(&["--log-retention-check-interval-ms", "1000"])
        .under(limit.wrapper());
    let mut broker = Broker::start(options)?;
    let crowd = Crowd {
        address: broker.address(),
        topic: TOPIC,
        partitions: 8,
        producers: 16,
        batch_bytes: 64 << 10,
    };
    // So that ten minutes need no more disk than one.
    let settings = [("segment.bytes", "16777216"), ("retention.bytes", "268435456")];
    Connection::open(broker.address())?.create_topic(TOPIC, crowd.partitions, &settings)?;
    let taken = crowd.measure((length / 10).max(Duration::from_secs(3)))?;
    let tally = crowd.offer(2.0 * taken, length)?;
    let used = metric(broker.address(), "highwater_memory_peak_bytes")?;
    let budget = metric(broker.address(), "highwater_memory_budget_bytes")?;
    let resident = metric(broker.address(), "highwater_memory_resident_peak_bytes")?;
    let (held, kills) = (limit.peak_bytes()?, limit.kills()?);
    broker.kill()?;
    broker.restart()?;
    let compared = crowd.check(&tally)?;

    ensure!(kills == 0, "the kernel has killed {kills} times for the limit of {ROOMY_BYTES} bytes");
    ensure!(used <= budget, "{used} bytes are held for requests, the budget is {budget}");
    ensure!(resident < ROOMY_BYTES, "{resident} bytes are resident");
    ensure!(tally.offered > tally.acked.len() as u64, "the broker has taken all that was offered");
    let Tally { offered, expired, timed_out, acked, read_bytes, slowest_livez } = tally;
    Ok(format!(
        "{taken:.0} batches of 64 KiB a second are taken by themselves, {:.0} were offered for {length:?}; {offered} \
         offered, {} acknowledged, {expired} given up unsent, {timed_out} timed out, {} MiB read; resident {} MiB at \
         most, requests {} of {} MiB, the control group {} of {} MiB with its page cache, {kills} killed; /livez took \
         {slowest_livez:?} at most; {compared} acknowledged batches found after kill -9, none missing",
        2.0 * taken,
        acked.len(),
        read_bytes >> 20,
        resident >> 20,
        used >> 20,
        budget >> 20,
        held >> 20,
        ROOMY_BYTES >> 20,
    ))
}
