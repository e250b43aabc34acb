//! Apache Kafka and the broker in turns, on the same loads by the same client in one run, held against what the design
//! wants of the difference.
//!
//! In each round both start on fresh data and go through everything in one process, so that Kafka's compiler is warm:
//! every load runs once unmeasured. At last each is stopped and started again, to its first acknowledgement.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ServerArgs;
use crate::batch::Batch;
use crate::connection::Connection;
use crate::frame::{self, Target};
use crate::load::{self, Outcome, Place, Until};
use crate::process::{Program, Server, cpu_seconds, let_time_pass, resident_kib};
use crate::report::{self, progress};
use crate::roofline::SEGMENT_BYTES;
use crate::size::ByteSize;
use crate::stats::{Spread, percentile};

/// Written to by the loads that produce.
const PRODUCED: &str = "produced";
/// Read by the loads that consume; it stays in the page cache.
const CONSUMED: &str = "consumed";
const CONSUMED_BYTES: u64 = ByteSize::mib(512).0;
/// A server that refuses for longer after its start has failed.
const SERVES_WITHIN: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct RivalArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Folder with Kafka's jars. Default: `tests/.jars` of this workspace, which the interop tests install.
    #[arg(long)]
    jars: Option<PathBuf>,
    /// What an acknowledgement means: `os`, or `fsync` (Kafka: log.flush.interval.messages=1).
    #[arg(long, default_value = "os", value_parser = ["os", "fsync"])]
    durability: String,
    /// Times that each side runs everything.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How much a load moves; half as much before the clock starts.
    #[arg(long, default_value = "2GiB")]
    bytes: ByteSize,
    /// How long the loads run that count acknowledgements; half as long before the clock starts.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

#[derive(Clone, Copy)]
enum Load {
    /// One connection, five requests in flight.
    Produce { batch: ByteSize },
    /// One connection, one fetch in flight.
    Consume { fetch: ByteSize },
    /// Batches of 4 KiB, one in flight on each connection.
    Acknowledge { connections: u32 },
}

const LOADS: [Load; 6] = [
    Load::Produce { batch: ByteSize::kib(64) },
    Load::Produce { batch: ByteSize::mib(1) },
    Load::Consume { fetch: ByteSize::kib(64) },
    Load::Consume { fetch: ByteSize::mib(1) },
    Load::Acknowledge { connections: 1 },
    Load::Acknowledge { connections: 64 },
];

/// What the design asks of ours to theirs.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    /// One part in so many.
    AtMostOneIn(f64),
}

/// One kind of figure: what it is, and what is wanted of it. Of each the first values are ours, the second Kafka's.
struct Figure {
    what: String,
    wanted: Wanted,
    values: [Vec<f64>; 2],
}

/// The figures of one turn of one side, in an order that all turns share.
type Turn = Vec<(String, Wanted, f64)>;

/// Runs all rounds and returns the table.
pub(crate) fn run(args: &RivalArgs) -> Result<String> {
    let binary = args.server.binary()?;
    let jars = jars(args.jars.clone())?;
    let durability = args.durability.as_str();
    let sides = [Program::Broker { binary: &binary, durability }, Program::Kafka { jars: &jars, durability }];
    let machine = report::machine();
    let mut figures: Vec<Figure> = Vec::new();
    for round in 0..args.rounds {
        let mut order = [0, 1];
        if round % 2 == 1 {
            order.reverse();
        }
        for side in order {
            progress(format_args!("round {}: {}", round + 1, sides[side].name()));
            for (at, (what, wanted, value)) in take_turn(args, sides[side])?.into_iter().enumerate() {
                progress(format_args!("  {what}: {value:.3}"));
                if figures.len() == at {
                    figures.push(Figure { what, wanted, values: [Vec::new(), Vec::new()] });
                }
                figures[at].values[side].push(value);
            }
        }
    }
    let header = ["what", "highwater", "kafka", "ratio", "wanted", "holds"];
    let table = report::table(header, figures.iter().filter_map(Figure::row));
    Ok(format!(
        "{table}\n\n{machine}; durability {durability}, {} rounds of {} and {} s; median [min..max]",
        args.rounds, args.bytes, args.seconds
    ))
}

fn jars(given: Option<PathBuf>) -> Result<PathBuf> {
    let jars =
        given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tests").join(".jars"));
    if !jars.is_dir() {
        bail!(
            "there are no jars at {}: `cargo test -p highwater-tests interop -- --include-ignored` fetches Kafka's, or \
             name a folder with --jars",
            jars.display()
        );
    }
    Ok(jars)
}

fn take_turn(args: &RivalArgs, program: Program<'_>) -> Result<Turn> {
    let root = args.server.data_root();
    std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let home = tempfile::Builder::new().prefix("rival-").tempdir_in(&root)?;
    let server = Server::start_on(program, home.path())?;
    for topic in [PRODUCED, CONSUMED] {
        let create = || Connection::open(server.address)?.create_topic(topic, 1, SEGMENT_BYTES);
        patiently(create).with_context(|| format!("create the topic {topic}"))?;
        patiently(|| append_one(&server, topic))?;
    }
    let filled = Batch::build(ByteSize::kib(64).0 as usize, 1024)?;
    load::produce(place(&server, CONSUMED, 1), 5, &filled, Until::Bytes(CONSUMED_BYTES))?;
    let mut turn = Turn::new();
    for load in LOADS {
        turn.extend(load.measure(args, &server)?);
    }
    turn.push(("resident after that, MiB".into(), Wanted::AtMostOneIn(10.0), resident_mib(&server)?));
    server.stop()?;
    let began = Instant::now();
    let server = Server::start_on(program, home.path())?;
    patiently(|| append_one(&server, PRODUCED))?;
    let milliseconds = began.elapsed().as_secs_f64() * 1e3;
    turn.push(("start to first acknowledgement, ms".into(), Wanted::AtMostOneIn(20.0), milliseconds));
    Ok(turn)
}

