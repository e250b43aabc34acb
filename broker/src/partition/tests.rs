//! Dormant partitions: what is answered without opening their logs, what opens them, and what becomes of one that
//! does not open. On a real data directory, over restarts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use highwater_protocol::api::{
    DescribeLogDirsRequest, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, fetch,
    list_offsets,
};
use highwater_record::{Batch, BatchBuilder, Codec, NewRecord, Offset, TimestampMs, TopicName};
use tempfile::TempDir;

use super::*;
use crate::broker::Broker;
use crate::config::Config;
use crate::context::Context;
use crate::log_starts::{self, Move, Target};
use crate::topic_admin::{self, NewTopic};
use crate::{checkpointer, clock, handler, recovery, server};

const TOPIC: &str = "logs";

pub(super) async fn start(directory: &TempDir) -> Arc<Broker> {
    let config = Config::new(directory.path().join("data"));
    let started = tokio::task::spawn_blocking(move || {
        let broker = server::open(config).unwrap();
        recovery::recover(&broker);
        broker
    });
    started.await.unwrap()
}

pub(super) async fn stop(broker: Arc<Broker>) {
    broker.shutdown.stop();
    tokio::task::spawn_blocking(move || recovery::close(&broker)).await.unwrap().unwrap();
}

/// What is left in the process goes, what is in the page cache stays.
pub(super) async fn kill(broker: Arc<Broker>) {
    broker.shutdown.stop();
    tokio::task::spawn_blocking(move || {
        broker.scheduler.stop();
        assert_eq!(Arc::strong_count(&broker), 1, "somebody would keep the data directory");
    })
    .await
    .unwrap();
}

pub(super) fn topic_name() -> TopicName {
    TopicName::new(TOPIC).unwrap()
}

pub(super) fn partition(broker: &Broker, index: i32) -> Arc<Partition> {
    Arc::clone(broker.topics.by_name(&topic_name()).unwrap().partition(index).unwrap())
}

fn is_open(broker: &Broker, index: i32) -> bool {
    partition(broker, index).view_if_open().is_some()
}

/// A batch of one record with this time.
pub(super) fn batch(timestamp: i64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let record =
        NewRecord { timestamp: TimestampMs(timestamp), key: None, value: Some(b"value"), headers: &[] };
    builder.append(&record).unwrap();
    Batch::new(builder.build().unwrap()).unwrap()
}

/// A record with this time, appended and durable.
pub(super) async fn append(broker: &Arc<Broker>, index: i32, timestamp: i64) -> Result<Offset, Refused> {
    let batch = batch(timestamp);
    let shared = Arc::clone(broker);
    let appended = tokio::task::spawn_blocking(move || {
        partition(&shared, index).append(&batch, clock::now(), &shared.scheduler)
    });
    let accepted = appended.await.unwrap()?;
    accepted.ack.await.unwrap().unwrap();
    Ok(accepted.appended.base_offset)
}

/// A data directory whose topic has two partitions: the first with two records of the incarnation 0 and one of the
/// incarnation 1, the second with nothing. Stopped cleanly.
pub(super) async fn filled() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let broker = start(&directory).await;
    let new = NewTopic { name: topic_name(), partitions: Some(2), configs: Default::default() };
    topic_admin::create(&broker, new).await.unwrap();
    assert!(!is_open(&broker, 0), "a partition without a directory needs no log");
    append(&broker, 0, 100).await.unwrap();
    append(&broker, 0, 200).await.unwrap();
    stop(broker).await;
    let broker = start(&directory).await;
    append(&broker, 0, 300).await.unwrap();
    stop(broker).await;
    directory
}

fn context(broker: &Arc<Broker>, version: i16) -> Context<'_> {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
    Context { broker, local: here, peer: here, version, client_id: None, request_bytes: 0 }
}

/// Offset and epoch that ListOffsets answers.
async fn listed(broker: &Arc<Broker>, timestamp: i64) -> (i64, i32) {
    let asked =
        list_offsets::ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp };
    let topic = list_offsets::ListOffsetsTopic { name: TOPIC.into(), partitions: vec![asked] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let answer = handler::list_offsets::handle(&context(broker, 7), request).await;
    let answer = &answer.topics[0].partitions[0];
    assert_eq!(answer.error_code, 0);
    (answer.offset, answer.leader_epoch)
}

