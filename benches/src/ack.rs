//! What an acknowledgement costs when it means durable, and how well writers share a sync.
//!
//! Beside it stands what the disk takes for the same bytes without a broker, in the same rounds: one writer's
//! acknowledgement may cost two of those at the median.
//!
//! Three shapes of the same small requests to one partition, under `fsync` and under `os` in turns. The rule that must
//! hold: a shape that gives the group commit something to group reaches twenty times one writer with one request in
//! flight, or 40 % of the same shape under `os`.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::ServerArgs;
use crate::batch::Batch;
use crate::connection::Connection;
use crate::load::{self, Outcome, Place, Until};
use crate::process::{Program, Server};
use crate::report::{self, progress};
use crate::roofline::SEGMENT_BYTES;
use crate::size::ByteSize;
use crate::stats::{Spread, percentile};

const TOPIC: &str = "bench";
const TIMES_ONE_WRITER: f64 = 20.0;
const SHARE_OF_OS: f64 = 0.4;
const WARM_UP: Duration = Duration::from_millis(500);
/// Syncs of the disk alone that are timed in each round.
const DISK_SYNCS: usize = 500;
const SYNCS_OF_ONE_WRITER_MAX: f64 = 2.0;

#[derive(clap::Args)]
pub(crate) struct AckArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Times that each durability runs each shape.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each shape runs.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Size of a batch; each request carries one.
    #[arg(long, default_value = "4KiB")]
    batch: ByteSize,
    /// Size of a record's value.
    #[arg(long, default_value = "1KiB")]
    value: ByteSize,
}

#[derive(Clone, Copy)]
struct Shape {
    connections: u32,
    in_flight: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { connections: 1, in_flight: 1 },
    Shape { connections: 1, in_flight: 5 },
    Shape { connections: 64, in_flight: 1 },
];
const DURABILITIES: [&str; 2] = ["fsync", "os"];

/// What one shape did under one durability, all rounds together.
#[derive(Default)]
struct Acks {
    per_second: Vec<f64>,
    latencies: Vec<Duration>,
}

/// Runs every shape and returns the table with its verdicts.
pub(crate) fn run(args: &AckArgs) -> Result<String> {
    let binary = args.server.binary()?;
    let batch = Batch::build(args.batch.0 as usize, args.value.0 as usize)?;
    let machine = report::machine();
    let mut measured: [[Acks; SHAPES.len()]; DURABILITIES.len()] = Default::default();
    let mut disk = Vec::new();
    for round in 0..args.rounds {
        disk.extend(time_disk(&args.server.data_root(), &batch.bytes)?);
        for (durability, acks) in DURABILITIES.into_iter().zip(&mut measured) {
            let program = Program::Broker { binary: &binary, durability };
            let server = Server::start(program, &args.server.data_root())?;
            Connection::open(server.address)?.create_topic(TOPIC, 1, SEGMENT_BYTES)?;
            for (shape, acks) in SHAPES.into_iter().zip(acks) {
                let place = shape.place(&server);
                load::produce(place, shape.in_flight, &batch, Until::Elapsed(WARM_UP))?;
                let until = Until::Elapsed(Duration::from_secs(args.seconds));
                let outcome = load::produce(place, shape.in_flight, &batch, until)?;
                let rate = outcome.requests_per_second();
                progress(format_args!(
                    "round {}: {durability} {}: {rate:.0} acks/s",
                    round + 1,
                    shape.name()
                ));
                acks.add(outcome);
            }
        }
    }
    disk.sort();
    let [fsync, os] = measured.map(|acks| acks.map(Acks::summary));
    let disk = disk_note(percentile(&disk, 50), fsync[0].and_then(|summary| summary.p50));
    let rows = rows(fsync, os);
    let header =
        ["in flight", "fsync acks/s", "p50", "p99", "os acks/s", "p50", "p99", "to 1 x 1", "to os", "holds"];
    let note = format!("{machine}; {} rounds of {} s, batches of {}", args.rounds, args.seconds, args.batch);
    Ok(format!("{}\n\n{disk}\n\n{note}; rates are median [min..max]", report::table(header, rows)))
}

/// What appending `bytes` to a file and making them durable takes, again and again.
fn time_disk(root: &Path, bytes: &[u8]) -> Result<Vec<Duration>> {
    std::fs::create_dir_all(root).with_context(|| format!("create {}", root.display()))?;
    let mut file = tempfile::tempfile_in(root).context("create a file on the disk to be measured")?;
    let mut once = || {
        let began = Instant::now();
        file.write_all(bytes)?;
        file.sync_data()?;
        Ok(began.elapsed())
    };
    (0..DISK_SYNCS).map(|_| once()).collect()
}

