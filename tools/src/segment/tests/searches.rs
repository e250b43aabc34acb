//! `segment grep` by its command line: what is found, in which order, with what around it.

use std::fs;
use std::path::Path;

use clap::Parser as _;

use super::super::grep::{self, GrepArgs};
use super::{KAFKAS, Partition, expected, files, kafka};
use crate::printer::Printer;

/// `segment grep` by its command line.
#[derive(clap::Parser)]
struct GrepCommand {
    #[command(flatten)]
    args: GrepArgs,
}

/// What `segment grep PATTERN PATH ARGS` prints, how many it finds, and the problems that it meets.
pub(super) fn search(pattern: &str, path: &Path, args: &[&str]) -> (String, u64, u32) {
    let start = ["grep", "-j", "3", pattern, path.to_str().unwrap()];
    let GrepCommand { args } = GrepCommand::parse_from(start.iter().chain(args));
    let printer = Printer::new(Vec::new(), args.what.style().unwrap());
    let partitions = files::find(path).unwrap();
    let (mut lines, outcome) = grep::search(&partitions, &args, printer).unwrap();
    outcome.unwrap();
    lines.printer.finish().unwrap();
    let count = lines.counts.iter().map(|(_, count)| count).sum();
    (String::from_utf8(lines.printer.written().clone()).unwrap(), count, lines.problems)
}

/// The values that are printed.
fn values(pattern: &str, path: &Path, args: &[&str]) -> String {
    search(pattern, path, args).0.trim_end().replace('\n', " ")
}

#[test]
fn records_are_found_in_the_order_of_the_log() {
    let partition = Partition::new();
    let path = partition.data.path();

    assert_eq!(values("^.?7$", path, &[]), "7 17 27 37 47 57 67 77 87 97");
    assert_eq!(values("9", path, &["-F", "-n", "3"]), "9 19 29");
    assert_eq!(values("^4", path, &["-o", "42:45"]), "42 43 44");
    assert_eq!(values("^.7", path, &["-p", "2", "-o", "-20"]), "87 97");
    assert_eq!(values("^[0-8]?.$", path, &["-v"]), "90 91 92 93 94 95 96 97 98 99");
    assert_eq!(values("7", path, &["--in", "key,headers"]), "");
}

#[test]
fn context_crosses_batches_and_segments_and_is_printed_once() {
    let partition = Partition::new();
    let path = partition.path();

    assert_eq!(values("^50$", &path, &["-C", "2"]), "48 49 50 51 52");
    assert_eq!(values("^(50|52)$", &path, &["-B", "1", "-A", "2"]), "49 50 51 52 53 54");
    assert_eq!(values("^(0|99)$", &path, &["-C", "1"]), "0 1 -- 98 99");
    assert_eq!(values("^.9$", &path, &["-A", "1", "-n", "1"]), "19 20");
    assert_eq!(
        values("^49$", &path, &["-B", "25"]),
        (24..50).map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
    );
}

#[test]
fn what_is_left_out_at_the_end_of_a_piece_is_marked() {
    let partition = Partition::new();
    // Pieces begin at the batches of offsets 10 and 30.
    partition.write_plain(0);

    assert_eq!(values("^(17|30)$", &partition.path(), &["-A", "2"]), "17 18 19 -- 30 31 32");
}

#[test]
fn what_is_found_is_counted() {
    let partition = Partition::new();

    let (text, count, _) = search("7", partition.data.path(), &["--count"]);

    assert_eq!((text.as_str(), count), ("", 19));
    assert_eq!(search("7", partition.data.path(), &["--count", "-n", "5"]).1, 5);
}

#[test]
fn damage_is_a_problem_and_the_rest_is_searched() {
    let partition = Partition::new();
    partition.change(0, "log", |bytes| bytes[70] ^= 1);

    let (text, count, problems) = search("^.?[29]$", &partition.path(), &["-o", ":30"]);

    assert_eq!((text.as_str(), count, problems), ("12\n19\n22\n29\n", 4, 1));
}

#[test]
fn plain_batches_are_passed_over_unless_they_may_match() {
    let partition = Partition::new();
    partition.write_plain(0);
    // Nobody looks at the checksum of a batch that has nothing to show, unless that is asked for.
    partition.change(0, "log", |bytes| bytes[17] ^= 1);

    assert_eq!(search("^25$", &partition.path(), &[]), ("25\n".into(), 1, 0));
    assert_eq!(search("^5$", &partition.path(), &[]), (String::new(), 0, 1));
    assert_eq!(search("^25$", &partition.path(), &["--verify"]), ("25\n".into(), 1, 1));
}

#[test]
fn json_is_an_array_of_all_that_is_found() {
    let partition = Partition::new();

    let (text, ..) = search("^1", &partition.path(), &["--output", "json"]);

    let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let offsets: Vec<i64> = found.iter().map(|record| record["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    assert_eq!(search("nothing", &partition.path(), &["--output", "json"]).0, "[]\n");
}

#[test]
fn a_segment_larger_than_a_piece_is_searched_whole_and_in_order() {
    let partition = Partition::new();
    fs::remove_dir_all(partition.path()).unwrap();
    fs::create_dir(partition.path()).unwrap();
    let batches = partition.write_large(0, 40);

    let expected: String = (0..batches).map(|batch| format!("needle{batch}\n")).collect();
    assert_eq!(search("^needle", &partition.path(), &["-f", "%k\n", "--in", "key"]).0, expected);
    let without_index = partition.file(0, "index");
    fs::remove_file(without_index).unwrap();
    assert_eq!(search("^needle", &partition.path(), &["-f", "%k\n", "--in", "key"]).0, expected);
}

#[test]
fn every_record_of_old_kafkas_is_found_by_its_value() {
    for version in KAFKAS {
        let all = expected(version);
        for record in &all {
            // What is in the files in one piece, however short, is what may be passed over.
            let Some(value) = record["value"]["utf8"].as_str().filter(|value| !value.is_empty()) else {
                continue;
            };
            let same = all.iter().filter(|other| {
                other["topic"] == record["topic"]
                    && other["value"]["utf8"].as_str().is_some_and(|other| other.contains(value))
            });
            let partition = format!("{}-{}", record["topic"].as_str().unwrap(), record["partition"]);

            let (_, found, problems) =
                search(value, &kafka(version).join(&partition), &["-F", "--in", "value", "--count"]);

            assert_eq!((found, problems), (same.count() as u64, 0), "{version}/{partition} {value:?}");
        }
    }
}
