//! The client matrix: every mainstream client library does what users do, and `README.md` beside this file says
//! what came of it.
//!
//! A cell is done, or names why the library cannot do it with any broker; anything else fails the row's test. One
//! test for each library, so that one alone can be run: `cargo test -p highwater-tests interop::matrix::java -- --include-ignored`.

mod admin;
mod compacted;
mod cooperative;
mod idempotence;
mod members;
mod positions;
mod records;
mod round_trip;
mod static_members;
mod table;
mod takeover;
pub(super) mod target;

use std::path::Path;

use anyhow::Context;
use highwater_record::Codec;

use crate::harness::drivers::{Answer, Driver};
use crate::harness::skip::or_skip;
use records::{Kind, Line};
use round_trip::Abilities;
use table::{Column, Row};
use target::Target;

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn java() -> anyhow::Result<()> {
    fill_row(Driver::Java)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn franz_go() -> anyhow::Result<()> {
    fill_row(Driver::FranzGo)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn sarama() -> anyhow::Result<()> {
    fill_row(Driver::Sarama)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn confluent_kafka() -> anyhow::Result<()> {
    fill_row(Driver::Confluent)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafka_python() -> anyhow::Result<()> {
    fill_row(Driver::KafkaPython)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn aiokafka() -> anyhow::Result<()> {
    fill_row(Driver::AioKafka)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafkajs() -> anyhow::Result<()> {
    fill_row(Driver::KafkaJs)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn platformatic_kafka() -> anyhow::Result<()> {
    fill_row(Driver::Platformatic)
}

#[test]
fn kcat() -> anyhow::Result<()> {
    fill_row(Driver::Kcat)
}

/// What came of a cell.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Cell {
    /// The client did it, and what it did was right.
    Done,
    /// The library cannot do it with any broker, for these reasons.
    Unsupported(Vec<String>),
}

/// What fills a cell of a client.
type Fill = fn(&Subject<'_>) -> anyhow::Result<Cell>;

/// A client and the broker that it talks to.
struct Subject<'a> {
    driver: Driver,
    target: Target,
    directory: &'a Path,
}

impl Subject<'_> {
    /// Creates a topic, under a name that nobody used before.
    fn topic(&self, what: &str, partitions: usize) -> anyhow::Result<String> {
        let name = self.target.name(what);
        self.target.create_topic(&name, partitions)?;
        Ok(name)
    }

    /// Sends the lines.
    fn produce(&self, topic: &str, codec: Codec, lines: &[Line]) -> anyhow::Result<Answer> {
        let file = self.directory.join(format!("{topic}.jsonl"));
        records::write(&file, lines)?;
        let arguments =
            [format!("topic={topic}"), format!("codec={codec}"), format!("file={}", file.display())];
        self.driver.run("produce", &self.target.bootstrap(), &arguments.each_ref().map(String::as_str))
    }

    /// Sends lines as every library can.
    fn must_produce(&self, topic: &str, lines: &[Line]) -> anyhow::Result<()> {
        match self.produce(topic, Codec::None, lines)? {
            Answer::Done(_) => Ok(()),
            Answer::Unsupported(reason) => anyhow::bail!("plain records are refused: {reason}"),
        }
    }

    /// Reads a topic to its end; the reason, if the library cannot.
    fn consume(
        &self,
        topic: &str,
        partitions: usize,
        from: &str,
    ) -> anyhow::Result<Result<Vec<Line>, String>> {
        self.consume_with(topic, partitions, &[&format!("from={from}")])
    }

    /// Reads a topic to its end with these arguments of the verb.
    fn consume_with(
        &self,
        topic: &str,
        partitions: usize,
        arguments: &[&str],
    ) -> anyhow::Result<Result<Vec<Line>, String>> {
        let (topic, partitions) = (format!("topic={topic}"), format!("partitions={partitions}"));
        let arguments = [&[topic.as_str(), partitions.as_str()], arguments].concat();
        match self.driver.run("consume", &self.target.bootstrap(), &arguments)? {
            Answer::Unsupported(reason) => Ok(Err(reason)),
            Answer::Done(lines) => {
                let parse = |line| serde_json::from_value(line).context("a line of the verb consume");
                lines.into_iter().map(parse).collect::<anyhow::Result<Vec<_>>>().map(Ok)
            }
        }
    }
}

/// Tries every cell of a library, compares the row with the committed one, and fails if a cell went wrong.
fn fill_row(driver: Driver) -> anyhow::Result<()> {
    if or_skip(driver.install())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let target = Target::start(directory.path())?;
    let mut subject = Subject { driver, target, directory: directory.path() };
    let mut row = Row::new(driver, &subject.target.bootstrap())?;

    std::thread::scope(|scope| {
        // Groups of several members are mostly waiting.
        let groups: [(Column, Fill); 3] = [
            (Column::Takeover, takeover::takeover),
            (Column::Cooperative, cooperative::cooperative),
            (Column::Static, static_members::static_members),
        ];
        let subject = &subject;
        let groups = groups.map(|(column, fill)| (column, scope.spawn(move || fill(subject))));
        fill_undisturbed(&mut row, subject)?;
        for (column, cell) in groups {
            let cell = cell.join().map_err(|_| anyhow::anyhow!("the test of {column} panicked"))?;
            row.fill(column, cell);
        }
        anyhow::Ok(())
    })?;
    if subject.target.is_ours() {
        row.fill(Column::Idempotence, idempotence::idempotence(&mut subject));
    }
    row.finish(subject.target.is_ours())
}

/// The cells of which nothing is killed.
fn fill_undisturbed(row: &mut Row, subject: &Subject<'_>) -> anyhow::Result<()> {
    // The broker compacts by itself, meanwhile.
    let compacted = compacted::fill(subject);
    let (abilities, uncompressed) = round_trip::uncompressed(subject)?;
    row.fill(Column::Codec(Codec::None), uncompressed);
    fill_kinds(row, &abilities);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        row.fill(Column::Codec(codec), round_trip::in_codec(subject, codec, &abilities.kinds));
    }
    row.fill(Column::Offset, positions::by_offset(subject, &abilities.topic));
    row.fill(Column::Time, positions::by_time(subject));
    row.fill(Column::Group, positions::by_group(subject));
    row.fill(Column::Admin, admin::admin(subject));
    row.fill(Column::Compacted, compacted.and_then(|waiting| compacted::compacted(subject, &waiting)));
    Ok(())
}

/// A kind is done if it goes through the round trips with the others.
fn fill_kinds(row: &mut Row, abilities: &Abilities) {
    let columns: [(Column, &[Kind]); 5] = [
        (Column::Timestamps, &[Kind::Timestamps]),
        (Column::Headers, &[Kind::Headers, Kind::RepeatedHeaders, Kind::NullHeader]),
        (Column::Tombstones, &[Kind::Tombstone]),
        (Column::Empty, &[Kind::EmptyKey, Kind::EmptyValue]),
        (Column::Large, &[Kind::Large]),
    ];
    for (column, kinds) in columns {
        let refused = abilities.reasons.iter().filter(|(kind, _)| kinds.contains(kind));
        let reasons: Vec<_> = refused.map(|(kind, reason)| format!("{}: {reason}", kind.words())).collect();
        row.fill(column, Ok(if reasons.is_empty() { Cell::Done } else { Cell::Unsupported(reasons) }));
    }
}
