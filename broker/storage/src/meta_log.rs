//! The embedded metadata store: an ordered map in memory, replayed from a log of our own (D6).
//!
//! The log is the partition `__cluster_metadata-0`; one batch is one transaction, synced before it counts. When the
//! log has grown well beyond what it says, a snapshot of the map is written to a new segment as one batch, and the
//! segments before it go.
//!
//! Records: the key's first byte is the kind, the rest is the map's key. Kind 1 is a change (no value: a removal);
//! kind 2 is an entry of a snapshot, whose value begins with the version it had; kind 3 opens a snapshot. Byte table
//! in `broker/docs/format.md`.
//!
//! Each transaction is synced before the next is written, so at most one batch can be torn, the last. A fault with a
//! valid batch after it is damage, and so is an end before the one that somebody remembers: then the store is read-only,
//! and nothing on disk is touched. What cannot be told from a torn tail is damage to the last transactions since then.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use highwater_record::{
    Batch, BatchBuilder, Codec, LeaderEpoch, NewRecord, Offset, TimestampMs, TimestampType,
};
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use crate::batches::BatchFault;
use crate::files::FileLayer;
use crate::log::{AppendError, Log, LogConfig, OpenError, SyncOutcome};
use crate::meta_store::{Change, MetaStore, MetaValue, TransactError, Transaction, Version};
use crate::scan::{ScanError, SegmentScan};
use crate::segment::{base_of, file_name};
use crate::view::LogView;

/// The partition's directory in the data directory.
const DIR_NAME: &str = "__cluster_metadata-0";
/// Largest transaction, in bytes of keys and values. A snapshot is not a transaction.
const TRANSACTION_BYTES_MAX: usize = 64 << 20;
/// Largest segment, and so the largest snapshot, in bytes.
const SEGMENT_BYTES: u32 = i32::MAX as u32;
/// A log smaller than this is not worth a snapshot, in bytes.
const COMPACT_BYTES_MIN: u64 = 1 << 20;
/// How many times larger than the map the log may become.
const COMPACT_RATIO: u64 = 4;
/// What a record costs besides its key and value, at most.
const RECORD_OVERHEAD_BYTES: u64 = 32;

const KIND_CHANGE: u8 = 1;
const KIND_SNAPSHOT_ENTRY: u8 = 2;
const KIND_SNAPSHOT: u8 = 3;

/// Where the metadata is damaged. What was valid before it is served, and nothing is written.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{} is damaged at position {position}: {reason}", path.display())]
pub struct MetaDamage {
    /// The segment.
    pub path: PathBuf,
    /// Where the damaged transaction begins.
    pub position: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Why the metadata cannot be opened at all.
#[derive(Debug, Error)]
pub enum MetaOpenError {
    /// The files cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk says.
        source: io::Error,
    },
    /// The log does not open, although its transactions are valid.
    #[error(transparent)]
    Log(#[from] OpenError),
}

/// The embedded metadata store.
#[derive(Debug)]
pub struct MetaLog {
    map: RwLock<Map>,
    /// None if the metadata is damaged. Also serialises transactions.
    log: Mutex<Option<Log>>,
    /// The read side of the log, which waits for no transaction.
    view: Option<Arc<LogView>>,
    damage: Option<MetaDamage>,
}

#[derive(Debug, Default)]
struct Map {
    entries: BTreeMap<Bytes, MetaValue>,
    /// What a snapshot would have, about.
    bytes: u64,
}

impl MetaLog {
    /// Replays the log in `data_dir`; a missing one is an empty store. A log that ends before `known_end`, which was
    /// durable once ([`MetaStore::end`]), is damaged.
    pub fn open(
        files: Arc<dyn FileLayer>,
        data_dir: &Path,
        known_end: Offset,
        now: TimestampMs,
    ) -> Result<Self, MetaOpenError> {
        let dir = data_dir.join(DIR_NAME);
        let mut map = Map::default();
        let damage = replay(&*files, &dir, known_end, &mut map)
            .map_err(|source| MetaOpenError::Io { path: dir.clone(), source })?;
        if damage.is_some() {
            return Ok(Self { map: RwLock::new(map), log: Mutex::new(None), view: None, damage });
        }
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            segment_ms: u64::MAX,
            index_interval_bytes: 4096,
            index_bytes_max: 10 << 20,
            timestamp_type: TimestampType::CreateTime,
            writeback: false,
            producer_expiry_ms: u64::MAX,
            compaction: None,
            topic_id: None,
        };
        let (mut log, _) = Log::open(files, dir.clone(), config, None, now)?;
        let epoch = next_epoch(&log);
        log.set_epoch_min(epoch);
        // What was replayed may never have been synced, and from here on it is shown to others.
        sync(&mut log).map_err(|error| MetaOpenError::Io { path: dir, source: io::Error::other(error) })?;
        let view = Some(log.view());
        Ok(Self { map: RwLock::new(map), log: Mutex::new(Some(log)), view, damage: None })
    }

