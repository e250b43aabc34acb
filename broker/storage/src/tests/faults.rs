//! Disks that fail or fill up.

use std::io;

use super::support::*;
use crate::{AppendError, FirstBatch, SimCall, SimFault, SimFiles, SyncOutcome};

fn fail_once(files: &SimFiles, call: SimCall, path_end: &str) {
    files.plan(SimFault {
        call,
        path_end: path_end.into(),
        after: 0,
        times: 1,
        errno: libc::EIO,
        bytes_written: 0,
    });
}

#[test]
fn a_failed_sync_cuts_what_it_covered_and_the_log_goes_on_in_a_new_segment() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(2));
    sync(&mut log);
    append(&mut log, &records(3));
    fail_once(&files, SimCall::Sync, "00000000000000000000.log");

    let job = log.begin_sync().unwrap();
    append(&mut log, &records(1));
    let result = job.run();
    let outcome = log.finish_sync(job, result, epoch(8));

    let SyncOutcome::Failed { end, resumed: true, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(end.offset, offset(2));
    assert_eq!(log.view().durable().offset, offset(2));
    let appended = log.append(&records(1), epoch(1), NOW).unwrap();
    assert_eq!(appended.base_offset, offset(2));
    assert_eq!(log.view().latest_epoch(), Some(epoch(8)));
    assert!(files.read(&home.path("00000000000000000002.log")).is_some());
    assert_eq!(
        files.read(&home.path("00000000000000000000.log")).unwrap().len() as u32,
        records(2).header().size_bytes
    );
    assert_eq!(spans(&read_all(&log, offset(0))), [(0, 1), (2, 2)]);
}

#[test]
fn a_file_whose_sync_failed_is_never_synced_again() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(2));
    fail_once(&files, SimCall::Sync, "00000000000000000000.log");
    let job = log.begin_sync().unwrap();
    let result = job.run();
    assert!(matches!(log.finish_sync(job, result, epoch(2)), SyncOutcome::Failed { .. }));
    append(&mut log, &records(1));
    sync(&mut log);
    append(&mut log, &records(1));
    // Only a file that is synced can meet this; the log's first file was cut away as a whole.
    fail_once(&files, SimCall::Sync, "00000000000000000000.log");
    let job = log.begin_sync().unwrap();

    let result = job.run();

    assert!(result.is_err(), "the new file of the same name is synced");
    let before = files.sync_count();
    assert!(matches!(log.finish_sync(job, result, epoch(3)), SyncOutcome::Failed { .. }));
    assert_eq!(files.sync_count(), before, "nothing is synced to mend a failed sync");
}

#[test]
fn a_failed_sync_takes_producers_back_to_what_is_durable() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    let sent: Vec<_> =
        (0..9).map(|n| batch(Made { count: 2, producer: Some((1, 0, n * 2)), ..Made::default() })).collect();
    for batch in &sent[..3] {
        append(&mut log, batch);
    }
    sync(&mut log);
    for batch in &sent[3..] {
        append(&mut log, batch);
    }
    fail_once(&files, SimCall::Sync, ".log");
    let job = log.begin_sync().unwrap();
    let result = job.run();
    log.finish_sync(job, result, epoch(2));

    assert!(log.append(&sent[2], epoch(2), NOW).unwrap().duplicate);
    assert!(matches!(log.append(&sent[4], epoch(2), NOW), Err(AppendError::OutOfOrderSequence { .. })));
    let again = log.append(&sent[3], epoch(2), NOW).unwrap();
    assert!(!again.duplicate);
    assert_eq!(again.base_offset, offset(6));
}

#[test]
fn readers_keep_what_they_hold_when_the_log_is_cut_under_them() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::disk(dir.path());
    let (mut log, _) = home.open();
    append(&mut log, &records(2));
    append(&mut log, &records(2));
    let view = log.view();
    let chunk = view.read(offset(0), u32::MAX, offset(4), FirstBatch::Whole).unwrap();
    let mapped = chunk.ranges[0].mapped().unwrap();
    assert_eq!(spans(&split(mapped.to_vec().into())), [(0, 1), (2, 3)]);

    log.truncate(offset(2), epoch(2)).unwrap();
    append(&mut log, &records(1));

    // The file is as long as before while somebody may look at it, and short as soon as nobody does.
    assert_eq!(spans(&split(mapped.to_vec().into())), [(0, 1), (2, 3)]);
    let size = |name: &str| std::fs::metadata(home.path(name)).unwrap().len() as u32;
    assert_eq!(size("00000000000000000000.log"), chunk.bytes);
    drop(chunk);
    append(&mut log, &records(1));
    assert_eq!(size("00000000000000000000.log"), records(2).header().size_bytes);
    assert_eq!(spans(&read_all(&log, offset(0))), [(0, 1), (2, 2), (3, 3)]);
}

