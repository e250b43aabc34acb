//! Files that stay as they are: what opening a log would change on the disk is changed in memory.
//!
//! A broker whose metadata is lost changes nothing, and still has to know where each log ends and to find batches in it.
//! Opening a log cuts, renames and completes files to that end; on this layer it does so to the eye of the log alone. The
//! layer below is asked to read and to sync, and for nothing else. Indexes and sidecars may be written, which takes
//! memory; segments may be cut and renamed, never written. Knows no log; one layer is for the files of one directory.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::files::{Access, DirEntry, FileHandle, FileLayer, Space, read_exact_at};
use crate::map::{PublishedEnd, SegmentMap};
use crate::pool::FilePool;

/// A file layer that changes nothing.
#[derive(Debug)]
pub struct ReadOnlyFiles {
    files: Arc<dyn FileLayer>,
    /// What names stand for, as far as they were opened to be written, renamed or removed. `None` was removed.
    names: Mutex<HashMap<PathBuf, Option<Arc<Shadow>>>>,
}

/// A file as the log sees it.
#[derive(Debug)]
struct Shadow {
    /// The file on the disk that its bytes come from, if there is one.
    source: Option<PathBuf>,
    contents: Mutex<Contents>,
}

#[derive(Debug)]
enum Contents {
    /// The first bytes of the source.
    Disk {
        len: u64,
    },
    Memory(Vec<u8>),
}

#[derive(Debug)]
struct Handle {
    shadow: Arc<Shadow>,
    /// The source, opened to read.
    disk: Option<Arc<dyn FileHandle>>,
    /// Whether it may be written, in memory.
    writable: bool,
}

fn refused() -> io::Error {
    Errno::ROFS.into()
}

/// Segments are too large to be kept in memory, and nobody may believe that a batch was appended.
fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

impl ReadOnlyFiles {
    /// The files of one directory in `files`.
    pub fn new(files: Arc<dyn FileLayer>) -> Self {
        Self { files, names: Mutex::default() }
    }

    /// What a name that nothing was done to stands for.
    fn on_disk(&self, path: &Path) -> io::Result<Option<Arc<Shadow>>> {
        let len = self.files.file_len(path)?;
        Ok(len.map(|len| Arc::new(Shadow::of_file(path.to_owned(), len))))
    }

    /// What `path` stands for.
    fn find(&self, path: &Path) -> io::Result<Option<Arc<Shadow>>> {
        let known = self.names.lock().get(path).cloned();
        known.map_or_else(|| self.on_disk(path), Ok)
    }
}

impl Shadow {
    const fn of_file(source: PathBuf, len: u64) -> Self {
        Self { source: Some(source), contents: Mutex::new(Contents::Disk { len }) }
    }

    fn empty() -> Self {
        Self { source: None, contents: Mutex::new(Contents::Memory(Vec::new())) }
    }

    fn len(&self) -> u64 {
        match &*self.contents.lock() {
            Contents::Disk { len } => *len,
            Contents::Memory(bytes) => bytes.len() as u64,
        }
    }
}

