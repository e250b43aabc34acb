//! What opening a log keeps, drops and quarantines.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use highwater_record::Offset;

use super::support::*;
use crate::{FirstBatch, Log, OpenError, Opening, ReadError, SimFiles};

const LOG: &str = "00000000000000000000.log";

/// Three batches of two records, synced up to `synced` of them, with a checkpoint of that.
fn three_batches(synced: usize) -> (Home, SimFiles, u64) {
    let (mut home, files) = Home::sim();
    let (mut log, _) = home.open();
    for number in 0..3 {
        append(&mut log, &records(2));
        if number + 1 == synced {
            sync(&mut log);
        }
    }
    home.known = Some(log.checkpoint());
    (home, files, u64::from(records(2).header().size_bytes))
}

fn ends_at(home: &Home) -> i64 {
    home.open().0.view().end().offset.get()
}

#[test]
fn a_tail_torn_at_any_byte_is_dropped_to_the_last_whole_batch() {
    let (home, files, size) = three_batches(1);
    let whole = files.read(&home.path(LOG)).unwrap();

    for len in size..=whole.len() as u64 {
        files.overwrite(&home.path(LOG), &whole[..len as usize]);
        let (log, recovery) = home.open();

        assert_eq!(log.view().end().offset.get() as u64, len / size * 2, "{len} bytes");
        assert_eq!(recovery.bytes_dropped, len % size);
        assert_eq!(recovery.bytes_scanned, (len / size - 1) * size);
        assert_eq!(recovery.needs_sync, len >= 2 * size);
        assert_eq!(log.view().durable().offset, offset(2));
        assert_eq!(files.read(&home.path(LOG)).unwrap().len() as u64, len / size * size);
    }
}

#[test]
fn a_byte_flipped_above_the_recovery_point_ends_the_log_before_its_batch() {
    let (home, files, size) = three_batches(1);
    let good = files.read(&home.path(LOG)).unwrap();

    for at in size as usize..2 * size as usize {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        files.overwrite(&home.path(LOG), &bad);
        let in_batch = at - size as usize;
        if (12..16).contains(&in_batch) {
            // The leader epoch is covered by no checksum; a larger one cannot be told from the truth.
            continue;
        }
        assert_eq!(ends_at(&home), 2, "byte {in_batch} of the second batch");
    }
}

#[test]
fn an_opening_that_is_given_up_changes_nothing() {
    let (home, files, size) = three_batches(1);
    let torn = files.read(&home.path(LOG)).unwrap()[..3 * size as usize - 1].to_vec();
    files.overwrite(&home.path(LOG), &torn);
    let give_up = Arc::new(AtomicBool::new(true));
    let opening = Opening { known: home.known, now: NOW, scanned: Arc::default(), give_up };

    let opened = Log::open_counting(Arc::clone(&home.files), home.dir.clone(), home.config.clone(), opening);

    assert!(matches!(opened, Err(OpenError::GivenUp { opened: 0, segments: 1 })), "{opened:?}");
    assert_eq!(files.read(&home.path(LOG)).unwrap(), torn);
    assert_eq!(ends_at(&home), 4);
}

/// Which offsets a log has lost, each range as `(from, to)`.
fn lost(log: &Log) -> Vec<(i64, i64)> {
    log.view().quarantined().iter().map(|range| (range.from.get(), range.to.get())).collect()
}

/// Whether a read at an offset says that it is quarantined.
fn is_refused(log: &Log, at: i64) -> bool {
    let read = log.view().read(offset(at), 1 << 20, Offset::MAX, FirstBatch::Whole);
    matches!(read, Err(ReadError::Quarantined(range)) if range.from <= offset(at) && offset(at) < range.to)
}

