//! `segment explain`: when each segment goes or is compacted, and why not yet.
//!
//! The rules are not written down here a second time: the log is opened by storage, on files that stay as they are, and
//! asked. Of a directory without our checkpoint all but the active segment are taken for synced, so that they need not be
//! read. The present is the clock of this machine, which is the broker's if both run on it.

mod settings;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use highwater_record::{Offset, PartitionId, TimestampMs, TopicName, TopicPartition};
use highwater_storage::{
    CheckpointFile, DirtState, DiskFiles, LoadedCheckpoint, Log, LogCheckpoint, ReadOnlyFiles,
    SegmentOutlook, SegmentScan,
};
use serde_json::{Value, json};

use super::PathArgs;
use super::files::PartitionFiles;
use crate::output::{OutputArgs, Rows, note};
use crate::time;
use settings::Settings;

const RETENTION_COLUMNS: &[&str] =
    &["topic", "partition", "segment", "state", "bytes", "ages_from", "goes_at", "why"];
const COMPACTION_COLUMNS: &[&str] =
    &["topic", "partition", "segment", "state", "bytes", "tombstones_until", "why"];
/// A timestamp further ahead than this is no matter of clocks that differ a little.
const FUTURE_MS: i64 = 60 * 60 * 1000;

const EXAMPLES: &str = "\
Examples:
  highwater segment explain retention highwater-data   when each segment is deleted, why not yet
  highwater segment explain retention highwater-data/orders-0 -c retention.ms=3600000
  highwater segment explain compaction highwater-data --topic users
  highwater segment explain compaction /var/lib/kafka/users-0 -c cleanup.policy=compact
";

#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// What is explained
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    paths: PathArgs,
    /// Explain as if the topics had this setting
    #[arg(short, long = "config", value_name = "KEY=VALUE")]
    config: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What may be explained.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum What {
    /// When segments are deleted for their age or the log's size.
    Retention,
    /// When segments are compacted.
    Compaction,
}

/// Explains.
pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let partitions = super::find(&args.paths)?;
    let now = time::now();
    let mut known = BTreeMap::new();
    let columns = if args.what == What::Retention { RETENTION_COLUMNS } else { COMPACTION_COLUMNS };
    let mut rows = Rows::new(columns);
    // The broker's metadata is no topic: snapshots replace it, whatever its age.
    for files in partitions.iter().filter(|files| files.topic != super::METADATA_TOPIC) {
        let Some(dir) = files.segments.first().and_then(|first| first.path.parent()) else { continue };
        let data = dir.parent().unwrap_or(dir);
        let topics = known.entry(data.to_owned()).or_insert_with(|| settings::topics(data));
        let settings = Settings::new(topics.get(&files.topic), &args.config)?;
        let log =
            open(files, dir, data, &settings, now).with_context(|| format!("open {}", dir.display()))?;
        match args.what {
            What::Retention => retention(files, &log, &settings, now, &mut rows)?,
            What::Compaction => compaction(files, &log, &settings, now, &mut rows)?,
        }
    }
    rows.print(args.output.output)?;
    Ok(ExitCode::SUCCESS)
}

/// Opens a log without changing a file.
fn open(
    files: &PartitionFiles,
    dir: &Path,
    data: &Path,
    settings: &Settings,
    now: TimestampMs,
) -> Result<Log> {
    let of_checkpoint = || {
        let LoadedCheckpoint::Found(checkpoint) = CheckpointFile::new(Arc::new(DiskFiles), data).load()
        else {
            return None;
        };
        let (topic, partition) = (TopicName::new(&files.topic).ok()?, PartitionId::new(files.partition)?);
        checkpoint.partitions.get(&TopicPartition { topic, partition }).map(|known| known.log)
    };
    let bound =
        |segment: Option<&super::files::SegmentFile>| segment.map_or(Offset::ZERO, |found| found.base);
    let (first, last) = (bound(files.segments.first()), bound(files.segments.last()));
    let sealed = LogCheckpoint { log_start: first, recovery_point: last, high_watermark: last };
    let known = of_checkpoint().unwrap_or(sealed);
    let layer = Arc::new(ReadOnlyFiles::new(Arc::new(DiskFiles)));
    let (log, _) = Log::open(layer, dir.to_owned(), settings.log()?, Some(known), now)?;
    Ok(log)
}

fn retention(
    files: &PartitionFiles,
    log: &Log,
    settings: &Settings,
    now: TimestampMs,
    rows: &mut Rows,
) -> Result<()> {
    let rolls_at = log.rolls_at();
    for outlook in log.outlook(settings.retention()?) {
        let goes_at = goes_at(&outlook, now);
        rows.push(vec![
            json!(files.topic),
            json!(files.partition),
            json!(format!("{:020}", outlook.base.get())),
            json!(state(&outlook)),
            json!(outlook.bytes),
            json!(outlook.ages_from().map(time::readable)),
            json!(goes_at.map(time::readable)),
            json!(why(&outlook, settings, rolls_at, now)),
        ]);
    }
    Ok(())
}

const fn state(outlook: &SegmentOutlook) -> &'static str {
    match (outlook.is_damaged, outlook.is_active) {
        (true, _) => "damaged",
        (false, true) => "active",
        (false, false) => "sealed",
    }
}

/// From when on a pass takes a segment: now, if the log is too large.
fn goes_at(outlook: &SegmentOutlook, now: TimestampMs) -> Option<TimestampMs> {
    if outlook.goes_after_bytes == Some(0) { Some(now) } else { outlook.goes_at }
}

