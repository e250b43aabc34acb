//! What takes too long for every change, or needs a toolchain that not every machine has: the orders of memory accesses,
//! undefined behaviour, and the fault suite at length.
//!
//! Each part is a few cargo commands. What is compiled in another way has a target directory of its own, so that the
//! ordinary build stays as it is. What the machine lacks is told with the command that installs it, and counts as
//! a failure: a part that was not run has proved nothing. Tests of the fault suite that skip are named at its end. It knows
//! which tests to run and not what they do.
//!
//! Miri sees what needs no disk and no C: batches and all codecs but zstd, the primitives of the wire, frames and some
//! messages, the group machines. That is our safe code and, below it, the unsafe code of the libraries that it calls. It
//! does not see the one file of ours that has `unsafe` (maps of files, which Miri does not have): that is what
//! ThreadSanitizer runs. Tests that take it more than a few seconds are ignored, each with its reason; of the others it
//! tries few cases. A test that comes to C ends the run of its crate there, so that those are ignored too.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::skips::Skips;

/// A part of the run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Part {
    /// Models: every interleaving and every order that memory may take (loom).
    Loom,
    /// Readers, a writer and removal at once on real files and maps (ThreadSanitizer; nightly toolchain).
    Tsan,
    /// The tests of the crates without I/O, interpreted, for undefined behaviour (Miri; nightly toolchain).
    Miri,
    /// The fault suite with the trials of a night, or as many as HIGHWATER_TRIALS says.
    Faults,
}

