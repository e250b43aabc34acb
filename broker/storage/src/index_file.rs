//! Index files read offline, an entry at a time: a search touches as many entries as it has steps, whatever the size.
//!
//! The files may be Apache Kafka's own, which makes those of active segments as large as they may get: entries of
//! zeros at the end stand for nothing. What an entry says is for the reader to compare with the segment.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::index::{Entry, OffsetEntry, TimeEntry};

/// An `.index` file.
#[derive(Debug)]
pub struct OffsetIndexFile(Entries<OffsetEntry>);

/// A `.timeindex` file.
#[derive(Debug)]
pub struct TimeIndexFile(Entries<TimeEntry>);

#[derive(Debug)]
struct Entries<E> {
    file: File,
    len: u64,
    entry: PhantomData<E>,
}

impl OffsetIndexFile {
    /// Opens an `.index` file to read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Entries::open(path).map(Self)
    }

    /// The last entry for which `matches` holds; it must hold for a prefix of the entries.
    pub fn last_where(&self, matches: impl Fn(&OffsetEntry) -> bool) -> io::Result<Option<OffsetEntry>> {
        self.0.last_where(|entry| (entry.relative_offset, entry.position) != (0, 0) && matches(entry))
    }
}

impl TimeIndexFile {
    /// Opens a `.timeindex` file to read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Entries::open(path).map(Self)
    }

    /// The last entry for which `matches` holds; it must hold for a prefix of the entries.
    pub fn last_where(&self, matches: impl Fn(&TimeEntry) -> bool) -> io::Result<Option<TimeEntry>> {
        self.0.last_where(|entry| (entry.timestamp.0, entry.relative_offset) != (0, 0) && matches(entry))
    }
}

impl<E: Entry> Entries<E> {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len() / E::BYTES as u64;
        Ok(Self { file, len, entry: PhantomData })
    }

    fn entry(&self, number: u64) -> io::Result<E> {
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..E::BYTES];
        self.file.read_exact_at(bytes, number * E::BYTES as u64)?;
        Ok(E::decode(bytes))
    }

    fn last_where(&self, matches: impl Fn(&E) -> bool) -> io::Result<Option<E>> {
        let (mut low, mut high) = (0, self.len);
        let mut last = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            if matches(&entry) {
                (low, last) = (middle + 1, Some(entry));
            } else {
                high = middle;
            }
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index with entries at offsets 10, 20, ... and positions 100, 200, ..., and room that was allocated ahead.
    fn index(entries: u32, zeros: usize) -> (tempfile::TempDir, OffsetIndexFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("00000000000000000000.index");
        let mut bytes = Vec::new();
        for number in 1..=entries {
            OffsetEntry { relative_offset: number * 10, position: number * 100 }.encode(&mut bytes);
        }
        bytes.resize(bytes.len() + zeros, 0);
        std::fs::write(&path, bytes).unwrap();
        (dir, OffsetIndexFile::open(&path).unwrap())
    }

    #[test]
    fn the_last_entry_that_matches_is_found_before_zeros_and_a_cut_entry() {
        for entries in 0..9 {
            for zeros in [0, 8, 80, 83] {
                let (_dir, index) = index(entries, zeros);
                for wanted in 0..100 {
                    let found = index.last_where(|entry| entry.relative_offset <= wanted).unwrap();
                    let expected = (wanted / 10).min(entries);
                    let found = found.map_or(0, |entry| entry.position / 100);
                    assert_eq!(found, expected, "{wanted} of {entries} and {zeros}");
                }
            }
        }
    }
}