/// Why a segment goes when it goes, or stays.
fn why(
    outlook: &SegmentOutlook,
    settings: &Settings,
    rolls_at: Option<TimestampMs>,
    now: TimestampMs,
) -> String {
    let mut reasons = Vec::new();
    let age = settings.value("retention.ms");
    if settings.retention().is_ok_and(|kept| kept == highwater_storage::Retention::default()) {
        reasons.push(match settings.is_compacted() {
            true => "stays: cleanup.policy=compact deletes nothing for its age or size".to_owned(),
            false => "stays: retention.ms=-1 and retention.bytes=-1".to_owned(),
        });
    }
    match outlook.goes_after_bytes {
        Some(0) => reasons.push(format!(
            "the next pass takes it: the log is larger than retention.bytes={}",
            settings.value("retention.bytes")
        )),
        Some(bytes) => reasons.push(format!("goes for its size when {bytes} more bytes were appended")),
        None => {}
    }
    let by_age = outlook.goes_at.filter(|_| outlook.goes_after_bytes != Some(0));
    if let (Some(at), Some(since)) = (by_age, outlook.ages_from()) {
        let is_append = outlook.max_timestamp.is_none_or(|largest| largest > since);
        let anchor = if is_append { "last append" } else { "largest time" };
        if at.0 > since.0.saturating_add(age.parse().unwrap_or(0)).saturating_add(1) {
            reasons.push("waits for the segments before it, since only the oldest go".to_owned());
        } else if at <= now {
            reasons.push(format!("the next pass takes it: {anchor} + retention.ms={age} has passed"));
        } else {
            reasons.push(format!("{anchor} + retention.ms={age}"));
        }
    }
    if let Some(largest) = outlook.max_timestamp.filter(|at| at.0.saturating_sub(now.0) > FUTURE_MS) {
        reasons.push(format!(
            "has a record from the future ({}): Apache Kafka would keep it until then",
            time::readable(largest)
        ));
    }
    if let Some(at) = rolls_at.filter(|_| outlook.is_active) {
        reasons.push(format!("rolls {} at the latest (segment.ms)", time::readable(at)));
    }
    reasons.join("; ")
}

fn compaction(
    files: &PartitionFiles,
    log: &Log,
    settings: &Settings,
    now: TimestampMs,
    rows: &mut Rows,
) -> Result<()> {
    let name = format!("{}-{}", files.topic, files.partition);
    let states: BTreeMap<Offset, DirtState> = match log.dirt() {
        Some(dirt) => {
            let dirtiness = dirt.look(now).context("look at what is dirty")?;
            let needed = settings.value("min.cleanable.dirty.ratio");
            let verdict = match (dirtiness.is_eligible(), dirtiness.is_due) {
                (true, true) => "the next pass compacts it: max.compaction.lag.ms has passed",
                (true, false) => "the next pass compacts it",
                (false, _) if dirtiness.dirty_bytes == 0 => "not compacted: nothing is dirty",
                (false, _) => "not compacted: too little of it is dirty",
            };
            note(format_args!(
                "{name}: {verdict}; dirty ratio {:.2}, more than {needed} is needed ({} of {} bytes)",
                dirtiness.ratio().get(),
                dirtiness.dirty_bytes,
                dirtiness.total_bytes
            ));
            dirt.states(now).into_iter().collect()
        }
        None => {
            note(format_args!(
                "{name}: not compacted: cleanup.policy is {}",
                settings.value("cleanup.policy")
            ));
            BTreeMap::new()
        }
    };
    for outlook in log.outlook(settings.retention()?) {
        let known = states.get(&outlook.base);
        let (state, why) = compaction_state(&outlook, known, settings, log.rolls_at());
        let path = files.segments.iter().find(|segment| segment.base == outlook.base);
        let until = path.map(|segment| tombstones(&segment.path)).transpose()?.flatten();
        rows.push(vec![
            json!(files.topic),
            json!(files.partition),
            json!(format!("{:020}", outlook.base.get())),
            json!(state),
            json!(outlook.bytes),
            until.map_or(Value::Null, |until| json!(time::readable(until))),
            json!(why),
        ]);
    }
    Ok(())
}

/// What compaction thinks of a segment, and why.
fn compaction_state(
    outlook: &SegmentOutlook,
    known: Option<&DirtState>,
    settings: &Settings,
    rolls_at: Option<TimestampMs>,
) -> (&'static str, String) {
    let lag = settings.value("min.compaction.lag.ms");
    match known {
        Some(DirtState::Clean) => ("clean", "it has been compacted".to_owned()),
        Some(DirtState::Dirty) => ("dirty", "a pass would compact it".to_owned()),
        Some(DirtState::Young) => {
            ("young", format!("its newest record is younger than min.compaction.lag.ms={lag}"))
        }
        Some(DirtState::Behind) => ("waits", "it waits for a younger segment before it".to_owned()),
        None if outlook.is_damaged => {
            ("damaged", "damage blocks it and what follows: highwater segment repair".to_owned())
        }
        None if outlook.is_active => {
            let rolls = rolls_at.map(|at| format!("; it rolls {} at the latest", time::readable(at)));
            ("active", format!("the active segment is never compacted{}", rolls.unwrap_or_default()))
        }
        None if !settings.is_compacted() => ("kept", "the topic is not compacted".to_owned()),
        None => ("blocked", "it follows a segment that is damaged, or is not durable yet".to_owned()),
    }
}

/// When the last tombstones that a pass has met may go.
fn tombstones(path: &Path) -> Result<Option<TimestampMs>> {
    let scan = SegmentScan::open(path).with_context(|| format!("read {}", path.display()))?;
    // A fault is told elsewhere.
    Ok(scan.map_while(Result::ok).filter_map(|batch| batch.header.delete_horizon()).max())
}

#[cfg(test)]
mod tests;
