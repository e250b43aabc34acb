//! The only unsafe code of the project: read-only shared maps of segments, and two system calls that have no safe form.
//!
//! A map covers a segment from its first byte, and more than the file has as long as the segment is active. It knows
//! no batches; it hands out bytes below the published end and nothing else. What makes that sound:
//!
//! 1. A byte below the published end never changes. The one writer writes at or above the end, completes all bytes,
//!    and only then moves the end (Release); a reader loads the end (Acquire) before it touches a byte.
//! 2. A file is never shorter than the published end of a map of it. Files are cut at or above their published
//!    end; a segment that must lose published bytes is replaced by a new object, and its file is cut only when
//!    nobody holds the old one (`Retired` in `log/cut.rs`). The map belongs to it (`map_slot`); whoever else holds the map
//!    and asks it for slices holds the object too (`FileRange`).
//! 3. A slice borrows the map, so it cannot outlive it, and the map is not moved or resized while it lives.
//! 4. No other process writes to the file: the data directory is 0700 and locked for life. Whoever gets around that
//!    can stop the process with SIGBUS; CRCs are checked before data is trusted.
//! 5. `sync_file_range` takes a descriptor and three numbers; the kernel checks each.
//! 6. `cachestat` reads one struct and writes another. Both are on the caller's stack for the whole call, and have
//!    the layout that the kernel fixes (`struct cachestat_range`, `struct cachestat` in `linux/mman.h`).
//! 7. `mincore` writes one byte for each page of a map; the vector has as many, and the map outlives the call.
//! 8. The handler of SIGBUS calls `write` and `_exit` alone, which are async-signal-safe, on bytes that are static.
//! 9. `madvise(MADV_DONTNEED)` on a shared map of a file drops page table entries alone; who reads the range again finds
//!    the bytes of the file, which (1) says do not change.

#![expect(unsafe_code, reason = "slices over maps, and system calls that no safe crate offers")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use memmap2::{MmapOptions, MmapRaw};

use crate::sync::{AtomicU64, Ordering};

/// How many bytes of a segment are complete and will never change.
#[derive(Debug, Default)]
pub struct PublishedEnd(AtomicU64);

impl PublishedEnd {
    /// A file of which the first `end` bytes are complete.
    pub(crate) fn new(end: u64) -> Self {
        Self(AtomicU64::new(end))
    }

    /// Moves the end forward after all bytes below it were written.
    ///
    /// # Panics
    /// If the end would move back: published bytes stay.
    pub(crate) fn publish(&self, end: u64) {
        let before = self.0.load(Ordering::Relaxed);
        assert!(before <= end, "published end moves from {before} back to {end}");
        self.0.store(end, Ordering::Release);
    }

    /// The end; bytes below it may be read.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A read-only shared map of one segment.
#[derive(Debug)]
pub struct SegmentMap {
    raw: MmapRaw,
    published: Arc<PublishedEnd>,
    /// Pages below this position were given back.
    forgotten: AtomicU64,
}

impl SegmentMap {
    /// Maps the first `len` bytes of a file. The file may be shorter.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: u64, published: Arc<PublishedEnd>) -> io::Result<Self> {
        let len = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a map larger than memory can be"))?;
        let raw = MmapOptions::new().len(len).map_raw_read_only(fd.as_raw_fd())?;
        Ok(Self { raw, published, forgotten: AtomicU64::new(0) })
    }

    /// The bytes of a range; `None` unless all of it is published and mapped.
    pub fn slice(&self, range: Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start).ok()?;
        let end = usize::try_from(range.end).ok()?;
        if start > end || end > self.raw.len() || range.end > self.published.get() {
            return None;
        }
        // SAFETY: the range lies inside the map (checked above) and below the published end, so the bytes are
        // complete and never change (1), the file has them (2), no one else writes them (4), and the slice borrows
        // the map (3).
        Some(unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(start), end - start) })
    }
}

/// How many bytes of a map are given back at a time.
const FORGET_BYTES: u64 = 4 << 20;

