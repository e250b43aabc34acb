//! What the broker counts. Callers say what happened (`observe_sync(elapsed)`); names and labels live only here.
//!
//! The `metrics` facade is process-wide by its nature: the recorder is installed once, however many brokers a test
//! starts in one process. Handles are looked up once, so that the hot path pays one atomic addition.

mod compaction;
mod groups;
mod memory;

use std::sync::LazyLock;
use std::time::Duration;

use highwater_protocol::ApiKey;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::disk::DiskReading;
use crate::shutdown::Stopping;

pub(crate) use compaction::{
    count_compaction_failure, observe_compaction, set_compaction_blocked, set_dirty_ratio_max,
};
pub(crate) use groups::{count_group_records, count_groups, observe_groups_load, set_groups};
pub(crate) use memory::set_memory;

/// Upper bounds of latency buckets, in seconds.
const LATENCY_BUCKETS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

static EXPORTER: LazyLock<Option<PrometheusHandle>> = LazyLock::new(|| {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), LATENCY_BUCKETS)
        .expect("the bucket list is not empty");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // An embedding program may have its own recorder: then it exports, and /metrics here stays empty.
    metrics::set_global_recorder(recorder).ok().map(|()| handle)
});

static HANDLES: LazyLock<Handles> = LazyLock::new(Handles::register);

struct Handles {
    connections: Gauge,
    refused_protocols: Counter,
    refused_by_limits: Counter,
    hangups: Counter,
    requests: Vec<(ApiKey, Counter, Histogram)>,
    produced_bytes: Counter,
    produced_records: Counter,
    produced_duplicates: Counter,
    fetched_bytes: Counter,
    fetches_cold: Counter,
    fetches_parked: Gauge,
    fetch_wakes: Counter,
    fetch_partitions_read: Counter,
    fetch_sessions: Gauge,
    fetch_session_partitions: Gauge,
    fetch_session_evictions: Counter,
    appends_pooled: Counter,
    throttled_produces: Counter,
    throttled_fetches: Counter,
    ack_wait: Histogram,
    syncs: Histogram,
    sync_failures: Counter,
    partitions: Gauge,
    topics: Gauge,
    quarantined_ranges: Gauge,
    quarantined_offsets: Gauge,
    read_only: Gauge,
    disk_free: Gauge,
    disk_full: Gauge,
    disk_slow: Gauge,
    disk_stalled: Gauge,
    deleted_bytes: Counter,
}

impl Handles {
    fn register() -> Self {
        describe_all();
        Self {
            connections: gauge!("highwater_connections"),
            refused_protocols: counter!("highwater_connections_refused_total", "reason" => "protocol"),
            refused_by_limits: counter!("highwater_connections_refused_total", "reason" => "limit"),
            hangups: counter!("highwater_connections_dropped_total"),
            requests: ApiKey::ALL.iter().map(|key| Self::of_requests(*key)).collect(),
            produced_bytes: counter!("highwater_produced_bytes_total"),
            produced_records: counter!("highwater_produced_records_total"),
            produced_duplicates: counter!("highwater_produced_duplicate_batches_total"),
            fetched_bytes: counter!("highwater_fetched_bytes_total"),
            fetches_cold: counter!("highwater_fetches_cold_total"),
            fetches_parked: gauge!("highwater_fetches_parked"),
            fetch_wakes: counter!("highwater_fetch_wakes_total"),
            fetch_partitions_read: counter!("highwater_fetch_partitions_read_total"),
            fetch_sessions: gauge!("highwater_fetch_sessions"),
            fetch_session_partitions: gauge!("highwater_fetch_session_partitions"),
            fetch_session_evictions: counter!("highwater_fetch_session_evictions_total"),
            appends_pooled: counter!("highwater_appends_pooled_total"),
            throttled_produces: counter!("highwater_throttled_total", "quota" => "producer_byte_rate"),
            throttled_fetches: counter!("highwater_throttled_total", "quota" => "consumer_byte_rate"),
            ack_wait: histogram!("highwater_ack_wait_seconds"),
            syncs: histogram!("highwater_sync_seconds"),
            sync_failures: counter!("highwater_sync_failures_total"),
            partitions: gauge!("highwater_partitions"),
            topics: gauge!("highwater_topics"),
            quarantined_ranges: gauge!("highwater_quarantined_ranges"),
            quarantined_offsets: gauge!("highwater_quarantined_offsets"),
            read_only: gauge!("highwater_read_only"),
            disk_free: gauge!("highwater_disk_free_bytes"),
            disk_full: gauge!("highwater_disk_state", "state" => "full"),
            disk_slow: gauge!("highwater_disk_state", "state" => "slow"),
            disk_stalled: gauge!("highwater_disk_stalled_seconds"),
            deleted_bytes: counter!("highwater_deleted_bytes_total"),
        }
    }

