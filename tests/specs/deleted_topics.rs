//! A deleted topic stays deleted while consumers still ask for it, and one that is created again starts clean.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic};
use highwater_protocol::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponseTopic};
use highwater_protocol::api::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use highwater_protocol::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use highwater_protocol::wire::{Records, Str, Uuid};
use highwater_record::Codec;

use crate::faults::batches::{Stamped, batch_of, plain_batch};
use crate::faults::client::{Connection, answers_of, name_of, producer_at};
use crate::faults::history::Stamp;
use crate::harness::broker::binary;
use crate::harness::clients::{Client, Running};
use crate::harness::served::Served;
use crate::harness::skip::or_skip;
use crate::harness::wait;

const TOPIC: &str = "gone";

impl Served {
    /// Creates the topic; its id.
    fn create(&self) -> anyhow::Result<Uuid> {
        self.connect()?.create_topic(TOPIC, 1, &[])
    }

    fn delete(&self) -> anyhow::Result<()> {
        self.connect()?.delete_topic(TOPIC)
    }

    /// Asks for a topic as a producer or consumer with auto-creation does; the name of the error.
    fn ask_for(&self, topic: &str) -> anyhow::Result<&'static str> {
        let asked = MetadataRequestTopic { name: Some(topic.into()), ..MetadataRequestTopic::default() };
        let request = MetadataRequest {
            topics: Some(vec![asked]),
            allow_auto_topic_creation: true,
            ..MetadataRequest::default()
        };
        let response = self.connect()?.call(12, &request)?;
        Ok(name_of(response.topics.first().context("the answer names the topic")?.error_code))
    }

    /// All topics that there are.
    fn topics(&self) -> anyhow::Result<Vec<MetadataResponseTopic>> {
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        Ok(self.connect()?.call(12, &request)?.topics)
    }

    fn leader_epoch(&self) -> anyhow::Result<i32> {
        let topics = self.topics()?;
        let partition = topics.iter().flat_map(|topic| &topic.partitions).next();
        Ok(partition.context("there is a partition")?.leader_epoch)
    }

    /// How often the broker said that it refuses to bring the topic back. It does so once per deletion and start.
    fn refusals(&self) -> usize {
        self.broker.log().matches("a client asks for a topic that was deleted").count()
    }
}

#[test]
fn asking_for_a_deleted_topic_does_not_bring_it_back() -> anyhow::Result<()> {
    let served = Served::start(&[])?;
    assert_eq!(served.ask_for(TOPIC)?, "NONE", "auto-creation is on");

    served.delete()?;

    for _ in 0..20 {
        assert_eq!(served.ask_for(TOPIC)?, "UNKNOWN_TOPIC_OR_PARTITION");
    }
    assert_eq!(served.topics()?.len(), 0);
    assert_eq!(served.refusals(), 1, "it is said once:\n{}", served.broker.log());
    assert_eq!(served.ask_for("another")?, "NONE", "other topics are created as before");
    Ok(())
}

#[test]
fn creating_a_deleted_topic_works_at_once_and_ends_its_rest() -> anyhow::Result<()> {
    let served = Served::start(&[])?;
    let first = served.create()?;
    served.delete()?;
    assert_eq!(served.ask_for(TOPIC)?, "UNKNOWN_TOPIC_OR_PARTITION");

    let second = served.create()?;

    assert_ne!(first, second);
    assert_eq!(served.ask_for(TOPIC)?, "NONE");
    Ok(())
}

#[test]
fn a_deleted_topic_stays_deleted_over_kill_9() -> anyhow::Result<()> {
    let mut served = Served::start(&[])?;
    served.create()?;
    served.delete()?;

    served.kill()?;
    assert_eq!(served.ask_for(TOPIC)?, "UNKNOWN_TOPIC_OR_PARTITION");
    served.create()?;
    served.kill()?;

    assert_eq!(served.ask_for(TOPIC)?, "NONE");
    assert_eq!(served.topics()?.len(), 1);
    Ok(())
}

#[test]
fn a_consumer_that_nobody_stopped_does_not_bring_its_topic_back() -> anyhow::Result<()> {
    if or_skip(Client::Kcat.install())?.is_none() {
        return Ok(());
    }
    let mut served = Served::start(&[])?;
    served.create()?;
    let mut kcat = Client::Kcat.command().map_err(|why| anyhow::anyhow!("{why:?}"))?;
    // Its default is not to ask for creation; the Java client's is.
    kcat.args(["-C", "-u", "-b", &served.broker.bootstrap(), "-t", TOPIC, "-f", "%s\\n"]);
    kcat.args(["-X", "allow.auto.create.topics=true", "-X", "topic.metadata.refresh.interval.ms=100"]);
    let mut consumer = Running::spawn(kcat)?;
    served.connect()?.produce(TOPIC, 0, plain_batch(0, 10))?;
    consumer.line().context("kcat reads the topic")?;

    served.delete()?;

    wait::until("the consumer to ask for its topic", || Ok(served.refusals() == 1))?;
    assert_eq!(served.topics()?.len(), 0);
    drop(consumer);
    assert_eq!(served.topics()?.len(), 0);
    served.broker.terminate()?;
    let left = std::fs::read_dir(served.broker.data())?.collect::<Result<Vec<_>, _>>()?;
    let left: Vec<_> = left.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.starts_with(TOPIC)), "{left:?}");
    Ok(())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn the_tool_says_how_to_create_a_topic_that_was_deleted() -> anyhow::Result<()> {
    let served = Served::start(&[])?;
    served.create()?;
    served.delete()?;

    let mut command = Command::new(binary()?);
    command.args(["produce", TOPIC, "--bootstrap", &served.broker.bootstrap()]).stdin(Stdio::null());
    let output = command.output()?;

    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{errors}");
    assert!(errors.contains("create it with: highwater topic create gone"), "{errors}");
    Ok(())
}

