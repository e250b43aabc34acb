//! Hostile frames against framing, decoding and dispatch without sockets, in a process of their own.
//!
//! The process is this test binary again, so that an abort is seen, memory can be measured and a panic on any of
//! the broker's threads can be counted: a panic in a task would otherwise be swallowed.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use highwater_broker::{Config, Durability, Exchange, InProcess};
use highwater_protocol::api::create_topics::CreatableTopic;
use highwater_protocol::api::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use highwater_protocol::wire::{Str, Uuid};
use highwater_protocol::{ApiRequest, decode_response, encode_request};

use super::answers::Coverage;
use super::mutation::hostile;
use super::seeds::{PARTITIONS, Seeds, TOPIC};
use crate::faults::random::Random;
use crate::faults::setting::{count, say, seed};
use crate::harness::process::anonymous_bytes;

/// Set in the process that does the work.
const WORKER: &str = "HIGHWATER_FUZZ_WORKER";
/// Frames after which all topics are made anew.
const ROUND_FRAMES: u64 = 10_000;
/// How often making them anew is tried.
const ATTEMPTS: u32 = 20;
/// Frames that are under way at once.
const TASKS: u64 = 32;
/// The share of the frames after which memory counts: until then caches and topics fill.
const WARM_UP: u64 = 4;
/// How much the broker may hold more at the end than after the warm-up.
const GROWTH_BYTES_MAX: u64 = 32 << 20;
/// How long an answer may take before it is taken for a parked fetch.
const PATIENCE: Duration = Duration::from_millis(200);
/// Topics come and go; partitions beyond this are refused.
const PARTITIONS_MAX: u32 = 500;

#[test]
fn hostile_frames_are_answered_or_refused_without_a_panic() -> anyhow::Result<()> {
    if std::env::var_os(WORKER).is_some() {
        return work();
    }
    let name = "fuzz::in_process::hostile_frames_are_answered_or_refused_without_a_panic";
    let seed = seed()?.to_string();
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(WORKER, "1")
        .env("HIGHWATER_SEED", &seed)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let erred = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "HIGHWATER_SEED={seed} ended with {}:\n{said}\n{erred}", output.status);
    // Proof that the worker found its test by name.
    ensure!(said.contains("1 passed"), "the worker ran no test:\n{said}");
    for line in said.lines().filter(|line| line.contains(':')) {
        say(line);
    }
    Ok(())
}

fn work() -> anyhow::Result<()> {
    let panics = count_panics();
    let frames = count("HIGHWATER_FRAMES", 250_000)?;
    let seed = seed()?;
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut config = Config::new(directory.path().join("data"));
        // Syncs are the business of other tests; here they would only slow down.
        config.durability = Durability::Os;
        config.partitions_max = PARTITIONS_MAX;
        let broker = Arc::new(InProcess::open(config).await?);

        let warm_up = frames / WARM_UP;
        let mut coverage = send_all(&broker, seed, warm_up).await?;
        let before = anonymous_bytes(std::process::id())?;
        coverage.merge(&send_all(&broker, !seed, frames - warm_up).await?);
        let after = anonymous_bytes(std::process::id())?;

        let table = coverage.table();
        say(&format!(
            "in process: {frames} frames, seed {seed}, {} panics, anonymous memory {} KiB after {warm_up} frames and \
             {} KiB at the end; {table}",
            panics.load(Ordering::Relaxed),
            before >> 10,
            after >> 10,
        ));
        ensure!(panics.load(Ordering::Relaxed) == 0, "the broker panicked, see above");
        ensure!(after < before + GROWTH_BYTES_MAX, "memory grew from {before} to {after} bytes");
        ensure!(coverage.missing().is_empty(), "no answer came from {:?}", coverage.missing());
        let broker = Arc::into_inner(broker).context("every task has ended")?;
        broker.close().await.context("close the broker after the frames")
    })
}

