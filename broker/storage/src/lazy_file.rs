//! A file that is opened when it is first needed and may be closed again.
//!
//! Thousands of partitions have more files than a process may hold open; only those in use are.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::files::{Access, FileHandle, FileLayer};

#[derive(Debug)]
pub(crate) struct LazyFile {
    files: Arc<dyn FileLayer>,
    path: PathBuf,
    open: Mutex<Option<Arc<dyn FileHandle>>>,
}

impl LazyFile {
    pub(crate) fn new(files: Arc<dyn FileLayer>, path: PathBuf) -> Self {
        Self { files, path, open: Mutex::new(None) }
    }

    pub(crate) const fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The handle of the existing file.
    pub(crate) fn get(&self) -> io::Result<Arc<dyn FileHandle>> {
        self.get_with(Access::Write)
    }

    /// The handle, of a file that is made if need be.
    pub(crate) fn get_or_create(&self) -> io::Result<Arc<dyn FileHandle>> {
        self.get_with(Access::Create)
    }

    /// The handle of a file that must not exist yet.
    pub(crate) fn create_new(&self) -> io::Result<Arc<dyn FileHandle>> {
        self.get_with(Access::CreateNew)
    }

    fn get_with(&self, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        let mut open = self.open.lock();
        if let Some(file) = &*open {
            return Ok(Arc::clone(file));
        }
        let file = self.files.open(&self.path, access)?;
        *open = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Forgets the handle; whoever uses it keeps it.
    pub(crate) fn close(&self) {
        self.open.lock().take();
    }
}