    fn of_requests(key: ApiKey) -> (ApiKey, Counter, Histogram) {
        let api = key.to_string();
        (
            key,
            counter!("highwater_requests_total", "api" => api.clone()),
            histogram!("highwater_request_seconds", "api" => api),
        )
    }

    fn request(&self, key: ApiKey) -> Option<&(ApiKey, Counter, Histogram)> {
        self.requests.iter().find(|(other, ..)| *other == key)
    }
}

fn describe_all() {
    describe_gauge!("highwater_connections", "Connections that are open.");
    describe_counter!(
        "highwater_connections_refused_total",
        "Connections refused: for the protocol they speak, or because a limit of connections is reached."
    );
    describe_counter!("highwater_connections_dropped_total", "Connections closed for what the client sent.");
    describe_counter!("highwater_requests_total", "Kafka requests, by API.");
    describe_histogram!(
        "highwater_request_seconds",
        "Time from a decoded request to its answer, long polls included."
    );
    describe_counter!("highwater_produced_bytes_total", "Bytes of batches appended.");
    describe_counter!("highwater_produced_records_total", "Records appended.");
    describe_counter!(
        "highwater_produced_duplicate_batches_total",
        "Batches that an idempotent producer had sent before."
    );
    describe_counter!("highwater_fetched_bytes_total", "Bytes of batches sent to consumers.");
    describe_counter!(
        "highwater_fetches_cold_total",
        "Fetches read on the pool because the disk may have had to be waited for."
    );
    describe_gauge!("highwater_fetches_parked", "Long polls that are waiting.");
    describe_counter!("highwater_fetch_wakes_total", "Long polls woken because their bytes were there.");
    describe_counter!(
        "highwater_fetch_partitions_read_total",
        "Partitions that fetches looked at; of a session only those that moved."
    );
    describe_gauge!("highwater_fetch_sessions", "Fetch sessions that are kept.");
    describe_gauge!("highwater_fetch_session_partitions", "Partitions of all fetch sessions.");
    describe_counter!(
        "highwater_fetch_session_evictions_total",
        "Fetch sessions that gave way to others; their clients begin anew."
    );
    describe_counter!(
        "highwater_appends_pooled_total",
        "Produce requests appended on the pool instead of the reactor."
    );
    describe_counter!(
        "highwater_throttled_total",
        "Requests after which a client above its quota had to wait."
    );
    describe_histogram!("highwater_ack_wait_seconds", "Time from an append to its acknowledgement.");
    describe_histogram!("highwater_sync_seconds", "Duration of a sync to stable storage.");
    describe_counter!(
        "highwater_sync_failures_total",
        "Syncs that failed. Each one cut unacknowledged records."
    );
    describe_logs();
}

fn describe_logs() {
    describe_gauge!("highwater_partitions", "Partitions of all topics.");
    describe_gauge!("highwater_topics", "Topics.");
    describe_gauge!("highwater_quarantined_ranges", "Ranges of offsets that damage to files has cost.");
    describe_gauge!("highwater_quarantined_offsets", "Offsets in these ranges.");
    describe_gauge!(
        "highwater_read_only",
        "1 if damaged or missing metadata keeps the broker from changing anything."
    );
    describe_counter!(
        "highwater_deleted_bytes_total",
        "Bytes of segments that were deleted, by retention or by DeleteRecords."
    );
    describe_gauge!("highwater_disk_free_bytes", "Free space on the disk of the data directory.");
    describe_gauge!(
        "highwater_disk_state",
        "1 while the disk is full, so that records are refused, or slow: a write or sync takes seconds."
    );
    describe_gauge!(
        "highwater_disk_stalled_seconds",
        "How long the oldest write or sync has been under way, if for seconds."
    );
}

/// Installs the recorder and registers every metric, so that `/metrics` shows zeros instead of nothing.
pub(crate) fn install() {
    LazyLock::force(&EXPORTER);
    LazyLock::force(&HANDLES);
    groups::install();
    memory::install();
    compaction::install();
}

/// The metrics in Prometheus' text format.
pub(crate) fn render() -> String {
    EXPORTER.as_ref().map(PrometheusHandle::render).unwrap_or_default()
}

/// How often samples are moved: those of a longer time pile up by the megabyte.
const UPKEEP: Duration = Duration::from_secs(1);

/// Moves samples out of the recorder's buffers until the broker stops; histograms grow without it.
pub(crate) async fn keep_up(mut stopping: Stopping) {
    loop {
        if let Some(exporter) = EXPORTER.as_ref() {
            exporter.run_upkeep();
        }
        tokio::select! {
            () = tokio::time::sleep(UPKEEP) => {}
            () = stopping.stopped() => return,
        }
    }
}

