//! The life of a broker: bind, open, recover, serve, stop.
//!
//! The port opens before the partitions have recovered; until then they answer NOT_LEADER_OR_FOLLOWER, and groups
//! COORDINATOR_LOAD_IN_PROGRESS until they are loaded, which comes after it. A stop is heard from the first moment on, and
//! a disk that hangs holds it up to its deadline at most. Neither start nor stop syncs partition by partition: one
//! `syncfs` makes all recovered tails, or all that is left, durable.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_storage::{
    BoundedFiles, DataDir, DataDirError, DiskFiles, FileLayer, FilePool, MetaLog, MetaOpenError,
};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::broker::{AppendPace, Broker};
use crate::buffers::BufferPool;
use crate::config::{Config, ConnectionLimits};
use crate::connection_limits::Doorkeeper;
use crate::disk::{self, Disk};
use crate::fetch::FetchSessions;
use crate::graves::Graves;
use crate::groups::{self, Groups};
use crate::listener::{self, ListenError};
use crate::log_opener::LogOpener;
use crate::memory::{Bytes, DECODES_MAX, Memory, resident_peak_bytes};
use crate::meta::{Metadata, MetadataError, ProducerIds};
use crate::progress::RecoveryProgress;
use crate::quotas::Quotas;
use crate::shutdown::Shutdown;
use crate::sync_scheduler::SyncScheduler;
use crate::topics::Topics;
use crate::{checkpointer, cleaner, clock, manifests, metrics, read_only, recovery, retention};

/// How long connections may take to finish what they have begun when the broker stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// How long a stop may take in all: a disk that hangs must not keep the process. Less than the 30 s after which a container
/// is usually killed.
const STOP_DEADLINE: Duration = Duration::from_secs(25);

/// What a broker that serves can tell about itself.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The addresses that it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Its data directory.
    pub data: PathBuf,
    /// Time from the start until every partition had recovered.
    pub took: Duration,
}

/// Why a broker does not start, or stops by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// No listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// The metadata log cannot be opened.
    #[error("cannot open the metadata log: {0}")]
    MetaLog(#[from] MetaOpenError),
    /// The metadata cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The system gives no threads.
    #[error("cannot start the sync threads: {0}")]
    Threads(std::io::Error),
    /// What was appended last may not be durable.
    #[error(
        "cannot make the last appends durable: {0}; acknowledged records are safe, the next start recovers the rest"
    )]
    LastSync(std::io::Error),
    /// The disk hangs.
    #[error(
        "the disk of {} did not let the broker stop within {} s and it ends as it is; acknowledged records are as safe as \
         after a kill, the next start recovers the rest", data.display(), STOP_DEADLINE.as_secs()
    )]
    Hung {
        /// The data directory.
        data: PathBuf,
    },
    /// A part of the broker panicked.
    #[error("a part of the broker panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// How many reactor threads a broker wants: one more than there are cores, so that appends on all but one of them
/// leave a thread for heartbeats and health.
pub fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get) + 1
}

/// Runs a broker until `stop` completes, calling `ready` once all partitions serve.
///
/// # Errors
/// If it cannot start, or cannot stop cleanly. Acknowledged records are safe in either case. After [`RunError::Hung`] there
/// are threads that wait for the disk, and the process should end without waiting for them.
pub async fn run(
    config: Config,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    let (shutdown, data) = (Shutdown::new(), config.data.clone());
    let mut life = pin!(live(config, shutdown.clone(), ready));
    tokio::select! {
        ended = &mut life => return ended,
        () = stop => {}
    }
    tracing::info!("stopping");
    shutdown.stop();
    let stopped = tokio::time::timeout(STOP_DEADLINE, life).await;
    stopped.unwrap_or(Err(RunError::Hung { data }))
}

/// All that a broker does until `shutdown` says stop, wherever that finds it, and what is to be done then.
async fn live(config: Config, shutdown: Shutdown, ready: impl FnOnce(&Ready)) -> Result<(), RunError> {
    let began = Instant::now();
    metrics::install();
    highwater_storage::explain_sigbus();
    raise_descriptor_limit();
    // Bound first: a start that finds its port taken has touched nothing.
    let listeners = listener::bind(&config)?;
    let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let broker = tokio::task::spawn_blocking(move || open(config, shutdown)).await??;

    tracing::info!(
        "memory budget: {} ({}), requests of up to {}",
        broker.memory.budget(),
        broker.config().memory_origin,
        Bytes(broker.memory.frame_bytes_max().into())
    );

    let mut serving = JoinSet::new();
    let door = Doorkeeper::new(broker.config().connections);
    for listener in listeners {
        serving.spawn(listener::serve(listener, Arc::clone(&door), Arc::clone(&broker)));
    }
    let mut background =
        vec![tokio::spawn(disk::run(Arc::clone(&broker))), tokio::spawn(metrics::keep_up(broker.stopping()))];
    if recover(&broker).await? {
        recovery::finish_deletions(&broker).await;
        background.extend([
            tokio::spawn(checkpointer::run(Arc::clone(&broker))),
            tokio::spawn(manifests::run(Arc::clone(&broker))),
            tokio::spawn(groups::run_timers(Arc::clone(&broker))),
            tokio::spawn(cleaner::run(Arc::clone(&broker))),
            tokio::spawn(retention::run(Arc::clone(&broker))),
        ]);
        ready(&Ready { addresses, data: broker.data.path().to_owned(), took: began.elapsed() });
        broker.stopping().stopped().await;
    }
    finish(broker, background, serving).await
}

