//! Bringing partitions into service at a start, and out of it at a stop.
//!
//! Partitions to which nothing was appended since they were checkpointed serve at once, with their logs unopened
//! (`survey`). What was appended after the last checkpoint is scanned, on as many threads as there are cores. A partition
//! that cannot be opened stays out of service with an error in the log and does not keep the others from serving; if that
//! is for something that passes, it is tried again until it serves. A stop that comes before all this is done ends it
//! between two segments: what is not in service by then is as it was for the next start.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use highwater_record::TopicName;
use highwater_storage::{Listing, Log, SyncJob};
use parking_lot::Mutex;

use crate::broker::Broker;
use crate::meta::MetadataError;
use crate::partition::Partition;
use crate::survey::{LastStop, Survey, ToOpen};
use crate::topic_admin;
use crate::topic_config::TopicConfig;
use crate::{checkpointer, groups, quarantine, read_only};

/// How often the log says how far a start has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// The pause before a partition is tried again that something passing kept from being opened, at first and at most.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

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
    for (name, mut record) in broker.metadata.topics()? {
        if name.is_internal() {
            record.configs = topic_admin::internal_configs();
        }
        let id = record
            .id
            .parse()
            .map_err(|error| MetadataError::Value { key: name.to_string(), cause: format!("{error}") })?;
        let (config, unfit) = TopicConfig::stored(&record.configs, broker.config());
        for sentence in unfit {
            tracing::warn!(topic = %name, "a setting does not fit this broker and has its default: {sentence}");
        }
        let settings = topic_admin::settings(broker, &name, id, &config);
        let topic = topic_admin::assemble(name, id, record, settings);
        broker.recovery.total.fetch_add(topic.partitions.len(), Ordering::Relaxed);
        broker.topics.insert(Arc::new(topic));
    }
    for name in broker.metadata.graves()? {
        broker.graves.dig(name, Instant::now());
    }
    if read_only {
        read_only::adopt(broker);
    }
    Ok(())
}

/// Says which directories belong to no topic. They are left alone: metadata that was lost is no reason to delete.
fn name_orphans(broker: &Broker, listing: &Listing) {
    for partition in &listing.partitions {
        let known = broker.topics.by_name(&partition.topic);
        if known.is_none_or(|topic| topic.partition(partition.partition.get()).is_none())
            && !partition.topic.is_internal()
        {
            tracing::error!(%partition, "the metadata knows no topic for this partition's directory; it is left alone");
        }
    }
    for name in &listing.unknown {
        tracing::warn!(name, "a directory that is none of ours is left alone");
    }
}

/// Brings every partition into service that can be: at once, or when its log is open and its tail durable. Then loads
/// the groups. Once the recovery is given up, it ends where it is.
pub(crate) fn recover(broker: &Arc<Broker>) {
    recover_with(broker, sync_file_system);
}

/// The same; `sync` makes durable what the file system of the data directory holds.
pub(crate) fn recover_with(broker: &Arc<Broker>, sync: impl FnOnce(&Broker) -> io::Result<()>) {
    let mut to_open = survey(broker);
    let unsynced_bytes = to_open.iter().map(|to_open| to_open.unsynced_bytes).sum();
    broker.recovery.unsynced_bytes.store(unsynced_bytes, Ordering::Relaxed);
    // The longest first, so that no thread is left with it in the end.
    to_open.sort_by_key(|to_open| std::cmp::Reverse(to_open.unsynced_bytes));
    let began = Instant::now();
    let (mut logs, mut waiting) = (Vec::new(), Vec::new());
    for opened in in_parallel(broker, &to_open, |to_open| open_log(broker, to_open)) {
        match opened {
            Opened::Now(partition, log) => logs.push((partition, *log)),
            Opened::Later(to_open) => waiting.push(to_open),
        }
    }
    if !to_open.is_empty() {
        let scanned = broker.recovery.scanned_bytes.load(Ordering::Relaxed);
        tracing::info!(partitions = to_open.len(), scanned, took = ?began.elapsed(), "opened logs");
    }
    if broker.recovery.is_given_up() {
        return;
    }
    // An append behind a tail that is not durable could not be cut off alone, so this comes first.
    let synced = sync_tails(broker, &mut logs, sync);
    for (partition, log) in logs {
        let durable = log.view().durable().offset == log.view().end().offset;
        match &synced {
            Err(error) if !durable => {
                broker.recovery.fail_later(partition.id(), error);
                // What was durable before is so still, and the next start must not cut it where it is damaged.
                partition.stay_out(Some(log.checkpoint()));
            }
            _ => bring_in(broker, &partition, log),
        }
    }
    groups::load_all(broker);
    if broker.recovery.is_given_up() {
        return;
    }
    broker.recovery.done.store(true, Ordering::Release);
    if !waiting.is_empty() {
        tokio::runtime::Handle::current().spawn(open_later(Arc::clone(broker), waiting));
    }
}

