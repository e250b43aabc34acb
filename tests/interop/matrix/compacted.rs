//! A client reads a compacted topic to its end, past batches that hold no record.
//!
//! Offsets of such a topic have holes, and what is gone may leave a batch without records behind: at the end of a
//! segment, and wherever a producer is known by it. So an answer may begin with empty batches, end with them, or hold
//! nothing else, and the first record may lie far above the offset that was asked for. Kafka's answers are like that
//! too. The client reads once with its defaults and once asking for so little that whole answers are empty batches.

use std::time::SystemTime;

use anyhow::{Context, ensure};
use bytes::Bytes;
use highwater_protocol::api::IncrementalAlterConfigsRequest;
use highwater_protocol::api::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use highwater_protocol::api::produce::ProduceResponse;
use highwater_record::{BatchBuilder, BatchHeader, Codec, NewRecord, Producer, TimestampMs};

use super::records::{self, Base64, Line};
use super::{Cell, Subject};
use crate::faults::client::{Connection, PRODUCE_VERSION, answers_of, produce_request, producer_at};
use crate::harness::wait;

/// The smallest segments that there are, and values of which so many batches of one record fill one.
const SEGMENT_BYTES: &str = "1048576";
const SEGMENT_BATCHES: usize = 64;
const VALUE_BYTES: usize = 16_100;

/// What becomes of the sealed segments.
const SEGMENTS: [Fate; 5] = [Fate::Thinned, Fate::Gone, Fate::Remembered, Fate::Thinned, Fate::Gone];

/// Records in the active segment.
const ACTIVE: usize = 4;

/// Keys that are written over and over again.
const COMMON_KEYS: usize = 3;

/// Of a thinned segment one record in so many stays, none at its beginning or its end.
const STAYS_EVERY: usize = 16;

/// Bytes that a client asks for: room for some empty batches, which have 61, and for no record.
const LITTLE: &str = "fetch_bytes=1024";

/// The resource type of topics, and the change that sets a value.
const TOPIC: i8 = 2;
const SET: i8 = 0;

/// What compaction makes of a segment.
#[derive(Clone, Copy)]
enum Fate {
    /// Runs of batches go, and records between them stay.
    Thinned,
    /// Everything goes.
    Gone,
    /// Every record goes, but each batch is what a producer is known by.
    Remembered,
}

/// A topic that the broker compacts in its own time.
pub(super) struct Waiting {
    topic: String,
    /// What will be left.
    left: Vec<Line>,
}

/// Fills a topic and lets it be compacted. All at once: what is compacted before the rest is there looks different.
pub(super) fn fill(subject: &Subject<'_>) -> anyhow::Result<Waiting> {
    let topic = subject.target.name("compacted");
    let settings = [("segment.bytes", SEGMENT_BYTES), ("min.cleanable.dirty.ratio", "0")];
    subject.target.create_topic_with(&topic, 1, &settings)?;
    let mut connection = Connection::open(subject.target.address())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let lines = lines(i64::try_from(now)?);
    let mut batches = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let producer = match SEGMENTS.get(place / SEGMENT_BATCHES) {
            Some(Fate::Remembered) => Some(producer_at(connection.init_producer()?, 0)),
            _ => None,
        };
        batches.push(batch(line, producer)?);
    }
    send(&mut connection, &topic, &batches)?;
    compact(&mut connection, &topic)?;
    Ok(Waiting { topic, left: left(lines) })
}

/// Waits until the topic is compacted and reads what is left of it.
pub(super) fn compacted(subject: &Subject<'_>, waiting: &Waiting) -> anyhow::Result<Cell> {
    let Waiting { topic, left } = waiting;
    // While files are replaced, what they hold cannot be told.
    let count = || subject.target.stored(topic, 1).map_or(usize::MAX, |stored| stored.len());
    wait::until("the topic to be compacted", || Ok(count() == left.len()))?;
    records::check_same(left, &subject.target.stored(topic, 1)?).context("what is left is not the latest")?;
    if let Some(segments) = subject.target.segments(topic)? {
        check_shape(&segments)?;
    }

    let ways = [("with its defaults", None), ("1 KiB at a time", Some(LITTLE))];
    for (way, limit) in ways {
        let arguments: Vec<_> = ["from=beginning"].into_iter().chain(limit).collect();
        match subject.consume_with(topic, 1, &arguments)? {
            Err(reason) => return Ok(Cell::Unsupported(vec![format!("{way}: {reason}")])),
            Ok(read) => records::check_same(left, &read).with_context(|| format!("what is read {way}"))?,
        }
    }
    Ok(Cell::Done)
}

