//! Appending and reading back.

use highwater_record::{Batch, CRC_START, crc32c};

use super::support::*;
use crate::{AppendError, FirstBatch, LogConfig, ReadError};

#[test]
fn a_missing_directory_is_an_empty_log_and_is_made_at_the_first_append() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::disk(dir.path());
    let (mut log, recovery) = home.open();

    assert_eq!(log.view().end().offset, offset(0));
    assert!(!recovery.needs_sync);
    assert!(!home.dir.exists());

    append(&mut log, &records(3));

    assert!(home.path("00000000000000000000.log").exists());
}

#[test]
fn batches_get_the_next_offsets_and_come_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::disk(dir.path());
    let (mut log, _) = home.open();

    assert_eq!(append(&mut log, &records(3)), offset(0));
    assert_eq!(append(&mut log, &records(1)), offset(3));
    assert_eq!(append(&mut log, &records(2)), offset(4));

    let batches = read_all(&log, offset(0));
    assert_eq!(spans(&batches), [(0, 2), (3, 3), (4, 5)]);
    assert!(batches.iter().all(|batch| batch.header().leader_epoch == Some(epoch(1))));
}

#[test]
fn a_batch_keeps_every_byte_that_its_checksum_covers() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::disk(dir.path());
    let (mut log, _) = home.open();
    // Without a producer id the rest of the producer's fields mean nothing, and clients fill them as they like:
    // Sarama sends sequence 0.
    let meaningless = [(-1_i64, -1_i16, 0_i32), (-1, 0, 0), (-2, -7, -9), (i64::MIN, i16::MAX, 5)];
    let sent = meaningless.map(|(id, epoch, sequence)| {
        let mut bytes = records(2).bytes().to_vec();
        bytes[43..51].copy_from_slice(&id.to_be_bytes());
        bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
        let crc = crc32c(&bytes[CRC_START..]);
        bytes[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
        Batch::new(bytes.into()).unwrap()
    });

    for batch in &sent {
        append(&mut log, batch);
    }
    sync(&mut log);
    drop(log);
    let (log, recovery) = home.open();

    assert_eq!(recovery.bytes_dropped, 0);
    let stored = read_all(&log, offset(0));
    assert_eq!(spans(&stored), [(0, 1), (2, 3), (4, 5), (6, 7)]);
    for (stored, sent) in stored.iter().zip(&sent) {
        assert_eq!(stored.bytes()[CRC_START - 5..], sent.bytes()[CRC_START - 5..]);
    }
}

#[test]
fn what_was_synced_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::disk(dir.path());
    let (mut log, _) = home.open();
    append(&mut log, &records(3));
    assert_eq!(log.view().durable().offset, offset(0));
    sync(&mut log);
    assert_eq!(log.view().durable().offset, offset(3));
    home.known = Some(log.checkpoint());
    log.close().unwrap();

    let (mut log, recovery) = home.open();

    assert_eq!(recovery.bytes_scanned, 0);
    assert!(!recovery.needs_sync);
    assert_eq!(append(&mut log, &records(1)), offset(3));
    assert_eq!(spans(&read_all(&log, offset(0))), [(0, 2), (3, 3)]);
}

#[test]
fn a_batch_that_fits_no_segment_is_refused_with_both_sizes() {
    let (mut home, _) = Home::sim();
    home.config.segment_bytes = 100;
    let (mut log, _) = home.open();

    let refused = log.append(&records(10), epoch(1), NOW);

    assert!(matches!(refused, Err(AppendError::TooLarge { limit: 100, .. })));
    assert_eq!(log.view().end().offset, offset(0));
}

