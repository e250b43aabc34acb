//! A file layer that can be shut for good: how a log is kept from the names of its files.
//!
//! Names are not owned. When a topic is deleted its directory is renamed, and the next topic of that name makes a
//! directory under the same path; whatever was taken from the old log (a sync under way, a reader that opens its files
//! late) must never open, replace or remove a file there. Files that are open stay usable: they are the old ones.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use crate::files::{Access, DirEntry, FileHandle, FileLayer};
use crate::pool::FilePool;

/// The file layer of one log.
#[derive(Debug)]
pub(crate) struct Gate {
    files: Arc<dyn FileLayer>,
    shut: RwLock<bool>,
}

impl Gate {
    /// A gate that is open.
    pub(crate) fn new(files: Arc<dyn FileLayer>) -> Arc<Self> {
        Arc::new(Self { files, shut: RwLock::new(false) })
    }

    /// Lets calls that are under way finish and no further one in.
    pub(crate) fn shut(&self) {
        *self.shut.write() = true;
    }

    /// Held while a name is used. The calls are short, but for `sync_dir`.
    fn enter(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let shut = self.shut.read();
        if *shut {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the log was given up: its topic is deleted",
            ));
        }
        Ok(shut)
    }
}

impl FileLayer for Gate {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        let _open = self.enter()?;
        self.files.open(path, access)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let _open = self.enter()?;
        self.files.list(dir)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        let _open = self.enter()?;
        self.files.file_len(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let _open = self.enter()?;
        self.files.create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let _open = self.enter()?;
        self.files.remove_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _open = self.enter()?;
        self.files.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let _open = self.enter()?;
        self.files.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Not held: it waits for the disk, changes nothing, and is not worth a deletion's waiting.
        drop(self.enter()?);
        self.files.sync_dir(dir)
    }

    fn pool(&self) -> Option<&Arc<FilePool>> {
        self.files.pool()
    }
}
