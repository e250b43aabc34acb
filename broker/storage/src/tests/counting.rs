//! A file layer that counts what is opened, what is open and what is read.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Access, DirEntry, FileHandle, FileLayer, PublishedEnd, SegmentMap};

/// How often, and how many.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: AtomicUsize,
    pub(super) listed: AtomicUsize,
    open: AtomicUsize,
    pub(super) open_max: AtomicUsize,
    pub(super) reads: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct CountingFiles {
    files: Arc<dyn FileLayer>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct CountedHandle {
    file: Arc<dyn FileHandle>,
    counts: Arc<Counts>,
}

impl CountingFiles {
    pub(super) fn over(files: Arc<dyn FileLayer>) -> (Arc<Self>, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        (Arc::new(Self { files, counts: Arc::clone(&counts) }), counts)
    }
}

impl FileLayer for CountingFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        let file = self.files.open(path, access)?;
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        let open = self.counts.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.counts.open_max.fetch_max(open, Ordering::Relaxed);
        Ok(Arc::new(CountedHandle { file, counts: Arc::clone(&self.counts) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.counts.listed.fetch_add(1, Ordering::Relaxed);
        self.files.list(dir)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.files.file_len(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.files.create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.files.remove_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.files.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.files.sync_dir(dir)
    }
}

impl FileHandle for CountedHandle {
    fn pwritev(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.file.pwritev(parts, position)
    }

    fn pread(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.file.pread(buffer, position)
    }

    fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        self.file.allocate(position, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.file.fdatasync()
    }

    fn writeback(&self, position: u64, len: u64) -> io::Result<()> {
        self.file.writeback(position, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn map(&self, len: u64, published: Arc<PublishedEnd>) -> io::Result<Option<SegmentMap>> {
        self.file.map(len, published)
    }

    fn is_resident(&self, position: u64, len: u64) -> bool {
        self.file.is_resident(position, len)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_fd()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

impl Drop for CountedHandle {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}