impl FileLayer for ReadOnlyFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        let found = self.find(path)?;
        let shadow = match (found, access) {
            (Some(_), Access::CreateNew) => return Err(Errno::EXIST.into()),
            (Some(shadow), _) => shadow,
            (None, Access::Read | Access::Write) => return Err(Errno::NOENT.into()),
            (None, Access::Create | Access::CreateNew) if is_segment(path) => return Err(refused()),
            (None, Access::Create | Access::CreateNew) => Arc::new(Shadow::empty()),
        };
        let open = |source: &PathBuf| self.files.open(source, Access::Read);
        let disk = shadow.source.as_ref().map(open).transpose()?;
        if access != Access::Read {
            self.names.lock().insert(path.to_owned(), Some(Arc::clone(&shadow)));
        }
        Ok(Arc::new(Handle { shadow, disk, writable: !is_segment(path) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let on_disk = self.files.list(dir)?;
        let names = self.names.lock();
        let untouched = on_disk.iter().filter(|entry| !names.contains_key(&dir.join(&entry.name)));
        let touched = names.iter().filter_map(|(path, shadow)| {
            let (shadow, name) = (shadow.as_ref()?, path.file_name()?.to_str()?);
            let source = on_disk.iter().find(|entry| Some(dir.join(&entry.name)) == shadow.source);
            let modified = source.and_then(|source| source.modified);
            Some(DirEntry { name: name.to_owned(), is_dir: false, len: shadow.len(), modified })
        });
        Ok(untouched.cloned().chain(touched).collect())
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.find(path)?.map(|shadow| shadow.len()))
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let shadow = self.find(from)?.ok_or(Errno::NOENT)?;
        let mut names = self.names.lock();
        names.insert(from.to_owned(), None);
        names.insert(to.to_owned(), Some(shadow));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.find(path)?.ok_or(Errno::NOENT)?;
        self.names.lock().insert(path.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.files.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Option<Space>> {
        self.files.space(dir)
    }

    fn pool(&self) -> Option<&Arc<FilePool>> {
        self.files.pool()
    }
}

impl Handle {
    /// The source, if the file has bytes of it.
    fn on_disk(&self) -> Option<(&Arc<dyn FileHandle>, u64)> {
        match &*self.shadow.contents.lock() {
            Contents::Disk { len } => self.disk.as_ref().map(|disk| (disk, *len)),
            Contents::Memory(_) => None,
        }
    }

    /// Changes the bytes, in memory.
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        if !self.writable {
            return Err(refused());
        }
        let mut contents = self.shadow.contents.lock();
        if let (Contents::Disk { len }, Some(disk)) = (&*contents, &self.disk) {
            let mut bytes = vec![0; usize::try_from(*len).map_err(|_| refused())?];
            read_exact_at(&**disk, &mut bytes, 0)?;
            *contents = Contents::Memory(bytes);
        }
        if let Contents::Memory(bytes) = &mut *contents {
            change(bytes);
        }
        Ok(())
    }
}

impl FileHandle for Handle {
    fn pwritev(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut at = usize::try_from(position).map_err(|_| refused())?;
        self.change(|bytes| {
            for part in parts {
                let end = at + part.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[at..end].copy_from_slice(part);
                at = end;
            }
        })
    }

    fn pread(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        if let Some((disk, len)) = self.on_disk() {
            let wanted = len.saturating_sub(position).min(buffer.len() as u64);
            return disk.pread(&mut buffer[..wanted as usize], position);
        }
        let contents = self.shadow.contents.lock();
        let Contents::Memory(bytes) = &*contents else { return Ok(0) };
        let rest = usize::try_from(position).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn allocate(&self, _position: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut contents = self.shadow.contents.lock();
        if let Contents::Disk { len: before } = &mut *contents
            && len <= *before
        {
            *before = len;
            return Ok(());
        }
        drop(contents);
        let len = usize::try_from(len).map_err(|_| refused())?;
        self.change(|bytes| bytes.resize(len, 0))
    }

    fn fdatasync(&self) -> io::Result<()> {
        // What is shown must be durable; that changes no byte.
        self.on_disk().map_or(Ok(()), |(disk, _)| disk.fdatasync())
    }

    fn writeback(&self, _position: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.shadow.len())
    }

    fn map(&self, len: u64, published: Arc<PublishedEnd>) -> io::Result<Option<SegmentMap>> {
        self.on_disk().map_or(Ok(None), |(disk, _)| disk.map(len, published))
    }

    fn is_resident(&self, position: u64, len: u64) -> bool {
        self.on_disk().is_none_or(|(disk, _)| disk.is_resident(position, len))
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.on_disk()?.0.as_fd()
    }

    fn try_lock(&self) -> io::Result<bool> {
        Err(refused())
    }
}
