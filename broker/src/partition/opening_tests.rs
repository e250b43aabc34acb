//! Logs that do not open as they should: disks that fail then, take long, or fail for a while.

use std::path::Path;

use bytes::Bytes;
use highwater_record::PartitionId;
use highwater_storage::{
    DataDir, MetaStore, MetaValue, SimCall, SimFault, SimFiles, TransactError, Transaction, Version,
};

use super::tests::{append, batch, filled, kill, partition, start, stop, topic_name};
use super::*;
use crate::broker::Broker;
use crate::config::Config;
use crate::disk::UnderWay;
use crate::meta::Metadata;
use crate::shutdown::Shutdown;
use crate::{checkpointer, clock, recovery, server};

const EIO: i32 = 5;

/// Metadata that knows nothing, and says so only at a certain time.
#[derive(Debug)]
struct SlowStore(Instant);

impl MetaStore for SlowStore {
    fn get(&self, _key: &[u8]) -> Option<MetaValue> {
        while Instant::now() < self.0 {
            std::thread::yield_now();
        }
        None
    }

    fn range(&self, _prefix: &[u8]) -> Vec<(Bytes, MetaValue)> {
        Vec::new()
    }

    fn end(&self) -> Version {
        Version::default()
    }

    fn transact(&self, _transaction: Transaction, _now: TimestampMs) -> Result<Version, TransactError> {
        unreachable!("nobody changes anything")
    }
}

/// An opener of logs in memory, at the paths that `broker` has them.
fn opener_on(broker: &Broker, files: &SimFiles, metadata: Arc<Metadata>) -> Arc<LogOpener> {
    let data = DataDir::open(broker.data.path().to_owned(), Arc::new(files.clone())).unwrap();
    LogOpener::new(Arc::new(data), metadata, Arc::clone(&broker.recovery), broker.epoch)
}

/// Puts a log of two records into memory, at the place of the first partition.
fn log_in_memory(directory: &Path, settings: &Settings) -> SimFiles {
    let files = SimFiles::with_dir(directory);
    let dir = directory.join(format!("{}-0", topic_name()));
    let (mut log, _) =
        Log::open(Arc::new(files.clone()), dir, settings.log.clone(), None, clock::now()).unwrap();
    for timestamp in [100, 200] {
        log.append(&batch(timestamp), LeaderEpoch::ZERO, clock::now()).unwrap();
    }
    log.close().unwrap();
    files
}

fn failing(call: SimCall, times: u32) -> SimFault {
    SimFault { call, path_end: ".log".into(), after: 0, times, errno: EIO, bytes_written: 0 }
}

/// A partition that nothing is known of, on these files.
fn dormant(broker: &Broker, files: &SimFiles, metadata: Arc<Metadata>) -> Arc<Partition> {
    let topic = broker.topics.by_name(&topic_name()).unwrap();
    let id = TopicPartition { topic: topic_name(), partition: PartitionId::new(0).unwrap() };
    let partition = Arc::new(Partition::recovering(id, Arc::clone(&topic.settings)));
    partition.rest(Dormant::empty(Offset::ZERO), &opener_on(broker, files, metadata), broker.epoch);
    partition
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_takes_too_long_to_open_takes_no_append_whose_time_is_over() {
    let directory = filled().await;
    let broker = start(&directory).await;
    let deadline = Instant::now() + Duration::from_secs(1);
    let slow = Metadata::new(Box::new(SlowStore(deadline)), Arc::<UnderWay>::default());
    let files = SimFiles::with_dir(broker.data.path());
    let partition = dormant(&broker, &files, Arc::new(slow));
    let (shared, appending) = (Arc::clone(&broker), Arc::clone(&partition));

    let appended = tokio::task::spawn_blocking(move || {
        appending.append_until(&batch(100), clock::now(), &shared.scheduler, deadline).map(|_| ())
    });

    assert!(matches!(appended.await.unwrap(), Err(Refused::TimedOut)));
    assert_eq!(partition.view_if_open().expect("it was opened").end().offset, Offset::ZERO);
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_sync_fails_when_it_is_opened_is_not_synced_again() {
    let directory = filled().await;
    let broker = start(&directory).await;
    let topic = broker.topics.by_name(&topic_name()).unwrap();
    let files = log_in_memory(broker.data.path(), &topic.settings);
    let partition = dormant(&broker, &files, Arc::clone(&broker.metadata));
    files.plan(failing(SimCall::Sync, 1));

    assert!(partition.open_view().is_err());

    let syncs = files.sync_count();
    assert!(partition.open_view().is_err(), "a second sync would have succeeded");
    assert!(partition.leader_epoch().is_err());
    assert_eq!(files.sync_count(), syncs);
    drop(topic);
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_whose_sync_fails_forgets_no_recovery_point() {
    let directory = filled().await;
    let broker = start(&directory).await;
    append(&broker, 0, 400).await.unwrap();
    kill(broker).await;
    let config = Config::new(directory.path().join("data"));

    let failed = tokio::task::spawn_blocking(move || {
        let broker = server::open(config, Shutdown::new()).unwrap();
        recovery::recover_with(&broker, |_| Err(io::Error::from_raw_os_error(EIO)));
        broker
    });
    let broker = failed.await.unwrap();

    assert!(partition(&broker, 0).leader_epoch().is_err());
    let kept = checkpointer::collect(&broker);
    assert_eq!(kept[partition(&broker, 0).id()].log.recovery_point.get(), 3);
    stop(broker).await;
    let broker = start(&directory).await;
    assert_eq!(partition(&broker, 0).high_watermark().get(), 4);
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_keeps_a_partition_out_of_service_only_while_it_lasts() {
    let directory = filled().await;
    let broker = start(&directory).await;
    append(&broker, 0, 400).await.unwrap();
    kill(broker).await;
    let config = Config::new(directory.path().join("data"));

    let started = tokio::task::spawn_blocking(move || {
        let mut broker = server::open(config, Shutdown::new()).unwrap();
        let settings = Arc::clone(&broker.topics.by_name(&topic_name()).unwrap().settings);
        let files = log_in_memory(broker.data.path(), &settings);
        let opener = opener_on(&broker, &files, Arc::clone(&broker.metadata));
        Arc::get_mut(&mut broker).expect("nobody else has it yet").opener = opener;
        files.plan(failing(SimCall::Read, u32::MAX));
        recovery::recover(&broker);
        (broker, files)
    });
    let (broker, files) = started.await.unwrap();
    let partition = partition(&broker, 0);
    assert!(partition.leader_epoch().is_err() && partition.is_waiting());
    let known = partition.checkpoint().expect("what is known of it is kept").0;
    assert_eq!(known.recovery_point.get(), 3);

    files.forget_plans();
    tokio::time::timeout(Duration::from_secs(60), async {
        while partition.leader_epoch().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is opened when the disk reads again");

    // The log in memory has two records; the third was durable once, and its offset is not used again.
    assert_eq!(partition.high_watermark().get(), 3);
    drop(partition);
    kill(broker).await;
}
