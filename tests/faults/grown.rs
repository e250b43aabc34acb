//! A data directory that has a file of every kind, made once by a broker and copied for each trial.
//!
//! Its partitions have several segments, three leader epochs and idempotent producers; one topic is compacted, one
//! partition has lost a batch, which the metadata remembers, and some groups have committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use highwater_protocol::api::produce::PartitionProduceResponse;
use highwater_record::{Codec, HEADER_BYTES, Producer, ProducerEpoch, ProducerId};
use tempfile::TempDir;

use crate::harness::broker::{Broker, Options};
use crate::harness::wait;

use super::batches::{Stamped, batch_of};
use super::client::{Connection, PRODUCE_VERSION, answers_of, name_of, produce_request, producer_at};
use super::group_calls::{Group, OUTSIDER};
use super::history::Stamp;
use super::layout::{self, Kind};

/// Topics and their partitions: one that is only appended to, one that is compacted, one that has lost a batch.
const TOPICS: [(&str, i32); 3] = [(WHOLE, 24), (THIN, 3), (HURT, 1)];
const WHOLE: &str = "whole";
const THIN: &str = "thin";
const HURT: &str = "hurt";
/// Batches per partition.
const ROUNDS: u32 = 14;
/// Before these of them the broker is started again.
const STARTS: [u32; 2] = [5, 9];
/// Records per batch.
const RECORDS: u32 = 3;
/// How far the timestamps of batches are apart, in milliseconds.
const ROUND_MS: u32 = 3_600_000;
/// Four batches fill a segment, by the time of their records; every batch is in the index.
const SETTINGS: [(&str, &str); 2] = [("segment.ms", "12600000"), ("index.interval.bytes", "1")];
const GROUPS: u32 = 6;

/// The directory, and what its clients know.
pub(crate) struct Grown {
    directory: TempDir,
    producer: (ProducerId, ProducerEpoch),
    groups: Vec<Group>,
}

impl Grown {
    /// Lets a broker make it.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("highwater-grown-")?;
        let data = directory.path().join("data");
        let mut broker = Broker::start(Options::new(&data))?;
        let mut connection = Connection::open(broker.address())?;
        let compact = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0")];
        for (topic, partitions) in TOPICS {
            let more = if topic == THIN { compact.as_slice() } else { &[] };
            connection.create_topic(topic, partitions, &[&SETTINGS, more].concat())?;
        }
        let groups = (0..GROUPS).map(|n| Group {
            name: format!("group-{n}").into(),
            topic: WHOLE.into(),
            partitions: 1,
        });
        let grown = Self { producer: connection.init_producer()?, groups: groups.collect(), directory };
        for round in 0..ROUNDS {
            if STARTS.contains(&round) {
                broker.terminate()?;
                broker.restart()?;
            }
            grown.append(&broker, round)?;
        }
        grown.commit(&broker)?;
        wait_for_sidecars(&data)?;
        broker.terminate()?;
        lose_a_batch(&mut broker)?;
        let files = layout::files(&data)?.into_iter().filter(|file| file.bytes > 0);
        let found: BTreeSet<Kind> = files.map(|file| file.kind).collect();
        ensure!(found == BTreeSet::from(Kind::ALL), "of some kinds there is no file, only of {found:?}");
        Ok(grown)
    }

    /// Copies it.
    pub(crate) fn copy_to(&self, data: &Path) -> anyhow::Result<()> {
        layout::copy(&self.path(), data)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Appends the batch of a round to every partition, by a producer that goes on with its sequences.
    pub(crate) fn append(&self, broker: &Broker, round: u32) -> anyhow::Result<()> {
        for (folder, answer) in self.send(broker, round)? {
            ensure!(answer.error_code == 0, "{folder}: {}", name_of(answer.error_code));
        }
        Ok(())
    }

    /// Sends the batch of a round to every partition; the answers by the names of their directories.
    pub(crate) fn send(
        &self,
        broker: &Broker,
        round: u32,
    ) -> anyhow::Result<Vec<(String, PartitionProduceResponse)>> {
        let mut connection = Connection::open(broker.address())?;
        let mut answers = Vec::new();
        for (topic, partitions) in TOPICS {
            let batches = (0..partitions).map(|partition| (partition, self.batch(round)));
            let response = connection.call(PRODUCE_VERSION, &produce_request(topic, batches))?;
            let named = answers_of(response).into_iter();
            answers.extend(named.map(|answer| (format!("{topic}-{}", answer.index), answer)));
        }
        Ok(answers)
    }

    /// The first round that nothing was appended in.
    pub(crate) const NEXT_ROUND: u32 = ROUNDS;

    /// The batch of a round, which is the same for all partitions.
    pub(crate) fn batch(&self, round: u32) -> Bytes {
        Self::batch_by(round, Some(producer_at(self.producer, (round * RECORDS) as i32)))
    }

    /// The batch of a round without a producer.
    pub(crate) fn plain_batch(round: u32) -> Bytes {
        Self::batch_by(round, None)
    }

    fn batch_by(round: u32, producer: Option<Producer>) -> Bytes {
        let records = (0..RECORDS).map(|n| Stamped {
            key: (round + n) % 5,
            stamp: Stamp { session: 0, counter: round * ROUND_MS + n },
            value_bytes: 100 + 60 * n as usize,
        });
        let codec = [Codec::None, Codec::Lz4, Codec::Zstd][round as usize % 3];
        batch_of(codec, producer, &records.collect::<Vec<_>>())
    }

    fn commit(&self, broker: &Broker) -> anyhow::Result<()> {
        let mut connection = Connection::open(broker.address())?;
        for (group, offset) in self.commits() {
            let answer = group.commit(&mut connection, OUTSIDER, &[(0, offset)])?;
            ensure!(answer == BTreeMap::from([(0, 0)]), "a commit is answered {answer:?}");
        }
        Ok(())
    }

    /// What each group has committed for its only partition.
    pub(crate) fn commits(&self) -> impl Iterator<Item = (&Group, i64)> {
        self.groups.iter().zip(1..)
    }
}

