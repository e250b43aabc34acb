//! Keeps the manifests of sealed segments up to date, slowly and off the reactor.
//!
//! A manifest costs reading each sealed segment once more, soon after it was written and so mostly from memory. It is
//! throttled, and given up when the broker stops: what is missing then is entered after a later roll.

use std::sync::Arc;
use std::time::Duration;

use highwater_storage::Log;
use tokio::runtime::Handle;

use crate::broker::Broker;
use crate::partition::Partition;

/// How often partitions are asked whether they sealed a segment.
const INTERVAL: Duration = Duration::from_secs(5);
/// Bytes that are read in a second at most.
const BYTES_PER_SECOND: u64 = 64 << 20;

/// Runs until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    if broker.metadata.read_only().is_some() {
        return;
    }
    let mut stopping = broker.stopping();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stopping.stopped() => return,
        }
        let shared = Arc::clone(&broker);
        let pass = tokio::task::spawn_blocking(move || {
            for topic in shared.topics.all() {
                topic.partitions.iter().for_each(|partition| update(&shared, partition));
            }
        });
        if let Err(error) = pass.await {
            tracing::error!(%error, "writing manifests panicked");
        }
    }
}

fn update(broker: &Broker, partition: &Partition) {
    let Some(job) = partition.with_log(Log::manifest_job).flatten() else { return };
    let result = job.run(|bytes| {
        let pause = Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_SECOND);
        let mut stopping = broker.stopping();
        Handle::current().block_on(tokio::time::timeout(pause, stopping.stopped())).is_err()
    });
    match result {
        Ok(()) => {}
        // Deleted meanwhile.
        Err(_) if partition.leader_epoch().is_err() => {}
        Err(error) => {
            tracing::warn!(partition = %partition.id(), %error, "the manifest is not written; a missing segment is not known by its name then");
        }
    }
}
