//! Entries of a queue become batches of `__consumer_offsets`. The topic is made at the first append.
//!
//! On a full disk a round waits and is tried again: what the machine knows stays true, and heartbeats go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_group::Record;
use highwater_record::{Batch, BatchBuilder, BatchError, BuildError, Codec, NewRecord, TimestampMs};
use highwater_storage::AppendError;
use thiserror::Error;

use super::shard::Entry;
use super::{SHARDS, topic_name};
use crate::broker::Broker;
use crate::partition::{Partition, Refused};
use crate::topic_admin::{self, CreateError};
use crate::waiters::{Ack, Lost};
use crate::{clock, metrics};

/// Room that a record needs in a batch besides its key and its value, at most: the varints of its lengths, of its
/// offset and of its timestamp.
const RECORD_OVERHEAD_BYTES: usize = 40;
/// How long a round waits that found no space, before it is tried again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);
/// Batches of more records than this are closed, however small they are.
const BATCH_RECORDS_MAX: u32 = 10_000;

/// Why records are not durable.
#[derive(Debug, Error)]
pub(super) enum NotDurable {
    #[error("cannot create the topic: {0}")]
    Create(#[from] CreateError),
    #[error("the topic has no such partition")]
    NoPartition,
    #[error("cannot make a batch: {0}")]
    Build(#[from] BuildError),
    #[error("the batch is not one: {0}")]
    Batch(#[from] BatchError),
    #[error("the partition is not in service")]
    NotInService,
    #[error("the log refused: {0}")]
    Log(AppendError),
    #[error("the append was lost: {0:?}")]
    Lost(Lost),
    #[error("the append panicked")]
    Panicked,
}

/// Appends the records of all entries, in order, and waits until they are durable. Gives the entries back.
pub(super) async fn durably(
    broker: &Arc<Broker>,
    index: usize,
    mut round: Vec<Entry>,
) -> Result<Vec<Entry>, NotDurable> {
    // Answers alone: they wait for what was appended before them, which is durable by now.
    if round.iter().all(|entry| entry.records.is_empty()) {
        return Ok(round);
    }
    let mut stopping = broker.stopping();
    loop {
        let shared = Arc::clone(broker);
        let appended = tokio::task::spawn_blocking(move || {
            let ack = append(&shared, index, &round);
            (round, ack)
        });
        let (back, ack) = appended.await.map_err(|_| NotDurable::Panicked)?;
        round = back;
        match ack {
            Ok(Some(ack)) => ack.await.unwrap_or(Err(Lost::Closed)).map_err(NotDurable::Lost)?,
            Ok(None) => {}
            Err(NotDurable::Log(AppendError::NoSpace(error))) => {
                // All of it again: replayed twice, records say the same as once.
                tracing::debug!(partition = index, %error, "the state of groups waits for space");
                tokio::select! {
                    () = tokio::time::sleep(NO_SPACE_PAUSE) => continue,
                    () = stopping.stopped() => return Err(NotDurable::NotInService),
                }
            }
            Err(error) => return Err(error),
        }
        return Ok(round);
    }
}

/// Appends what there is. The acknowledgement is that of the last batch: it comes after those of the others, and a
/// log that loses one loses all behind it.
fn append(broker: &Arc<Broker>, index: usize, round: &[Entry]) -> Result<Option<Ack>, NotDurable> {
    if broker.metadata.read_only().is_some() {
        return Err(NotDurable::NotInService);
    }
    let _under_way = broker.disk.under_way().begin(Instant::now());
    let partition = partition(broker, index)?;
    let records = || round.iter().flat_map(|entry| entry.records.iter().map(|record| (entry.at, record)));
    let mut ack = None;
    for batch in batches(records(), partition.message_bytes_max() as usize)? {
        let accepted = partition.append(&batch, clock::now(), &broker.scheduler);
        ack = Some(accepted.map_err(|refused| match refused {
            Refused::NotLeader | Refused::TimedOut => NotDurable::NotInService,
            Refused::Log(error) => {
                if matches!(error, AppendError::NoSpace(_)) {
                    broker.disk.no_space(Instant::now());
                }
                NotDurable::Log(error)
            }
        })?);
    }
    metrics::count_group_records(records().count());
    Ok(ack.map(|accepted| accepted.ack))
}

/// The partition, with its topic made if need be.
fn partition(broker: &Arc<Broker>, index: usize) -> Result<Arc<Partition>, NotDurable> {
    let topic = match broker.topics.by_name(&topic_name()) {
        Some(topic) => topic,
        None => topic_admin::create_internal(broker, topic_name(), SHARDS)?,
    };
    topic.partitions.get(index).cloned().ok_or(NotDurable::NoPartition)
}

/// Packs records into batches of at most `bytes_max` bytes; a larger record gets a batch of its own.
fn batches<'a>(
    records: impl Iterator<Item = (TimestampMs, &'a Record)>,
    bytes_max: usize,
) -> Result<Vec<Batch>, NotDurable> {
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::new(Codec::None);
    for (timestamp, record) in records {
        let full = builder.plain_bytes() + record.size() + RECORD_OVERHEAD_BYTES > bytes_max
            || builder.count() >= BATCH_RECORDS_MAX;
        if full && builder.count() > 0 {
            let whole = std::mem::replace(&mut builder, BatchBuilder::new(Codec::None));
            batches.push(Batch::new(whole.build()?)?);
        }
        builder.append(&NewRecord {
            timestamp,
            key: Some(&record.key),
            value: record.value.as_deref(),
            headers: &[],
        })?;
    }
    if builder.count() > 0 {
        batches.push(Batch::new(builder.build()?)?);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(value_bytes: usize) -> Record {
        Record { key: Bytes::from_static(b"key"), value: Some(vec![7; value_bytes].into()) }
    }

    fn sizes(records: &[Record], bytes_max: usize) -> Vec<u32> {
        let at = records.iter().map(|record| (TimestampMs(5), record));
        let batches = batches(at, bytes_max).unwrap();
        assert!(batches.iter().all(|batch| batch.bytes().len() <= bytes_max));
        batches.iter().map(|batch| batch.header().record_count).collect()
    }

    #[test]
    fn what_fits_goes_into_one_batch() {
        assert_eq!(sizes(&[record(10), record(20), record(30)], 1_000), [3]);
    }

    #[test]
    fn a_batch_stays_within_the_topics_limit() {
        assert_eq!(sizes(&[record(400), record(400), record(400)], 1_000), [2, 1]);
        assert_eq!(sizes(&[record(800), record(10), record(800)], 1_000), [2, 1]);
    }

    #[test]
    fn tombstones_stay_tombstones() {
        let gone = Record { key: Bytes::from_static(b"key"), value: None };
        let batches = batches(std::iter::once((TimestampMs(5), &gone)), 1_000).unwrap();

        let read = batches[0].records().unwrap().next().unwrap().unwrap();
        assert_eq!((read.key, read.value, read.timestamp), (Some(&b"key"[..]), None, TimestampMs(5)));
    }
}
