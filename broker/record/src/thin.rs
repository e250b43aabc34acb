//! Thinning: the batch that compaction leaves of another one.
//!
//! Offsets, sequences, producer, epoch, codec and clock stay; what goes are records. The base offset and the last
//! offset delta stay as well, so that a producer's sequence numbers can still be told from the header. The rules are
//! Kafka's (`MemoryRecords.filterTo`, `DefaultRecordBatch.writeEmptyHeader`). Which records go is the caller's
//! business; this file knows no keys' history and no clock.

use std::io;

use thiserror::Error;

use crate::builder::{BATCH_BYTES_MAX, NO_TIMESTAMP, NewRecord, put_record};
use crate::codec::{self, DecodeLimits};
use crate::header::{Attributes, BatchHeader, HEADER_BYTES, TimestampType};
use crate::read::ReadError;
use crate::record::{Record, RecordError};
use crate::{Batch, Codec, CodecError, Offset, TimestampMs};

/// What is left of a batch.
#[derive(Clone, Debug)]
pub enum Thinned {
    /// All of it, as it is.
    Same,
    /// Some of its records, or all of them with a delete horizon.
    Rewritten(Batch),
    /// None of its records.
    Emptied,
}

/// Why a batch is not thinned. It should be left as it is.
#[derive(Debug, Error)]
pub enum ThinError {
    /// Its records cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its timestamps are too far apart to be relative to another base.
    #[error("timestamp {timestamp} is too far from {base}")]
    Timestamp {
        /// A record's.
        timestamp: TimestampMs,
        /// What it should be relative to.
        base: TimestampMs,
    },
    /// What is left would not fit the length field.
    #[error("{bytes} bytes would be left, {BATCH_BYTES_MAX} is the most that the format can express")]
    TooLarge {
        /// Size that it would have.
        bytes: usize,
    },
    /// The codec's library gave up.
    #[error("compress with {codec}: {source}")]
    Encode {
        /// The codec.
        codec: Codec,
        /// What it says.
        source: io::Error,
    },
}

impl From<CodecError> for ThinError {
    fn from(error: CodecError) -> Self {
        Self::Read(error.into())
    }
}

impl From<RecordError> for ThinError {
    fn from(error: RecordError) -> Self {
        Self::Read(error.into())
    }
}

impl Batch {
    /// The batch without the records that `keep` does not want. If tombstones stay and the batch has no delete horizon
    /// yet, it gets `horizon`. Compressed records are decoded within `limits` and encoded again with the same codec.
    pub fn thin(
        &self,
        limits: DecodeLimits,
        horizon: TimestampMs,
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<Thinned, ThinError> {
        let records = self.decompress(limits)?;
        let (mut kept, mut tombstones) = (0, false);
        let mut keeps = Vec::with_capacity(self.header().record_count.min(1024) as usize);
        for record in records.records() {
            let record = record?;
            let keeps_it = keep(&record);
            kept += u32::from(keeps_it);
            tombstones |= keeps_it && record.value.is_none();
            keeps.push(keeps_it);
        }
        let header = self.header();
        let horizon = Some(horizon).filter(|_| tombstones && header.delete_horizon().is_none());
        if kept == 0 {
            return Ok(Thinned::Emptied);
        }
        if kept == header.record_count && horizon.is_none() {
            return Ok(Thinned::Same);
        }
        let mut keeps = keeps.into_iter();
        let rest = records.records().filter(|_| keeps.next() == Some(true));
        self.rewrite(rest, kept, horizon).map(Thinned::Rewritten)
    }

    /// A batch with these records of this one.
    fn rewrite<'a>(
        &self,
        records: impl Iterator<Item = Result<Record<'a>, RecordError>>,
        record_count: u32,
        horizon: Option<TimestampMs>,
    ) -> Result<Self, ThinError> {
        let old = *self.header();
        let Some(codec) = old.attributes.codec() else {
            return Err(CodecError::Unknown { number: old.attributes.codec_number() }.into());
        };
        let base = horizon.unwrap_or(old.base_timestamp);
        let mut max_timestamp = NO_TIMESTAMP;
        let mut plain = Vec::new();
        for record in records {
            let record = record?;
            let timestamp = record.timestamp;
            let delta = timestamp.0.checked_sub(base.0).ok_or(ThinError::Timestamp { timestamp, base })?;
            max_timestamp = max_timestamp.max(timestamp);
            let offset_delta = (record.offset.get() - old.base_offset.get()) as u32;
            let headers: Vec<_> = record.headers.collect();
            let record = NewRecord { timestamp, key: record.key, value: record.value, headers: &headers };
            put_record(&mut plain, &record, delta, offset_delta);
        }
        let mut bytes = vec![0; HEADER_BYTES];
        codec::compress(codec, &plain, &mut bytes).map_err(|source| ThinError::Encode { codec, source })?;
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(ThinError::TooLarge { bytes: bytes.len() });
        }
        let attributes = match horizon {
            Some(_) => old.attributes.with_delete_horizon(),
            None => old.attributes,
        };
        let max_timestamp = match attributes.timestamp_type() {
            TimestampType::LogAppendTime => old.max_timestamp,
            TimestampType::CreateTime => max_timestamp,
        };
        Ok(Self::from_parts(
            BatchHeader { attributes, base_timestamp: base, max_timestamp, record_count, ..old },
            bytes,
        ))
    }

    /// The batch without records: what is left if something must remember its offsets or its producer's sequences.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let old = *self.header();
        Self::from_parts(
            BatchHeader {
                attributes: old.attributes.emptied(),
                base_timestamp: NO_TIMESTAMP,
                record_count: 0,
                ..old
            },
            vec![0; HEADER_BYTES],
        )
    }

    /// A batch without records and without a producer that stands for the offsets from `from` until `to`, in the epoch
    /// and the time of a batch beside them. `None` if there are none, or more than a batch can stand for.
    pub fn without_records(from: Offset, to: Offset, like: &BatchHeader) -> Option<Self> {
        let count = to.get().checked_sub(from.get())?;
        let last_offset_delta = u32::try_from(i32::try_from(count.checked_sub(1)?).ok()?).ok()?;
        let header = BatchHeader {
            base_offset: from,
            attributes: Attributes::new(Codec::None, like.attributes.timestamp_type()),
            last_offset_delta,
            base_timestamp: NO_TIMESTAMP,
            producer: None,
            record_count: 0,
            ..*like
        };
        Some(Self::from_parts(header, vec![0; HEADER_BYTES]))
    }
}