#[test]
fn a_header_damaged_below_the_recovery_point_costs_its_batch_and_changes_nothing() {
    let (home, files, size) = three_batches(3);
    let good = files.read(&home.path(LOG)).unwrap();
    let mut bad = good.clone();
    bad[size as usize + 16] = 1;
    files.overwrite(&home.path(LOG), &bad);

    let (mut log, _) = home.open();

    assert_eq!(lost(&log), [(2, 4)]);
    assert_eq!(files.read(&home.path(LOG)).unwrap(), bad);
    let before = log.view().read(offset(0), 1 << 20, Offset::MAX, FirstBatch::Whole).unwrap();
    assert_eq!((u64::from(before.bytes), before.next_offset), (size, offset(2)));
    assert!(is_refused(&log, 2) && is_refused(&log, 3));
    assert_eq!(spans(&read_all(&log, offset(4))), [(4, 5)]);
    assert_eq!(append(&mut log, &records(2)), offset(6));
    assert_eq!(files.read(&home.path(LOG)).unwrap(), bad, "appends go to a new segment");
    assert_eq!(spans(&read_all(&log, offset(4))), [(4, 5), (6, 7)]);
}

#[test]
fn a_file_shorter_than_its_recovery_point_costs_what_is_gone_and_no_offset_is_used_again() {
    for beyond in [0, 7] {
        let (home, files, size) = three_batches(3);
        let good = files.read(&home.path(LOG)).unwrap();
        let bad = &good[..2 * size as usize + beyond];
        files.overwrite(&home.path(LOG), bad);

        let (mut log, _) = home.open();

        assert_eq!(lost(&log), [(4, 6)]);
        assert_eq!(log.view().end().offset, offset(6));
        assert_eq!(spans(&read_all_readable(&log)), [(0, 1), (2, 3)]);
        assert_eq!(append(&mut log, &records(1)), offset(6));
        assert_eq!(files.read(&home.path(LOG)).unwrap(), bad);
        sync(&mut log);
        let known = Some(log.checkpoint());
        let (log, _) = Home { known, ..home.clone() }.open();
        assert_eq!(lost(&log), [(4, 6)]);
        assert_eq!(spans(&read_all_readable(&log)), [(0, 1), (2, 3), (6, 6)]);
    }
}

#[test]
fn a_log_whose_directory_is_gone_begins_again_at_its_recovery_point() {
    let (mut home, _) = Home::sim();
    home.known = Some(crate::LogCheckpoint {
        log_start: offset(0),
        recovery_point: offset(5),
        high_watermark: offset(5),
    });

    let (mut log, _) = home.open();

    assert_eq!(lost(&log), [(0, 5)]);
    assert!(is_refused(&log, 0));
    assert_eq!(append(&mut log, &records(1)), offset(5));
    assert_eq!(spans(&read_all_readable(&log)), [(5, 5)]);
}

/// A log of many small segments, closed.
fn many_segments() -> (Home, SimFiles, Log) {
    let (mut home, files) = Home::sim();
    home.config.segment_bytes = 1000;
    let (mut log, _) = home.open();
    for number in 0..40 {
        append(&mut log, &batch(Made { count: 2, timestamp: 1000 + number, ..Made::default() }));
    }
    sync(&mut log);
    home.known = Some(log.checkpoint());
    (home, files, log)
}

#[test]
fn an_index_that_is_missing_zeroed_cut_or_garbage_is_rebuilt() {
    let (home, files, log) = many_segments();
    log.close().unwrap();
    let names = ["index", "timeindex"].map(|suffix| format!("00000000000000000000.{suffix}"));
    let good = names.clone().map(|name| files.read(&home.path(&name)).unwrap());

    for (name, good) in names.iter().zip(&good) {
        assert!(!good.is_empty());
        for bad in [Vec::new(), vec![0; good.len()], good[..good.len() - 5].to_vec(), vec![0xa5; good.len()]]
        {
            files.overwrite(&home.path(name), &bad);
            let (log, recovery) = home.open();

            assert_eq!(recovery.indexes_rebuilt, 1, "{name} {bad:?}");
            assert_eq!(read_all(&log, offset(0)).len(), 40);
            drop(log);
            assert_eq!(&files.read(&home.path(name)).unwrap(), good, "{name}");
        }
    }
}

#[test]
fn index_files_hold_whole_entries_in_order_while_the_log_is_open() {
    let (home, files, _log) = many_segments();

    for entry in crate::FileLayer::list(&files, &home.dir).unwrap() {
        let size = match entry.name.rsplit_once('.') {
            Some((_, "index")) => 8,
            Some((_, "timeindex")) => 12,
            _ => continue,
        };
        assert_eq!(entry.len % size, 0, "{}", entry.name);
    }
}