/// Where OffsetForLeaderEpoch says that an epoch ends.
async fn epoch_end(broker: &Arc<Broker>, leader_epoch: i32) -> (i32, i64) {
    let asked = OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch };
    let topic = OffsetForLeaderTopic { topic: TOPIC.into(), partitions: vec![asked] };
    let request = OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() };
    let answer = handler::offset_for_leader_epoch::handle(&context(broker, 4), request).await;
    let answer = &answer.topics[0].partitions[0];
    assert_eq!(answer.error_code, 0);
    (answer.leader_epoch, answer.end_offset)
}

/// Error, high watermark, log start and number of bytes that Fetch answers.
async fn fetched(broker: &Arc<Broker>, fetch_offset: i64) -> (i16, i64, i64, u32) {
    let asked = fetch::FetchPartition {
        partition: 0,
        fetch_offset,
        current_leader_epoch: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = fetch::FetchTopic { topic: TOPIC.into(), partitions: vec![asked], ..Default::default() };
    let request = FetchRequest {
        replica_id: -1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let (answer, ranges, _charge) = handler::fetch::handle(&context(broker, 11), request).await;
    let answer = &answer.responses[0].partitions[0];
    let bytes = ranges.iter().flatten().map(highwater_storage::FileRange::len).sum();
    (answer.error_code, answer.high_watermark, answer.log_start_offset, bytes)
}

async fn size_bytes(broker: &Arc<Broker>) -> i64 {
    let answer =
        handler::describe_log_dirs::handle(&context(broker, 4), DescribeLogDirsRequest::default()).await;
    answer.results[0].topics.iter().find(|topic| &*topic.name == TOPIC).unwrap().partitions[0].partition_size
}

async fn delete_before(broker: &Arc<Broker>, offset: i64) {
    let target = Target::At(Offset::new(offset).unwrap());
    let moved = log_starts::move_all(broker, vec![Move { topic: topic_name(), partition: 0, target }]).await;
    assert_eq!(*moved[0].as_ref().unwrap(), Offset::new(offset).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_checkpoint_knows_is_answered_without_opening_a_log() {
    let directory = filled().await;
    let broker = start(&directory).await;
    let kept = checkpointer::collect(&broker);

    assert_eq!(listed(&broker, -1).await, (3, 1));
    assert_eq!(listed(&broker, -2).await, (0, 0));
    assert_eq!(epoch_end(&broker, 2).await, (2, 3));
    assert_eq!(epoch_end(&broker, 1).await, (1, 3));
    assert_eq!(fetched(&broker, 3).await, (0, 3, 0, 0));
    assert_eq!(fetched(&broker, 4).await.0, ErrorCode::OffsetOutOfRange.code());
    let log = directory.path().join("data/logs-0/00000000000000000000.log");
    assert_eq!(size_bytes(&broker).await, std::fs::metadata(log).unwrap().len() as i64);
    assert_eq!(partition(&broker, 0).high_watermark().get(), 3);

    assert!(!is_open(&broker, 0) && !is_open(&broker, 1));
    // What is checkpointed of a dormant partition is what it was.
    assert_eq!(checkpointer::collect(&broker), kept);
    stop(broker).await;
    let broker = start(&directory).await;
    assert_eq!((listed(&broker, -1).await, is_open(&broker, 0)), ((3, 1), false));
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_use_opens_the_log_and_no_other() {
    let directory = filled().await;

    let broker = start(&directory).await;
    let (error, high_watermark, log_start, bytes) = fetched(&broker, 1).await;
    assert_eq!((error, high_watermark, log_start), (0, 3, 0));
    assert!(bytes > 0 && is_open(&broker, 0) && !is_open(&broker, 1));
    assert_eq!((listed(&broker, -1).await, listed(&broker, -2).await), ((3, 1), (0, 0)));
    stop(broker).await;

    let broker = start(&directory).await;
    assert_eq!(listed(&broker, 200).await, (1, 0));
    assert!(is_open(&broker, 0));
    stop(broker).await;

    let broker = start(&directory).await;
    assert_eq!(epoch_end(&broker, 0).await, (0, 2));
    assert!(is_open(&broker, 0));
    stop(broker).await;

    let broker = start(&directory).await;
    assert_eq!(append(&broker, 0, 400).await.unwrap().get(), 3);
    assert!(is_open(&broker, 0));
    stop(broker).await;

    let broker = start(&directory).await;
    delete_before(&broker, 2).await;
    assert!(is_open(&broker, 0));
    stop(broker).await;

    let broker = start(&directory).await;
    assert_eq!((listed(&broker, -2).await, listed(&broker, -1).await.0), ((2, 1), 4));
    assert!(!is_open(&broker, 0) && !is_open(&broker, 1));
    assert_eq!(append(&broker, 1, 500).await.unwrap().get(), 0);
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_uses_at_once_open_the_log_once() {
    let directory = filled().await;
    let broker = start(&directory).await;
    let partition = partition(&broker, 0);

    let opening: Vec<_> = (0..8)
        .map(|_| {
            let partition = Arc::clone(&partition);
            tokio::task::spawn_blocking(move || partition.open_view().map(Arc::clone))
        })
        .collect();
    let mut views = Vec::new();
    for opening in opening {
        views.push(opening.await.unwrap().unwrap());
    }

    assert!(views.iter().all(|view| Arc::ptr_eq(view, &views[0])));
    assert_eq!(views[0].end().offset.get(), 3);
    drop(partition);
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_only_what_was_appended_to_is_opened() {
    let directory = filled().await;
    let broker = start(&directory).await;
    append(&broker, 1, 100).await.unwrap();
    checkpointer::store(&broker, checkpointer::collect(&broker), None);
    append(&broker, 1, 200).await.unwrap();
    kill(broker).await;

    let broker = start(&directory).await;

    assert!(!is_open(&broker, 0) && is_open(&broker, 1));
    assert_eq!(partition(&broker, 1).high_watermark().get(), 2);
    let scanned = broker.recovery.scanned_bytes.load(Ordering::Relaxed);
    assert_eq!(scanned, broker.recovery.unsynced_bytes.load(Ordering::Relaxed));
    assert!(scanned > 0);
    assert_eq!(
        (append(&broker, 0, 400).await.unwrap().get(), append(&broker, 1, 300).await.unwrap().get()),
        (3, 2)
    );
    kill(broker).await;

    // Nothing was checkpointed since: both have grown.
    let broker = start(&directory).await;
    assert!(is_open(&broker, 0) && is_open(&broker, 1));
    assert_eq!((listed(&broker, -1).await.0, partition(&broker, 1).high_watermark().get()), (4, 3));
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_does_not_open_takes_its_partition_out_of_service() {
    let directory = filled().await;
    let log = directory.path().join("data/logs-0/00000000000000000000.log");
    let broker = start(&directory).await;
    let aside = log.with_extension("aside");
    std::fs::rename(&log, &aside).unwrap();
    std::fs::create_dir(&log).unwrap();

    assert!(matches!(append(&broker, 0, 400).await, Err(Refused::NotLeader)));

    assert_eq!(fetched(&broker, 0).await.0, ErrorCode::NotLeaderOrFollower.code());
    assert!(partition(&broker, 0).leader_epoch().is_err() && partition(&broker, 1).leader_epoch().is_ok());
    assert_eq!(broker.recovery.failed.load(Ordering::Relaxed), 1);
    stop(broker).await;
    assert!(log.is_dir() && aside.exists(), "its files are untouched");
    // The next start says so at once: what is known of the log is kept, and that it does not open.
    let broker = start(&directory).await;
    assert!(partition(&broker, 0).leader_epoch().is_err());
    assert_eq!(broker.recovery.failed.load(Ordering::Relaxed), 1);
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dormant_log_is_deleted_without_opening_it() {
    let directory = filled().await;
    let broker = start(&directory).await;
    let (topic, old) = (broker.topics.by_name(&topic_name()).unwrap(), partition(&broker, 0));

    topic_admin::delete(&broker, topic_name(), topic.id).await.unwrap();

    assert!(old.view_if_open().is_none() && old.open_view().is_err());
    assert!(!directory.path().join("data/logs-0").exists());
    drop((topic, old));
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_change_while_a_log_is_dormant_hold_when_it_opens() {
    let directory = filled().await;
    let broker = start(&directory).await;
    let partition = partition(&broker, 0);
    let topic = broker.topics.by_name(&topic_name()).unwrap();
    let mut settings = Settings::clone(&topic.settings);
    // One more record no longer fits into the segment.
    settings.log.segment_bytes = 250;
    partition.change_settings(Arc::new(settings), &broker.scheduler);
    assert!(partition.view_if_open().is_none());

    append(&broker, 0, 400).await.unwrap();

    assert!(directory.path().join("data/logs-0/00000000000000000003.log").exists());
    drop((partition, topic));
    stop(broker).await;
}
