//! How long an empty broker takes to be ready, and what it holds in memory when nobody talks to it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::ServerArgs;
use crate::crowded;
use crate::process::{Program, Server, let_time_pass, resident_kib};
use crate::report;
use crate::size::ByteSize;
use crate::stats::Spread;

/// After this the memory of a start is settled.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
const READY_MS_MAX: f64 = 50.0;
const RESIDENT_MIB_MAX: f64 = 32.0;

#[derive(clap::Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// How often the broker is started.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Starts and stops with so many partitions instead, each with one small segment.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// With --partitions: how much is appended before each kill -9 besides one batch for each partition.
    #[arg(long, default_value = "0MiB")]
    tail: ByteSize,
}

/// Starts the broker again and again and returns what was seen.
pub(crate) fn run(args: &StartArgs) -> Result<String> {
    if let Some(partitions) = args.partitions {
        return crowded::run(&args.server, partitions, args.rounds, args.tail);
    }
    let binary = args.server.binary()?;
    let machine = report::machine();
    let (mut ready_ms, mut resident_mib) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let program = Program::Broker { binary: &binary, durability: "fsync" };
        let server = Server::start(program, &args.server.data_root())?;
        ready_ms.push(server.ready_after.as_secs_f64() * 1e3);
        let_time_pass(SETTLED_AFTER);
        resident_mib.push(resident_kib(server.pid())? as f64 / 1024.0);
    }
    let row = |what: &str, values: Vec<f64>, max: f64| {
        let spread = Spread::of(values).context("at least one round is needed")?;
        let holds = if spread.median <= max { "yes" } else { "no" };
        Ok([what.to_owned(), format!("{spread:.1}"), format!("<= {max}"), holds.to_owned()])
    };
    let rows: Result<Vec<_>> = [
        row("process start to ready line, ms", ready_ms, READY_MS_MAX),
        row("idle resident memory, MiB", resident_mib, RESIDENT_MIB_MAX),
    ]
    .into_iter()
    .collect();
    let table = report::table(["what", "median [min..max]", "target", "holds"], rows?);
    Ok(format!("{table}\n\n{machine}; {} starts", args.rounds))
}
