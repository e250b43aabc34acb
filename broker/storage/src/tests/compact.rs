//! Compaction: what stays, what goes, what readers see meanwhile, and what a crash or a failure leaves.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_record::{
    Batch, BatchBuilder, Codec, DecodeLimits, NewRecord, Offset, Producer, ProducerEpoch, ProducerId,
    Sequence, TimestampMs,
};

use super::support::*;
use crate::{
    CompactionConfig, CompactionError, CompactionOutcome, DiskFiles, FirstBatch, Log, LogConfig, Ratio,
    SimCall, SimFault,
};

pub(super) const MAP_BYTES: usize = 1 << 20;
pub(super) const DELETE_RETENTION_MS: i64 = 1000;

/// A record as a test writes it down: key, and value or tombstone.
pub(super) type Pair = (String, Option<String>);

pub(super) fn pair(key: &str, value: &str) -> Pair {
    (key.to_owned(), Some(value.to_owned()))
}

fn tombstone(key: &str) -> Pair {
    (key.to_owned(), None)
}

/// A home whose log is compacted and whose segments are small.
pub(super) fn compacted(mut home: Home) -> Home {
    home.config.segment_bytes = 900;
    home.config.index_interval_bytes = 150;
    home.config.compaction = Some(CompactionConfig {
        min_lag_ms: 0,
        max_lag_ms: u64::MAX,
        dirty_ratio_min: Ratio::new(0.0).unwrap(),
        delete_retention_ms: DELETE_RETENTION_MS as u64,
    });
    home
}

pub(super) fn keyed(codec: Codec, timestamp: i64, producer: Option<(i64, i32)>, records: &[Pair]) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(Producer {
            id: ProducerId::new(id).unwrap(),
            epoch: ProducerEpoch::new(0).unwrap(),
            base_sequence: Sequence::new(sequence),
        });
    }
    for (n, (key, value)) in records.iter().enumerate() {
        builder
            .append(&NewRecord {
                timestamp: TimestampMs(timestamp + n as i64),
                key: Some(key.as_bytes()),
                value: value.as_deref().map(str::as_bytes),
                headers: &[(b"h", None)],
            })
            .unwrap();
    }
    Batch::new(builder.build().unwrap()).unwrap()
}

fn put(log: &mut Log, records: &[Pair]) -> Offset {
    append(log, &keyed(Codec::None, 1000, None, records))
}

/// Starts a new segment and makes everything durable, so that all before may be compacted.
pub(super) fn seal(log: &mut Log) {
    log.roll(NOW).unwrap();
    sync(log);
}

/// Runs a job to its end. `after_swap` sees the log after each new segment.
pub(super) fn compact_with(
    log: &mut Log,
    now: TimestampMs,
    map_bytes: usize,
    mut after_swap: impl FnMut(&mut Log),
) -> Option<CompactionOutcome> {
    let mut job = log.begin_compaction(now)?;
    loop {
        let result = job.run(map_bytes, &mut |_| ControlFlow::Continue(()));
        match log.finish_compaction(&mut job, result) {
            CompactionOutcome::Swapped => after_swap(log),
            end => return Some(end),
        }
    }
}

fn compact(log: &mut Log) -> Offset {
    match compact_with(log, NOW, MAP_BYTES, |_| {}) {
        Some(CompactionOutcome::Done(end)) => end,
        other => panic!("{other:?}"),
    }
}

/// Offset, key and value of each record from `from` on.
pub(super) fn rows(log: &Log, from: Offset) -> Vec<(i64, String, Option<String>)> {
    let limits = DecodeLimits { bytes_max: 1 << 20, ratio_max: 1000 };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut rows = Vec::new();
    for batch in read_all(log, from) {
        for record in batch.decompress(limits).unwrap().records() {
            let record = record.unwrap();
            assert_eq!(record.headers.count(), 1);
            rows.push((record.offset.get(), text(record.key.unwrap()), record.value.map(text)));
        }
    }
    rows
}

fn row(offset: i64, key: &str, value: &str) -> (i64, String, Option<String>) {
    (offset, key.to_owned(), Some(value.to_owned()))
}

