//! `highwater segment`: ls, info, verify, cat, grep, repair, diff and explain on files, offline.
//!
//! But for repair, files are only read, with pread and never through a map, so that a broker that truncates does no harm.
//! They may be Apache Kafka's own, of any message format. A broker that owns the directory is told by its lock; what is at
//! the tail may then change.

mod batches;
mod cat;
mod check;
mod data_files;
mod diff;
mod epoch_check;
mod explain;
mod fault;
mod files;
mod grep;
mod hex;
mod hunt;
mod index;
mod index_check;
mod info;
mod internal;
mod isolation;
mod ls;
mod matcher;
mod parallel;
mod pieces;
mod plan;
mod progress;
mod repair;
mod seek;
mod sidecars;
mod sketch;
mod span;
mod stats;
#[cfg(test)]
mod tests;
mod verify;
#[cfg(test)]
mod verify_tests;
mod walk;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::failure::Failure;
use crate::output::{OutputArgs, note};
use check::Depth;
use files::PartitionFiles;
use ls::Look;

/// The log of the broker's own metadata, by its directory's name.
const METADATA_TOPIC: &str = "__cluster_metadata";

const EXAMPLES: &str = "\
Examples:
  highwater segment ls highwater-data                 every segment of every partition
  highwater segment ls /var/lib/kafka/orders-0        one partition, Apache Kafka's own files too
  highwater segment info highwater-data/orders-0      what its batches are like
  highwater segment verify highwater-data             every fault as a row; exit code 3 if there is an error
  highwater segment cat highwater-data/orders-0 -o -10
  highwater segment cat highwater-data --topic orders -o @-1h: --output jsonl
  highwater segment grep 'timeout|refused' highwater-data -C 2
  highwater segment repair highwater-data/orders-0    what can be salvaged; changes nothing
  highwater segment diff highwater-data/orders-0 salvaged/orders-0
  highwater segment explain retention highwater-data  when each segment goes
";
const LS_EXAMPLES: &str = "\
Examples:
  highwater segment ls highwater-data                 every segment of every partition
  highwater segment ls highwater-data --topic orders --output json
  highwater segment ls /var/lib/kafka/orders-0 --deep every batch, Apache Kafka's own files too
";
const LS_NOTES: &str = "\
Without --deep only the ends of segments are read. What is not known from them is empty (null in JSON), such as records and
codec of a large segment; crc and indexes are `unchecked`, or `bad` and `wrong` where a look was enough. `first_ts` is then the time
of the first batch, `last_ts` that of the time index and of what follows its last entry.
";

const INFO_EXAMPLES: &str = "\
Examples:
  highwater segment info highwater-data/orders-0
  highwater segment info /var/lib/kafka/orders-0/00000000000000000000.log --full --output json
";
const VERIFY_EXAMPLES: &str = "\
Examples:
  highwater segment verify highwater-data             headers, checksums, indexes, small files
  highwater segment verify /var/lib/kafka/orders-0 --deep --output json
  highwater segment verify highwater-data --fast --since 2h
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
    #[command(after_help = LS_NOTES)]
    Ls(LsArgs),
    /// Show what segments are like: sizes, codecs, producers, keys, times, gaps.
    Info(InfoArgs),
    /// Find every fault of segments and of the files beside them; exit code 3 if one is an error.
    #[command(after_help = fault::KINDS)]
    Verify(VerifyArgs),
    /// Print the records of segments as consume prints those of a topic.
    Cat(Box<cat::CatArgs>),
    /// Search the records of segments, on all cores.
    Grep(Box<grep::GrepArgs>),
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
    /// Read every batch and compare its checksum: fills the columns that are empty without it
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
#[command(before_help = INFO_EXAMPLES)]
struct InfoArgs {
    #[command(flatten)]
    paths: PathArgs,
    /// Decode every batch for what is counted of records, not only a sample
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
#[command(before_help = VERIFY_EXAMPLES)]
struct VerifyArgs {
    #[command(flatten)]
    paths: PathArgs,
    /// Compare headers, continuity, names, indexes and small files, not checksums
    #[arg(long, conflicts_with = "deep")]
    fast: bool,
    /// Decode every record as well
    #[arg(long)]
    deep: bool,
    /// Only segments that were written since a time (2026-11-20T10:00Z) or for a duration (2h)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `highwater segment`.
pub(crate) fn run(args: SegmentArgs) -> Result<ExitCode> {
    match args.command {
        SegmentCommand::Ls(args) => {
            let look = if args.deep { Look::Deep } else { Look::Glance };
            ls::run(&find(&args.paths)?, look, args.output.output)
        }
        SegmentCommand::Info(args) => info::run(&find(&args.paths)?, args.full, args.output.output),
        SegmentCommand::Verify(args) => verify(&args),
        SegmentCommand::Cat(args) => cat::run(&find(&args.paths)?, &args),
        SegmentCommand::Grep(args) => grep::run(&find(&args.paths)?, &args),
        SegmentCommand::Repair(args) => repair::run(args),
        SegmentCommand::Diff(args) => diff::run(&args),
        SegmentCommand::Explain(args) => explain::run(&args),
    }
}

fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let depth = match (args.fast, args.deep) {
        (true, _) => Depth::Fast,
        (_, true) => Depth::Deep,
        _ => Depth::Crcs,
    };
    let since =
        args.since.as_deref().map(|since| verify::parse_since(since, crate::time::now())).transpose()?;
    let partitions = find(&args.paths)?;
    let request = verify::Request { paths: &args.paths.paths, partitions: &partitions, depth, since };
    verify::run(&request, args.output.output)
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
