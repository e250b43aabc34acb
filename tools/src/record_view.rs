//! One record with what surrounds it, as the formats print it.

use highwater_record::{BatchHeader, Record};

/// A record and where it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordView<'a> {
    /// The topic's name.
    pub(crate) topic: &'a str,
    /// The partition's number.
    pub(crate) partition: i32,
    /// The record.
    pub(crate) record: &'a Record<'a>,
    /// The header of its batch.
    pub(crate) batch: &'a BatchHeader,
    /// What the partition's leader said about its log.
    pub(crate) log: LogState,
}

/// The offsets that a fetch tells besides the records; -1 where unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogState {
    /// First offset of the log.
    pub(crate) start: i64,
    /// Below it no transaction is open.
    pub(crate) last_stable: i64,
    /// The end of what consumers may read.
    pub(crate) high_watermark: i64,
}
