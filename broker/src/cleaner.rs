//! The cleaner: compacts the logs of compacted topics, one after another, in the background.
//!
//! It looks every 15 seconds which logs are dirty enough and begins with the broker's own topics, since a start replays
//! those, then with the dirtiest. The work is done on the blocking pool at a bounded rate, and ends within a piece when
//! the broker stops: what was swapped stays, the rest is begun again by the next start. A pass takes space before it gives
//! some back, so none is begun where that might eat the disk's reserve, and one ends when the disk is full. Storage does
//! the work; this file knows clocks and order.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_record::{Keys, TopicPartition};
use highwater_storage::{CompactionError, CompactionOutcome, Log, Ratio};
use tokio::runtime::Handle;

use crate::broker::Broker;
use crate::partition::Partition;
use crate::{clock, metrics};

/// The pause between two looks (`log.cleaner.backoff.ms`).
pub(crate) const BACKOFF: Duration = Duration::from_secs(15);
/// Most bytes that a pass takes to note keys: 1.2 million of them. Kafka's `log.cleaner.dedupe.buffer.size` is 128 MiB
/// and is taken at the start; here it is what the dirty part needs, for the length of a pass.
pub(crate) const MAP_BYTES_MAX: usize = 32 << 20;
/// Bytes that are read and written in a second. Kafka's cleaner has no limit unless it is given one.
pub(crate) const BYTES_PER_SECOND: u64 = 64 << 20;
/// How long a log is left alone after an error of the disk.
const AFTER_ERROR: Duration = Duration::from_secs(300);
/// A wait that is shorter is put off.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// Logs that are left alone for a while, and until when.
type Resting = HashMap<TopicPartition, Instant>;

/// Compacts until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    if broker.metadata.read_only().is_some() {
        return;
    }
    let mut stopping = broker.stopping();
    let mut resting = Resting::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(BACKOFF) => {}
            () = stopping.stopped() => return,
        }
        let (broker, before) = (Arc::clone(&broker), std::mem::take(&mut resting));
        match tokio::task::spawn_blocking(move || pass(&broker, before)).await {
            Ok(still) => resting = still,
            Err(error) => tracing::error!(%error, "compaction panicked"),
        }
    }
}

/// Compacts every log that is dirty enough. Blocks on the disk. Says which logs are to be left alone for a while.
pub(crate) fn pass(broker: &Broker, mut resting: Resting) -> Resting {
    resting.retain(|_, until| *until > Instant::now());
    let mut dirty = find_dirty(broker);
    dirty.retain(|(partition, _)| !resting.contains_key(partition.id()));
    dirty.sort_by_key(|(partition, ratio)| (!partition.id().topic.is_internal(), std::cmp::Reverse(*ratio)));
    for (partition, _) in dirty {
        if !broker.disk.fits(space_of(&partition)) {
            tracing::debug!(partition = %partition.id(), "a log is not compacted while the disk has no room for it");
            continue;
        }
        match compact(broker, &partition) {
            Ok(()) => {}
            Err(CompactionError::Stopped) => break,
            Err(error) => {
                metrics::count_compaction_failure();
                tracing::warn!(partition = %partition.id(), %error, "a log is not compacted any further");
                resting.insert(partition.id().clone(), Instant::now() + AFTER_ERROR);
            }
        }
    }
    metrics::set_compaction_blocked(blocked(broker));
    resting
}

/// How much more of the disk a pass over a log may take for a while: segments are replaced one after another.
fn space_of(partition: &Partition) -> u64 {
    let size = partition.standing().map_or(0, |standing| standing.size_bytes);
    size.min(partition.log_config().segment_bytes.into())
}

/// How many logs damage keeps from being compacted: they are not among the dirty ones.
fn blocked(broker: &Broker) -> usize {
    let topics = broker.topics.all();
    let compacted = topics.iter().flat_map(|topic| &topic.partitions).filter(|p| p.keys() == Keys::Required);
    compacted.filter(|p| p.with_log(|log| log.is_compaction_blocked()) == Some(true)).count()
}

/// The logs that are worth a pass, and how dirty they are.
fn find_dirty(broker: &Broker) -> Vec<(Arc<Partition>, Ratio)> {
    let (mut dirty, mut largest) = (Vec::new(), 0.0_f64);
    for topic in broker.topics.all() {
        for partition in &topic.partitions {
            if partition.keys() == Keys::Required {
                partition.wake_if_dirty();
            }
            let Some(dirt) = partition.with_log(|log| log.dirt()).flatten() else { continue };
            match dirt.look(clock::now()) {
                Ok(found) => {
                    largest = largest.max(found.ratio().get());
                    if found.is_eligible() {
                        dirty.push((Arc::clone(partition), found.ratio()));
                    }
                }
                Err(error) => {
                    tracing::warn!(partition = %partition.id(), %error, "cannot tell how dirty a log is");
                }
            }
        }
    }
    metrics::set_dirty_ratio_max(largest);
    dirty
}

