//! Keeps the manifests of sealed segments up to date, off the reactor.
//!
//! A pass ends when the broker stops: what is missing then is entered after a later roll.

use std::sync::Arc;
use std::time::Duration;

use highwater_storage::Log;

use crate::broker::Broker;
use crate::partition::Partition;

/// How often partitions are asked whether they sealed a segment.
const INTERVAL: Duration = Duration::from_secs(5);

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
            let stopping = shared.stopping();
            let topics = shared.topics.all();
            let partitions = topics.iter().flat_map(|topic| &topic.partitions);
            partitions.take_while(|_| !stopping.is_stopped()).for_each(|partition| update(partition));
        });
        if let Err(error) = pass.await {
            tracing::error!(%error, "writing manifests panicked");
        }
    }
}

fn update(partition: &Partition) {
    let Some(job) = partition.with_log(Log::manifest_job).flatten() else { return };
    match job.run() {
        Ok(()) => {}
        // Deleted meanwhile.
        Err(_) if partition.leader_epoch().is_err() => {}
        Err(error) => {
            tracing::warn!(partition = %partition.id(), %error, "the manifest is not written; a missing segment is not known by its name then");
        }
    }
}
