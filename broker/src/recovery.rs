//! Bringing partitions into service at a start, and out of it at a stop.
//!
//! What was appended after the last checkpoint is scanned; everything else is taken as it was left. A partition
//! that cannot be opened stays out of service with an error in the log and does not keep the others from serving.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use highwater_record::TopicName;
use highwater_storage::{Checkpoint, Log, SyncJob};
use parking_lot::Mutex;

use crate::broker::Broker;
use crate::meta::MetadataError;
use crate::partition::Partition;
use crate::topic_admin;
use crate::topic_config::TopicConfig;
use crate::{checkpointer, clock, groups, quarantine, read_only};

/// Enters every topic of the metadata, still out of service, and removes the files of deleted ones.
pub(crate) fn register(broker: &Broker) -> Result<(), MetadataError> {
    let read_only = broker.metadata.read_only().is_some();
    // Nothing is deleted on the word of metadata that may not be the last.
    let tombstones = if read_only { Vec::new() } else { broker.metadata.tombstones()? };
    for (id, tombstone) in tombstones {
        match TopicName::new(&tombstone.name) {
            Ok(name) => {
                topic_admin::remove_files(broker, id, &name, tombstone.partitions);
            }
            Err(error) => tracing::error!(name = tombstone.name, %error, "a deleted topic has no legal name"),
        }
    }
    for (name, record) in broker.metadata.topics()? {
        let unreadable = |cause: String| MetadataError::Value { key: name.to_string(), cause };
        let id = record.id.parse().map_err(|error| unreadable(format!("{error}")))?;
        let config = TopicConfig::parse(&record.configs, broker.config()).map_err(unreadable)?;
        let topic = topic_admin::assemble(broker, name, id, record, &config);
        broker.recovery.total.fetch_add(topic.partitions.len(), Ordering::Relaxed);
        broker.topics.insert(Arc::new(topic));
    }
    for name in broker.metadata.graves()? {
        broker.graves.dig(name, Instant::now());
    }
    if read_only {
        read_only::adopt(broker);
    }
    name_orphans(broker);
    Ok(())
}

/// Says which directories belong to no topic. They are left alone: metadata that was lost is no reason to delete.
fn name_orphans(broker: &Broker) {
    let listing = match broker.data.list() {
        Ok(listing) => listing,
        Err(error) => {
            tracing::error!(%error, "cannot list the data directory");
            return;
        }
    };
    for partition in listing.partitions {
        let known = broker.topics.by_name(&partition.topic);
        if known.is_none_or(|topic| topic.partition(partition.partition.get()).is_none())
            && !partition.topic.is_internal()
        {
            tracing::error!(%partition, "the metadata knows no topic for this partition's directory; it is left alone");
        }
    }
    for name in listing.unknown {
        tracing::warn!(name, "a directory that is none of ours is left alone");
    }
}