fn place<'a>(server: &Server, topic: &'a str, connections: u32) -> Place<'a> {
    Place { address: server.address, topic, partitions: 1, connections }
}

fn resident_mib(server: &Server) -> Result<f64> {
    Ok(resident_kib(server.pid())? as f64 / 1024.0)
}

fn append_one(server: &Server, topic: &str) -> Result<()> {
    let mut connection = Connection::open(server.address)?;
    let batch = Batch::build(512, 200)?;
    connection.send(&mut frame::produce(Target { topic, partition: 0 }, &batch.bytes))?;
    let answer = connection.receive()?;
    frame::produced(answer.body, answer.correlation).map(drop)
}

/// Tries until it is done: a server that listens may not serve yet.
fn patiently(attempt: impl Fn() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(_) if began.elapsed() < SERVES_WITHIN => let_time_pass(Duration::from_millis(1)),
            done => return done,
        }
    }
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::Produce { batch } => format!("produce {batch}"),
            Self::Consume { fetch } => format!("consume {fetch}"),
            Self::Acknowledge { connections } => format!("{connections} x 1 of 4 KiB"),
        }
    }

    fn measure(self, args: &RivalArgs, server: &Server) -> Result<Turn> {
        let (time, bytes) = (Duration::from_secs(args.seconds), args.bytes.0);
        let (warm_up, whole) = match self {
            Self::Acknowledge { .. } => (Until::Elapsed(time / 2), Until::Elapsed(time)),
            _ => (Until::Bytes(bytes / 2), Until::Bytes(bytes)),
        };
        self.drive(server, warm_up)?;
        let before = cpu_seconds(server.pid())?;
        let outcome = self.drive(server, whole)?;
        let cpu = cpu_seconds(server.pid())? - before;
        let name = self.name();
        let p99 = percentile(&outcome.latencies, 99).context("nothing was answered")?;
        let p99 = (format!("{name}: p99, us"), Wanted::AtMostOneIn(3.0), p99.as_secs_f64() * 1e6);
        let (throughput, cost) = match self {
            Self::Acknowledge { .. } => {
                let microseconds = cpu * 1e6 / outcome.requests as f64;
                let rate = outcome.requests_per_second();
                ((format!("{name}: acks/s"), rate), (format!("{name}: CPU us/ack"), microseconds))
            }
            _ => {
                let per_gib = cpu / (outcome.bytes as f64 / f64::from(1 << 30));
                let rate = outcome.mib_per_second();
                ((format!("{name}: MiB/s"), rate), (format!("{name}: CPU s/GiB"), per_gib))
            }
        };
        Ok(vec![
            (throughput.0, Wanted::AtLeast(2.0), throughput.1),
            (cost.0, Wanted::AtMostOneIn(3.0), cost.1),
            p99,
        ])
    }

    fn drive(self, server: &Server, until: Until) -> Result<Outcome> {
        match self {
            Self::Produce { batch } => {
                let batch = Batch::build(batch.0 as usize, 1024)?;
                load::produce(place(server, PRODUCED, 1), 5, &batch, until)
            }
            Self::Consume { fetch } => load::consume(place(server, CONSUMED, 1), fetch.0 as i32, until),
            Self::Acknowledge { connections } => {
                let batch = Batch::build(ByteSize::kib(4).0 as usize, 1024)?;
                load::produce(place(server, PRODUCED, connections), 1, &batch, until)
            }
        }
    }
}

impl Figure {
    fn row(&self) -> Option<[String; 6]> {
        let [ours, theirs] = &self.values;
        let ratio = Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))?;
        let show = |values: &[f64]| Spread::of(values.iter().copied()).map(shown);
        let (wanted, holds) = match self.wanted {
            Wanted::AtLeast(times) => (format!(">= {times}"), ratio.median >= times),
            Wanted::AtMostOneIn(times) => (format!("<= 1/{times}"), ratio.median * times <= 1.0),
        };
        let holds = if holds { "yes" } else { "no" };
        Some([self.what.clone(), show(ours)?, show(theirs)?, format!("{ratio:.2}"), wanted, holds.to_owned()])
    }
}

/// Seconds per GiB need digits that rates do not.
fn shown(spread: Spread) -> String {
    if spread.max < 10.0 { format!("{spread:.3}") } else { format!("{spread:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(wanted: Wanted, ours: [f64; 3], theirs: [f64; 3]) -> [String; 6] {
        Figure { what: "it".to_owned(), wanted, values: [ours.to_vec(), theirs.to_vec()] }.row().unwrap()
    }

    #[test]
    fn throughput_is_wanted_twice_and_cost_at_a_third() {
        let faster = figure(Wanted::AtLeast(2.0), [100.0, 200.0, 300.0], [50.0, 100.0, 200.0]);
        let dearer = figure(Wanted::AtMostOneIn(3.0), [0.2, 0.2, 0.2], [0.4, 0.5, 0.9]);

        assert_eq!(faster[1..], ["200 [100..300]", "100 [50..200]", "2.00 [1.50..2.00]", ">= 2", "yes"]);
        assert_eq!(dearer[2..], ["0.500 [0.400..0.900]", "0.40 [0.22..0.50]", "<= 1/3", "no"]);
    }
}
