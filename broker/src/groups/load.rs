//! Loading: the whole log of a partition is replayed into a new machine, a chunk at a time.
//!
//! At a start all partitions are loaded, a few at once, after their logs have recovered; a partition whose append was
//! lost is loaded again when its log has been mended, one that the disk would not read a little later. What is read is
//! what compaction has left of everything that was ever committed. A log that cannot be understood keeps its groups out
//! of service: an empty answer would make them start over. One that has lost a range of offsets is loaded without it:
//! what is there is better than nothing, a group whose last commits are lost goes on from earlier ones. But nobody can
//! tell a group that never committed from one whose commits are all lost, so in such a partition an offset that is not
//! known is answered with an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_group::{Coordinator, ReplayError};
use highwater_record::{
    Batch, BatchError, BatchHeader, CodecError, DecodeLimits, HeaderError, Offset, RecordError,
    TopicPartition,
};
use highwater_storage::{FirstBatch, ReadError};
use thiserror::Error;

use super::shard::{self, Place};
use super::{settings, topic_name};
use crate::broker::Broker;
use crate::metrics;
use crate::partition::{NotLeader, Partition};
use crate::waiters::Lost;

/// How much of a log is in memory at once; a larger batch is read whole.
const CHUNK_BYTES: u32 = 1 << 20;
/// How many partitions are loaded at once.
const THREADS_MAX: usize = 4;
/// The pause before a partition that lost an append or could not be read is looked at again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Why a log is not replayed.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error("the partition is not in service")]
    NotInService(NotLeader),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot read the log: {0}")]
    Io(#[from] std::io::Error),
    #[error("no batch at offset {at}: {source}")]
    Header { at: Offset, source: HeaderError },
    #[error("the batch at offset {at} is damaged: {source}")]
    Batch { at: Offset, source: BatchError },
    #[error("the batch at offset {at} cannot be decompressed: {source}")]
    Codec { at: Offset, source: CodecError },
    #[error("the batch at offset {at} has a malformed record: {source}")]
    Record { at: Offset, source: RecordError },
    #[error("the record at offset {at} is malformed: {source}")]
    Replay { at: Offset, source: ReplayError },
    #[error("the log ends at offset {at}, {end} was expected")]
    Short { at: Offset, end: Offset },
}

impl LoadError {
    /// Whether the same log may be readable later. What its bytes say stays, and a partition that did not recover
    /// comes into service with the next start, or says so (`load_later`).
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Read(ReadError::Io(_) | ReadError::OutOfRange { .. }))
    }
}

/// Loads every partition; one that cannot be read now is tried again in the background. Blocks on the disk; called
/// once, when the logs have recovered.
pub(crate) fn load_all(broker: &Arc<Broker>) {
    let began = Instant::now();
    let partitions = match broker.topics.by_name(&topic_name()) {
        Some(topic) => topic.partitions.clone(),
        None if has_leftovers(broker) => {
            tracing::error!(
                "the metadata knows no topic {}, but the data directory has partitions of it; groups stay out of \
                 service, since they would seem to have committed nothing",
                super::TOPIC
            );
            broker.groups.shards.iter().for_each(shard::Shard::fail);
            return;
        }
        None => Vec::new(),
    };
    let next = AtomicUsize::new(0);
    let runtime = tokio::runtime::Handle::current();
    let work = || {
        let _runtime = runtime.enter();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= broker.groups.shards.len() || broker.recovery.is_given_up() {
                return;
            }
            match load(broker, index, partitions.get(index)) {
                Ok(()) => {}
                Err(error) if error.may_pass() => {
                    note_unread(index, &error);
                    runtime.spawn(reload(Arc::clone(broker), index, 0));
                }
                // Loaded when it is open.
                Err(_) if partitions.get(index).is_some_and(|partition| partition.is_waiting()) => {}
                Err(error) => give_up(broker, index, &error),
            }
        }
    };
    // Empty logs are no work: most brokers start without a thread more.
    let busy = partitions.iter().filter(|partition| !is_empty(partition)).count();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(THREADS_MAX).min(busy) {
            scope.spawn(work);
        }
        work();
    });
    metrics::observe_groups_load(began.elapsed());
}

/// Loads the groups of a partition that came into service after the others, or is known now not to. Other topics'
/// partitions have none.
pub(crate) fn load_later(broker: &Arc<Broker>, partition: &TopicPartition) {
    if partition.topic != topic_name() {
        return;
    }
    let Ok(index) = usize::try_from(partition.partition.get()) else { return };
    let topic = broker.topics.by_name(&partition.topic);
    let Some(partition) = topic.as_ref().and_then(|topic| topic.partitions.get(index)) else { return };
    match load(broker, index, Some(partition)) {
        Ok(()) => {}
        Err(error) if error.may_pass() => {
            note_unread(index, &error);
            tokio::runtime::Handle::current().spawn(reload(Arc::clone(broker), index, 0));
        }
        Err(error) => give_up(broker, index, &error),
    }
}

/// Whether there are partitions that the metadata has lost.
fn has_leftovers(broker: &Broker) -> bool {
    match broker.data.list() {
        Ok(listing) => listing.partitions.iter().any(|partition| partition.topic.as_str() == super::TOPIC),
        Err(error) => {
            tracing::error!(%error, "cannot list the data directory");
            true
        }
    }
}

fn is_empty(partition: &Partition) -> bool {
    partition.standing().is_ok_and(|standing| standing.is_empty())
}

