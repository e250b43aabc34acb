//! `segment grep` on random logs finds what a look at every record finds, whatever the batches, pieces and segments are
//! that the records lie in, and prints the context that grep would print.

use std::fs;
use std::path::Path;

use highwater_record::{Batch, BatchBuilder, Codec, NewRecord, Offset, TimestampMs};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use regex::bytes::Regex;
use tempfile::TempDir;

use super::searches::search;

/// A key, a value and the name of a header.
type Record = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

/// What patterns are made of. Those with `\x02` and `\x0c` match lengths in the bytes between keys and values.
const PIECES: &[&str] = &[
    "a",
    "a",
    "b",
    "b",
    "ab",
    "aa",
    ".",
    "(?s:.)",
    "[^a]",
    "^",
    "$",
    r"\b",
    "(?m:^)",
    "a*",
    "é",
    r"\x00",
    r"\x02",
    r"\x0c",
    r"(?-u:\xff)",
];

#[derive(Clone, Debug)]
struct SomeBatch {
    codec: Codec,
    kind: Kind,
    records: Vec<Record>,
    is_indexed: bool,
    begins_segment: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Data,
    /// As compaction leaves it.
    Emptied,
    Control,
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(select(vec![&b"a"[..], b"b", b"\n", b"\0", "é".as_bytes(), b"\xff", b"ab"]), 0..5)
        .prop_map(|parts| parts.concat())
}

fn batch() -> impl Strategy<Value = SomeBatch> {
    let codec = select(vec![
        Codec::None,
        Codec::None,
        Codec::None,
        Codec::None,
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ]);
    let kind = select(vec![Kind::Data, Kind::Data, Kind::Data, Kind::Data, Kind::Emptied, Kind::Control]);
    let record = (option::of(text()), option::of(text()), option::of(text()));
    (codec, kind, vec(record, 1..5), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(codec, kind, records, is_indexed, begins_segment)| SomeBatch {
            codec,
            kind,
            records,
            is_indexed,
            begins_segment,
        },
    )
}

impl SomeBatch {
    fn bytes(&self, base: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(self.codec).base_offset(Offset::new(base).unwrap());
        if self.kind == Kind::Control {
            builder = builder.control();
        }
        for (key, value, header) in &self.records {
            let headers: Vec<(&[u8], Option<&[u8]>)> =
                header.iter().map(|name| (name.as_slice(), None)).collect();
            let (key, value) = (key.as_deref(), value.as_deref());
            builder
                .append(&NewRecord { timestamp: TimestampMs(base), key, value, headers: &headers })
                .unwrap();
        }
        let whole = Batch::new(builder.build().unwrap()).unwrap();
        if self.kind == Kind::Emptied { whole.emptied().bytes().to_vec() } else { whole.bytes().to_vec() }
    }
}

/// Writes the segments of a partition; gives the records that can be found, with their offsets.
fn write(dir: &Path, batches: &[SomeBatch]) -> Vec<(i64, Record)> {
    fs::create_dir_all(dir).unwrap();
    let (mut next, mut records) = (0, Vec::new());
    let mut segments: Vec<(i64, Vec<u8>, Vec<u8>)> = Vec::new();
    for batch in batches {
        if batch.begins_segment || segments.is_empty() {
            segments.push((next, Vec::new(), Vec::new()));
        }
        let (base, log, index) = segments.last_mut().unwrap();
        let last = next + batch.records.len() as i64 - 1;
        if batch.is_indexed && !log.is_empty() {
            index.extend_from_slice(&i32::try_from(last - *base).unwrap().to_be_bytes());
            index.extend_from_slice(&i32::try_from(log.len()).unwrap().to_be_bytes());
        }
        log.extend_from_slice(&batch.bytes(next));
        if batch.kind == Kind::Data {
            records.extend((next..).zip(batch.records.iter().cloned()));
        }
        next = last + 1;
    }
    for (base, log, index) in segments {
        fs::write(dir.join(format!("{base:020}.log")), log).unwrap();
        fs::write(dir.join(format!("{base:020}.index")), index).unwrap();
    }
    records
}

/// The lines of grep: offsets, and `--` between those that do not follow each other.
fn expected(matching: &[bool], offsets: &[i64], before: usize, after: usize, limit: usize) -> Vec<String> {
    let wanted: Vec<usize> = (0..matching.len()).filter(|index| matching[*index]).take(limit).collect();
    // The context behind the last that is wanted ends where another matches.
    let end = wanted.last().map_or(0, |last| {
        (last + 1..matching.len()).take(after).take_while(|index| !matching[*index]).last().unwrap_or(*last)
            + 1
    });
    let near =
        |index: &usize| wanted.iter().any(|at| (at.saturating_sub(before)..=at + after).contains(index));
    let printed: Vec<usize> = (0..end).filter(near).collect();
    let mut lines = Vec::new();
    for (place, index) in printed.iter().enumerate() {
        if before + after > 0 && place > 0 && printed[place - 1] + 1 != *index {
            lines.push("--".to_owned());
        }
        lines.push(offsets[*index].to_string());
    }
    lines
}

fn matches(regex: &Regex, record: &Record) -> bool {
    [&record.0, &record.1, &record.2].into_iter().flatten().any(|part| regex.is_match(part))
}

/// The offsets and separators of what is printed for people.
fn lines(text: &str) -> Vec<String> {
    let offset = |line: &str| match line.split_once('@') {
        Some((_, rest)) => rest.split(' ').next().unwrap().to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(offset).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_search_is_a_look_at_every_record(
        batches in vec(batch(), 1..25),
        pieces in vec(select(PIECES), 1..5),
        ignores_case in any::<bool>(),
        is_inverted in any::<bool>(),
        (before, after) in prop_oneof![Just((0, 0)), (0..4_usize, 0..4_usize)],
        limit in option::of(1..5_usize),
        range in (0..30_i64, 0..60_i64),
    ) {
        let data = TempDir::new().unwrap();
        let dir = data.path().join("logs-2");
        let mut records = write(&dir, &batches);
        let end: i64 = batches.iter().map(|batch| batch.records.len() as i64).sum();
        let start = range.0 % end;
        let end = start + 1 + range.1 % (end - start);
        records.retain(|(offset, _)| (start..end).contains(offset));
        let pattern = pieces.concat();
        let regex = Regex::new(&format!("{}(?:{pattern})", if ignores_case { "(?i)" } else { "" })).unwrap();

        let mut args = vec!["--in".into(), "key,value,headers".into(), "-o".into(), format!("{start}:{end}")];
        args.extend(["-B".into(), before.to_string(), "-A".into(), after.to_string(), "--output".into(), "table".into()]);
        args.extend(limit.iter().flat_map(|limit| ["-n".into(), limit.to_string()]));
        args.extend(ignores_case.then(|| "-i".to_owned()));
        args.extend(is_inverted.then(|| "-v".to_owned()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (printed, count, problems) = search(&pattern, &dir, &args);

        let matching: Vec<bool> =
            records.iter().map(|(_, record)| matches(&regex, record) != is_inverted).collect();
        let offsets: Vec<i64> = records.iter().map(|(offset, _)| *offset).collect();
        let limit = limit.unwrap_or(usize::MAX);
        prop_assert_eq!(lines(&printed), expected(&matching, &offsets, before, after, limit), "{:?}", pattern);
        let found = matching.iter().filter(|matches| **matches).count().min(limit);
        prop_assert_eq!((count, problems), (found as u64, 0));
    }
}
