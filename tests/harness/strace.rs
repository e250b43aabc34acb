//! strace, which makes chosen system calls of a broker fail, wait, lie or kill, or only writes them down.
//!
//! The broker stays the direct child (`-D`), so that signals reach it. Calls are counted per thread: `when=3` is the
//! third call of whichever thread gets there first.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};

use super::skip::{Absent, Unavailable};
use super::{toolbox, wait};

/// Whether there is a strace.
pub(crate) fn available() -> Result<(), Unavailable> {
    toolbox::debian("strace", "strace").map(drop)
}

/// Whether strace may take hold of a broker that runs.
pub(crate) fn can_attach() -> Result<(), Unavailable> {
    if !rustix::process::geteuid().is_root() {
        return Err(Absent::Root("attaching strace to a process needs root".to_owned()).into());
    }
    available()
}

/// What a broker is run under whose `calls` (names with commas between) are written down in `trace`, up to its end.
pub(crate) fn recording(calls: &str, trace: &Path) -> Vec<String> {
    let fixed = ["strace", "-D", "-f", "-q", "-y", "-e", "signal=none", "-e"].map(str::to_owned);
    let named = [format!("trace={calls}"), "-o".to_owned(), trace.display().to_string()];
    fixed.into_iter().chain(named).collect()
}

/// Which system calls are tampered with, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tampering<'a> {
    /// Names of calls with commas between.
    pub(crate) calls: &'a str,
    /// `error=EIO:when=3` and the like; see "Tampering" in strace(1).
    pub(crate) injection: &'a str,
    /// If there are any, calls on other files are left alone.
    pub(crate) files: &'a [PathBuf],
    /// Where the calls are written down.
    pub(crate) trace: &'a Path,
}

impl Tampering<'_> {
    /// What a broker is run under.
    pub(crate) fn wrapper(self) -> Vec<String> {
        let mut wrapper = vec!["strace".to_owned(), "-D".to_owned()];
        wrapper.extend(self.arguments());
        wrapper
    }

    /// Takes hold of a broker that runs.
    pub(crate) fn attach(self, pid: u32) -> anyhow::Result<Tracer> {
        let mut command = Command::new("strace");
        command.args(self.arguments()).arg("-p").arg(pid.to_string());
        let mut tracer = Tracer(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?);
        wait::until("strace to take hold", || {
            let has_ended = tracer.0.try_wait()?.is_some();
            ensure!(!has_ended || !is_alive(pid), "strace has ended: {command:?}");
            Ok(has_ended || is_traced(pid))
        })?;
        Ok(tracer)
    }

    fn arguments(self) -> Vec<String> {
        let mut arguments: Vec<String> = ["-f", "-qq", "-y", "-e", "signal=none"].map(str::to_owned).to_vec();
        let Self { calls, injection, files, trace } = self;
        for expression in [format!("trace={calls}"), format!("inject={calls}:{injection}")] {
            arguments.extend(["-e".to_owned(), expression]);
        }
        arguments.extend(files.iter().flat_map(|file| ["-P".to_owned(), file.display().to_string()]));
        arguments.extend(["-o".to_owned(), trace.display().to_string()]);
        arguments
    }
}

/// A strace that has taken hold of a broker. Lets go of it when dropped.
pub(crate) struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        // It is gone already if its broker is. On SIGINT it lets go of a process that it was attached to.
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        }
        let _ = self.0.wait();
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Whether all threads of a process are traced.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|pid| pid.trim() != "0")
    })
}

/// Whether a process that a signal was injected into has come to rest: all its threads are stopped.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The name of the program, in parentheses, may hold anything.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        matches!(state, Some('t' | 'T'))
    })
}