#[test]
fn segments_after_a_torn_one_are_moved_aside_and_not_deleted() {
    let (mut home, files, log) = many_segments();
    drop(log);
    home.known = None;
    let second = home.path("00000000000000000016.log");
    let bytes = files.read(&second).unwrap();
    files.overwrite(&second, &bytes[..bytes.len() - 1]);

    let (log, recovery) = home.open();

    assert_eq!(recovery.segments_dropped, 3);
    assert_eq!(log.view().end().offset, offset(30));
    assert!(files.read(&home.path("00000000000000000032.log.dropped")).is_some());
    assert!(files.read(&home.path("00000000000000000032.log")).is_none());
}

#[test]
fn a_clean_log_opens_without_reading_its_batches() {
    let (home, _, log) = many_segments();
    log.close().unwrap();

    let (log, recovery) = home.open();

    assert_eq!(recovery, crate::Recovery::default());
    assert_eq!(log.view().durable(), log.view().end());
}

#[test]
fn epochs_are_rebuilt_from_the_batches_if_their_file_is_gone_or_old() {
    let (mut home, files) = Home::sim();
    let (mut log, _) = home.open();
    for (number, count) in [(3, 2), (3, 1), (7, 4), (9, 1)] {
        log.append(&records(count), epoch(number), NOW).unwrap();
    }
    sync(&mut log);
    home.known = Some(log.checkpoint());
    log.close().unwrap();
    let path = home.path("leader-epoch-checkpoint");
    let good = files.read(&path).unwrap();
    assert_eq!(good, b"0\n3\n3 0\n7 3\n9 7\n");

    for bad in [&b""[..], b"0\n1\n3 0\n", b"rubbish", b"0\n3\n3 0\n7 3\n9 70\n"] {
        files.overwrite(&path, bad);
        let (log, _) = home.open();
        let view = log.view();

        assert_eq!(view.end_of_epoch(epoch(3)), Some((epoch(3), offset(3))));
        assert_eq!(view.end_of_epoch(epoch(8)), Some((epoch(7), offset(7))));
        assert_eq!(view.end_of_epoch(epoch(9)), Some((epoch(9), offset(8))));
        assert_eq!(view.latest_epoch(), Some(epoch(9)));
        log.close().unwrap();
        assert_eq!(files.read(&path).unwrap(), good);
    }
}

#[test]
fn all_five_batches_in_flight_are_known_after_a_kill_with_and_without_the_sidecar() {
    for sidecar in [false, true] {
        let (mut home, _) = Home::sim();
        let (mut log, _) = home.open();
        let sent = (0..7).map(|n| batch(Made { count: 3, producer: Some((5, 1, n * 3)), ..Made::default() }));
        let sent: Vec<_> = sent.collect();
        for batch in &sent {
            append(&mut log, batch);
        }
        sync(&mut log);
        home.known = Some(log.checkpoint());
        if sidecar {
            let job = log.sidecar_job().unwrap();
            job.run().unwrap();
            log.finish_sidecar(&job);
            assert!(log.sidecar_job().is_none());
        }
        drop(log);

        let (mut log, _) = home.open();

        for (number, batch) in sent.iter().enumerate().skip(2) {
            let again = log.append(batch, epoch(2), NOW).unwrap();
            assert!(again.duplicate);
            assert_eq!(again.base_offset, offset(number as i64 * 3));
        }
        assert!(log.append(&sent[1], epoch(2), NOW).is_err());
        assert_eq!(log.view().end().offset, offset(21));
    }
}

