//! Development automation: `cargo xtask ci` is what the build service runs, `cargo xtask tidy` is its quickest part, and
//! `cargo xtask nightly` is what a night is for.
//!
//! It drives cargo and reads the tree. It knows nothing of logs, sockets or Kafka.

mod ci;
mod nightly;
mod skips;
mod tidy;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Development automation for Highwater.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Subcommand)]
enum Command {
    /// Formatting, lints, the tidy test, then every other test.
    Ci,
    /// The house rules that the compiler does not know: layering, one unsafe file, budgets.
    Tidy,
    /// What takes a night or another toolchain: models of memory orders, sanitizers, the fault suite at length.
    Nightly {
        /// What to run: everything if nothing is named.
        parts: Vec<nightly::Part>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes without a backtrace: every violation is its own location. If even standard
            // error is gone, the exit code still tells.
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let root = workspace_root()?;
    match command {
        Command::Ci => ci::run(root),
        Command::Nightly { parts } => nightly::run(root, &parts),
        Command::Tidy => {
            let files = tidy::check(root)?;
            writeln!(io::stdout(), "tidy: {files} files, nothing to say").context("write to stdout")
        }
    }
}

/// The folder of the workspace's manifest, known since this crate was compiled in it.
fn workspace_root() -> Result<&'static Path> {
    let mut ancestors = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    ancestors.nth(2).context("find the workspace above tools/xtask")
}