/// Compacts one log. The log is held only to take the job and to swap segments.
fn compact(broker: &Broker, partition: &Partition) -> Result<(), CompactionError> {
    let size = || partition.standing().map_or(0, |standing| standing.size_bytes);
    let (began, before) = (Instant::now(), size());
    let begin = |log: &mut Log| log.begin_compaction(clock::now());
    let Some(mut job) = partition.with_log(begin).flatten() else { return Ok(()) };
    let mut pace = Pace::new(broker);
    loop {
        let result = job.run(MAP_BYTES_MAX, &mut |bytes| pace.spend(bytes));
        let outcome = partition.with_log(|log| log.finish_compaction(&mut job, result));
        match outcome {
            Some(CompactionOutcome::Swapped) => {}
            Some(CompactionOutcome::Done(end)) => {
                let (after, bytes) = (size(), job.bytes());
                metrics::observe_compaction(began.elapsed(), bytes, before.saturating_sub(after));
                tracing::info!(partition = %partition.id(), %end, before, after, "compacted a log");
                return Ok(());
            }
            Some(CompactionOutcome::Failed(error)) => return Err(error),
            // It was cut, or deleted; the next pass looks again.
            Some(CompactionOutcome::Superseded) | None => return Ok(()),
        }
    }
}

/// Keeps the work to its rate, and ends it when the broker stops or the disk is full.
struct Pace<'a> {
    broker: &'a Broker,
    runtime: Handle,
    began: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    fn new(broker: &'a Broker) -> Self {
        Self { broker, runtime: Handle::current(), began: Instant::now(), bytes: 0 }
    }

    fn spend(&mut self, bytes: u64) -> ControlFlow<()> {
        self.bytes += bytes;
        let due = Duration::from_secs_f64(self.bytes as f64 / BYTES_PER_SECOND as f64);
        let mut stopping = self.broker.stopping();
        let wait = due.saturating_sub(self.began.elapsed());
        if wait >= WAIT_MIN {
            // It ends early only when the broker stops.
            let _ = self.runtime.block_on(async { tokio::time::timeout(wait, stopping.stopped()).await });
        }
        if stopping.is_stopped() || !self.broker.disk.fits(0) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use highwater_record::{Batch, BatchBuilder, Codec, NewRecord, TopicName};

    use super::*;
    use crate::config::Config;
    use crate::shutdown::Shutdown;
    use crate::topic_admin::{self, NewTopic};
    use crate::{recovery, server};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_that_damage_keeps_from_being_compacted_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let config = Config::new(data.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let broker = server::open(config, Shutdown::new()).unwrap();
            recovery::recover(&broker);
            broker
        });
        let broker = opened.await.unwrap();
        let configs =
            [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0")];
        let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let name = TopicName::new("compacted").unwrap();
        let new = NewTopic { name: name.clone(), partitions: Some(1), configs };
        topic_admin::create(&broker, new).await.unwrap();
        let partition = Arc::clone(broker.topics.by_name(&name).unwrap().partition(0).unwrap());
        for _ in 0..8 {
            let (batch, shared) = (keyed_batch(), Arc::clone(&broker));
            let appending = Arc::clone(&partition);
            let appended = tokio::task::spawn_blocking(move || {
                appending.append(&batch, clock::now(), &shared.scheduler).unwrap().ack
            });
            appended.await.unwrap().await.unwrap().unwrap();
        }
        let log = data.join("compacted-0/00000000000000000000.log");
        std::fs::OpenOptions::new().write(true).open(log).unwrap().write_at(b"damage", 1000).unwrap();
        let cleaning = Arc::clone(&broker);
        assert_eq!(blocked(&broker), 0);

        tokio::task::spawn_blocking(move || pass(&cleaning, Resting::default())).await.unwrap();

        assert!(partition.with_log(|log| log.dirt().is_none()).unwrap(), "it is not among the dirty ones");
        assert_eq!(blocked(&broker), 1);
        drop(partition);
        broker.shutdown.stop();
        tokio::task::spawn_blocking(move || recovery::close(&broker)).await.unwrap().unwrap();
    }

    fn keyed_batch() -> Batch {
        let mut builder = BatchBuilder::new(Codec::None);
        let value = vec![7; 300_000];
        let record =
            NewRecord { timestamp: clock::now(), key: Some(b"key"), value: Some(&value), headers: &[] };
        builder.append(&record).unwrap();
        Batch::new(builder.build().unwrap()).unwrap()
    }
}
