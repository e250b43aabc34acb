//! A broker process of its own: started on a free port, killed, cut off or stopped at will.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running `highwater serve`. Killed when dropped.
pub(crate) struct Broker {
    child: Child,
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
}

impl Options {
    /// Everything at its default, data in `data`.
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), port: 0, flags: Vec::new(), wrapper: Vec::new() }
    }

    /// With further flags.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }
}

impl Broker {
    /// Starts a broker and waits for its ready line. Its log goes to `<data>.log`, beside the data directory.
    pub(crate) fn start(options: Options) -> anyhow::Result<Self> {
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
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdout = child.stdout.take().context("the broker's stdout is piped")?;
        let line = match first_line(stdout) {
            Ok(line) => line,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                let log = std::fs::read_to_string(log_path(&options.data)).unwrap_or_default();
                return Err(error.context(format!("wait for the ready line; the log:\n{log}")));
            }
        };
        let Some(address) = line.split_whitespace().nth(4).and_then(|word| word.parse().ok()) else {
            let status = child.wait()?;
            let log = std::fs::read_to_string(log_path(&options.data)).unwrap_or_default();
            bail!(
                "the broker said {line:?} instead of its ready line and ended with {status}; its log:\n{log}"
            );
        };
        Ok(Self { child, address, options })
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
        self.child.id()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.options.data)).unwrap_or_default()
    }

    /// kill -9, and waits until the process is gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        Ok(self.child.wait()?)
    }

    /// Starts again on the same port and data, after the process has ended.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        let options = Options { port: self.address.port(), ..self.options.clone() };
        *self = Self::start(options)?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a broker may take to say anything.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// The first line of `stdout`, or an error if it does not come in time.
fn first_line(stdout: ChildStdout) -> anyhow::Result<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // The receiver is gone only if the deadline has passed.
        let _ = sender.send(BufReader::new(stdout).read_line(&mut line).map(|_| line));
    });
    Ok(receiver.recv_timeout(START_DEADLINE)??)
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
