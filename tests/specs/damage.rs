//! Damage to files is contained: consumers are told at exactly the offsets that are lost, everything else is served, and
//! damaged metadata makes the broker read-only, which changes no file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use highwater_protocol::api::create_topics::{CreatableTopic, CreateTopicsRequest};
use highwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use highwater_record::HEADER_BYTES;
use tempfile::TempDir;

use crate::faults::batches::plain_batch;
use crate::faults::client::{Connection, name_of};
use crate::faults::group_calls::{Group, OUTSIDER};
use crate::faults::reader::{read_batches, split};
use crate::harness::broker::{Broker, Options};
use crate::harness::metrics::{get, metric};
use crate::harness::wait;

const TOPIC: &str = "kept";
/// A batch of one record; five of them fill a segment of 1 MiB.
const VALUE_BYTES: usize = 200_000;
/// Records per partition.
const RECORDS: i64 = 12;
/// Offsets per segment.
const PER_SEGMENT: i64 = 5;

struct Served {
    _directory: TempDir,
    broker: Broker,
}

impl Served {
    /// A broker with a topic of two partitions of several segments each, stopped.
    fn stopped() -> anyhow::Result<Self> {
        let directory = TempDir::new()?;
        let mut broker = Broker::start(Options::new(&directory.path().join("data")))?;
        let mut connection = Connection::open(broker.address())?;
        connection.create_topic(TOPIC, 2, &[("segment.bytes", "1048576")])?;
        for partition in 0..2 {
            for counter in 0..RECORDS {
                let answer =
                    connection.produce(TOPIC, partition, plain_batch(counter as u32, VALUE_BYTES))?;
                ensure!(answer.error_code == 0, "{}", name_of(answer.error_code));
            }
        }
        broker.terminate()?;
        Ok(Self { _directory: directory, broker })
    }

    fn connect(&self) -> anyhow::Result<Connection> {
        Ok(Connection::open(self.broker.address())?)
    }

    /// The segment of the first partition that begins at an offset.
    fn segment(&self, base: i64) -> PathBuf {
        self.broker.data().join(format!("{TOPIC}-0/{base:020}.log"))
    }

    /// What a fetch from an offset of the first partition gives: the error, and the offsets of the batches.
    fn fetch(&self, offset: i64) -> anyhow::Result<(&'static str, Vec<i64>)> {
        let data = self.connect()?.fetch(TOPIC, 0, offset)?;
        let batches = split(data.records.bytes().cloned().unwrap_or_default())?;
        let offsets = batches.iter().map(|batch| batch.header().base_offset.get()).collect();
        Ok((name_of(data.error_code), offsets))
    }

    fn earliest(&self) -> anyhow::Result<i64> {
        let partition = ListOffsetsPartition { timestamp: -2, ..ListOffsetsPartition::default() };
        let topic = ListOffsetsTopic { name: TOPIC.into(), partitions: vec![partition] };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        let response = self.connect()?.call(7, &request)?;
        let found = response.topics.first().and_then(|topic| topic.partitions.first());
        Ok(found.context("the answer names the partition")?.offset)
    }

    /// Every offset of the first partition from `from` on that can be read, and those that are refused.
    fn walk(&self, from: i64) -> anyhow::Result<(Vec<i64>, Vec<i64>)> {
        let (mut read, mut refused, mut at) = (Vec::new(), Vec::new(), from);
        while at < RECORDS {
            match self.fetch(at)? {
                ("NONE", offsets) => {
                    ensure!(offsets.first() == Some(&at), "a fetch from {at} gives {offsets:?}");
                    at += offsets.len() as i64;
                    read.extend(offsets);
                }
                ("CORRUPT_MESSAGE", _) => {
                    refused.push(at);
                    at += 1;
                }
                (other, _) => anyhow::bail!("a fetch from {at} is answered {other}"),
            }
        }
        Ok((read, refused))
    }

    fn produce(&self) -> anyhow::Result<(&'static str, i64)> {
        let answer = self.connect()?.produce(TOPIC, 0, plain_batch(99, 10))?;
        Ok((name_of(answer.error_code), answer.base_offset))
    }
}

