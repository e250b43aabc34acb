//! Retention: what of a topic is too old, or more than is wanted, goes with the next pass.
//!
//! A pass asks every partition where its log may begin; a log that is not open is opened only if something of it goes.
//! New log starts are durable in the metadata, all of a pass in one transaction, before a log moves and files are
//! removed (design D2). Segments that nobody appends to are closed by the broker's clock, so that their records go too.
//!
//! While the clock is not to be trusted, because it has just jumped, nothing goes for its age.

use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_record::TimestampMs;
use highwater_storage::Retention;

use crate::broker::Broker;
use crate::clock;
use crate::log_starts::{self, Found};

/// A clock that is off by more than this, against the time that has passed since the last look, has jumped.
const JUMP: Duration = Duration::from_secs(10 * 60);
/// For how long a clock that has jumped is not trusted: somebody may put it right.
const SUSPICION: Duration = Duration::from_secs(60 * 60);

/// Passes over all partitions until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    let mut stopping = broker.stopping();
    let mut watch = ClockWatch::new(clock::now(), Instant::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(broker.config().retention_check_interval) => {}
            () = stopping.stopped() => return,
        }
        let now = clock::now();
        let trusted = watch.trusts(now, Instant::now());
        let broker = Arc::clone(&broker);
        if let Err(error) = tokio::task::spawn_blocking(move || pass(&broker, now, trusted)).await {
            tracing::error!(%error, "a pass of retention panicked");
        }
    }
}

/// Removes what is to go from every partition. Blocks on the disk.
fn pass(broker: &Broker, now: TimestampMs, by_age: bool) {
    if broker.metadata.read_only().is_some() {
        return;
    }
    let mut moves = Vec::new();
    for topic in broker.topics.all() {
        let Retention { age_ms, bytes } = topic.settings.retention;
        let retention = Retention { age_ms: age_ms.filter(|_| by_age), bytes };
        for partition in &topic.partitions {
            if let Some(start) = partition.retained_from(retention, now, &broker.scheduler) {
                moves.push(Found { topic: topic.id, partition: Arc::clone(partition), start });
            }
        }
    }
    if !moves.is_empty() {
        log_starts::retain(broker, &moves);
    }
}

/// Notices that the clock has jumped.
struct ClockWatch {
    wall: TimestampMs,
    at: Instant,
    suspected: Option<Instant>,
}

impl ClockWatch {
    const fn new(wall: TimestampMs, at: Instant) -> Self {
        Self { wall, at, suspected: None }
    }

    /// Whether what the clock says may be believed.
    fn trusts(&mut self, wall: TimestampMs, at: Instant) -> bool {
        let passed_ms = at.saturating_duration_since(self.at).as_millis().cast_signed();
        let off_ms = i128::from(wall.0) - i128::from(self.wall.0) - passed_ms;
        (self.wall, self.at) = (wall, at);
        if off_ms.unsigned_abs() > JUMP.as_millis() {
            self.suspected = Some(at);
            tracing::warn!(
                "the clock jumped by {} s: nothing is deleted for its age for the next {} minutes",
                off_ms / 1000,
                SUSPICION.as_secs() / 60
            );
        }
        self.suspected.is_none_or(|since| at.saturating_duration_since(since) >= SUSPICION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_not_trusted_for_an_hour() {
        let (wall, began) = (1_700_000_000_000, Instant::now());
        let mut watch = ClockWatch::new(TimestampMs(wall), began);
        let mut trusts = |minutes: u64, off_ms: i64| {
            let passed = Duration::from_secs(60 * minutes);
            watch.trusts(TimestampMs(wall + 60_000 * minutes.cast_signed() + off_ms), began + passed)
        };

        assert!(trusts(5, 0));
        assert!(trusts(10, 600_000), "ten minutes are no jump");
        assert!(!trusts(15, 4_200_001));
        assert!(!trusts(74, 4_200_001));
        assert!(trusts(75, 4_200_001));
        assert!(!trusts(80, 0), "going back is a jump too");
    }
}
