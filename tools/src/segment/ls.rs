//! `segment ls`: one row per segment. Every batch is walked, and its checksum compared unless that is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context, Result};
use highwater_record::{MessageFormat, Offset, TimestampMs};
use highwater_storage::SegmentScan;
use serde_json::{Value, json};

use super::files::{PartitionFiles, SegmentFile};
use super::index::{self, IndexState};
use super::parallel::{self, Sink};
use super::progress::Progress;
use crate::failure::PROBLEMS;
use crate::output::{OutputFormat, Rows, note};
use crate::time;

const COLUMNS: &[&str] = &[
    "topic",
    "partition",
    "segment",
    "state",
    "start",
    "end",
    "records",
    "bytes",
    "first_ts",
    "last_ts",
    "codec",
    "crc",
    "index",
    "timeindex",
];

/// What a walk over a segment found.
#[derive(Default)]
struct Found {
    end: Offset,
    records: u64,
    first: Option<TimestampMs>,
    last: Option<TimestampMs>,
    codecs: BTreeSet<String>,
    /// Base offset by position.
    batches: BTreeMap<u64, Offset>,
    bytes: u64,
    /// What is wrong with the first batch that is wrong.
    fault: Option<String>,
}

/// Lists segments.
pub(super) fn run(partitions: &[PartitionFiles], fast: bool, output: OutputFormat) -> Result<ExitCode> {
    let (rows, problems) = list(partitions, fast)?;
    rows.print(output)?;
    if problems > 0 {
        note(format_args!("{problems} problems found"));
        return Ok(ExitCode::from(PROBLEMS));
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows, and how many segments have something wrong with them or with an index.
pub(super) fn list(partitions: &[PartitionFiles], fast: bool) -> Result<(Rows, u32)> {
    let mut rows = Rows::new(COLUMNS);
    let mut problems = 0;
    let pieces: Vec<(&PartitionFiles, &SegmentFile)> = (partitions.iter())
        .flat_map(|partition| partition.segments.iter().map(move |segment| (partition, segment)))
        .collect();
    let bytes = pieces.iter().map(|(_, segment)| segment.bytes()).sum();
    let progress = Progress::new("list", bytes);
    let work = |piece: &(&PartitionFiles, &SegmentFile), sink: &Sink<Looked>| {
        let looked = look(piece.1, fast)?;
        progress.add(looked.found.bytes);
        let _ = sink.put(looked);
        Ok(())
    };
    parallel::in_order(&pieces, parallel::cores(), work, |(partition, segment), looked| {
        let Looked { found, indexes } = looked;
        // The tail of a file that a broker appends to may be half written, and its indexes come later.
        let may_change = partition.owner.is_some() && segment.next_base.is_none();
        if let Some(fault) = &found.fault {
            note(format_args!("{}: {fault}", segment.path.display()));
            problems += u32::from(!may_change);
        }
        let wrong = indexes.contains(&IndexState::Wrong);
        problems += u32::from(wrong && !may_change);
        rows.push(row(partition, segment, &found, fast, indexes));
        Ok(ControlFlow::Continue(()))
    })?;
    progress.finish();
    Ok((rows, problems))
}

/// What is known of a segment and its indexes.
struct Looked {
    found: Found,
    indexes: [IndexState; 2],
}

fn look(segment: &SegmentFile, fast: bool) -> Result<Looked> {
    let found = walk(segment, fast).with_context(|| format!("read {}", segment.path.display()))?;
    let indexes =
        [index::check_offsets(segment, &found.batches, found.end), index::check_times(segment, found.end)];
    Ok(Looked { found, indexes })
}

fn walk(segment: &SegmentFile, fast: bool) -> std::io::Result<Found> {
    let mut scan = SegmentScan::open(&segment.path)?;
    let mut found = Found { end: segment.base, bytes: scan.file_bytes(), ..Found::default() };
    while let Some(step) = scan.next() {
        let batch = match step {
            Ok(batch) => batch,
            Err(error) => {
                found.fault = Some(error.to_string());
                break;
            }
        };
        let header = &batch.header;
        if segment.next_base.is_some_and(|next| header.base_offset >= next) {
            found.fault = Some(format!("position {}: belongs to the next segment", batch.position));
            break;
        }
        if !fast && let Err(error) = scan.read(&batch) {
            found.fault.get_or_insert_with(|| error.to_string());
        }
        found.end = header.next_offset();
        found.records += u64::from(header.record_count);
        found.batches.insert(batch.position, header.base_offset);
        let attributes = header.attributes;
        let codec =
            attributes.codec().map_or_else(|| attributes.codec_number().to_string(), |c| c.to_string());
        found.codecs.insert(codec);
        // Messages of format 0 have no timestamps.
        if batch.format == MessageFormat::V0 {
            continue;
        }
        // A delete horizon stands where the first timestamp would.
        if !attributes.has_delete_horizon() {
            found.first = Some(found.first.map_or(header.base_timestamp, |t| t.min(header.base_timestamp)));
        }
        found.last = found.last.max(Some(header.max_timestamp));
    }
    Ok(found)
}

fn row(
    partition: &PartitionFiles,
    segment: &SegmentFile,
    found: &Found,
    fast: bool,
    [offsets, times]: [IndexState; 2],
) -> Vec<Value> {
    let crc = match (&found.fault, fast) {
        (Some(_), _) => "bad",
        (None, true) => "unchecked",
        (None, false) => "ok",
    };
    let moment = |timestamp: Option<TimestampMs>| json!(timestamp.map(time::readable));
    vec![
        json!(partition.topic),
        json!(partition.partition),
        json!(format!("{:020}", segment.base.get())),
        json!(if segment.next_base.is_some() { "sealed" } else { "active" }),
        json!(segment.base.get()),
        json!(found.end.get()),
        json!(found.records),
        json!(found.bytes),
        moment(found.first),
        moment(found.last),
        json!(found.codecs.iter().cloned().collect::<Vec<_>>()),
        json!(crc),
        json!(offsets.name()),
        json!(times.name()),
    ]
}