#[test]
fn producers_are_known_behind_a_batch_whose_offset_is_damaged() {
    let (mut home, files) = Home::sim();
    home.config.index_interval_bytes = 1;
    let (mut log, _) = home.open();
    let sent: Vec<_> =
        (0..4).map(|n| batch(Made { count: 3, producer: Some((5, 1, n * 3)), ..Made::default() })).collect();
    for batch in &sent {
        append(&mut log, batch);
    }
    sync(&mut log);
    home.known = Some(log.checkpoint());
    log.close().unwrap();
    let path = home.path("00000000000000000000.log");
    let mut bytes = files.read(&path).unwrap();
    // The base offset of the batch before the last becomes a large one, which no checksum shows.
    bytes[2 * sent[0].bytes().len() + 5] ^= 1;
    files.overwrite(&path, &bytes);

    let (mut log, _) = home.open();

    let again = log.append(&sent[3], epoch(2), NOW).unwrap();
    assert!(again.duplicate);
    assert_eq!(again.base_offset, offset(9));
}

#[test]
fn a_damaged_epoch_below_the_recovery_point_costs_nothing_above_it() {
    let size = records(2).bytes().len();
    // An epoch that is too large, and one that is too small; in the last batch below, and in the one before it.
    for (bit, struck) in [(28, 2), (0, 2), (28, 1), (0, 1)] {
        // All in one segment; the last below is the first of its segment; the last below ends its segment.
        for per_segment in [4, 2, 3] {
            let (mut home, files) = Home::sim();
            home.config.segment_bytes = (per_segment * size) as u32;
            let (mut log, _) = home.open();
            for _ in 0..3 {
                append(&mut log, &records(2));
            }
            sync(&mut log);
            home.known = Some(log.checkpoint());
            log.append(&records(2), epoch(4), NOW).unwrap();
            sync(&mut log);
            drop(log);
            let base = struck / per_segment * per_segment * 2;
            let path = home.path(&format!("{base:020}.log"));
            let mut bytes = files.read(&path).unwrap();
            let epoch_at = struck % per_segment * size + 12;
            let damaged = 1 ^ (1_i32 << bit);
            bytes[epoch_at..epoch_at + 4].copy_from_slice(&damaged.to_be_bytes());
            files.overwrite(&path, &bytes);

            let (log, recovery) = home.open();

            let case = format!("bit {bit} of batch {struck}, {per_segment} in a segment");
            assert_eq!(recovery.bytes_dropped, 0, "{case}");
            assert_eq!(log.view().end().offset, offset(8), "{case}");
            let mut read = spans(&read_all_readable(&log));
            // At the border of a segment nothing tells that the epoch is wrong.
            read.retain(|span| *span != (2 * struck as i64, 2 * struck as i64 + 1));
            assert_eq!(read.len(), 3, "{case}");
        }
    }
}

#[test]
fn a_sidecar_of_another_history_is_not_used() {
    let (mut home, files) = Home::sim();
    let made = |fill, producer| batch(Made { fill, producer: Some((producer, 0, 0)), ..Made::default() });
    let (mut log, _) = home.open();
    append(&mut log, &made(b'a', 1));
    log.close().unwrap();
    let sidecar = files.read(&home.path("producer-state")).unwrap();
    let (mut log, _) = home.open();
    log.truncate(offset(0), epoch(2)).unwrap();
    append(&mut log, &made(b'b', 2));
    home.known = None;
    drop(log);
    files.overwrite(&home.path("producer-state"), &sidecar);

    let (mut log, _) = home.open();

    assert!(!log.append(&made(b'a', 1), epoch(3), NOW).unwrap().duplicate);
    assert!(log.append(&made(b'b', 2), epoch(3), NOW).unwrap().duplicate);
}

#[test]
fn segments_that_a_crash_left_below_the_start_are_told_and_removed() {
    let (mut home, files, mut log) = many_segments();
    sync(&mut log);
    let first = home.path("00000000000000000000.log");
    let left = files.read(&first).unwrap();
    let start = log.view().segments()[1].base();
    log.delete_before(start).unwrap().run().unwrap();
    home.known = Some(log.checkpoint());
    log.close().unwrap();
    // As if the crash had come before the file went.
    home.files.open(&first, crate::Access::CreateNew).unwrap();
    files.overwrite(&first, &left);

    let (mut log, recovery) = home.open();

    assert_eq!((recovery.segments_below, log.view().log_start()), (1, start));
    assert_eq!(log.delete_before(start).unwrap().run().unwrap(), left.len() as u64);
    assert!(files.read(&first).is_none());
    assert_eq!(home.open().1.segments_below, 0);
}