fn flip(path: &Path, at: usize) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path)?;
    bytes[at] ^= 4;
    Ok(std::fs::write(path, bytes)?)
}

/// The bytes of all files below a directory but its lock.
fn files(directory: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.file_name().is_some_and(|name| name != "LOCK") {
            found.insert(path.clone(), std::fs::read(&path)?);
        }
    }
    Ok(found)
}

#[test]
fn a_flipped_bit_costs_its_batch_and_consumers_are_told_at_exactly_its_offset() -> anyhow::Result<()> {
    let mut served = Served::stopped()?;
    let segment = served.segment(PER_SEGMENT);
    // In the records of the second batch of the second segment.
    flip(&segment, std::fs::metadata(&segment)?.len() as usize / 5 + HEADER_BYTES + 100)?;
    let damaged = std::fs::read(&segment)?;

    served.broker.restart()?;

    let lost = PER_SEGMENT + 1;
    assert_eq!(served.walk(0)?, ((0..RECORDS).filter(|at| *at != lost).collect(), vec![lost]));
    assert_eq!(read_batches(served.broker.address(), TOPIC, 1)?.len() as i64, RECORDS);
    assert_eq!(served.produce()?, ("NONE", RECORDS));
    assert_eq!(metric(served.broker.address(), "highwater_quarantined_ranges")?, 1);
    assert_eq!(metric(served.broker.address(), "highwater_quarantined_offsets")?, 1);
    let log = served.broker.log();
    assert!(log.contains(&format!("offsets {lost} to {lost} are lost and quarantined")), "{log}");
    assert!(log.contains("00000000000000000005.log") && log.contains("highwater group seek"), "{log}");

    served.broker.terminate()?;
    served.broker.restart()?;

    // It is remembered, and found again before anybody asks.
    wait::until("the lost range to be found again", || {
        Ok(metric(served.broker.address(), "highwater_quarantined_ranges")? == 1)
    })?;
    assert_eq!(served.fetch(lost)?, ("CORRUPT_MESSAGE", Vec::new()));
    assert_eq!(std::fs::read(&segment)?, damaged);

    served.broker.terminate()?;
    flip(&segment, damaged.len() / 5 + HEADER_BYTES + 100)?;
    served.broker.restart()?;

    // With the record that was produced meanwhile.
    assert_eq!(served.walk(0)?, ((0..=RECORDS).collect(), Vec::new()));
    wait::until("the repair to be noticed", || {
        Ok(served.broker.log().contains("offsets that were lost are so no longer"))
    })?;
    assert_eq!(metric(served.broker.address(), "highwater_quarantined_ranges")?, 0);
    Ok(())
}

#[test]
fn a_missing_or_shortened_segment_costs_its_offsets_and_none_is_given_out_twice() -> anyhow::Result<()> {
    let mut served = Served::stopped()?;
    let last = 2 * PER_SEGMENT;
    std::fs::remove_file(served.segment(0))?;
    std::fs::OpenOptions::new().write(true).open(served.segment(last))?.set_len(VALUE_BYTES as u64 / 2)?;

    served.broker.restart()?;

    let (read, refused) = served.walk(0)?;
    assert_eq!(read, (PER_SEGMENT..last).collect::<Vec<_>>());
    assert_eq!(refused, (0..PER_SEGMENT).chain(last..RECORDS).collect::<Vec<_>>());
    assert_eq!(served.earliest()?, PER_SEGMENT, "the earliest offset is one that can be read");
    assert_eq!(served.produce()?, ("NONE", RECORDS));
    assert_eq!(
        metric(served.broker.address(), "highwater_quarantined_offsets")?,
        RECORDS as u64 - PER_SEGMENT as u64
    );

    // What is lost is known without the checkpoint, too.
    served.broker.terminate()?;
    std::fs::remove_file(served.broker.data().join("checkpoint"))?;
    served.broker.restart()?;

    let (read, refused) = served.walk(0)?;
    assert_eq!(read, (PER_SEGMENT..last).collect::<Vec<_>>());
    assert_eq!(refused, (0..PER_SEGMENT).chain(last..RECORDS).collect::<Vec<_>>());
    assert_eq!(served.produce()?, ("NONE", RECORDS + 1));
    Ok(())
}

