//! What a parked fetch costs the broker, and how soon after becoming durable a record reaches it.
//!
//! A record is durable for the outside when its produce is acknowledged under `fsync`. The wake latency is from reading
//! that acknowledgement to reading the fetch's answer; it is negative if the consumer was told first.
//! An idle poll of a fetch session must cost the same however many partitions the session has.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::ServerArgs;
use crate::batch::Batch;
use crate::connection::Connection;
use crate::frame::{self, FetchSpec, Target};
use crate::process::{Program, Server, cpu_seconds, cpu_ticks};
use crate::report::{self, progress};
use crate::roofline::SEGMENT_BYTES;
use crate::stats::percentile;

const TARGET: Target<'_> = Target { topic: "bench", partition: 0 };
const FETCH_BYTES: i32 = 1 << 20;
/// How long a fetch is given to be parked before a record is produced to wake it. It cannot be asked from outside.
const PARKED_AFTER: Duration = Duration::from_millis(20);
const TICKS_MAX: u64 = 3;
const WAKE_MS_MAX: f64 = 5.0;
/// The partitions of the larger session; the other one has a single partition.
const SESSION_PARTITIONS: i32 = 500;
/// How long an idle poll of a session is parked.
const SESSION_WAIT_MS: i32 = 1;
const SESSION_RATIO_MAX: f64 = 1.5;

#[derive(clap::Args)]
pub(crate) struct LongpollArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// How long the idle poll is parked.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u32,
    /// How often a poll is woken.
    #[arg(long, default_value_t = 200)]
    wakes: u32,
    /// How many idle polls of a session are made, over one partition and over 500.
    #[arg(long, default_value_t = 10_000)]
    polls: u32,
}

/// Measures both and returns what was seen.
pub(crate) fn run(args: &LongpollArgs) -> Result<String> {
    let binary = args.server.binary()?;
    let machine = report::machine();
    let program = Program::Broker { binary: &binary, durability: "fsync" };
    let server = Server::start(program, &args.server.data_root())?;
    let mut producer = Connection::open(server.address)?;
    producer.create_topic(TARGET.topic, 1, SEGMENT_BYTES)?;
    progress(format_args!("one fetch is parked for {} s", args.idle_seconds));
    let ticks = idle_ticks(&server, args.idle_seconds)?;
    progress(format_args!("{} fetches are woken", args.wakes));
    let mut wakes = wake_latencies(&server, &mut producer, args.wakes)?;
    wakes.sort_by(f64::total_cmp);
    let at = |percent| percentile(&wakes, percent).context("at least one wake must be measured");
    let (p50, p99, max) = (at(50)?, at(99)?, at(100)?);
    progress(format_args!("2 x {} idle polls of sessions", args.polls));
    let few_us = session_poll_us(&server, &mut producer, 1, args.polls)?;
    let many_us = session_poll_us(&server, &mut producer, SESSION_PARTITIONS, args.polls)?;
    let ratio = many_us / few_us;
    let header = ["what", "measured", "must hold", "holds"];
    let yes_no = |holds| if holds { "yes" } else { "no" }.to_owned();
    let rows = [
        [
            format!("CPU ticks of a {} s poll", args.idle_seconds),
            ticks.to_string(),
            format!("<= {TICKS_MAX}"),
            yes_no(ticks <= TICKS_MAX),
        ],
        [
            format!("acknowledged to delivered, median of {}", args.wakes),
            format!("{p50:.3} ms (p99 {p99:.3}, max {max:.3})"),
            format!("<= {WAKE_MS_MAX} ms"),
            yes_no(p50 <= WAKE_MS_MAX),
        ],
        [
            format!("CPU of an idle poll of {SESSION_PARTITIONS} partitions to one of 1"),
            format!("{many_us:.1} us to {few_us:.1} us: {ratio:.2}"),
            format!("<= {SESSION_RATIO_MAX}"),
            yes_no(ratio <= SESSION_RATIO_MAX),
        ],
    ];
    Ok(format!("{}\n\n{machine}", report::table(header, rows)))
}

/// CPU that the broker takes while one fetch waits for nothing.
fn idle_ticks(server: &Server, seconds: u32) -> Result<u64> {
    let mut consumer = Connection::open(server.address)?;
    let wait_ms = i32::try_from(seconds * 1000).context("--idle-seconds is too long")?;
    let spec = FetchSpec { offset: 0, max_wait_ms: wait_ms, min_bytes: 1, max_bytes: FETCH_BYTES };
    let (before, started) = (cpu_ticks(server.pid())?, Instant::now());
    consumer.send(&mut frame::fetch(TARGET, spec))?;
    let answer = consumer.receive()?;
    let records = frame::fetched(answer.body, answer.correlation)?.records;
    ensure!(records.is_empty(), "the idle topic has records");
    let parked = started.elapsed();
    let wanted = Duration::from_secs(seconds.into());
    ensure!(
        parked >= wanted.mul_f64(0.95),
        "the fetch was answered after {parked:?}, it may wait {wanted:?}"
    );
    Ok(cpu_ticks(server.pid())? - before)
}