/// Loads one partition and brings its groups into service; without a topic there is nothing to load.
pub(super) fn load(
    broker: &Arc<Broker>,
    index: usize,
    partition: Option<&Arc<Partition>>,
) -> Result<(), LoadError> {
    let mut machine = Coordinator::new(settings(broker.config()));
    let lost = match partition {
        Some(partition) => replay(partition, &mut machine)?,
        None => 0,
    };
    if lost > 0 {
        tracing::error!(
            partition = index,
            offsets = lost,
            groups = machine.group_count(),
            "groups are loaded from a log of {} that has lost records: some of their commits may be older than \
             the last, and who asks for an offset that is not known is told CORRUPT_MESSAGE. Set the offsets of \
             groups that are stuck (highwater group seek, kafka-consumer-groups --reset-offsets)",
            super::TOPIC
        );
    }
    broker.groups.shard(index).set_has_lost(lost > 0);
    shard::activate(Place { broker, index }, machine);
    Ok(())
}

fn note_unread(index: usize, error: &LoadError) {
    tracing::warn!(partition = index, %error, "cannot read the groups of a partition of {}; it is tried again", super::TOPIC);
}

fn give_up(broker: &Broker, index: usize, error: &dyn std::fmt::Display) {
    tracing::error!(
        partition = index, %error,
        "cannot load the groups of a partition of {}; they stay out of service until the next start", super::TOPIC
    );
    broker.groups.shard(index).fail();
}

/// Loads a partition again that lost an append, when it is clear how its log ends, or that could not be read. One that
/// loses one append after another (a full disk) is loaded less and less often.
pub(super) async fn reload(broker: Arc<Broker>, index: usize, lost_before: u32) {
    let mut pause = (RETRY.0 * 2_u32.saturating_pow(lost_before.min(10))).min(RETRY.1);
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
        if broker.stopping().is_stopped() {
            return;
        }
        let topic = broker.topics.by_name(&topic_name());
        let partition = topic.and_then(|topic| topic.partitions.get(index).cloned());
        if let Some(partition) = &partition
            && let Err(lost) = settled(partition).await
        {
            tracing::warn!(partition = index, ?lost, "the log is not mended yet");
            continue;
        }
        let loading = Arc::clone(&broker);
        let loaded = tokio::task::spawn_blocking(move || load(&loading, index, partition.as_ref()));
        match loaded.await {
            Ok(Ok(())) => break,
            Ok(Err(error)) if error.may_pass() => note_unread(index, &error),
            Ok(Err(error)) => break give_up(&broker, index, &error),
            Err(panic) => break give_up(&broker, index, &panic),
        }
    }
    // A topic may have been deleted meanwhile.
    crate::recovery::finish_deletions(&broker).await;
}

/// Waits until everything that is appended is below the high watermark. Nobody appends meanwhile.
async fn settled(partition: &Arc<Partition>) -> Result<(), Lost> {
    let Ok(standing) = partition.standing() else { return Err(Lost::Closed) };
    let end = standing.end;
    let ack = partition.acks.wait(end, || partition.high_watermark() >= end);
    ack.await.unwrap_or(Err(Lost::Closed))
}

/// Replays a whole log; one that has nothing is not even opened. Says how many of its offsets are lost.
fn replay(partition: &Partition, machine: &mut Coordinator) -> Result<u64, LoadError> {
    if is_empty(partition) {
        return Ok(0);
    }
    let view = partition.open_view().map_err(LoadError::NotInService)?;
    let (mut at, end) = (view.log_start(), view.end().offset);
    let mut lost = 0;
    while at < end {
        let chunk = match view.read(at, CHUNK_BYTES, end, FirstBatch::Whole) {
            Err(ReadError::Quarantined(range)) => {
                lost += range.to.since(at);
                at = range.to;
                continue;
            }
            chunk => chunk?,
        };
        // Where compaction left nothing there is nothing to read, and the end is reached all the same.
        if chunk.next_offset == at {
            return Err(LoadError::Short { at, end });
        }
        for range in &chunk.ranges {
            let mut bytes = Vec::with_capacity(range.len() as usize);
            range.copy_to(&mut bytes)?;
            replay_batches(bytes.into(), at, machine)?;
        }
        at = chunk.next_offset;
    }
    Ok(lost)
}

/// Replays consecutive batches; `at` is for what errors say.
fn replay_batches(mut bytes: Bytes, mut at: Offset, machine: &mut Coordinator) -> Result<(), LoadError> {
    while !bytes.is_empty() {
        let header = BatchHeader::parse(&bytes).map_err(|source| LoadError::Header { at, source })?;
        at = header.base_offset;
        let size = bytes.len().min(header.size_bytes as usize);
        let batch = Batch::new(bytes.split_to(size)).map_err(|source| LoadError::Batch { at, source })?;
        // Markers of transactions say nothing about groups.
        if !header.attributes.is_control() {
            replay_batch(&batch, machine)?;
        }
    }
    Ok(())
}

fn replay_batch(batch: &Batch, machine: &mut Coordinator) -> Result<(), LoadError> {
    let at = batch.header().base_offset;
    // We write no compressed ones; Kafka may have.
    let records = batch.decompress(DecodeLimits::STORED).map_err(|source| LoadError::Codec { at, source })?;
    for record in records.records() {
        let record = record.map_err(|source| LoadError::Record { at, source })?;
        // A record without a key says nothing.
        let Some(key) = record.key else { continue };
        let value = record.value.map(Bytes::copy_from_slice);
        let replayed = machine.replay(Bytes::copy_from_slice(key), value);
        replayed.map_err(|source| LoadError::Replay { at: record.offset, source })?;
    }
    Ok(())
}
