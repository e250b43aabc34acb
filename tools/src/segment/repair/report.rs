//! What a repair did, for whoever has to answer for it: JSON, complete, next to what was written.

use std::path::Path;

use serde_json::{Value, json};

use super::plan::{Loss, Plan, SegmentPlan};

/// Name of the file.
pub(super) const FILE_NAME: &str = "repair-report.json";

/// What was done about the plans.
#[derive(Clone, Copy, Debug)]
pub(super) enum Done<'a> {
    /// A copy was written here.
    Copied(&'a Path),
    /// Files were replaced; the originals are here.
    Replaced(&'a Path),
}

/// The report about partitions.
pub(super) fn of(plans: &[Plan], done: Done<'_>) -> Vec<u8> {
    let (verb, place) = match done {
        Done::Copied(to) => ("copied_to", to),
        Done::Replaced(undo) => ("originals_in", undo),
    };
    let partitions: Vec<_> = plans.iter().map(partition).collect();
    let report = json!({ "version": 1, verb: place.display().to_string(), "partitions": partitions });
    let mut bytes = format!("{report:#}").into_bytes();
    bytes.push(b'\n');
    bytes
}

fn partition(plan: &Plan) -> Value {
    json!({
        "topic": plan.topic,
        "partition": plan.partition,
        "source": plan.dir.display().to_string(),
        "lost": plan.losses.iter().map(loss).collect::<Vec<_>>(),
        "segments": plan.segments.iter().map(segment).collect::<Vec<_>>(),
    })
}

fn loss(loss: &Loss) -> Value {
    json!({
        "file": loss.path.display().to_string(),
        "action": loss.action,
        "from_position": loss.bytes.start,
        "to_position": loss.bytes.end,
        "from_offset": loss.offsets.start.get(),
        "to_offset": loss.offsets.end.get(),
        "empty_batch": loss.filled,
        "cause": loss.cause,
    })
}

fn segment(segment: &SegmentPlan) -> Value {
    json!({
        "file": segment.file.path.display().to_string(),
        "bytes": segment.bytes,
        "kept_bytes": segment.kept_bytes,
        "kept_records": segment.kept_records,
        "rewritten": segment.is_rewritten() || segment.goes,
        "indexes_rebuilt": segment.is_reindexed(),
    })
}