/// Ten keys, written again and again, in segments of about four batches.
fn filled(home: &Home) -> Log {
    let (mut log, _) = home.open();
    for n in 0..60 {
        let codec = [Codec::None, Codec::Zstd, Codec::Gzip, Codec::Lz4, Codec::Snappy][n % 5];
        let key = |n: usize| format!("k{}", n % 10);
        let producer = (n % 3 == 0).then_some((7, n as i32 / 3 * 2));
        let records =
            [pair(&key(n), &format!("v{n}")), (key(n * 7 + 1), (n % 7 > 0).then(|| format!("w{n}")))];
        append(&mut log, &keyed(codec, 1000 + n as i64, producer, &records));
    }
    seal(&mut log);
    larger_segments(home, &mut log);
    log
}

/// From now on three segments may become one.
fn larger_segments(home: &Home, log: &mut Log) {
    log.set_config(LogConfig { segment_bytes: 2800, ..home.config.clone() });
}

#[test]
fn only_the_latest_record_of_each_key_stays_and_offsets_do_not_change() {
    let (home, _) = Home::sim();
    let (mut log, _) = compacted(home).open();
    put(&mut log, &[pair("a", "1"), pair("b", "1")]);
    put(&mut log, &[pair("a", "2"), pair("c", "1")]);
    put(&mut log, &[pair("a", "3")]);
    seal(&mut log);
    put(&mut log, &[pair("b", "2")]);

    assert_eq!(compact(&mut log), offset(5));

    let expected = [row(1, "b", "1"), row(3, "c", "1"), row(4, "a", "3"), row(5, "b", "2")];
    assert_eq!(rows(&log, offset(0)), expected, "the active segment is left alone");
    assert_eq!(spans(&read_all(&log, offset(0))), [(0, 1), (2, 3), (4, 4), (5, 5)]);
    assert!(log.begin_compaction(NOW).is_none(), "nothing is dirty any more");
}

#[test]
fn a_read_inside_a_gap_begins_with_the_next_batch() {
    let (home, _) = Home::sim();
    let (mut log, _) = compacted(home).open();
    for n in 0..6 {
        put(&mut log, &[pair("a", &n.to_string())]);
    }
    seal(&mut log);
    compact(&mut log);

    for from in 0..6 {
        assert_eq!(rows(&log, offset(from)), [row(5, "a", "5")]);
        let chunk = log.view().read(offset(from), 1000, offset(5), FirstBatch::Whole).unwrap();
        assert_eq!((chunk.bytes, chunk.next_offset), (0, offset(5)), "nothing is below offset 5");
    }
    let found = log.view().offset_for_time(TimestampMs(0), offset(6), DECODE_LIMITS).unwrap().unwrap();
    assert_eq!(found.offset, offset(5));
}

#[test]
fn a_tombstone_stays_for_its_retention_and_deletes_for_ever() {
    let (home, _) = Home::sim();
    let home = compacted(home);
    let (mut log, _) = home.open();
    put(&mut log, &[pair("a", "1"), pair("b", "1")]);
    put(&mut log, &[tombstone("a")]);
    put(&mut log, &[pair("b", "2")]);
    seal(&mut log);
    compact(&mut log);
    let deleted = (2, "a".to_owned(), None);
    assert_eq!(rows(&log, offset(0)), [deleted.clone(), row(3, "b", "2")]);
    let horizon = TimestampMs(NOW.0 + DELETE_RETENTION_MS);
    let marked = read_all(&log, offset(0))[0].header().delete_horizon();
    assert_eq!(marked, Some(horizon));

    let just_before = TimestampMs(horizon.0 - 1);
    for (now, left) in [(just_before, vec![deleted, row(3, "b", "2")]), (horizon, vec![row(3, "b", "2")])] {
        put(&mut log, &[pair("c", "1")]);
        seal(&mut log);
        assert!(matches!(compact_with(&mut log, now, MAP_BYTES, |_| {}), Some(CompactionOutcome::Done(_))));
        let rows = rows(&log, offset(0));
        assert_eq!(rows[..left.len()], left, "at {now}");
        assert!(rows[left.len()..].iter().all(|row| row.1 == "c"));
    }
}

