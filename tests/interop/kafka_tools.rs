//! Apache Kafka's own command line tools do to our broker what they do to Kafka, and print what they print there.
//!
//! One test for each family of tools, each with a broker of its own. `HIGHWATER_MATRIX_AGAINST=HOST:PORT` runs those
//! that need no files against another broker, which is how what they expect was found out.

mod cluster;
mod compaction;
mod configs;
mod groups;
mod load;
mod records;
mod topics;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::matrix::target::Target;
use crate::harness::kafka_tools::{KafkaTools, Said, Tool, install};
use crate::harness::skip::or_skip;
use crate::harness::wait;

/// Kafka's tools and a broker for them.
struct Session {
    tools: KafkaTools,
    target: Target,
    directory: TempDir,
}

impl Session {
    /// Starts both; None if the tools cannot be had here.
    fn start() -> anyhow::Result<Option<Self>> {
        if or_skip(install())?.is_none() {
            return Ok(None);
        }
        let directory = tempfile::tempdir()?;
        let target = Target::start(directory.path())?;
        Ok(Some(Self { tools: KafkaTools::start()?, target, directory }))
    }

    /// Runs a tool with the broker's address and `words`, however it ends.
    fn try_run(&mut self, tool: Tool, words: &str) -> anyhow::Result<Said> {
        self.run_with_input(tool, words, "")
    }

    /// The same, with something on its standard input.
    fn run_with_input(&mut self, tool: Tool, words: &str, input: &str) -> anyhow::Result<Said> {
        let bootstrap = self.target.bootstrap();
        let mut arguments = vec!["--bootstrap-server", &bootstrap];
        arguments.extend(words.split_whitespace());
        self.tools.run_with(tool, &arguments, input)
    }

    /// Runs a tool that must end well, and returns its standard output.
    fn run(&mut self, tool: Tool, words: &str) -> anyhow::Result<String> {
        let said = self.try_run(tool, words)?;
        ensure!(said.exit == 0, "{tool:?} {words} ended with {said:?}");
        Ok(said.out)
    }

    /// Runs a tool that must be refused, and returns all that it printed.
    fn refused(&mut self, tool: Tool, words: &str) -> anyhow::Result<String> {
        let said = self.try_run(tool, words)?;
        ensure!(said.exit == 1, "{tool:?} {words} was not refused: {said:?}");
        Ok(said.out + &said.err)
    }

    /// Runs a tool until what it prints is right: on a cluster, a change is seen a little later than it is answered.
    fn until(&mut self, tool: Tool, words: &str, is_right: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        wait::until(&format!("{tool:?} {words} to print what is right"), || {
            Ok(is_right(&self.run(tool, words)?))
        })
    }

    /// Creates a topic.
    fn create(&mut self, what: &str, partitions: usize) -> anyhow::Result<String> {
        let name = self.target.name(what);
        self.target.create_topic(&name, partitions)?;
        Ok(name)
    }

    /// Sends these lines to a topic.
    fn produce(&mut self, topic: &str, lines: &[&str]) -> anyhow::Result<()> {
        let words = format!("--topic {topic}");
        let said = self.run_with_input(Tool::ConsoleProducer, &words, &(lines.join("\n") + "\n"))?;
        // It ends with 0 also if it could not send.
        ensure!(said.exit == 0 && said.err.is_empty(), "the console producer said {said:?}");
        Ok(())
    }

    /// The broker's node id, as the cluster tool prints it.
    fn node(&mut self) -> anyhow::Result<String> {
        let bootstrap = self.target.bootstrap();
        let printed = self.tools.run(Tool::Cluster, &["list-endpoints", "--bootstrap-server", &bootstrap])?;
        let row = printed.lines().nth(1).with_context(|| format!("one endpoint in {printed}"))?;
        Ok(row.split_whitespace().next().context("a row has an id")?.to_owned())
    }

    /// Writes a file that a tool reads.
    fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

/// Fails unless `printed` has this line, but for white space at its ends.
fn has_line(printed: &str, line: &str) -> anyhow::Result<()> {
    ensure!(printed.lines().any(|other| other.trim() == line), "no line {line:?} in:\n{printed}");
    Ok(())
}

/// Fails unless `printed` has these words.
fn has(printed: &str, words: &str) -> anyhow::Result<()> {
    ensure!(printed.contains(words), "no {words:?} in:\n{printed}");
    Ok(())
}