#[test]
fn a_read_begins_with_the_batch_that_contains_the_offset_and_ends_at_whole_batches() {
    let (home, _) = Home::sim();
    let (mut log, _) = home.open();
    for _ in 0..50 {
        append(&mut log, &records(2));
    }
    let view = log.view();
    let size = records(2).header().size_bytes;
    let read = |from: i64, bytes_max, until: i64| {
        let chunk = view.read(offset(from), bytes_max, offset(until), FirstBatch::Whole).unwrap();
        (chunk.bytes / size, chunk.next_offset.get())
    };

    assert_eq!(read(41, size * 3 + size / 2, 100), (3, 46));
    assert_eq!(read(41, size * 3, 100), (3, 46));
    assert_eq!(read(41, 1, 100), (1, 42));
    assert_eq!(read(41, u32::MAX, 45), (2, 44));
    assert_eq!(read(41, u32::MAX, 41), (0, 41));
    assert_eq!(read(100, u32::MAX, 100), (0, 100));
    let limited = view.read(offset(0), 1, offset(100), FirstBatch::WithinLimit).unwrap();
    assert_eq!(limited.bytes, 0);
    assert!(matches!(
        view.read(offset(101), 1, offset(200), FirstBatch::Whole),
        Err(ReadError::OutOfRange { .. })
    ));
}

#[test]
fn indexes_that_a_crash_lost_are_on_disk_again_once_the_log_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::disk(dir.path());
    home.config.segment_bytes = 2_000;
    let (mut log, _) = home.open();
    while log.view().segments().len() < 3 {
        append(&mut log, &records(3));
    }
    log.close().unwrap();
    let indexes =
        ["00000000000000000000.index", "00000000000000000000.timeindex"].map(|name| home.path(name));
    let before = indexes.clone().map(|path| std::fs::read(path).unwrap());
    assert!(before.iter().all(|bytes| !bytes.is_empty()));
    indexes.iter().for_each(|path| std::fs::write(path, b"").unwrap());

    let (log, recovery) = home.open();

    assert!(recovery.indexes_rebuilt > 0);
    drop(log);
    assert_eq!(indexes.map(|path| std::fs::read(path).unwrap()), before);
}

#[test]
fn another_configuration_holds_from_the_next_append_on() {
    let (mut home, _) = Home::sim();
    home.config.segment_bytes = 2_000;
    let (mut log, _) = home.open();
    let size = u64::from(records(10).header().size_bytes);
    append(&mut log, &records(10));
    append(&mut log, &records(10));
    assert_eq!(log.view().segments().len(), 1);

    log.set_config(LogConfig { segment_bytes: 2 * size as u32, ..home.config.clone() });
    append(&mut log, &records(10));
    assert_eq!(log.view().segments().len(), 2, "two batches fill a segment");

    log.set_config(LogConfig { segment_bytes: 1 << 20, ..home.config.clone() });
    for _ in 0..10 {
        append(&mut log, &records(10));
    }
    assert_eq!(log.view().segments().len(), 2, "the active segment may grow");
    let before = spans(&read_all(&log, offset(0)));
    assert_eq!(before.len(), 13);
    log.close().unwrap();
    // Also where the segment is larger than what is configured now.
    let (log, recovery) = home.open();
    assert_eq!(recovery.bytes_dropped, 0);
    assert_eq!(spans(&read_all(&log, offset(0))), before);
}

#[test]
fn space_that_is_reserved_for_appends_is_given_back_when_it_is_short() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let home = Home::disk(dir.path());
    let (mut log, _) = home.open();
    append(&mut log, &records(3));
    let path = home.path("00000000000000000000.log");
    let file = || std::fs::metadata(&path).unwrap();
    let (len, reserved) = (file().len(), file().blocks());

    log.give_back_space().unwrap();

    assert_eq!(file().len(), len);
    // Not every file system reserves; those that do must get the space back.
    assert!(
        file().blocks() < reserved || reserved * 512 < 64 << 10,
        "{} of {reserved} blocks",
        file().blocks()
    );
    append(&mut log, &records(2));
    sync(&mut log);
    assert_eq!(read_all(&log, offset(0)).len(), 2);
}
