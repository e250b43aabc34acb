//! A broker process of its own: started on a free port, killed, cut off or stopped at will.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A running `highwater serve`. Killed when dropped.
pub(crate) struct Broker {
    process: Process,
    address: SocketAddr,
    options: Options,
}

/// How a broker is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Port to listen on; 0 picks a free one.
    pub(crate) port: u16,
    /// Further flags of `highwater serve`.
    pub(crate) flags: Vec<String>,
    /// What the broker is run under, for example `strace -f ...`.
    pub(crate) wrapper: Vec<String>,
    /// Further variables of its environment.
    pub(crate) environment: Vec<(String, String)>,
}

impl Options {
    /// Everything at its default, data in `data`.
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            port: 0,
            flags: Vec::new(),
            wrapper: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With further flags.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Run under something.
    pub(crate) fn under(self, wrapper: Vec<String>) -> Self {
        Self { wrapper, ..self }
    }
}

/// A broker that has been started and has not said yet that it is ready. Killed when dropped.
pub(crate) struct Starting {
    process: Process,
    line: Receiver<std::io::Result<String>>,
    options: Options,
}

impl Starting {
    /// Waits for the ready line.
    pub(crate) fn ready(self) -> anyhow::Result<Broker> {
        let data = self.options.data.clone();
        let started = self.ready_or_ended();
        started.and_then(|broker| broker.context("the broker ended instead of becoming ready")).with_context(
            || format!("its log:\n{}", std::fs::read_to_string(log_path(&data)).unwrap_or_default()),
        )
    }

    /// Waits for the ready line; nothing, if the process ends without it.
    pub(crate) fn ready_or_ended(mut self) -> anyhow::Result<Option<Broker>> {
        let line = self.line.recv_timeout(START_DEADLINE).context("wait for the ready line")??;
        let Some(address) = line.split_whitespace().nth(4).and_then(|word| word.parse().ok()) else {
            let status = self.process.0.wait()?;
            ensure!(line.is_empty(), "it said {line:?} instead of its ready line and ended with {status}");
            return Ok(None);
        };
        let Self { process, options, .. } = self;
        Ok(Some(Broker { process, address, options }))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.options.data)).unwrap_or_default()
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM)?;
        Ok(self.process.0.wait()?)
    }
}

impl Broker {
    /// Starts a broker and waits for its ready line. Its log goes to `<data>.log`, beside the data directory.
    pub(crate) fn start(options: Options) -> anyhow::Result<Self> {
        Self::spawn(options)?.ready()
    }

    /// Starts a broker and waits for nothing.
    pub(crate) fn spawn(options: Options) -> anyhow::Result<Starting> {
        let mut command = match options.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary()?);
                command
            }
            None => Command::new(binary()?),
        };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log_path(&options.data))?;
        command.arg("serve").arg("--data").arg(&options.data);
        command.arg("--listen").arg(format!("127.0.0.1:{}", options.port)).args(&options.flags);
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdout = child.stdout.take().context("the broker's stdout is piped")?;
        Ok(Starting { process: Process(child), line: first_line(stdout), options })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `HOST:PORT` for clients.
    pub(crate) fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.options.data
    }

    /// Its process id. Under a wrapper, the wrapper's.
    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.options.data)).unwrap_or_default()
    }

    /// kill -9, and waits until the process is gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.0.kill()?;
        self.process.0.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        Ok(self.process.0.wait()?)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process.0), signal)?)
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.0.try_wait()?.is_some())
    }

    /// Starts again on the same port and data, after the process has ended.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        *self = Self::start(self.again())?;
        Ok(())
    }

    /// How it is started again.
    pub(crate) fn again(&self) -> Options {
        Options { port: self.address.port(), ..self.options.clone() }
    }
}

/// Killed when dropped.
pub(super) struct Process(pub(super) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if the process is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long a broker may take to say anything.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// The first line of `stdout`, when it comes; empty if there is none.
fn first_line(stdout: ChildStdout) -> Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // The receiver is gone only if nobody waits any more.
        let _ = sender.send(BufReader::new(stdout).read_line(&mut line).map(|_| line));
    });
    receiver
}

fn log_path(data: &Path) -> PathBuf {
    data.with_extension("log")
}

/// The `highwater` binary, built once per test run in the profile of the tests.
pub(crate) fn binary() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> anyhow::Result<PathBuf> {
    let output = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "highwater"]).output()?;
    if !output.status.success() {
        bail!("cannot build the binary:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    // This test binary is <target>/debug/deps/highwater-<hash>; the binary lies two levels up.
    let tests = std::env::current_exe()?;
    let profile =
        tests.parent().and_then(Path::parent).context("the test binary lies in a target directory")?;
    Ok(profile.join("highwater"))
}
