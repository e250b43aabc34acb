//! A server under test: its own process, so that its CPU and memory are read from outside, and its own data.
//!
//! Linux only: figures come from `/proc`. CPU time has the resolution of a clock tick (10 ms), of which a run of
//! seconds has hundreds.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::kafka;

/// A server that is not ready by then has failed.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How Java ends when it was asked to and has tidied up.
const JAVA_TERMINATED: i32 = 143;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program<'a> {
    /// This binary as the smallest possible server.
    Roofline,
    /// A Highwater broker with its durability setting.
    Broker { binary: &'a Path, durability: &'a str },
    /// Apache Kafka from its jars, as durable as that setting of ours.
    Kafka { jars: &'a Path, durability: &'a str },
}

/// A running server. Dropping it kills the process and, unless they outlive it, removes its data.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From before the process was started to its ready line, or to its first connection if it prints none.
    pub(crate) ready_after: Duration,
    /// Held for its removal after the process is gone.
    _data: Option<TempDir>,
}

impl Server {
    /// Starts `program` on an empty directory below `data_root` and a free port.
    pub(crate) fn start(program: Program<'_>, data_root: &Path) -> Result<Self> {
        fs::create_dir_all(data_root).with_context(|| format!("create {}", data_root.display()))?;
        let data = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(data_root)
            .context("create a data directory")?;
        let mut server = Self::start_on(program, data.path())?;
        server._data = Some(data);
        Ok(server)
    }

    /// Starts `program` on what is in `home`, which outlives it, and a free port.
    pub(crate) fn start_on(program: Program<'_>, home: &Path) -> Result<Self> {
        let log = home.join("stderr.log");
        let (mut command, listens_on) = program.command(home)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&log).context("create a file for the server's log")?);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {:?}", command.get_program()))?;
        let lines = child.stdout.take().context("the server's stdout").map(out_lines);
        let ready = match listens_on {
            None => lines.and_then(|lines| wait_for_ready(&lines)),
            Some(address) => wait_for_listener(&mut child, address),
        };
        let ready_after = started.elapsed();
        match ready {
            Ok(address) => Ok(Self { child, address, ready_after, _data: None }),
            Err(error) => {
                end(&mut child);
                let log = fs::read_to_string(&log).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(5).collect();
                if last.is_empty() {
                    return Err(error);
                }
                bail!("{error:#}; its last words, newest first:\n{}", last.join("\n"))
            }
        }
    }

    /// The process, for figures.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Server {
    /// Asks the server to stop and waits until it is gone; how long that took.
    pub(crate) fn stop(mut self) -> Result<Duration> {
        let began = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait().context("wait for the server to stop")?;
        ensure!(
            status.success() || status.code() == Some(JAVA_TERMINATED),
            "the server stopped with {status}"
        );
        Ok(began.elapsed())
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        end(&mut self.child);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Its data is thrown away, so the server need not stop gracefully.
fn end(child: &mut Child) {
    // Both fail only if the process is gone already, which is what is wanted.
    drop(child.kill());
    drop(child.wait());
}

impl Program<'_> {
    /// How it is started on what is in `home`, and where it will listen if it does not say so itself.
    fn command(self, home: &Path) -> Result<(Command, Option<SocketAddr>)> {
        let mut command = match self {
            Self::Roofline => {
                let mut command = Command::new(std::env::current_exe().context("find this binary")?);
                command.arg("roofline");
                command
            }
            Self::Broker { binary, durability } => {
                let mut command = Command::new(binary);
                command.args(["serve", "--durability", durability]);
                command
            }
            Self::Kafka { jars, durability } => {
                let (command, address) = kafka::command(jars, durability, home)?;
                return Ok((command, Some(address)));
            }
        };
        command.arg("--data").arg(home.join("data")).args(["--listen", "127.0.0.1:0"]);
        Ok((command, None))
    }

    /// What tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Roofline => "roofline",
            Self::Broker { .. } => "highwater",
            Self::Kafka { .. } => "kafka",
        }
    }
}

