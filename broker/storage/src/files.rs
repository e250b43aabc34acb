//! The file layer: every byte that storage reads or writes goes through these two traits.
//!
//! Two layers exist: `DiskFiles` for real files and `SimFiles`, the double that crashes and fails by plan. The
//! traits know nothing of logs. Their promises are those of POSIX and no more: bytes are durable after a sync that
//! succeeded, names after a sync of their directory.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use highwater_record::TimestampMs;

use crate::map::{PublishedEnd, SegmentMap};
use crate::pool::FilePool;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A file that must not exist yet, to read and write.
    CreateNew,
    /// A file that is made if it is missing, to read and write. What is in it stays.
    Create,
}

/// One entry of a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirEntry {
    /// Its name. Names that are not UTF-8 are none of ours and are not listed.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
    /// Size in bytes, if it is a file.
    pub len: u64,
    /// When it was written last, if the file layer knows.
    pub modified: Option<TimestampMs>,
}

/// How much room a file system has, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    /// What is free for this process.
    pub free_bytes: u64,
    /// All there is.
    pub total_bytes: u64,
}

/// Opens, lists, renames and removes files.
pub trait FileLayer: Debug + Send + Sync {
    /// Opens a file; new files are private to their owner (0600).
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>>;
    /// The entries of a directory in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// The length of a file in bytes, told without opening it; `None` if there is no such file. A directory has some
    /// length.
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Makes a directory that is private to its owner (0700). Its parent must exist.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or directory; an existing file of the new name is replaced at once.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Whoever has it open keeps it.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The room on the file system that a directory is on; `None` if this layer has no bound.
    fn space(&self, _dir: &Path) -> io::Result<Option<Space>> {
        Ok(None)
    }
    /// What bounds how many files of this layer are open at once; `None` if nothing does.
    fn pool(&self) -> Option<&Arc<FilePool>> {
        None
    }
}

/// An open file. Positions and lengths are bytes.
pub trait FileHandle: Debug + Send + Sync {
    /// Writes all `parts` one after the other from `position` on. Short writes are completed. After an error any
    /// part of the bytes may be there, and the file may be longer.
    fn pwritev(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Fills `buffer` from `position` on; fewer bytes than asked mean the end of the file.
    fn pread(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Reserves disk space without changing the file's length. Does nothing where the file system cannot.
    fn allocate(&self, position: u64, len: u64) -> io::Result<()>;
    /// Sets the length and gives back space that was reserved beyond it.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the bytes, and the length that is needed to read them, durable. An error is final: see D4.
    fn fdatasync(&self) -> io::Result<()>;
    /// Starts to write dirty bytes back and does not wait for them. Promises nothing.
    fn writeback(&self, position: u64, len: u64) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// A read-only map of the first `len` bytes, which may be more than the file has, readable below `published`.
    /// `None` where there is no map to be had.
    fn map(&self, len: u64, published: Arc<PublishedEnd>) -> io::Result<Option<SegmentMap>>;
    /// Whether reading a range would not wait for the disk. `false` where that cannot be told.
    fn is_resident(&self, position: u64, len: u64) -> bool;
    /// The descriptor, for `sendfile`.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Takes the exclusive lock of the file until the handle is dropped; `false` if another process has it.
    fn try_lock(&self) -> io::Result<bool>;
}

/// Fills `buffer` or reports how much was missing.
pub(crate) fn read_exact_at(file: &dyn FileHandle, buffer: &mut [u8], position: u64) -> io::Result<()> {
    let read = file.pread(buffer, position)?;
    if read < buffer.len() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{} bytes expected at position {position}, there are {read}", buffer.len()),
        ));
    }
    Ok(())
}

/// Whether an error says that the disk or the quota is full, or that a write stopped short for want of space.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
    )
}
