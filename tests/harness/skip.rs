//! Tests that cannot run on this machine say so, in a file that the whole run ends with.
//!
//! There are three reasons to skip, and a type for them: no root, no toolchain, no registry. Whatever else goes
//! wrong fails the test. `cargo xtask ci` empties the file before the tests, prints it in its last lines and
//! refuses any other reason.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::thread;

/// Why a test is skipped.
#[derive(Clone, Debug)]
pub(crate) enum Absent {
    /// What only root may do.
    Root(String),
    /// A program that the harness does not install.
    Toolchain(String),
    /// The place where a package comes from.
    Registry(String),
}

impl Absent {
    /// The first column of the file, and the rest.
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Root(what) => ("root", what),
            Self::Toolchain(what) => ("toolchain", what),
            Self::Registry(what) => ("registry", what),
        }
    }
}

/// Why something that a test needs is not there.
#[derive(Clone, Debug)]
pub(crate) enum Unavailable {
    /// A reason to skip.
    Absent(Absent),
    /// A reason to fail.
    Broken(String),
}

impl From<Absent> for Unavailable {
    fn from(absent: Absent) -> Self {
        Self::Absent(absent)
    }
}

/// What the test asked for, or None after writing down that it is skipped.
pub(crate) fn or_skip<T>(wanted: Result<T, Unavailable>) -> anyhow::Result<Option<T>> {
    match wanted {
        Ok(found) => Ok(Some(found)),
        Err(Unavailable::Absent(absent)) => skip(&absent).map(|()| None),
        Err(Unavailable::Broken(why)) => anyhow::bail!(why),
    }
}

/// Writes down that the running test is skipped: a line of reason, test and detail with tabs between.
pub(crate) fn skip(absent: &Absent) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped.tsv");
    let (reason, detail) = absent.parts();
    let current = thread::current();
    let test = current.name().unwrap_or("unnamed");
    let detail = detail.replace(['\t', '\n'], " ");
    let line = format!("{reason}\t{test}\t{detail}\n");
    // One write of a short line in append mode: threads do not mix their lines.
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())?;
    Ok(())
}