/// Counts panics on every thread, besides printing them.
fn count_panics() -> Arc<AtomicU64> {
    let panics = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&panics);
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        counter.fetch_add(1, Ordering::Relaxed);
        print(panic);
    }));
    panics
}

/// Deletes every topic that there is and creates the one of the seeds; its id.
async fn create_topic(broker: &InProcess) -> anyhow::Result<Uuid> {
    let topic = CreatableTopic {
        name: Str::from(TOPIC),
        num_partitions: PARTITIONS,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let create = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    // A request that the test gave up on may still create topics in between, up to the limit of partitions.
    let mut refusal = None;
    for _ in 0..ATTEMPTS {
        let all = call(broker, 1, &MetadataRequest { topics: None, ..MetadataRequest::default() }).await?;
        let topic_names = all.topics.into_iter().filter_map(|topic| topic.name).collect();
        call(broker, 5, &DeleteTopicsRequest { topic_names, ..DeleteTopicsRequest::default() }).await?;
        let response = call(broker, 7, &create).await?;
        let created = response.topics.into_iter().next().context("the answer names the topic")?;
        if created.error_code == 0 {
            return Ok(created.topic_id);
        }
        refusal = Some(created);
    }
    bail!("the topic was not created: {refusal:?}")
}

async fn call<R: ApiRequest>(broker: &InProcess, version: i16, request: &R) -> anyhow::Result<R::Response> {
    let frame = encode_request(1, None, version, request)?;
    let Exchange::Answer(answer) = broker.exchange(frame.slice(4..)).await else {
        bail!("{} is not answered", R::KEY);
    };
    Ok(decode_response(Bytes::from(answer).slice(4..), version)?.1)
}

/// Sends `frames` frames. Now and then all topics are made anew: damaged requests delete and create them.
async fn send_all(broker: &Arc<InProcess>, seed: u64, frames: u64) -> anyhow::Result<Coverage> {
    let mut random = Random::new(seed);
    let mut coverage = Coverage::default();
    let mut left = frames;
    while left > 0 {
        let round = left.min(ROUND_FRAMES);
        coverage.merge(&send_round(broker, random.next(), round).await?);
        left -= round;
    }
    Ok(coverage)
}

/// Sends `frames` frames, [`TASKS`] at a time.
async fn send_round(broker: &Arc<InProcess>, seed: u64, frames: u64) -> anyhow::Result<Coverage> {
    let seeds = Arc::new(Seeds::new(create_topic(broker).await?)?);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (broker, seeds) = (Arc::clone(broker), Arc::clone(&seeds));
        let mut random = Random::new(seed.wrapping_add(task));
        let share = frames / TASKS + u64::from(task < frames % TASKS);
        tasks.spawn(async move {
            let mut coverage = Coverage::default();
            for _ in 0..share {
                let frame = Bytes::from(hostile(&mut random, &seeds));
                send(&broker, &frame, &mut coverage).await.with_context(|| format!("frame {frame:?}"))?;
            }
            anyhow::Ok(coverage)
        });
    }
    let mut total = Coverage::default();
    while let Some(ended) = tasks.join_next().await {
        total.merge(&ended.context("a frame made the broker panic")??);
    }
    Ok(total)
}

async fn send(broker: &InProcess, frame: &Bytes, coverage: &mut Coverage) -> anyhow::Result<()> {
    match tokio::time::timeout(PATIENCE, broker.exchange(frame.clone())).await {
        Ok(Exchange::Answer(answer)) => {
            let answer = Bytes::from(answer);
            let length = answer.first_chunk().map(|prefix| i32::from_be_bytes(*prefix) as usize);
            ensure!(length == Some(answer.len() - 4), "an answer of {} bytes says {length:?}", answer.len());
            coverage.take_answer(frame, answer.slice(4..))?;
        }
        Ok(Exchange::Silence) => coverage.silences += 1,
        Ok(Exchange::Hangup(_)) => coverage.hangups += 1,
        Err(_) => coverage.parked += 1,
    }
    Ok(())
}
