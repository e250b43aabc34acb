//! Segment files that Apache Kafka wrote: what `segment cat` prints of them is what Kafka's own classes read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_record::TimestampMs;
use serde_json::{Value, json};

use super::printed;
use crate::time;

/// Versions whose files are in format 2.
const VERSIONS: &[&str] = &["kafka-3.9", "kafka-3.9-killed", "kafka-4.1", "kafka-4.1-killed"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tests").join("golden").join("segments")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What Kafka's classes read, by directory.
fn expected(version: &str) -> BTreeMap<String, Vec<Value>> {
    let text = std::fs::read_to_string(root().join(version).join("expected.jsonl")).unwrap();
    let mut partitions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in lines(&text) {
        partitions.entry(line["partition"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    partitions
}

/// What we print, by `segment cat` with `args`.
fn ours(version: &str, partition: &str, args: &[&str]) -> Vec<Value> {
    let (text, problems) =
        printed(&root().join(version).join(partition), &[args, &["--output", "jsonl"]].concat());
    // The write that a kill cut short is told.
    assert_eq!(problems, u32::from(partition == "torn-0"), "{version}/{partition}");
    lines(&text)
}

/// The fields that both have.
fn comparable(line: &Value) -> Value {
    let ts = match &line["timestamp"] {
        Value::Number(number) => json!(time::rfc3339(TimestampMs(number.as_i64().unwrap()))),
        _ => line["ts"].clone(),
    };
    let fields = ["offset", "ts_type", "key", "value", "headers"];
    let mut same: Value = fields.iter().map(|field| (*field, line[*field].clone())).collect();
    same["ts"] = ts;
    same
}

fn check(version: &str, partition: &str, args: &[&str], wanted: &[&Value]) {
    let ours: Vec<Value> = ours(version, partition, args).iter().map(comparable).collect();
    let theirs: Vec<Value> = wanted.iter().map(|line| comparable(line)).collect();
    assert_eq!(ours, theirs, "{version}/{partition} {args:?}");
}

#[test]
fn every_record_that_kafka_reads_is_printed() {
    for version in VERSIONS {
        for (partition, expected) in expected(version) {
            let all: Vec<&Value> = expected.iter().collect();
            check(version, &partition, &["--decode", "raw", "--control"], &all);
            let data: Vec<&Value> = expected.iter().filter(|line| line["control"].is_null()).collect();
            check(version, &partition, &["--decode", "raw"], &data);
        }
    }
}

#[test]
fn a_committed_reader_sees_what_kafkas_would() {
    for version in VERSIONS {
        for (partition, expected) in expected(version) {
            let closed = expected.iter().take_while(|line| line["transaction"] != json!("open"));
            let committed: Vec<&Value> = closed
                .filter(|line| line["control"].is_null() && line["transaction"] != json!("aborted"))
                .collect();
            check(version, &partition, &["--decode", "raw", "--isolation", "read_committed"], &committed);
        }
    }
}

#[test]
fn every_offset_and_time_is_found() {
    for (partition, expected) in expected("kafka-4.1") {
        for (index, line) in expected.iter().enumerate().step_by(7) {
            let offset = line["offset"].as_i64().unwrap();
            let from: Vec<&Value> = expected[index..].iter().collect();
            let args = ["--decode", "raw", "--control", "-o", &offset.to_string()];
            check("kafka-4.1", &partition, &args, &from);

            // Times may be out of order: it is the first by offset that is no earlier.
            let time = line["timestamp"].as_i64().unwrap();
            let is_late =
                |line: &Value| line["control"].is_null() && line["timestamp"].as_i64().unwrap() >= time;
            let later = expected.iter().position(is_late).unwrap_or(expected.len());
            let from: Vec<&Value> = expected[later..].iter().collect();
            check(
                "kafka-4.1",
                &partition,
                &["--decode", "raw", "--control", "-o", &format!("@{time}")],
                &from,
            );
        }
    }
}

#[test]
fn internal_topics_are_decoded() {
    let offsets = ours("kafka-4.1", "__consumer_offsets-0", &[]);
    let of = |name: &str| -> Vec<&Value> {
        offsets.iter().filter(|line| line["key"]["name"] == json!(name)).collect()
    };
    let commits = of("OffsetCommit");
    assert!(!commits.is_empty());
    for commit in commits {
        let key = &commit["key"]["data"];
        assert!(
            key["group"].is_string() && key["topic"].is_string() && key["partition"].is_number(),
            "{commit}"
        );
        assert!(commit["value"].is_null() || commit["value"]["data"]["offset"].is_number(), "{commit}");
    }
    let group = of("GroupMetadata").into_iter().find(|line| !line["value"]["data"]["members"].is_null());
    assert!(group.is_some_and(|line| line["value"]["data"]["protocolType"].is_string()), "{offsets:#?}");

    // Of groups of the new protocol, the kind and the group are told.
    for line in of("ConsumerGroupMetadata") {
        assert!(line["key"]["group"].is_string() && line["key"]["raw"]["b64"].is_string(), "{line}");
    }
    assert!(!of("ConsumerGroupMetadata").is_empty());

    let states = ours("kafka-4.1", "__transaction_state-0", &[]);
    assert!(!states.is_empty());
    for state in &states {
        assert!(state["key"]["data"]["transactionalId"].is_string(), "{state}");
        assert!(
            state["value"].is_null() || state["value"]["data"]["transactionStatusName"].is_string(),
            "{state}"
        );
    }

    let (line, _) =
        printed(&root().join("kafka-4.1/__transaction_state-0"), &["--output", "table", "-n", "1"]);
    assert!(line.contains("TransactionLog transactionalId="), "{line}");
    let markers = ours("kafka-4.1", "transactions-0", &["--control"]);
    let ends = markers.iter().filter(|line| line["key"]["name"].is_string());
    let names: std::collections::BTreeSet<&str> =
        ends.map(|line| line["key"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["abort", "commit"].into());
}
