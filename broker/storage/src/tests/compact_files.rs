//! Compaction and files: what readers see while they are swapped, and what a crash, a failure or a cut leaves of them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_record::DecodeLimits;

use super::compact::*;
use super::support::*;
use crate::files::read_exact_at;
use crate::segment::Segment;
use crate::{
    CompactionError, CompactionOutcome, DiskFiles, FileLayer, FirstBatch, SegmentScan, SimCall, SimFault,
};

fn names(files: &dyn FileLayer, dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = files.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
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
    let bytes = |segments: &[Arc<Segment>]| -> Vec<Vec<u8>> {
        let read = |segment: &Arc<Segment>| {
            let mut bytes = vec![0; segment.end().bytes as usize];
            read_exact_at(&*segment.log_file().unwrap(), &mut bytes, 0).unwrap();
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
                    let mut at = view.log_start();
                    loop {
                        // Asked again each time: what ended here may be part of a larger empty batch by now.
                        let end = view.end().offset;
                        if at >= end {
                            break;
                        }
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
        let errno = libc::ENOSPC;
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
fn a_compacted_segment_that_gets_no_name_is_left_alone_until_the_next_start() {
    let (home, sim) = Home::sim();
    let mut home = compacted(home);
    let mut log = filled(&home);
    let bases: BTreeSet<i64> = log.view().segments().iter().map(|segment| segment.base().get()).collect();
    // The second group, so that a later pass may merge it into the first.
    let path_end = ".log".to_owned();
    let (call, errno) = (SimCall::Rename, libc::ENOSPC);
    sim.plan(SimFault { call, path_end, after: 1, times: 1, errno, bytes_written: 0 });
    compact(&mut log);
    let marked = names(&*home.files, &home.dir).into_iter().find(|name| name.ends_with(".swap")).unwrap();
    assert!(bases.range(1..).any(|base| marked.starts_with(&format!("{base:020}"))), "{marked}");

    log.set_config(crate::LogConfig { segment_bytes: 1 << 20, ..home.config.clone() });
    for n in 0..10 {
        put(&mut log, &[pair(&format!("k{n}"), "new")]);
    }
    seal(&mut log);
    compact_with(&mut log, NOW, MAP_BYTES, |_| {});
    let expected = rows(&log, offset(0));
    home.known = Some(log.checkpoint());
    log.close().unwrap();

    let (mut log, _) = home.open();
    assert_eq!(rows(&log, offset(0)), expected);
    assert!(names(&*home.files, &home.dir).iter().all(|name| !name.ends_with(".swap")));
    compact(&mut log);
    assert_eq!(rows(&log, offset(0)).len(), 10, "one record for each key");
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
            let keys: BTreeSet<_> = rows(&log, offset(0)).into_iter().map(|row| row.1).collect();
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
        let mut scan = SegmentScan::open(segment.path()).unwrap();
        let mut end = segment.base();
        while let Some(batch) = scan.next() {
            let batch = batch.unwrap();
            scan.read(&batch).unwrap();
            end = batch.header.next_offset();
        }
        assert_eq!(end, segment.end().offset, "a segment ends where the next one begins");
    }
}
