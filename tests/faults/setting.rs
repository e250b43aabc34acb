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

/// How many trials of something, or how much of it: for a change, for a night, for a release.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trials {
    pub(crate) pr: u64,
    pub(crate) nightly: u64,
    pub(crate) release: u64,
}

impl Trials {
    /// The number that `HIGHWATER_TRIALS` asks for: `pr`, which is the default, `nightly`, `release`, or a number.
    pub(crate) fn count(self) -> anyhow::Result<u64> {
        match std::env::var("HIGHWATER_TRIALS") {
            Ok(text) => self.named(&text),
            Err(_) => Ok(self.pr),
        }
    }

    /// How much of something a trial has: as [`Trials::count`], but a number of trials leaves every one as it is for a
    /// change.
    pub(crate) fn amount(self) -> anyhow::Result<u64> {
        match std::env::var("HIGHWATER_TRIALS") {
            Ok(text) if text.parse::<u64>().is_err() => self.named(&text),
            _ => Ok(self.pr),
        }
    }

    fn named(self, name: &str) -> anyhow::Result<u64> {
        match name {
            "pr" => Ok(self.pr),
            "nightly" => Ok(self.nightly),
            "release" => Ok(self.release),
            number => number.parse().with_context(|| {
                format!("HIGHWATER_TRIALS is {name:?}, it must be pr, nightly, release or a number")
            }),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_are_named_or_counted() {
        let trials = Trials { pr: 1, nightly: 20, release: 300 };

        let counted = ["pr", "nightly", "release", "7"].map(|name| trials.named(name).ok());

        assert_eq!(counted, [Some(1), Some(20), Some(300), Some(7)]);
        assert!(trials.named("many").is_err_and(|error| error.to_string().contains("nightly")));
    }
}
