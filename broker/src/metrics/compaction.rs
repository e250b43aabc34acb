//! What is counted of compaction.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

static COMPACTION: LazyLock<Compaction> = LazyLock::new(Compaction::register);

struct Compaction {
    passes: Counter,
    failures: Counter,
    bytes: Counter,
    reclaimed: Counter,
    dirty: Gauge,
    blocked: Gauge,
    last: Gauge,
}

impl Compaction {
    fn register() -> Self {
        describe_counter!(
            "highwater_compactions_total",
            "Logs that were compacted, up to an end or to a full table."
        );
        describe_counter!(
            "highwater_compaction_failures_total",
            "Logs whose compaction ended early for damage or an error of the disk."
        );
        describe_counter!("highwater_compaction_bytes_total", "Bytes that compaction read and wrote.");
        describe_counter!(
            "highwater_compaction_reclaimed_bytes_total",
            "Bytes of segments that compaction gave back."
        );
        describe_gauge!(
            "highwater_compaction_dirty_ratio_max",
            "The largest part of a compacted log that waits for compaction."
        );
        describe_gauge!(
            "highwater_compaction_blocked_logs",
            "Logs that are compacted no further because of a damaged batch, which the log names; a start tries again."
        );
        describe_gauge!("highwater_compaction_last_seconds", "How long the last compaction of a log took.");
        Self {
            passes: counter!("highwater_compactions_total"),
            failures: counter!("highwater_compaction_failures_total"),
            bytes: counter!("highwater_compaction_bytes_total"),
            reclaimed: counter!("highwater_compaction_reclaimed_bytes_total"),
            dirty: gauge!("highwater_compaction_dirty_ratio_max"),
            blocked: gauge!("highwater_compaction_blocked_logs"),
            last: gauge!("highwater_compaction_last_seconds"),
        }
    }
}

/// Registers them.
pub(super) fn install() {
    LazyLock::force(&COMPACTION);
}

/// The largest part of a log that waits for compaction.
pub(crate) fn set_dirty_ratio_max(ratio: f64) {
    COMPACTION.dirty.set(ratio);
}

/// Logs that damage keeps from being compacted.
pub(crate) fn set_compaction_blocked(logs: usize) {
    COMPACTION.blocked.set(logs as f64);
}

/// A log was compacted in `elapsed`.
pub(crate) fn observe_compaction(elapsed: Duration, bytes: u64, reclaimed: u64) {
    COMPACTION.passes.increment(1);
    COMPACTION.bytes.increment(bytes);
    COMPACTION.reclaimed.increment(reclaimed);
    COMPACTION.last.set(elapsed.as_secs_f64());
}

/// The compaction of a log ended early.
pub(crate) fn count_compaction_failure() {
    COMPACTION.failures.increment(1);
}