/// CPU that the broker takes for one idle poll of a session over so many partitions, in microseconds.
fn session_poll_us(server: &Server, admin: &mut Connection, partitions: i32, polls: u32) -> Result<f64> {
    let topic = format!("idle-{partitions}");
    admin.create_topic(&topic, partitions, SEGMENT_BYTES)?;
    let mut consumer = Connection::open(server.address)?;
    consumer.send(&mut frame::open_session(&topic, partitions, FETCH_BYTES))?;
    let answer = consumer.receive()?;
    let (session, _) = frame::session(answer.body, answer.correlation)?;
    ensure!(session > 0, "the broker opened no session");
    let mut before = cpu_seconds(server.pid())?;
    for epoch in 1..=polls {
        // The first poll looks at every partition once; it is not counted.
        if epoch == 2 {
            before = cpu_seconds(server.pid())?;
        }
        let epoch = i32::try_from(epoch).context("--polls is too many")?;
        consumer.send(&mut frame::poll_session((session, epoch), SESSION_WAIT_MS, FETCH_BYTES))?;
        let answer = consumer.receive()?;
        let (_, topics) = frame::session(answer.body, answer.correlation)?;
        ensure!(topics == 0, "an idle poll was answered with {topics} topics");
    }
    Ok((cpu_seconds(server.pid())? - before) * 1e6 / f64::from(polls))
}

/// Milliseconds from the acknowledgement of a record to its arrival at a fetch that waits for it.
fn wake_latencies(server: &Server, producer: &mut Connection, count: u32) -> Result<Vec<f64>> {
    let batch = Batch::build(1024, 200)?;
    let mut request = frame::produce(TARGET, &batch.bytes);
    let (offsets, wanted) = mpsc::channel();
    let (arrivals, arrived) = mpsc::channel();
    let mut consumer = Connection::open(server.address)?;
    thread::scope(|scope| {
        let waiter = scope.spawn(move || wait_for_records(&mut consumer, &wanted, &arrivals));
        let measured = (0..count).map(|wake| {
            let offset = i64::from(wake) * i64::from(batch.record_count);
            offsets.send(offset).context("the waiting fetch ended")?;
            // Nothing arrives while the fetch is parked, so this wait runs its full time.
            let early = arrived.recv_timeout(PARKED_AFTER);
            ensure!(early == Err(RecvTimeoutError::Timeout), "a fetch at the end was answered or ended");
            producer.send(&mut request)?;
            let answer = producer.receive()?;
            let acknowledged = Instant::now();
            frame::produced(answer.body, answer.correlation)?;
            let delivered = arrived.recv().context("the waiting fetch ended")?;
            Ok(signed_ms(acknowledged, delivered))
        });
        let measured: Result<Vec<f64>> = measured.collect();
        drop(offsets);
        match waiter.join() {
            Ok(waited) => waited.and(measured),
            Err(_) => anyhow::bail!("the waiting fetch panicked"),
        }
    })
}

fn wait_for_records(
    consumer: &mut Connection,
    wanted: &Receiver<i64>,
    arrivals: &Sender<Instant>,
) -> Result<()> {
    for offset in wanted {
        let spec = FetchSpec { offset, max_wait_ms: 30_000, min_bytes: 1, max_bytes: FETCH_BYTES };
        consumer.send(&mut frame::fetch(TARGET, spec))?;
        let answer = consumer.receive()?;
        let delivered = Instant::now();
        let records = frame::fetched(answer.body, answer.correlation)?.records;
        ensure!(!records.is_empty(), "a fetch was answered without a record");
        if arrivals.send(delivered).is_err() {
            break;
        }
    }
    Ok(())
}

fn signed_ms(from: Instant, to: Instant) -> f64 {
    let forward = to.saturating_duration_since(from).as_secs_f64();
    let backward = from.saturating_duration_since(to).as_secs_f64();
    (forward - backward) * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_was_told_first_has_a_negative_latency() {
        let now = Instant::now();
        let later = now + Duration::from_millis(2);

        assert!((signed_ms(now, later) - 2.0).abs() < 1e-9);
        assert!((signed_ms(later, now) + 2.0).abs() < 1e-9);
    }
}