/// Waits until the background has made what it makes of sealed segments.
fn wait_for_sidecars(data: &Path) -> anyhow::Result<()> {
    let expected = TOPICS.iter().flat_map(|&(topic, partitions)| {
        let names = if topic == THIN { ["manifest", "compacted"].as_slice() } else { &["manifest"] };
        (0..partitions).flat_map(move |n| names.iter().map(move |name| format!("{topic}-{n}/{name}")))
    });
    let expected: Vec<PathBuf> = expected.map(|path| data.join(path)).collect();
    wait::until("manifests and compacted logs", || Ok(expected.iter().all(|path| path.exists())))
}

/// Damages a batch of a stopped broker's sealed segment, and has it found and remembered.
fn lose_a_batch(broker: &mut Broker) -> anyhow::Result<()> {
    let laid = layout::batches(broker.data())?.remove(&format!("{HURT}-0")).context("there is a log")?;
    let hurt = laid.get(1).context("there is a second batch")?;
    let mut bytes = fs::read(&hurt.file)?;
    let at = hurt.position as usize + HEADER_BYTES;
    // Two bytes, so that no flip of a bit repairs it.
    bytes[at] ^= 1;
    bytes[at + 1] ^= 1;
    fs::write(&hurt.file, bytes)?;
    broker.restart()?;
    let metadata = || -> anyhow::Result<u64> {
        let files = layout::files(broker.data())?.into_iter().filter(|file| file.kind == Kind::Metadata);
        Ok(files.map(|file| file.bytes).sum())
    };
    let before = metadata()?;
    let lost = hurt.header.base_offset.get();
    let answer = Connection::open(broker.address())?.fetch(HURT, 0, lost)?;
    ensure!(name_of(answer.error_code) == "CORRUPT_MESSAGE", "offset {lost}: {}", name_of(answer.error_code));
    wait::until("the lost range to be remembered", || Ok(metadata()? > before))?;
    broker.terminate()?;
    Ok(())
}
