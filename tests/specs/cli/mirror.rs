//! `consume --output jsonl | produce --input jsonl` copies a topic without loss, whatever its bytes.

use std::net::SocketAddr;

use anyhow::ensure;
use highwater_record::{BatchBuilder, Codec, NewRecord, TimestampMs};
use serde_json::Value;

use super::session::Session;
use crate::faults::client::Connection;
use crate::faults::random::Random;
use crate::faults::reader::{LIMITS, read_batches};

const BATCHES: usize = 20;
const RECORDS_PER_BATCH: usize = 25;

/// What a copy must keep of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Kept {
    timestamp: TimestampMs,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Nothing, no bytes, text with what JSON and shells trip over, or random bytes.
fn field(random: &mut Random) -> Option<Vec<u8>> {
    const TEXTS: &[&str] =
        &["", "a", "\"\\\n\t\r\u{0}\u{1b}[2J", "{\"utf8\":\"x\"}", "\u{2028}\u{fffd}\u{1f980}"];
    match random.below(4) {
        0 => None,
        1 => Some(random.choose(TEXTS).as_bytes().to_vec()),
        _ => Some((0..random.below(200)).map(|_| random.byte()).collect()),
    }
}

fn record(random: &mut Random) -> Kept {
    let header = |random: &mut Random| (field(random).unwrap_or_default(), field(random));
    Kept {
        timestamp: TimestampMs(1_700_000_000_000 + i64::try_from(random.below(100_000)).unwrap_or(0)),
        key: field(random),
        value: field(random),
        headers: (0..random.below(4)).map(|_| header(random)).collect(),
    }
}

fn write(session: &Session, topic: &str, records: &[Kept]) -> anyhow::Result<()> {
    let mut connection = Connection::open(session.broker.address())?;
    connection.create_topic(topic, 1, &[])?;
    for records in records.chunks(RECORDS_PER_BATCH) {
        let mut batch = BatchBuilder::new(Codec::None);
        for record in records {
            let headers: Vec<_> =
                record.headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
            batch.append(&NewRecord {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })?;
        }
        let answer = connection.produce(topic, 0, batch.build()?)?;
        ensure!(answer.error_code == 0, "the batch was refused: {answer:?}");
    }
    Ok(())
}

/// What the broker has, read without the tools.
fn read(broker: SocketAddr, topic: &str) -> anyhow::Result<Vec<Kept>> {
    let mut all = Vec::new();
    for batch in read_batches(broker, topic, 0)? {
        for record in batch.decompress(LIMITS)?.records() {
            let record = record?;
            let owned = |bytes: &[u8]| bytes.to_vec();
            all.push(Kept {
                timestamp: record.timestamp,
                key: record.key.map(owned),
                value: record.value.map(owned),
                headers: record.headers.map(|(key, value)| (owned(key), value.map(owned))).collect(),
            });
        }
    }
    Ok(all)
}

/// The lines of `consume --output jsonl` without what tells the topics apart.
fn lines(session: &Session, topic: &str) -> anyhow::Result<Vec<Value>> {
    let ran = session.succeeds(&format!("highwater consume {topic} -e --output jsonl"))?;
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line)?;
        for field in ["topic", "offset", "ts"] {
            let removed = line.as_object_mut().and_then(|line| line.remove(field));
            ensure!(removed.is_some(), "{line} has no {field}");
        }
        Ok(line)
    };
    ran.text()?.lines().map(line).collect()
}

#[test]
fn a_copied_topic_has_the_same_keys_values_headers_and_times() -> anyhow::Result<()> {
    let session = Session::start()?;
    let mut random = Random::new(2);
    let written: Vec<Kept> = (0..BATCHES * RECORDS_PER_BATCH).map(|_| record(&mut random)).collect();
    write(&session, "source", &written)?;

    session.succeeds(
        "highwater consume source -e --output jsonl | highwater produce copy --input jsonl -z zstd",
    )?;

    let (source, copy) = (lines(&session, "source")?, lines(&session, "copy")?);
    assert_eq!(source.len(), written.len());
    assert!(source == copy, "the lines of the copy differ");
    let copied = read(session.broker.address(), "copy")?;
    for (index, (written, copied)) in written.iter().zip(&copied).enumerate() {
        assert_eq!(written, copied, "record {index}");
    }
    assert_eq!(copied.len(), written.len());
    Ok(())
}

#[test]
fn segments_print_the_json_that_consumers_print() -> anyhow::Result<()> {
    let session = Session::start()?;
    let mut random = Random::new(3);
    let written: Vec<Kept> = (0..100).map(|_| record(&mut random)).collect();
    write(&session, "source", &written)?;

    let consumed = session.succeeds("highwater consume source -e --output jsonl")?;

    assert_eq!(consumed.text()?.lines().count(), written.len());
    session.prints("highwater segment cat data/source-0 --output jsonl", consumed.text()?)
}