    /// What the log in `data_dir` says, without opening it: for who only looks, also while a broker has it. What is valid
    /// before damage counts.
    pub fn peek(files: &dyn FileLayer, data_dir: &Path) -> io::Result<BTreeMap<Bytes, MetaValue>> {
        let mut map = Map::default();
        replay(files, &data_dir.join(DIR_NAME), Offset::ZERO, &mut map)?;
        Ok(map.entries)
    }

    /// The damage that makes the store read-only, if there is any.
    pub const fn damage(&self) -> Option<&MetaDamage> {
        self.damage.as_ref()
    }

    /// Bytes in the log's files.
    #[cfg(test)]
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.lock().as_ref().map_or(0, |log| log.view().size_bytes())
    }

    fn damaged(&self) -> TransactError {
        TransactError::Damaged(self.damage.clone().expect("a store without a log is damaged"))
    }

    /// Writes the map as one batch and removes what came before it.
    fn compact(&self, log: &mut Log, now: TimestampMs) -> Result<(), TransactError> {
        let (snapshot, bytes) = {
            let map = self.map.read();
            (map.snapshot(now)?, map.bytes)
        };
        log.roll(now).map_err(append_error)?;
        let version = append_durably(log, &snapshot, now)?;
        let start = Offset::new(version.0).unwrap_or_default();
        let removed = log.delete_before(start).map_err(io::Error::other).and_then(|job| job.run())?;
        tracing::info!(map_bytes = bytes, removed, "compacted the metadata log");
        Ok(())
    }
}

impl MetaStore for MetaLog {
    fn get(&self, key: &[u8]) -> Option<MetaValue> {
        self.map.read().entries.get(key).cloned()
    }

    fn range(&self, prefix: &[u8]) -> Vec<(Bytes, MetaValue)> {
        let map = self.map.read();
        let from =
            map.entries.range::<[u8], _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    fn end(&self) -> Version {
        match &self.view {
            Some(view) => Version(view.durable().offset.get()),
            // What is readable of a damaged log ends with the last entry that it gave.
            None => {
                let map = self.map.read();
                map.entries.values().map(|value| Version(value.version.0 + 1)).max().unwrap_or_default()
            }
        }
    }

    fn transact(&self, transaction: Transaction, now: TimestampMs) -> Result<Version, TransactError> {
        let mut log = self.log.lock();
        let log = log.as_mut().ok_or_else(|| self.damaged())?;
        self.map.read().check(&transaction)?;
        if transaction.changes.is_empty() {
            return Ok(Version(log.view().end().offset.get()));
        }
        let batch = changes_batch(&transaction.changes, now)?;
        let version = append_durably(log, &batch, now)?;
        let map_bytes = {
            let mut map = self.map.write();
            for change in transaction.changes {
                match change {
                    Change::Put { key, value } => map.put(key, MetaValue { bytes: value, version }),
                    Change::Delete { key } => map.remove(&key),
                }
            }
            map.bytes
        };
        let limit = COMPACT_BYTES_MIN.max(map_bytes.saturating_mul(COMPACT_RATIO));
        if log.view().size_bytes() > limit
            && let Err(error) = self.compact(log, now)
        {
            // The transaction is durable all the same; the next one tries again.
            tracing::warn!(%error, "the metadata log is not compacted");
        }
        Ok(version)
    }
}

impl Map {
    fn check(&self, transaction: &Transaction) -> Result<(), TransactError> {
        for expectation in &transaction.expectations {
            let actual = self.entries.get(&expectation.key).map(|value| value.version);
            if actual != expectation.version {
                return Err(TransactError::Conflict {
                    key: expectation.key.clone(),
                    expected: expectation.version,
                    actual,
                });
            }
        }
        Ok(())
    }

    fn put(&mut self, key: Bytes, value: MetaValue) {
        self.remove(&key);
        self.bytes += cost(&key, &value.bytes);
        self.entries.insert(key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, value)) = self.entries.remove_entry(key) {
            self.bytes -= cost(&key, &value.bytes);
        }
    }

    fn snapshot(&self, now: TimestampMs) -> Result<Batch, TransactError> {
        let mut builder = BatchBuilder::new(Codec::None);
        record(&mut builder, KIND_SNAPSHOT, &[], None, now)?;
        for (key, value) in &self.entries {
            let mut bytes = value.version.0.to_be_bytes().to_vec();
            bytes.extend_from_slice(&value.bytes);
            record(&mut builder, KIND_SNAPSHOT_ENTRY, key, Some(&bytes), now)?;
        }
        finish(builder)
    }

