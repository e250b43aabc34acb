//! How far a group is behind: in records, and in seconds since the first record that it has not read was written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use highwater_client::{Client, Consumer, ConsumerConfig, FetchError};
use highwater_record::{Offset, PartitionId, TimestampMs, TopicName, TopicPartition};
use tokio::time::Instant;

use crate::resolve::{self, Ends};

/// How long the first unread records are waited for. What is not there by then has an unknown age.
const PATIENCE: Duration = Duration::from_secs(5);

/// Both ends of the partitions that exist, whichever their topics.
pub(super) async fn ends(
    client: &Client,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Ends>> {
    let mut topics: BTreeMap<&TopicName, Vec<PartitionId>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    let names: Vec<TopicName> = topics.keys().map(|name| (*name).clone()).collect();
    let cluster = client.describe(&names).await?;
    let mut all = BTreeMap::new();
    for (name, mut ids) in topics {
        // A commit may outlive its topic.
        let Some(Ok(topic)) = cluster.topics.get(name) else { continue };
        ids.retain(|id| topic.partition(*id).is_some());
        let found = resolve::ends(client, name, &ids).await?;
        let key = |id| TopicPartition { topic: name.clone(), partition: id };
        all.extend(found.into_iter().map(|(id, ends)| (key(id), ends)));
    }
    Ok(all)
}

/// How many records are between a committed offset and the end; never fewer than none.
pub(super) fn records(committed: Offset, ends: Ends) -> u64 {
    if committed >= ends.end { 0 } else { ends.end.since(committed.max(ends.start)) }
}

/// When the first unread record of each partition was written. Partitions that cannot be read are left out.
pub(super) async fn first_unread(
    client: &Client,
    positions: &BTreeMap<TopicPartition, Offset>,
) -> BTreeMap<TopicPartition, TimestampMs> {
    let mut found = BTreeMap::new();
    // The first batch comes whole however little is asked for, and no more than it.
    let config = ConsumerConfig { partition_bytes: 1, ..ConsumerConfig::default() };
    let mut consumer = Consumer::new(client.clone(), config);
    for (partition, offset) in positions {
        consumer.assign(partition.clone(), *offset);
    }
    let deadline = Instant::now() + PATIENCE;
    while !consumer.positions().is_empty() {
        let Ok(polled) = tokio::time::timeout_at(deadline, consumer.poll()).await else { break };
        match polled {
            Ok(partitions) => {
                for read in partitions {
                    let first = read.batches.iter().find_map(|batch| batch.records().next()?.ok());
                    if let Some(record) = first {
                        found.insert(read.partition.clone(), record.timestamp);
                        consumer.unassign(&read.partition);
                    }
                }
            }
            Err(error) => match partition_of(&error) {
                Some(partition) => consumer.unassign(partition),
                None => break,
            },
        }
    }
    found
}

fn partition_of(error: &FetchError) -> Option<&TopicPartition> {
    match error {
        FetchError::OutOfRange { partition, .. }
        | FetchError::Lost { partition, .. }
        | FetchError::Broker { partition, .. }
        | FetchError::Batch { partition, .. }
        | FetchError::Codec { partition, .. } => Some(partition),
        _ => None,
    }
}

/// Seconds from `then` to `now`; a clock that is behind makes none of them negative.
pub(super) fn seconds(then: TimestampMs, now: TimestampMs) -> u64 {
    u64::try_from(now.0.saturating_sub(then.0)).unwrap_or(0) / 1000
}

/// A lag in words: `4m07s`.
pub(super) fn words(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    #[test]
    fn lag_counts_what_can_still_be_read() {
        let ends = Ends { start: at(100), end: at(200) };

        assert_eq!(records(at(150), ends), 50);
        assert_eq!(records(at(200), ends), 0);
        assert_eq!(records(at(250), ends), 0);
        assert_eq!(records(at(10), ends), 100);
    }

    #[test]
    fn lag_is_said_in_the_unit_that_matters() {
        let said: Vec<String> = [0, 59, 247, 3 * 3600 + 60, 2 * 86_400 + 3600].map(words).into();

        assert_eq!(said, ["0s", "59s", "4m07s", "3h01m", "2d01h"]);
    }

    #[test]
    fn a_record_from_the_future_is_not_behind() {
        assert_eq!(seconds(TimestampMs(5000), TimestampMs(1000)), 0);
        assert_eq!(seconds(TimestampMs(1000), TimestampMs(5999)), 4);
    }
}
