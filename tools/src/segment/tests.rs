//! Segment files made by hand: what is listed and printed of them, and what is said when they are damaged.

mod damaged;
mod golden;
mod grep_model;
mod searches;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use highwater_record::{BatchBuilder, Codec, NewRecord, Offset, TimestampMs};
use tempfile::TempDir;

use super::cat::{Cat, CatArgs};
use super::ls::Look;
use super::{files, info, ls, span as selection};
use crate::output::OutputFormat;
use crate::printer::Printer;
use crate::time;

/// Records of each batch.
const BATCH_RECORDS: i64 = 10;
/// Batches of each segment.
const SEGMENT_BATCHES: i64 = 5;

/// Partition 2 of `logs` with two segments: offsets 0 to 99 with the offset as time and value, and an index of every
/// other batch.
struct Partition {
    data: TempDir,
}

impl Partition {
    fn new() -> Self {
        let partition = Self { data: TempDir::new().unwrap() };
        fs::create_dir(partition.path()).unwrap();
        for segment in 0..2 {
            partition.write_segment(segment * SEGMENT_BATCHES * BATCH_RECORDS);
        }
        partition
    }

    fn path(&self) -> PathBuf {
        self.data.path().join("logs-2")
    }

    fn file(&self, base: i64, suffix: &str) -> PathBuf {
        self.path().join(format!("{base:020}.{suffix}"))
    }

    fn write_segment(&self, base: i64) {
        self.write_compressed(base, Codec::Zstd);
    }

    fn write_plain(&self, base: i64) {
        self.write_compressed(base, Codec::None);
    }

    /// One segment of batches of a MiB, all with an index entry, each with one record whose key has its number.
    fn write_large(&self, base: i64, batches: i64) -> i64 {
        let (mut log, mut index) = (Vec::new(), Vec::new());
        let filler = vec![b'x'; 1 << 20];
        for batch in 0..batches {
            index.extend_from_slice(&i32::try_from(batch).unwrap().to_be_bytes());
            index.extend_from_slice(&i32::try_from(log.len()).unwrap().to_be_bytes());
            let mut builder = BatchBuilder::new(Codec::None).base_offset(Offset::new(base + batch).unwrap());
            let key = format!("needle{batch}");
            let (key, value) = (Some(key.as_bytes()), Some(filler.as_slice()));
            builder.append(&NewRecord { timestamp: TimestampMs(batch), key, value, headers: &[] }).unwrap();
            log.extend_from_slice(&builder.build().unwrap());
        }
        fs::write(self.file(base, "log"), log).unwrap();
        fs::write(self.file(base, "index"), index).unwrap();
        batches
    }

    fn write_compressed(&self, base: i64, codec: Codec) {
        let (mut log, mut index, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for batch in 0..SEGMENT_BATCHES {
            let first = base + batch * BATCH_RECORDS;
            let last = first + BATCH_RECORDS - 1;
            if batch % 2 == 1 {
                let relative = i32::try_from(last - base).unwrap().to_be_bytes();
                index.extend_from_slice(&relative);
                index.extend_from_slice(&i32::try_from(log.len()).unwrap().to_be_bytes());
                times.extend_from_slice(&last.to_be_bytes());
                times.extend_from_slice(&relative);
            }
            let mut builder = BatchBuilder::new(codec).base_offset(Offset::new(first).unwrap());
            for offset in first..=last {
                let (timestamp, value) = (TimestampMs(offset), offset.to_string());
                let value = Some(value.as_bytes());
                builder.append(&NewRecord { timestamp, key: None, value, headers: &[] }).unwrap();
            }
            log.extend_from_slice(&builder.build().unwrap());
        }
        fs::write(self.file(base, "log"), log).unwrap();
        fs::write(self.file(base, "index"), index).unwrap();
        fs::write(self.file(base, "timeindex"), times).unwrap();
    }

    /// Makes a batch of a segment one of a format that there is not.
    fn break_header(&self, base: i64, number: usize) {
        self.change(base, "log", |bytes| {
            let length = |at: usize| u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap());
            let at = (0..number).fold(0, |at, _| at + 12 + length(at) as usize);
            bytes[at + 16] = 9;
        });
    }

