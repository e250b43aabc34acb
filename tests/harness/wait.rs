//! Waiting for a condition instead of for a time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

/// How long a test waits for what must happen. Nothing that works comes near it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Lets a time pass, for tests that give the broker something at a pace. Never to let something happen: that is
/// what [`until`] is for.
pub(crate) fn beat(interval: Duration) {
    let start = Instant::now();
    while let Some(left) = interval.checked_sub(start.elapsed()) {
        thread::park_timeout(left);
    }
}

/// Returns once `condition` holds; fails, naming `what` was waited for, if it never does.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !condition()? {
        ensure!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::park_timeout(INTERVAL);
    }
    Ok(())
}
