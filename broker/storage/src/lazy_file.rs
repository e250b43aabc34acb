//! A file that is opened when it is first needed and may be closed again.
//!
//! Thousands of partitions have more files than a process may hold open; only those in use are. A file whose name is about
//! to be given to another one is pinned: it stays open, and its name is not used any more.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::files::{Access, FileHandle, FileLayer};

#[derive(Debug)]
pub(crate) struct LazyFile {
    files: Arc<dyn FileLayer>,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Arc<dyn FileHandle>>,
    /// What is open stays open, and what is not is never opened.
    pinned: bool,
}

impl LazyFile {
    pub(crate) fn new(files: Arc<dyn FileLayer>, path: PathBuf) -> Self {
        Self { files, path, state: Mutex::new(State::default()) }
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
        let mut state = self.state.lock();
        if let Some(file) = &state.open {
            return Ok(Arc::clone(file));
        }
        if state.pinned {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "there was no such file when it was replaced",
            ));
        }
        let file = self.files.open(&self.path, access)?;
        state.open = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Opens the file, if there is one, and keeps it open for as long as this lives: its name is not used any more.
    pub(crate) fn pin(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.open.is_none() {
            match self.files.open(&self.path, Access::Write) {
                Ok(file) => state.open = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        state.pinned = true;
        Ok(())
    }

    /// Takes back a pin: the name is still this file's.
    pub(crate) fn unpin(&self) {
        *self.state.lock() = State::default();
    }

    /// Removes the file, unless its name is not used any more.
    pub(crate) fn remove(&self) {
        let state = self.state.lock();
        if !state.pinned {
            let _ = self.files.unlink(&self.path);
        }
    }

    /// Forgets the handle; whoever uses it keeps it.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        if !state.pinned {
            state.open = None;
        }
    }
}
