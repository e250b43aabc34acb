//! What a broker accepts from a producer: the batch of one partition in a Produce request, version 3 or later.
//!
//! The rules are Kafka's (`LogValidator.validateBatch`, `UnifiedLog.analyzeAndValidateRecords`,
//! `ProduceRequest.validateRecords`) with three differences:
//!
//! - Compressed batches are taken by their header and checksum unless [`Compressed::Walk`] is asked for; Kafka
//!   decompresses all.
//! - A transactional batch is refused: there are no transactions yet.
//! - A batch that names a delete horizon is refused: only compaction sets one, and readers would then take the base
//!   timestamp for it.
//!
//! As in Kafka a wrong largest timestamp in the header is corrected, not refused: sarama left it unset until 2025.
//! That copies the batch, once. For a compressed batch that is not walked only a largest timestamp before the base
//! timestamp shows that it is unset; such a batch is decompressed, within limits.
//!
//! A record without a key is refused where [`Keys::Required`] says so, on compacted topics; that needs a look at every
//! record, so compressed batches are then decompressed within limits, as Kafka does.
//!
//! What is not here: timestamps too far off, and rules of a producer (sequences).

use bytes::Bytes;
use thiserror::Error;

use crate::builder::NO_TIMESTAMP;
use crate::codec::{CodecError, DecodeLimits};
use crate::header::{BatchHeader, HeaderError, TimestampType};
use crate::record::{RecordError, Records};
use crate::{Batch, BatchError, Codec, Offset, ProducerId, TimestampMs};

/// First version of Produce whose batches may use zstd (KIP-110).
const ZSTD_PRODUCE_VERSION_MIN: i16 = 7;

/// Whether the records of compressed batches are looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compressed {
    /// Header and checksum are enough.
    Trust,
    /// Each batch is decompressed and walked like an uncompressed one.
    Walk,
}

/// Whether records may be without a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keys {
    /// They may.
    Optional,
    /// They may not: the topic is compacted, which keeps the latest record of each key.
    Required,
}

/// What applies to one batch of one request.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRules {
    /// Most bytes of a batch, header included (`max.message.bytes`).
    pub batch_bytes_max: u32,
    /// Version of the Produce request.
    pub produce_version: i16,
    /// How compressed batches are treated.
    pub compressed: Compressed,
    /// Whether records may be without a key.
    pub keys: Keys,
    /// How far they may be decompressed.
    pub limits: DecodeLimits,
}

/// Why a produced batch is refused.
#[derive(Debug, Error)]
pub enum ProduceError {
    /// The fixed part does not parse.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Longer than the partition accepts.
    #[error("batch is {bytes} bytes long, max.message.bytes allows {bytes_max}")]
    TooLarge {
        /// Size of the batch.
        bytes: u32,
        /// Most that is allowed.
        bytes_max: u32,
    },
    /// More than one batch, or something else, after the first.
    #[error(
        "{bytes} bytes were sent, the first batch is {batch_bytes} of them; exactly one batch is allowed"
    )]
    NotOneBatch {
        /// Bytes in the request.
        bytes: usize,
        /// Size of the first batch.
        batch_bytes: u32,
    },
    /// The batch is cut, or its checksum differs.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Offsets are the broker's to give.
    #[error("base offset is {base_offset}, a producer sends 0")]
    BaseOffset {
        /// The base offset.
        base_offset: Offset,
    },
    /// The offsets and the count do not fit each other.
    #[error("batch counts {record_count} records, its last offset delta is {last_offset_delta}")]
    Count {
        /// Records by the header.
        record_count: u32,
        /// Last offset delta by the header.
        last_offset_delta: u32,
    },
    /// Control batches are the broker's to write.
    #[error("control batches cannot be produced")]
    Control,
    /// Transactions do not exist yet.
    #[error("transactional batches are not supported")]
    Transactional,
    /// The broker's clock is the broker's to use.
    #[error("timestamp type is LogAppendTime, a producer sends CreateTime")]
    LogAppendTime,
    /// The delete horizon is compaction's to set.
    #[error("batch has a delete horizon, only compaction sets one")]
    DeleteHorizon,
    /// Zstd before the client could know it.
    #[error("zstd needs Produce version {ZSTD_PRODUCE_VERSION_MIN}, the request has version {version}")]
    ZstdVersion {
        /// Version of the request.
        version: i16,
    },
    /// An idempotent producer numbers its records.
    #[error("producer {producer_id} sent no base sequence")]
    NoSequence {
        /// The producer.
        producer_id: ProducerId,
    },
    /// An unknown codec, or records that cannot be decompressed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The records are not what the header promises.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Compaction has no use for a record without a key.
    #[error("record {index} has no key, and the topic is compacted (cleanup.policy), which needs one")]
    NoKey {
        /// Place of the record in the batch, from 0.
        index: u32,
    },
}