impl SegmentMap {
    /// Gives back what this process holds of the pages below a position, a few MiB at a time. They stay in the page
    /// cache, and a slice of them is read from there again.
    pub(crate) fn forget_below(&self, position: u64) {
        let from = self.forgotten.load(Ordering::Relaxed);
        let to = position / FORGET_BYTES * FORGET_BYTES;
        let Ok(len) = usize::try_from(to.saturating_sub(from)) else { return };
        if len == 0 || to > self.raw.len() as u64 || self.forgotten.swap(to, Ordering::Relaxed) >= to {
            return;
        }
        // SAFETY: the range lies inside the map (checked above) and begins on a page, since `from` is a multiple of
        // FORGET_BYTES as `to` is. The map is shared and of a file, so the pages come back with the same bytes (9).
        let status = unsafe {
            libc::madvise(self.raw.as_mut_ptr().add(from as usize).cast(), len, libc::MADV_DONTNEED)
        };
        if status != 0 {
            tracing::debug!(error = %io::Error::last_os_error(), "pages of a map are kept");
        }
    }
}

/// Starts writeback of dirty pages in a range of a file, without waiting for it.
pub(crate) fn start_writeback(fd: BorrowedFd<'_>, position: u64, len: u64) -> io::Result<()> {
    let number =
        |value: u64| libc::off64_t::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (position, len) = (number(position)?, number(len)?);
    // SAFETY: no pointers are passed (5).
    let status = unsafe { libc::sync_file_range(fd.as_raw_fd(), position, len, libc::SYNC_FILE_RANGE_WRITE) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Number of `cachestat` (Linux 6.5), the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct CachestatRange {
    offset: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached_pages: u64,
    dirty_pages: u64,
    writeback_pages: u64,
    evicted_pages: u64,
    recently_evicted_pages: u64,
}

/// The kernel has no `cachestat`: it is older than 6.5, or a filter forbids the call.
static NO_CACHESTAT: AtomicBool = AtomicBool::new(false);

/// How many pages of a range of a file are in memory. An error where the kernel cannot tell.
pub(crate) fn cached_pages(fd: BorrowedFd<'_>, position: u64, len: u64) -> io::Result<u64> {
    if !NO_CACHESTAT.load(Ordering::Relaxed) {
        match cachestat(fd, position, len) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                NO_CACHESTAT.store(true, Ordering::Relaxed);
            }
            told => return told,
        }
    }
    mincore(fd, position, len)
}

/// The same by mapping the range for a moment, which touches no page of it.
fn mincore(fd: BorrowedFd<'_>, position: u64, len: u64) -> io::Result<u64> {
    let page_bytes = rustix::param::page_size() as u64;
    let start = position / page_bytes * page_bytes;
    let Ok(len) = usize::try_from(position + len - start) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if len == 0 {
        return Ok(0);
    }
    let map = MmapOptions::new().offset(start).len(len).map_raw_read_only(fd.as_raw_fd())?;
    let mut pages = vec![0_u8; len.div_ceil(rustix::param::page_size())];
    // SAFETY: the vector has a byte for each page of the map, and both outlive the call (7).
    let status = unsafe { libc::mincore(map.as_mut_ptr().cast(), len, pages.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages.iter().filter(|page| **page & 1 != 0).count() as u64)
}

fn cachestat(fd: BorrowedFd<'_>, position: u64, len: u64) -> io::Result<u64> {
    let range = CachestatRange { offset: position, len };
    let mut stat = Cachestat::default();
    // SAFETY: both structs outlive the call and have the kernel's layout (6).
    let status = unsafe {
        libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut stat, 0 as libc::c_uint)
    };
    if status == 0 { Ok(stat.cached_pages) } else { Err(io::Error::last_os_error()) }
}

/// What a process ends with that cannot read a page of a map (`EX_SOFTWARE`).
const EXIT_SIGBUS: libc::c_int = 70;

const SIGBUS_LINE: &[u8] = b"highwater: SIGBUS: a page of a mapped segment file cannot be read; the process ends \
with 70. The disk fails (the kernel log names it: dmesg), or somebody else has cut the file. Acknowledged records are as \
safe as the disk: start the broker again; it checks what it reads and names what is damaged.\n";

