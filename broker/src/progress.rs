//! How far the start has come: counted while partitions recover, told by `/readyz` and, once a second, by the log. Once
//! the start is over, `/readyz` tells of the partitions that there are by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use highwater_record::TopicPartition;
use parking_lot::Mutex;

use crate::disk::DiskReading;

/// How far the recovery of the partitions has come.
#[derive(Default)]
pub(crate) struct RecoveryProgress {
    pub(crate) total: AtomicUsize,
    pub(crate) recovered: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    /// Bytes that were checked so far.
    pub(crate) scanned_bytes: Arc<AtomicU64>,
    /// Bytes that are to be checked, as far as that is known.
    pub(crate) unsynced_bytes: AtomicU64,
    pub(crate) done: AtomicBool,
    /// The broker stops before all have recovered: no further log is opened, none is read to its end.
    pub(crate) given_up: Arc<AtomicBool>,
    /// The partition that was begun last.
    under_way: Mutex<Option<TopicPartition>>,
}

/// A reading of [`RecoveryProgress`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    total: usize,
    recovered: usize,
    failed: usize,
    scanned_bytes: u64,
    unsynced_bytes: u64,
    done: bool,
}

impl RecoveryProgress {
    /// Notes which partition is being recovered.
    pub(crate) fn begin(&self, partition: &TopicPartition) {
        *self.under_way.lock() = Some(partition.clone());
    }

    /// A partition does not open at the start.
    pub(crate) fn fail(&self, partition: &TopicPartition, error: &dyn std::fmt::Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            %partition, %error,
            "cannot open a partition; it stays out of service, its files are untouched"
        );
    }

    /// A partition does not open at its first use, although it was in service.
    pub(crate) fn fail_later(&self, partition: &TopicPartition, error: &dyn std::fmt::Display) {
        if !self.done.load(Ordering::Acquire) {
            self.recovered.fetch_sub(1, Ordering::Relaxed);
        }
        self.fail(partition, error);
    }

    /// Leaves what has not recovered yet to the next start.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether what has not recovered yet is left to the next start.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// A reading.
    pub(crate) fn read(&self) -> Progress {
        Progress {
            total: self.total.load(Ordering::Relaxed),
            recovered: self.recovered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            scanned_bytes: self.scanned_bytes.load(Ordering::Relaxed),
            unsynced_bytes: self.unsynced_bytes.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Acquire),
        }
    }

    /// Says in the log how far it has come.
    pub(crate) fn log(&self) {
        let under_way = self.under_way.lock().clone();
        let partition = under_way.map(|partition| partition.to_string()).unwrap_or_default();
        tracing::info!(partition, "{}", self.read().sentence());
    }
}

impl Progress {
    /// Whether every partition that can serve does.
    pub(crate) const fn is_ready(&self) -> bool {
        self.done
    }

    /// The same once the start is over: of `total` partitions so many are `in_service`.
    pub(crate) const fn of(self, total: usize, in_service: usize) -> Self {
        Self { total, recovered: in_service, failed: total - in_service, ..self }
    }

    /// In words.
    pub(crate) fn sentence(&self) -> String {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let Self { total, recovered, failed, .. } = *self;
        if self.done {
            return "ready".to_owned();
        }
        // What is being scanned may have grown since it was measured by names alone.
        let unsynced_bytes = self.unsynced_bytes.max(self.scanned_bytes);
        format!(
            "recovering: {} of {total} partitions, {:.1} of {:.1} GiB scanned",
            recovered + failed,
            gib(self.scanned_bytes),
            gib(unsynced_bytes)
        )
    }

    /// The body of `/readyz`; `read_only` is why nothing can be changed, if nothing can. What is wrong with the disk is
    /// said as well, and is no reason to be sent no requests: reads go on.
    pub(crate) fn to_json(self, read_only: Option<&str>, disk: &DiskReading) -> String {
        let Self { total, recovered, failed, scanned_bytes, unsynced_bytes, done } = self;
        let status = self.sentence();
        let why = |name: &str, reason: Option<&str>| {
            reason.map_or_else(String::new, |why| format!(",\"{name}\":{}", serde_json::Value::from(why)))
        };
        let read_only = why("read_only", read_only);
        let full = why("disk_full", disk.full.as_deref());
        let slow = why("disk_slow", disk.slow.as_deref());
        format!(
            "{{\"ready\":{done},\"status\":\"{status}\",\"partitions\":{total},\"recovered\":{recovered},\
             \"failed\":{failed},\"scanned_bytes\":{scanned_bytes},\"unsynced_bytes\":{unsynced_bytes}{read_only}{full}{slow}}}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use highwater_record::{PartitionId, TopicName};

    use super::*;

    #[test]
    fn progress_is_told_in_partitions_and_bytes() {
        let progress = RecoveryProgress::default();
        progress.total.store(10_000, Ordering::Relaxed);
        progress.recovered.store(311, Ordering::Relaxed);
        progress.failed.store(1, Ordering::Relaxed);
        progress.scanned_bytes.store(6 << 28, Ordering::Relaxed);
        progress.unsynced_bytes.store(4 << 30, Ordering::Relaxed);

        let reading = progress.read();

        assert!(!reading.is_ready());
        assert_eq!(reading.sentence(), "recovering: 312 of 10000 partitions, 1.5 of 4.0 GiB scanned");
        assert_eq!(
            reading.to_json(None, &DiskReading::default()),
            "{\"ready\":false,\"status\":\"recovering: 312 of 10000 partitions, 1.5 of 4.0 GiB scanned\",\
             \"partitions\":10000,\"recovered\":311,\"failed\":1,\"scanned_bytes\":1610612736,\
             \"unsynced_bytes\":4294967296}\n"
        );
        let full = DiskReading { full: Some("no \"space\"".to_owned()), ..DiskReading::default() };
        assert!(reading.to_json(None, &full).ends_with(",\"disk_full\":\"no \\\"space\\\"\"}\n"));
    }

    #[test]
    fn a_partition_that_fails_later_is_no_longer_counted_as_recovered() {
        let progress = RecoveryProgress::default();
        progress.recovered.store(3, Ordering::Relaxed);
        let (topic, partition) = (TopicName::new("logs").unwrap(), PartitionId::new(0).unwrap());
        let partition = TopicPartition { topic, partition };

        progress.fail_later(&partition, &"gone");

        let reading = progress.read();
        assert_eq!((reading.recovered, reading.failed), (2, 1));
    }
}