#[test]
fn a_full_disk_refuses_the_batch_keeps_the_log_and_is_forgotten_when_there_is_space() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(2));
    let len = files.read(&home.path("00000000000000000000.log")).unwrap().len();
    files.set_capacity(Some(len as u64 + 10));

    let refused = log.append(&records(100), epoch(1), NOW);

    assert!(matches!(refused, Err(AppendError::NoSpace(_))));
    assert_eq!(files.read(&home.path("00000000000000000000.log")).unwrap().len(), len);
    assert_eq!(log.view().end().offset, offset(2));

    files.set_capacity(None);

    assert_eq!(append(&mut log, &records(1)), offset(2));
}

#[test]
fn a_disk_without_room_for_the_reservation_still_takes_the_batch_that_fits() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    files.set_capacity(Some(1000));

    assert_eq!(append(&mut log, &records(1)), offset(0));
}

#[test]
fn a_short_write_is_cut_back_and_the_next_append_succeeds() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(1));
    files.plan(SimFault {
        call: SimCall::Write,
        path_end: ".log".into(),
        after: 0,
        times: 1,
        errno: libc::EDQUOT,
        bytes_written: 70,
    });

    assert!(matches!(log.append(&records(3), epoch(1), NOW), Err(AppendError::NoSpace(_))));
    assert_eq!(append(&mut log, &records(2)), offset(1));

    assert_eq!(spans(&read_all(&log, offset(0))), [(0, 0), (1, 2)]);
}

#[test]
fn a_segment_that_cannot_be_made_leaves_the_log_as_it_is() {
    let (mut home, files) = Home::sim();
    home.config.segment_bytes = 200;
    let (mut log, _) = home.open();
    append(&mut log, &records(3));
    for path_end in [".log", ".index", ".timeindex"] {
        fail_once(&files, SimCall::Create, path_end);

        let refused = log.append(&records(3), epoch(1), NOW);

        assert!(matches!(refused, Err(AppendError::Create(_))), "{path_end}: {refused:?}");
        assert!(!log.is_failed());
    }
    assert_eq!(append(&mut log, &records(3)), offset(3));
    assert_eq!(spans(&read_all(&log, offset(0))), [(0, 2), (3, 5)]);
}

#[test]
fn a_read_that_fails_is_an_error_and_the_next_one_may_succeed() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(3));
    fail_once(&files, SimCall::Read, ".log");
    let view = log.view();

    let failed = view.read(offset(0), 1000, offset(3), FirstBatch::Whole);

    assert!(matches!(failed, Err(crate::ReadError::Io(error)) if error.kind() != io::ErrorKind::NotFound));
    assert_eq!(view.read(offset(0), 1000, offset(3), FirstBatch::Whole).unwrap().next_offset, offset(3));
}

#[test]
fn the_first_sync_covers_the_names_of_file_and_directory() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(3));
    sync(&mut log);
    let known = Some(log.checkpoint());

    for seed in 0..50 {
        let after = Home { files: std::sync::Arc::new(files.crash(seed)), known, ..home.clone() };
        assert_eq!(after.open().0.view().end().offset, offset(3), "seed {seed}");
    }
}

#[test]
fn a_removal_leaves_readers_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::disk(dir.path());
    home.config.segment_bytes = 300;
    let (mut log, _) = home.open();
    for _ in 0..10 {
        append(&mut log, &records(3));
    }
    let view = log.view();
    let held = view.read(offset(0), 200, offset(30), FirstBatch::Whole).unwrap();

    let job = log.delete_before(offset(16)).unwrap();
    assert!(home.path("00000000000000000000.log").exists());
    assert!(job.run().unwrap() > 0);

    assert!(!home.path("00000000000000000000.log").exists());
    let mut bytes = Vec::new();
    held.ranges[0].copy_to(&mut bytes).unwrap();
    assert_eq!(spans(&split(bytes.into())), [(0, 2)]);
    assert_eq!(view.log_start(), offset(16));
    assert!(matches!(
        view.read(offset(15), 200, offset(30), FirstBatch::Whole),
        Err(crate::ReadError::OutOfRange { .. })
    ));
    assert_eq!(spans(&read_all(&log, offset(16)))[0], (15, 17));
}

#[test]
fn a_failed_write_cuts_nothing_that_was_acknowledged() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(2));
    sync(&mut log);
    append(&mut log, &records(3));
    fail_once(&files, SimCall::Write, "00000000000000000000.log");
    assert!(matches!(log.append(&records(1), epoch(1), NOW), Err(AppendError::Io(_))));

    let end = log.resume(epoch(2), offset(5)).unwrap();

    assert_eq!(end.offset, offset(5));
    append(&mut log, &records(1));
    sync(&mut log);
    assert_eq!(spans(&read_all(&log, offset(0))), [(0, 1), (2, 4), (5, 5)]);
}

#[test]
fn a_sync_without_a_descriptor_is_tried_again_and_cuts_nothing() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(2));
    files.plan(SimFault {
        call: SimCall::SyncDir,
        path_end: String::new(),
        after: 0,
        times: 1,
        errno: libc::EMFILE,
        bytes_written: 0,
    });
    let job = log.begin_sync().unwrap();
    let result = job.run();

    let outcome = log.finish_sync(job, result, epoch(2));

    assert!(matches!(outcome, SyncOutcome::Postponed(_)), "{outcome:?}");
    sync(&mut log);
    assert_eq!(log.view().durable().offset, offset(2));
}
