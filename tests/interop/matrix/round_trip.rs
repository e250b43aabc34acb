//! Records of every kind go in through a client in each codec, lie in our files as they were sent, and come out of
//! the same client as they lie there.

use anyhow::{Context, ensure};
use highwater_record::Codec;
use serde_json::Value;

use super::records::{self, Kind, Line};
use super::{Cell, Subject};
use crate::harness::drivers::Answer;

/// Partitions of the topics.
pub(super) const PARTITIONS: usize = 3;

/// What a client can send and read, and of each kind that it cannot, why.
pub(super) struct Abilities {
    /// What it can.
    pub(super) kinds: Vec<Kind>,
    /// What it cannot.
    pub(super) reasons: Vec<(Kind, String)>,
    /// A topic that holds what it can, uncompressed.
    pub(super) topic: String,
}

/// Sends everything uncompressed, and finds out which kinds of records the library knows if it does not know all.
pub(super) fn uncompressed(subject: &Subject<'_>) -> anyhow::Result<(Abilities, anyhow::Result<Cell>)> {
    let topic = subject.topic("none", PARTITIONS)?;
    let cell = round_trip(subject, &topic, Codec::None, &Kind::ALL);
    let mut found = Abilities { kinds: Kind::ALL.to_vec(), reasons: Vec::new(), topic };
    if !matches!(cell, Ok(Cell::Unsupported(_))) {
        return Ok((found, cell));
    }
    for (place, kind) in Kind::ALL.into_iter().enumerate() {
        if let Some(reason) = refusal(subject, &format!("kind-{place}"), kind)? {
            found.kinds.retain(|other| *other != kind);
            found.reasons.push((kind, reason));
        }
    }
    ensure!(!found.reasons.is_empty(), "the library cannot do all kinds at once, but each alone");
    found.topic = subject.topic("none-of-some", PARTITIONS)?;
    let cell = round_trip(subject, &found.topic, Codec::None, &found.kinds);
    Ok((found, cell))
}

/// Why the library cannot send and read one kind, if it cannot.
fn refusal(subject: &Subject<'_>, name: &str, kind: Kind) -> anyhow::Result<Option<String>> {
    let topic = subject.topic(name, PARTITIONS)?;
    let sent = records::assorted(PARTITIONS, &[kind])?;
    match subject.produce(&topic, Codec::None, &sent)? {
        Answer::Unsupported(reason) => return Ok(Some(reason)),
        Answer::Done(_) => {}
    }
    match subject.consume(&topic, PARTITIONS, "beginning")? {
        Ok(_) => Ok(None),
        Err(reason) => Ok(Some(reason)),
    }
}

/// Sends these kinds to a new topic in `codec` and reads them back.
pub(super) fn in_codec(subject: &Subject<'_>, codec: Codec, kinds: &[Kind]) -> anyhow::Result<Cell> {
    let topic = subject.topic(&codec.to_string(), PARTITIONS)?;
    round_trip(subject, &topic, codec, kinds)
}

fn round_trip(subject: &Subject<'_>, topic: &str, codec: Codec, kinds: &[Kind]) -> anyhow::Result<Cell> {
    let sent = records::assorted(PARTITIONS, kinds)?;
    let acks = match subject.produce(topic, codec, &sent)? {
        Answer::Done(acks) => acks,
        Answer::Unsupported(reason) => return Ok(Cell::Unsupported(vec![reason])),
    };

    check_acks(&sent, &acks)?;
    let stored = subject.target.stored(topic, PARTITIONS)?;
    records::check_stored(&sent, &stored)?;
    subject.target.check_codec(topic, PARTITIONS, codec)?;
    let read = match subject.consume(topic, PARTITIONS, "beginning")? {
        Ok(read) => read,
        Err(reason) => return Ok(Cell::Unsupported(vec![reason])),
    };
    records::check_same(&stored, &read).context("what is read is not what is stored")?;
    Ok(Cell::Done)
}

/// The acknowledgements name the places that the records have.
fn check_acks(sent: &[Line], acks: &[Value]) -> anyhow::Result<()> {
    ensure!(acks.len() == sent.len(), "{} of {} records are acknowledged", acks.len(), sent.len());
    let mut next = [0; PARTITIONS];
    for (line, ack) in sent.iter().zip(acks) {
        let expected = (Some(line.partition as u64), Some(next[line.partition]));
        let found = (ack["partition"].as_u64(), ack["offset"].as_u64());
        ensure!(found == expected, "{ack} acknowledges a record that lies at {expected:?}");
        next[line.partition] += 1;
    }
    Ok(())
}
