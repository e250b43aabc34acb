//! A log whose topic is deleted leaves the next log under the same path alone.

use std::collections::BTreeMap;
use std::path::Path;

use highwater_record::{Offset, TopicId};

use super::support::{Home, Made, append, batch, read_all, records, sync};
use crate::FirstBatch;

/// The name and contents of every file of a directory.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    files.collect()
}

/// A batch of an idempotent producer, whose state the log keeps beside its segments.
fn produced(sequence: i32) -> highwater_record::Batch {
    batch(Made { producer: Some((7, 0, sequence)), ..Made::default() })
}

fn home(dir: &Path, topic: u8) -> Home {
    let mut home = Home::disk(dir);
    home.config.topic_id = TopicId::new([topic; 16]);
    // Every second batch begins a segment, so that a sync has indexes to see to as well.
    home.config.segment_bytes = 200;
    home
}

#[test]
fn a_sync_under_way_writes_nothing_into_the_next_topic_of_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let old = home(dir.path(), 1);
    let (mut log, _) = old.open();
    for sequence in 0..4 {
        append(&mut log, &produced(sequence));
    }
    let job = log.begin_sync().unwrap();

    log.give_up();
    std::fs::rename(&old.dir, dir.path().join("topic-0.deleted")).unwrap();
    let next = home(dir.path(), 2);
    let (mut log, _) = next.open();
    append(&mut log, &records(1));
    sync(&mut log);
    let before = contents(&next.dir);
    // Whatever it says: nobody waits for it any more.
    let _ = job.run();

    assert_eq!(contents(&next.dir), before);
}

#[test]
fn producer_state_of_a_deleted_topic_is_not_stored_with_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let old = home(dir.path(), 1);
    let (mut log, _) = old.open();
    append(&mut log, &produced(0));
    sync(&mut log);
    let job = log.sidecar_job().unwrap();

    log.give_up();
    std::fs::rename(&old.dir, dir.path().join("topic-0.deleted")).unwrap();
    let next = home(dir.path(), 2);
    let (mut log, _) = next.open();
    append(&mut log, &records(1));
    sync(&mut log);
    let before = contents(&next.dir);
    job.run().unwrap_err();

    assert_eq!(contents(&next.dir), before);
}

#[test]
fn segments_of_a_deleted_topic_are_not_removed_from_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let old = home(dir.path(), 1);
    let (mut log, _) = old.open();
    for _ in 0..6 {
        append(&mut log, &records(1));
    }
    sync(&mut log);
    let job = log.delete_before(Offset::new(6).unwrap()).unwrap();

    log.give_up();
    std::fs::rename(&old.dir, dir.path().join("topic-0.deleted")).unwrap();
    let next = home(dir.path(), 2);
    let (mut log, _) = next.open();
    for _ in 0..6 {
        append(&mut log, &records(1));
    }
    sync(&mut log);
    let before = contents(&next.dir);
    job.run().unwrap_err();

    assert_eq!(contents(&next.dir), before);
}

#[test]
fn a_reader_of_a_deleted_topic_never_gets_bytes_of_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = home(dir.path(), 1);
    let (mut log, _) = old.open();
    for _ in 0..6 {
        append(&mut log, &records(1));
    }
    sync(&mut log);
    old.known = Some(log.checkpoint());
    log.close().unwrap();
    // A log that was stopped cleanly opens its older segments when they are read.
    let (log, _) = old.open();
    let view = log.view();

    log.give_up();
    std::fs::rename(&old.dir, dir.path().join("topic-0.deleted")).unwrap();
    let next = home(dir.path(), 2);
    let (mut log, _) = next.open();
    for sequence in 0..6 {
        append(&mut log, &produced(sequence));
    }

    assert!(view.read(Offset::ZERO, 1 << 20, Offset::MAX, FirstBatch::Whole).is_err());
    assert_eq!(read_all(&log, Offset::ZERO).len(), 6);
}