/// Brings the partitions into service. False if a stop comes first: what has not recovered by then is left to the next
/// start.
async fn recover(broker: &Arc<Broker>) -> Result<bool, RunError> {
    let shared = Arc::clone(broker);
    let mut recovering = tokio::task::spawn_blocking(move || recovery::recover(&shared));
    let mut stopping = broker.stopping();
    tokio::select! {
        recovered = &mut recovering => recovered?,
        () = stopping.stopped() => {
            broker.recovery.give_up();
            recovering.await?;
        }
    }
    let progress = broker.recovery.read();
    if !progress.is_ready() {
        tracing::warn!(
            "the stop ends the recovery, which the next start begins again: {}",
            progress.sentence()
        );
    }
    Ok(progress.is_ready())
}

/// Waits for what the broker does, as far as connections have time for that, and puts everything away.
async fn finish(
    broker: Arc<Broker>,
    background: Vec<JoinHandle<()>>,
    mut serving: JoinSet<()>,
) -> Result<(), RunError> {
    for task in background {
        task.await?;
    }
    let drained =
        tokio::time::timeout(DRAIN_DEADLINE, async { while serving.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("connections did not finish within {} s and are cut", DRAIN_DEADLINE.as_secs());
        serving.shutdown().await;
    }
    say_memory(&broker.memory);
    tokio::task::spawn_blocking(move || recovery::close(&broker)).await?.map_err(RunError::LastSync)
}

/// Descriptors that are neither a connection's nor a segment's: listeners, files that are opened and closed at once.
const DESCRIPTORS_SPARE: u64 = 256;
/// Fewer would have one thread close what the next one opens.
const DESCRIPTORS_MIN: u64 = 64;

/// How many files logs may keep open: what the process may, less what connections may need, which is what
/// `--max-connections` says or a quarter of all.
fn descriptors_for_logs(connections: &ConnectionLimits) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = limit.current.unwrap_or(u64::from(u32::MAX));
    let connections = connections.total.map_or(all / 4, u64::from);
    let left = all.saturating_sub(connections).saturating_sub(DESCRIPTORS_SPARE).max(DESCRIPTORS_MIN);
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// Holds what was used against the budget.
fn say_memory(memory: &Memory) {
    let reading = memory.reading();
    tracing::info!(
        "memory: {} resident at most (VmHWM), of a budget of {}; requests and answers held {} at most",
        resident_peak_bytes().map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string()),
        memory.budget(),
        Bytes(reading.peak_bytes)
    );
}

/// Takes all the descriptors that the system allows: every active segment and every connection needs one.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, all) {
        tracing::warn!(%error, ?limit, "cannot raise the limit of open files");
    }
}

/// Opens everything but the partitions' logs. `shutdown` is what tells the parts of the broker that it stops.
pub(crate) fn open(config: Config, shutdown: Shutdown) -> Result<Arc<Broker>, RunError> {
    let pool = FilePool::new(descriptors_for_logs(&config.connections));
    let files: Arc<dyn FileLayer> = Arc::new(BoundedFiles::new(Arc::new(DiskFiles), pool));
    if let Some(parent) = config.data.parent() {
        // Whatever is wrong with the parents, opening the directory itself says it.
        let _ = std::fs::create_dir_all(parent);
    }
    let data = Arc::new(DataDir::open(config.data.clone(), Arc::clone(&files))?);
    let known_end = checkpointer::metadata_end(&data);
    let store = MetaLog::open(Arc::clone(&files), data.path(), known_end, clock::now())?;
    let damage = store.damage().cloned();
    let disk = Disk::new(data.path().to_owned(), config.disk_reserve);
    let metadata = Arc::new(Metadata::new(Box::new(store), Arc::clone(disk.under_way())));
    let previous_epoch = metadata.incarnation()?;
    let epoch = match read_only::reason(&data, &metadata, damage.as_ref())? {
        Some(reason) => {
            tracing::error!("{reason}");
            metadata.freeze(reason);
            previous_epoch.unwrap_or_default()
        }
        None => metadata.next_incarnation()?,
    };
    let cluster_id = metadata.cluster_id()?;
    let quotas = Quotas::new(metadata.quotas()?);
    let for_syncs = Arc::clone(&metadata);
    let next_epoch = Arc::new(move || match for_syncs.next_incarnation() {
        Ok(epoch) => Some(epoch),
        Err(error) => {
            tracing::error!(%error, "cannot take a new leader epoch");
            None
        }
    });
    let recovery = Arc::new(RecoveryProgress::default());
    let opener = LogOpener::new(Arc::clone(&data), Arc::clone(&metadata), Arc::clone(&recovery), epoch);
    let memory = Arc::new(Memory::new(config.memory, config.request_bytes_max));
    disk.measure(&*files, Instant::now());
    disk.check_reserve();
    let scheduler = SyncScheduler::start(next_epoch, Arc::clone(disk.under_way()), config.filled_sync_delay)
        .map_err(RunError::Threads)?;
    let broker = Arc::new(Broker {
        files,
        data,
        disk,
        opener,
        metadata,
        cluster_id,
        epoch,
        previous_epoch,
        topics: Topics::default(),
        topic_changes: parking_lot::Mutex::new(()),
        graves: Graves::default(),
        producer_ids: ProducerIds::new(),
        fetch_sessions: FetchSessions::new(),
        quotas,
        quota_changes: parking_lot::Mutex::new(()),
        scheduler,
        append_slots: Semaphore::new(worker_threads() - 1),
        append_pace: AppendPace::default(),
        decode_slots: Semaphore::new(DECODES_MAX),
        buffers: Arc::new(BufferPool::new(Arc::clone(&memory))),
        groups: Groups::new(memory.members_bytes_max()),
        memory,
        shutdown,
        recovery,
        config,
    });
    recovery::register(&broker)?;
    Ok(broker)
}
