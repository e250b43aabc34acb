//! A file layer that keeps to a bounded number of open files.
//!
//! It passes every call on. Files that can be opened again find their bound here (`lazy_file`, `map_slot`); what is
//! opened and closed at once is not counted. If the process runs out of descriptors all the same, because connections
//! have them, some are given up and the call is made again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use crate::files::{Access, DirEntry, FileHandle, FileLayer, Space};
use crate::pool::FilePool;

/// How many descriptors are given up when the process has none left.
const GIVEN_UP: usize = 64;

/// A file layer with a bound.
#[derive(Debug)]
pub struct BoundedFiles {
    files: Arc<dyn FileLayer>,
    pool: Arc<FilePool>,
}

impl BoundedFiles {
    /// The files of `files`, of which logs keep as many open as `pool` allows.
    pub fn new(files: Arc<dyn FileLayer>, pool: Arc<FilePool>) -> Self {
        Self { files, pool }
    }

    fn with_room<T>(&self, call: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match call() {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) => {
                self.pool.descriptors.make_room(GIVEN_UP);
                call()
            }
            other => other,
        }
    }
}

impl FileLayer for BoundedFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        self.with_room(|| self.files.open(path, access))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.with_room(|| self.files.list(dir))
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
        // A sync is never made twice: only the opening before it can run out of descriptors, and that says so.
        self.with_room(|| self.files.sync_dir(dir))
    }

    fn space(&self, dir: &Path) -> io::Result<Option<Space>> {
        self.files.space(dir)
    }

    fn pool(&self) -> Option<&Arc<FilePool>> {
        Some(&self.pool)
    }
}
