//! Reading segment files without a log: for the offline tools, and for whoever must look before opening.
//!
//! Nothing is mapped, nothing is written, and the files may be Apache Kafka's own. Batches may have gaps between
//! them, as compaction leaves them. A scan ends at the end of the file or at the first fault.
//!
//! Logs that are older than Kafka 0.11 hold messages of formats 0 and 1 ([`MessageFormat`]), also mixed with batches
//! after an upgrade. A scan meets such an entry as the batch that would hold the same records. Of its header position,
//! size, CRC and codec are what the file has; offsets, timestamps and count are those of the messages; leader epoch and
//! producer are absent; the clock of format 0, which has none, is said to be the producer's. What is inside a
//! compressed entry tells where it begins, so that its CRC is compared and it is decompressed at once. If that fails
//! its header says its last offset and no records, [`SegmentScan::read`] says why, and the scan goes on behind it.
//!
//! Only [`SegmentScan::open`] reads the old formats: to the logs of a broker they are damage.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use highwater_record::{
    Batch, BatchError, BatchHeader, CRC_START, DecodeLimits, HEADER_BYTES, LegacyEntry, LegacyError,
    LegacyFault, MessageFormat, Offset, crc32c, up_convert,
};
use thiserror::Error;

use crate::batches::{BatchFault, checked_header};
use crate::damage::crc_of;
use crate::disk::DiskFiles;
use crate::files::{Access, FileHandle, FileLayer, read_exact_at};
use crate::index::{Entry, OffsetEntry, TimeEntry};
use crate::segment::base_of;

/// Bytes that are read at a time.
const WINDOW_BYTES: usize = 256 << 10;
/// How far a compressed entry of an old format may be decompressed.
const LEGACY_LIMITS: DecodeLimits = DecodeLimits { bytes_max: 256 << 20, ratio_max: 1000 };

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
    reads_legacy: bool,
    /// The last compressed entry of an old format as a batch, and its position.
    converted: Option<(u64, Batch)>,
}

