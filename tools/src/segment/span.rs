//! What `-o` means for the files of a partition. Segments are chosen by name and entered by their indexes, so that the
//! first and the last one are all that is touched, and those that a time lies in.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use highwater_record::{DecodeLimits, Offset, PartitionId, TimestampMs};
use highwater_storage::ScanError;

use super::files::PartitionFiles;
use super::seek;
use crate::consume::SelectionArgs;
use crate::failure::Failure;
use crate::offset_spec::{OffsetSpec, Start, Stop};
use crate::resolve::{self, Ends, Range, Times};

/// How far a batch may be decompressed.
pub(super) const LIMITS: DecodeLimits = DecodeLimits::STORED;

/// The partitions of `-p`.
pub(super) fn chosen<'a>(
    partitions: &'a [PartitionFiles],
    what: &SelectionArgs,
) -> Result<Vec<&'a PartitionFiles>> {
    let is_chosen = |partition: &&PartitionFiles| {
        what.partitions.is_empty() || what.partitions.contains(&partition.partition)
    };
    let chosen: Vec<&PartitionFiles> = partitions.iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        return Err(Failure::not_found("none of the partitions of -p is here").into());
    }
    Ok(chosen)
}

/// What is to be read of a partition; nothing if it has no segments.
pub(super) fn range(files: &PartitionFiles, spec: &OffsetSpec) -> Result<Option<Range>> {
    let Some(first) = files.segments.first() else { return Ok(None) };
    let ends = Ends { start: first.base, end: end(files)? };
    // Directories that are not named like a partition count as partition 0 for a cursor.
    let id = PartitionId::new(files.partition).unwrap_or(PartitionId::ZERO);
    let mut times = Times::default();
    if let OffsetSpec::Range { start, stop } = spec {
        if let Start::Time(time) = start {
            times.start = BTreeMap::from([(id, at_time(files, *time)?)]);
        }
        if let Stop::Time(time) = stop {
            times.stop = BTreeMap::from([(id, at_time(files, *time)?)]);
        }
    }
    let range = resolve::range_of(spec, id, ends, &times, false);
    let range =
        range.map_err(|error| Failure::failed(format!("{}-{} {error}", files.topic, files.partition)))?;
    Ok(Some(range))
}

/// The offset after the last whole batch.
fn end(files: &PartitionFiles) -> Result<Offset> {
    let Some(last) = files.segments.last() else { return Ok(Offset::ZERO) };
    let mut scan =
        seek::open_at(last, Offset::MAX).with_context(|| format!("open {}", last.path.display()))?;
    let mut end = last.base;
    while let Some(Ok(batch)) = scan.next() {
        if !seek::belongs(last, &batch) {
            break;
        }
        end = batch.header.next_offset();
    }
    Ok(end)
}

/// The first record at `timestamp` or later, by offset. Segments are walked from where their time index allows.
fn at_time(files: &PartitionFiles, timestamp: TimestampMs) -> Result<Option<Offset>> {
    for segment in &files.segments {
        let mut scan = seek::open_at(segment, seek::before_time(segment, timestamp))
            .with_context(|| format!("open {}", segment.path.display()))?;
        while let Some(step) = scan.next() {
            // A fault is told when the records are printed.
            let Ok(batch) = step else { break };
            if !seek::belongs(segment, &batch) {
                break;
            }
            if batch.header.max_timestamp < timestamp || batch.header.attributes.is_control() {
                continue;
            }
            match scan.read(&batch).map(|whole| whole.first_at_or_after(timestamp, LIMITS)) {
                Ok(Ok(Some((offset, _)))) => return Ok(Some(offset)),
                Ok(Ok(None)) => {}
                Ok(Err(_)) | Err(ScanError::Fault { .. }) => break,
                Err(error @ ScanError::Io { .. }) => return Err(error.into()),
            }
        }
    }
    Ok(None)
}
