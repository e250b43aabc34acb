//! Golden files: a log as version 1 wrote it must open for ever, and be written the same. `HIGHWATER_BLESS=1` writes
//! them anew; the difference is for a reviewer to accept.

use std::path::{Path, PathBuf};

use super::support::*;
use crate::{LogCheckpoint, SegmentScan, TimeEntry, read_offset_index, read_time_index};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/segment/v1/topic-0")
}

/// What the golden directory was made of: nine batches in two segments and two epochs, with an idempotent producer.
fn fill(home: &mut Home) {
    home.config.segment_bytes = 900;
    home.config.index_interval_bytes = 150;
    home.config.topic_id = highwater_record::TopicId::new(*b"golden-topic-id!");
    let (mut log, _) = home.open();
    for number in 0..9 {
        let made = Made {
            count: 1 + number % 3,
            len: 30,
            fill: b'a' + number as u8,
            timestamp: 1_700_000_000_000 + i64::from(number % 4) * 1000,
            producer: (number >= 6).then_some((77, 2, 0)),
        };
        let sequence = [0, 1, 3].get((number as usize).wrapping_sub(6)).copied().unwrap_or(0);
        let made = Made { producer: made.producer.map(|(id, epoch, _)| (id, epoch, sequence)), ..made };
        log.append(&batch(made), epoch(if number < 5 { 4 } else { 6 }), NOW).unwrap();
    }
    log.close().unwrap();
}

#[test]
fn version_1_is_still_written_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::disk(dir.path());

    fill(&mut home);

    if std::env::var_os("HIGHWATER_BLESS").is_some() {
        std::fs::create_dir_all(golden()).unwrap();
        for entry in std::fs::read_dir(&home.dir).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), golden().join(entry.file_name())).unwrap();
        }
    }
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&home.dir), names(&golden()));
    for name in names(&golden()) {
        let written = std::fs::read(home.dir.join(&name)).unwrap();
        assert!(written == std::fs::read(golden().join(&name)).unwrap(), "{name:?} differs");
    }
}

#[test]
fn version_1_opens_and_reads_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::disk(dir.path());
    std::fs::create_dir(&home.dir).unwrap();
    for entry in std::fs::read_dir(golden()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), home.dir.join(entry.file_name())).unwrap();
    }
    home.config.segment_bytes = 900;
    home.config.index_interval_bytes = 150;

    home.known =
        Some(LogCheckpoint { log_start: offset(0), recovery_point: offset(18), high_watermark: offset(18) });

    let (mut log, recovery) = home.open();

    assert_eq!((recovery.bytes_dropped, recovery.indexes_rebuilt), (0, 0));
    let spans = spans(&read_all(&log, offset(0)));
    assert_eq!(spans, [(0, 0), (1, 2), (3, 5), (6, 6), (7, 8), (9, 11), (12, 12), (13, 14), (15, 17)]);
    assert_eq!(log.view().end_of_epoch(epoch(4)), Some((epoch(4), offset(9))));
    assert_eq!(log.producer_count(), 1);
    let again = batch(Made { count: 2, len: 30, fill: b'h', timestamp: 0, producer: Some((77, 2, 1)) });
    assert!(log.append(&again, epoch(7), NOW).unwrap().duplicate);
    let found = log
        .view()
        .offset_for_time(highwater_record::TimestampMs(1_700_000_002_001), offset(18), DECODE_LIMITS)
        .unwrap();
    assert_eq!(found.map(|found| found.offset), Some(offset(6)));
}

#[test]
fn the_golden_indexes_point_to_batches_as_kafkas_tools_check_them() {
    let mut entries = 0;
    for base in ["00000000000000000000", "00000000000000000012"] {
        let path = |suffix: &str| golden().join(format!("{base}.{suffix}"));
        let scan = || SegmentScan::open(&path("log")).unwrap().map(Result::unwrap);
        let base: i64 = base.parse().unwrap();
        let offsets = read_offset_index(&path("index")).unwrap();
        assert_eq!(offsets.trailing_bytes, 0);
        for entry in &offsets.entries {
            let batch = scan().find(|batch| batch.position == u64::from(entry.position)).unwrap();
            assert_eq!(batch.header.last_offset(), offset(base + i64::from(entry.relative_offset)));
        }
        let times = read_time_index(&path("timeindex")).unwrap();
        assert_eq!(times.trailing_bytes, 0);
        for TimeEntry { timestamp, relative_offset } in &times.entries {
            let last = offset(base + i64::from(*relative_offset));
            let batch = scan().find(|batch| batch.header.last_offset() >= last).unwrap();
            assert_eq!((batch.header.last_offset(), batch.header.max_timestamp), (last, *timestamp));
        }
        entries += offsets.entries.len() + times.entries.len();
    }
    assert!(entries > 5, "{entries} entries prove little");
}
