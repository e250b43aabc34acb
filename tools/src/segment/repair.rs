//! `segment repair`: what can be salvaged of damaged partitions, as a plan, as a copy, or in place with a way back.
//!
//! Without `--to` or `--in-place` it only says what it would do. A good batch is never lost and never changed; bad ones
//! are left out. What is replaced is kept until somebody removes it.

mod copy;
mod in_place;
mod plan;
mod report;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use highwater_record::{Offset, PartitionId, TopicName, TopicPartition};
use highwater_storage::{CheckpointFile, DiskFiles, LoadedCheckpoint};
use serde_json::{Value, json};

use super::PathArgs;
use super::files::PartitionFiles;
use super::index::IndexState;
use crate::failure::{Failure, PROBLEMS};
use crate::output::{OutputArgs, Rows, note};
use crate::time;
use plan::{Plan, Policy};

const COLUMNS: &[&str] =
    &["topic", "partition", "file", "action", "from_offset", "to_offset", "position", "bytes", "cause"];

const EXAMPLES: &str = "\
Examples:
  highwater segment repair highwater-data/orders-0      what would be done; exit 3 if there is something
  highwater segment repair highwater-data/orders-0 --to salvaged     what is good, as a copy
  highwater segment repair highwater-data --in-place --yes           the broker must be stopped
  highwater segment repair highwater-data --rebuild-indexes --in-place --yes
  highwater segment repair --undo highwater-data/orders-0/.highwater-undo-20261122T003000Z --yes
";

#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct RepairArgs {
    /// Data directories, partition directories or .log files
    #[arg(required_unless_present = "undo", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only this topic
    #[arg(short, long)]
    topic: Option<String>,
    /// Write what is good into this directory, and leave PATH as it is
    #[arg(long, value_name = "DIR", conflicts_with_all = ["in_place", "undo", "rebuild_indexes"])]
    to: Option<PathBuf>,
    /// Replace files where they are; the originals stay in .highwater-undo-TIME beside them
    #[arg(long, conflicts_with = "undo")]
    in_place: bool,
    /// Bring back the originals from this directory
    #[arg(long, value_name = "UNDO_DIR", conflicts_with = "paths")]
    undo: Option<PathBuf>,
    /// Do not ask: --in-place and --undo want it
    #[arg(short, long)]
    yes: bool,
    /// Only write missing and wrong indexes anew
    #[arg(long, conflicts_with = "truncate_at_first_fault")]
    rebuild_indexes: bool,
    /// End the log before its first bad batch, as Apache Kafka does, instead of leaving bad batches out
    #[arg(long)]
    truncate_at_first_fault: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Plans and repairs.
