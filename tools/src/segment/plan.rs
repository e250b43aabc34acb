//! What `segment verify` reads in which pieces: segments, and stretches of the large ones, so that all cores have work.
//!
//! A stretch begins where an entry of the offset index leads to a good batch; without an index a segment is one piece.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use highwater_record::{BatchHeader, HEADER_BYTES, Offset};
use highwater_storage::{SegmentScan, Stretch, read_offset_index};

use super::check::{Depth, Part};
use super::fault::{Fault, Kind, Severity};
use super::files::{PartitionFiles, SegmentFile};
use super::sidecars::Known;

/// Bytes of a stretch. In tests a few batches, so that what holds for a segment is seen to hold for its stretches.
const STRETCH_BYTES: u64 = if cfg!(test) { 300 } else { 128 << 20 };

/// The parts of a partition's segments, and what names and first batches tell.
pub(super) fn parts<'a>(
    partition: &'a PartitionFiles,
    known: &'a Known,
    depth: Depth,
) -> (Vec<Part<'a>>, Vec<Fault>) {
    let (mut parts, mut faults) = (Vec::new(), Vec::new());
    for segment in &partition.segments {
        let is_active = segment.next_base.is_none();
        // The active segment is never compacted.
        let gaps = if is_active { Severity::Error.min(known.gaps_of_active) } else { known.gaps };
        let from = match misnamed(segment, gaps) {
            Some(first) => {
                let what =
                    format!("the file is named for offset {}, its first batch has {first}", segment.base);
                let fault = Fault::new(Kind::WrongName, &segment.path, what).at(0).with_severity(gaps);
                let right = segment.path.with_file_name(format!("{first:020}.log"));
                let command =
                    format!("mv -n {} {}", super::fault::quoted(&segment.path), super::fault::quoted(&right));
                faults.push(fault.of(first, first.advance(1)).fixed_by(command));
                first
            }
            None => segment.base,
        };
        let is_live = is_active && partition.owner.is_some();
        for stretch in stretches(segment, from, depth) {
            parts.push(Part { segment, base: from, stretch, is_live, gaps, epochs: &known.epochs, depth });
        }
    }
    (parts, faults)
}

/// The offset that a segment begins with, if that is not the one in its name. A batch which the next one does not follow
/// says nothing of the name, nor one behind a gap that compaction may have left.
fn misnamed(segment: &SegmentFile, gaps: Severity) -> Option<Offset> {
    let file = File::open(&segment.path).ok()?;
    let first = header(&file, 0)?;
    if first.base_offset == segment.base || (first.base_offset > segment.base && gaps == Severity::Note) {
        return None;
    }
    let follows = match header(&file, first.size_bytes.into()) {
        Some(second) => second.base_offset == first.next_offset(),
        None => file.metadata().is_ok_and(|metadata| metadata.len() == u64::from(first.size_bytes)),
    };
    follows.then_some(first.base_offset)
}

fn header(file: &File, position: u64) -> Option<BatchHeader> {
    let mut head = [0; HEADER_BYTES];
    file.read_exact_at(&mut head, position).ok()?;
    BatchHeader::parse(&head).ok()
}

/// The stretches of a segment.
fn stretches(segment: &SegmentFile, from: Offset, depth: Depth) -> Vec<Stretch> {
    let bytes = segment.bytes();
    let mut starts = vec![(0, from)];
    if depth != Depth::Fast && bytes > 2 * STRETCH_BYTES {
        // Without them it is one piece.
        starts.extend(boundaries(&segment.path, segment.base, bytes).unwrap_or_default());
    }
    let end = segment.next_base.unwrap_or(Offset::MAX).max(from);
    let ends = starts.iter().skip(1).map(|start| (start.0, start.1, true)).chain([(bytes, end, false)]);
    let stretch = |(start, end): (&(u64, Offset), (u64, Offset, bool))| Stretch {
        bytes: start.0..end.0,
        offsets: start.1..end.1,
        is_followed: end.2,
    };
    starts.iter().zip(ends).map(stretch).collect()
}

/// Where good batches begin, about every [`STRETCH_BYTES`].
fn boundaries(log: &Path, base: Offset, bytes: u64) -> io::Result<Vec<(u64, Offset)>> {
    let index = read_offset_index(&log.with_extension("index"))?;
    let mut scan = SegmentScan::open(log)?;
    let (mut found, mut wanted): (Vec<(u64, Offset)>, u64) = (Vec::new(), STRETCH_BYTES);
    for entry in &index.entries {
        let position = u64::from(entry.position);
        if position < wanted || position >= bytes {
            continue;
        }
        scan.seek(position, base);
        let Some(Ok(batch)) = scan.next() else { continue };
        let first = batch.header.base_offset;
        let is_named = first <= base.advance(entry.relative_offset.into());
        let ascends = found.last().is_none_or(|last| last.1 < first);
        if is_named && ascends && scan.read(&batch).is_ok() {
            found.push((position, first));
            wanted = position + STRETCH_BYTES;
        }
    }
    Ok(found)
}

/// When a segment was written last, ms since 1970; `None` if the file system does not know.
pub(super) fn modified(segment: &SegmentFile) -> Option<i64> {
    let modified = fs::metadata(&segment.path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}
