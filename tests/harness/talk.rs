//! A driver that runs beside the test: what it prints is kept with the time at which it came.
//!
//! It does not know what the lines mean. Only the last one may be no JSON, and only if a kill cut it off.

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

/// What was read so far.
#[derive(Default)]
struct Heard {
    said: Vec<Said>,
    /// The first line that is no JSON.
    garbled: Option<String>,
}

/// A running driver. Killed when dropped.
pub(crate) struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
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
        let heard = Arc::new(Mutex::new(Heard::default()));
        let reader = thread::spawn({
            let heard = Arc::clone(&heard);
            move || hear(BufReader::new(stdout), &heard)
        });
        Ok(Self { child, stdin, heard, reader: Some(reader), stderr })
    }

    /// What it has said after its first `heard` lines.
    pub(crate) fn said_since(&self, heard: usize) -> Vec<Said> {
        lock(&self.heard).said.get(heard..).unwrap_or_default().to_vec()
    }

    /// Fails if it has ended, or has said what is no JSON. When it has ended, everything that it printed is heard.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            let status = self.wait()?;
            let errors = self.errors()?;
            anyhow::bail!("the driver ended early with {status}:\n{errors}");
        }
        self.check_garbled()
    }

    /// kill -9 to the driver and its watchdog; returns when it was sent. Everything printed before is heard.
    pub(crate) fn kill(&mut self) -> anyhow::Result<Instant> {
        kill_process_group(Pid::from_child(&self.child), Signal::KILL)?;
        let at = Instant::now();
        self.wait()?;
        // A kill cuts off a line before its end.
        lock(&self.heard).garbled.take_if(|line| !line.ends_with('\n'));
        self.check_garbled()?;
        Ok(at)
    }

    /// Ends its standard input, and waits for a good end.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        self.stdin = None;
        let status = self.wait()?;
        let errors = self.errors()?;
        ensure!(status.success(), "the driver ended with {status}:\n{errors}");
        self.check_garbled()
    }

    fn check_garbled(&self) -> anyhow::Result<()> {
        let garbled = &lock(&self.heard).garbled;
        ensure!(garbled.is_none(), "the driver prints JSON, not {garbled:?}");
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

/// Reads lines until there are no more.
fn hear(mut lines: impl BufRead, heard: &Mutex<Heard>) {
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|read_bytes| read_bytes > 0) {
        let at = Instant::now();
        let mut heard = lock(heard);
        match serde_json::from_slice(&line) {
            Ok(line) => heard.said.push(Said { at, line }),
            Err(_) if heard.garbled.is_none() => {
                heard.garbled = Some(String::from_utf8_lossy(&line).into_owned());
            }
            Err(_) => {}
        }
        line.clear();
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lines of a driver's output are heard, and what of it is garbled.
    fn heard(output: &str) -> (usize, Option<String>) {
        let heard = Mutex::new(Heard::default());
        hear(output.as_bytes(), &heard);
        let heard = heard.into_inner().unwrap();
        (heard.said.len(), heard.garbled)
    }

    #[test]
    fn a_line_that_is_no_json_is_kept_as_it_came() {
        assert_eq!(heard("{}\n{}\n"), (2, None));
        assert_eq!(heard("{}\nwarning\n{}\n{\"offs"), (2, Some("warning\n".to_owned())));
        assert_eq!(heard("{}\n{\"offs"), (1, Some("{\"offs".to_owned())));
    }
}