#[test]
fn a_full_table_ends_the_pass_and_the_next_one_goes_on() {
    let (home, _) = Home::sim();
    let (mut log, _) = compacted(home).open();
    for round in 0..2 {
        for key in 0..40 {
            put(&mut log, &[pair(&format!("k{key}"), &format!("v{round}"))]);
        }
    }
    seal(&mut log);
    let mut ends = Vec::new();

    while let Some(CompactionOutcome::Done(end)) = compact_with(&mut log, NOW, 0, |_| {}) {
        ends.push(end.get());
    }

    assert_eq!(ends, [14, 28, 42, 56, 70, 80], "the smallest table has room for 14 keys");
    assert_eq!(rows(&log, offset(0)).len(), 40);
    assert!(rows(&log, offset(0)).iter().all(|row| row.2.as_deref() == Some("v1")));
}

#[test]
fn small_segments_become_one_and_lookups_agree_with_a_fresh_start() {
    let (home, _) = Home::sim();
    let home = compacted(home);
    let mut log = filled(&home);
    let before = log.view().segments().len();

    compact(&mut log);

    assert!(log.view().segments().len() <= before / 2, "{before} segments before");
    let (reopened, recovery) = home.open();
    assert_eq!(recovery.bytes_dropped + u64::from(recovery.segments_dropped), 0);
    assert_eq!(rows(&reopened, offset(0)), rows(&log, offset(0)));
    for timestamp in 990..1070 {
        let find = |log: &Log| {
            log.view().offset_for_time(TimestampMs(timestamp), Offset::MAX, DECODE_LIMITS).unwrap()
        };
        let time = |row: &&(i64, String, Option<String>)| 1000 + row.0 / 2 + row.0 % 2 >= timestamp;
        let expected = rows(&log, offset(0)).iter().find(time).map(|row| row.0);
        assert_eq!(find(&log).map(|found| found.offset.get()), expected, "time {timestamp}");
        assert_eq!(find(&reopened), find(&log));
    }
    let latest = |log: &Log| log.view().max_timestamp(Offset::MAX, DECODE_LIMITS).unwrap();
    assert_eq!(latest(&reopened), latest(&log));
    assert!(reopened.begin_compaction(NOW).is_none(), "how far the log is compacted survives");
}

#[test]
fn a_compacted_log_is_recovered_whole_without_a_checkpoint_and_with_an_old_one() {
    for checkpoint_at in [None, Some(3), Some(17), Some(40)] {
        let (home, sim) = Home::sim();
        let mut home = compacted(home);
        let (mut log, _) = home.open();
        for n in 0..60 {
            put(&mut log, &[pair(&format!("k{}", n % 3), &format!("v{n}"))]);
            if Some(n) == checkpoint_at {
                sync(&mut log);
                home.known = Some(log.checkpoint());
            }
        }
        seal(&mut log);
        compact(&mut log);
        put(&mut log, &[pair("z", "last")]);
        sync(&mut log);
        let expected = rows(&log, offset(0));
        for seed in 0..10 {
            let home = Home { files: Arc::new(sim.crash(seed)), ..home.clone() };
            let (log, recovery) = home.open();
            assert_eq!(recovery.bytes_dropped, 0, "checkpoint at {checkpoint_at:?}, seed {seed}");
            assert_eq!(rows(&log, offset(0)), expected);
            assert_eq!(log.view().end().offset, offset(61));
        }
    }
}

#[test]
fn a_producers_last_five_batches_are_known_after_compaction_and_a_restart_without_its_sidecar() {
    let (home, sim) = Home::sim();
    let home = compacted(home);
    let (mut log, _) = home.open();
    let sent: Vec<_> =
        (0..8).map(|n| keyed(Codec::None, 1000, Some((7, n)), &[pair("a", &n.to_string())])).collect();
    for batch in &sent {
        append(&mut log, batch);
    }
    for n in 0..20 {
        put(&mut log, &[pair("a", &format!("later {n}"))]);
    }
    seal(&mut log);
    compact(&mut log);
    assert_eq!(rows(&log, offset(0)), [row(27, "a", "later 19")]);
    log.close().unwrap();
    sim.overwrite(&home.path("producer-state"), b"");

    let (mut log, _) = home.open();

    for n in 3..8_u32 {
        let again = log.append(&sent[n as usize], epoch(2), NOW).unwrap();
        assert!(again.duplicate, "batch {n}");
        assert_eq!(again.base_offset, offset(n.into()));
    }
    assert!(log.append(&keyed(Codec::None, 1000, Some((7, 9)), &[pair("a", "x")]), epoch(2), NOW).is_err());
}

