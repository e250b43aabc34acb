//! Files in memory that crash and fail by plan: the double of `DiskFiles` for tests.
//!
//! It keeps what a file system may keep and no more. [`SimFiles::crash`] gives the files as a machine finds them
//! after a power cut: synced bytes stay, of the others any subset of 512-byte blocks, lengths old or new or between,
//! and of the changes to each directory that were not synced any prefix. There are no maps and no descriptors.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::files::{Access, DirEntry, FileHandle, FileLayer};
use crate::map::{PublishedEnd, SegmentMap};

const BLOCK_BYTES: usize = 512;

/// Calls that can be made to fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SimCall {
    /// Opening a file that does not exist yet.
    Create,
    /// `pwritev`.
    Write,
    /// `pread`.
    Read,
    /// `allocate`.
    Allocate,
    /// `fdatasync`.
    Sync,
    /// `sync_dir`.
    SyncDir,
    /// `set_len`.
    SetLen,
    /// `rename`.
    Rename,
}

/// A failure that is planned.
#[derive(Clone, Debug)]
pub struct SimFault {
    /// The call that fails.
    pub call: SimCall,
    /// Only calls on paths that end like this.
    pub path_end: String,
    /// How many matching calls succeed first.
    pub after: u32,
    /// How many fail then.
    pub times: u32,
    /// With which error number.
    pub errno: i32,
    /// For writes: how many bytes are written all the same.
    pub bytes_written: usize,
}

/// A file system in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimFiles(Arc<Mutex<World>>);

type Inode = usize;

#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

/// One change of a directory that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, Inode),
    Unlink(PathBuf),
    /// From, to: at once, as `rename` promises.
    Move(PathBuf, PathBuf, Inode),
    MakeDir(PathBuf),
    RemoveDir(PathBuf),
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Inode>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Contents>,
    names: Names,
    durable: Names,
    /// Per directory, oldest first.
    unsynced: BTreeMap<PathBuf, Vec<Change>>,
    faults: Vec<SimFault>,
    capacity_bytes: Option<u64>,
    syncs: u64,
    /// Changes that are still made before the power goes.
    changes_left: Option<u64>,
    locked: BTreeSet<PathBuf>,
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            Change::Unlink(path) => {
                self.files.remove(path);
            }
            Change::Move(from, to, inode) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *inode);
            }
            Change::MakeDir(path) => {
                self.dirs.insert(path.clone());
            }
            Change::RemoveDir(path) => {
                self.dirs.remove(path);
            }
        }
    }

    /// Drops names whose directory does not exist.
    fn prune(&mut self) {
        loop {
            let dirs = self.dirs.clone();
            self.dirs.retain(|dir| {
                dir.parent().is_none_or(|p| p == Path::new("") || p == Path::new("/") || dirs.contains(p))
            });
            if self.dirs.len() == dirs.len() {
                break;
            }
        }
        let dirs = &self.dirs;
        self.files.retain(|path, _| path.parent().is_some_and(|dir| dirs.contains(dir)));
    }
}

impl World {
    fn change(&mut self, dir: &Path, change: Change) {
        self.names.apply(&change);
        self.unsynced.entry(dir.to_owned()).or_default().push(change);
    }

    /// Counts a call against the plan.
    fn fault(&mut self, call: SimCall, path: &Path) -> Option<SimFault> {
        let path = path.to_string_lossy();
        let matches = |fault: &&mut SimFault| fault.call == call && path.ends_with(&fault.path_end);
        let fault = self.faults.iter_mut().find(matches)?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times -= 1;
        let hit = fault.clone();
        self.faults.retain(|fault| fault.times > 0);
        Some(hit)
    }

    fn check(&mut self, call: SimCall, path: &Path) -> io::Result<()> {
        match self.fault(call, path) {
            Some(fault) => Err(io::Error::from_raw_os_error(fault.errno)),
            None => Ok(()),
        }
    }

