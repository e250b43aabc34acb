//! `segment ls`: one row per segment.
//!
//! By default a segment of any size costs a few reads: its first batch, what lies behind the last entry of its index,
//! and the manifest. What that does not tell is left empty, never guessed. With `--deep` every batch is read and its
//! checksum compared, and nothing is left empty.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context, Result};
use highwater_record::{MessageFormat, Offset, TimestampMs};
use highwater_storage::{
    Crcs, DamageKind, Piece, SalvageScan, ScannedBatch, SealedSegment, SegmentScan, read_manifest,
};
use serde_json::{Value, json};

use super::files::{PartitionFiles, SegmentFile};
use super::index::{self, IndexState};
use super::index_check::IndexChecks;
use super::parallel::{self, Sink};
use super::progress::Progress;
use super::seek;
use super::sidecars;
use crate::failure::PROBLEMS;
use crate::output::{OutputFormat, Rows, note};
use crate::time;

/// Bytes behind the last entry of an index that are walked to find the end of a segment. Indexes are denser.
const TAIL_BYTES_MAX: u64 = 16 << 20;

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

/// How closely it is looked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// At the ends.
    Glance,
    /// At every batch.
    Deep,
}

/// What is known of a segment.
#[derive(Default)]
struct Found {
    bytes: u64,
    end: Option<Offset>,
    /// Whether every batch was met: what is empty then is so, and what is not is whole.
    is_whole: bool,
    records: u64,
    first: Option<TimestampMs>,
    last: Option<TimestampMs>,
    codecs: BTreeSet<String>,
    /// What is wrong with the first bytes that are wrong.
    fault: Option<String>,
    indexes: [IndexState; 2],
}