#[test]
fn a_batch_that_cannot_be_read_ends_the_pass_before_it_and_loses_nothing() {
    let (home, sim) = Home::sim();
    let home = compacted(home);
    let (mut log, _) = home.open();
    for n in 0..30 {
        put(&mut log, &[pair(&format!("k{}", n % 2), &n.to_string())]);
    }
    seal(&mut log);
    let segments = log.view().segments();
    let damaged = segments[1].path().to_owned();
    let mut bytes = sim.read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    sim.overwrite(&damaged, &bytes);
    let first_whole = segments[2].base().get();
    let bad = first_whole - 1;

    let Some(CompactionOutcome::Failed(CompactionError::Damaged { offset: at, .. })) =
        compact_with(&mut log, NOW, MAP_BYTES, |_| {})
    else {
        panic!("the damage is not named");
    };

    assert_eq!(at, offset(bad));
    assert_eq!(sim.read(&damaged).unwrap(), bytes, "the damaged segment is as it was");
    assert_eq!(rows(&log, offset(first_whole)).len() as i64, 30 - first_whole);
    assert!(log.begin_compaction(NOW).is_none(), "it is not tried again and again");
}

#[test]
fn a_reader_that_holds_the_old_segments_reads_them_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let home = compacted(Home::disk(dir.path()));
    let mut log = filled(&home);
    // Opened again: nothing is mapped and no file is open.
    log.close().unwrap();
    (log, _) = home.open();
    larger_segments(&home, &mut log);
    sync(&mut log);
    let before = log.view().segments();
    let bytes = |segments: &[Arc<crate::segment::Segment>]| -> Vec<Vec<u8>> {
        let read = |segment: &Arc<crate::segment::Segment>| {
            let mut bytes = vec![0; segment.end().bytes as usize];
            crate::files::read_exact_at(&*segment.log_file().unwrap(), &mut bytes, 0).unwrap();
            bytes
        };
        segments.iter().map(read).collect()
    };
    let names: Vec<_> = before.iter().map(|segment| std::fs::read(segment.path()).unwrap()).collect();

    compact(&mut log);

    assert_eq!(bytes(&before), names, "an old segment is read by its old file");
    assert!(log.view().segments().len() < before.len());
}

#[test]
fn readers_see_the_old_or_the_new_batches_while_segments_are_swapped() {
    let dir = tempfile::tempdir().unwrap();
    let home = compacted(Home::disk(dir.path()));
    let (mut log, _) = home.open();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (view, stop) = (log.view(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut reads = 0;
                while !stop.load(Ordering::Acquire) || reads == 0 {
                    let (mut at, end) = (view.log_start(), view.end().offset);
                    while at < end {
                        let chunk = view.read(at, 700, end, FirstBatch::Whole).unwrap();
                        let mut bytes = Vec::new();
                        chunk.ranges.iter().for_each(|range| range.copy_to(&mut bytes).unwrap());
                        for batch in split(bytes.into()) {
                            let records =
                                batch.decompress(DecodeLimits { bytes_max: 1 << 20, ratio_max: 1000 });
                            for record in records.unwrap().records() {
                                let record = record.unwrap();
                                // Every value says at which offset it was written.
                                assert_eq!(record.value.unwrap(), record.offset.to_string().as_bytes());
                            }
                        }
                        assert!(chunk.next_offset > at);
                        at = chunk.next_offset;
                    }
                    reads += 1;
                }
                reads
            })
        })
        .collect();

    let mut next = 0;
    for _ in 0..20 {
        for _ in 0..30 {
            put(&mut log, &[pair(&format!("k{}", next % 7), &next.to_string())]);
            next += 1;
        }
        seal(&mut log);
        compact(&mut log);
    }
    stop.store(true, Ordering::Release);

    assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    assert_eq!(rows(&log, offset(0)).len(), 7);
}

