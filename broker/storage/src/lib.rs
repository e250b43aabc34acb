//! One partition's log on disk: segments, indexes, recovery, producer state; and what a data directory has besides.
//!
//! Synchronous and without a clock: time is an argument, and nothing here waits for anything but the disk. It knows
//! no network, no tokio and no Kafka error codes. All I/O goes through [`FileLayer`], so that tests can crash it.
//!
//! - [`Log`] is one partition: [`Log::open`], [`Log::append`], [`Log::begin_sync`] / [`SyncJob::run`] /
//!   [`Log::finish_sync`], [`Log::begin_compaction`] / [`CompactionJob::run`] / [`Log::finish_compaction`],
//!   [`Log::truncate`], [`Log::delete_before`], [`Log::checkpoint`], [`Log::close`].
//! - [`LogView`] is what readers hold: [`LogView::read`], [`LogView::offset_for_time`], [`LogView::end_of_epoch`],
//!   [`LogView::end`], [`LogView::durable`].
//! - [`DataDir`] owns a data directory; [`CheckpointFile`] is its checkpoint; [`MetaLog`] keeps the broker's metadata.
//! - [`SegmentScan`] reads segment files offline, and [`SalvageScan`] damaged ones; [`OffsetIndexFile`] and
//!   [`TimeIndexFile`] find where to begin, and [`IndexBuilder`] writes indexes anew.
//! - `DiskFiles` are real files; `SimFiles` (feature `sim`) fail and crash by plan; [`BoundedFiles`] keep to a bound of
//!   open descriptors and maps, which is a [`FilePool`]; [`ReadOnlyFiles`] stay as they are, whatever a log does.
//!
//! Left to later work: the transaction index.

mod batches;
mod block_cache;
mod bounded;
mod checkpoint;
mod compact;
mod damage;
mod data_dir;
mod disk;
mod epochs;
mod files;
mod gate;
mod index;
mod index_builder;
mod index_file;
mod lazy_file;
mod log;
mod map;
mod map_slot;
mod meta_log;
mod meta_store;
#[cfg(all(test, highwater_loom))]
mod models;
mod own_file;
mod point;
mod pool;
mod producers;
mod quarantine;
mod read_only_files;
mod salvage;
mod scan;
mod segment;
#[cfg(any(test, feature = "sim"))]
mod sim;
mod sync;
#[cfg(test)]
mod tests;
mod verify;
mod view;

pub use batches::BatchFault;
pub use bounded::BoundedFiles;
pub use checkpoint::{Checkpoint, CheckpointFile, LoadedCheckpoint, PartitionCheckpoint};
pub use compact::{
    CompactionConfig, CompactionError, CompactionJob, CompactionStep, Dirt, DirtState, Dirtiness, Pace, Ratio,
};
pub use data_dir::{DataDir, DataDirError, Listing, UNDO_PREFIX};
pub use disk::DiskFiles;
pub use epochs::parse_leader_epochs;
pub use files::{Access, DirEntry, FileHandle, FileLayer, Space};
pub use index::{OffsetEntry, TimeEntry};
pub use index_builder::{EpochBook, IndexBuilder};
pub use index_file::{OffsetIndexFile, TimeIndexFile};
pub use log::{
    AppendError, Appended, CompactionOutcome, CutError, Log, LogCheckpoint, LogConfig, LogOutline,
    ManifestJob, OpenError, Opening, Recovery, RemovalJob, Retention, SealedSegment, SegmentOutlook,
    SidecarJob, SyncJob, SyncOutcome, TailSegment, read_compacted, read_manifest,
};
pub use map::{PublishedEnd, SegmentMap, explain_sigbus};
pub use meta_log::{MetaDamage, MetaLog, MetaOpenError};
pub use meta_store::{Change, Expectation, MetaStore, MetaValue, TransactError, Transaction, Version};
pub use point::LogPoint;
pub use pool::FilePool;
pub use producers::{ProducerStateFile, read_producer_state};
pub use quarantine::QuarantinedRange;
pub use read_only_files::ReadOnlyFiles;
pub use salvage::{Crcs, Damage, DamageKind, Piece, SalvageScan, Stretch};
pub use scan::{IndexEntries, ScanError, ScannedBatch, SegmentScan, read_offset_index, read_time_index};
#[cfg(any(test, feature = "sim"))]
pub use sim::{SimCall, SimFault, SimFiles};
pub use view::{FileRange, FirstBatch, LogView, ReadChunk, ReadError, TimedOffset};
