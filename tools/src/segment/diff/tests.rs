//! Two partitions made by hand, and what is said of them.

use std::fs;
use std::path::Path;

use highwater_record::{BatchBuilder, Codec, NewRecord, Offset, TimestampMs};
use serde_json::Value;
use tempfile::TempDir;

use super::super::files;
use super::{By, Differences, compare};
use crate::offset_spec::OffsetSpec;
use crate::output::OutputFormat;

/// Writes a partition of one segment; each batch has these keys and values, from an offset on.
fn write(path: &Path, codec: Codec, batches: &[(i64, &[(&str, &str)])]) {
    fs::create_dir_all(path).unwrap();
    let mut log = Vec::new();
    for (base, records) in batches {
        let mut builder = BatchBuilder::new(codec).base_offset(Offset::new(*base).unwrap());
        for (key, value) in *records {
            let (key, value) = (Some(key.as_bytes()).filter(|key| !key.is_empty()), Some(value.as_bytes()));
            builder.append(&NewRecord { timestamp: TimestampMs(7), key, value, headers: &[] }).unwrap();
        }
        log.extend_from_slice(&builder.build().unwrap());
    }
    fs::write(path.join("00000000000000000000.log"), log).unwrap();
}

fn diff(dir: &TempDir, by: By, range: &str) -> Differences {
    let find = |name: &str| files::find(&dir.path().join(name)).unwrap();
    let spec = OffsetSpec::parse(range, TimestampMs(0)).unwrap();
    compare(&find("a"), &find("b"), by, &spec, 100).unwrap()
}

fn rows(differences: &Differences) -> Vec<String> {
    let mut json = Vec::new();
    differences.rows.write(&mut json, OutputFormat::Json).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&json).unwrap();
    let text = |row: &Value| format!("{} {} {}", row["offset"], row["what"].as_str().unwrap(), row["fields"]);
    rows.iter().map(text).collect()
}

#[test]
fn the_same_records_in_other_batches_and_codecs_are_the_same() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("a/t-0"), Codec::None, &[(0, &[("k", "1"), ("k", "2")]), (2, &[("", "3")])]);
    write(&dir.path().join("b/t-0"), Codec::Zstd, &[(0, &[("k", "1"), ("k", "2"), ("", "3")])]);

    let found = diff(&dir, By::Offset, "start");

    assert_eq!((found.same, found.count()), (3, 0));
}

#[test]
fn what_is_missing_extra_and_different_is_told_by_offset() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("a/t-0"), Codec::None, &[(0, &[("k", "1"), ("k", "2"), ("k", "3")])]);
    write(&dir.path().join("b/t-0"), Codec::None, &[(1, &[("k", "2"), ("l", "4"), ("m", "5")])]);

    assert_eq!(
        rows(&diff(&dir, By::Offset, "start")),
        ["0 missing null", "2 different [\"key\",\"value\"]", "3 extra null"]
    );
    assert_eq!(rows(&diff(&dir, By::Offset, "1:2")), Vec::<String>::new());
}

#[test]
fn by_key_the_latest_record_counts_wherever_it_stands() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("a/t-0"), Codec::None, &[(0, &[("k", "1"), ("l", "1"), ("k", "2"), ("", "x")])]);
    write(&dir.path().join("b/t-0"), Codec::None, &[(5, &[("k", "2"), ("m", "3")])]);

    let found = diff(&dir, By::Key, "start:10");

    assert_eq!(rows(&found), ["1 missing null", "6 extra null"]);
    assert_eq!((found.same, found.keyless), (1, 1));
}

#[test]
fn what_cannot_be_read_is_a_difference() {
    let dir = TempDir::new().unwrap();
    for side in ["a/t-0", "b/t-0"] {
        write(&dir.path().join(side), Codec::None, &[(0, &[("k", "1")]), (1, &[("k", "2")])]);
    }
    let path = dir.path().join("b/t-0/00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[30] ^= 1;
    fs::write(&path, bytes).unwrap();

    let found = diff(&dir, By::Offset, "start");

    assert_eq!((found.same, found.missing, found.unreadable), (1, 1, 1));
}
