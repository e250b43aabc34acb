//! Load generator, roofline and the benches of the whole, in one binary: `highwater-benches --help`.
//!
//! Every server under test is a process of its own on this machine, and its CPU is read from outside. Nothing here
//! knows the broker's code: it is driven through its command line and the Kafka protocol.

mod ack;
mod batch;
mod compare;
mod connection;
mod crowded;
mod frame;
mod kafka;
mod load;
mod longpoll;
mod process;
mod report;
mod rival;
mod roofline;
mod segment;
mod single;
mod size;
mod start;
mod stats;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use process::{broker_binary, workspace_target};

/// Load generator, roofline and end-to-end benches of Highwater.
#[derive(Parser)]
#[command(name = "highwater-benches")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the smallest possible server: receive, CRC, write, and sendfile.
    Roofline {
        /// Where segments go; made if absent.
        #[arg(long)]
        data: PathBuf,
        /// Address to listen on; port 0 picks a free one.
        #[arg(long, default_value = "127.0.0.1:9099")]
        listen: SocketAddr,
    },
    /// Produce to a running server.
    Produce(single::ProduceArgs),
    /// Consume from a running server what was produced before.
    Consume(single::ConsumeArgs),
    /// Roofline and broker in turns: MiB/s and server CPU per GiB, produce and consume, 64 KiB and 1 MiB.
    Compare(compare::CompareArgs),
    /// Acknowledgements per second under `fsync` and `os`: 1 x 1, 1 x 5 and 64 x 1 in flight.
    Ack(ack::AckArgs),
    /// What a parked fetch costs, and how soon a record wakes it.
    Longpoll(longpoll::LongpollArgs),
    /// Apache Kafka and broker in turns: throughput, CPU, latency, memory, start.
    Rival(rival::RivalArgs),
    /// The offline tools: GB/s per core, latency of a seek, peak memory.
    Segment(segment::SegmentArgs),
    /// Time from start to the ready line, and idle memory.
    Start(start::StartArgs),
}

/// Which broker, and where its data goes. Shared by the benches that start servers.
#[derive(clap::Args)]
struct ServerArgs {
    /// The broker's binary. Default: `target/release/highwater` of this workspace.
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Below which folder each run's data goes, on the disk to be measured. Default: `target/benches`.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl ServerArgs {
    fn binary(&self) -> Result<PathBuf> {
        broker_binary(self.broker.clone())
    }

    fn data_root(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| workspace_target().join("benches"))
    }
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If even standard error is gone, the exit code still tells.
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let text = match command {
        Command::Roofline { data, listen } => return roofline::run(listen, &data),
        Command::Produce(args) => single::produce(&args)?,
        Command::Consume(args) => single::consume(&args)?,
        Command::Compare(args) => compare::run(&args)?,
        Command::Ack(args) => ack::run(&args)?,
        Command::Longpoll(args) => longpoll::run(&args)?,
        Command::Rival(args) => rival::run(&args)?,
        Command::Segment(args) => segment::run(&args)?,
        Command::Start(args) => start::run(&args)?,
    };
    writeln!(io::stdout(), "{text}").context("write to stdout")
}
