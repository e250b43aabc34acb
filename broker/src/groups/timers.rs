//! The timers of all machines: one task that sleeps until the earliest of them is due.

use std::sync::Arc;
use std::time::Duration;

use super::shard::{self, Place};
use crate::broker::Broker;

/// How long the task sleeps at most: a machine that came into service meanwhile is found by its notice, this is for
/// the clock that stood still.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Runs what is due until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    let mut stopping = broker.stopping();
    if broker.metadata.read_only().is_some() {
        // What a timer does could not be stored.
        return stopping.stopped().await;
    }
    let groups = &broker.groups;
    loop {
        // From here on every time that a machine names wakes this task, until it knows how long it sleeps.
        groups.alarm.look();
        let now_ms = groups.now().monotonic_ms;
        let latest_ms = now_ms + u64::try_from(SLEEP_MAX.as_millis()).unwrap_or(u64::MAX);
        // A machine may name a time that is too early, but one look each millisecond is enough for any.
        let earliest = groups.shards.iter().filter_map(shard::Shard::due_ms).min();
        let until_ms = earliest.unwrap_or(latest_ms).clamp(now_ms + 1, latest_ms);
        groups.alarm.looks_at(until_ms);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(until_ms - now_ms)) => {}
            () = groups.alarm.sooner() => {}
            () = stopping.stopped() => return,
        }
        expire(&broker);
    }
}

/// Tells every machine whose time has come.
fn expire(broker: &Arc<Broker>) {
    let now_ms = broker.groups.now().monotonic_ms;
    for (index, shard) in broker.groups.shards.iter().enumerate() {
        if shard.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            // One that went out of service meanwhile has no timers.
            let _ = shard::tell(Place { broker, index }, |machine, now| ((), machine.expire(now)));
        }
    }
}
