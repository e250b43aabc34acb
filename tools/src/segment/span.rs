//! What `-o` means for the files of a partition. Segments are chosen by name and entered by their indexes, so that the
//! first and the last one are all that is touched, and those that a time lies in.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use highwater_record::{DecodeLimits, Offset, PartitionId, TimestampMs};
use highwater_storage::{Crcs, Piece, ScanError};

use super::files::PartitionFiles;
use super::{seek, walk};
use crate::consume::SelectionArgs;
use crate::failure::Failure;
use crate::offset_spec::{OffsetSpec, Start, Stop};
use crate::resolve::{self, Ends, Range, Times};

/// How far a batch may be decompressed.
pub(super) const LIMITS: DecodeLimits = DecodeLimits::STORED;

/// The partitions of `-p`. All that it and a cursor name must be here: a slip in a number must not read another
/// partition, nor fewer than were asked for.
pub(super) fn chosen<'a>(
    partitions: &'a [PartitionFiles],
    what: &SelectionArgs,
    spec: &OffsetSpec,
) -> Result<Vec<&'a PartitionFiles>> {
    let in_cursor: Vec<i32> = match spec {
        OffsetSpec::Cursor(cursor) => cursor.keys().map(|partition| partition.get()).collect(),
        OffsetSpec::Range { .. } => Vec::new(),
    };
    let number = |files: &PartitionFiles| id(files).get();
    if let Some(missing) = what
        .partitions
        .iter()
        .chain(&in_cursor)
        .find(|wanted| !partitions.iter().any(|files| number(files) == **wanted))
    {
        return Err(Failure::not_found(format!("partition {missing} is not here")).into());
    }
    let is_chosen =
        |files: &&PartitionFiles| what.partitions.is_empty() || what.partitions.contains(&number(files));
    Ok(partitions.iter().filter(is_chosen).collect())
}

/// Directories that are not named like a partition count as partition 0.
fn id(files: &PartitionFiles) -> PartitionId {
    PartitionId::new(files.partition).unwrap_or(PartitionId::ZERO)
}

/// What is to be read of a partition; nothing if it has no segments.
pub(super) fn range(files: &PartitionFiles, spec: &OffsetSpec) -> Result<Option<Range>> {
    let Some(first) = files.segments.first() else { return Ok(None) };
    let ends = Ends { start: first.base, end: end(files)? };
    let id = id(files);
    let mut times = Times::default();
    if let OffsetSpec::Range { start, stop } = spec {
        if let Start::Time(time) = start {
            times.start = BTreeMap::from([(id, at_time(files, *time)?.start())]);
        }
        if let Stop::Time(time) = stop {
            times.stop = BTreeMap::from([(id, at_time(files, *time)?.record)]);
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

/// Where a time is in a partition.
struct Moment {
    /// The first record at the time or later, by offset.
    record: Option<Offset>,
    /// The first damage before it, in which there may have been such a record.
    damage: Option<Offset>,
}

impl Moment {
    /// Where to start. Damage is where to start as well: whoever reads there tells of it.
    fn start(&self) -> Option<Offset> {
        self.damage.or(self.record)
    }
}

/// Finds a time. Segments are walked from where their time index allows, past damage.
fn at_time(files: &PartitionFiles, timestamp: TimestampMs) -> Result<Moment> {
    let mut damage = None;
    for segment in &files.segments {
        let mut scan = walk::open(segment, seek::before_time(segment, timestamp), Crcs::Left)
            .with_context(|| format!("open {}", segment.path.display()))?;
        while let Some(piece) = scan.next() {
            let batch = match piece.with_context(|| format!("read {}", segment.path.display()))? {
                Piece::Good(batch) => batch,
                Piece::Damaged(lost) => {
                    damage = damage.or(walk::is_loss(&lost).then_some(lost.from));
                    continue;
                }
            };
            if batch.header.max_timestamp < timestamp || batch.header.attributes.is_control() {
                continue;
            }
            match scan.read(&batch).map(|whole| whole.first_at_or_after(timestamp, LIMITS)) {
                Ok(Ok(Some((offset, _)))) => return Ok(Moment { record: Some(offset), damage }),
                Ok(Ok(None)) => {}
                Ok(Err(_)) | Err(ScanError::Fault { .. }) => {
                    damage = damage.or(Some(batch.header.base_offset))
                }
                Err(error @ ScanError::Io { .. }) => return Err(error.into()),
            }
        }
    }
    Ok(Moment { record: None, damage })
}
