//! A driver that runs beside the test: what it prints is kept with the time at which it came.
//!
//! It does not know what the lines mean.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

/// A line and when it was read.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// When.
    pub(crate) at: Instant,
    /// What.
    pub(crate) line: Value,
}

/// A running driver. Killed when dropped.
pub(crate) struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Mutex<Vec<Said>>>,
    reader: Option<JoinHandle<()>>,
    /// A file, so that a talkative client never waits for a reader.
    stderr: File,
}

impl Talk {
    /// Starts `command`, whose watchdog leads a process group of its own.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let stderr = tempfile::tempfile()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let reader = thread::spawn(move || {
            // A line that a kill cut off is no line.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let at = Instant::now();
                if let Ok(line) = serde_json::from_str(&line) {
                    lock(&heard).push(Said { at, line });
                }
            }
        });
        Ok(Self { child, stdin, said, reader: Some(reader), stderr })
    }

    /// What it has said after its first `heard` lines.
    pub(crate) fn said_since(&self, heard: usize) -> Vec<Said> {
        lock(&self.said).get(heard..).unwrap_or_default().to_vec()
    }

    /// Fails if it has ended. By then everything that it printed is heard.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            let status = self.wait()?;
            let errors = self.errors()?;
            anyhow::bail!("the driver ended early with {status}:\n{errors}");
        }
        Ok(())
    }

    /// kill -9 to the driver and its watchdog; returns when it was sent. Everything printed before is heard.
    pub(crate) fn kill(&mut self) -> anyhow::Result<Instant> {
        kill_process_group(Pid::from_child(&self.child), Signal::KILL)?;
        let at = Instant::now();
        self.wait()?;
        Ok(at)
    }

    /// Ends its standard input, and waits for a good end.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        self.stdin = None;
        let status = self.wait()?;
        let errors = self.errors()?;
        ensure!(status.success(), "the driver ended with {status}:\n{errors}");
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| anyhow::anyhow!("the reader of a driver panicked"))?;
        }
        Ok(status)
    }

    fn errors(&mut self) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        self.stderr.rewind()?;
        self.stderr.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // A process that was waited for is left alone: its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn lock(said: &Mutex<Vec<Said>>) -> MutexGuard<'_, Vec<Said>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}
