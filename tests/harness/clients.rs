//! Real Kafka clients behind one set of verbs: kcat, the current librdkafka, Kafka's Java client.
//!
//! Each runs as a process of its own with the client's defaults. A client that does not end within
//! [`PATIENCE`] is killed, and the test fails with what it said.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::skip::Unavailable;
use super::toolbox;

/// Seconds after which a client is taken to hang.
const PATIENCE: &str = "180";

/// A client library.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Client {
    /// Debian's kcat, on the librdkafka of the distribution.
    Kcat,
    /// confluent-kafka, on the current librdkafka.
    Confluent,
    /// Kafka's own client.
    Java,
}

impl Client {
    /// Every client.
    pub(crate) const ALL: [Self; 3] = [Self::Kcat, Self::Confluent, Self::Java];

    /// A name for files and topics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kcat => "kcat",
            Self::Confluent => "confluent",
            Self::Java => "java",
        }
    }

    /// Installs the client, if it is not there.
    pub(crate) fn install(self) -> Result<(), Unavailable> {
        self.command().map(|_| ())
    }

    /// The client's program without arguments, under a watchdog.
    pub(crate) fn command(self) -> Result<Command, Unavailable> {
        let mut command = Command::new(toolbox::program("timeout")?);
        command.args(["--kill-after=5", PATIENCE]);
        match self {
            Self::Kcat => command.arg(toolbox::kcat()?),
            Self::Confluent => {
                let script = toolbox::tests_dir().join("interop/python/interop_client.py");
                command.arg(toolbox::python()?).arg(script)
            }
            Self::Java => {
                let java = toolbox::java("InteropClient")?;
                command.arg(java.get_program()).args(java.get_args())
            }
        };
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Produces every line of the nth file into the nth partition.
    pub(crate) fn produce(
        self,
        bootstrap: &str,
        codec: &str,
        topic: &str,
        files: &[PathBuf],
    ) -> anyhow::Result<()> {
        if self != Self::Kcat {
            let mut command = self.ready()?;
            command.args(["produce", bootstrap, codec, topic]).args(files);
            return run(command).map(drop);
        }
        let mut running = Vec::new();
        for (partition, file) in files.iter().enumerate() {
            let mut command = self.ready()?;
            command.args(["-P", "-E", "-b", bootstrap, "-t", topic, "-z", codec, "-p"]);
            command.arg(partition.to_string()).arg("-l").arg(file);
            running.push(Running::spawn(command)?);
        }
        running.into_iter().try_for_each(|client| client.finish().map(drop))
    }

    /// What each partition of the topic holds, in lines of `<offset> <value>`, in files of `directory`.
    pub(crate) fn consume(
        self,
        bootstrap: &str,
        topic: &str,
        partitions: usize,
        directory: &Path,
    ) -> anyhow::Result<Vec<Vec<u8>>> {
        fs::create_dir_all(directory)?;
        let path = |partition: usize| directory.join(partition.to_string());
        if self == Self::Kcat {
            for partition in 0..partitions {
                let mut command = self.ready()?;
                command.args(["-C", "-q", "-e", "-o", "beginning", "-f", "%o %s\\n", "-b", bootstrap]);
                command.args(["-t", topic, "-p", &partition.to_string()]);
                fs::write(path(partition), run(command)?)?;
            }
        } else {
            let mut command = self.ready()?;
            run({
                command.args(["consume", bootstrap, topic]).arg(directory);
                command
            })?;
        }
        (0..partitions).map(|partition| Ok(fs::read(path(partition))?)).collect()
    }

    /// Starts to produce numbered records into partition 0 until [`Running::close_stdin`], and then `end`.
    pub(crate) fn load(self, bootstrap: &str, topic: &str, settings: &[&str]) -> anyhow::Result<Running> {
        ensure!(self != Self::Kcat, "kcat does not say what is acknowledged");
        let mut command = self.ready()?;
        command.args(["load", bootstrap, topic]).args(settings).stdin(Stdio::piped());
        Running::spawn(command)
    }

    /// Starts to read partition 0 into `file` until the record `end`.
    pub(crate) fn tail(self, bootstrap: &str, topic: &str, file: &Path) -> anyhow::Result<Running> {
        ensure!(self != Self::Kcat, "kcat has no last record to stop at");
        let mut command = self.ready()?;
        command.args(["tail", bootstrap, topic]).arg(file);
        Running::spawn(command)
    }

    /// Uses each API that there is once.
    pub(crate) fn tour(self, bootstrap: &str, topic: &str) -> anyhow::Result<()> {
        if self != Self::Kcat {
            let mut command = self.ready()?;
            command.args(["tour", bootstrap, topic]);
            return run(command).map(drop);
        }
        // kcat has no admin; metadata creates the topic.
        let produce =
            ["-P", "-E", "-t", topic, "-p", "0", "-X", "enable.idempotence=true", "-l", "/dev/stdin"];
        let query = ["-Q", "-t", &format!("{topic}:0:1")];
        let consume = ["-C", "-q", "-t", topic, "-p", "0", "-o", "beginning", "-c", "1"];
        for arguments in [&produce[..], &query, &consume] {
            let mut command = self.ready()?;
            command.args(["-b", bootstrap]).args(arguments).stdin(Stdio::piped());
            let mut client = Running::spawn(command)?;
            client.write(b"tour\n")?;
            client.finish()?;
        }
        Ok(())
    }

    fn ready(self) -> anyhow::Result<Command> {
        self.command().map_err(|why| anyhow::anyhow!("{} is not there: {why:?}", self.name()))
    }
}

/// Runs a client to its end and returns its standard output.
pub(crate) fn run(command: Command) -> anyhow::Result<Vec<u8>> {
    Running::spawn(command)?.finish()
}

/// A client that is running. Ended when dropped.
pub(crate) struct Running {
    shown: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// A file, so that a talkative client never waits for a reader.
    stderr: fs::File,
}

impl Running {
    /// Starts `command` with its output captured.
    pub(crate) fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let shown = format!("{command:?}");
        let stderr = tempfile::tempfile()?;
        command.stdout(Stdio::piped()).stderr(stderr.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("start {shown}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { shown, child, stdin, stdout, stderr })
    }

    /// The next line of its standard output.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            let errors = self.errors()?;
            bail!("{} ended early:\n{errors}", self.shown);
        }
        Ok(line.trim_end().to_owned())
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        use std::io::Write;
        // A client that reads nothing may have ended already.
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(bytes);
        }
        Ok(())
    }

    /// Ends its standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for a good end and returns the rest of its standard output.
    pub(crate) fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        self.close_stdin();
        let mut output = Vec::new();
        self.stdout.read_to_end(&mut output)?;
        let status = self.child.wait()?;
        let errors = self.errors()?;
        ensure!(status.success(), "{} ended with {status}:\n{errors}", self.shown);
        Ok(output)
    }

    /// What it wrote to its standard error so far.
    pub(crate) fn errors(&mut self) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        self.stderr.rewind()?;
        self.stderr.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The watchdog passes on what it is told, and kills what does not listen. A process that was waited for is
        // left alone: its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}
