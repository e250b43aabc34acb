//! What must be green before a change is taken: the same steps here and on the build service.
//!
//! The steps run in order and the first failure ends the run; its output is the answer. The last lines of a run
//! name the tests that this machine could not run.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::skips::Skips;
use crate::tidy;

/// The cargo commands that come before the tidy test: quick, and they say why.
const BEFORE_TIDY: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
];

/// The test command. Tests that take more than a few seconds are marked as ignored, and run here.
const TESTS: &[&[&str]] = &[&["test", "--workspace", "--locked", "--", "--include-ignored"]];

/// Runs every step in the workspace at `root`.
pub(crate) fn run(root: &Path) -> Result<()> {
    for arguments in BEFORE_TIDY {
        cargo(root, arguments)?;
    }
    announce("tidy")?;
    tidy::check(root)?;
    let skips = Skips::start(root)?;
    for arguments in TESTS {
        cargo(root, arguments)?;
    }
    skips.finish()
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    let shown = format!("cargo {}", arguments.join(" "));
    announce(&shown)?;
    // Cargo names itself to the programs that it runs, so the same toolchain does every step.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .status()
        .with_context(|| format!("start {shown}"))?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

fn announce(step: &str) -> Result<()> {
    writeln!(io::stdout(), "== {step}").context("write to stdout")
}