/// Opens every partition's log, makes recovered tails durable, brings all into service, and then loads the groups.
pub(crate) fn recover(broker: &Arc<Broker>) {
    let checkpoint = checkpointer::load(broker);
    if broker.previous_epoch.is_some() && checkpoint.clean_stop != broker.previous_epoch {
        tracing::warn!(
            "the last stop was not a clean one; what was appended after the last checkpoint is scanned"
        );
    }
    let mut logs = open_logs(broker, &checkpoint);
    // An append behind a tail that is not durable could not be cut off alone, so this comes first.
    let synced = sync_tails(broker, &mut logs);
    for (partition, log) in logs {
        let durable = log.view().durable().offset == log.view().end().offset;
        match &synced {
            Err(error) if !durable => {
                fail(broker, &partition, error);
            }
            _ => {
                // An epoch that the metadata has lost is in the log still; what it has not lost is larger.
                let epoch = broker.epoch.max(log.view().latest_epoch().unwrap_or_default());
                partition.open(log, epoch);
                broker.recovery.recovered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    groups::load_all(broker);
    broker.recovery.done.store(true, Ordering::Release);
}

/// Finishes the deletions that were cut short: groups that were not in service then may still remember the topics.
pub(crate) async fn finish_deletions(broker: &Arc<Broker>) {
    if broker.metadata.read_only().is_some() {
        return;
    }
    let tombstones = broker.metadata.tombstones().unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read which topics were deleted");
        Vec::new()
    });
    for (id, tombstone) in tombstones {
        // A name that is not legal was named when the broker started.
        if let Ok(name) = TopicName::new(&tombstone.name) {
            topic_admin::finish_deletion(broker, id, name, tombstone.partitions).await;
        }
    }
}

/// Opens every log, on as many threads as there are cores.
fn open_logs(broker: &Broker, checkpoint: &Checkpoint) -> Vec<(Arc<Partition>, Log)> {
    let topics = broker.topics.all();
    let work: Vec<_> =
        topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p))).collect();
    let (next, opened) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(work.len())));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(work.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((topic, partition)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let known = checkpoint.partitions.get(partition.id());
                    // A log of an earlier topic of the same name is not meant.
                    let known = known.filter(|known| known.topic_id == Some(topic.id)).map(|known| known.log);
                    match topic_admin::open_log(broker, topic, partition, known, clock::now()) {
                        Ok(log) => opened.lock().push((Arc::clone(partition), log)),
                        Err(error) => fail(broker, partition, &error),
                    }
                }
            });
        }
    });
    opened.into_inner()
}

fn fail(broker: &Broker, partition: &Partition, error: &dyn std::fmt::Display) {
    broker.recovery.failed.fetch_add(1, Ordering::Relaxed);
    tracing::error!(
        partition = %partition.id(), %error,
        "cannot open a partition; it stays out of service, its files are untouched"
    );
}

/// Makes recovered tails durable with one `syncfs`. They are no news to anyone before that.
fn sync_tails(broker: &Broker, logs: &mut [(Arc<Partition>, Log)]) -> io::Result<()> {
    let jobs: Vec<_> =
        logs.iter_mut().filter_map(|(_, log)| log.begin_sync().map(|job| (log, job))).collect();
    if jobs.is_empty() {
        return Ok(());
    }
    sync_file_system(broker)?;
    for (log, job) in jobs {
        log.finish_sync(job, Ok(()), broker.epoch);
    }
    Ok(())
}

/// Makes everything that is appended durable with one `syncfs`, when nothing is appended any more.
fn sync_all(broker: &Broker) -> io::Result<()> {
    let partitions = all_partitions(broker);
    let jobs: Vec<(&Arc<Partition>, SyncJob)> = partitions
        .iter()
        .filter_map(|partition| Some((partition, partition.with_log(Log::begin_sync)??)))
        .collect();
    if !jobs.is_empty() {
        sync_file_system(broker)?;
    }
    for (partition, job) in jobs {
        partition.finish_sync(job, Ok(()), None);
    }
    Ok(())
}

/// Makes everything durable that the data directory's file system holds.
fn sync_file_system(broker: &Broker) -> io::Result<()> {
    let directory = std::fs::File::open(broker.data.path())?;
    Ok(rustix::fs::syncfs(&directory)?)
}

/// Takes every partition out of service: durable, checkpointed, closed. Called when no connection is left.
pub(crate) fn close(broker: &Broker) -> io::Result<()> {
    broker.scheduler.stop();
    let synced = sync_all(broker);
    quarantine::keep(broker);
    let checkpoints = checkpointer::collect(broker);
    let mut closed = true;
    for partition in all_partitions(broker) {
        let Some(log) = partition.close() else { continue };
        if let Err(error) = log.close() {
            closed = false;
            tracing::error!(partition = %partition.id(), %error, "cannot close a log; the next start scans its tail");
        }
    }
    // The mark says that everything is durable, and what closing wrote is part of everything.
    let clean = closed && synced.is_ok() && sync_file_system(broker).is_ok();
    checkpointer::store(broker, checkpoints, clean.then_some(broker.epoch));
    synced
}

fn all_partitions(broker: &Broker) -> Vec<Arc<Partition>> {
    broker.topics.all().iter().flat_map(|topic| topic.partitions.iter().cloned()).collect()
}