/// Ends the process with a sentence and [`EXIT_SIGBUS`] when a page of a map cannot be read. Lookups ask first whether
/// a page is in memory, so this is for the page that goes in between. Process-wide; a program calls it once.
pub fn explain_sigbus() {
    extern "C" fn explain(_signal: libc::c_int) {
        // SAFETY: both calls are async-signal-safe, and the line is static (8).
        unsafe {
            libc::write(libc::STDERR_FILENO, SIGBUS_LINE.as_ptr().cast(), SIGBUS_LINE.len());
            libc::_exit(EXIT_SIGBUS);
        }
    }
    // SAFETY: all zeros are a valid `sigaction` without flags and with an empty mask; the handler keeps to (8). On an
    // alternate stack where the thread has one, since its own may be what cannot be reached.
    let status = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = explain as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if status != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "a failing disk may end this process without a word");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_published_bytes_can_be_seen() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abcdef").unwrap();
        let published = Arc::new(PublishedEnd::new(3));
        let map = SegmentMap::new(file.as_fd(), 1 << 20, Arc::clone(&published)).unwrap();

        assert_eq!(map.slice(0..3), Some(&b"abc"[..]));
        assert_eq!(map.slice(0..4), None);

        published.publish(6);

        assert_eq!(map.slice(3..6), Some(&b"def"[..]));
        assert_eq!(map.slice(0..(1 << 21)), None);
    }

    #[test]
    fn bytes_written_after_mapping_are_seen_through_the_map() {
        let mut file = tempfile::tempfile().unwrap();
        let published = Arc::new(PublishedEnd::new(0));
        let map = SegmentMap::new(file.as_fd(), 1 << 20, Arc::clone(&published)).unwrap();

        file.write_all(b"late").unwrap();
        published.publish(4);

        assert_eq!(map.slice(0..4), Some(&b"late"[..]));
    }

    #[test]
    fn pages_that_were_just_written_are_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 3 * 4096]).unwrap();

        assert_eq!(cached_pages(file.as_fd(), 0, 3 * 4096).unwrap(), 3);
        assert_eq!(mincore(file.as_fd(), 0, 3 * 4096).unwrap(), 3);
        // From the middle of a page to the middle of the next one.
        assert_eq!(mincore(file.as_fd(), 4000, 200).unwrap(), 2);
        assert_eq!(mincore(file.as_fd(), 0, 0).unwrap(), 0);
        // A page that the file does not have is not in memory.
        assert_eq!(mincore(file.as_fd(), 0, 4 * 4096).unwrap(), 3);
    }

    /// Says to this test binary that it is the process that is to die.
    const DOOMED: &str = "HIGHWATER_TEST_SIGBUS";

    #[test]
    fn a_page_that_cannot_be_read_ends_the_process_with_a_sentence() {
        if std::env::var_os(DOOMED).is_some() {
            explain_sigbus();
            let file = tempfile::tempfile().unwrap();
            file.set_len(4096).unwrap();
            let map = SegmentMap::new(file.as_fd(), 4096, Arc::new(PublishedEnd::new(4096))).unwrap();
            file.set_len(0).unwrap();
            std::hint::black_box(map.slice(0..4096).unwrap()[0]);
            return;
        }
        let this = "map::tests::a_page_that_cannot_be_read_ends_the_process_with_a_sentence";
        let mut doomed = Command::new(std::env::current_exe().unwrap());
        let ended = doomed.args(["--exact", this, "--nocapture"]).env(DOOMED, "1").output().unwrap();

        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(EXIT_SIGBUS), "{stderr}");
        assert!(
            stderr.contains("highwater: SIGBUS: a page of a mapped segment file cannot be read"),
            "{stderr}"
        );
    }

    #[test]
    fn what_was_given_back_reads_the_same() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3 * FORGET_BYTES).map(|at| (at / 4096) as u8).collect();
        file.write_all(&bytes).unwrap();
        let end = bytes.len() as u64;
        let map = SegmentMap::new(file.as_fd(), end, Arc::new(PublishedEnd::new(end))).unwrap();
        let held = map.slice(0..end).unwrap();

        for position in [0, FORGET_BYTES - 1, FORGET_BYTES + 1, 2 * FORGET_BYTES, FORGET_BYTES, u64::MAX] {
            map.forget_below(position);
            assert!(held == bytes, "after {position}");
        }
    }

    #[test]
    #[should_panic(expected = "back to")]
    fn a_published_end_never_moves_back() {
        PublishedEnd::new(3).publish(2);
    }
}