/// One cargo command.
#[derive(Debug, Eq, PartialEq)]
struct Step {
    /// What of its part it is.
    name: &'static str,
    toolchain: Toolchain,
    variables: Vec<(&'static str, String)>,
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Toolchain {
    /// The one that runs this.
    Ours,
    /// The newest nightly that rustup has, with a component.
    Nightly { component: &'static str },
}

/// How many cases of a property Miri tries: it is some hundred times slower than the machine.
const MIRI_CASES: &str = "2";
/// The crates that have no I/O.
const MIRI_CRATES: [&str; 4] =
    ["highwater-record", "highwater-wire", "highwater-protocol", "highwater-group"];

/// Runs `parts`, or all of them if there is none, in the workspace at `root`. One that fails does not keep the others from
/// being run.
pub(crate) fn run(root: &Path, parts: &[Part]) -> Result<()> {
    let parts = if parts.is_empty() { Part::value_variants() } else { parts };
    let (mut failed, mut report) = (false, String::new());
    for part in parts {
        let name = part.to_possible_value().expect("no part is hidden");
        let skips = (*part == Part::Faults).then(|| Skips::start(root)).transpose()?;
        for step in part.steps() {
            let began = Instant::now();
            let outcome = step.run(root);
            failed |= outcome.is_err();
            let outcome = outcome.map_or_else(|error| format!("{error:#}"), |()| "ok".to_owned());
            let seconds = began.elapsed().as_secs();
            report.push_str(&format!("{} {}: {outcome}, {seconds} s\n", name.get_name(), step.name));
        }
        if let Some(Err(error)) = skips.map(Skips::finish) {
            failed = true;
            report.push_str(&format!("{}: {error:#}\n", name.get_name()));
        }
    }
    io::stdout().write_all(report.as_bytes()).context("write to stdout")?;
    ensure!(!failed, "not every part is ok");
    Ok(())
}

impl Part {
    fn steps(self) -> Vec<Step> {
        match self {
            Self::Loom => vec![Step::new(
                "models",
                Toolchain::Ours,
                vec![("RUSTFLAGS", "--cfg highwater_loom".to_owned())],
                "test --locked --target-dir target/loom -p highwater-storage -p highwater-broker --lib models::",
            )],
            Self::Tsan => vec![Step::new(
                "stress",
                // The standard library is built too: without that its own accesses are not seen, and reported.
                Toolchain::Nightly { component: "rust-src" },
                vec![("RUSTFLAGS", "-Zsanitizer=thread".to_owned()), trials()],
                &format!(
                    "test --locked -Zbuild-std --target {}-unknown-linux-gnu --target-dir target/tsan \
                     -p highwater-storage --lib stress -- --nocapture",
                    env::consts::ARCH
                ),
            )],
            Self::Miri => MIRI_CRATES.map(miri).into(),
            Self::Faults => vec![
                // The log on a disk in memory that fails and forgets, against its model.
                Step::new(
                    "storage",
                    Toolchain::Ours,
                    vec![trials()],
                    "test --locked -p highwater-storage --lib",
                ),
                Step::new(
                    "suite",
                    Toolchain::Ours,
                    vec![trials()],
                    "test --locked -p highwater-tests faults:: -- --include-ignored --nocapture",
                ),
            ],
        }
    }
}

/// The tests of a crate under Miri.
fn miri(name: &'static str) -> Step {
    // Golden files are read from the tree.
    let isolation = ("MIRIFLAGS", "-Zmiri-disable-isolation".to_owned());
    let cases = ("PROPTEST_CASES", MIRI_CASES.to_owned());
    let arguments = format!("miri test --locked -p {name} --no-fail-fast");
    Step::new(name, Toolchain::Nightly { component: "miri" }, vec![isolation, cases], &arguments)
}

/// How many trials there are of each fault.
fn trials() -> (&'static str, String) {
    ("HIGHWATER_TRIALS", env::var("HIGHWATER_TRIALS").unwrap_or_else(|_| "nightly".into()))
}

impl Step {
    fn new(
        name: &'static str,
        toolchain: Toolchain,
        variables: Vec<(&'static str, String)>,
        arguments: &str,
    ) -> Self {
        let arguments = arguments.split_whitespace().map(str::to_owned).collect();
        Self { name, toolchain, variables, arguments }
    }

    fn run(&self, root: &Path) -> Result<()> {
        let mut command = match self.toolchain {
            // Cargo names itself to the programs that it runs.
            Toolchain::Ours => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Toolchain::Nightly { component } => {
                require(component)?;
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
        };
        writeln!(io::stdout(), "== {}", self.shown()).context("write to stdout")?;
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let status = command.current_dir(root).status().with_context(|| format!("start {}", self.shown()))?;
        ensure!(status.success(), "{}: {status}", self.shown());
        Ok(())
    }

    /// The command as somebody would type it.
    fn shown(&self) -> String {
        let mut words: Vec<String> =
            self.variables.iter().map(|(name, value)| format!("{name}='{value}'")).collect();
        words.push(match self.toolchain {
            Toolchain::Ours => "cargo".to_owned(),
            Toolchain::Nightly { .. } => "cargo +nightly".to_owned(),
        });
        words.extend(self.arguments.iter().cloned());
        words.join(" ")
    }
}

/// Asks rustup whether the nightly toolchain has a component.
fn require(component: &str) -> Result<()> {
    let listed =
        Command::new("rustup").args(["component", "list", "--installed", "--toolchain", "nightly"]).output();
    let listed = listed.ok().filter(|listed| listed.status.success());
    match listed.map(|listed| has(&String::from_utf8_lossy(&listed.stdout), component)) {
        Some(true) => Ok(()),
        Some(false) => {
            bail!("not run: rustup component add {component} --toolchain nightly installs what is missing")
        }
        None => bail!(
            "not run: rustup toolchain install nightly --component {component} installs what is missing \
             (rustup itself: https://rustup.rs)"
        ),
    }
}

/// Whether a component is in rustup's list, whose lines may end with a target.
fn has(listed: &str, component: &str) -> bool {
    listed
        .lines()
        .any(|line| line.strip_prefix(component).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_known_with_its_target_and_without() {
        let listed = "cargo-x86_64-unknown-linux-gnu\nmiri-x86_64-unknown-linux-gnu\nrust-src\n";

        assert!(has(listed, "miri") && has(listed, "rust-src"));
        assert!(!has("cargo-x86_64-unknown-linux-gnu\n", "miri"));
    }

    #[test]
    fn a_step_is_shown_as_it_is_typed() {
        let shown = Part::Loom.steps()[0].shown();

        assert!(shown.starts_with("RUSTFLAGS='--cfg highwater_loom' cargo test --locked"), "{shown}");
        let shown = Part::Miri.steps()[0].shown();
        assert!(shown.contains("cargo +nightly miri test"), "{shown}");
    }
}
