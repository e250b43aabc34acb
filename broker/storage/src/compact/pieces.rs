//! Reading the batches of a sealed segment one after another, in pieces of bounded size and at the caller's pace.
//!
//! Read with `pread`, never through a map: cold data is cleaned, and an error of the disk must be an error. Every
//! batch's checksum is compared: what is damaged is not rewritten.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use highwater_record::{Batch, BatchHeader, HEADER_BYTES, Offset};

use super::CompactionError;
use crate::batches::checked_header;
use crate::files::{FileHandle, read_exact_at};
use crate::segment::Segment;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// The largest batch that is cleaned, in bytes.
const BATCH_BYTES_MAX: u32 = 64 << 20;

/// Told how many bytes were read or written; may wait, and may end the work.
pub type Pace<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

pub(super) struct Pieces {
    path: PathBuf,
    file: Arc<dyn FileHandle>,
    position: u64,
    end: u64,
    expected: Offset,
    window: Bytes,
}

impl Pieces {
    /// The batches of `segment` from position `start` on.
    pub(super) fn new(segment: &Segment, start: u64) -> Result<Self, CompactionError> {
        let path = segment.path().to_owned();
        let file = segment.log_file().map_err(|source| CompactionError::Io { path: path.clone(), source })?;
        let (end, expected) = (segment.end().bytes, segment.base());
        Ok(Self { path, file, position: start, end, expected, window: Bytes::new() })
    }

    /// The next batch; `None` after the last.
    pub(super) fn next(&mut self, pace: &mut Pace<'_>) -> Result<Option<Batch>, CompactionError> {
        let available = self.end - self.position;
        if available == 0 {
            return Ok(None);
        }
        self.fill(HEADER_BYTES.min(usize::try_from(available).unwrap_or(HEADER_BYTES)), pace)?;
        let header: BatchHeader =
            checked_header(&self.window, available, self.expected).map_err(|fault| self.damaged(&fault))?;
        if header.size_bytes > BATCH_BYTES_MAX {
            return Err(
                self.damaged(&format!("a batch of {} bytes is too large to be cleaned", header.size_bytes))
            );
        }
        let size = header.size_bytes as usize;
        self.fill(size, pace)?;
        let batch = Batch::new(self.window.split_to(size)).map_err(|fault| self.damaged(&fault))?;
        self.position += size as u64;
        self.expected = header.next_offset();
        Ok(Some(batch))
    }

    /// Says that the batch that was read last, or would be next, cannot be cleaned.
    fn damaged(&self, cause: &dyn std::fmt::Display) -> CompactionError {
        CompactionError::Damaged {
            path: self.path.clone(),
            offset: self.expected,
            cause: format!("position {}: {cause}", self.position),
        }
    }

    /// Sees to it that the window has `wanted` bytes.
    fn fill(&mut self, wanted: usize, pace: &mut Pace<'_>) -> Result<(), CompactionError> {
        if self.window.len() >= wanted {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let mut bytes = vec![0; wanted.max(PIECE_BYTES).min(left)];
        read_exact_at(&*self.file, &mut bytes, self.position)
            .map_err(|source| CompactionError::Io { path: self.path.clone(), source })?;
        let len = bytes.len() as u64;
        self.window = bytes.into();
        if pace(len).is_break() { Err(CompactionError::Stopped) } else { Ok(()) }
    }
}
