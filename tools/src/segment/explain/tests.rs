//! What is explained of a log, and that it is what the log then does.

use std::sync::Arc;

use highwater_record::{Batch, BatchBuilder, Codec, LeaderEpoch, NewRecord, Offset, TimestampMs};
use highwater_storage::{DiskFiles, Log};
use serde_json::Value;
use tempfile::TempDir;

use super::super::files;
use super::{COMPACTION_COLUMNS, RETENTION_COLUMNS, Settings, compaction, open, retention};
use crate::output::{OutputFormat, Rows};

const HOUR_MS: i64 = 3_600_000;

/// A partition of segments of one record each, with these timestamps, appended now.
fn partition(timestamps: &[i64], given: &[String]) -> TempDir {
    let data = TempDir::new().unwrap();
    let mut config = Settings::new(None, given).unwrap().log().unwrap();
    config.segment_bytes = 100;
    let dir = data.path().join("logs-2");
    let now = crate::time::now();
    let (mut log, _) = Log::open(Arc::new(DiskFiles), dir, config, None, now).unwrap();
    for timestamp in timestamps {
        let mut builder = BatchBuilder::new(Codec::None);
        let (timestamp, key) = (TimestampMs(*timestamp), Some(&b"k"[..]));
        builder.append(&NewRecord { timestamp, key, value: Some(b"v"), headers: &[] }).unwrap();
        let batch = Batch::new(builder.build().unwrap()).unwrap();
        log.append(&batch, LeaderEpoch::ZERO, now).unwrap();
    }
    log.close().unwrap();
    data
}

fn settings(given: &[&str]) -> Vec<String> {
    given.iter().map(|pair| (*pair).to_owned()).collect()
}

/// The rows of an explanation at `now`.
fn explain(data: &TempDir, given: &[&str], now: TimestampMs, is_retention: bool) -> Vec<Value> {
    let found = files::find(data.path()).unwrap();
    let settings = Settings::new(None, &settings(given)).unwrap();
    let dir = data.path().join("logs-2");
    let log = open(&found[0], &dir, data.path(), &settings, now).unwrap();
    let mut rows = Rows::new(if is_retention { RETENTION_COLUMNS } else { COMPACTION_COLUMNS });
    let explain = if is_retention { retention } else { compaction };
    explain(&found[0], &log, &settings, now, &mut rows).unwrap();
    let mut json = Vec::new();
    rows.write(&mut json, OutputFormat::Json).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn the_time_that_is_explained_is_when_retention_takes_the_segment() {
    let now = crate::time::now();
    let data = partition(&[now.0 - 2 * HOUR_MS, now.0 - HOUR_MS, now.0], &[]);
    let given = ["retention.ms=86400000"];
    let before = std::fs::read_dir(data.path().join("logs-2")).unwrap().count();

    let rows = explain(&data, &given, now, true);

    assert_eq!(std::fs::read_dir(data.path().join("logs-2")).unwrap().count(), before);
    assert_eq!(rows.len(), 3);
    let settings = Settings::new(None, &settings(&given)).unwrap();
    for (segment, row) in (1..).zip(&rows[..2]) {
        let at = crate::time::parse_moment(row["goes_at"].as_str().unwrap()).unwrap();
        let start = |now: i64| {
            let found = files::find(data.path()).unwrap();
            let dir = data.path().join("logs-2");
            let now = TimestampMs(now);
            let mut log = open(&found[0], &dir, data.path(), &settings, now).unwrap();
            log.retained_from(settings.retention().unwrap(), Offset::MAX, now).unwrap().get()
        };
        assert_eq!((start(at.0 - 1), start(at.0)), (segment - 1, segment), "{row}");
        assert!(row["why"].as_str().unwrap().starts_with("largest time + retention.ms=86400000"), "{row}");
    }
}

#[test]
fn a_record_from_the_future_is_named_and_does_not_keep_its_segment() {
    let now = crate::time::now();
    let data = partition(&[now.0 + 1000 * HOUR_MS, now.0], &[]);

    let rows = explain(&data, &["retention.ms=1000"], now, true);

    let why = rows[0]["why"].as_str().unwrap();
    assert!(why.contains("last append") && why.contains("a record from the future"), "{why}");
    let at = crate::time::parse_moment(rows[0]["goes_at"].as_str().unwrap()).unwrap();
    assert!(at.0 < now.0 + HOUR_MS, "{at}");
}

#[test]
fn what_is_not_deleted_says_why() {
    let now = crate::time::now();
    let data = partition(&[now.0, now.0], &[]);
    let why = |given: &[&str]| explain(&data, given, now, true)[0]["why"].as_str().unwrap().to_owned();

    assert_eq!(why(&["retention.ms=-1"]), "stays: retention.ms=-1 and retention.bytes=-1");
    assert!(why(&["cleanup.policy=compact"]).starts_with("stays: cleanup.policy=compact"));
    assert!(why(&["retention.bytes=1"]).contains("the log is larger than retention.bytes=1"));
    assert!(Settings::new(None, &settings(&["retention.mss=1"])).is_err());
}

#[test]
fn compaction_says_of_each_segment_what_keeps_it() {
    let now = crate::time::now();
    let given = ["cleanup.policy=compact", "min.compaction.lag.ms=3600000"];
    let data = partition(&[now.0 - 2 * HOUR_MS, now.0, now.0 - 2 * HOUR_MS, now.0], &settings(&given));

    let states = |given: &[&str]| -> Vec<String> {
        let rows = explain(&data, given, now, false);
        rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    };

    assert_eq!(states(&given), ["dirty", "young", "waits", "active"]);
    assert_eq!(states(&["cleanup.policy=compact"]), ["dirty", "dirty", "dirty", "active"]);
    assert_eq!(states(&[]), ["kept", "kept", "kept", "active"]);
}
