//! `highwater segment` on the files of `golden/segments`, which Apache Kafka wrote: what it prints is what Kafka's own
//! classes found in them. `interop::segments` is the other direction.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::broker::binary;
use crate::harness::dump_log::segment_files;
use crate::harness::toolbox::tests_dir;

/// Data directories that brokers left when they stopped, of which every file is sound.
const STOPPED: &[&str] = &["kafka-3.9", "kafka-4.1"];

/// Data directories of brokers that were killed.
const KILLED: &[&str] = &["kafka-3.9-killed", "kafka-4.1-killed"];

/// The partition of a killed broker whose last batch is cut short. The index still has an entry for it.
const TORN: &str = "torn-0";

/// What `segment` ends with when it found something wrong.
const PROBLEMS: i32 = 3;

/// By name of the directory of the partition.
type Partitions = BTreeMap<String, Vec<Value>>;

#[test]
fn segment_cat_prints_the_records_that_kafka_wrote() -> anyhow::Result<()> {
    for tree in STOPPED {
        let ran = segment("cat", &golden(tree))?;

        ensure!(ran.status.success(), "{tree}: {ran:?}");
        let printed = by_partition(&ran, |row| printed_record(&row))?;
        assert_same(tree, printed, records(&expected(tree)?));
    }
    Ok(())
}

#[test]
fn segment_cat_prints_all_that_is_whole_of_what_a_killed_broker_left() -> anyhow::Result<()> {
    for tree in KILLED {
        for (partition, rows) in expected(tree)? {
            let ran = segment("cat", &golden(tree).join(&partition))?;

            ensure!(ran.status.code() == Some(code(&partition)), "{tree}/{partition}: {ran:?}");
            let printed = by_partition(&ran, |row| printed_record(&row))?;
            assert_same(tree, printed, records(&BTreeMap::from([(partition, rows)])));
        }
    }
    Ok(())
}

#[test]
fn segment_ls_finds_the_segments_that_kafka_wrote_and_their_indexes_sound() -> anyhow::Result<()> {
    for tree in STOPPED {
        let ran = segment("ls", &golden(tree))?;

        ensure!(ran.status.success(), "{tree}: {ran:?}");
        let listed = by_partition(&ran, |row| Ok(listed_segment(&row)))?;
        assert_same(tree, listed, segments(tree, &expected(tree)?)?);
    }
    Ok(())
}

#[test]
fn segment_ls_finds_where_the_whole_batches_of_a_killed_broker_end_and_preallocated_indexes_sound()
-> anyhow::Result<()> {
    for tree in KILLED {
        for (partition, rows) in expected(tree)? {
            let ran = segment("ls", &golden(tree).join(&partition))?;

            let mut found = segments(tree, &BTreeMap::from([(partition.clone(), rows)]))?;
            let is_torn = partition == TORN;
            let active = found.get_mut(&partition).and_then(|all| all.last_mut());
            if is_torn {
                active.context("an active segment")?["crc"] = json!("bad");
            }
            let code = if is_torn { PROBLEMS } else { 0 };
            ensure!(ran.status.code() == Some(code), "{tree}/{partition}: {ran:?}");
            assert_same(tree, by_partition(&ran, |row| Ok(listed_segment(&row)))?, found);
        }
    }
    Ok(())
}

#[test]
fn segment_verify_finds_no_error_in_what_kafka_left_but_the_batch_that_was_cut() -> anyhow::Result<()> {
    for tree in STOPPED.iter().chain(KILLED) {
        for depth in ["--fast", "--deep"] {
            let ran = Command::new(binary()?)
                .args(["segment", "verify", depth, "--output", "jsonl"])
                .arg(golden(tree))
                .output()?;

            let mut errors = Vec::new();
            for line in std::str::from_utf8(&ran.stdout)?.lines() {
                let row: Value = serde_json::from_str(line)?;
                if row["severity"] == "error" {
                    let file = Path::new(row["file"].as_str().unwrap_or_default());
                    let partition = file.parent().and_then(Path::file_name).unwrap_or_default();
                    errors.push((partition.to_string_lossy().into_owned(), row["kind"].clone()));
                }
            }
            let cut = KILLED.contains(tree).then(|| (TORN.to_owned(), json!("torn-tail")));
            assert_eq!(errors, cut.into_iter().collect::<Vec<_>>(), "{tree} {depth}");
            let code = if errors.is_empty() { 0 } else { PROBLEMS };
            ensure!(ran.status.code() == Some(code), "{tree} {depth}: {ran:?}");
        }
    }
    Ok(())
}

/// What `segment cat` ends with on a partition of a killed broker.
fn code(partition: &str) -> i32 {
    if partition == TORN { PROBLEMS } else { 0 }
}

