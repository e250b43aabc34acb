//! Partitions that are added to a topic.

use anyhow::Context as _;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use highwater_protocol::api::metadata::{MetadataRequest, MetadataRequestTopic};
use highwater_protocol::wire::Uuid;

use super::{Admin, done, named};
use crate::faults::batches::plain_batch;
use crate::faults::client::Connection;
use crate::harness::metrics::metric;
use crate::harness::wait;

impl Admin {
    fn grow_with(
        &mut self,
        topic: CreatePartitionsTopic,
        validate_only: bool,
    ) -> anyhow::Result<(ErrorCode, String)> {
        let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only };
        let response = self.connection.call(3, &request)?;
        let answer = response.results.into_iter().next().context("the answer names the topic")?;
        Ok((named(answer.error_code), answer.error_message.map(String::from).unwrap_or_default()))
    }

    /// Gives the topic `t` that many partitions; the answer's code and sentence.
    fn grow(&mut self, count: i32) -> anyhow::Result<(ErrorCode, String)> {
        self.grow_with(topic("t", count, None), false)
    }

    /// The partitions that the metadata names, by number, each of which has a leader.
    fn partitions(&mut self, name: &str) -> anyhow::Result<Vec<i32>> {
        let topic = MetadataRequestTopic { name: Some(name.into()), ..MetadataRequestTopic::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() };
        let response = self.connection.call(12, &request)?;
        let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        Ok(partitions
            .map(|partition| {
                assert_eq!((partition.error_code, partition.leader_id), (0, 1));
                partition.partition_index
            })
            .collect())
    }
}

fn topic(name: &str, count: i32, brokers: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assign = |ids: &&[i32]| CreatePartitionsAssignment { broker_ids: ids.to_vec() };
    CreatePartitionsTopic {
        name: name.into(),
        count,
        assignments: brokers.map(|brokers| brokers.iter().map(assign).collect()),
    }
}

#[test]
fn new_partitions_serve_when_the_answer_comes_and_after_a_kill() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    assert_eq!(admin.connection.produce("t", 0, plain_batch(0, 100))?.error_code, 0);

    assert_eq!(admin.grow(3)?, done());

    assert_eq!(admin.partitions("t")?, [0, 1, 2]);
    assert_eq!(admin.connection.produce("t", 2, plain_batch(0, 100))?.error_code, 0);
    admin.served.kill()?;
    admin.reconnect()?;
    assert_eq!(admin.partitions("t")?, [0, 1, 2]);
    for partition in [0, 2] {
        assert_eq!(admin.connection.latest_offset("t", partition)?, Some(1), "{partition}");
    }
    assert_eq!(admin.connection.latest_offset("t", 1)?, Some(0));
    Ok(())
}

#[test]
fn new_partitions_have_the_settings_of_their_topic() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    admin.connection.create_topic("t", 1, &[("max.message.bytes", "500")])?;

    assert_eq!(admin.grow(2)?, done());

    assert_eq!(
        named(admin.connection.produce("t", 1, plain_batch(0, 1000))?.error_code),
        ErrorCode::MessageTooLarge
    );
    Ok(())
}

#[test]
fn a_fetch_that_is_parked_on_an_old_partition_goes_on() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    let id = admin.connection.create_topic("t", 1, &[])?;
    let mut poll = Connection::open(admin.served.address())?;
    poll.send(17, &fetch(id, 0, 600_000))?;
    let address = admin.served.address();
    wait::until("a parked fetch", || Ok(metric(address, "highwater_fetches_parked")? == 1))?;

    assert_eq!(admin.grow(2)?, done());
    assert_eq!(admin.connection.produce("t", 0, plain_batch(0, 100))?.error_code, 0);

    let (_, response) = poll.receive::<FetchResponse>(17)?;
    assert!(records_of(&response) > 100);
    // And the new one is found by the topic's id.
    assert_eq!(admin.connection.produce("t", 1, plain_batch(0, 100))?.error_code, 0);
    poll.send(17, &fetch(id, 1, 0))?;
    let (_, response) = poll.receive::<FetchResponse>(17)?;
    assert!(records_of(&response) > 100);
    Ok(())
}

