//! How much the fault tests do: counts and seeds from the environment.

use std::process::Command;

use anyhow::{Context as _, bail};

/// The number in this environment variable, or `default`.
pub(crate) fn count(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is {text:?}, it must be a number")),
        Err(_) => Ok(default),
    }
}

/// The seed in `HIGHWATER_SEED`, or a new one.
pub(crate) fn seed() -> anyhow::Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    count("HIGHWATER_SEED", u64::from(since.subsec_nanos()))
}

/// Says something on stdout, for those who run with `--nocapture`.
#[expect(clippy::print_stdout, reason = "campaigns print their seeds and what they found")]
pub(crate) fn say(sentence: &str) {
    println!("{sentence}");
}

/// Whether this process may mount, and install packages.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a command to its end; its output if it succeeds.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {arguments:?} ended with {}: {stderr}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