/// Counts something up now and down again when dropped.
pub(crate) struct Held(&'static Gauge);

impl Held {
    fn new(gauge: &'static Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A connection is open until the returned value is dropped.
pub(crate) fn connected() -> Held {
    Held::new(&HANDLES.connections)
}

/// A fetch is parked until the returned value is dropped.
pub(crate) fn fetch_parked() -> Held {
    Held::new(&HANDLES.fetches_parked)
}

/// A fetch was read on the pool.
pub(crate) fn count_cold_fetch() {
    HANDLES.fetches_cold.increment(1);
}

/// A parked fetch was woken by its bytes.
pub(crate) fn count_fetch_wake() {
    HANDLES.fetch_wakes.increment(1);
}

/// Fetches looked at `count` partitions.
pub(crate) fn count_partitions_read(count: usize) {
    HANDLES.fetch_partitions_read.increment(count as u64);
}

/// How many fetch sessions there are, and partitions in them.
pub(crate) fn set_fetch_sessions(sessions: usize, partitions: usize) {
    HANDLES.fetch_sessions.set(sessions as f64);
    HANDLES.fetch_session_partitions.set(partitions as f64);
}

/// Fetch sessions gave way to others.
pub(crate) fn count_fetch_session_evictions(count: u64) {
    HANDLES.fetch_session_evictions.increment(count);
}

/// A connection was refused for its protocol.
pub(crate) fn count_refused_protocol() {
    HANDLES.refused_protocols.increment(1);
}

/// A connection was refused because there are as many as there may be.
pub(crate) fn count_refused_by_limit() {
    HANDLES.refused_by_limits.increment(1);
}

/// A connection was closed for what the client sent.
pub(crate) fn count_hangup() {
    HANDLES.hangups.increment(1);
}

/// A request was answered `elapsed` after it was decoded.
pub(crate) fn observe_request(key: ApiKey, elapsed: Duration) {
    if let Some((_, count, latency)) = HANDLES.request(key) {
        count.increment(1);
        latency.record(elapsed.as_secs_f64());
    }
}

/// A client above its quota was told to wait.
pub(crate) fn count_throttle(key: ApiKey) {
    match key {
        ApiKey::Produce => HANDLES.throttled_produces.increment(1),
        _ => HANDLES.throttled_fetches.increment(1),
    }
}

/// A batch was appended.
pub(crate) fn count_append(bytes: usize, records: u32) {
    HANDLES.produced_bytes.increment(bytes as u64);
    HANDLES.produced_records.increment(records.into());
}

/// Segments were deleted: for their age or size, or because somebody asked for it.
pub(crate) fn count_deleted(bytes: u64) {
    HANDLES.deleted_bytes.increment(bytes);
}

/// A batch was there already.
pub(crate) fn count_duplicate() {
    HANDLES.produced_duplicates.increment(1);
}

/// Bytes left for a consumer.
pub(crate) fn count_fetched(bytes: u64) {
    HANDLES.fetched_bytes.increment(bytes);
}

/// A produce request was appended on the pool.
pub(crate) fn count_pooled_append() {
    HANDLES.appends_pooled.increment(1);
}

/// An acknowledgement left `elapsed` after its append.
pub(crate) fn observe_ack_wait(elapsed: Duration) {
    HANDLES.ack_wait.record(elapsed.as_secs_f64());
}

/// A sync took `elapsed`.
pub(crate) fn observe_sync(elapsed: Duration) {
    HANDLES.syncs.record(elapsed.as_secs_f64());
}

/// A sync failed.
pub(crate) fn count_sync_failure() {
    HANDLES.sync_failures.increment(1);
}

/// How many topics and partitions there are.
pub(crate) fn set_topics(topics: usize, partitions: usize) {
    HANDLES.topics.set(topics as f64);
    HANDLES.partitions.set(partitions as f64);
}

/// How many ranges of offsets are lost, and offsets in them.
pub(crate) fn set_quarantine(ranges: usize, offsets: u64) {
    HANDLES.quarantined_ranges.set(ranges as f64);
    HANDLES.quarantined_offsets.set(offsets as f64);
}

/// Whether nothing can be changed.
pub(crate) fn set_read_only(read_only: bool) {
    HANDLES.read_only.set(if read_only { 1.0 } else { 0.0 });
}

/// What there is to tell of the disk.
pub(crate) fn set_disk(reading: &DiskReading) {
    let flag = |wrong: &Option<String>| if wrong.is_some() { 1.0 } else { 0.0 };
    if let Some(free) = reading.free_bytes {
        HANDLES.disk_free.set(free as f64);
    }
    HANDLES.disk_full.set(flag(&reading.full));
    HANDLES.disk_slow.set(flag(&reading.slow));
    HANDLES.disk_stalled.set(reading.stalled.as_secs_f64());
}
