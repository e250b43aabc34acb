//! The host with a real data directory, at the moments that no client can bring about: before it is loaded, while the
//! disk does not answer, and when an append is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_group::{
    Client, CommitOffset, CommitRequest, HeartbeatRequest, JoinRequest, Protocol, Record, WantedOffset,
};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::{
    self, JoinGroupRequest, ListGroupsRequest, OffsetFetchRequest, SyncGroupRequest, offset_fetch,
};
use highwater_protocol::wire::Str;
use highwater_record::{Batch, BatchBuilder, Codec, NewRecord, PartitionId, TopicName};
use highwater_storage::{Log, SimCall, SimFault, SimFiles};
use tempfile::TempDir;

use super::shard::QUEUE_BYTES_MAX;
use super::*;
use crate::config::Config;
use crate::context::Context;
use crate::partition::Partition;
use crate::shutdown::Shutdown;
use crate::topic_admin::{self, NewTopic};
use crate::topics::Topic;
use crate::{cleaner, handler, recovery, server};

const GROUP: &str = "group";
const TOPIC_READ: &str = "read";

async fn open(directory: &TempDir) -> Arc<Broker> {
    open_with(Config::new(directory.path().join("data"))).await
}

async fn open_with(config: Config) -> Arc<Broker> {
    tokio::task::spawn_blocking(move || server::open(config, Shutdown::new())).await.unwrap().unwrap()
}

async fn recover(broker: &Arc<Broker>) {
    let recovering = Arc::clone(broker);
    tokio::task::spawn_blocking(move || recovery::recover(&recovering)).await.unwrap();
    recovery::finish_deletions(broker).await;
}

async fn close(broker: Arc<Broker>) {
    broker.shutdown.stop();
    tokio::task::spawn_blocking(move || recovery::close(&broker)).await.unwrap().unwrap();
}

/// A broker in service with a topic to read.
async fn in_service(directory: &TempDir) -> Arc<Broker> {
    let broker = open(directory).await;
    recover(&broker).await;
    let name = TopicName::new(TOPIC_READ).unwrap();
    let new = NewTopic { name, partitions: Some(1), configs: Default::default() };
    topic_admin::create(&broker, new).await.unwrap();
    broker
}

fn topic_id(broker: &Broker) -> Option<TopicId> {
    broker.topics.by_name(&TopicName::new(TOPIC_READ).unwrap()).map(|topic| topic.id)
}

async fn commit(broker: &Arc<Broker>, offset: i64) -> Result<(), Unavailable> {
    let offset = CommitOffset {
        topic: TOPIC_READ.into(),
        topic_id: topic_id(broker),
        partition: PartitionId::new(0).unwrap(),
        offset,
        leader_epoch: None,
        metadata: Str::default(),
    };
    let request = CommitRequest {
        group: GROUP.into(),
        generation: None,
        member_id: Str::default(),
        instance_id: None,
        retention_ms: None,
        offsets: vec![offset],
        knows_group_id_not_found: true,
        may_create: true,
    };
    let answer = ask(broker, GROUP, |machine, now| machine.commit(request, now)).await?;
    assert_eq!(answer, Ok(vec![Ok(())]));
    Ok(())
}

/// Reads from the machine of `GROUP`.
async fn look<T>(broker: &Arc<Broker>, read: impl Fn(&Coordinator) -> T) -> Result<T, Unavailable> {
    look_each(broker, &[GROUP], |group| group, |machine, _| read(machine)).await.pop().unwrap()
}

async fn committed(broker: &Arc<Broker>) -> Result<Option<i64>, Unavailable> {
    let partition = PartitionId::new(0).unwrap();
    let wanted = [WantedOffset { topic: TOPIC_READ.into(), topic_id: topic_id(broker), partition }];
    let found = look(broker, |machine| machine.fetch_offsets(GROUP, &wanted)).await?;
    Ok(found[0].as_ref().map(|committed| committed.offset))
}

