//! Segments in pieces of some MiB that begin with a batch, so that a single file keeps all cores at work.
//!
//! Where a piece begins is found by the offset index and confirmed by the header that is there; a segment without an
//! index is one piece.

use anyhow::{Context, Result};
use highwater_record::Offset;
use highwater_storage::{Crcs, SalvageScan, Stretch};

use super::files::{PartitionFiles, SegmentFile};
use super::seek;
use crate::resolve::Range;

/// Size of a piece, about. Tests have small ones, to see their borders.
const PIECE_BYTES: u64 = if cfg!(test) { 256 } else { 16 << 20 };

/// A part of a segment.
#[derive(Clone, Debug)]
pub(super) struct Piece<'a> {
    /// The partition.
    pub(super) files: &'a PartitionFiles,
    /// The segment.
    pub(super) segment: &'a SegmentFile,
    /// What is wanted of the partition.
    pub(super) range: Range,
    stretch: Stretch,
}

impl<'a> Piece<'a> {
    /// Its size.
    pub(super) const fn bytes(&self) -> u64 {
        self.stretch.bytes.end - self.stretch.bytes.start
    }

    /// The batches, checksums not compared.
    pub(super) fn open(&self) -> Result<SalvageScan> {
        SalvageScan::open_stretch(&self.segment.path, self.stretch.clone(), Crcs::Left)
            .with_context(|| format!("open {}", self.segment.path.display()))
    }

    /// Whether a broker may be writing it.
    pub(super) const fn may_change(&self) -> bool {
        self.files.may_change(self.segment) && !self.stretch.is_followed
    }
}

/// The pieces of a partition's range, in order.
pub(super) fn of<'a>(files: &'a PartitionFiles, range: &Range) -> Result<Vec<Piece<'a>>> {
    let mut pieces = Vec::new();
    for segment in &files.segments {
        if segment.next_base.is_some_and(|next| next <= range.start)
            || range.stop.is_some_and(|stop| segment.base >= stop)
        {
            continue;
        }
        let stretches = split(segment, range.start, PIECE_BYTES)
            .with_context(|| format!("look into {}", segment.path.display()))?;
        pieces.extend(stretches.into_iter().map(|stretch| Piece {
            files,
            segment,
            range: range.clone(),
            stretch,
        }));
    }
    Ok(pieces)
}

fn split(segment: &SegmentFile, start: Offset, piece_bytes: u64) -> std::io::Result<Vec<Stretch>> {
    let mut scan = seek::open_at(segment, start)?;
    let end = scan.file_bytes();
    let ceiling = segment.next_base.unwrap_or(Offset::MAX);
    let mut begins = vec![(scan.position(), scan.next_offset())];
    if let Some(index) = seek::offset_index(segment) {
        let mut wanted = scan.position() + piece_bytes;
        while wanted < end {
            let entry = index.last_where(|entry| u64::from(entry.position) <= wanted)?;
            let after = begins.last().map_or(0, |(position, _)| *position);
            if let Some(entry) = entry
                && u64::from(entry.position) > after
                && seek::follow(&mut scan, segment, entry)
                && let Some(Ok(batch)) = scan.next()
            {
                begins.push((batch.position, batch.header.base_offset));
            }
            wanted += piece_bytes;
        }
    }
    let ends = begins.iter().skip(1).copied().chain([(end, ceiling)]);
    let stretches = begins.iter().zip(ends).map(|(&(begin, from), (end, to))| Stretch {
        bytes: begin..end,
        offsets: from..to,
        is_followed: to < ceiling,
    });
    Ok(stretches.collect())
}
