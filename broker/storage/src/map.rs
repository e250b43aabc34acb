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

#![expect(unsafe_code, reason = "slices over maps, and system calls that no safe crate offers")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

/// How many bytes of a segment are complete and will never change.
#[derive(Debug, Default)]
pub struct PublishedEnd(AtomicU64);

impl PublishedEnd {
    /// A file of which the first `end` bytes are complete.
    pub(crate) const fn new(end: u64) -> Self {
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
}

impl SegmentMap {
    /// Maps the first `len` bytes of a file. The file may be shorter.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: u64, published: Arc<PublishedEnd>) -> io::Result<Self> {
        let len = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a map larger than memory can be"))?;
        let raw = MmapOptions::new().len(len).map_raw_read_only(fd.as_raw_fd())?;
        Ok(Self { raw, published })
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

/// How many pages of a range of a file are in memory. An error where the kernel cannot tell.
pub(crate) fn cached_pages(fd: BorrowedFd<'_>, position: u64, len: u64) -> io::Result<u64> {
    let range = CachestatRange { offset: position, len };
    let mut stat = Cachestat::default();
    // SAFETY: both structs outlive the call and have the kernel's layout (6).
    let status = unsafe {
        libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut stat, 0 as libc::c_uint)
    };
    if status == 0 { Ok(stat.cached_pages) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

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

        match cached_pages(file.as_fd(), 0, 3 * 4096) {
            Ok(pages) => assert_eq!(pages, 3),
            // Before Linux 6.5 the call does not exist, and the caller takes everything for cold.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOSYS)),
        }
    }

    #[test]
    #[should_panic(expected = "back to")]
    fn a_published_end_never_moves_back() {
        PublishedEnd::new(3).publish(2);
    }
}
