//! Every mainstream client library behind one set of verbs, each as a program of its own.
//!
//! `<driver> VERB BOOTSTRAP key=value...` prints lines of JSON. It ends with 0 if the verb did all it says, with
//! [`UNSUPPORTED`] and the reason if the library cannot do it with any broker, and with 1 and a sentence on its
//! standard error if anything is wrong. The verbs, and the lines that each prints, are in
//! `tests/interop/README.md`. What a driver does not name is left at its library's default.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::skip::Unavailable;
use super::toolbox;

/// Seconds after which a driver is taken to hang.
const PATIENCE: &str = "180";

/// How a driver ends that says that its library cannot do what was asked, with any broker.
pub(crate) const UNSUPPORTED: i32 = 3;

/// How a verb ended well.
pub(crate) enum Answer {
    /// It did what it says and printed these lines.
    Done(Vec<Value>),
    /// The library cannot do it, for this reason.
    Unsupported(String),
}

/// A client library.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Driver {
    /// Kafka's own client.
    Java,
    /// franz-go.
    FranzGo,
    /// sarama.
    Sarama,
    /// confluent-kafka for Python, on the current librdkafka.
    Confluent,
    /// kafka-python.
    KafkaPython,
    /// aiokafka.
    AioKafka,
    /// kafkajs.
    KafkaJs,
    /// @platformatic/kafka.
    Platformatic,
    /// Debian's kcat, on the librdkafka of the distribution.
    Kcat,
}

impl Driver {
    /// Every driver.
    pub(crate) const ALL: [Self; 9] = [
        Self::Java,
        Self::FranzGo,
        Self::Sarama,
        Self::Confluent,
        Self::KafkaPython,
        Self::AioKafka,
        Self::KafkaJs,
        Self::Platformatic,
        Self::Kcat,
    ];

    /// A name for files and topics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::FranzGo => "franz-go",
            Self::Sarama => "sarama",
            Self::Confluent => "confluent-kafka",
            Self::KafkaPython => "kafka-python",
            Self::AioKafka => "aiokafka",
            Self::KafkaJs => "kafkajs",
            Self::Platformatic => "platformatic-kafka",
            Self::Kcat => "kcat",
        }
    }

    /// Installs the driver, if it is not there.
    pub(crate) fn install(self) -> Result<(), Unavailable> {
        self.program().map(drop)
    }

    /// The driver without arguments, under a watchdog, which leads a process group of its own.
    pub(crate) fn command(self) -> Result<Command, Unavailable> {
        let program = self.program()?;
        let mut command = Command::new(toolbox::program("timeout")?);
        command.args(["--kill-after=5", PATIENCE]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            value.map(|value| command.env(name, value));
        }
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a verb to its end.
    pub(crate) fn run(self, verb: &str, bootstrap: &str, arguments: &[&str]) -> anyhow::Result<Answer> {
        let mut command = self.ready()?;
        command.args([verb, bootstrap]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        // An input that ends would end a member of a group.
        let _input = child.stdin.take();
        let output = child.wait_with_output()?;
        let lines = json_lines(&output.stdout)?;
        if output.status.code() == Some(UNSUPPORTED) {
            let reason = lines.last().and_then(unsupported);
            return Ok(Answer::Unsupported(reason.context("a driver says why it cannot")?));
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {verb} ended with {}:\n{errors}", self.name(), output.status);
        Ok(Answer::Done(lines))
    }

    /// Runs a verb that every library has, and returns what it printed.
    pub(crate) fn must(self, verb: &str, bootstrap: &str, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        match self.run(verb, bootstrap, arguments)? {
            Answer::Done(lines) => Ok(lines),
            Answer::Unsupported(reason) => anyhow::bail!("{} says of {verb}: {reason}", self.name()),
        }
    }

    /// The driver for a test that installed it before.
    pub(crate) fn ready(self) -> anyhow::Result<Command> {
        self.command().map_err(|why| anyhow::anyhow!("{} is not there: {why:?}", self.name()))
    }

    fn program(self) -> Result<Command, Unavailable> {
        match self {
            Self::Java => toolbox::java_driver(),
            Self::FranzGo => toolbox::go_driver("franz"),
            Self::Sarama => toolbox::go_driver("sarama"),
            Self::Confluent => toolbox::python_driver("confluent_driver.py"),
            Self::KafkaPython => toolbox::python_driver("kafka_python_driver.py"),
            Self::AioKafka => toolbox::python_driver("aiokafka_driver.py"),
            Self::KafkaJs => toolbox::node_driver("kafkajs_driver.mjs"),
            Self::Platformatic => toolbox::node_driver("platformatic_driver.mjs"),
            Self::Kcat => toolbox::kcat_driver(),
        }
    }
}

/// The reason, if the line is one that says that the library cannot.
pub(crate) fn unsupported(line: &Value) -> Option<String> {
    line.get("unsupported")?.as_str().map(str::to_owned)
}

fn json_lines(bytes: &[u8]) -> anyhow::Result<Vec<Value>> {
    let text = std::str::from_utf8(bytes).context("a driver prints text")?;
    let parse =
        |line| serde_json::from_str(line).with_context(|| format!("a driver prints JSON, not {line:?}"));
    text.lines().map(parse).collect()
}
