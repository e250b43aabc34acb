//! Dormant partitions: what is answered without opening their logs, what opens them, and what becomes of one that
//! does not open. On a real data directory, over restarts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use highwater_protocol::api::{
    DescribeLogDirsRequest, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    fetch, list_offsets, produce,
};
use highwater_protocol::wire::Records;
use highwater_record::{Batch, BatchBuilder, Codec, NewRecord, Offset, PartitionId, TimestampMs, TopicName};
use tempfile::TempDir;

use super::*;
use crate::broker::Broker;
use crate::config::Config;
use crate::context::Context;
use crate::log_starts::{self, Move, Target};
use crate::meta::LostRecord;
use crate::shutdown::Shutdown;
use crate::topic_admin::{self, NewTopic};
use crate::{checkpointer, clock, handler, quarantine, recovery, server};

const TOPIC: &str = "logs";

pub(super) async fn start(directory: &TempDir) -> Arc<Broker> {
    start_with(directory, Durability::Fsync).await
}

async fn start_with(directory: &TempDir, durability: Durability) -> Arc<Broker> {
    let mut config = Config::new(directory.path().join("data"));
    config.durability = durability;
    config.filled_sync_delay = Duration::ZERO;
    let started = tokio::task::spawn_blocking(move || {
        let broker = server::open(config, Shutdown::new()).unwrap();
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

async fn create(broker: &Arc<Broker>, partitions: u32) {
    let new = NewTopic { name: topic_name(), partitions: Some(partitions), configs: Default::default() };
    topic_admin::create(broker, new).await.unwrap();
}

/// Puts segments in force that take one record.
fn shrink_segments(broker: &Broker, index: i32) {
    let topic = broker.topics.by_name(&topic_name()).unwrap();
    let mut settings = Settings::clone(&topic.settings);
    settings.log.segment_bytes = 100;
    partition(broker, index).change_settings(Arc::new(settings), &broker.scheduler);
}

/// A data directory whose topic has two partitions: the first with two records of the incarnation 0 and one of the
/// incarnation 1, the second with nothing. Stopped cleanly.
pub(super) async fn filled() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let broker = start(&directory).await;
    create(&broker, 2).await;
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

/// Begins a new segment of the first partition with the next append.
async fn roll(broker: &Arc<Broker>) {
    let partition = partition(broker, 0);
    let rolled = move || {
        partition.open_view().unwrap();
        partition.with_log(|log| log.roll(clock::now())).unwrap().unwrap();
    };
    tokio::task::spawn_blocking(rolled).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_left_below_the_start_of_a_quiet_log_goes_when_it_is_opened() {
    let directory = filled().await;
    let old = directory.path().join("data/logs-0/00000000000000000000.log");
    let segment = std::fs::read(&old).unwrap();
    let broker = start(&directory).await;
    roll(&broker).await;
    append(&broker, 0, 400).await.unwrap();
    delete_before(&broker, 3).await;
    assert!(!old.exists());
    kill(broker).await;
    // As if the kill had come before the file went.
    std::fs::write(&old, segment).unwrap();

    let broker = start(&directory).await;

    assert_eq!((listed(&broker, -2).await.0, listed(&broker, -1).await.0), (3, 4));
    assert!(is_open(&broker, 0) && !old.exists());
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_range_is_forgotten_only_when_it_has_been_read() {
    let directory = filled().await;
    let broker = start(&directory).await;
    roll(&broker).await;
    append(&broker, 0, 400).await.unwrap();
    stop(broker).await;
    let broker = start(&directory).await;
    let segment = directory.path().join("data/logs-0/00000000000000000000.log");
    let aside = directory.path().join("aside");
    let shared = Arc::clone(&broker);
    let remembered = tokio::task::spawn_blocking(move || {
        let id = shared.topics.by_name(&topic_name()).unwrap().id;
        let partition = partition(&shared, 0);
        let kept = || {
            quarantine::keep(&shared);
            shared.metadata.lost(id, partition.id().partition).unwrap().len()
        };
        let file = "00000000000000000000.log".to_owned();
        let lost = LostRecord { from: 1, to: 2, file, position: 0, cause: "a flipped bit".to_owned() };
        shared.metadata.set_lost(id, partition.id().partition, &[lost]).unwrap();
        partition.open_view().unwrap();
        let before = kept();
        // The disk does not give the file out, and then it does.
        std::fs::rename(&segment, &aside).unwrap();
        quarantine::look_again(&shared);
        let unread = kept();
        std::fs::rename(&aside, &segment).unwrap();
        quarantine::look_again(&shared);
        (before, unread, kept())
    });

    assert_eq!(remembered.await.unwrap(), (1, 1, 0));
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
async fn a_topic_made_since_the_start_is_counted_and_so_is_its_failure() {
    let directory = tempfile::tempdir().unwrap();
    let broker = start(&directory).await;
    let told = |broker: &Broker| broker.progress().to_json(None, &Default::default());
    let new = NewTopic { name: topic_name(), partitions: Some(2), configs: Default::default() };
    topic_admin::create(&broker, new).await.unwrap();
    assert!(told(&broker).contains("\"partitions\":2,\"recovered\":2,\"failed\":0"), "{}", told(&broker));
    std::fs::write(directory.path().join("data/logs-0"), "in the way").unwrap();

    assert!(append(&broker, 0, 100).await.is_err());

    assert!(told(&broker).contains("\"partitions\":2,\"recovered\":1,\"failed\":1"), "{}", told(&broker));
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_every_record_frees_the_file_that_is_appended_to() {
    let directory = filled().await;
    let broker = start(&directory).await;
    append(&broker, 0, 400).await.unwrap();

    delete_before(&broker, 3).await;
    assert!(size_bytes(&broker).await > 0, "a record is left in it");
    delete_before(&broker, 4).await;

    assert_eq!(size_bytes(&broker).await, 0);
    assert!(!directory.path().join("data/logs-0/00000000000000000000.log").exists());
    assert_eq!(append(&broker, 0, 500).await.unwrap().get(), 4);
    stop(broker).await;
    let broker = start(&directory).await;
    assert_eq!((listed(&broker, -2).await.0, listed(&broker, -1).await.0), (4, 5));
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_hangs_while_its_start_moves_keeps_no_topic_from_being_made() {
    let directory = filled().await;
    let broker = start(&directory).await;
    append(&broker, 0, 400).await.unwrap();
    let (id, hung) = (broker.topics.by_name(&topic_name()).unwrap().id, partition(&broker, 0));
    let (hang, released) = std::sync::mpsc::channel::<()>();
    let (holds, held) = tokio::sync::oneshot::channel();
    let holder = std::thread::spawn(move || {
        let _slot = hung.log.lock();
        holds.send(()).unwrap();
        released.recv().unwrap_err();
    });
    held.await.unwrap();
    let mover = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { delete_before(&broker, 2).await }
    });
    let kept = || broker.metadata.log_start(id, PartitionId::new(0).unwrap()).unwrap();
    while kept().is_none() {
        tokio::task::yield_now().await;
    }

    let new =
        NewTopic { name: TopicName::new("other").unwrap(), partitions: Some(1), configs: Default::default() };
    let created = tokio::time::timeout(Duration::from_secs(60), topic_admin::create(&broker, new)).await;

    drop(hang);
    holder.join().unwrap();
    mover.await.unwrap();
    created.expect("the topic waits for a log that is not its own").unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_os_a_filled_segment_is_synced_and_not_scanned_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let broker = start_with(&directory, Durability::Os).await;
    create(&broker, 1).await;
    append(&broker, 0, 100).await.unwrap();
    let durable = |broker: &Broker| partition(broker, 0).open_view().unwrap().durable().offset.get();
    assert_eq!(durable(&broker), 0, "nothing is synced before a segment is full");
    shrink_segments(&broker, 0);

    for n in 1..10 {
        append(&broker, 0, 100 + n).await.unwrap();
        while durable(&broker) < n {
            tokio::task::yield_now().await;
        }
    }

    checkpointer::store(&broker, checkpointer::collect(&broker), None);
    append(&broker, 0, 200).await.unwrap();
    let sizes = |base: i64| {
        let segment = directory.path().join(format!("data/logs-0/{base:020}.log"));
        std::fs::metadata(segment).unwrap().len()
    };
    let last = sizes(9) + sizes(10);
    kill(broker).await;
    let broker = start(&directory).await;
    let scanned = broker.recovery.scanned_bytes.load(Ordering::Relaxed);
    assert!(scanned <= last, "{scanned} bytes were scanned, the last two segments have {last}");
    assert_eq!(partition(&broker, 0).high_watermark().get(), 11);
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filled_segments_that_hang_at_the_disk_keep_no_acknowledgement_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let broker = start(&directory).await;
    create(&broker, 21).await;
    let (release, hung) = std::sync::mpsc::channel::<()>();
    let holder = {
        let filled: Vec<_> = (1..21).map(|index| partition(&broker, index)).collect();
        let (held, holding) = tokio::sync::oneshot::channel();
        let holder = tokio::task::spawn_blocking(move || {
            // A sync that waits for its log is one that waits for the disk.
            let guards: Vec<_> = filled.iter().map(|partition| partition.log.lock()).collect();
            held.send(()).unwrap();
            hung.recv().unwrap();
            drop(guards);
        });
        holding.await.unwrap();
        holder
    };
    for index in 1..21 {
        broker.scheduler.request_filled(&partition(&broker, index));
    }

    for n in 0..20 {
        append(&broker, 0, n).await.unwrap();
    }

    release.send(()).unwrap();
    holder.await.unwrap();
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cleaner_opens_dormant_logs_only_if_they_are_dirty() {
    let directory = tempfile::tempdir().unwrap();
    let broker = start(&directory).await;
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let new = NewTopic { name: topic_name(), partitions: Some(1), configs };
    topic_admin::create(&broker, new).await.unwrap();
    let value = vec![0; 600_000];
    for n in 0..3 {
        let mut builder = BatchBuilder::new(Codec::None);
        let record =
            NewRecord { timestamp: TimestampMs(n), key: Some(b"key"), value: Some(&value), headers: &[] };
        builder.append(&record).unwrap();
        let batch = Batch::new(builder.build().unwrap()).unwrap();
        let shared = Arc::clone(&broker);
        let append = move || partition(&shared, 0).append(&batch, clock::now(), &shared.scheduler);
        let accepted = tokio::task::spawn_blocking(append).await.unwrap().unwrap();
        accepted.ack.await.unwrap().unwrap();
    }
    stop(broker).await;
    let clean = |broker: &Arc<Broker>| {
        let broker = Arc::clone(broker);
        tokio::task::spawn_blocking(move || drop(crate::cleaner::pass(&broker, Default::default())))
    };

    let broker = start(&directory).await;
    assert!(!is_open(&broker, 0));
    clean(&broker).await.unwrap();
    assert!(is_open(&broker, 0), "two of its segments are dirty");
    stop(broker).await;

    let broker = start(&directory).await;
    clean(&broker).await.unwrap();
    assert!(!is_open(&broker, 0), "it was compacted before");
    stop(broker).await;
}

/// Errors that a produce request to both partitions is answered.
async fn produced(broker: Arc<Broker>) -> Vec<i16> {
    let data =
        |index| produce::PartitionProduceData { index, records: Records::Bytes(batch(100).bytes().clone()) };
    let topic = produce::TopicProduceData {
        name: TOPIC.into(),
        partition_data: vec![data(0), data(1)],
        ..Default::default()
    };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 600_000, topic_data: vec![topic], ..Default::default() };
    let answer = handler::produce::handle(&context(&broker, 12), request).await.finish().await;
    answer.responses[0].partition_responses.iter().map(|partition| partition.error_code).collect()
}

#[test]
fn however_many_wait_for_a_log_they_take_few_threads_of_the_pool() {
    const CROWD: usize = 20;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let directory = filled().await;
        let broker = start(&directory).await;
        append(&broker, 0, 100).await.unwrap();
        let hung = partition(&broker, 0);
        let (holds, held) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let hanging = std::thread::spawn(move || {
            hung.with_log(|_| {
                holds.send(()).unwrap();
                released.recv().unwrap();
            });
        });
        held.recv().unwrap();

        let mut crowd: Vec<_> = (0..CROWD).map(|_| Box::pin(produced(Arc::clone(&broker)))).collect();
        for produced in &mut crowd {
            let looked = std::future::poll_fn(|cx| std::task::Poll::Ready(produced.as_mut().poll(cx)));
            assert!(looked.await.is_pending());
        }
        let other = tokio::time::timeout(Duration::from_secs(60), append(&broker, 1, 100)).await;

        assert!(other.is_ok(), "the pool is full of those who wait");
        release.send(()).unwrap();
        for produced in crowd {
            assert_eq!(produced.await, [0, 0]);
        }
        assert_eq!(partition(&broker, 0).high_watermark().get(), 4 + CROWD as i64);
        hanging.join().unwrap();
        stop(broker).await;
    });
}