fn bring_in(broker: &Broker, partition: &Partition, log: Log) {
    // An epoch that the metadata has lost is in the log still; what it has not lost is larger.
    let epoch = broker.epoch.max(log.view().latest_epoch().unwrap_or_default());
    partition.open(log, epoch);
}

/// Opens the logs that something passing kept from being opened, until there is none left or the broker stops.
async fn open_later(broker: Arc<Broker>, mut waiting: Vec<ToOpen>) {
    let (mut stopping, mut pause) = (broker.stopping(), TRY_AGAIN.0);
    while !waiting.is_empty() {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.stopped() => return,
        }
        pause = (pause * 2).min(TRY_AGAIN.1);
        let shared = Arc::clone(&broker);
        let tried = tokio::task::spawn_blocking(move || {
            waiting.retain(|to_open| !try_again(&shared, to_open));
            waiting
        });
        match tried.await {
            Ok(left) => waiting = left,
            Err(error) => return tracing::error!(%error, "opening partitions panicked"),
        }
    }
}

/// Opens a log that is still waited for. False if it must be tried once more. Blocks on the disk.
fn try_again(broker: &Arc<Broker>, to_open: &ToOpen) -> bool {
    let ToOpen { topic, partition, known, .. } = to_open;
    if !partition.is_waiting() {
        // The topic was deleted meanwhile.
        return true;
    }
    let known = known.map(|known| known.log);
    match broker.opener.open_durably(partition.id(), topic.settings.log.clone(), known) {
        Ok(log) => {
            tracing::warn!(partition = %partition.id(), "a partition that could not be opened at the start is in service");
            bring_in(broker, partition, log);
        }
        Err(error) if error.is_passing() => return false,
        Err(error) => {
            tracing::error!(partition = %partition.id(), %error, "cannot open a partition; it stays out of service");
            partition.stay_out(known);
        }
    }
    groups::load_later(broker, partition.id());
    true
}

/// Brings partitions into service whose logs need not be opened, and gives back the others.
fn survey(broker: &Arc<Broker>) -> Vec<ToOpen> {
    let checkpoint = checkpointer::load(broker);
    let last_stop = match broker.previous_epoch {
        // Metadata that is damaged may have forgotten the last start.
        _ if broker.metadata.read_only().is_some() => LastStop::Unclean,
        previous if previous.is_none() || checkpoint.clean_stop == previous => LastStop::Clean,
        _ => {
            tracing::warn!(
                "the last stop was not a clean one; what was appended after the last checkpoint is scanned"
            );
            LastStop::Unclean
        }
    };
    let listing = broker.data.list().unwrap_or_else(|error| {
        tracing::error!(%error, "cannot list the data directory");
        Listing::default()
    });
    name_orphans(broker, &listing);
    let directories = listing.partitions.into_iter().collect();
    let survey = Survey { broker, checkpoint: &checkpoint, last_stop, directories };
    let topics = broker.topics.all();
    let all: Vec<_> =
        topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p))).collect();
    in_parallel(broker, &all, |(topic, partition)| {
        if broker.recovery.is_given_up() {
            return None;
        }
        let to_open = survey.visit(topic, partition);
        if to_open.is_none() {
            broker.recovery.recovered.fetch_add(1, Ordering::Relaxed);
        }
        to_open
    })
}