/// A batch that a scan met, or an entry of an old format as one. Its CRC is not compared yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScannedBatch {
    /// Where it begins in the file.
    pub position: u64,
    /// Its header; partly made up if the format is an old one.
    pub header: BatchHeader,
    /// How it is written in the file.
    pub format: MessageFormat,
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
    /// Opens a segment file to read, whichever formats it is in.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { reads_legacy: true, ..Self::open_on(&DiskFiles, path)? })
    }

    /// Opens a segment file of a broker, which is of batches alone.
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
            reads_legacy: false,
            converted: None,
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

    /// Reads a whole batch and compares its CRC. What is of an old format becomes a batch of the same records, which is
    /// not compressed.
    pub fn read(&self, batch: &ScannedBatch) -> Result<Batch, ScanError> {
        let position = batch.position;
        if batch.format != MessageFormat::V2 {
            return self.read_legacy(position, batch.header.size_bytes);
        }
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
        self.bytes_at(batch.position, batch.header.size_bytes)
    }

    fn bytes_at(&self, position: u64, size_bytes: u32) -> io::Result<Bytes> {
        let size = size_bytes as usize;
        if let Some(skip) = self.skip(position)
            && let Some(end) = skip.checked_add(size).filter(|end| *end <= self.window.len())
        {
            return Ok(self.window.slice(skip..end));
        }
        // The header was checked against the file's size, so a lying length allocates no more than that.
        let mut bytes = vec![0; size];
        read_exact_at(&*self.file, &mut bytes, position)?;
        Ok(bytes.into())
    }

    fn read_legacy(&self, position: u64, size_bytes: u32) -> Result<Batch, ScanError> {
        if let Some((converted_position, batch)) = &self.converted
            && *converted_position == position
        {
            return Ok(batch.clone());
        }
        let bytes =
            self.bytes_at(position, size_bytes).map_err(|source| ScanError::Io { position, source })?;
        up_convert(&bytes, LEGACY_LIMITS).map_err(|error| {
            let fault = match error {
                LegacyError::Entry(LegacyFault::Crc { stored, computed }) => {
                    BatchFault::Crc { stored, computed }
                }
                error => error.into(),
            };
            ScanError::Fault { position, fault }
        })
    }

    /// The checksum of a batch by its bytes; `None` if the file ends before. Small batches cost no copy of their own.
    pub(crate) fn crc(&mut self, batch: &ScannedBatch) -> io::Result<Option<u32>> {
        let (position, size) = (batch.position, batch.header.size_bytes as usize);
        if size > WINDOW_BYTES {
            return crc_of(self.file(), position, &batch.header);
        }
        if self.held(position).len() < size {
            self.fill(position)?;
        }
        Ok(self.held(position).get(CRC_START..size).map(crc32c))
    }

    /// Where `position` is in the window.
    fn skip(&self, position: u64) -> Option<usize> {
        usize::try_from(position.checked_sub(self.window_start)?).ok()
    }

    /// What the window has from `position` on.
    fn held(&self, position: u64) -> &[u8] {
        self.skip(position).and_then(|skip| self.window.get(skip..)).unwrap_or_default()
    }

    /// Moves the window to `position`.
    fn fill(&mut self, position: u64) -> io::Result<()> {
        let wanted = self.len.saturating_sub(position).min(WINDOW_BYTES as u64) as usize;
        // Its memory serves again, unless a batch that was given out is still in it.
        let mut window = std::mem::take(&mut self.window).try_into_mut().unwrap_or_default();
        window.resize(wanted, 0);
        let read = self.file.pread(&mut window, position)?;
        window.truncate(read);
        self.window = window.freeze();
        self.window_start = position;
        Ok(())
    }

    fn step(&mut self) -> Result<ScannedBatch, ScanError> {
        let position = self.position;
        let available = self.len - position;
        let wanted = available.min(HEADER_BYTES as u64) as usize;
        if self.held(position).len() < wanted {
            self.fill(position).map_err(|source| ScanError::Io { position, source })?;
        }
        let head = self.held(position);
        if self.reads_legacy
            && let Some(MessageFormat::V0 | MessageFormat::V1) = MessageFormat::of(head)
        {
            let entry = LegacyEntry::parse(head);
            return self.legacy_step(entry, available);
        }
        let header = checked_header(head, available, self.expected)
            .map_err(|fault| ScanError::Fault { position, fault })?;
        self.position += u64::from(header.size_bytes);
        self.expected = header.next_offset();
        Ok(ScannedBatch { position, header, format: MessageFormat::V2 })
    }

    fn legacy_step(
        &mut self,
        entry: Result<LegacyEntry, LegacyFault>,
        available: u64,
    ) -> Result<ScannedBatch, ScanError> {
        let position = self.position;
        let refuse = |fault| ScanError::Fault { position, fault };
        let entry = entry.map_err(|fault| refuse(LegacyError::Entry(fault).into()))?;
        let size_bytes = entry.size_bytes;
        if u64::from(size_bytes) > available {
            return Err(refuse(BatchFault::PastEnd { size_bytes, available }));
        }
        let expected = self.expected;
        let follows = |header: &BatchHeader| {
            // The largest offset has no next one.
            let is_in_order = header.base_offset >= expected && header.next_offset() > header.base_offset;
            let fault = BatchFault::OffsetOrder { expected, actual: header.base_offset };
            is_in_order.then_some(()).ok_or(refuse(fault))
        };
        let mut header = entry.header();
        // Before it is decompressed: what ends too early does not begin later.
        follows(&header)?;
        if entry.is_compressed() {
            match self.read_legacy(position, size_bytes) {
                Ok(batch) => {
                    header = entry.header_of(&batch);
                    follows(&header)?;
                    self.converted = Some((position, batch));
                }
                // It is told by whoever reads the entry.
                Err(ScanError::Fault { .. }) => {}
                Err(error @ ScanError::Io { .. }) => return Err(error),
            }
        }
        self.position += u64::from(size_bytes);
        self.expected = header.next_offset();
        Ok(ScannedBatch { position, header, format: entry.format })
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
