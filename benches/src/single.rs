//! One load on a server that is running already.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::batch::Batch;
use crate::connection::Connection;
use crate::load::{self, Outcome, Place, Until};
use crate::process;
use crate::report;
use crate::roofline::SEGMENT_BYTES;
use crate::size::ByteSize;
use crate::stats::percentile;

#[derive(clap::Args)]
struct PlaceArgs {
    /// Server to drive.
    #[arg(long, default_value = "127.0.0.1:9092")]
    server: SocketAddr,
    /// Topic; made if absent.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// Partitions, shared by the connections in turn.
    #[arg(long, default_value_t = 1)]
    partitions: u32,
    /// Connections, a thread each.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// How much to move in all.
    #[arg(long, default_value = "1GiB")]
    bytes: ByteSize,
    /// The server's process on this machine: its CPU per GiB is printed too.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(clap::Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Unanswered requests on each connection.
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// Size of a batch; each request carries one.
    #[arg(long, default_value = "64KiB")]
    batch: ByteSize,
    /// Size of a record's value.
    #[arg(long, default_value = "1KiB")]
    value: ByteSize,
}

#[derive(clap::Args)]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// What a fetch may bring at most.
    #[arg(long, default_value = "1MiB")]
    fetch: ByteSize,
}

/// Produces and says how it went.
pub(crate) fn produce(args: &ProduceArgs) -> Result<String> {
    let batch = Batch::build(args.batch.0 as usize, args.value.0 as usize)?;
    args.place.with_topic(|place, until| load::produce(place, args.in_flight, &batch, until))
}

/// Consumes and says how it went.
pub(crate) fn consume(args: &ConsumeArgs) -> Result<String> {
    let max_bytes = i32::try_from(args.fetch.0).context("--fetch must fit in 31 bits")?;
    args.place.with_topic(|place, until| load::consume(place, max_bytes, until))
}

impl PlaceArgs {
    fn with_topic(&self, load: impl FnOnce(Place<'_>, Until) -> Result<Outcome>) -> Result<String> {
        let partitions = i32::try_from(self.partitions).context("--partitions must fit in 31 bits")?;
        Connection::open(self.server)?.create_topic(&self.topic, partitions, SEGMENT_BYTES)?;
        let place = Place {
            address: self.server,
            topic: &self.topic,
            partitions: self.partitions,
            connections: self.connections,
        };
        let before = self.pid.map(process::cpu_seconds).transpose()?;
        let outcome = load(place, Until::Bytes(self.bytes.0))?;
        let after = self.pid.map(process::cpu_seconds).transpose()?;
        let gib = outcome.bytes as f64 / f64::from(1 << 30);
        let cpu = before.zip(after).map(|(before, after)| (after - before) / gib);
        Ok(describe(&outcome, cpu))
    }
}

fn describe(outcome: &Outcome, cpu: Option<f64>) -> String {
    let header = ["MiB/s", "requests/s", "p50", "p99", "server CPU s/GiB"];
    let latency = |percent| report::microseconds(percentile(&outcome.latencies, percent));
    let row = [
        format!("{:.0}", outcome.mib_per_second()),
        format!("{:.0}", outcome.requests_per_second()),
        latency(50),
        latency(99),
        cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.3}")),
    ];
    report::table(header, [row])
}