/// What became of a log that a start wants open.
enum Opened {
    Now(Arc<Partition>, Box<Log>),
    /// Something that passes kept it from being opened.
    Later(ToOpen),
}

fn open_log(broker: &Broker, to_open: &ToOpen) -> Option<Opened> {
    if broker.recovery.is_given_up() {
        return None;
    }
    let ToOpen { topic, partition, known, .. } = to_open;
    broker.recovery.begin(partition.id());
    let known = known.map(|known| known.log);
    match broker.opener.open(partition.id(), topic.settings.log.clone(), known) {
        Ok(log) => {
            broker.recovery.recovered.fetch_add(1, Ordering::Relaxed);
            Some(Opened::Now(Arc::clone(partition), Box::new(log)))
        }
        Err(_) if broker.recovery.is_given_up() => None,
        Err(error) if error.is_passing() => {
            broker.recovery.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(partition = %partition.id(), %error, "cannot open a partition now; it is tried again");
            partition.wait(known);
            Some(Opened::Later(to_open.clone()))
        }
        Err(error) => {
            broker.recovery.fail(partition.id(), &error);
            partition.stay_out(known);
            None
        }
    }
}

/// Does `work` for all `items` on as many threads as there are cores, and keeps what it gives. Meanwhile the log says
/// now and then how far the start has come.
fn in_parallel<I: Sync, T: Send>(
    broker: &Broker,
    items: &[I],
    work: impl Fn(&I) -> Option<T> + Sync,
) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(items.len());
    let (working, all_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let working = working.clone();
            let (next, done, work) = (&next, &done, &work);
            scope.spawn(move || {
                // Dropped when there is no work left.
                let _working = working;
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(item);
                    done.lock().extend(result);
                }
            });
        }
        drop(working);
        while all_done.recv_timeout(PROGRESS_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            broker.recovery.log();
        }
    });
    done.into_inner()
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

/// Makes recovered tails durable with one `syncfs`. They are no news to anyone before that.
fn sync_tails(
    broker: &Broker,
    logs: &mut [(Arc<Partition>, Log)],
    sync: impl FnOnce(&Broker) -> io::Result<()>,
) -> io::Result<()> {
    let jobs: Vec<_> =
        logs.iter_mut().filter_map(|(_, log)| log.begin_sync().map(|job| (log, job))).collect();
    if jobs.is_empty() {
        return Ok(());
    }
    sync(broker)?;
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
        let result = job.known_failure();
        partition.finish_sync(job, result, None);
    }
    Ok(())
}

/// Makes everything durable that the data directory's file system holds.
fn sync_file_system(broker: &Broker) -> io::Result<()> {
    let directory = std::fs::File::open(broker.data.path())?;
    Ok(rustix::fs::syncfs(&directory)?)
}

/// Takes every partition out of service: durable, closed, and checkpointed if all had recovered. Called when no connection
/// is left.
pub(crate) fn close(broker: &Broker) -> io::Result<()> {
    broker.scheduler.stop();
    let synced = sync_all(broker);
    quarantine::keep(broker);
    let checkpoints = checkpointer::collect(broker);
    let not_closed = in_parallel(broker, &all_partitions(broker), |partition| {
        let error = partition.close()?.close().err()?;
        tracing::error!(partition = %partition.id(), %error, "cannot close a log; the next start scans its tail");
        Some(())
    });
    // The mark says that everything is durable, and what closing wrote is part of everything.
    let clean = not_closed.is_empty() && synced.is_ok() && sync_file_system(broker).is_ok();
    // Of logs that did not recover nobody but the last checkpoint knows how far they were durable.
    if broker.recovery.done.load(Ordering::Acquire) {
        checkpointer::store(broker, checkpoints, clean.then_some(broker.epoch));
    }
    synced
}

fn all_partitions(broker: &Broker) -> Vec<Arc<Partition>> {
    broker.topics.all().iter().flat_map(|topic| topic.partitions.iter().cloned()).collect()
}
