//! One partition of the roofline: segment files that are appended to with `pwrite`, and an index in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use highwater_record::{BatchHeader, CRC_START, crc32c};

/// Size at which a segment is full.
pub(crate) const SEGMENT_BYTES: u64 = 128 << 20;

/// A partition's segments, oldest first, known by their batches.
pub(super) struct Log {
    folder: PathBuf,
    partition: usize,
    active: Option<Active>,
    batches: Vec<Entry>,
    next_offset: i64,
}

struct Active {
    file: Arc<File>,
    end: u64,
}

struct Entry {
    base_offset: i64,
    file: Arc<File>,
    position: u64,
    size: u64,
}

/// Whole batches, one after the other in one file.
pub(super) struct FileRange {
    pub(super) file: Arc<File>,
    pub(super) position: u64,
    pub(super) size: u64,
}

impl Log {
    /// An empty partition; files are created as they are needed.
    pub(super) fn new(folder: &Path, partition: usize) -> Self {
        Self { folder: folder.to_owned(), partition, active: None, batches: Vec::new(), next_offset: 0 }
    }

    /// Offset that the next record gets.
    pub(super) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Checks and stores one batch; returns the offset of its first record, which is patched into `batch`.
    pub(super) fn append(&mut self, batch: &mut [u8]) -> Result<i64> {
        let header = BatchHeader::parse(batch).context("read a batch header")?;
        let size = batch.len() as u64;
        ensure!(u64::from(header.size_bytes) == size, "a batch of {} bytes in {size}", header.size_bytes);
        let crc = crc32c(&batch[CRC_START..]);
        ensure!(crc == header.crc, "a batch has CRC {crc:#x}, it says {:#x}", header.crc);
        let base_offset = self.next_offset;
        batch[..8].copy_from_slice(&base_offset.to_be_bytes());
        let active = self.segment_for(size)?;
        let (file, position) = (Arc::clone(&active.file), active.end);
        file.write_all_at(batch, position).context("write a batch")?;
        active.end += size;
        self.batches.push(Entry { base_offset, file, position, size });
        self.next_offset += i64::from(header.last_offset_delta) + 1;
        Ok(base_offset)
    }

    fn segment_for(&mut self, size: u64) -> Result<&mut Active> {
        let is_full = self.active.as_ref().is_none_or(|active| active.end + size > SEGMENT_BYTES);
        if is_full {
            let name = format!("{}-{:020}.log", self.partition, self.next_offset);
            let mut options = File::options();
            let file = options.create_new(true).read(true).write(true).open(self.folder.join(name));
            self.active = Some(Active { file: Arc::new(file.context("create a segment")?), end: 0 });
        }
        self.active.as_mut().context("a segment was just made")
    }

    /// Whole batches from the one that holds `offset` on: at least one, else up to `max_bytes`, out of one file.
    pub(super) fn read(&self, offset: i64, max_bytes: u64) -> Option<FileRange> {
        if offset >= self.next_offset {
            return None;
        }
        let first = self.batches.partition_point(|entry| entry.base_offset <= offset).checked_sub(1)?;
        let entry = &self.batches[first];
        let mut size = entry.size;
        for next in &self.batches[first + 1..] {
            if size + next.size > max_bytes || !Arc::ptr_eq(&next.file, &entry.file) {
                break;
            }
            size += next.size;
        }
        Some(FileRange { file: Arc::clone(&entry.file), position: entry.position, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;

    #[test]
    fn a_read_gives_whole_batches_from_the_one_that_holds_the_offset() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(folder.path(), 0);
        let mut batch = Batch::build(4096, 100).unwrap();
        let (size, count) = (batch.bytes.len() as u64, i64::from(batch.record_count));

        let offsets: Vec<_> = (0..3).map(|_| log.append(&mut batch.bytes).unwrap()).collect();

        assert_eq!(offsets, [0, count, 2 * count]);
        let ranges = [(0, 1, 0, 1), (count + 1, 1 << 20, 1, 2), (0, 2 * size, 0, 2)];
        for (offset, max_bytes, position, batches) in ranges {
            let range = log.read(offset, max_bytes).unwrap();
            assert_eq!((range.position, range.size), (position * size, batches * size));
        }
        assert!(log.read(3 * count, 1 << 20).is_none());
    }
}
