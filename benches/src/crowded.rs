//! Starts and stops of a broker with thousands of partitions, each of which has one small segment.
//!
//! In each round: everything is appended to and the broker stopped; it is started and stopped untouched; it is killed
//! untouched; everything is appended to and it is killed. What each start and stop took is a row, and so is memory.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ServerArgs;
use crate::batch::Batch;
use crate::connection::Connection;
use crate::frame::{self, Target};
use crate::process::{Program, Server, resident_kib};
use crate::report;
use crate::size::ByteSize;
use crate::stats::Spread;

/// Partitions of each topic: one request creates no more.
const TOPIC_PARTITIONS: i32 = 1000;
const SEGMENT_BYTES: u64 = 1 << 30;
const IN_FLIGHT: usize = 64;
const READY_MS_MAX: f64 = 1000.0;
const STOP_MS_MAX: f64 = 5000.0;
const PARTITION_KIB_MAX: f64 = 8.0;

/// What was measured, a value for each round.
#[derive(Default)]
struct Measured {
    stop_used: Vec<f64>,
    start_clean: Vec<f64>,
    stop_untouched: Vec<f64>,
    start_killed_untouched: Vec<f64>,
    start_killed: Vec<f64>,
    partition_kib_dormant: Vec<f64>,
    partition_kib_used: Vec<f64>,
}

/// Runs the rounds and returns what was seen.
pub(crate) fn run(args: &ServerArgs, partitions: i32, rounds: u32, tail: ByteSize) -> Result<String> {
    let binary = args.binary()?;
    let machine = report::machine();
    let (root, program) = (args.data_root(), Program::Broker { binary: &binary, durability: "fsync" });
    std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let home = tempfile::Builder::new().prefix("crowded-").tempdir_in(&root)?;
    let mut server = Server::start_on(program, home.path())?;
    let empty_kib = resident_kib(server.pid())? as f64;
    create_topics(&server, partitions)?;
    let per_partition = |server: &Server| {
        Ok::<_, anyhow::Error>((resident_kib(server.pid())? as f64 - empty_kib) / f64::from(partitions))
    };
    let mut seen = Measured::default();
    for _ in 0..rounds {
        append_everywhere(&server, partitions)?;
        seen.partition_kib_used.push(per_partition(&server)?);
        seen.stop_used.push(ms(server.stop()?));
        server = Server::start_on(program, home.path())?;
        seen.start_clean.push(ms(server.ready_after));
        seen.partition_kib_dormant.push(per_partition(&server)?);
        seen.stop_untouched.push(ms(server.stop()?));
        Server::start_on(program, home.path())?.kill();
        server = Server::start_on(program, home.path())?;
        seen.start_killed_untouched.push(ms(server.ready_after));
        append_everywhere(&server, partitions)?;
        append_tail(&server, tail)?;
        server.kill();
        server = Server::start_on(program, home.path())?;
        seen.start_killed.push(ms(server.ready_after));
    }
    drop(server);
    let table = report::table(["what", "median [min..max]", "target", "holds"], rows(seen, tail)?);
    Ok(format!("{table}\n\n{machine}; {partitions} partitions, {rounds} rounds{}", errors_of(home.path())))
}

fn rows(seen: Measured, tail: ByteSize) -> Result<Vec<[String; 4]>> {
    // Beyond the first second, what was appended since the last checkpoint at 1 GB/s.
    let killed_max = READY_MS_MAX + tail.0 as f64 / 1e6;
    let rows = [
        ("start after a clean stop, ms", seen.start_clean, READY_MS_MAX),
        ("start after kill -9 of an untouched broker, ms", seen.start_killed_untouched, READY_MS_MAX),
        ("start after kill -9, everything appended to, ms", seen.start_killed, killed_max),
        ("stop, everything appended to, ms", seen.stop_used, STOP_MS_MAX),
        ("stop of an untouched broker, ms", seen.stop_untouched, STOP_MS_MAX),
        (
            "resident for each partition after a clean start, KiB",
            seen.partition_kib_dormant,
            PARTITION_KIB_MAX,
        ),
        ("resident for each partition that was used, KiB", seen.partition_kib_used, PARTITION_KIB_MAX),
    ];
    let row = |(what, values, max): (&str, Vec<f64>, f64)| {
        let spread = Spread::of(values).context("at least one round is needed")?;
        let holds = if spread.median <= max { "yes" } else { "no" };
        Ok([what.to_owned(), format!("{spread:.1}"), format!("<= {max:.0}"), holds.to_owned()])
    };
    rows.into_iter().map(row).collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn topics(partitions: i32) -> impl Iterator<Item = (String, i32)> {
    (0..partitions).step_by(TOPIC_PARTITIONS as usize).map(move |first| {
        (format!("crowd-{}", first / TOPIC_PARTITIONS), TOPIC_PARTITIONS.min(partitions - first))
    })
}

fn create_topics(server: &Server, partitions: i32) -> Result<()> {
    let mut admin = Connection::open(server.address)?;
    topics(partitions).try_for_each(|(topic, count)| admin.create_topic(&topic, count, SEGMENT_BYTES))
}

/// One small batch to every partition, acknowledged.
fn append_everywhere(server: &Server, partitions: i32) -> Result<()> {
    let mut producer = Connection::open(server.address)?;
    let batch = Batch::build(512, 200)?;
    let mut waiting = 0;
    for (topic, count) in topics(partitions) {
        for partition in 0..count {
            if waiting == IN_FLIGHT {
                acknowledged(&mut producer)?;
                waiting -= 1;
            }
            producer.send(&mut frame::produce(Target { topic: &topic, partition }, &batch.bytes))?;
            waiting += 1;
        }
    }
    (0..waiting).try_for_each(|_| acknowledged(&mut producer))
}

/// Large batches to the first partition.
fn append_tail(server: &Server, tail: ByteSize) -> Result<()> {
    let mut producer = Connection::open(server.address)?;
    let batch = Batch::build(1 << 20, 1024)?;
    let mut request = frame::produce(Target { topic: "crowd-0", partition: 0 }, &batch.bytes);
    for _ in 0..tail.0 / batch.bytes.len() as u64 {
        producer.send(&mut request)?;
        acknowledged(&mut producer)?;
    }
    Ok(())
}

fn acknowledged(producer: &mut Connection) -> Result<()> {
    let answer = producer.receive()?;
    frame::produced(answer.body, answer.correlation)?;
    Ok(())
}

/// How many errors the last server logged: there should be none.
fn errors_of(home: &Path) -> String {
    let log = std::fs::read_to_string(home.join("stderr.log")).unwrap_or_default();
    let errors = log.lines().filter(|line| line.contains("ERROR")).count();
    if errors == 0 { String::new() } else { format!("; {errors} errors in the last server's log") }
}