/// What a read-only broker must do, whatever made it one.
fn is_read_only(served: &Served, names: &str) -> anyhow::Result<()> {
    assert_eq!(served.walk(0)?, ((0..RECORDS).collect(), Vec::new()));
    let answer = served.connect()?.produce(TOPIC, 0, plain_batch(99, 10))?;
    assert_eq!(name_of(answer.error_code), "KAFKA_STORAGE_ERROR");
    let message = answer.error_message.context("the refusal has a sentence")?;
    assert!(message.contains("read-only") && message.contains(names), "{message:?}");
    let topic = CreatableTopic {
        name: "new".into(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    let created = served.connect()?.call(7, &request)?.topics.pop().context("the answer names the topic")?;
    assert_eq!(name_of(created.error_code), "POLICY_VIOLATION");
    assert!(created.error_message.is_some_and(|message| message.contains("read-only")));
    let ready = get(served.broker.address(), "/readyz")?;
    assert!(ready.contains("\"read_only\":\"the metadata log"), "{ready}");
    assert_eq!(metric(served.broker.address(), "highwater_read_only")?, 1);
    assert!(served.broker.log().contains("The broker is read-only"), "{}", served.broker.log());
    Ok(())
}

#[test]
fn metadata_that_is_damaged_makes_the_broker_read_only_until_it_is_put_back() -> anyhow::Result<()> {
    let mut served = Served::stopped()?;
    let metadata = served.broker.data().join("__cluster_metadata-0/00000000000000000000.log");
    let good = std::fs::read(&metadata)?;
    flip(&metadata, HEADER_BYTES + 3)?;
    let before = files(served.broker.data())?;

    served.broker.restart()?;

    is_read_only(&served, "position 0")?;
    served.broker.terminate()?;
    assert!(files(served.broker.data())? == before, "a read-only broker has changed a file");

    std::fs::write(&metadata, good)?;
    served.broker.restart()?;

    assert_eq!(served.produce()?, ("NONE", RECORDS));
    Ok(())
}

#[test]
fn without_metadata_topics_are_read_as_their_directories_name_them() -> anyhow::Result<()> {
    let mut served = Served::stopped()?;
    std::fs::remove_dir_all(served.broker.data().join("__cluster_metadata-0"))?;
    let before = files(served.broker.data())?;

    served.broker.restart()?;

    is_read_only(&served, "missing")?;
    served.broker.terminate()?;
    assert!(files(served.broker.data())? == before, "a read-only broker has changed a file");
    Ok(())
}

#[test]
fn a_read_only_broker_changes_no_log_whose_end_nobody_remembers() -> anyhow::Result<()> {
    let mut served = Served::stopped()?;
    let segment = served.segment(PER_SEGMENT);
    std::fs::remove_dir_all(served.broker.data().join("__cluster_metadata-0"))?;
    std::fs::remove_file(served.broker.data().join("checkpoint"))?;
    // In the second batch of the second of three segments: an ordinary start cuts here, and moves the third one aside.
    flip(&segment, std::fs::metadata(&segment)?.len() as usize / 5 + HEADER_BYTES + 100)?;
    let before = files(served.broker.data())?;

    served.broker.restart()?;

    assert_eq!(served.fetch(PER_SEGMENT)?, ("NONE", vec![PER_SEGMENT]));
    assert_eq!(served.fetch(PER_SEGMENT + 1)?, ("NONE", Vec::new()), "it is served up to the damaged batch");
    assert_eq!(read_batches(served.broker.address(), TOPIC, 1)?.len() as i64, RECORDS);
    let log = served.broker.log();
    assert!(log.contains("what follows it stays in its files and is not served"), "{log}");
    served.broker.terminate()?;
    assert!(files(served.broker.data())? == before, "a read-only broker has changed a file");
    Ok(())
}

#[test]
fn without_metadata_a_directory_makes_no_more_partitions_than_a_broker_has() -> anyhow::Result<()> {
    let mut served = Served::stopped()?;
    std::fs::remove_dir_all(served.broker.data().join("__cluster_metadata-0"))?;
    let stray = served.broker.data().join("stray-2147483647");
    std::fs::create_dir(&stray)?;
    std::fs::write(stray.join("partition.metadata"), "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n")?;

    served.broker.restart()?;

    assert_eq!(served.walk(0)?, ((0..RECORDS).collect(), Vec::new()));
    let log = served.broker.log();
    assert!(log.contains("stray-2147483647 says that the topic has 2147483648 partitions"), "{log}");
    assert!(log.contains("partitions.max"), "{log}");
    Ok(())
}

/// Cuts the metadata log of a broker that was stopped cleanly, whose second start created a topic. `bytes_left` is told
/// how long it was after the first start and is now. That must make the broker read-only, and change no file.
fn cut_metadata(bytes_left: impl FnOnce(u64, u64) -> u64) -> anyhow::Result<()> {
    let mut served = Served::stopped()?;
    let metadata = served.broker.data().join("__cluster_metadata-0/00000000000000000000.log");
    let first_start = std::fs::metadata(&metadata)?.len();
    served.broker.restart()?;
    served.connect()?.create_topic("acknowledged", 1, &[])?;
    served.broker.terminate()?;
    let file = std::fs::OpenOptions::new().write(true).open(&metadata)?;
    file.set_len(bytes_left(first_start, file.metadata()?.len()))?;
    let before = files(served.broker.data())?;

    served.broker.restart()?;

    is_read_only(&served, "lost its end")?;
    served.broker.terminate()?;
    assert!(files(served.broker.data())? == before, "a read-only broker has changed a file");
    Ok(())
}

#[test]
fn metadata_that_lost_its_end_is_not_built_on() -> anyhow::Result<()> {
    cut_metadata(|first_start, _| first_start)
}

#[test]
fn metadata_that_was_cut_in_its_last_transaction_is_not_taken_for_a_torn_tail() -> anyhow::Result<()> {
    cut_metadata(|_, now| now - 30)
}

/// The group's partition: Java's "group".hashCode() is 98629247, modulo 50.
const GROUP_SEGMENT: &str = "__consumer_offsets-47/00000000000000000000.log";

fn group() -> Group {
    Group { name: "group".into(), topic: TOPIC.into(), partitions: 2 }
}

fn commit(connection: &mut Connection, partition: i32, offset: i64) -> anyhow::Result<()> {
    let answers = group().commit(connection, OUTSIDER, &[(partition, offset)])?;
    ensure!(answers == BTreeMap::from([(partition, 0)]), "a commit is answered {answers:?}");
    Ok(())
}

/// What each of the two partitions has committed, or the error.
fn committed(connection: &mut Connection) -> anyhow::Result<[Result<Option<i64>, &'static str>; 2]> {
    let mut ask = |partition| -> anyhow::Result<_> {
        let answer = group().committed(connection, &[partition])?;
        Ok(answer.map(|offsets| offsets[&partition]).map_err(name_of))
    };
    Ok([ask(0)?, ask(1)?])
}

#[test]
fn a_commit_that_is_lost_is_never_answered_as_one_that_never_was() -> anyhow::Result<()> {
    let mut served = Served::stopped()?;
    served.broker.restart()?;
    let mut connection = served.connect()?;
    commit(&mut connection, 0, 3)?;
    commit(&mut connection, 1, 5)?;
    assert_eq!(committed(&mut connection)?, [Ok(Some(3)), Ok(Some(5))]);
    served.broker.terminate()?;
    let segment = served.broker.data().join(GROUP_SEGMENT);
    flip(&segment, HEADER_BYTES + 5)?;

    served.broker.restart()?;

    let mut connection = served.connect()?;
    assert_eq!(committed(&mut connection)?, [Err("CORRUPT_MESSAGE"), Ok(Some(5))]);
    assert!(served.broker.log().contains("loaded from a log of __consumer_offsets that has lost records"));

    commit(&mut connection, 0, 4)?;
    assert_eq!(committed(&mut connection)?, [Ok(Some(4)), Ok(Some(5))]);
    Ok(())
}
