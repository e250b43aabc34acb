//! The `highwater` binary.

mod serve;

use std::process::ExitCode;

use clap::Parser;

/// A Kafka-style log streaming platform in one binary.
#[derive(Parser)]
#[command(name = "highwater", version)]
enum Command {
    /// Run a broker.
    Serve(serve::ServeArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Serve(args) => serve::run(args),
    }
}