    /// Applies one batch of the log; `None` if its records are not what this store writes.
    fn apply(&mut self, batch: &Batch) -> Option<()> {
        let version = Version(batch.header().base_offset.get());
        for (number, record) in batch.records()?.enumerate() {
            let record = record.ok()?;
            let (kind, key) = record.key?.split_first()?;
            let key = Bytes::copy_from_slice(key);
            match (*kind, record.value) {
                (KIND_SNAPSHOT, None) if number == 0 => *self = Self::default(),
                (KIND_SNAPSHOT_ENTRY, Some(value)) => {
                    let (version, bytes) = value.split_first_chunk()?;
                    let (bytes, version) =
                        (Bytes::copy_from_slice(bytes), Version(i64::from_be_bytes(*version)));
                    self.put(key, MetaValue { bytes, version });
                }
                (KIND_CHANGE, Some(value)) => {
                    self.put(key, MetaValue { bytes: Bytes::copy_from_slice(value), version });
                }
                (KIND_CHANGE, None) => self.remove(&key),
                _ => return None,
            }
        }
        Some(())
    }
}

/// What an entry adds to a snapshot, about.
const fn cost(key: &Bytes, value: &Bytes) -> u64 {
    key.len() as u64 + value.len() as u64 + RECORD_OVERHEAD_BYTES
}

fn changes_batch(changes: &[Change], now: TimestampMs) -> Result<Batch, TransactError> {
    let bytes = changes
        .iter()
        .map(|change| match change {
            Change::Put { key, value } => key.len() + value.len(),
            Change::Delete { key } => key.len(),
        })
        .sum();
    if bytes > TRANSACTION_BYTES_MAX {
        return Err(TransactError::TooLarge { bytes, limit: TRANSACTION_BYTES_MAX });
    }
    let mut builder = BatchBuilder::new(Codec::None);
    for change in changes {
        match change {
            Change::Put { key, value } => record(&mut builder, KIND_CHANGE, key, Some(value), now)?,
            Change::Delete { key } => record(&mut builder, KIND_CHANGE, key, None, now)?,
        }
    }
    finish(builder)
}

fn record(
    builder: &mut BatchBuilder,
    kind: u8,
    key: &[u8],
    value: Option<&[u8]>,
    timestamp: TimestampMs,
) -> Result<(), TransactError> {
    let mut kind_and_key = Vec::with_capacity(1 + key.len());
    kind_and_key.push(kind);
    kind_and_key.extend_from_slice(key);
    let record = NewRecord { timestamp, key: Some(&kind_and_key), value, headers: &[] };
    builder.append(&record).map_err(|error| io::Error::other(error).into())
}

fn finish(builder: BatchBuilder) -> Result<Batch, TransactError> {
    let bytes = builder.build().map_err(io::Error::other)?;
    Ok(Batch::new(bytes).map_err(io::Error::other)?)
}

/// Appends a batch and syncs it. If that fails, the batch is not in the log.
fn append_durably(log: &mut Log, batch: &Batch, now: TimestampMs) -> Result<Version, TransactError> {
    if log.is_failed() {
        let next = next_epoch(log);
        log.resume(next, Offset::ZERO).map_err(io::Error::other)?;
    }
    let appended = log.append(batch, LeaderEpoch::ZERO, now).map_err(append_error)?;
    sync(log)?;
    Ok(Version(appended.base_offset.get()))
}

fn sync(log: &mut Log) -> Result<(), TransactError> {
    while let Some(job) = log.begin_sync() {
        let result = job.run();
        let next = next_epoch(log);
        match log.finish_sync(job, result, next) {
            SyncOutcome::Durable(_) | SyncOutcome::Superseded => {}
            SyncOutcome::Failed { error, .. } => return Err(error.into()),
            SyncOutcome::Postponed(error) => {
                // Nobody waits for a later try here: the transaction did not happen.
                log.truncate(log.view().durable().offset, next).map_err(io::Error::other)?;
                return Err(error.into());
            }
        }
    }
    Ok(())
}

/// The epoch to go on with after a failure.
fn next_epoch(log: &Log) -> LeaderEpoch {
    let latest = log.view().latest_epoch().unwrap_or_default();
    LeaderEpoch::new(latest.get().saturating_add(1)).unwrap_or(LeaderEpoch::MAX)
}

fn append_error(error: AppendError) -> TransactError {
    match error {
        AppendError::NoSpace(error) | AppendError::Create(error) | AppendError::Io(error) => error.into(),
        other => io::Error::other(other).into(),
    }
}

