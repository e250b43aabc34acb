//! Reading segment files without a log: for the offline tools, and for whoever must look before opening.
//!
//! Nothing is mapped, nothing is written, and the files may be Apache Kafka's own. Batches may have gaps between
//! them, as compaction leaves them. A scan ends at the end of the file or at the first fault.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use highwater_record::{Batch, BatchError, BatchHeader, HEADER_BYTES, Offset};
use thiserror::Error;

use crate::batches::{BatchFault, checked_header};
use crate::disk::DiskFiles;
use crate::files::{Access, FileHandle, FileLayer, read_exact_at};
use crate::index::{Entry, OffsetEntry, TimeEntry};
use crate::segment::base_of;

/// Bytes that are read at a time.
const WINDOW_BYTES: u64 = 256 << 10;

/// A walk over one segment file.
#[derive(Debug)]
pub struct SegmentScan {
    file: Arc<dyn FileHandle>,
    len: u64,
    position: u64,
    expected: Offset,
    window: Bytes,
    window_start: u64,
    ended: bool,
}

/// A batch that a scan met. Its CRC is not compared yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScannedBatch {
    /// Where it begins in the file.
    pub position: u64,
    /// Its header.
    pub header: BatchHeader,
}

/// Why a scan ended before the end of the file.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The bytes are not a batch.
    #[error("position {position}: {fault}")]
    Fault {
        /// Where the batch should begin.
        position: u64,
        /// What is wrong with it.
        fault: BatchFault,
    },
    /// The disk says no.
    #[error("position {position}: {source}")]
    Io {
        /// Where it was read.
        position: u64,
        /// What it says.
        source: io::Error,
    },
}

/// The entries of an index file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IndexEntries<E> {
    /// The entries in the order of the file; whether they are in order is for the reader to see.
    pub entries: Vec<E>,
    /// Bytes after the last whole entry; a good file has none.
    pub trailing_bytes: u64,
}

impl SegmentScan {
    /// Opens a segment file to read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_on(&DiskFiles, path)
    }

    pub(crate) fn open_on(files: &dyn FileLayer, path: &Path) -> io::Result<Self> {
        let file = files.open(path, Access::Read)?;
        let len = file.len()?;
        let base = path.file_name().and_then(|name| base_of(name.to_str()?, "log"));
        Ok(Self {
            file,
            len,
            position: 0,
            expected: base.unwrap_or_default(),
            window: Bytes::new(),
            window_start: 0,
            ended: false,
        })
    }

    /// Size of the file when it was opened.
    pub const fn file_bytes(&self) -> u64 {
        self.len
    }

    /// Where the next batch begins; after the end, the end of what could be read.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Offset that the next batch may begin at, at the least.
    pub const fn next_offset(&self) -> Offset {
        self.expected
    }

    /// Goes on at another position, at a batch that an index entry names for example.
    pub fn seek(&mut self, position: u64, expected: Offset) {
        self.position = position;
        self.expected = expected;
        self.ended = false;
    }

    /// Takes the bytes from `end` on for those of another scan: no batch may reach them.
    pub(crate) fn end_at(&mut self, end: u64) {
        self.len = self.len.min(end);
    }

    pub(crate) fn file(&self) -> &dyn FileHandle {
        &*self.file
    }

    /// Reads a whole batch and compares its CRC.
    pub fn read(&self, batch: &ScannedBatch) -> Result<Batch, ScanError> {
        let position = batch.position;
        let bytes = self.bytes(batch).map_err(|source| ScanError::Io { position, source })?;
        Batch::new(bytes).map_err(|error| {
            let fault = match error {
                BatchError::Header(fault) => fault.into(),
                BatchError::Size { expected, actual } => {
                    BatchFault::PastEnd { size_bytes: expected, available: actual as u64 }
                }
                BatchError::Crc { stored, computed } => BatchFault::Crc { stored, computed },
            };
            ScanError::Fault { position, fault }
        })
    }

    /// Reads the bytes of a batch as they are.
    pub fn bytes(&self, batch: &ScannedBatch) -> io::Result<Bytes> {
        let size = batch.header.size_bytes as usize;
        if let Some(held) = self.held(batch.position)
            && held.len() >= size
        {
            return Ok(held.slice(..size));
        }
        // The header was checked against the file's size, so a lying length allocates no more than that.
        let mut bytes = vec![0; size];
        read_exact_at(&*self.file, &mut bytes, batch.position)?;
        Ok(bytes.into())
    }

    /// What the window has from `position` on.
    fn held(&self, position: u64) -> Option<Bytes> {
        let skip = usize::try_from(position.checked_sub(self.window_start)?).ok()?;
        (skip <= self.window.len()).then(|| self.window.slice(skip..))
    }

    fn step(&mut self) -> Result<ScannedBatch, ScanError> {
        let position = self.position;
        let available = self.len - position;
        let wanted = available.min(HEADER_BYTES as u64) as usize;
        if self.held(position).is_none_or(|held| held.len() < wanted) {
            let mut window = vec![0; available.min(WINDOW_BYTES) as usize];
            let read = self
                .file
                .pread(&mut window, position)
                .map_err(|source| ScanError::Io { position, source })?;
            window.truncate(read);
            self.window = window.into();
            self.window_start = position;
        }
        let head = self.held(position).unwrap_or_default();
        let header = checked_header(&head, available, self.expected)
            .map_err(|fault| ScanError::Fault { position, fault })?;
        self.position += u64::from(header.size_bytes);
        self.expected = header.next_offset();
        Ok(ScannedBatch { position, header })
    }
}

impl Iterator for SegmentScan {
    type Item = Result<ScannedBatch, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.position >= self.len {
            return None;
        }
        let step = self.step();
        self.ended = step.is_err();
        Some(step)
    }
}

/// Reads an `.index` file.
pub fn read_offset_index(path: &Path) -> io::Result<IndexEntries<OffsetEntry>> {
    read_index(path)
}

/// Reads a `.timeindex` file.
pub fn read_time_index(path: &Path) -> io::Result<IndexEntries<TimeEntry>> {
    read_index(path)
}

fn read_index<E: Entry>(path: &Path) -> io::Result<IndexEntries<E>> {
    let bytes = std::fs::read(path)?;
    let chunks = bytes.chunks_exact(E::BYTES);
    let trailing_bytes = chunks.remainder().len() as u64;
    Ok(IndexEntries { entries: chunks.map(E::decode).collect(), trailing_bytes })
}