fn disk_note(sync: Option<Duration>, one_writer: Option<Duration>) -> String {
    let (Some(sync), Some(one_writer)) = (sync, one_writer) else { return String::new() };
    let times = one_writer.as_secs_f64() / sync.as_secs_f64();
    let holds = if times <= SYNCS_OF_ONE_WRITER_MAX { "yes" } else { "no" };
    format!(
        "the disk alone syncs such a batch in {} (p50); one writer's acknowledgement takes {times:.2} of that, at most \
         {SYNCS_OF_ONE_WRITER_MAX} are wanted: {holds}",
        report::microseconds(Some(sync))
    )
}

impl Shape {
    fn name(self) -> String {
        format!("{} x {}", self.connections, self.in_flight)
    }

    fn place(self, server: &Server) -> Place<'_> {
        Place { address: server.address, topic: TOPIC, partitions: 1, connections: self.connections }
    }
}

#[derive(Clone, Copy)]
struct Summary {
    rate: Spread,
    p50: Option<Duration>,
    p99: Option<Duration>,
}

impl Acks {
    fn add(&mut self, outcome: Outcome) {
        self.per_second.push(outcome.requests_per_second());
        self.latencies.extend(outcome.latencies);
    }

    fn summary(mut self) -> Option<Summary> {
        self.latencies.sort();
        let (p50, p99) = (percentile(&self.latencies, 50), percentile(&self.latencies, 99));
        Some(Summary { rate: Spread::of(self.per_second)?, p50, p99 })
    }
}

fn rows(fsync: [Option<Summary>; 3], os: [Option<Summary>; 3]) -> Vec<[String; 10]> {
    let one_writer = fsync[0];
    let row = |((shape, fsync), os): ((Shape, Option<Summary>), Option<Summary>)| {
        let (one_writer, fsync, os) = (one_writer?, fsync?, os?);
        let to_one = fsync.rate.median / one_writer.rate.median;
        let to_os = fsync.rate.median / os.rate.median;
        Some([
            shape.name(),
            format!("{:.0}", fsync.rate),
            report::microseconds(fsync.p50),
            report::microseconds(fsync.p99),
            format!("{:.0}", os.rate),
            report::microseconds(os.p50),
            report::microseconds(os.p99),
            format!("{to_one:.1}"),
            format!("{:.0} %", to_os * 100.0),
            verdict(shape, to_one, to_os).to_owned(),
        ])
    };
    SHAPES.into_iter().zip(fsync).zip(os).filter_map(row).collect()
}

fn verdict(shape: Shape, to_one: f64, to_os: f64) -> &'static str {
    let has_company = shape.connections > 1 || shape.in_flight > 1;
    match (has_company, to_one >= TIMES_ONE_WRITER || to_os >= SHARE_OF_OS) {
        (false, _) => "-",
        (true, true) => "yes",
        (true, false) => "no",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_twenty_times_one_writer_or_two_fifths_of_os_holds() {
        let [alone, pipelining, many] = SHAPES;

        assert_eq!(verdict(alone, 1.0, 0.9), "-");
        assert_eq!(verdict(pipelining, 4.0, 0.41), "yes");
        assert_eq!(verdict(pipelining, 4.0, 0.39), "no");
        assert_eq!(verdict(many, 20.0, 0.1), "yes");
    }

    #[test]
    fn one_writer_may_cost_two_syncs_of_the_disk() {
        let note = |sync, ack| disk_note(Some(Duration::from_micros(sync)), Some(Duration::from_micros(ack)));

        assert!(note(200, 400).ends_with("takes 2.00 of that, at most 2 are wanted: yes"));
        assert!(note(200, 410).ends_with("2.05 of that, at most 2 are wanted: no"));
    }

    #[test]
    fn a_row_compares_with_one_writer_and_with_os() {
        let summary = |rate| {
            Some(Summary {
                rate: Spread::of([rate]).unwrap(),
                p50: Some(Duration::from_micros(900)),
                p99: None,
            })
        };

        let rows = rows([summary(100.0), summary(300.0), summary(2500.0)], [summary(1000.0); 3]);

        assert_eq!(rows[2][0], "64 x 1");
        assert_eq!(rows[2][2..4], ["900 us", "-"]);
        assert_eq!(rows[2][7..], ["25.0", "250 %", "yes"]);
        assert_eq!(rows[1][7..], ["3.0", "30 %", "no"]);
    }
}
