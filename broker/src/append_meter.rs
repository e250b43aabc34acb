//! Counts what is appended, so that a checkpoint is written before the tail that a crash leaves grows long.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// A checkpoint is due when this much was appended since the last one.
const CHECKPOINT_BYTES: u64 = 256 << 20;

/// Bytes since the last checkpoint.
#[derive(Default)]
pub(crate) struct AppendMeter {
    bytes: AtomicU64,
    due: Notify,
}

impl AppendMeter {
    /// Counts an append.
    pub(crate) fn count(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before < CHECKPOINT_BYTES && before + bytes >= CHECKPOINT_BYTES {
            self.due.notify_one();
        }
    }

    /// Completes when a checkpoint is due.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// Counts from zero again: a checkpoint is about to be written.
    pub(crate) fn reset(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_due(meter: &AppendMeter) -> bool {
        let due = std::pin::pin!(meter.due());
        due.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn a_checkpoint_is_due_after_256_mib_and_not_before() {
        let meter = AppendMeter::default();

        meter.count(CHECKPOINT_BYTES - 1);
        assert!(!is_due(&meter));
        meter.count(1);
        assert!(is_due(&meter));

        // Told once; what is appended until the checkpoint is written is covered by it.
        meter.count(CHECKPOINT_BYTES);
        assert!(!is_due(&meter));
        meter.reset();
        meter.count(CHECKPOINT_BYTES);
        assert!(is_due(&meter));
    }
}
