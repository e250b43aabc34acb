//! Apache Kafka's `kafka-dump-log` on our files.
//!
//! It ends with 0 on most of what it finds, so that its verdict is in what it prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::clients::run;
use super::skip::Unavailable;
use super::toolbox;

/// What it prints of a file that is not as it should be (`DumpLogSegments.scala`, Kafka 4.1).
const COMPLAINTS: &[&str] = &[
    "Mismatches in",
    "Non-consecutive offsets in",
    "timestamp mismatch",
    "out of order timestamp",
    "are not found in the log",
    "invalid bytes at the end",
    "isvalid: false",
    "Exception",
];

/// What it printed.
pub(crate) struct Dump {
    output: String,
}

impl Dump {
    /// The lines that complain.
    pub(crate) fn complaints(&self) -> Vec<&str> {
        self.output
            .lines()
            .filter(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))
            .collect()
    }

    /// How many records it printed.
    pub(crate) fn records(&self) -> usize {
        self.output.lines().filter(|line| line.starts_with("| offset: ")).count()
    }

    /// How many indexes it found sane, or empty and with nothing to check.
    pub(crate) fn sane_indexes(&self) -> usize {
        self.output.matches("passed sanity check").count() + self.output.matches(" is empty.").count()
    }
}

/// Installs it, if it is not there.
pub(crate) fn install() -> Result<(), Unavailable> {
    command().map(drop)
}

/// Dumps every record, also those within compressed batches, and compares the indexes with them.
pub(crate) fn deep(files: &[PathBuf]) -> anyhow::Result<Dump> {
    dump(&["--deep-iteration", "--print-data-log"], files)
}

/// Checks the indexes on their own.
pub(crate) fn sanity(files: &[PathBuf]) -> anyhow::Result<Dump> {
    dump(&["--index-sanity-check"], files)
}

/// The files in `directory` that end in one of `extensions`, in order.
pub(crate) fn segment_files(directory: &Path, extensions: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.retain(|file| {
        file.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
    });
    files.sort();
    Ok(files)
}

fn dump(arguments: &[&str], files: &[PathBuf]) -> anyhow::Result<Dump> {
    let mut command = command().map_err(|why| anyhow::anyhow!("kafka-dump-log is not there: {why:?}"))?;
    let files: Vec<_> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    command.args(arguments).arg("--files").arg(files.join(","));
    let output = run(command)?;
    Ok(Dump { output: String::from_utf8_lossy(&output).into_owned() })
}

fn command() -> Result<Command, Unavailable> {
    let mut command = Command::new("sh");
    // What it throws is on standard error, and a complaint like the others.
    command
        .args(["-c", "\"$@\" 2>&1 || echo \"Exception: ended with $?\"", "sh"])
        .arg(toolbox::program("timeout")?)
        .arg("180");
    command.arg(toolbox::program("java")?).args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    command.arg("-cp").arg(format!("{}/*", toolbox::jars()?.display())).arg("kafka.tools.DumpLogSegments");
    command.stdin(Stdio::null());
    Ok(command)
}