/// The records in their order.
fn lines(now_ms: i64) -> Vec<Line> {
    let line = |place: usize| {
        let stays = matches!(SEGMENTS.get(place / SEGMENT_BATCHES), Some(Fate::Thinned))
            && place % STAYS_EVERY == STAYS_EVERY / 2;
        let key = if stays { format!("only at {place}") } else { format!("key {}", place % COMMON_KEYS) };
        Line {
            partition: 0,
            offset: Some(place as i64),
            timestamp: Some(now_ms),
            key: Some(Base64(key.into())),
            value: Some(Base64(format!("{place:0VALUE_BYTES$}").into())),
            headers: Vec::new(),
        }
    };
    (0..SEGMENTS.len() * SEGMENT_BATCHES + ACTIVE).map(line).collect()
}

/// The latest of each key in the sealed segments, and all that is in the active one.
fn left(mut lines: Vec<Line>) -> Vec<Line> {
    let active = lines.split_off(SEGMENTS.len() * SEGMENT_BATCHES);
    let is_latest = |place: usize| lines[place + 1..].iter().all(|later| later.key != lines[place].key);
    let sealed = (0..lines.len()).filter(|place| is_latest(*place)).map(|place| lines[place].clone());
    sealed.chain(active).collect()
}

/// Fails unless there is what clients are to be seen to pass: a segment that begins and ends with an empty batch, and
/// one of nothing else.
fn check_shape(segments: &[Vec<BatchHeader>]) -> anyhow::Result<()> {
    let is_empty = |batch: &BatchHeader| batch.record_count == 0;
    let ends = |batches: &&Vec<BatchHeader>| {
        batches.first().is_some_and(is_empty) && batches.last().is_some_and(is_empty)
    };
    ensure!(segments.iter().filter(ends).any(|batches| batches.iter().all(is_empty)), "no segment is empty");
    ensure!(
        segments.iter().filter(ends).any(|batches| !batches.iter().all(is_empty)),
        "no segment begins and ends with an empty batch around records"
    );
    Ok(())
}

fn batch(line: &Line, producer: Option<Producer>) -> anyhow::Result<Bytes> {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    builder.append(&NewRecord {
        timestamp: TimestampMs(line.timestamp.unwrap_or_default()),
        key: line.key.as_ref().map(|key| key.0.as_slice()),
        value: line.value.as_ref().map(|value| value.0.as_slice()),
        headers: &[],
    })?;
    Ok(builder.build()?)
}

/// Appends the batches, one after another, without waiting for each.
fn send(connection: &mut Connection, topic: &str, batches: &[Bytes]) -> anyhow::Result<()> {
    for batch in batches {
        connection.send(PRODUCE_VERSION, &produce_request(topic, [(0, batch.clone())]))?;
    }
    for place in 0..batches.len() as i64 {
        let (_, response) = connection.receive::<ProduceResponse>(PRODUCE_VERSION)?;
        let answer = answers_of(response).into_iter().next().context("the answer names the partition")?;
        let found = (answer.error_code, answer.base_offset);
        ensure!(found == (0, place), "the batch that belongs at {place} is answered with {answer:?}");
    }
    Ok(())
}

/// Sets the topic's policy.
fn compact(connection: &mut Connection, topic: &str) -> anyhow::Result<()> {
    let policy = AlterableConfig {
        name: "cleanup.policy".into(),
        config_operation: SET,
        value: Some("compact".into()),
    };
    let resource =
        AlterConfigsResource { resource_type: TOPIC, resource_name: topic.into(), configs: vec![policy] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = connection.call(1, &request)?;
    let answer = response.responses.first().context("the answer names the topic")?;
    ensure!(answer.error_code == 0, "{topic} is not compacted: {answer:?}");
    Ok(())
}
