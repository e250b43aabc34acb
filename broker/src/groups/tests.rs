//! The host with a real data directory, at the moments that no client can bring about: before it is loaded, while the
//! disk does not answer, and when an append is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use highwater_group::{CommitOffset, CommitRequest, HeartbeatRequest, WantedOffset};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::{
    self, JoinGroupRequest, ListGroupsRequest, OffsetFetchRequest, SyncGroupRequest, offset_fetch,
};
use highwater_protocol::wire::Str;
use highwater_record::{PartitionId, TopicName};
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::context::Context;
use crate::topic_admin::{self, NewTopic};
use crate::{handler, recovery, server};

const GROUP: &str = "group";
const TOPIC_READ: &str = "read";

async fn open(directory: &TempDir) -> Arc<Broker> {
    let config = Config::new(directory.path().join("data"));
    tokio::task::spawn_blocking(move || server::open(config)).await.unwrap().unwrap()
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

async fn committed(broker: &Arc<Broker>) -> Result<Option<i64>, Unavailable> {
    let partition = PartitionId::new(0).unwrap();
    let wanted = [WantedOffset { topic: TOPIC_READ.into(), topic_id: topic_id(broker), partition }];
    let found = look(broker, GROUP, |machine| machine.fetch_offsets(GROUP, &wanted)).await?;
    Ok(found[0].as_ref().map(|committed| committed.offset))
}

/// What the machine holds, whatever may be read from it.
async fn offsets_held(broker: &Arc<Broker>) -> usize {
    look(broker, GROUP, |machine| machine.counts().offsets).await.unwrap()
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
async fn a_reply_that_is_parked_is_forgotten_with_its_future() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    let forgotten = std::sync::atomic::AtomicBool::new(false);
    let mut parking = Box::pin(park(&broker, GROUP, |_, _, _| Effects::default()));
    let shard = broker.groups.shard(shard_of(GROUP));
    tokio::select! {
        biased;
        _ = &mut parking => forgotten.store(true, std::sync::atomic::Ordering::Relaxed),
        () = std::future::ready(()) => {}
    }
    assert_eq!(shard.parked(), 1);

    drop(parking);

    assert_eq!((shard.parked(), forgotten.into_inner()), (0, false));
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
async fn groups_whose_topic_the_metadata_has_lost_are_not_taken_for_empty() {
    let directory = tempfile::tempdir().unwrap();
    let broker = in_service(&directory).await;
    commit(&broker, 7).await.unwrap();
    close(broker).await;
    std::fs::remove_dir_all(directory.path().join("data/__cluster_metadata-0")).unwrap();

    let broker = open(&directory).await;
    recover(&broker).await;

    assert_eq!(committed(&broker).await, Err(Unavailable::Lost));
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