    /// Counts a call that changes something, or makes it durable, against the time that the power lasts.
    fn powered(&mut self) -> io::Result<()> {
        match &mut self.changes_left {
            None => Ok(()),
            Some(0) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn used_bytes(&self) -> u64 {
        self.names.files.values().map(|inode| self.inodes[*inode].bytes.len() as u64).sum()
    }
}

/// A small generator (SplitMix64): seeded, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

impl SimFiles {
    /// An empty file system with one directory, `/`-rooted or not, whose name is durable.
    pub fn with_dir(dir: &Path) -> Self {
        let files = Self::default();
        {
            let mut world = files.0.lock();
            for dir in dir.ancestors().filter(|dir| *dir != Path::new("") && *dir != Path::new("/")) {
                world.names.dirs.insert(dir.to_owned());
                world.durable.dirs.insert(dir.to_owned());
            }
        }
        files
    }

    /// The files after a power cut. The old ones are of no use any more; the plan of failures is gone.
    pub fn crash(&self, seed: u64) -> Self {
        let world = self.0.lock();
        let mut dice = Dice(seed);
        let mut names = world.durable.clone();
        for changes in world.unsynced.values() {
            let survive = dice.below(changes.len() + 1);
            changes[..survive].iter().for_each(|change| names.apply(change));
        }
        names.prune();
        let inodes: Vec<Contents> = world
            .inodes
            .iter()
            .map(|contents| {
                let bytes = torn(contents, &mut dice);
                Contents { durable: bytes.clone(), bytes }
            })
            .collect();
        Self(Arc::new(Mutex::new(World {
            inodes,
            durable: names.clone(),
            names,
            capacity_bytes: world.capacity_bytes,
            ..World::default()
        })))
    }

    /// Plans a failure.
    pub fn plan(&self, fault: SimFault) {
        assert!(fault.times > 0, "a fault that never strikes is no plan");
        self.0.lock().faults.push(fault);
    }

    /// Lets this many more calls change something; from then on all of them fail and change nothing. What
    /// [`SimFiles::crash`] gives then is what a power cut at that call leaves.
    pub fn cut_power_after(&self, changes: u64) {
        self.0.lock().changes_left = Some(changes);
    }

    /// Drops every failure that is still planned.
    pub fn forget_plans(&self) {
        self.0.lock().faults.clear();
    }

    /// Limits the bytes in all files; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity_bytes = bytes;
    }

    /// How many calls of `fdatasync` and `sync_dir` were made, failed ones included.
    pub fn sync_count(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The bytes of a file as they are now.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.0.lock();
        world.names.files.get(path).map(|inode| world.inodes[*inode].bytes.clone())
    }

    /// Replaces the bytes of a file, durably, as an outsider or a failing disk would.
    pub fn overwrite(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.0.lock();
        let inode = world.names.files[path];
        world.inodes[inode] = Contents { bytes: bytes.to_vec(), durable: bytes.to_vec() };
    }
}

/// What may be left of a file: old and new blocks mixed, the length old, new or between.
fn torn(contents: &Contents, dice: &mut Dice) -> Vec<u8> {
    let (old, new) = (&contents.durable, &contents.bytes);
    if old == new {
        return old.clone();
    }
    let (shorter, longer) = (old.len().min(new.len()), old.len().max(new.len()));
    let len = match dice.below(3) {
        0 => old.len(),
        1 => new.len(),
        _ => shorter + dice.below(longer - shorter + 1),
    };
    // Sometimes nothing or everything of the unsynced bytes arrives, mostly a part.
    let keep_new = dice.below(5);
    let mut bytes = Vec::with_capacity(len);
    for start in (0..len).step_by(BLOCK_BYTES) {
        let end = (start + BLOCK_BYTES).min(len);
        let from = if keep_new == 4 || (keep_new > 0 && dice.below(4) < keep_new) { new } else { old };
        let available = from.len().clamp(start, end);
        bytes.extend_from_slice(from.get(start..available).unwrap_or_default());
        bytes.resize(end, 0);
    }
    bytes
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl FileLayer for SimFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        let mut world = self.0.lock();
        let inode = match (world.names.files.get(path).copied(), access) {
            (Some(_), Access::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, Access::Read | Access::Write) => return Err(not_found(path)),
            (None, Access::CreateNew | Access::Create) => {
                if !world.names.dirs.contains(parent(path)) {
                    return Err(not_found(parent(path)));
                }
                world.powered()?;
                world.check(SimCall::Create, path)?;
                world.inodes.push(Contents::default());
                let inode = world.inodes.len() - 1;
                world.change(parent(path), Change::Link(path.to_owned(), inode));
                inode
            }
        };
        Ok(Arc::new(SimFile { files: self.clone(), inode, path: path.to_owned(), lock: Mutex::new(false) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let world = self.0.lock();
        if !world.names.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let files =
            world.names.files.iter().filter(|(path, _)| parent(path) == dir).filter_map(|(path, inode)| {
                let len = world.inodes[*inode].bytes.len() as u64;
                Some(DirEntry { name: name(path)?, is_dir: false, len, modified: None })
            });
        let dirs = world.names.dirs.iter().filter(|path| parent(path) == dir && *path != dir);
        let dirs = dirs
            .filter_map(|path| Some(DirEntry { name: name(path)?, is_dir: true, len: 0, modified: None }));
        Ok(files.chain(dirs).collect())
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        let world = self.0.lock();
        let file = world.names.files.get(path).map(|inode| world.inodes[*inode].bytes.len() as u64);
        Ok(file.or_else(|| world.names.dirs.contains(path).then_some(0)))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.powered()?;
        if world.names.dirs.contains(dir) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.check(SimCall::Create, dir)?;
        world.change(parent(dir), Change::MakeDir(dir.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.powered()?;
        if world.names.files.keys().any(|path| parent(path) == dir) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        world.change(parent(dir), Change::RemoveDir(dir.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.powered()?;
        world.check(SimCall::Rename, to)?;
        if let Some(inode) = world.names.files.get(from).copied() {
            if parent(from) == parent(to) {
                world.change(parent(to), Change::Move(from.to_owned(), to.to_owned(), inode));
            } else {
                world.change(parent(from), Change::Unlink(from.to_owned()));
                world.change(parent(to), Change::Link(to.to_owned(), inode));
            }
            return Ok(());
        }
        if !world.names.dirs.contains(from) {
            return Err(not_found(from));
        }
        let inside: Vec<(PathBuf, Inode)> = world
            .names
            .files
            .iter()
            .filter(|(path, _)| parent(path) == from)
            .map(|(path, inode)| (path.clone(), *inode))
            .collect();
        world.change(parent(to), Change::MakeDir(to.to_owned()));
        for (path, inode) in inside {
            let moved = to.join(path.file_name().expect("a file in a directory has a name"));
            world.change(parent(to), Change::Link(moved, inode));
            world.change(parent(to), Change::Unlink(path));
        }
        world.change(parent(from), Change::RemoveDir(from.to_owned()));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.powered()?;
        if !world.names.files.contains_key(path) {
            return Err(not_found(path));
        }
        world.change(parent(path), Change::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.powered()?;
        world.syncs += 1;
        world.check(SimCall::SyncDir, dir)?;
        if !world.names.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        for change in world.unsynced.remove(dir).unwrap_or_default() {
            world.durable.apply(&change);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    files: SimFiles,
    inode: Inode,
    path: PathBuf,
    lock: Mutex<bool>,
}

impl FileHandle for SimFile {
    fn pwritev(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut world = self.files.0.lock();
        world.powered()?;
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut result = Ok(());
        if let Some(fault) = world.fault(SimCall::Write, &self.path) {
            bytes.truncate(fault.bytes_written);
            result = Err(io::Error::from_raw_os_error(fault.errno));
        }
        let start = position as usize;
        let grows = (start + bytes.len()).saturating_sub(world.inodes[self.inode].bytes.len()) as u64;
        if world.capacity_bytes.is_some_and(|capacity| world.used_bytes() + grows > capacity) {
            bytes.truncate(bytes.len() / 2);
            result = Err(no_space());
        }
        let file = &mut world.inodes[self.inode].bytes;
        if file.len() < start + bytes.len() {
            file.resize(start + bytes.len(), 0);
        }
        file[start..start + bytes.len()].copy_from_slice(&bytes);
        result
    }

    fn pread(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut world = self.files.0.lock();
        world.check(SimCall::Read, &self.path)?;
        let bytes = world.inodes[self.inode].bytes.get(position as usize..).unwrap_or_default();
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        let mut world = self.files.0.lock();
        world.check(SimCall::Allocate, &self.path)?;
        let beyond = (position + len).saturating_sub(world.inodes[self.inode].bytes.len() as u64);
        match world.capacity_bytes {
            Some(capacity) if world.used_bytes() + beyond > capacity => Err(no_space()),
            _ => Ok(()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.files.0.lock();
        world.powered()?;
        world.check(SimCall::SetLen, &self.path)?;
        world.inodes[self.inode].bytes.resize(len as usize, 0);
        Ok(())
    }

    fn fdatasync(&self) -> io::Result<()> {
        let mut world = self.files.0.lock();
        world.powered()?;
        world.syncs += 1;
        world.check(SimCall::Sync, &self.path)?;
        let contents = &mut world.inodes[self.inode];
        contents.durable = contents.bytes.clone();
        Ok(())
    }

    fn writeback(&self, _position: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.files.0.lock().inodes[self.inode].bytes.len() as u64)
    }

    fn map(&self, _len: u64, _published: Arc<PublishedEnd>) -> io::Result<Option<SegmentMap>> {
        Ok(None)
    }

    fn is_resident(&self, _position: u64, _len: u64) -> bool {
        true
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn try_lock(&self) -> io::Result<bool> {
        let taken = self.files.0.lock().locked.insert(self.path.clone());
        *self.lock.lock() |= taken;
        Ok(taken)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if *self.lock.lock() {
            self.files.0.lock().locked.remove(&self.path);
        }
    }
}