/// Replays all segments into `map`. Reads only.
fn replay(
    files: &dyn FileLayer,
    dir: &Path,
    known_end: Offset,
    map: &mut Map,
) -> io::Result<Option<MetaDamage>> {
    let mut bases: Vec<Offset> = match files.list(dir) {
        Ok(entries) => entries.iter().filter_map(|entry| base_of(&entry.name, "log")).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    bases.sort_unstable();
    let mut reached = Reached { offset: bases.first().copied().unwrap_or_default(), epoch: None };
    let mut end = (dir.to_owned(), 0);
    for (at, base) in bases.iter().enumerate() {
        let path = dir.join(file_name(*base, "log"));
        if *base != reached.offset {
            let reason = format!("offsets {} to {base} are missing", reached.offset);
            return Ok(Some(MetaDamage { path, position: 0, reason }));
        }
        let ended = match replay_segment(files, &path, &mut reached, map)? {
            ControlFlow::Continue(position) => {
                end = (path, position);
                continue;
            }
            ControlFlow::Break(ended) => ended,
        };
        if ended.batch_follows || dir_has_batches(files, dir, &bases[at + 1..])? {
            return Ok(Some(MetaDamage { path, position: ended.position, reason: ended.reason }));
        }
        end = (path, ended.position);
        break;
    }
    let expected = reached.offset;
    Ok((expected < known_end).then(|| {
        let what = if bases.is_empty() { "is missing or empty" } else { "has lost its end" };
        let reason =
            format!("it {what}: it ends at offset {expected}, the checkpoint knows offset {known_end}");
        MetaDamage { path: end.0, position: end.1, reason }
    }))
}

/// How far a replay has come.
struct Reached {
    /// The offset that comes next.
    offset: Offset,
    /// Leader epoch of the last batch. They never go back; no checksum covers them, and the log would be cut at one that
    /// seems to.
    epoch: Option<LeaderEpoch>,
}

/// Where and why a replay ended before its file did.
struct Ended {
    position: u64,
    reason: String,
    /// There is a valid batch after it in the same file, or this one is valid and not ours.
    batch_follows: bool,
}

fn replay_segment(
    files: &dyn FileLayer,
    path: &Path,
    reached: &mut Reached,
    map: &mut Map,
) -> io::Result<ControlFlow<Ended, u64>> {
    let mut scan = SegmentScan::open_on(files, path)?;
    loop {
        let position = scan.position();
        let batch = match scan.next() {
            None => return Ok(ControlFlow::Continue(position)),
            Some(Ok(found)) if found.header.base_offset != reached.offset => {
                let (expected, actual) = (reached.offset, found.header.base_offset);
                let fault = BatchFault::OffsetOrder { expected, actual };
                Err(ScanError::Fault { position, fault })
            }
            Some(Ok(found)) => scan.read(&found),
            Some(Err(error)) => Err(error),
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(ScanError::Io { source, .. }) => return Err(source),
            Err(ScanError::Fault { fault, .. }) => {
                let batch_follows = batch_follows(&mut scan, position + 1, reached.offset);
                return Ok(ControlFlow::Break(Ended { position, reason: fault.to_string(), batch_follows }));
            }
        };
        let epoch = batch.header().leader_epoch;
        if epoch < reached.epoch {
            let number = |epoch: Option<LeaderEpoch>| epoch.map_or(-1, LeaderEpoch::get);
            let fault = BatchFault::EpochOrder { before: number(reached.epoch), actual: number(epoch) };
            return Ok(ControlFlow::Break(Ended {
                position,
                reason: fault.to_string(),
                batch_follows: true,
            }));
        }
        let starts_late = reached.offset > Offset::ZERO && position == 0 && map.entries.is_empty();
        if map.apply(&batch).is_none() || (starts_late && !is_snapshot(&batch)) {
            let reason = "its records are not metadata".to_owned();
            return Ok(ControlFlow::Break(Ended { position, reason, batch_follows: true }));
        }
        *reached = Reached { offset: batch.header().next_offset(), epoch };
    }
}

/// A log that does not begin at offset 0 begins with a snapshot.
fn is_snapshot(batch: &Batch) -> bool {
    let first = batch.records().and_then(|mut records| records.next()?.ok()?.key);
    first == Some(&[KIND_SNAPSHOT])
}

/// Whether a valid batch with a later offset begins anywhere from `from` on.
fn batch_follows(scan: &mut SegmentScan, from: u64, expected: Offset) -> bool {
    (from..scan.file_bytes()).any(|position| {
        scan.seek(position, expected);
        matches!(scan.next(), Some(Ok(found)) if found.header.base_offset > expected && scan.read(&found).is_ok())
    })
}

/// Whether one of the segments begins with a valid batch.
fn dir_has_batches(files: &dyn FileLayer, dir: &Path, bases: &[Offset]) -> io::Result<bool> {
    for base in bases {
        let mut scan = SegmentScan::open_on(files, &dir.join(file_name(*base, "log")))?;
        if matches!(scan.next(), Some(Ok(found)) if scan.read(&found).is_ok()) {
            return Ok(true);
        }
    }
    Ok(false)
}