pub(super) fn run(args: RepairArgs) -> Result<ExitCode> {
    if (args.in_place || args.undo.is_some()) && !args.yes {
        return Err(Failure::usage("files would be replaced: say --yes, or neither option for a plan").into());
    }
    if let Some(undo) = &args.undo {
        let undo = undo
            .canonicalize()
            .map_err(|error| Failure::not_found(format!("{}: {error}", undo.display())))?;
        let count = in_place::undo(&undo)?;
        note(format_args!("brought {count} files back, {} is gone", undo.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let policy = match (args.rebuild_indexes, args.truncate_at_first_fault) {
        (true, _) => Policy::IndexesOnly,
        (false, true) => Policy::Truncate,
        (false, false) => Policy::Skip,
    };
    let paths = PathArgs { paths: args.paths, topic: args.topic };
    let partitions = merged(super::find(&paths)?);
    if args.in_place {
        return repair_in_place(&paths, &partitions, policy, &args.output);
    }
    let plans = plans(&partitions, policy)?;
    rows(&plans).print(args.output.output)?;
    tell(&plans);
    if let Some(to) = &args.to {
        copy::run(&plans, to)?;
        note(format_args!("the copy is in {}, the report in {0}/{}", to.display(), report::FILE_NAME));
        return Ok(ExitCode::SUCCESS);
    }
    let mut is_due = plans.iter().any(Plan::is_due);
    for plan in &plans {
        for undo in in_place::unfinished(&plan.dir)? {
            note(format_args!("{} was interrupted; --in-place --yes finishes it", undo.display()));
            is_due = true;
        }
    }
    if is_due {
        note("nothing was changed: --to DIR writes a copy, --in-place --yes repairs");
        return Ok(ExitCode::from(PROBLEMS));
    }
    Ok(ExitCode::SUCCESS)
}

/// Each partition once, with all segments of it that were asked for: paths may overlap, and a shell names each file.
fn merged(found: Vec<PartitionFiles>) -> Vec<PartitionFiles> {
    let directory = |files: &PartitionFiles| Some(files.segments.first()?.path.parent()?.to_owned());
    let mut merged: Vec<PartitionFiles> = Vec::new();
    for files in found {
        let dir = directory(&files);
        let Some(before) = merged.iter_mut().find(|before| directory(before) == dir) else {
            merged.push(files);
            continue;
        };
        before.segments.extend(files.segments);
        before.segments.sort_by_key(|segment| segment.base);
        before.segments.dedup();
    }
    merged
}

fn repair_in_place(
    paths: &PathArgs,
    partitions: &[PartitionFiles],
    policy: Policy,
    output: &OutputArgs,
) -> Result<ExitCode> {
    let dirs: BTreeSet<&Path> =
        partitions.iter().filter_map(|files| files.segments.first()?.path.parent()).collect();
    let data: BTreeSet<&Path> = dirs.iter().filter_map(|dir| dir.parent()).collect();
    let _held = data.into_iter().map(in_place::hold).collect::<Result<Vec<_>>>()?;
    let _mine = dirs.iter().map(|dir| in_place::hold_partition(dir)).collect::<Result<Vec<_>>>()?;
    for dir in dirs {
        in_place::finish_earlier(dir)?;
    }
    // What was finished just now has left other files.
    let partitions = merged(super::select(paths)?);
    let plans = plans(&partitions, policy)?;
    rows(&plans).print(output.output)?;
    tell(&plans);
    let (stamp, mut code) = (stamp(), ExitCode::SUCCESS);
    for plan in plans.iter().filter(|plan| plan.is_due()) {
        if is_spared(plan, paths) {
            note(format_args!(
                "{} stays as it is: each of its batches is a change of the broker's metadata, such as a topic. Put it back \
                 from a copy; to lose those changes for good, name this directory itself",
                plan.dir.display()
            ));
            code = ExitCode::from(PROBLEMS);
            continue;
        }
        let undo = in_place::run(plan, &stamp)?;
        note(format_args!(
            "repaired {}; to undo: highwater segment repair --undo {} --yes",
            plan.dir.display(),
            undo.display()
        ));
    }
    Ok(code)
}

/// Whether a partition is not to be repaired as one of many: a broker that has lost a part of its metadata says so and
/// changes nothing, which is better than one that does not know.
fn is_spared(plan: &Plan, paths: &PathArgs) -> bool {
    let is_named = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path.starts_with(&plan.dir));
    plan.topic == super::METADATA_TOPIC && plan.changes_segments() && !paths.paths.iter().any(is_named)
}

/// The present, as a directory's name has it.
fn stamp() -> String {
    let now = time::readable(time::now());
    now.chars().filter(|character| character.is_ascii_alphanumeric()).collect()
}

fn plans(partitions: &[PartitionFiles], policy: Policy) -> Result<Vec<Plan>> {
    partitions.iter().map(|files| plan::plan(files, policy, synced(files))).collect()
}

/// How far the broker is known to have synced a partition, by the checkpoint of its data directory.
fn synced(files: &PartitionFiles) -> Offset {
    let find = || {
        let last = files.segments.last().filter(|segment| segment.next_base.is_none())?;
        let data = last.path.parent()?.parent()?;
        let LoadedCheckpoint::Found(checkpoint) = CheckpointFile::new(Arc::new(DiskFiles), data).load()
        else {
            return None;
        };
        let (topic, partition) = (TopicName::new(&files.topic).ok()?, PartitionId::new(files.partition)?);
        let known = checkpoint.partitions.get(&TopicPartition { topic, partition })?;
        Some(known.log.recovery_point)
    };
    find().unwrap_or_default()
}

fn rows(plans: &[Plan]) -> Rows {
    let mut rows = Rows::new(COLUMNS);
    for plan in plans {
        let mut row = |file: &str, action: &str, rest: [Value; 5]| {
            let mut cells = vec![json!(plan.topic), json!(plan.partition), json!(file), json!(action)];
            cells.extend(rest);
            rows.push(cells);
        };
        for segment in &plan.segments {
            let name = |suffix: &str| format!("{:020}.{suffix}", segment.file.base.get());
            for loss in plan.losses.iter().filter(|loss| loss.segment == segment.file.base) {
                let (from, to) = (loss.offsets.start.get(), loss.offsets.end.get());
                let lost = (from < to).then_some((from, to));
                let (position, bytes) = (loss.bytes.start, loss.bytes.end - loss.bytes.start);
                let cells = [
                    json!(lost.map(|lost| lost.0)),
                    json!(lost.map(|lost| lost.1)),
                    json!(position),
                    json!(bytes),
                    json!(loss.cause),
                ];
                row(&name("log"), loss.action, cells);
            }
            if segment.goes {
                continue;
            }
            for (suffix, state) in ["index", "timeindex"].into_iter().zip(segment.indexes) {
                let cause = match state {
                    IndexState::Good | IndexState::Unchecked if !segment.is_rewritten() => continue,
                    IndexState::Good | IndexState::Unchecked => "positions change with the segment",
                    IndexState::Missing => "it is missing",
                    IndexState::Wrong => "it does not agree with the segment",
                };
                row(
                    &name(suffix),
                    "rebuild",
                    [Value::Null, Value::Null, Value::Null, Value::Null, json!(cause)],
                );
            }
        }
        if plan.epochs_wrong {
            let cause = json!("it does not agree with the batches");
            row(write::EPOCHS, "rebuild", [Value::Null, Value::Null, Value::Null, Value::Null, cause]);
        }
    }
    rows
}

/// Says what is lost and what stays.
fn tell(plans: &[Plan]) {
    let (mut lost, mut records, mut bytes, mut filled) = (0, 0, 0, false);
    for plan in plans {
        for loss in plan.losses.iter().filter(|loss| !loss.offsets.is_empty()) {
            lost += loss.offsets.end.since(loss.offsets.start);
            filled |= loss.filled;
        }
        for segment in plan.segments.iter().filter(|segment| !segment.goes) {
            records += segment.kept_records;
            bytes += segment.kept_bytes;
        }
    }
    note(format_args!("{lost} offsets are lost; {records} records in {bytes} bytes stay as they are"));
    if filled {
        note("a batch without records stands for lost offsets, so that consumers step over them");
    }
}
