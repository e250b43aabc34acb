//! What reading a log leaves with this process, on real files.

use std::path::Path;
use std::sync::Arc;

use highwater_record::{Batch, Offset};

use super::support::*;
use crate::{BoundedFiles, DiskFiles, FilePool, FirstBatch, Log};

const BATCH_BYTES: usize = 64 << 10;
const BATCHES: usize = 512;

fn home(data: &Path) -> Home {
    let files = BoundedFiles::new(Arc::new(DiskFiles), FilePool::new(100));
    let mut home = Home::on(Arc::new(files), data);
    home.config.segment_bytes = 1 << 30;
    home.config.index_interval_bytes = 4096;
    home
}

/// A log of 32 MiB in one segment.
fn filled(home: &Home) -> Log {
    let (mut log, _) = home.open();
    let batch = large();
    for _ in 0..BATCHES {
        append(&mut log, &batch);
    }
    log
}

fn large() -> Batch {
    batch(Made { len: BATCH_BYTES, ..Made::default() })
}

/// Reads a batch at a time and says how many were hot.
fn read_through(log: &Log) -> usize {
    let (view, mut from, mut hot) = (log.view(), offset(0), 0);
    let end = view.end().offset;
    let bytes_max = large().header().size_bytes;
    while from < end {
        hot += usize::from(view.is_hot(from, bytes_max));
        from = view.read(from, bytes_max, end, FirstBatch::Whole).unwrap().next_offset;
    }
    hot
}

/// How much of a file this process has in its maps, in KiB, as `top` counts it.
fn resident_kib(path: &Path) -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let name = path.to_str().unwrap();
    let mut lines = smaps.lines();
    let mut kib = 0;
    while let Some(line) = lines.next() {
        if line.ends_with(name) {
            let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
            kib += rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    kib
}

#[test]
fn a_log_that_was_read_once_is_not_memory_of_this_process() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let log = filled(&home);

    read_through(&log);

    let kib = resident_kib(&home.path("00000000000000000000.log"));
    assert!(kib <= 8 << 10, "{kib} KiB of {} are resident", (BATCHES * BATCH_BYTES) >> 10);
}

#[test]
fn who_follows_the_end_of_a_log_leaves_little_behind() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let (mut log, _) = home.open();
    let (batch, mut from) = (large(), Offset::default());

    for _ in 0..BATCHES {
        append(&mut log, &batch);
        let view = log.view();
        from = view.read(from, u32::MAX, view.end().offset, FirstBatch::Whole).unwrap().next_offset;
    }

    let kib = resident_kib(&home.path("00000000000000000000.log"));
    assert!(kib <= 8 << 10, "{kib} KiB of {} are resident", (BATCHES * BATCH_BYTES) >> 10);
}

#[test]
fn after_a_start_who_reads_in_order_mostly_finds_that_nothing_needs_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = home(dir.path());
    let mut log = filled(&home);
    sync(&mut log);
    home.known = Some(log.checkpoint());
    log.close().unwrap();
    let (log, _) = home.open();

    let first = read_through(&log);
    let second = read_through(&log);

    // What nobody has read is checked, and that is done ahead; what was checked is at hand until a block of the index ends.
    assert!(first >= BATCHES / 2, "{first} of {BATCHES} reads were hot");
    assert!(second >= BATCHES * 9 / 10, "{second} of {BATCHES} reads were hot the second time");
}