fn fetch(topic_id: Uuid, partition: i32, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition { partition, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let topic = FetchTopic { topic_id, partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest {
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_wait_ms,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

fn records_of(response: &FetchResponse) -> usize {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.filter_map(|partition| partition.records.bytes()).map(|bytes| bytes.len()).sum()
}

#[test]
fn what_cannot_be_is_refused() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(2)?;
    let refused = [
        (topic("t", 2, None), ErrorCode::InvalidPartitions),
        (topic("t", 1, None), ErrorCode::InvalidPartitions),
        (topic("t", -1, None), ErrorCode::InvalidPartitions),
        (topic("t", i32::MAX, None), ErrorCode::PolicyViolation),
        (topic("t", 1_003, None), ErrorCode::PolicyViolation),
        (topic("t", 4, Some(&[&[1]])), ErrorCode::InvalidReplicaAssignment),
        (topic("t", 3, Some(&[&[2]])), ErrorCode::InvalidReplicaAssignment),
        (topic("t", 3, Some(&[&[1, 2]])), ErrorCode::InvalidReplicaAssignment),
        (topic("absent", 3, None), ErrorCode::UnknownTopicOrPartition),
        (topic("a/b", 3, None), ErrorCode::UnknownTopicOrPartition),
    ];
    for (topic, code) in refused {
        let (found, message) = admin.grow_with(topic.clone(), false)?;
        assert_eq!(found, code, "{topic:?}: {message}");
        assert!(!message.is_empty(), "{topic:?}");
    }
    assert_eq!(admin.partitions("t")?, [0, 1]);
    Ok(())
}

#[test]
fn a_request_adds_a_thousand_partitions_at_most_to_all_its_topics() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    admin.connection.create_topic("other", 1, &[])?;
    let mut grow = |counts: [i32; 2]| -> anyhow::Result<Vec<ErrorCode>> {
        let topics = vec![topic("t", counts[0], None), topic("other", counts[1], None)];
        let request = CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only: false };
        let response = admin.connection.call(3, &request)?;
        Ok(response.results.iter().map(|answer| named(answer.error_code)).collect())
    };

    assert_eq!(grow([502, 501])?, [ErrorCode::PolicyViolation; 2]);
    assert_eq!(grow([501, 501])?, [ErrorCode::None; 2]);

    assert_eq!(admin.partitions("t")?.len() + admin.partitions("other")?.len(), 1002);
    Ok(())
}

#[test]
fn a_topic_does_not_grow_beyond_what_all_topics_may_have() -> anyhow::Result<()> {
    // The only way to so many with one request: a topic that leaves its number to the broker.
    let mut admin = Admin::start(&["--partitions", "19999"])?;
    admin.connection.create_topic("t", -1, &[])?;

    let (code, message) = admin.grow(20_001)?;

    assert_eq!(code, ErrorCode::InvalidPartitions);
    assert!(message.contains("where 19999 of 20000 partitions exist"), "{message}");
    assert_eq!(admin.grow(20_000)?, done());
    Ok(())
}

#[test]
fn an_assignment_to_this_broker_is_taken() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;

    assert_eq!(admin.grow_with(topic("t", 3, Some(&[&[1], &[1]])), false)?, done());

    assert_eq!(admin.partitions("t")?, [0, 1, 2]);
    Ok(())
}

#[test]
fn growth_that_is_only_checked_adds_nothing() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;

    assert_eq!(admin.grow_with(topic("t", 3, None), true)?, done());
    assert_eq!(admin.grow_with(topic("t", 1, None), true)?.0, ErrorCode::InvalidPartitions);

    assert_eq!(admin.partitions("t")?, [0]);
    Ok(())
}

#[test]
fn a_topic_that_grew_is_deleted_with_all_its_partitions() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    admin.grow(2)?;
    assert_eq!(admin.connection.produce("t", 1, plain_batch(0, 100))?.error_code, 0);
    let data = admin.served.broker.data().to_owned();
    assert!(data.join("t-1").exists());

    admin.connection.delete_topic("t")?;

    assert!(!data.join("t-1").exists());
    Ok(())
}
