//! A directory, a broker whose data is in `data` below it, and a shell that finds both.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::broker::{Broker, Options, binary};
use crate::harness::toolbox;

/// Seconds after which a command line is taken to hang. Nothing that works comes near it.
const PATIENCE: &str = "120";

/// The session.
pub(super) struct Session {
    directory: TempDir,
    pub(super) broker: Broker,
}

/// What a command line did.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Ran {
    /// Its standard output, which must be text.
    pub(super) fn text(&self) -> anyhow::Result<&str> {
        Ok(std::str::from_utf8(&self.stdout)?)
    }
}

impl Session {
    /// With a fresh broker.
    pub(super) fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// With a fresh broker that has further flags.
    pub(super) fn start_with(flags: &[&str]) -> anyhow::Result<Self> {
        let directory = TempDir::new()?;
        let broker = Broker::start(Options::new(&directory.path().join("data")).flags(flags))?;
        Ok(Self { directory, broker })
    }

    /// Where the command lines run.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A program that finds `highwater`, the broker and the files of the session; its stdin is empty.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
        let mut path = OsString::from(binary()?.parent().context("the binary lies in a directory")?);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.current_dir(self.directory()).stdin(Stdio::null()).env("PATH", path);
        command.env("HIGHWATER_BOOTSTRAP", self.broker.bootstrap());
        Ok(command)
    }

    /// Runs a line as the shell does.
    pub(super) fn run(&self, line: &str) -> anyhow::Result<Ran> {
        let mut command =
            self.command(toolbox::program("timeout").map_err(|why| anyhow::anyhow!("{why:?}"))?)?;
        let output = command.args(["--kill-after=5", PATIENCE, "sh", "-c", line]).output()?;
        let stderr = String::from_utf8(output.stderr).context("stderr is text")?;
        Ok(Ran { code: output.status.code(), stdout: output.stdout, stderr })
    }

    /// Runs a line that must succeed.
    pub(super) fn succeeds(&self, line: &str) -> anyhow::Result<Ran> {
        let ran = self.run(line)?;
        ensure!(ran.code == Some(0), "{line}\nended with {:?}:\n{}", ran.code, ran.stderr);
        Ok(ran)
    }

    /// Runs a line that must succeed and print exactly `stdout`.
    pub(super) fn prints(&self, line: &str, stdout: &str) -> anyhow::Result<()> {
        let ran = self.succeeds(line)?;
        ensure!(ran.text()? == stdout, "{line}\nprinted:\n{}\ninstead of:\n{stdout}", ran.text()?);
        Ok(())
    }

    /// Runs a line that must end with `code` and say each of `sentences` on stderr.
    pub(super) fn fails(&self, line: &str, code: i32, sentences: &[&str]) -> anyhow::Result<Ran> {
        let ran = self.run(line)?;
        ensure!(ran.code == Some(code), "{line}\nended with {:?}, not {code}:\n{}", ran.code, ran.stderr);
        for sentence in sentences {
            ensure!(ran.stderr.contains(sentence), "{line}\nsaid nothing of {sentence:?}:\n{}", ran.stderr);
        }
        Ok(ran)
    }

    /// Runs `highwater` with `arguments` while nobody reads its stdout; the exit code.
    pub(super) fn unread(&self, arguments: &str) -> anyhow::Result<Option<i32>> {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = self.command("highwater")?;
        Ok(command.args(arguments.split(' ')).stdout(writer).status()?.code())
    }

    /// Runs a line that must succeed and print rows as one JSON array.
    pub(super) fn rows(&self, line: &str) -> anyhow::Result<Vec<Value>> {
        let ran = self.succeeds(line)?;
        serde_json::from_slice(&ran.stdout).with_context(|| format!("{line}\nprinted:\n{:?}", ran.text()))
    }
}
