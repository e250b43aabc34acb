//! The records that every client sends, and how those that come back are compared with them.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Ordinary records in each partition.
pub(super) const ORDINARY: usize = 200;

/// Bytes of the large record's value.
const LARGE_BYTES: usize = 1 << 20;

/// How much older than now the first record is.
const AGE: Duration = Duration::from_hours(1);

/// A record in a line of JSON.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Line {
    /// Its partition.
    pub(super) partition: usize,
    /// Its place, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<i64>,
    /// Milliseconds since the Unix epoch; the client decides if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timestamp: Option<i64>,
    /// The key, if any.
    pub(super) key: Option<Base64>,
    /// The value; a tombstone has none.
    pub(super) value: Option<Base64>,
    /// The headers in their order.
    pub(super) headers: Vec<(String, Option<Base64>)>,
}

/// Bytes that are base64 in JSON.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Base64(pub(super) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = String::from_utf8_lossy(&self.0[..self.0.len().min(60)]);
        write!(f, "{head:?} ({} bytes)", self.0.len())
    }
}

/// What a record may be besides ordinary. Libraries differ in what they can send and tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Every record has a time of the test's choice.
    Timestamps,
    /// Headers with distinct names.
    Headers,
    /// A header name that comes again after another one.
    RepeatedHeaders,
    /// A header without a value, beside one with an empty value.
    NullHeader,
    /// A key without a value.
    Tombstone,
    /// An empty value, which is not the same.
    EmptyValue,
    /// An empty key, which is not the same as none.
    EmptyKey,
    /// A value of 1 MiB that does not compress.
    Large,
}

impl Kind {
    /// Every kind.
    pub(super) const ALL: [Self; 8] = [
        Self::Timestamps,
        Self::Headers,
        Self::RepeatedHeaders,
        Self::NullHeader,
        Self::Tombstone,
        Self::EmptyValue,
        Self::EmptyKey,
        Self::Large,
    ];

    /// What it is, for people.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Timestamps => "timestamps of one's own",
            Self::Headers => "headers",
            Self::RepeatedHeaders => "headers with repeated names",
            Self::NullHeader => "headers without a value",
            Self::Tombstone => "tombstones",
            Self::EmptyValue => "empty values",
            Self::EmptyKey => "empty keys",
            Self::Large => "records of 1 MiB",
        }
    }

    fn line(self, partition: usize) -> Line {
        let line = plain(partition, format!("key of {}", self.words()), self.words().to_owned());
        let headers = |pairs: &[(&str, Option<&str>)]| {
            pairs.iter().map(|(name, value)| (String::from(*name), value.map(bytes_of))).collect()
        };
        match self {
            Self::Timestamps => line,
            Self::Headers => Line { headers: headers(&[("a", Some("1")), ("größe", Some("2"))]), ..line },
            Self::RepeatedHeaders => {
                Line { headers: headers(&[("a", Some("1")), ("b", Some("2")), ("a", Some("3"))]), ..line }
            }
            Self::NullHeader => Line { headers: headers(&[("a", None), ("b", Some(""))]), ..line },
            Self::Tombstone => Line { value: None, ..line },
            Self::EmptyValue => Line { value: Some(bytes_of("")), ..line },
            Self::EmptyKey => Line { key: Some(bytes_of("")), ..line },
            Self::Large => Line { value: Some(Base64(noise(LARGE_BYTES))), ..line },
        }
    }
}

fn bytes_of(text: &str) -> Base64 {
    Base64(text.into())
}

fn plain(partition: usize, key: String, value: String) -> Line {
    Line {
        partition,
        offset: None,
        timestamp: None,
        key: Some(Base64(key.into())),
        value: Some(Base64(value.into())),
        headers: Vec::new(),
    }
}

/// Bytes without a pattern, the same in each run.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| step()).collect()
}

/// `count` numbered records for each of `partitions`, from number `first` on, without keys.
pub(super) fn numbered(partitions: usize, first: usize, count: usize) -> Vec<Line> {
    let number = |number| {
        (0..partitions).map(move |partition| Line {
            key: None,
            ..plain(partition, String::new(), format!("{partition}-{number}"))
        })
    };
    (first..first + count).flat_map(number).collect()
}

