//! Apache Kafka's own command line tools: one after another in one process, or alone those that act when theirs ends.
//!
//! What they print is handed out as it is; the tests know what it should be.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::clients::Running;
use super::skip::Unavailable;
use super::toolbox;

/// Seconds after which the tools of one test are taken to hang.
const PATIENCE: &str = "300";

/// The program that runs tools in one process.
const ALL: &str = "Tools";

/// A tool, by the name of its script.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tool {
    /// `kafka-broker-api-versions.sh`
    BrokerApiVersions,
    /// `kafka-cluster.sh`
    Cluster,
    /// `kafka-configs.sh`
    Configs,
    /// `kafka-console-consumer.sh`
    ConsoleConsumer,
    /// `kafka-console-producer.sh`
    ConsoleProducer,
    /// `kafka-consumer-groups.sh`
    ConsumerGroups,
    /// `kafka-consumer-perf-test.sh`
    ConsumerPerformance,
    /// `kafka-delete-records.sh`
    DeleteRecords,
    /// `kafka-dump-log.sh`
    DumpLog,
    /// `kafka-e2e-latency.sh`
    EndToEndLatency,
    /// `kafka-features.sh`
    Features,
    /// `kafka-get-offsets.sh`
    GetOffsets,
    /// `kafka-groups.sh`
    Groups,
    /// `kafka-leader-election.sh`
    LeaderElection,
    /// `kafka-log-dirs.sh`
    LogDirs,
    /// `kafka-metadata-quorum.sh`
    MetadataQuorum,
    /// `kafka-producer-perf-test.sh`
    ProducerPerformance,
    /// `kafka-reassign-partitions.sh`
    ReassignPartitions,
    /// `kafka-topics.sh`
    Topics,
    /// `kafka-verifiable-consumer.sh`
    VerifiableConsumer,
    /// `kafka-verifiable-producer.sh`
    VerifiableProducer,
}

impl Tool {
    /// The class that its script starts.
    const fn class(self) -> &'static str {
        match self {
            Self::BrokerApiVersions => "org.apache.kafka.tools.BrokerApiVersionsCommand",
            Self::Cluster => "org.apache.kafka.tools.ClusterTool",
            Self::Configs => "kafka.admin.ConfigCommand",
            Self::ConsoleConsumer => "org.apache.kafka.tools.consumer.ConsoleConsumer",
            Self::ConsoleProducer => "org.apache.kafka.tools.ConsoleProducer",
            Self::ConsumerGroups => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            Self::ConsumerPerformance => "org.apache.kafka.tools.ConsumerPerformance",
            Self::DeleteRecords => "org.apache.kafka.tools.DeleteRecordsCommand",
            Self::DumpLog => "kafka.tools.DumpLogSegments",
            Self::EndToEndLatency => "org.apache.kafka.tools.EndToEndLatency",
            Self::Features => "org.apache.kafka.tools.FeatureCommand",
            Self::GetOffsets => "org.apache.kafka.tools.GetOffsetShell",
            Self::Groups => "org.apache.kafka.tools.GroupsCommand",
            Self::LeaderElection => "org.apache.kafka.tools.LeaderElectionCommand",
            Self::LogDirs => "org.apache.kafka.tools.LogDirsCommand",
            Self::MetadataQuorum => "org.apache.kafka.tools.MetadataQuorumCommand",
            Self::ProducerPerformance => "org.apache.kafka.tools.ProducerPerformance",
            Self::ReassignPartitions => "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
            Self::Topics => "org.apache.kafka.tools.TopicCommand",
            Self::VerifiableConsumer => "org.apache.kafka.tools.VerifiableConsumer",
            Self::VerifiableProducer => "org.apache.kafka.tools.VerifiableProducer",
        }
    }
}

/// A process that runs tools.
pub(crate) struct KafkaTools {
    process: Running,
}

/// What a tool said.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// How it ended; 0 is well. Several tools say what went wrong and end with 0.
    pub(crate) exit: i64,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

/// Installs the tools, if they are not there.
pub(crate) fn install() -> Result<(), Unavailable> {
    command(ALL).map(drop)
}

impl KafkaTools {
    /// Starts the process.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut command =
            command(ALL).map_err(|why| anyhow::anyhow!("Kafka's tools are not there: {why:?}"))?;
        command.stdin(Stdio::piped());
        Ok(Self { process: Running::spawn(command)? })
    }

    /// Runs a tool to its end with `input` on its standard input, however it ends.
    pub(crate) fn run_with(&mut self, tool: Tool, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
        let line = json!({"tool": tool.class(), "arguments": arguments, "input": input});
        self.process.write(format!("{line}\n").as_bytes())?;
        let answer: Value = serde_json::from_str(&self.process.line()?)?;
        let text = |name: &str| {
            answer[name].as_str().map(str::to_owned).with_context(|| format!("{answer} has no {name}"))
        };
        let exit = answer["exit"].as_i64().context("a tool has an exit code")?;
        Ok(Said { exit, out: text("out")?, err: text("err")? })
    }

    /// Runs a tool that must end well, and returns its standard output.
    pub(crate) fn run(&mut self, tool: Tool, arguments: &[&str]) -> anyhow::Result<String> {
        let said = self.run_with(tool, arguments, "")?;
        ensure!(said.exit == 0, "{tool:?} {arguments:?} ended with {said:?}");
        Ok(said.out)
    }
}

/// Runs a tool in a process of its own, for those that act when their process ends, and returns what it printed.
pub(crate) fn run_alone(tool: Tool, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command =
        command(tool.class()).map_err(|why| anyhow::anyhow!("{tool:?} is not there: {why:?}"))?;
    command.args(arguments).stdin(Stdio::null());
    Ok(String::from_utf8(Running::spawn(command)?.finish()?)?)
}

fn command(class: &str) -> Result<Command, Unavailable> {
    let java = toolbox::java(class)?;
    let mut command = Command::new(toolbox::program("timeout")?);
    command.args(["--kill-after=5", PATIENCE]).arg(java.get_program()).args(java.get_args());
    Ok(command)
}
