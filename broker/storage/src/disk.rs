//! Real files.
//!
//! Knows no logs. Space is reserved by `fallocate(KEEP_SIZE)`; on file systems without it nothing is reserved, and a
//! full disk shows at the write instead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use highwater_record::TimestampMs;
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, retry_on_intr};

use crate::files::{Access, DirEntry, FileHandle, FileLayer, Space};
use crate::map::{PublishedEnd, SegmentMap, cached_pages, start_writeback};

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

#[derive(Debug)]
struct DiskFile(File);

impl FileLayer for DiskFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::CreateNew => {
                options.write(true).create_new(true);
            }
            Access::Create => {
                options.write(true).create(true).truncate(false);
            }
        }
        Ok(Arc::new(DiskFile(options.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Directories have no length here, and their kind is in the listing: a call less for each partition.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                entries.push(DirEntry { name, is_dir: true, len: 0, modified: None });
                continue;
            }
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // It was removed between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let since_epoch = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified = since_epoch.and_then(|age| i64::try_from(age.as_millis()).ok()).map(TimestampMs);
            entries.push(DirEntry { name, is_dir: metadata.is_dir(), len: metadata.len(), modified });
        }
        Ok(entries)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // A sync is never repeated, not even an interrupted one: the second could report the success of nothing.
        Ok(rustix::fs::fsync(&File::open(dir)?)?)
    }

    fn space(&self, dir: &Path) -> io::Result<Option<Space>> {
        let found = rustix::fs::statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Some(Space { free_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) }))
    }
}

impl FileHandle for DiskFile {
    fn pwritev(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut written = retry_on_intr(|| rustix::io::pwritev(&self.0, parts, position))?;
        let mut at = position;
        for part in parts {
            let skip = written.min(part.len());
            written -= skip;
            let rest = &part[skip..];
            if !rest.is_empty() {
                self.0.write_all_at(rest, at + skip as u64)?;
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    fn pread(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, position, len)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn fdatasync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn writeback(&self, position: u64, len: u64) -> io::Result<()> {
        start_writeback(self.0.as_fd(), position, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn map(&self, len: u64, published: Arc<PublishedEnd>) -> io::Result<Option<SegmentMap>> {
        SegmentMap::new(self.0.as_fd(), len, published).map(Some)
    }

    fn is_resident(&self, position: u64, len: u64) -> bool {
        let page_bytes = rustix::param::page_size() as u64;
        let pages = (position + len).div_ceil(page_bytes) - position / page_bytes;
        cached_pages(self.0.as_fd(), position, len).is_ok_and(|cached| cached >= pages)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn reserved_space_does_not_change_the_length_and_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = DiskFiles.open(&path, Access::CreateNew).unwrap();
        file.pwritev(&[IoSlice::new(b"head"), IoSlice::new(b"tail")], 0).unwrap();

        file.allocate(8, 1 << 20).unwrap();
        let reserved = fs::metadata(&path).unwrap();
        file.set_len(8).unwrap();
        let given_back = fs::metadata(&path).unwrap();

        assert_eq!(reserved.len(), 8);
        assert_eq!(given_back.len(), 8);
        // Not every file system reserves; those that do must get the space back.
        assert!(given_back.blocks() * 512 <= 64 << 10, "{} blocks stay reserved", given_back.blocks());
        assert_eq!(fs::read(&path).unwrap(), b"headtail");
    }

    #[test]
    fn a_second_handle_cannot_take_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = DiskFiles.open(&path, Access::Create).unwrap();
        let second = DiskFiles.open(&path, Access::Create).unwrap();

        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());

        drop(first);

        assert!(second.try_lock().unwrap());
    }
}
