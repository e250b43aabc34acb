//! A walk over the batches of a partition's range, segment after segment.
//!
//! Damage is a step of the walk. What comes behind it in its segment is walked as well, if whoever walks goes on.

use std::io;

use anyhow::{Context, Result};
use bytes::Bytes;
use highwater_record::{Batch, Offset};
use highwater_storage::{Crcs, Damage, DamageKind, Piece, SalvageScan, ScanError, ScannedBatch, Stretch};

use super::files::{PartitionFiles, SegmentFile};
use super::seek;
use crate::resolve::Range;

/// The walk.
pub(super) struct Walk<'a> {
    segments: &'a [SegmentFile],
    range: Range,
    crcs: Crcs,
    current: Option<(&'a SegmentFile, SalvageScan)>,
    is_over: bool,
}

/// What is met next.
pub(super) enum Step<'a> {
    /// A batch that reaches into the range.
    Batch(&'a SegmentFile, ScannedBatch),
    /// Bytes that are no batch.
    Damage(&'a SegmentFile, Damage),
}

impl<'a> Walk<'a> {
    /// Over the batches of `range`. Whoever goes on behind damage has checksums compared on the way.
    pub(super) fn new(files: &'a PartitionFiles, range: Range, crcs: Crcs) -> Self {
        Self { segments: &files.segments, range, crcs, current: None, is_over: false }
    }

    /// The next step, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Step<'a>>> {
        while !self.is_over {
            let Some((segment, scan)) = &mut self.current else {
                self.is_over = !self.enter()?;
                continue;
            };
            let segment = *segment;
            let Some(piece) = scan.next() else {
                self.current = None;
                continue;
            };
            match piece.with_context(|| format!("read {}", segment.path.display()))? {
                // Nobody asked for what is lost before the range; it stands between an index entry and the range.
                Piece::Damaged(damage) if !is_loss(&damage) || is_before(&damage, &self.range) => {}
                // What is damaged right where the range ends may be what made it end there.
                Piece::Damaged(damage) if self.range.stop.is_some_and(|stop| damage.from > stop) => {
                    self.is_over = true
                }
                Piece::Damaged(damage) => return Ok(Some(Step::Damage(segment, damage))),
                Piece::Good(batch) if self.is_behind(batch.header.base_offset) => self.is_over = true,
                Piece::Good(batch) if batch.header.last_offset() < self.range.start => {}
                Piece::Good(batch) => return Ok(Some(Step::Batch(segment, batch))),
            }
        }
        Ok(None)
    }

    /// Opens the next segment of the range; says whether there is one.
    fn enter(&mut self) -> Result<bool> {
        while let Some((segment, rest)) = self.segments.split_first() {
            self.segments = rest;
            if self.is_behind(segment.base) {
                return Ok(false);
            }
            if segment.next_base.is_none_or(|next| next > self.range.start) {
                let scan = open(segment, self.range.start, self.crcs)
                    .with_context(|| format!("open {}", segment.path.display()))?;
                self.current = Some((segment, scan));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All of the batch that was met last; its checksum is compared.
    ///
    /// # Panics
    /// If there was no batch.
    pub(super) fn read(&self, batch: &ScannedBatch) -> Result<Batch, ScanError> {
        let (_, scan) = self.current.as_ref().expect("a batch was met in a segment that is still open");
        scan.read(batch)
    }

    /// The bytes in the file of the batch that was met last, whatever its checksum says.
    ///
    /// # Panics
    /// If there was no batch.
    pub(super) fn bytes(&self, batch: &ScannedBatch) -> io::Result<Bytes> {
        let (_, scan) = self.current.as_ref().expect("a batch was met in a segment that is still open");
        scan.bytes(batch)
    }

    /// Ends the walk.
    pub(super) const fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether an offset comes after the range.
    pub(super) fn is_behind(&self, offset: Offset) -> bool {
        self.range.stop.is_some_and(|stop| offset >= stop)
    }

    /// Whether an offset comes before the range.
    pub(super) fn is_before(&self, offset: Offset) -> bool {
        offset < self.range.start
    }
}

/// Whether bytes that are no batches are a loss: not what a cut left, nor what was allocated ahead.
pub(super) const fn is_loss(damage: &Damage) -> bool {
    !matches!(damage.kind, DamageKind::Beyond | DamageKind::ZeroTail)
}

/// Whether all that is lost comes before a range, of which the next good batch is the witness.
pub(super) fn is_before(damage: &Damage, range: &Range) -> bool {
    damage.kind == DamageKind::Middle && damage.to <= range.start
}

/// Opens a segment where it may be entered for an offset.
pub(super) fn open(segment: &SegmentFile, start: Offset, crcs: Crcs) -> io::Result<SalvageScan> {
    let scan = seek::open_at(segment, start)?;
    let stretch = Stretch {
        bytes: scan.position()..scan.file_bytes(),
        offsets: scan.next_offset()..segment.next_base.unwrap_or(Offset::MAX),
        is_followed: false,
    };
    SalvageScan::open_stretch(&segment.path, stretch, crcs)
}