#[test]
fn what_is_cut_deleted_or_given_up_meanwhile_makes_a_job_void() {
    for what in ["truncated", "deleted", "given up"] {
        let (home, _) = Home::sim();
        let home = compacted(home);
        let mut log = filled(&home);
        let mut job = log.begin_compaction(NOW).unwrap();
        let result = job.run(MAP_BYTES, &mut |_| ControlFlow::Continue(()));
        match what {
            "truncated" => drop(log.truncate(offset(31), epoch(2)).unwrap()),
            "deleted" => drop(log.delete_before(offset(50)).unwrap().run().unwrap()),
            _ => {
                let files = names(&*home.files, &home.dir);
                log.give_up();
                job.run(MAP_BYTES, &mut |_| ControlFlow::Continue(())).unwrap_err();
                assert_eq!(names(&*home.files, &home.dir), files);
                continue;
            }
        }
        let expected = rows(&log, log.view().log_start());

        let outcome = log.finish_compaction(&mut job, result);

        assert!(matches!(outcome, CompactionOutcome::Superseded), "{what}: {outcome:?}");
        assert_eq!(rows(&log, log.view().log_start()), expected, "{what}");
        assert!(names(&*home.files, &home.dir).iter().all(|name| !name.contains("cleaned")), "{what}");
        drop(job);
        put(&mut log, &[pair("new", "1")]);
        // The next pass is a pass like any other.
        seal(&mut log);
        compact(&mut log);
    }
}