/// Lists segments.
pub(super) fn run(partitions: &[PartitionFiles], look: Look, output: OutputFormat) -> Result<ExitCode> {
    let (rows, problems) = list(partitions, look)?;
    rows.print(output)?;
    if problems > 0 {
        note(format_args!("{problems} problems found; `highwater segment verify` names each"));
        return Ok(ExitCode::from(PROBLEMS));
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows, and how many segments have something wrong with them or with an index.
pub(super) fn list(partitions: &[PartitionFiles], look: Look) -> Result<(Rows, u32)> {
    let mut rows = Rows::new(COLUMNS);
    let mut problems = 0;
    let manifests: Vec<Vec<SealedSegment>> = partitions.iter().map(manifest).collect();
    let pieces: Vec<(&PartitionFiles, &SegmentFile, Option<SealedSegment>)> = (partitions.iter())
        .zip(&manifests)
        .flat_map(|(partition, manifest)| {
            let sealed = |base| manifest.iter().find(|sealed| sealed.base == base).copied();
            partition.segments.iter().map(move |segment| (partition, segment, sealed(segment.base)))
        })
        .collect();
    let bytes = pieces.iter().map(|(_, segment, _)| segment.bytes()).sum();
    let progress = Progress::new("list", bytes);
    let work = |(_, segment, sealed): &(&PartitionFiles, &SegmentFile, Option<SealedSegment>),
                sink: &Sink<Found>| {
        let found = match look {
            Look::Deep => walk(segment),
            Look::Glance => glance(segment, *sealed),
        };
        let found = found.with_context(|| format!("read {}", segment.path.display()))?;
        progress.add(found.bytes);
        let _ = sink.put(found);
        Ok(())
    };
    parallel::in_order(&pieces, parallel::cores(), work, |(partition, segment, _), found| {
        // The tail of a file that a broker appends to may be half written, and its indexes come later.
        let may_change = partition.owner.is_some() && segment.next_base.is_none();
        if let Some(fault) = &found.fault {
            note(format_args!("{}: {fault}", segment.path.display()));
            problems += u32::from(!may_change);
        }
        let wrong = found.indexes.contains(&IndexState::Wrong);
        problems += u32::from(wrong && !may_change);
        rows.push(row(partition, segment, &found, look));
        Ok(ControlFlow::Continue(()))
    })?;
    progress.finish();
    Ok((rows, problems))
}

/// What the manifest says of a partition's sealed segments, if there is one.
fn manifest(partition: &PartitionFiles) -> Vec<SealedSegment> {
    let directory = sidecars::directory(partition);
    let read = directory.and_then(|directory| read_manifest(&directory.join("manifest")).ok());
    read.flatten().unwrap_or_default()
}

/// Reads the ends of a segment.
fn glance(segment: &SegmentFile, sealed: Option<SealedSegment>) -> io::Result<Found> {
    let mut scan = SegmentScan::open(&segment.path)?;
    let mut found = Found { bytes: scan.file_bytes(), ..Found::default() };
    found.indexes = index::shapes(segment);
    let first = scan.next();
    scan.seek(0, segment.base);
    if !seek::seek(&mut scan, segment, Offset::MAX) && found.indexes[0] == IndexState::Unchecked {
        found.indexes[0] = IndexState::Wrong;
    }
    let from = scan.position();
    found.is_whole = from == 0;
    let is_short = found.bytes - from <= TAIL_BYTES_MAX;
    if is_short {
        tail(segment, &mut scan, &mut found);
    } else {
        found.is_whole = false;
    }
    if let Some(Ok(batch)) = first
        && !found.is_whole
    {
        note_first(&batch, &mut found);
    }
    // What lies before the tail has no later time than the last entry of the time index, if it is right.
    if !found.is_whole {
        let before = seek::last_time(segment);
        found.last =
            before.filter(|_| is_short).map(|before| found.last.map_or(before, |last| last.max(before)));
    }
    // The manifest counts while the file is as it was sealed.
    if let Some(sealed) = sealed.filter(|sealed| sealed.bytes == found.bytes && found.fault.is_none()) {
        found.end = found.end.or(Some(sealed.end));
        found.last = found.last.or(Some(sealed.max_timestamp));
    }
    Ok(found)
}

/// Walks to the end of a segment by headers.
fn tail(segment: &SegmentFile, scan: &mut SegmentScan, found: &mut Found) {
    found.end = Some(segment.base);
    while let Some(step) = scan.next() {
        match step {
            Ok(batch) if segment.next_base.is_some_and(|next| batch.header.base_offset >= next) => {
                found.fault = Some(format!("position {}: belongs to the next segment", batch.position));
                return;
            }
            Ok(batch) => note_batch(&batch, found),
            Err(error) => {
                // It is told apart from the end of a preallocated file, which is none.
                let rest = segment_rest(segment, scan);
                if !matches!(rest, Ok(Some(DamageKind::ZeroTail))) || segment.next_base.is_some() {
                    found.fault = Some(error.to_string());
                }
                return;
            }
        }
    }
}

/// What the first damage from where a scan stopped is.
fn segment_rest(segment: &SegmentFile, scan: &SegmentScan) -> io::Result<Option<DamageKind>> {
    let stretch = highwater_storage::Stretch {
        bytes: scan.position()..scan.file_bytes(),
        offsets: scan.next_offset()..segment.next_base.unwrap_or(Offset::MAX),
        is_followed: false,
    };
    let mut rest = SalvageScan::open_stretch(&segment.path, stretch, Crcs::Left)?;
    Ok(rest.find_map(|piece| match piece {
        Ok(Piece::Damaged(damage)) => Some(damage.kind),
        _ => None,
    }))
}

/// Reads every batch.
fn walk(segment: &SegmentFile) -> io::Result<Found> {
    let mut scan = SalvageScan::open(&segment.path, segment.base, segment.next_base, Crcs::Compared)?;
    let mut found = Found { bytes: scan.end_position(), is_whole: true, ..Found::default() };
    let mut end = segment.base;
    let mut indexes = IndexChecks::open(segment)?;
    for piece in &mut scan {
        match piece {
            Ok(Piece::Good(batch)) => {
                indexes.batch(&batch)?;
                note_batch(&batch, &mut found);
                end = batch.header.next_offset();
            }
            Ok(Piece::Damaged(damage)) => {
                indexes.damage(&damage)?;
                end = end.max(damage.to);
                if damage.kind != DamageKind::ZeroTail || segment.next_base.is_some() {
                    let told = || format!("position {}: {}", damage.from_position, damage.cause);
                    found.fault.get_or_insert_with(told);
                }
            }
            Err(error) => {
                found.fault.get_or_insert_with(|| error.to_string());
            }
        }
    }
    found.end = found.end.or(Some(segment.base));
    found.indexes = indexes.finish(end)?;
    Ok(found)
}

fn note_batch(batch: &ScannedBatch, found: &mut Found) {
    let header = &batch.header;
    found.end = Some(header.next_offset());
    found.records += u64::from(header.record_count);
    let attributes = header.attributes;
    let codec = attributes.codec().map_or_else(|| attributes.codec_number().to_string(), |c| c.to_string());
    found.codecs.insert(codec);
    note_first(batch, found);
    if has_times(batch) {
        found.last = found.last.max(Some(header.max_timestamp));
    }
}

/// Messages of format 0 have no timestamps, and the times of a batch without records are nobody's.
fn has_times(batch: &ScannedBatch) -> bool {
    batch.format != MessageFormat::V0 && batch.header.record_count > 0
}

fn note_first(batch: &ScannedBatch, found: &mut Found) {
    let header = &batch.header;
    // A delete horizon stands where the first timestamp would.
    if has_times(batch) && !header.attributes.has_delete_horizon() {
        let first = header.base_timestamp;
        found.first = Some(found.first.map_or(first, |earlier| earlier.min(first)));
    }
}

fn row(partition: &PartitionFiles, segment: &SegmentFile, found: &Found, look: Look) -> Vec<Value> {
    let crc = match (&found.fault, look) {
        (Some(_), _) => "bad",
        (None, Look::Glance) => "unchecked",
        (None, Look::Deep) => "ok",
    };
    let moment = |timestamp: Option<TimestampMs>| json!(timestamp.map(time::readable));
    let codecs: Vec<&String> = found.codecs.iter().collect();
    vec![
        json!(partition.topic),
        json!(partition.partition),
        json!(format!("{:020}", segment.base.get())),
        json!(if segment.next_base.is_some() { "sealed" } else { "active" }),
        json!(segment.base.get()),
        json!(found.end.map(Offset::get)),
        json!(found.is_whole.then_some(found.records)),
        json!(found.bytes),
        moment(found.first),
        moment(found.last),
        json!(found.is_whole.then_some(codecs)),
        json!(crc),
        json!(found.indexes[0].name()),
        json!(found.indexes[1].name()),
    ]
}