/// The join of a consumer that is nobody yet and speaks a version that joins at once.
fn first_join() -> JoinRequest {
    JoinRequest {
        group: GROUP.into(),
        member_id: Str::default(),
        instance_id: None,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: Bytes::new() }],
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: Some(60_000),
        require_known_member_id: false,
        supports_skip_assignment: true,
        client: Client { id: "client".into(), host: Str::default() },
        unique: [7; 16],
        may_create: true,
        room_bytes: usize::MAX,
    }
}

/// Runs a future until it waits for the first time. True if it came to its end.
async fn ends_at_once(future: impl Future) -> bool {
    tokio::select! {
        biased;
        _ = future => true,
        () = std::future::ready(()) => false,
    }
}

/// Puts the partition of `GROUP` onto files in memory, which can be told to fail.
fn move_into_memory(broker: &Arc<Broker>) -> (SimFiles, Arc<Partition>) {
    let topic = topic_admin::create_internal(broker, topic_name(), SHARDS).unwrap();
    let directory = Path::new("/data");
    let files = SimFiles::with_dir(directory);
    let settings = Arc::clone(&topic.settings);
    let log = Log::open(
        Arc::new(files.clone()),
        directory.join("partition"),
        settings.log.clone(),
        None,
        clock::now(),
    );
    let mut partitions = topic.partitions.clone();
    let moved = &mut partitions[shard_of(GROUP)];
    *moved = Arc::new(Partition::recovering(moved.id().clone(), settings));
    moved.open(log.unwrap().0, broker.epoch);
    let partition = Arc::clone(moved);
    let (name, id, record, settings) =
        (topic.name.clone(), topic.id, topic.record.clone(), Arc::clone(&topic.settings));
    broker.topics.replace(Arc::new(Topic { name, id, record, settings, partitions }));
    (files, partition)
}

async fn load_again(broker: &Arc<Broker>) {
    let loading = Arc::clone(broker);
    tokio::task::spawn_blocking(move || load_all(&loading)).await.unwrap();
}

/// What the machine holds, whatever may be read from it.
async fn offsets_held(broker: &Arc<Broker>) -> usize {
    look(broker, |machine| machine.counts().offsets).await.unwrap()
}

