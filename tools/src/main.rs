//! The `highwater` binary: one verb per file, and what they share.
//!
//! stdout is data, stderr is everything else. What a command returns becomes the exit code here and nowhere else;
//! a reader that closes stdout has had enough, which is success.

mod bootstrap;
mod confirm;
mod consume;
mod failure;
mod format;
mod go_layout;
mod group;
mod input;
mod offset_spec;
mod output;
mod printer;
mod produce;
mod record_json;
mod record_view;
mod resolve;
mod segment;
mod serve;
mod suggest;
mod time;
mod topic;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  highwater serve                                     start a broker on 127.0.0.1:9092
  highwater topic create orders -p 3                  create a topic
  tail -F app.log | highwater produce orders          one record per line
  highwater consume orders -o -10                     the last ten records, then what comes
  highwater consume orders -o @-1h:end --output jsonl the last hour, lossless
  highwater group describe orders-job                 who reads, and how far behind
  highwater segment ls highwater-data                 what is in the files, no broker needed
";

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 problems found, 4 not found, 130 interrupted.";

/// A Kafka-style log streaming platform in one binary.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, before_help = EXAMPLES, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker.
    Serve(serve::ServeArgs),
    /// List, create, describe and delete topics.
    Topic(topic::TopicArgs),
    /// List, describe, move and delete consumer groups.
    Group(group::GroupArgs),
    /// Send records from a file or from stdin.
    Produce(produce::ProduceArgs),
    /// Print the records of a topic.
    Consume(consume::ConsumeArgs),
    /// Look into segment files, without a broker.
    Segment(segment::SegmentArgs),
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let outcome = match Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command {
        Command::Serve(args) => serve::run(args, matches.subcommand_matches("serve")),
        Command::Topic(args) => block_on(topic::run(args)),
        Command::Group(args) => block_on(group::run(args)),
        Command::Produce(args) => block_on(produce::run(args)),
        Command::Consume(args) => block_on(consume::run(args)),
        Command::Segment(args) => segment::run(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("error: {}", failure::sentence(&error)));
            failure::exit_code(&error)
        }
    }
}

/// Runs a client command. Work that is left when it returns is not waited for.
fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("start the runtime: {error}")))?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[track_caller]
    fn check_help(command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        assert!(help.starts_with("Examples:"), "{}: {help}", command.get_name());
        // clap adds `help` by itself.
        command.get_subcommands_mut().filter(|verb| verb.get_name() != "help").for_each(check_help);
    }

    #[test]
    fn every_help_opens_with_examples() {
        check_help(&mut Cli::command());
    }
}