/// Ordinary records for each of `partitions`, with and without keys, and then one of each of `kinds`.
pub(super) fn assorted(partitions: usize, kinds: &[Kind]) -> anyhow::Result<Vec<Line>> {
    let mut lines = numbered(partitions, 0, ORDINARY);
    for (place, line) in lines.iter_mut().enumerate() {
        // Long and alike, so that even one alone becomes smaller in every codec.
        let value = format!("{place} is the number of this line, {}", "and a line is a line, ".repeat(12));
        line.value = Some(Base64(value.into()));
        line.key = (place % 4 > 0).then(|| Base64(format!("key {place}").into()));
    }
    lines.extend(kinds.iter().enumerate().map(|(place, kind)| kind.line(place % partitions)));
    if kinds.contains(&Kind::Timestamps) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let start = i64::try_from((now - AGE).as_millis())?;
        for (place, line) in (0..).zip(&mut lines) {
            line.timestamp = Some(start + place);
        }
    }
    Ok(lines)
}

/// Writes lines of JSON.
pub(super) fn write(path: &Path, lines: &[Line]) -> anyhow::Result<()> {
    let json = lines.iter().map(|line| Ok(serde_json::to_string(line)? + "\n"));
    Ok(fs::write(path, json.collect::<anyhow::Result<String>>()?)?)
}

/// Fails unless `stored` holds what was `sent`, each partition in its order and nothing else.
pub(super) fn check_stored(sent: &[Line], stored: &[Line]) -> anyhow::Result<()> {
    let mut next = vec![0; sent.iter().map(|line| line.partition + 1).max().unwrap_or(0)];
    let mut expected = sent.to_vec();
    for line in &mut expected {
        line.offset = Some(next[line.partition]);
        next[line.partition] += 1;
    }
    let stored: Vec<_> = in_order(stored)
        .into_iter()
        .zip(in_order(&expected).iter().map(|line| line.timestamp.is_some()).chain(std::iter::repeat(true)))
        // A time that the client chose is not compared.
        .map(|(line, timed)| if timed { line } else { Line { timestamp: None, ..line } })
        .collect();
    check_same(&expected, &stored).context("what is stored is not what was sent")
}

/// Fails unless both are the same, each partition in its order.
pub(super) fn check_same(expected: &[Line], found: &[Line]) -> anyhow::Result<()> {
    let (expected, found) = (in_order(expected), in_order(found));
    for (expected, found) in expected.iter().zip(&found) {
        ensure!(expected == found, "there is\n  {found:?}\nwhere this belongs:\n  {expected:?}");
    }
    let (expected, found) = (expected.len(), found.len());
    ensure!(expected == found, "there are {found} records and not {expected}");
    Ok(())
}

/// Partition by partition; the order within each is kept.
fn in_order(lines: &[Line]) -> Vec<Line> {
    let mut lines = lines.to_vec();
    lines.sort_by_key(|line| line.partition);
    lines
}

#[test]
fn a_difference_is_found_wherever_it_is() {
    let sent = assorted(3, &Kind::ALL).unwrap();
    let mut stored = sent.clone();
    for (place, line) in (0..).zip(stored.iter_mut()) {
        line.offset = Some(place / 3);
    }

    check_stored(&sent, &stored).unwrap();
    check_stored(&sent, &stored[1..]).unwrap_err();
    check_stored(&sent[1..], &stored).unwrap_err();
    for place in [0, ORDINARY, stored.len() - 1] {
        let wrong: [fn(&mut Line); 5] = [
            |line| line.offset = None,
            |line| line.timestamp = line.timestamp.map(|time| time + 1),
            |line| line.key = Some(Base64(b"other".to_vec())),
            |line| line.value = Some(Base64(b"other".to_vec())),
            |line| line.headers.push(("more".to_owned(), None)),
        ];
        for change in wrong {
            let mut changed = stored.clone();
            change(&mut changed[place]);
            check_stored(&sent, &changed).unwrap_err();
        }
    }
}