fn names(files: &dyn crate::FileLayer, dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = files.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[test]
fn a_log_that_is_cut_inside_a_gap_ends_before_the_gap_and_opens_again() {
    for to in 0..60 {
        let (home, _) = Home::sim();
        let home = compacted(home);
        let (mut log, _) = home.open();
        for n in 0..60 {
            put(&mut log, &[pair(&format!("k{}", n / 12), &n.to_string())]);
        }
        seal(&mut log);
        compact(&mut log);
        let expected: Vec<_> = rows(&log, offset(0)).into_iter().filter(|row| row.0 < to).collect();

        let end = log.truncate(offset(to), epoch(2)).unwrap().offset;

        assert!(end <= offset(to));
        assert_eq!(rows(&log, offset(0)), expected, "cut at {to}");
        log.append(&keyed(Codec::None, 1000, None, &[pair("n", "1")]), epoch(2), NOW).unwrap();
        sync(&mut log);
        let after = rows(&log, offset(0));
        drop(log);
        let (log, recovery) = home.open();
        assert_eq!(recovery.segments_dropped, 0);
        assert_eq!(rows(&log, offset(0)), after, "cut at {to}, opened again");
    }
}

#[test]
fn a_failed_call_leaves_the_old_segments_and_the_next_pass_succeeds() {
    let faults = [
        (SimCall::Create, ".cleaned"),
        (SimCall::Write, ".log.cleaned"),
        (SimCall::Sync, ".log.cleaned"),
        (SimCall::Read, "00.log"),
        (SimCall::Rename, ".swap"),
        (SimCall::SyncDir, "topic-0"),
    ];
    for (call, path_end) in faults {
        let (home, sim) = Home::sim();
        let home = compacted(home);
        let mut log = filled(&home);
        let before = rows(&log, offset(0));
        let errno = io::Error::from_raw_os_error(28).raw_os_error().unwrap();
        sim.plan(SimFault { call, path_end: path_end.into(), after: 0, times: 1, errno, bytes_written: 3 });

        let outcome = compact_with(&mut log, NOW, MAP_BYTES, |_| {});

        assert!(
            matches!(outcome, Some(CompactionOutcome::Failed(CompactionError::Io { .. }))),
            "{call:?} {path_end}: {outcome:?}"
        );
        assert_eq!(rows(&log, offset(0)), before, "{call:?} {path_end}");
        compact(&mut log);
        assert!(rows(&log, offset(0)).len() < before.len());
    }
}

#[test]
fn a_pass_stops_when_the_pace_says_so_and_leaves_nothing_behind() {
    let (home, _) = Home::sim();
    let home = compacted(home);
    let mut log = filled(&home);
    let before = (rows(&log, offset(0)), names(&*home.files, &home.dir));
    for pieces in 0..8 {
        let mut left = pieces;
        let mut job = log.begin_compaction(NOW).unwrap();
        let result = job.run(MAP_BYTES, &mut |_| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let outcome = log.finish_compaction(&mut job, result);
        assert!(matches!(outcome, CompactionOutcome::Failed(CompactionError::Stopped)), "{outcome:?}");
        assert_eq!((rows(&log, offset(0)), names(&*home.files, &home.dir)), before);
    }
}

#[test]
fn a_power_cut_at_any_file_operation_leaves_the_log_before_or_after_a_swap() {
    let stages = {
        let (home, _) = Home::sim();
        let mut log = filled(&compacted(home));
        let mut stages = vec![read_all(&log, offset(0))];
        compact_with(&mut log, NOW, MAP_BYTES, |log| stages.push(read_all(log, offset(0))));
        stages.iter().map(|stage| stage.iter().map(|b| b.bytes().clone()).collect()).collect::<Vec<Vec<_>>>()
    };
    assert!(stages.len() > 3, "several groups");
    let mut changes = 0;
    let mut seen = vec![0; stages.len()];
    loop {
        let (home, sim) = Home::sim();
        let mut home = compacted(home);
        let mut log = filled(&home);
        let checkpoint = log.checkpoint();
        sim.cut_power_after(changes);
        let outcome = compact_with(&mut log, NOW, MAP_BYTES, |_| {});
        drop(log);
        for seed in 0..8 {
            home.files = Arc::new(sim.crash(seed));
            home.known = (seed % 2 == 0).then_some(checkpoint);
            let (mut log, recovery) = home.open();
            assert_eq!(recovery.bytes_dropped + u64::from(recovery.segments_dropped), 0);
            let found: Vec<_> = read_all(&log, offset(0)).iter().map(|b| b.bytes().clone()).collect();
            let stage = stages.iter().position(|stage| *stage == found);
            seen[stage.unwrap_or_else(|| panic!("a mix after {changes} changes, seed {seed}"))] += 1;
            assert!(names(&*home.files, &home.dir).iter().all(|name| {
                !name.ends_with(".cleaned") && !name.ends_with(".swap") && !name.ends_with(".dropped")
            }));
            log.set_epoch_min(epoch(2));
            put(&mut log, &[pair("after", "1")]);
            seal(&mut log);
            compact(&mut log);
            let keys: std::collections::BTreeSet<_> =
                rows(&log, offset(0)).into_iter().map(|row| row.1).collect();
            assert_eq!(keys.len(), rows(&log, offset(0)).len(), "one record for each key");
        }
        if matches!(outcome, Some(CompactionOutcome::Done(_))) && seen.last() > Some(&8) {
            break;
        }
        changes += 1;
        assert!(changes < 500, "the pass never ended: {outcome:?}");
    }
    assert!(seen.iter().all(|times| *times > 0), "every stage was seen: {seen:?}");
}

#[test]
fn offline_tools_and_real_files_agree_with_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let home = compacted(Home::on(Arc::new(DiskFiles), dir.path()));
    let mut log = filled(&home);
    compact(&mut log);

    for segment in log.view().segments().iter() {
        let mut scan = crate::SegmentScan::open(segment.path()).unwrap();
        let mut end = segment.base();
        while let Some(batch) = scan.next() {
            let batch = batch.unwrap();
            scan.read(&batch).unwrap();
            end = batch.header.next_offset();
        }
        assert_eq!(end, segment.end().offset, "a segment ends where the next one begins");
    }
}

#[test]
fn records_that_are_too_young_wait_and_those_that_waited_too_long_do_not() {
    let (home, _) = Home::sim();
    let mut home = compacted(home);
    let mut rules = home.config.compaction.unwrap();
    rules.min_lag_ms = 100;
    rules.max_lag_ms = 1000;
    rules.dirty_ratio_min = Ratio::new(1.0).unwrap();
    home.config.compaction = Some(rules);
    let (mut log, _) = home.open();
    for n in 0..3 {
        for _ in 0..4 {
            append(&mut log, &keyed(Codec::None, 5000 + n * 200, None, &[pair("a", &n.to_string())]));
        }
        seal(&mut log);
    }
    let look = |log: &Log, now| log.dirt().unwrap().look(TimestampMs(now)).unwrap();

    assert_eq!(look(&log, 5099).dirty_bytes, 0, "the first segment is too young");
    let first = look(&log, 5100);
    assert!(first.dirty_bytes > 0 && !first.is_eligible(), "a ratio of 1 is never passed");
    assert_eq!(look(&log, 5300).dirty_bytes, 2 * first.dirty_bytes);
    assert!(!look(&log, 6000).is_due && look(&log, 6001).is_due && look(&log, 6001).is_eligible());
}