/// Decides about the bytes of one partition. The batch that comes back is the one that was sent, or the same with
/// its largest timestamp corrected.
pub fn validate(bytes: Bytes, rules: &ProduceRules) -> Result<Batch, ProduceError> {
    let header = BatchHeader::parse(&bytes)?;
    // First what needs no look at all bytes.
    if header.size_bytes > rules.batch_bytes_max {
        return Err(ProduceError::TooLarge { bytes: header.size_bytes, bytes_max: rules.batch_bytes_max });
    }
    if bytes.len() > header.size_bytes as usize {
        return Err(ProduceError::NotOneBatch { bytes: bytes.len(), batch_bytes: header.size_bytes });
    }
    let batch = Batch::new(bytes)?;
    check_header(&header, rules)?;
    let largest = match batch.records() {
        Some(records) => walk(records, rules.keys)?,
        None if rules.compressed == Compressed::Walk
            || rules.keys == Keys::Required
            || lacks_max_timestamp(&header) =>
        {
            walk(batch.decompress(rules.limits)?.records(), rules.keys)?
        }
        None => header.max_timestamp,
    };
    if largest == header.max_timestamp {
        return Ok(batch);
    }
    Ok(batch.with_max_timestamp(TimestampType::CreateTime, largest))
}

/// Whether [`validate`] with [`Compressed::Trust`] and these `keys` would decompress what these bytes begin with, which
/// takes time and memory.
pub fn needs_decompression(bytes: &[u8], keys: Keys) -> bool {
    BatchHeader::parse(bytes).is_ok_and(|header| {
        !matches!(header.attributes.codec(), None | Some(Codec::None))
            && (keys == Keys::Required || lacks_max_timestamp(&header))
    })
}

/// Sarama left it unset.
fn lacks_max_timestamp(header: &BatchHeader) -> bool {
    header.max_timestamp < header.base_timestamp
}

fn check_header(header: &BatchHeader, rules: &ProduceRules) -> Result<(), ProduceError> {
    let attributes = header.attributes;
    if header.base_offset != Offset::ZERO {
        return Err(ProduceError::BaseOffset { base_offset: header.base_offset });
    }
    let (record_count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if record_count.checked_sub(1) != Some(last_offset_delta) {
        return Err(ProduceError::Count { record_count, last_offset_delta });
    }
    if attributes.is_control() {
        return Err(ProduceError::Control);
    }
    if attributes.is_transactional() {
        return Err(ProduceError::Transactional);
    }
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(ProduceError::LogAppendTime);
    }
    if attributes.has_delete_horizon() {
        return Err(ProduceError::DeleteHorizon);
    }
    match attributes.codec() {
        None => return Err(CodecError::Unknown { number: attributes.codec_number() }.into()),
        Some(Codec::Zstd) if rules.produce_version < ZSTD_PRODUCE_VERSION_MIN => {
            return Err(ProduceError::ZstdVersion { version: rules.produce_version });
        }
        Some(_) => {}
    }
    match header.producer {
        Some(producer) if producer.base_sequence.is_none() => {
            Err(ProduceError::NoSequence { producer_id: producer.id })
        }
        _ => Ok(()),
    }
}

/// Walks all records and returns their largest timestamp.
///
/// Offsets need no check of their own: the walk wants ascending deltas of at most the last offset delta, and as many
/// records as that leaves room for, so the deltas are 0, 1, 2 and so on.
fn walk(records: Records<'_>, keys: Keys) -> Result<TimestampMs, ProduceError> {
    let mut largest = NO_TIMESTAMP;
    for (index, record) in (0..).zip(records) {
        let record = record?;
        if record.key.is_none() && keys == Keys::Required {
            return Err(ProduceError::NoKey { index });
        }
        largest = largest.max(record.timestamp);
    }
    Ok(largest)
}
