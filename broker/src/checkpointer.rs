//! The checkpoint file: how far each log is durable, so that the next start need not scan what is below.
//!
//! Rewritten every five seconds, and sooner after every 256 MiB that were appended, but only if something changed. It is
//! disposable: without it the next start scans more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_record::{LeaderEpoch, Offset, TopicPartition};
use highwater_storage::{Checkpoint, CheckpointFile, DataDir, LoadedCheckpoint, PartitionCheckpoint};

use crate::broker::Broker;
use crate::{quarantine, topic_admin};

/// The longest time between two checkpoints.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long the storing of producers' state may take in one pass.
const PRODUCERS_WITHIN: Duration = Duration::from_secs(1);

/// What the partitions of one data directory say about themselves.
pub(crate) type Checkpoints = BTreeMap<TopicPartition, PartitionCheckpoint>;

/// Writes checkpoints until the broker stops, and forgets the names of deleted topics in time.
pub(crate) async fn run(broker: Arc<Broker>) {
    let shared = Arc::clone(&broker);
    if let Err(error) = tokio::task::spawn_blocking(move || quarantine::look_again(&shared)).await {
        tracing::error!(%error, "looking at damaged files again panicked");
    }
    let mut stopping = broker.stopping();
    let mut written = Checkpoints::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = broker.scheduler.appended().due() => {}
            () = stopping.stopped() => return,
        }
        let (broker, before) = (Arc::clone(&broker), std::mem::take(&mut written));
        let pass = tokio::task::spawn_blocking(move || {
            topic_admin::sweep_graves(&broker);
            broker.scheduler.appended().reset();
            quarantine::keep(&broker);
            let now = collect(&broker);
            if now != before {
                store(&broker, now.clone(), None);
                store_producers(&broker);
            }
            now
        });
        match pass.await {
            Ok(now) => written = now,
            Err(error) => tracing::error!(%error, "writing a checkpoint panicked"),
        }
    }
}

/// Reads the checkpoint file; none or a damaged one is as good as empty.
pub(crate) fn load(broker: &Broker) -> Checkpoint {
    match file(broker).load() {
        LoadedCheckpoint::Found(checkpoint) => checkpoint,
        LoadedCheckpoint::Absent => Checkpoint::default(),
        LoadedCheckpoint::Unusable { reason } => {
            tracing::warn!(reason, "the checkpoint file is not usable; every log is scanned from its start");
            Checkpoint::default()
        }
    }
}

/// Where the metadata log ended at the last checkpoint, at least; 0 if nobody knows.
pub(crate) fn metadata_end(data: &DataDir) -> Offset {
    match CheckpointFile::new(Arc::clone(data.files()), data.path()).load() {
        LoadedCheckpoint::Found(checkpoint) => checkpoint.metadata_end,
        // Said when the partitions' part of it is looked for.
        LoadedCheckpoint::Absent | LoadedCheckpoint::Unusable { .. } => Offset::ZERO,
    }
}

/// Stores the state of producers, for as many partitions as the time allows; the next pass begins with the others, since
/// these have nothing to store by then. Each waits for the disk, and the next checkpoint must not wait for thousands.
fn store_producers(broker: &Broker) {
    if broker.metadata.read_only().is_some() {
        return;
    }
    let began = Instant::now();
    for topic in broker.topics.all() {
        for partition in &topic.partitions {
            if began.elapsed() > PRODUCERS_WITHIN {
                return;
            }
            partition.store_producers();
        }
    }
}

/// Asks every partition.
pub(crate) fn collect(broker: &Broker) -> Checkpoints {
    let mut checkpoints = Checkpoints::new();
    for topic in broker.topics.all() {
        for partition in &topic.partitions {
            if let Some((log, outline)) = partition.checkpoint() {
                let checkpoint = PartitionCheckpoint { topic_id: Some(topic.id), log, outline };
                checkpoints.insert(partition.id().clone(), checkpoint);
            }
        }
    }
    checkpoints
}

/// Replaces the checkpoint file. `clean_stop` names the incarnation that stopped cleanly.
pub(crate) fn store(broker: &Broker, partitions: Checkpoints, clean_stop: Option<LeaderEpoch>) {
    if broker.metadata.read_only().is_some() {
        // It may know logs that the metadata does not know any more.
        return;
    }
    let metadata_end = Offset::new(broker.metadata.end()).unwrap_or_default();
    if let Err(error) = file(broker).store(&Checkpoint { clean_stop, metadata_end, partitions }) {
        tracing::warn!(%error, "cannot write the checkpoint file; the next start scans more");
    }
}

fn file(broker: &Broker) -> CheckpointFile {
    CheckpointFile::new(Arc::clone(&broker.files), broker.data.path())
}