/// The broker's binary: what the caller says, else the release build of this workspace.
pub(crate) fn broker_binary(given: Option<PathBuf>) -> Result<PathBuf> {
    let binary = given.unwrap_or_else(|| workspace_target().join("release").join("highwater"));
    ensure!(
        binary.is_file(),
        "there is no broker at {}: build it with `cargo build --release`, or name one with --broker",
        binary.display()
    );
    Ok(binary)
}

/// Where build output goes, and the benches' data unless the caller says otherwise: the disk of the checkout, since a
/// temporary directory may be memory.
pub(crate) fn workspace_target() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target"))
}

/// The lines of `out`, read to the end by a thread of its own so that the server never blocks on a full pipe.
fn out_lines(out: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            // Nobody listens after the first line; the pipe must still be emptied.
            drop(sender.send(line));
        }
    });
    lines
}

/// Asks every few milliseconds, which is nothing beside the seconds that such a server takes.
fn wait_for_listener(child: &mut Child, address: SocketAddr) -> Result<SocketAddr> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait().context("ask whether the server still runs")? {
            bail!("the server ended before it was ready: {status}");
        }
        ensure!(began.elapsed() < READY_WITHIN, "the server was not ready within {READY_WITHIN:?}");
        let_time_pass(Duration::from_millis(2));
    }
    Ok(address)
}

/// For what has no condition to wait on but time itself: a server left alone, one that tells nobody when it is ready.
#[expect(clippy::disallowed_methods, reason = "there is nothing to wait for but time")]
pub(crate) fn let_time_pass(time: Duration) {
    thread::sleep(time);
}

fn wait_for_ready(lines: &Receiver<String>) -> Result<SocketAddr> {
    let line = lines.recv_timeout(READY_WITHIN).map_err(|error| match error {
        RecvTimeoutError::Timeout => anyhow!("the server was not ready within {READY_WITHIN:?}"),
        RecvTimeoutError::Disconnected => anyhow!("the server ended before it was ready"),
    })?;
    ready_address(&line).with_context(|| format!("the server's first line is no ready line: {line}"))
}

/// The address in `<name> <version> ready on <host:port> ...`.
fn ready_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(" ready on ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// User and system CPU of a process so far, threads that have ended included, in ticks.
pub(crate) fn cpu_ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_cpu_ticks(&stat).with_context(|| format!("understand {path}"))
}

/// The same in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    Ok(cpu_ticks(pid)? as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Fields 14 and 15 of proc(5). The name in field 2 may hold spaces and brackets, so counting starts behind it.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory of a process in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    memory_kib(pid, "VmRSS:")
}

/// The most resident memory that a process has had, in KiB.
pub(crate) fn peak_resident_kib(pid: u32) -> Result<u64> {
    memory_kib(pid, "VmHWM:")
}

fn memory_kib(pid: u32, field: &'static str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("find {field}"))?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| format!("read {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_the_address() {
        let line = "highwater 0.1.0 ready on 127.0.0.1:45123 data=/a/b in 12 ms";

        assert_eq!(ready_address(line), "127.0.0.1:45123".parse().ok());
        assert_eq!(ready_address("error: port in use"), None);
    }

    #[test]
    fn cpu_ticks_are_user_and_system_whatever_the_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 300 70 0 0";

        assert_eq!(parse_cpu_ticks(stat), Some(370));
    }

    #[test]
    fn this_process_has_memory_and_a_cpu_clock() {
        let pid = std::process::id();

        assert!(resident_kib(pid).unwrap() > 100);
        assert!(cpu_seconds(pid).is_ok());
    }

    #[test]
    fn a_server_that_ends_at_once_gets_a_sentence() {
        let data = tempfile::tempdir().unwrap();
        let program = Program::Broker { binary: Path::new("/bin/false"), durability: "os" };

        let Err(error) = Server::start(program, data.path()) else { panic!("it cannot be ready") };

        assert_eq!(error.to_string(), "the server ended before it was ready");
    }

    #[test]
    fn a_missing_broker_gets_a_sentence() {
        let error = broker_binary(Some(PathBuf::from("no/such/highwater"))).unwrap_err().to_string();

        assert!(error.contains("cargo build --release"), "{error}");
    }
}
