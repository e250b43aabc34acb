//! `segment cat`: the records of segments, by the grammar and the formats of `consume`.
//!
//! Indexes are used to get near the start. Every batch that is printed has its checksum compared first; the first that
//! fails ends its partition, loudly, since what follows cannot be trusted to follow. The log is taken to begin where
//! its files do: records below a log start that DeleteRecords moved are printed too.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use highwater_record::{DecodeLimits, Offset, PartitionId, TimestampMs};
use highwater_storage::ScanError;

use super::files::PartitionFiles;
use super::index;
use crate::consume::SelectionArgs;
use crate::failure::{Failure, PROBLEMS};
use crate::offset_spec::{OffsetSpec, Start, Stop};
use crate::output::note;
use crate::printer::Printer;
use crate::record_view::{LogState, RecordView};
use crate::resolve::{self, Ends, Range, Times};

/// How far a batch may be decompressed.
const LIMITS: DecodeLimits = DecodeLimits { bytes_max: 256 << 20, ratio_max: 1000 };

/// Prints records.
pub(super) fn run(partitions: &[PartitionFiles], what: &SelectionArgs) -> Result<ExitCode> {
    let spec = what.spec()?;
    let mut cat = Cat { printer: what.printer()?, left: what.limit(), problems: 0 };
    let chosen: Vec<&PartitionFiles> = partitions
        .iter()
        .filter(|partition| what.partitions.is_empty() || what.partitions.contains(&partition.partition))
        .collect();
    if chosen.is_empty() {
        return Err(Failure::not_found("none of the partitions of -p is here").into());
    }
    let mut outcome = Ok(());
    for partition in chosen {
        outcome = cat.partition(partition, &spec);
        if outcome.is_err() || cat.left == Some(0) {
            break;
        }
    }
    // JSON is closed whatever happened, so that it stays valid.
    cat.printer.finish()?;
    outcome?;
    Ok(if cat.problems > 0 { ExitCode::from(PROBLEMS) } else { ExitCode::SUCCESS })
}

/// Printing, and what came of it.
pub(super) struct Cat<W: Write> {
    pub(super) printer: Printer<W>,
    pub(super) left: Option<u64>,
    pub(super) problems: u32,
}

impl<W: Write> Cat<W> {
    /// Prints a partition.
    pub(super) fn partition(&mut self, files: &PartitionFiles, spec: &OffsetSpec) -> Result<()> {
        let Some(range) = range(files, spec)? else { return Ok(()) };
        for segment in &files.segments {
            if segment.next_base.is_some_and(|next| next <= range.start)
                || range.stop.is_some_and(|stop| segment.base >= stop)
            {
                continue;
            }
            let fault = self
                .segment(files, segment, &range)
                .with_context(|| format!("print {}", segment.path.display()))?;
            if let Some(fault) = fault {
                if files.owner.is_some() && segment.next_base.is_none() {
                    note(format_args!("{}: ends at a batch that is not whole yet", segment.path.display()));
                } else {
                    note(format_args!("{}: {fault}; nothing after it is printed", segment.path.display()));
                    self.problems += 1;
                }
                return Ok(());
            }
            if self.left == Some(0) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Prints a segment's part of `range`, and says what made it end early.
    fn segment(
        &mut self,
        files: &PartitionFiles,
        segment: &super::files::SegmentFile,
        range: &Range,
    ) -> Result<Option<String>> {
        let (mut scan, belongs) = index::open_at(segment, range.start)?;
        while let Some(step) = scan.next() {
            let batch = match step {
                Ok(batch) => batch,
                Err(error) => return Ok(Some(error.to_string())),
            };
            let header = batch.header;
            if !belongs(&batch) || range.stop.is_some_and(|stop| header.base_offset >= stop) {
                return Ok(None);
            }
            if header.last_offset() < range.start || header.attributes.is_control() {
                continue;
            }
            let whole = match scan.read(&batch) {
                Ok(whole) => whole,
                Err(error) => return Ok(Some(error.to_string())),
            };
            let records = match whole.decompress(LIMITS) {
                Ok(records) => records,
                Err(error) => return Ok(Some(format!("position {}: {error}", batch.position))),
            };
            for record in records.records() {
                let record = match record {
                    Ok(record) => record,
                    Err(error) => return Ok(Some(format!("position {}: {error}", batch.position))),
                };
                if record.offset < range.start {
                    continue;
                }
                if self.left == Some(0) || range.stop.is_some_and(|stop| record.offset >= stop) {
                    return Ok(None);
                }
                let log =
                    LogState { start: files.segments[0].base.get(), last_stable: -1, high_watermark: -1 };
                let (topic, partition) = (files.topic.as_str(), files.partition);
                self.printer.print(&RecordView { topic, partition, record: &record, batch: &header, log })?;
                self.left = self.left.map(|left| left - 1);
            }
        }
        Ok(None)
    }
}

/// What is to be printed of a partition; nothing if it has no segments.
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
    let (mut scan, belongs) = index::open_at(last, Offset::MAX)?;
    let mut end = last.base;
    while let Some(Ok(batch)) = scan.next() {
        if !belongs(&batch) {
            break;
        }
        end = batch.header.next_offset();
    }
    Ok(end)
}

/// The first record at `timestamp` or later, by offset. Segments are walked from where their time index allows.
fn at_time(files: &PartitionFiles, timestamp: TimestampMs) -> Result<Option<Offset>> {
    for segment in &files.segments {
        let (mut scan, belongs) = index::open_at(segment, index::before_time(segment, timestamp))?;
        while let Some(step) = scan.next() {
            // A fault is told when the records are printed.
            let Ok(batch) = step else { break };
            if !belongs(&batch) {
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