    fn change(&self, base: i64, suffix: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.file(base, suffix);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

/// `segment cat` by its command line.
#[derive(clap::Parser)]
struct CatCommand {
    #[command(flatten)]
    args: CatArgs,
}

/// What `segment cat PATH ARGS` prints, and the problems that it finds.
fn printed(path: &Path, args: &[&str]) -> (String, u32) {
    let path_text = path.to_str().unwrap();
    let CatCommand { args } = CatCommand::parse_from(["cat", path_text].iter().chain(args));
    let printer = Printer::new(Vec::new(), args.what.style().unwrap());
    let mut cat = Cat::new(printer, &args);
    let spec = args.what.spec().unwrap();
    for partition in files::find(path).unwrap() {
        cat.partition(&partition, &spec).unwrap();
    }
    cat.printer.finish().unwrap();
    (String::from_utf8(cat.printer.written().clone()).unwrap(), cat.problems)
}

/// The offsets that `segment cat PATH -o SPEC` prints, and the problems that it finds.
fn cat(path: &Path, spec: &str) -> (Vec<i64>, u32) {
    cat_with(path, &["-o", spec])
}

fn cat_with(path: &Path, args: &[&str]) -> (Vec<i64>, u32) {
    let (text, problems) = printed(path, &[args, &["-f", "%o=%v "]].concat());
    let offset = |pair: &str| {
        let (offset, value) = pair.split_once('=').unwrap();
        assert_eq!(offset, value);
        offset.parse().unwrap()
    };
    (text.split_whitespace().map(offset).collect(), problems)
}

/// The records that `segment cat PATH -o SPEC --output jsonl` prints, and the problems that it finds.
fn cat_json(path: &Path, spec: &str) -> (Vec<serde_json::Value>, u32) {
    let (text, problems) = printed(path, &["-o", spec, "--output", "jsonl"]);
    let lines = serde_json::Deserializer::from_str(&text).into_iter();
    (lines.map(Result::unwrap).collect(), problems)
}

/// Partitions that versions of Kafka wrote before batches were the only format.
fn kafka(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/segments").join(version)
}

const KAFKAS: [&str; 4] = ["kafka-0.8.0", "kafka-0.8.2", "kafka-0.10.2", "kafka-0.11"];

/// What Kafka's own classes read there, as `segment cat` would print it.
fn expected(version: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(kafka(version).join("expected.jsonl")).unwrap();
    let record = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (topic, partition) = line["partition"].as_str().unwrap().rsplit_once('-').unwrap();
        let timestamp = TimestampMs(line["timestamp"].as_i64().unwrap());
        // Records have no word for a format without timestamps.
        let clock = if line["ts_type"] == "none" { "create" } else { line["ts_type"].as_str().unwrap() };
        serde_json::json!({
            "topic": topic,
            "partition": partition.parse::<i32>().unwrap(),
            "offset": line["offset"],
            "ts": time::rfc3339(timestamp).map_or(timestamp.0.into(), serde_json::Value::from),
            "ts_type": clock,
            "key": line["key"],
            "value": line["value"],
            "headers": line["headers"],
        })
    };
    text.lines().map(record).collect()
}

/// The rows that `segment ls PATH` prints, and the problems that it finds.
fn list(path: &Path) -> (Vec<serde_json::Value>, u32) {
    let (rows, problems) = ls::list(&files::find(path).unwrap(), Look::Deep).unwrap();
    let mut json = Vec::new();
    rows.write(&mut json, OutputFormat::Json).unwrap();
    (serde_json::from_slice(&json).unwrap(), problems)
}

fn span(from: i64, to: i64) -> Vec<i64> {
    (from..to).collect()
}

#[test]
fn a_data_directory_a_partition_and_a_file_are_all_read() {
    let partition = Partition::new();

    assert_eq!(cat(partition.data.path(), "start"), (span(0, 100), 0));
    assert_eq!(cat(&partition.path(), "start"), (span(0, 100), 0));
    assert_eq!(cat(&partition.file(50, "log"), "start"), (span(50, 100), 0));
}

#[test]
fn offsets_and_times_select_as_in_consume() {
    let partition = Partition::new();
    let path = partition.path();

    assert_eq!(cat(&path, "-3").0, [97, 98, 99]);
    assert_eq!(cat(&path, "45:53").0, span(45, 53));
    assert_eq!(cat(&path, "p2:98").0, [98, 99]);
    assert_eq!(cat(&path, "s@73").0, span(73, 100));
    assert_eq!(cat(&path, "e@5").0, span(0, 5));
    assert_eq!(cat(&path, "end").0, span(0, 0));
}

#[test]
fn a_listing_tells_offsets_times_and_states() {
    let partition = Partition::new();

    let (rows, problems) = list(partition.data.path());

    assert_eq!(problems, 0);
    let field = |name: &str| rows.iter().map(|row| row[name].to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(field("topic"), "\"logs\" \"logs\"");
    assert_eq!(field("state"), "\"sealed\" \"active\"");
    assert_eq!((field("start"), field("end")), ("0 50".into(), "50 100".into()));
    assert_eq!(field("records"), "50 50");
    assert_eq!(field("codec"), "[\"zstd\"] [\"zstd\"]");
    assert_eq!(field("last_ts"), "\"1970-01-01T00:00:00.049Z\" \"1970-01-01T00:00:00.099Z\"");
    for column in ["crc", "index", "timeindex"] {
        assert_eq!(field(column), "\"ok\" \"ok\"", "{column}");
    }
}

#[test]
fn a_glance_leaves_empty_what_it_does_not_know() {
    let partition = Partition::new();
    let glance = || {
        let (rows, problems) = ls::list(&files::find(&partition.path()).unwrap(), Look::Glance).unwrap();
        let mut json = Vec::new();
        rows.write(&mut json, OutputFormat::Json).unwrap();
        (serde_json::from_slice::<Vec<serde_json::Value>>(&json).unwrap(), problems)
    };

    let (rows, problems) = glance();

    assert_eq!((rows[0]["end"].as_i64(), rows[1]["end"].as_i64(), problems), (Some(50), Some(100), 0));
    assert_eq!((rows[0]["records"].as_i64(), rows[0]["codec"].as_array()), (None, None));
    assert_eq!((rows[0]["crc"].as_str(), rows[0]["index"].as_str()), (Some("unchecked"), Some("unchecked")));
    assert_eq!(rows[0]["last_ts"], "1970-01-01T00:00:00.049Z");

    // Without an index a small segment is walked.
    fs::remove_file(partition.file(0, "index")).unwrap();
    assert_eq!(glance().0[0]["records"], 50);
    // What it meets at the end is a problem as before.
    partition.change(50, "log", |bytes| bytes.truncate(bytes.len() - 1));
    let (rows, problems) = glance();
    assert_eq!((rows[1]["crc"].as_str(), problems), (Some("bad"), 1));
}

#[test]
fn a_changed_batch_ends_its_partition_and_is_a_problem() {
    let partition = Partition::new();
    partition.change(50, "log", |bytes| *bytes.last_mut().unwrap() ^= 1);

    assert_eq!(cat(&partition.path(), "start"), (span(0, 90), 1));
    let (rows, problems) = list(&partition.path());
    assert_eq!((rows[0]["crc"].as_str(), rows[1]["crc"].as_str(), problems), (Some("ok"), Some("bad"), 1));
}

#[test]
fn a_torn_tail_is_said_and_the_rest_is_printed() {
    let partition = Partition::new();
    partition.change(50, "log", |bytes| bytes.truncate(bytes.len() - 1));

    assert_eq!(cat(&partition.path(), "start"), (span(0, 90), 1));
    // The end that there is now is where the damage is, so that it is met and said.
    assert_eq!(cat(&partition.path(), ":end"), (span(0, 90), 1));
    assert_eq!(cat(&partition.path(), "80:85"), (span(80, 85), 0));
}

#[test]
fn damage_ends_a_partition_unless_it_is_to_be_skipped() {
    let partition = Partition::new();
    // The first batch of a segment, and the third of the next.
    partition.change(0, "log", |bytes| bytes[70] ^= 1);
    partition.change(50, "log", |bytes| *bytes.last_mut().unwrap() ^= 1);

    assert_eq!(cat_with(&partition.path(), &[]), (span(0, 0), 1));
    assert_eq!(cat_with(&partition.path(), &["--skip-damaged"]), (span(10, 90), 2));
}

#[test]
fn partitions_that_are_not_there_are_not_passed_over() {
    let partition = Partition::new();
    let partitions = files::find(partition.data.path()).unwrap();
    let chosen = |args: &[&str]| {
        let CatCommand { args } = CatCommand::parse_from(["cat", "x"].iter().chain(args));
        let spec = args.what.spec().unwrap();
        selection::chosen(&partitions, &args.what, &spec)
            .map(|chosen| chosen.len())
            .map_err(|error| error.to_string())
    };

    assert_eq!(chosen(&["-p", "2", "-o", "p2:7"]), Ok(1));
    assert_eq!(chosen(&["-p", "2,3"]), Err("partition 3 is not here".to_owned()));
    assert_eq!(chosen(&["-o", "p2:7,p4:1"]), Err("partition 4 is not here".to_owned()));
}

#[test]
fn bytes_of_old_kafkas_are_dumped_as_they_are() {
    let path = |version: &str, partition: &str| kafka(version).join(partition);

    let (message, _) = printed(&path("kafka-0.8.0", "plain-0"), &["--batches", "--hex", "-n", "1"]);
    for line in [
        "messageSize           21",
        "crc                   0x3e902470",
        "magic                 0",
        "attributes            0 (none)",
    ] {
        assert!(message.contains(line), "{message}");
    }
    // The key and the value, each with its size.
    assert!(message.contains("\n00000012  00 00 00 02 6b 30 00 00  00 05 61 6c 6f 6e 65"), "{message}");
    let (record, _) = printed(&path("kafka-0.8.0", "plain-0"), &["--hex", "-n", "1"]);
    assert!(
        record.starts_with("plain-0@0  position 0, 33 bytes\n00000000  00 00 00 00 00 00 00 00"),
        "{record}"
    );
    let (message, _) = printed(&path("kafka-0.10.2", "gzip-0"), &["--batches", "--hex", "-n", "1"]);
    assert!(message.contains("attributes            1 (gzip)"), "{message}");
    assert!(
        message.contains("00000012  00 00 01 8b cf e5 68 00   timestamp             1700000000000\n"),
        "{message}"
    );
}

#[test]
fn rows_of_batches_go_on_behind_a_checksum_that_fails() {
    let partition = Partition::new();
    partition.change(0, "log", |bytes| bytes[70] ^= 1);

    let (text, problems) = printed(&partition.path(), &["--batches", "--output", "jsonl", "-o", "5:25"]);

    let rows: Vec<serde_json::Value> = text.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let field = |name: &str| rows.iter().map(|row| row[name].to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!((field("base_offset"), field("last_offset")), ("0 10 20".into(), "9 19 29".into()));
    assert_eq!((field("crc"), problems), ("\"bad\" \"ok\" \"ok\"".into(), 1));
    let (table, _) = printed(&partition.path(), &["--batches", "-n", "2"]);
    assert_eq!(table.lines().count(), 3);
    assert!(table.starts_with("TOPIC         PARTITION  SEGMENT"), "{table}");
}

#[test]
fn bytes_are_dumped_with_their_positions() {
    let partition = Partition::new();

    let (header, _) = printed(&partition.file(50, "log"), &["--batches", "--hex", "-n", "1"]);
    assert!(header.contains("00000000  00 00 00 00 00 00 00 32   baseOffset            50\n"), "{header}");
    assert!(
        header.contains("00000015  00 04                     attributes            4 (zstd)\n"),
        "{header}"
    );
    let (record, _) = printed(&partition.path(), &["--hex", "-o", "5", "-n", "1"]);
    let (place, dump) = record.split_once('\n').unwrap();
    assert_eq!(place, "logs-2@5  byte 40 of the records of the zstd batch at position 0, 8 bytes");
    assert!(dump.starts_with("00000028  0e 00 0a 0a 01 02 35 00"), "{dump}");
    assert!(dump.ends_with("|......5.|\n"), "{dump}");
}

#[test]
fn an_index_that_lies_is_not_followed() {
    let partition = Partition::new();
    // The position of each entry is off by one.
    partition.change(0, "index", |bytes| bytes.chunks_mut(8).for_each(|entry| entry[7] ^= 1));

    assert_eq!(cat(&partition.path(), "45:53").0, span(45, 53));
    let (rows, problems) = list(&partition.path());
    assert_eq!((rows[0]["index"].as_str(), problems), (Some("wrong"), 1));
}

#[test]
fn an_index_entry_is_right_if_it_leads_to_where_a_reader_may_begin() {
    // Of the first entry, which points to the batch of offsets 10 to 19; the second one has offset 39. Kafka may name the
    // end of a later batch that was appended with it.
    for (relative, state) in [(9, "wrong"), (10, "ok"), (19, "ok"), (20, "wrong"), (29, "ok"), (39, "wrong")]
    {
        let partition = Partition::new();
        partition.change(0, "index", |bytes| bytes[3] = relative);

        let (rows, _) = list(&partition.path());

        assert_eq!(rows[0]["index"], state, "{relative}");
        assert_eq!(cat(&partition.path(), "15:25").0, span(15, 25), "{relative}");
    }
}

#[test]
fn indexes_that_are_missing_or_allocated_ahead_are_no_problem() {
    let partition = Partition::new();
    fs::remove_file(partition.file(0, "index")).unwrap();
    partition.change(50, "index", |bytes| bytes.extend_from_slice(&[0; 80]));
    partition.change(50, "timeindex", |bytes| bytes.extend_from_slice(&[0; 120]));

    assert_eq!(cat(&partition.path(), "45:").0, span(45, 100));
    assert_eq!(cat(&partition.path(), "s@45").0, span(45, 100));
    let (rows, problems) = list(&partition.path());
    assert_eq!((rows[0]["index"].as_str(), rows[1]["index"].as_str()), (Some("missing"), Some("ok")));
    assert_eq!((rows[1]["timeindex"].as_str(), problems), (Some("ok"), 0));
}

#[test]
fn bytes_of_the_next_segment_are_not_printed_twice() {
    let partition = Partition::new();
    let next = fs::read(partition.file(50, "log")).unwrap();
    partition.change(0, "log", |bytes| bytes.extend_from_slice(&next));

    assert_eq!(cat(&partition.path(), "start"), (span(0, 100), 0));
}

#[test]
fn a_live_owner_is_found_by_its_lock() {
    let partition = Partition::new();
    let lock = fs::File::create(partition.data.path().join("LOCK")).unwrap();
    assert_eq!(files::find(&partition.path()).unwrap()[0].owner, None);

    lock.try_lock().unwrap();

    assert_eq!(files::find(&partition.path()).unwrap()[0].owner.as_deref(), Some("a broker"));
}

#[test]
fn paths_without_segments_are_refused() {
    let partition = Partition::new();
    let empty = TempDir::new().unwrap();

    assert!(files::find(empty.path()).is_err());
    assert!(files::find(&empty.path().join("nothing")).is_err());
    assert!(files::find(&partition.file(0, "index")).is_err());
}

#[test]
fn segments_of_old_kafkas_are_printed_as_kafka_reads_them() {
    for version in KAFKAS {
        let (records, problems) = cat_json(&kafka(version), "start");

        assert_eq!(problems, 0, "{version}");
        for (record, expected) in records.iter().zip(expected(version)) {
            assert_eq!(*record, expected, "{version}");
        }
        assert_eq!(records.len(), expected(version).len(), "{version}");
    }
}

#[test]
fn any_offset_of_old_kafkas_is_found_by_their_indexes() {
    for (version, partition) in [("kafka-0.8.2", "compacted-0"), ("kafka-0.11", "mixed-0")] {
        let topic = partition.strip_suffix("-0").unwrap();
        let mut all = expected(version);
        all.retain(|record| record["topic"] == topic);
        let last = all.last().unwrap()["offset"].as_i64().unwrap();
        for offset in 0..=last {
            let (records, problems) =
                cat_json(&kafka(version).join(partition), &format!("{offset}:{}", offset + 1));

            let found = all.iter().find(|record| record["offset"].as_i64().unwrap() >= offset).cloned();
            let is_there = found.filter(|record| record["offset"] == offset);
            assert_eq!((records, problems), (is_there.into_iter().collect(), 0), "{version} {offset}");
        }
    }
}

#[test]
fn a_listing_of_old_kafkas_finds_nothing_wrong() {
    for version in KAFKAS {
        let (rows, problems) = list(&kafka(version));

        assert_eq!(problems, 0, "{version}");
        let records: u64 = rows.iter().map(|row| row["records"].as_u64().unwrap()).sum();
        assert_eq!(records, expected(version).len() as u64, "{version}");
        assert!(rows.iter().all(|row| row["crc"] == "ok" && row["index"] == "ok"), "{version}");
        // Before 0.10 there were no timestamps and no index of them.
        let is_timed = ["kafka-0.10.2", "kafka-0.11"].contains(&version);
        assert_eq!(rows.iter().any(|row| row["timeindex"] == "ok"), is_timed, "{version}");
        assert_eq!(rows.iter().any(|row| !row["first_ts"].is_null()), is_timed, "{version}");
    }
}

#[test]
fn information_counts_what_there_is() {
    let partition = Partition::new();
    let partitions = files::find(&partition.path()).unwrap();

    let stats = info::count(&partitions, info::Sampling::FULL, TimestampMs(89)).unwrap();

    assert_eq!((stats.segments, stats.batches, stats.records), (2, 10, 100));
    assert_eq!((stats.gaps, stats.damages, stats.times.backwards), (0, 0, 0));
    assert_eq!((stats.times.first, stats.times.last), (Some(TimestampMs(0)), Some(TimestampMs(99))));
    assert_eq!(stats.times.future, 1);
    assert_eq!((stats.decoded.batches, stats.decoded.null_keys), (10, 100));
    let object = info::object(&stats, &partitions, info::Sampling::FULL);
    assert_eq!((&object["codecs"]["zstd"], &object["decoded"]), (&10.into(), &"all batches".into()));
}
