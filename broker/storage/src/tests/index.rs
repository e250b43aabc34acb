//! Lookups in an index that is longer than what is kept of it in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::counting::{CountingFiles, Counts};
use crate::index::{Index, OffsetEntry};
use crate::{BoundedFiles, DiskFiles, FileLayer, FilePool};

/// Entries that the index keeps in memory at most.
const RECENT_MAX: u32 = 1024;

/// An index of batches of ten offsets and a hundred bytes each, on files that share a pool.
fn index_of(dir: &Path, count: u32) -> (Index<OffsetEntry>, Arc<Counts>) {
    let (counting, counts) = CountingFiles::over(Arc::new(DiskFiles));
    let files: Arc<dyn FileLayer> = Arc::new(BoundedFiles::new(counting, FilePool::new(16)));
    let index = Index::new(files, dir.join("index"), 0);
    extend(&index, 0..count);
    (index, counts)
}

fn extend(index: &Index<OffsetEntry>, numbers: std::ops::Range<u32>) {
    for number in numbers {
        if index.append(entry(number)) {
            index.flush().unwrap();
        }
    }
    index.flush().unwrap();
}

fn entry(number: u32) -> OffsetEntry {
    OffsetEntry { relative_offset: number * 10 + 9, position: number * 100 }
}

fn before(index: &Index<OffsetEntry>, offset: u32) -> Option<OffsetEntry> {
    index.last_where(|entry| entry.relative_offset < offset).unwrap()
}

/// What [`before`] must say of so many entries.
fn expected(offset: u32, count: u32) -> Option<OffsetEntry> {
    (offset / 10).min(count).checked_sub(1).map(entry)
}

#[test]
fn who_reads_in_order_reads_the_index_a_block_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let count = 10_000;
    let (index, counts) = index_of(dir.path(), count);
    let in_file_only = (count - RECENT_MAX) * 10;

    for offset in (0..in_file_only).step_by(10) {
        assert_eq!(before(&index, offset), expected(offset, count));
    }

    let reads = counts.reads.load(Ordering::Relaxed);
    assert!(reads < 1000, "{reads} reads for {} lookups", in_file_only / 10);
}

#[test]
fn what_is_kept_of_an_index_goes_when_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = index_of(dir.path(), 3000);
    assert_eq!(before(&index, 1005), expected(1005, 3000));

    index.truncate(50).unwrap();
    assert_eq!(before(&index, 1005), expected(1005, 50));

    // Other entries in the same places.
    let moved = OffsetEntry { relative_offset: 1001, position: 9000 };
    index.append(moved);
    index.flush().unwrap();
    index.truncate(51).unwrap();
    assert_eq!(before(&index, 1005), Some(moved));
}

proptest! {
    #[test]
    fn a_lookup_finds_what_a_search_from_the_front_finds(
        count in 0u32..4000,
        offsets in prop::collection::vec(0u32..45_000, 1..60),
        cut in 0u32..4000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = index_of(dir.path(), count);
        for offset in &offsets {
            prop_assert_eq!(before(&index, *offset), expected(*offset, count));
        }

        index.truncate_if_shorter(cut).unwrap();

        let left = count.min(cut);
        for offset in &offsets {
            prop_assert_eq!(before(&index, *offset), expected(*offset, left));
        }
    }
}