fn golden(tree: &str) -> PathBuf {
    tests_dir().join("golden/segments").join(tree)
}

fn segment(verb: &str, path: &Path) -> anyhow::Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(["segment", verb]).arg(path).args(["--output", "jsonl"]);
    // Kafka's classes print the records of internal topics as bytes.
    command.args(if verb == "cat" { ["-o", "start", "--decode", "raw"].as_slice() } else { &["--deep"] });
    Ok(command.output()?)
}

/// The lines of `expected.jsonl`, control records included.
fn expected(tree: &str) -> anyhow::Result<Partitions> {
    let mut partitions = Partitions::new();
    for line in fs::read_to_string(golden(tree).join("expected.jsonl"))?.lines() {
        let row: Value = serde_json::from_str(line)?;
        let partition = row["partition"].as_str().context("a record is in a partition")?;
        partitions.entry(partition.to_owned()).or_default().push(row);
    }
    ensure!(!partitions.is_empty(), "{tree} has no records");
    Ok(partitions)
}

/// What a consumer of everything would see of `expected`, aborted and open transactions included.
fn records(expected: &Partitions) -> Partitions {
    let record = |row: &Value| {
        let names = ["offset", "timestamp", "ts_type", "key", "value", "headers"];
        names.into_iter().map(|name| (name.to_owned(), row[name].clone())).collect::<Value>()
    };
    let data =
        |rows: &Vec<Value>| rows.iter().filter(|row| row.get("control").is_none()).map(record).collect();
    expected.iter().map(|(partition, rows)| (partition.clone(), data(rows))).collect()
}

/// The segments of each partition, by the files and the records of `expected`.
fn segments(tree: &str, expected: &Partitions) -> anyhow::Result<Partitions> {
    let mut partitions = Partitions::new();
    for (partition, rows) in expected {
        let files = segment_files(&golden(tree).join(partition), &["log"])?;
        let names = files.iter().map(|file| file.file_stem().unwrap_or_default().to_string_lossy());
        let bases = names.map(|name| Ok((name.parse::<u64>()?, name.into_owned())));
        let bases = bases.collect::<anyhow::Result<Vec<_>>>()?;
        for (index, (base, name)) in bases.iter().enumerate() {
            let next = bases.get(index + 1).map(|(next, _)| *next);
            let offset = |row: &&Value| row["offset"].as_u64().unwrap_or(u64::MAX);
            let within =
                rows.iter().filter(|row| (*base..next.unwrap_or(u64::MAX)).contains(&offset(row))).count();
            partitions.entry(partition.clone()).or_default().push(json!({
                "segment": name,
                "state": if next.is_some() { "sealed" } else { "active" },
                "records": within,
                "bytes": fs::metadata(&files[index])?.len(),
                "crc": "ok",
                "index": "ok",
                "timeindex": "ok",
            }));
        }
    }
    Ok(partitions)
}

/// The rows that were printed as JSON lines, each as `read` takes it.
fn by_partition(ran: &Output, read: impl Fn(Value) -> anyhow::Result<Value>) -> anyhow::Result<Partitions> {
    let mut partitions = Partitions::new();
    for line in std::str::from_utf8(&ran.stdout)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        let topic = row["topic"].as_str().context("a row names its topic")?;
        let partition = format!("{topic}-{}", row["partition"]);
        partitions.entry(partition).or_default().push(read(row)?);
    }
    Ok(partitions)
}

/// A record of `segment cat` as `expected.jsonl` writes it.
fn printed_record(row: &Value) -> anyhow::Result<Value> {
    let timestamp: Timestamp = row["ts"].as_str().context("a timestamp is text")?.parse()?;
    Ok(json!({
        "offset": row["offset"],
        "timestamp": timestamp.as_millisecond(),
        "ts_type": row["ts_type"],
        "key": row["key"],
        "value": row["value"],
        "headers": row["headers"],
    }))
}

/// What Kafka's files say too of a segment of `segment ls`.
fn listed_segment(row: &Value) -> Value {
    let names = ["segment", "state", "records", "bytes", "crc", "index", "timeindex"];
    names.into_iter().map(|name| (name.to_owned(), row[name].clone())).collect()
}

/// Names the first difference, since whole partitions are long to look at.
#[track_caller]
fn assert_same(tree: &str, ours: Partitions, kafkas: Partitions) {
    for (partition, expected) in &kafkas {
        let found = ours.get(partition).map_or(&[][..], Vec::as_slice);
        let differs = expected.iter().zip(found).find(|(expected, found)| expected != found);
        assert_eq!(differs, None, "{tree}/{partition}: what is expected, and what was printed");
        assert_eq!(found.len(), expected.len(), "{tree}/{partition}");
    }
    assert!(ours.keys().eq(kafkas.keys()), "{tree}: {:?}", ours.keys());
}
