//! One writer, eight readers and whoever removes segments, all at once, on real files and through the maps.
//!
//! A reader checks the CRC and the offsets of every batch that it gets. `cargo xtask nightly tsan` runs this under
//! ThreadSanitizer, for longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use highwater_record::{Batch, Codec, Offset};

use super::compact::{MAP_BYTES, compact_with, compacted, keyed, pair};
use super::support::*;
use crate::{BoundedFiles, DiskFiles, FilePool, FirstBatch, Log, LogView, ReadError};

const READERS: usize = 8;
/// Fewer than the log has segments, so that files and maps are closed and opened under the readers.
const DESCRIPTORS: usize = 8;
/// The log begins at most so many offsets before its end.
const KEPT: i64 = 100;
/// Batches between two rounds of removal.
const ROUND: u64 = 64;

/// Whether the offsets of a log may have gaps.
#[derive(Clone, Copy, PartialEq)]
enum Gaps {
    None,
    ByCompaction,
}

/// What readers and writer tell each other.
#[derive(Default)]
struct Tally {
    writer_is_done: AtomicBool,
    batches: AtomicU64,
    mapped: AtomicU64,
}

/// Reads one chunk and checks each of its batches. Where to go on.
fn read_chunk(view: &LogView, from: Offset, gaps: Gaps, tally: &Tally) -> Offset {
    let chunk = match view.read(from, 8 << 10, view.durable().offset, FirstBatch::Whole) {
        Ok(chunk) => chunk,
        // Removed under the reader.
        Err(ReadError::OutOfRange { requested, start, .. }) if requested < start => return start,
        Err(error) => panic!("at {from}: {error}"),
    };
    let mut next = from;
    for range in &chunk.ranges {
        let mut copy = Vec::new();
        range.copy_to(&mut copy).unwrap();
        if let Some(mapped) = range.mapped() {
            assert!(mapped == copy, "the map and the file differ after {next}");
            tally.mapped.fetch_add(1, Ordering::Relaxed);
        }
        // Taking a batch apart compares its CRC.
        for batch in split(copy.into()) {
            let base = batch.header().base_offset;
            // The first one may begin before the offset that was asked for.
            let follows = if gaps == Gaps::None { base == next } else { base >= next };
            assert!(follows || (base < next && next == from), "{base} after {next}");
            next = batch.header().next_offset();
            tally.batches.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert!(next <= chunk.next_offset && from <= chunk.next_offset);
    chunk.next_offset
}

/// Reads from the log's start to its end over and over, until the writer is done and the end was reached once more.
fn read_on(view: &LogView, gaps: Gaps, tally: &Tally) {
    let mut next = view.log_start();
    loop {
        let done = tally.writer_is_done.load(Ordering::Acquire);
        let before = next;
        next = read_chunk(view, next, gaps, tally);
        if next == before {
            if done && next == view.end().offset {
                return;
            }
            next = view.log_start();
            thread::yield_now();
        }
    }
}

/// What of the log goes: by compaction, and by retention.
fn remove(log: &mut Log, gaps: Gaps) {
    if gaps == Gaps::ByCompaction {
        log.roll(NOW).unwrap();
        sync(log);
        compact_with(log, NOW, MAP_BYTES, |_| {});
    }
    let end = log.view().end().offset.get();
    let start = offset((end - KEPT).max(log.view().log_start().get()));
    log.delete_before(start).unwrap().run().unwrap();
}

fn write(log: &mut Log, number: u64, gaps: Gaps) {
    let value = "v".repeat((number * 37 % 900) as usize);
    let batch: Batch = match gaps {
        Gaps::None => batch(Made { count: 1 + number as u32 % 3, len: value.len(), ..Made::default() }),
        Gaps::ByCompaction => {
            let codec = [Codec::None, Codec::Lz4][number as usize % 2];
            keyed(codec, 1000 + number as i64, None, &[pair(&format!("k{}", number % 50), &value)])
        }
    };
    append(log, &batch);
    if number.is_multiple_of(3) {
        sync(log);
    }
}

fn everyone_at_once(gaps: Gaps) {
    let batches = u64::from(cases(1_500, 60_000, 600_000));
    let dir = tempfile::tempdir().unwrap();
    let files = BoundedFiles::new(Arc::new(DiskFiles), FilePool::new(DESCRIPTORS));
    let mut home = Home::on(Arc::new(files), dir.path());
    if gaps == Gaps::ByCompaction {
        home = compacted(home);
    }
    home.config.segment_bytes = 16 << 10;
    let (mut log, _) = home.open();
    write(&mut log, 0, gaps);
    let (view, tally) = (log.view(), Tally::default());
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| read_on(&view, gaps, &tally));
        }
        for number in 1..=batches {
            write(&mut log, number, gaps);
            if number.is_multiple_of(ROUND) {
                remove(&mut log, gaps);
            }
        }
        sync(&mut log);
        tally.writer_is_done.store(true, Ordering::Release);
    });

    assert!(view.quarantined().is_empty(), "{:?}", view.quarantined());
    assert!(view.log_start().get() > 0, "nothing was removed");
    let seen = [&tally.batches, &tally.mapped].map(|count| count.load(Ordering::Relaxed));
    assert!(seen.iter().all(|count| *count > 0), "batches and mapped ranges: {seen:?}");
    println!("{batches} batches were written, {} read, {} ranges through maps", seen[0], seen[1]);
}

#[test]
fn readers_get_whole_batches_in_order_while_segments_are_removed() {
    everyone_at_once(Gaps::None);
}

#[test]
fn readers_get_whole_batches_in_order_while_segments_are_compacted() {
    everyone_at_once(Gaps::ByCompaction);
}
