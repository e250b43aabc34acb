//! `highwater segment`: ls, cat, repair, diff and explain on files, offline.
//!
//! But for repair files are only read, with pread and never through a map, so that a broker that truncates does no harm. They may be
//! Apache Kafka's own. A broker that owns the directory is told by its lock; what is at the tail may then change.

mod cat;
mod diff;
mod explain;
mod files;
mod index;
mod ls;
mod parallel;
mod progress;
mod repair;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::consume::SelectionArgs;
use crate::failure::Failure;
use crate::output::{OutputArgs, note};
use files::PartitionFiles;

/// The log of the broker's own metadata, by its directory's name.
const METADATA_TOPIC: &str = "__cluster_metadata";

const EXAMPLES: &str = "\
Examples:
  highwater segment ls highwater-data                 every segment of every partition
  highwater segment ls /var/lib/kafka/orders-0        one partition, Apache Kafka's own files too
  highwater segment cat highwater-data/orders-0 -o -10
  highwater segment cat highwater-data --topic orders -o @-1h: --output jsonl
  highwater segment repair highwater-data/orders-0    what can be salvaged; changes nothing
  highwater segment diff highwater-data/orders-0 salvaged/orders-0
  highwater segment explain retention highwater-data  when each segment goes
";
const LS_EXAMPLES: &str = "\
Examples:
  highwater segment ls highwater-data                 every segment of every partition
  highwater segment ls highwater-data --topic orders --output json
  highwater segment ls /var/lib/kafka/orders-0 --fast headers only, Apache Kafka's own files too
";
const CAT_EXAMPLES: &str = "\
Examples:
  highwater segment cat highwater-data/orders-0 -o -10
  highwater segment cat highwater-data --topic orders -o @-1h: --output jsonl
  highwater segment cat highwater-data/orders-0/00000000000000000000.log -f '%o %k %v\\n'
";

/// The arguments of `highwater segment`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct SegmentArgs {
    #[command(subcommand)]
    command: SegmentCommand,
}

#[derive(Debug, Subcommand)]
enum SegmentCommand {
    /// List segments: offsets, sizes, times, checksums, indexes.
    Ls(LsArgs),
    /// Print the records of segments as consume prints those of a topic.
    #[command(after_help = crate::consume::GRAMMAR)]
    Cat(CatArgs),
    /// Salvage what is good of damaged segments: a plan, a copy, or in place.
    Repair(repair::RepairArgs),
    /// Compare the records of two partitions or directories.
    Diff(diff::DiffArgs),
    /// Say when segments are deleted or compacted, and why not yet.
    Explain(explain::ExplainArgs),
}

/// Where segments are looked for.
#[derive(Debug, clap::Args)]
struct PathArgs {
    /// Data directories, partition directories or .log files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only this topic
    #[arg(short, long)]
    topic: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = LS_EXAMPLES)]
struct LsArgs {
    #[command(flatten)]
    paths: PathArgs,
    /// Read headers only and leave checksums uncompared
    #[arg(long)]
    fast: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
#[command(before_help = CAT_EXAMPLES)]
struct CatArgs {
    #[command(flatten)]
    paths: PathArgs,
    #[command(flatten)]
    what: SelectionArgs,
}

/// Runs `highwater segment`.
pub(crate) fn run(args: SegmentArgs) -> Result<ExitCode> {
    match args.command {
        SegmentCommand::Ls(args) => ls::run(&find(&args.paths)?, args.fast, args.output.output),
        SegmentCommand::Cat(args) => cat::run(&find(&args.paths)?, &args.what),
        SegmentCommand::Repair(args) => repair::run(args),
        SegmentCommand::Diff(args) => diff::run(&args),
        SegmentCommand::Explain(args) => explain::run(&args),
    }
}

/// The partitions that are meant; says if somebody has them open.
fn find(args: &PathArgs) -> Result<Vec<PartitionFiles>> {
    let partitions = select(args)?;
    if let Some(live) = partitions.iter().find_map(|partition| partition.owner.as_ref()) {
        note(format_args!("{live} has these files open: what is at the tail may still change"));
    }
    Ok(partitions)
}

/// The partitions that are meant.
fn select(args: &PathArgs) -> Result<Vec<PartitionFiles>> {
    let mut partitions = Vec::new();
    for path in &args.paths {
        partitions.extend(files::find(path)?);
    }
    if let Some(topic) = &args.topic {
        let names: Vec<String> = partitions.iter().map(|partition| partition.topic.clone()).collect();
        partitions.retain(|partition| partition.topic == *topic);
        if partitions.is_empty() {
            let suggestion = crate::suggest::sentence(topic, names.iter().map(String::as_str));
            let message = format!("there are no segments of topic {topic:?}{suggestion}");
            return Err(Failure::not_found(message).into());
        }
    }
    Ok(partitions)
}
