//! Trials: one fault, as often as `HIGHWATER_TRIALS` says, each with a seed and a directory of its own.

use std::path::Path;

use anyhow::bail;
use tempfile::TempDir;

use super::campaign::Outcome;
use super::setting::{Trials, say, seed};

/// Runs trials of a fault with seeds that follow each other. Every one must find nothing wrong; the first that does
/// leaves its data directory, the logs of its clients and of its broker, and its seed.
pub(crate) fn run_trials(
    name: &str,
    trials: Trials,
    body: impl Fn(&Path, u64) -> anyhow::Result<Outcome>,
) -> anyhow::Result<()> {
    let (first, count) = (seed()?, trials.count()?);
    for trial in 0..count {
        let seed = first.wrapping_add(trial);
        let outcome = run_trial(name, seed, &body)?;
        say(&format!("{name}, trial {} of {count}, seed {seed}: {outcome}", trial + 1));
    }
    Ok(())
}

fn run_trial(
    name: &str,
    seed: u64,
    body: impl Fn(&Path, u64) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let directory = TempDir::with_prefix("highwater-trial-")?;
    let failure = match body(&directory.path().canonicalize()?, seed) {
        Ok(outcome) if outcome.is_clean() => return Ok(outcome),
        Ok(outcome) => outcome.to_string(),
        Err(error) => format!("{error:#}"),
    };
    let kept = directory.keep();
    bail!(
        "{name} with HIGHWATER_SEED={seed}: {failure}; data, broker's log and clients' log are kept in {}",
        kept.display()
    )
}

/// Runs trials of a control: a fault under which the promises cannot hold. At least nine of ten must be caught.
pub(crate) fn run_controls(
    name: &str,
    trials: Trials,
    body: impl Fn(&Path, u64) -> anyhow::Result<Outcome>,
    is_caught: impl Fn(&Outcome) -> bool,
) -> anyhow::Result<()> {
    let (first, count) = (seed()?, trials.count()?);
    let mut missed = Vec::new();
    for trial in 0..count {
        let seed = first.wrapping_add(trial);
        let directory = tempfile::tempdir()?;
        let outcome = body(&directory.path().canonicalize()?, seed)?;
        let caught = if is_caught(&outcome) { "caught" } else { "missed" };
        say(&format!("control: {name}, trial {} of {count}, seed {seed}: {caught}: {outcome}", trial + 1));
        if !is_caught(&outcome) {
            missed.push(seed);
        }
    }
    if missed.len() as u64 > count / 10 {
        bail!("control: {name}: the check has missed {} of {count}, with seeds {missed:?}", missed.len());
    }
    Ok(())
}
