//! A file that is opened when it is first needed and may be closed again.
//!
//! Thousands of partitions have more files than a process may hold open; only those in use are, and the pool of their
//! file layer closes those that were not used lately. A file with unsynced bytes is synced before that; if the sync
//! fails, every later one of this file says so, and what it was to make durable is cut off (design D4). A file whose
//! name is about to be given to another one is pinned: it stays open, and its name is not used any more.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::files::{Access, FileHandle, FileLayer};
use crate::pool::{FilePool, LetGo, Marks, Reopenable};
use crate::sync::Mutex;

#[derive(Debug)]
pub(crate) struct LazyFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Arc<dyn FileLayer>,
    path: PathBuf,
    state: Mutex<State>,
    marks: Marks,
}

#[derive(Debug, Default)]
struct State {
    handle: Option<Arc<dyn FileHandle>>,
    /// What is open stays open, and what is not is never opened.
    pinned: bool,
    /// There may be bytes that no sync has covered. Under the lock, which orders it with the handle: whoever finds the
    /// handle unused must see the note of whoever used it last.
    unsynced: bool,
    /// What a sync said that was made to close the file.
    failed: Option<Failure>,
}

impl State {
    fn known_failure(&self) -> io::Result<()> {
        self.failed.as_ref().map_or(Ok(()), |failed| Err(failed.to_error()))
    }
}

/// An error that is told more than once.
#[derive(Debug)]
struct Failure {
    errno: Option<i32>,
    kind: io::ErrorKind,
}

impl Failure {
    fn to_error(&self) -> io::Error {
        self.errno.map_or_else(|| self.kind.into(), io::Error::from_raw_os_error)
    }
}

impl LazyFile {
    pub(crate) fn new(files: Arc<dyn FileLayer>, path: PathBuf) -> Self {
        Self(Arc::new(Inner { files, path, state: Mutex::default(), marks: Marks::default() }))
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.0.path
    }

    /// What the files of its data directory share.
    pub(crate) fn pool(&self) -> Option<&Arc<FilePool>> {
        self.0.pool()
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
        let inner = &self.0;
        let mut state = inner.state.lock();
        if let Some(file) = &state.handle {
            inner.marks.note_use();
            return Ok(Arc::clone(file));
        }
        if state.pinned {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "there was no such file when it was replaced",
            ));
        }
        let file = Inner::open(inner, access)?;
        state.handle = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Opens the file, if there is one, and keeps it open for as long as this lives: its name is not used any more.
    pub(crate) fn pin(&self) -> io::Result<()> {
        let mut state = self.0.state.lock();
        if state.handle.is_none() {
            match Inner::open(&self.0, Access::Write) {
                Ok(file) => state.handle = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        state.pinned = true;
        Ok(())
    }

    /// Takes back a pin: the name is still this file's.
    pub(crate) fn unpin(&self) {
        self.0.state.lock().pinned = false;
        self.close();
    }

    /// Removes the file, unless its name is not used any more.
    pub(crate) fn remove(&self) {
        let state = self.0.state.lock();
        if !state.pinned {
            let _ = self.0.files.unlink(&self.0.path);
        }
    }

    /// Says that bytes were written that somebody is going to sync. The handle that wrote them must still be held: noted
    /// earlier, a sync in between would take the note back, and later, the file might be closed before.
    pub(crate) fn note_unsynced(&self) {
        self.0.state.lock().unsynced = true;
    }

    /// Makes the file durable, unless a sync of it failed before: then it says what that one said.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let file = self.get()?;
        let mut state = self.0.state.lock();
        state.known_failure()?;
        // Taken back first: what is written while the sync runs may not be covered. The file is not closed meanwhile,
        // since it is in use.
        state.unsynced = false;
        drop(state);
        file.fdatasync()
    }

    /// The error of a sync that failed, if one did.
    pub(crate) fn known_failure(&self) -> io::Result<()> {
        self.0.state.lock().known_failure()
    }

    /// Forgets the handle; whoever uses it keeps it.
    pub(crate) fn close(&self) {
        let mut state = self.0.state.lock();
        if !state.pinned && state.handle.take().is_some() {
            self.0.release();
        }
    }
}

impl Inner {
    fn pool(&self) -> Option<&Arc<FilePool>> {
        self.files.pool()
    }

    fn release(&self) {
        if let Some(pool) = self.pool() {
            pool.descriptors.release();
        }
    }

    fn open(this: &Arc<Self>, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        if let Some(pool) = this.pool() {
            pool.descriptors.admit(this);
        }
        this.files.open(&this.path, access).inspect_err(|_| this.release())
    }

    fn in_use(state: &State) -> bool {
        state.pinned || state.handle.as_ref().is_some_and(|handle| Arc::strong_count(handle) > 1)
    }
}

impl Reopenable for Inner {
    fn marks(&self) -> &Marks {
        &self.marks
    }

    fn let_go(&self) -> LetGo {
        let Some(mut state) = self.state.try_lock() else { return LetGo::InUse };
        if state.handle.is_none() {
            return LetGo::Nothing;
        }
        if Self::in_use(&state) {
            return LetGo::InUse;
        }
        if state.unsynced {
            return LetGo::Unsynced;
        }
        state.handle = None;
        LetGo::Done
    }

    fn sync_and_let_go(&self) -> LetGo {
        // Held while the disk works: whoever wants the file must wait until it is clear what became of it.
        let Some(mut state) = self.state.try_lock() else { return LetGo::InUse };
        if Self::in_use(&state) {
            return LetGo::InUse;
        }
        let Some(file) = state.handle.take() else { return LetGo::Nothing };
        if std::mem::take(&mut state.unsynced)
            && let Err(error) = file.fdatasync()
        {
            tracing::error!(path = %self.path.display(), %error, "a sync failed when a file was to be closed");
            state.failed = Some(Failure { errno: error.raw_os_error(), kind: error.kind() });
        }
        LetGo::Done
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.state.get_mut().handle.is_some() {
            self.release();
        }
    }
}