#[test]
fn a_topic_that_is_created_again_starts_clean() -> anyhow::Result<()> {
    let served = Served::start(&[])?;
    served.create()?;
    let mut connection = served.connect()?;
    let producer = connection.init_producer()?;
    let batch = |sequence: i32| {
        let stamp = Stamp { session: 0, counter: sequence.unsigned_abs() };
        let record = Stamped { key: 0, stamp, value_bytes: 10 };
        batch_of(Codec::None, Some(producer_at(producer, sequence)), &[record])
    };
    for sequence in 0..3 {
        connection.produce(TOPIC, 0, batch(sequence))?;
    }
    served.delete()?;

    served.create()?;

    // The old log knows this batch and would name its offset; without producer state any sequence may come first.
    assert_eq!(connection.latest_offset(TOPIC, 0)?, Some(0));
    let answer = connection.produce(TOPIC, 0, batch(2))?;
    assert_eq!((name_of(answer.error_code), answer.base_offset), ("NONE", 0));
    assert_eq!(connection.latest_offset(TOPIC, 0)?, Some(1));
    Ok(())
}

#[test]
fn epochs_of_a_deleted_topic_are_unknown_to_the_next_one() -> anyhow::Result<()> {
    let mut served = Served::start(&[])?;
    served.create()?;
    served.connect()?.produce(TOPIC, 0, plain_batch(0, 10))?;
    let first = served.leader_epoch()?;
    assert_eq!(epoch_end(&mut served.connect()?, first)?, (first, 1));
    served.restart()?;
    served.delete()?;

    served.create()?;
    served.connect()?.produce(TOPIC, 0, plain_batch(0, 10))?;

    let second = served.leader_epoch()?;
    assert!(second > first, "{second} is not above {first}");
    assert_eq!(epoch_end(&mut served.connect()?, second)?, (second, 1));
    // Nothing was written in it: it ends where the log begins.
    assert_eq!(epoch_end(&mut served.connect()?, first)?, (first, 0));
    Ok(())
}

/// The largest epoch not above `asked`, and where it ends.
fn epoch_end(connection: &mut Connection, asked: i32) -> anyhow::Result<(i32, i64)> {
    let partition = OffsetForLeaderPartition { leader_epoch: asked, ..OffsetForLeaderPartition::default() };
    let topic = OffsetForLeaderTopic { topic: Str::from(TOPIC), partitions: vec![partition] };
    let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
    let response = connection.call(4, &request)?;
    let end = response.topics.iter().flat_map(|topic| &topic.partitions).next();
    let end = end.context("the answer names the partition")?;
    ensure!(end.error_code == 0, "{end:?}");
    Ok((end.leader_epoch, end.end_offset))
}

#[test]
fn the_id_of_a_deleted_topic_reads_and_writes_nothing_of_the_next_one() -> anyhow::Result<()> {
    let served = Served::start(&[])?;
    let old = served.create()?;
    served.delete()?;
    served.create()?;
    let mut connection = served.connect()?;

    let data = PartitionProduceData { index: 0, records: Records::Bytes(plain_batch(0, 10)) };
    let topic = TopicProduceData { topic_id: old, partition_data: vec![data], ..TopicProduceData::default() };
    let produce =
        ProduceRequest { acks: -1, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() };
    let answers = answers_of(connection.call(13, &produce)?);
    assert_eq!(answers.first().map(|answer| name_of(answer.error_code)), Some("UNKNOWN_TOPIC_ID"));

    let partition = FetchPartition { partition_max_bytes: 1000, ..FetchPartition::default() };
    let topic = FetchTopic { topic_id: old, partitions: vec![partition], ..FetchTopic::default() };
    let fetch = FetchRequest { max_bytes: 1000, topics: vec![topic], ..FetchRequest::default() };
    let response = connection.call(17, &fetch)?;
    let codes: Vec<_> =
        response.responses.iter().flat_map(|topic| &topic.partitions).map(|data| data.error_code).collect();
    assert_eq!(codes, [ErrorCode::UnknownTopicId.code()]);
    assert_eq!(connection.latest_offset(TOPIC, 0)?, Some(0));
    Ok(())
}