#[test]
fn a_group_is_where_kafka_has_it() {
    // Java: Utils.abs("...".hashCode()) % 50.
    assert_eq!(shard_of(""), 0);
    assert_eq!(shard_of("a"), 97 % 50);
    assert_eq!(shard_of("group"), 98629247 % 50);
    // A hash of Integer.MIN_VALUE counts as 0.
    assert_eq!(shard_of("polygenelubricants"), 0);
    // One code point beyond the basic plane is two units.
    assert_eq!(shard_of("\u{1f600}"), (0xd83d * 31 + 0xde00) % 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_from_a_group_that_is_not_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    close(broker).await;

    let broker = open(&directory).await;
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
    let context = |version| Context {
        broker: &broker,
        local: here,
        peer: here,
        version,
        client_id: None,
        request_bytes: 0,
    };
    let loading = ErrorCode::CoordinatorLoadInProgress.code();
    let asked = offset_fetch::OffsetFetchRequestGroup { group_id: GROUP.into(), ..Default::default() };
    let fetch = OffsetFetchRequest { groups: vec![asked], ..Default::default() };
    let fetched = handler::offset_fetch::handle(&context(9), fetch.clone()).await;
    assert_eq!(fetched.groups[0].error_code, loading);
    // The oldest version can say it of each partition alone.
    let topic = offset_fetch::OffsetFetchRequestTopic { name: TOPIC_READ.into(), partition_indexes: vec![0] };
    let oldest =
        OffsetFetchRequest { group_id: GROUP.into(), topics: Some(vec![topic]), ..Default::default() };
    let fetched = handler::offset_fetch::handle(&context(1), oldest).await;
    assert_eq!(fetched.topics[0].partitions[0].error_code, loading);
    let joined = handler::join_group::handle(&context(9), JoinGroupRequest::default()).await;
    assert_eq!(joined.error_code, loading);
    let listed = handler::list_groups::handle(&context(5), ListGroupsRequest::default()).await;
    assert_eq!((listed.error_code, listed.groups.len()), (loading, 0));
    // Where clients know no such error they hear what makes them ask again.
    let synced = handler::sync_group::handle(&context(5), SyncGroupRequest::default()).await;
    assert_eq!(synced.error_code, ErrorCode::RebalanceInProgress.code());
    let beat = handler::heartbeat::handle(&context(4), api::HeartbeatRequest::default());
    assert_eq!(beat.error_code, ErrorCode::None.code());

    recover(&broker).await;
    let fetched = handler::offset_fetch::handle(&context(9), fetch).await;
    assert_eq!(fetched.groups[0].topics[0].partitions[0].committed_offset, 7);
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_does_not_answer_only_heartbeats_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    // Without its threads nothing becomes durable any more.
    broker.scheduler.stop();
    let committing = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { commit(&broker, 8).await }
    });
    let is_driven = || broker.groups.shard(shard_of(GROUP)).is_driven();
    while !is_driven() {
        tokio::task::yield_now().await;
    }

    let short = Duration::from_millis(50);
    assert!(tokio::time::timeout(short, committed(&broker)).await.is_err(), "a read did not wait");
    let beat = HeartbeatRequest {
        group: GROUP.into(),
        generation: None,
        member_id: "nobody".into(),
        instance_id: None,
    };
    let answer = heartbeat(&broker, GROUP, |machine, now| machine.heartbeat(&beat, now));
    assert_eq!(answer, Ok(Err(GroupError::UnknownMemberId)));

    // A commit is not waited for longer than a member may be silent.
    assert_eq!(committing.await.unwrap(), Err(Unavailable::TimedOut));
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_groups_are_asked_before_the_first_is_waited_for_and_a_stop_ends_the_wait() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    // Without its threads nothing becomes durable any more.
    broker.scheduler.stop();
    let mut committing = Box::pin(commit(&broker, 8));
    assert!(!ends_at_once(&mut committing).await);
    let groups = [GROUP, "another group", GROUP, "a third group"];
    assert!([1, 3].iter().all(|other| shard_of(groups[*other]) != shard_of(GROUP)));
    let asked = std::cell::Cell::new(0);
    let mut asking = Box::pin(look_each(&broker, &groups, |group| group, |_, _| asked.set(asked.get() + 1)));

    assert!(!ends_at_once(&mut asking).await);
    assert_eq!(asked.get(), groups.len());

    broker.shutdown.stop();
    let ended = Err(Unavailable::Stopping);
    assert_eq!(asking.await, [ended, Ok(()), ended, Ok(())]);
    drop(committing);
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_disk_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    // Without its threads nothing becomes durable any more.
    broker.scheduler.stop();
    let write = |bytes: usize| {
        let record = Record { key: Bytes::from_static(b"key"), value: Some(vec![0; bytes].into()) };
        let effects = Effects { records: vec![record], replies: Vec::new() };
        shard::ask(place_of(&broker, GROUP), |_, _| Answered { answer: (), effects })
    };
    let _under_way = write(1).unwrap();
    let shard = broker.groups.shard(shard_of(GROUP));
    while shard.queue_bytes() > 0 {
        tokio::task::yield_now().await;
    }

    let _queued = (write(QUEUE_BYTES_MAX / 2).unwrap(), write(QUEUE_BYTES_MAX / 2).unwrap());

    assert!(matches!(write(1), Err(Unavailable::Behind)));
    assert!(matches!(park(&broker, GROUP, |_, _, _| unreachable!()).await, Err(Unavailable::Behind)));
    // What adds nothing goes on.
    assert_eq!(heartbeat(&broker, GROUP, |_, _| Ok(())), Ok(Ok(())));
    assert!(!ends_at_once(committed(&broker)).await);
    let elsewhere = "another group";
    assert_ne!(shard_of(elsewhere), shard_of(GROUP));
    assert_eq!(ask(&broker, elsewhere, |_, _| only(())).await, Ok(()));
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_lost_takes_what_it_changed_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    let topic = broker.topics.by_name(&topic_name()).unwrap();
    // A partition out of service refuses appends; what it has can still be read.
    drop(topic.partitions[shard_of(GROUP)].close());

    assert_eq!(commit(&broker, 8).await, Err(Unavailable::Lost));

    let found = loop {
        match committed(&broker).await {
            Ok(found) => break found,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(found, Some(7));
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_read_now_is_read_later() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    let (files, partition) = move_into_memory(&broker);
    commit(&broker, 7).await.unwrap();
    let index = shard_of(GROUP);
    let failing = |times| SimFault {
        call: SimCall::Read,
        path_end: ".log".to_owned(),
        after: 0,
        times,
        errno: 5,
        bytes_written: 0,
    };
    files.plan(failing(1));
    assert!(load::load(&broker, index, Some(&partition)).is_err_and(|error| error.may_pass()));

    broker.groups.shard(index).fail();
    files.plan(failing(2));
    load_again(&broker).await;

    let reading = async {
        loop {
            match committed(&broker).await {
                Ok(found) => break found,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), reading).await;
    assert_eq!(found.expect("the partition comes into service"), Some(7));
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_understood_keeps_its_groups_out_of_service() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    let topic = broker.topics.by_name(&topic_name()).unwrap();
    let mut garbage = BatchBuilder::new(Codec::None);
    // A key begins with two bytes of type.
    let record = NewRecord { timestamp: clock::now(), key: Some(&[0]), value: None, headers: &[] };
    garbage.append(&record).unwrap();
    let garbage = Batch::new(garbage.build().unwrap()).unwrap();
    let partition = &topic.partitions[shard_of(GROUP)];
    partition.append(&garbage, clock::now(), &broker.scheduler).unwrap();

    load_again(&broker).await;

    assert_eq!(committed(&broker).await, Err(Unavailable::Lost));
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_parked_is_forgotten_with_its_future() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    let mut parking = Box::pin(park(&broker, GROUP, |_, _, _| Effects::default()));
    let shard = broker.groups.shard(shard_of(GROUP));
    assert!(!ends_at_once(&mut parking).await);
    assert_eq!(shard.parked(), 1);

    drop(parking);

    assert_eq!(shard.parked(), 0);
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_members_bring_is_counted_until_they_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    let mut join = first_join();
    join.protocols[0].metadata = vec![7; 1_000].into();
    let mut joining = Box::pin(park(&broker, GROUP, |machine, call, now| machine.join(call, join, now)));
    assert!(!ends_at_once(&mut joining).await);
    let taken = broker.memory.members_bytes_max() - broker.groups.room_bytes();
    assert!((1_000..1_100).contains(&taken), "{taken}");

    // Nobody has heard of the member's id, so that it is gone with its connection.
    drop(joining);

    assert_eq!(broker.groups.room_bytes(), broker.memory.members_bytes_max());
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_rebalance_waits_as_long_as_the_configuration_says() {
    let directory = tempfile::tempdir().unwrap();
    let delay = Duration::from_secs(20);
    let data = directory.path().join("data");
    let broker = open_with(Config { initial_rebalance_delay: delay, ..Config::new(data) }).await;
    recover(&broker).await;
    let join = first_join();
    let earliest = broker.groups.started.elapsed() + delay;
    let mut joining = Box::pin(park(&broker, GROUP, |machine, call, now| machine.join(call, join, now)));
    assert!(!ends_at_once(&mut joining).await);

    let due = Duration::from_millis(broker.groups.shard(shard_of(GROUP)).due_ms().unwrap());

    let latest = broker.groups.started.elapsed() + delay;
    assert!(due.as_millis() >= earliest.as_millis() && due <= latest, "{due:?}");
    drop(joining);
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_was_cut_short_is_finished_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    // The metadata has said it, nobody else has heard it: as after a kill.
    let topic = broker.topics.by_name(&TopicName::new(TOPIC_READ).unwrap()).unwrap();
    broker.metadata.delete_topic(&topic.name, &topic.record).unwrap();
    assert_eq!(offsets_held(&broker).await, 1);
    close(broker).await;

    let broker = open(&directory).await;
    recover(&broker).await;

    assert_eq!(offsets_held(&broker).await, 0);
    assert!(broker.metadata.tombstones().unwrap().is_empty());
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_waits_for_groups_that_are_out_of_service() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    let (name, id) = (TopicName::new(TOPIC_READ).unwrap(), topic_id(&broker).unwrap());
    broker.groups.shard(shard_of(GROUP)).fail();

    topic_admin::delete(&broker, name, id).await.unwrap();

    assert_eq!(broker.metadata.tombstones().unwrap().len(), 1);
    close(broker).await;
    let broker = open(&directory).await;
    recover(&broker).await;
    assert_eq!(offsets_held(&broker).await, 0);
    assert!(broker.metadata.tombstones().unwrap().is_empty());
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_whose_topic_the_metadata_has_lost_are_read_and_take_no_commits() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    close(broker).await;
    std::fs::remove_dir_all(directory.path().join("data/__cluster_metadata-0")).unwrap();

    let broker = open(&directory).await;
    recover(&broker).await;

    assert_eq!(committed(&broker).await, Ok(Some(7)));
    assert_eq!(commit(&broker, 8).await, Err(Unavailable::ReadOnly));
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_many_clients_share_appends() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 0).await.unwrap();

    let committing: Vec<_> = (1..=200)
        .map(|offset| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move { commit(&broker, offset).await })
        })
        .collect();
    for committing in committing {
        committing.await.unwrap().unwrap();
    }

    let topic = broker.topics.by_name(&topic_name()).unwrap();
    let view = topic.partitions[shard_of(GROUP)].open_view().unwrap();
    let end = view.end().offset;
    assert_eq!(end.get(), 201);
    let (mut at, mut batches) = (view.log_start(), 0);
    while at < end {
        at = view.read(at, 1, end, highwater_storage::FirstBatch::Whole).unwrap().next_offset;
        batches += 1;
    }
    assert!(batches < 100, "{batches} appends for 201 commits");
    close(broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_many_commits_replays_few_of_them() {
    let directory = TempDir::new().unwrap();
    let broker = in_service(&directory).await;
    const PARTITIONS: i32 = 500;
    const ROUNDS: i64 = 150;
    for round in 0..ROUNDS {
        let offset = |partition| CommitOffset {
            topic: TOPIC_READ.into(),
            topic_id: topic_id(&broker),
            partition: PartitionId::new(partition).unwrap(),
            offset: round * 1000 + i64::from(partition),
            leader_epoch: None,
            metadata: Str::default(),
        };
        let request = CommitRequest {
            group: GROUP.into(),
            generation: None,
            member_id: Str::default(),
            instance_id: None,
            retention_ms: None,
            offsets: (0..PARTITIONS).map(offset).collect(),
            knows_group_id_not_found: true,
            may_create: true,
        };
        ask(&broker, GROUP, |machine, now| machine.commit(request, now)).await.unwrap().unwrap();
    }
    let shard = broker.topics.by_name(&topic_name()).unwrap().partitions[shard_of(GROUP)].clone();
    let size = |shard: &Partition| shard.standing().unwrap().size_bytes;
    let before = size(&shard);

    let compact = || {
        let compacting = Arc::clone(&broker);
        tokio::task::spawn_blocking(move || cleaner::pass(&compacting, Default::default()))
    };
    broker.disk.no_space(std::time::Instant::now());
    compact().await.unwrap();
    assert_eq!(
        size(&shard),
        before,
        "what takes space before it gives some back is not begun on a full disk"
    );
    broker.disk.found_space();
    broker.disk.measure(&*broker.files, std::time::Instant::now() + Duration::from_secs(60));
    compact().await.unwrap();

    assert!(size(&shard) < before / 2, "{} of {before} bytes are left", size(&shard));
    drop(shard);
    close(broker).await;
    let broker = open(&directory).await;
    recover(&broker).await;
    assert_eq!(offsets_held(&broker).await, PARTITIONS as usize);
    let wanted: Vec<_> = (0..PARTITIONS)
        .map(|partition| WantedOffset {
            topic: TOPIC_READ.into(),
            topic_id: topic_id(&broker),
            partition: PartitionId::new(partition).unwrap(),
        })
        .collect();
    let found = look(&broker, |machine| machine.fetch_offsets(GROUP, &wanted)).await.unwrap();
    for (partition, found) in found.iter().enumerate() {
        assert_eq!(found.as_ref().map(|found| found.offset), Some((ROUNDS - 1) * 1000 + partition as i64));
    }
    close(broker).await;
}
