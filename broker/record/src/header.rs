//! The fixed 61 bytes at the front of a v2 record batch.
//!
//! Layout and meaning: Kafka's `DefaultRecordBatch.java`. The CRC covers everything from the attributes on, so the
//! base offset, the length and the leader epoch can be patched in place. This file knows no records and no codec
//! beyond its number.

use std::fmt;

use thiserror::Error;

use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// Size of the fixed part of a batch, in bytes.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the part that the length field counts: base offset and the length itself.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// First byte that the CRC covers.
pub const CRC_START: usize = 21;
/// The only batch format that is written since Kafka 0.11.
pub const MAGIC: i8 = 2;

const ATTRIBUTE_CODEC_MASK: i16 = 0b111;
const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;
const ATTRIBUTE_DELETE_HORIZON: i16 = 1 << 6;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Codec {
    /// Not at all.
    None,
    /// A gzip stream.
    Gzip,
    /// Snappy, in xerial framing or raw.
    Snappy,
    /// An LZ4 frame.
    Lz4,
    /// A zstd frame.
    Zstd,
}

/// Kafka's name of the codec, as `compression.type` spells it.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// Whose clock the timestamps of a batch come from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    CreateTime,
    /// The broker's: every record has the batch's largest timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Attributes(i16);

impl Attributes {
    /// Attributes with a codec and a clock, and nothing else set.
    pub const fn new(codec: Codec, timestamp_type: TimestampType) -> Self {
        let codec = match codec {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        };
        Self(codec).with_timestamp_type(timestamp_type)
    }

    /// Attributes with a codec by its number, known or not, and nothing else set.
    pub(crate) const fn of_codec_number(number: i16) -> Self {
        Self(number & ATTRIBUTE_CODEC_MASK)
    }

    /// The bits as they stand in the batch.
    pub const fn get(self) -> i16 {
        self.0
    }

    /// The same with another clock.
    pub const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => Self(self.0 & !ATTRIBUTE_LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Self(self.0 | ATTRIBUTE_LOG_APPEND_TIME),
        }
    }

    /// The same, as part of a transaction.
    #[must_use]
    pub const fn with_transactional(self) -> Self {
        Self(self.0 | ATTRIBUTE_TRANSACTIONAL)
    }

    /// The same, holding markers of the broker.
    #[must_use]
    pub const fn with_control(self) -> Self {
        Self(self.0 | ATTRIBUTE_CONTROL)
    }

    /// The same, with the delete horizon in place of the base timestamp.
    #[must_use]
    pub(crate) const fn with_delete_horizon(self) -> Self {
        Self(self.0 | ATTRIBUTE_DELETE_HORIZON)
    }

    /// What is left of them when the batch has lost its records: whose clock it is, and what kind of batch.
    #[must_use]
    pub(crate) const fn emptied(self) -> Self {
        Self(self.0 & (ATTRIBUTE_LOG_APPEND_TIME | ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL))
    }

    /// The codec's number, also if it is an unknown one.
    pub const fn codec_number(self) -> i16 {
        self.0 & ATTRIBUTE_CODEC_MASK
    }

    /// The codec, or `None` for the numbers 5 to 7, which Kafka has not given out.
    pub const fn codec(self) -> Option<Codec> {
        match self.codec_number() {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// Whose clock stamped the records.
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & ATTRIBUTE_LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds a marker of the broker instead of user records.
    pub const fn is_control(self) -> bool {
        self.0 & ATTRIBUTE_CONTROL != 0
    }

    /// Whether the base timestamp is the delete horizon that compaction set (KIP-534).
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & ATTRIBUTE_DELETE_HORIZON != 0
    }
}

/// The producer fields of a batch, present if it came from an idempotent producer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Producer {
    /// The session.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record; control batches have none.
    pub base_sequence: Option<Sequence>,
}

/// A decoded batch header. Everything in it is consistent with itself; the CRC is not yet compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchHeader {
    /// Offset of the first record; producers send 0.
    pub base_offset: Offset,
    /// Size of the whole batch in bytes, header and length prefix included.
    pub size_bytes: u32,
    /// Epoch of the leader that appended it; producers send none.
    pub leader_epoch: Option<LeaderEpoch>,
    /// CRC-32C of everything from [`CRC_START`] on.
    pub crc: u32,
    /// Codec, clock and kind.
    pub attributes: Attributes,
    /// Distance from the base offset to the last offset that the batch stands for.
    pub last_offset_delta: u32,
    /// What record timestamps are relative to, or the delete horizon.
    pub base_timestamp: TimestampMs,
    /// Largest timestamp of the records; -1 if none has one.
    pub max_timestamp: TimestampMs,
    /// The idempotent producer, if any.
    pub producer: Option<Producer>,
    /// How many records follow. Compaction may leave fewer than the offsets suggest, or none.
    pub record_count: u32,
}

/// Why bytes are not a batch header.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("{available} bytes are too few for a batch header of {HEADER_BYTES}")]
    Short {
        /// How many bytes there are.
        available: usize,
    },
    /// Not format 2.
    #[error("magic is {magic}, only {MAGIC} is supported")]
    Magic {
        /// The format that the batch claims.
        magic: i8,
    },
    /// The length field is smaller than the fixed part or overflows.
    #[error("batch length {length} is smaller than the {} bytes that every batch has", HEADER_BYTES - LENGTH_PREFIX_BYTES)]
    Length {
        /// The length field.
        length: i32,
    },
    /// A field that cannot be negative is.
    #[error("{field} is {value}, it cannot be negative")]
    Negative {
        /// Kafka's name of the field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`. The batch may be longer than `bytes`: compare `size_bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(fixed) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Short { available: bytes.len() });
        };
        let magic = fixed[16] as i8;
        if magic != MAGIC {
            return Err(HeaderError::Magic { magic });
        }
        let length = i32_at(fixed, 8);
        let size_bytes = u32::try_from(length)
            .ok()
            .map(|length| length + LENGTH_PREFIX_BYTES as u32)
            .filter(|size| *size as usize >= HEADER_BYTES)
            .ok_or(HeaderError::Length { length })?;
        let negative = |field, value| HeaderError::Negative { field, value };
        let base_offset = i64_at(fixed, 0);
        let last_offset_delta = i32_at(fixed, 23);
        let record_count = i32_at(fixed, 57);
        Ok(Self {
            base_offset: Offset::new(base_offset).ok_or_else(|| negative("baseOffset", base_offset))?,
            size_bytes,
            leader_epoch: LeaderEpoch::new(i32_at(fixed, 12)),
            crc: i32_at(fixed, 17) as u32,
            attributes: Attributes(i16_at(fixed, 21)),
            last_offset_delta: u32::try_from(last_offset_delta)
                .map_err(|_| negative("lastOffsetDelta", last_offset_delta.into()))?,
            base_timestamp: TimestampMs(i64_at(fixed, 27)),
            max_timestamp: TimestampMs(i64_at(fixed, 35)),
            producer: Self::parse_producer(fixed)?,
            record_count: u32::try_from(record_count)
                .map_err(|_| negative("recordsCount", record_count.into()))?,
        })
    }

    fn parse_producer(fixed: &[u8; HEADER_BYTES]) -> Result<Option<Producer>, HeaderError> {
        let Some(id) = ProducerId::new(i64_at(fixed, 43)) else { return Ok(None) };
        let epoch = i16_at(fixed, 51);
        let epoch = ProducerEpoch::new(epoch)
            .ok_or(HeaderError::Negative { field: "producerEpoch", value: epoch.into() })?;
        Ok(Some(Producer { id, epoch, base_sequence: Sequence::new(i32_at(fixed, 53)) }))
    }

    /// Writes the 61 bytes. `crc` is written as it stands.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let (id, epoch, sequence) = self
            .producer
            .map_or((-1, -1, -1), |p| (p.id.get(), p.epoch.get(), p.base_sequence.map_or(-1, Sequence::get)));
        put(0, &self.base_offset.get().to_be_bytes());
        put(8, &(self.size_bytes - LENGTH_PREFIX_BYTES as u32).to_be_bytes());
        put(12, &self.leader_epoch.map_or(-1, LeaderEpoch::get).to_be_bytes());
        put(16, &MAGIC.to_be_bytes());
        put(17, &self.crc.to_be_bytes());
        put(21, &self.attributes.0.to_be_bytes());
        put(23, &self.last_offset_delta.to_be_bytes());
        put(27, &self.base_timestamp.0.to_be_bytes());
        put(35, &self.max_timestamp.0.to_be_bytes());
        put(43, &id.to_be_bytes());
        put(51, &epoch.to_be_bytes());
        put(53, &sequence.to_be_bytes());
        put(57, &self.record_count.to_be_bytes());
        bytes
    }

    /// When the tombstones of the batch may go, if compaction has said so (KIP-534).
    pub const fn delete_horizon(&self) -> Option<TimestampMs> {
        if self.attributes.has_delete_horizon() { Some(self.base_timestamp) } else { None }
    }

    /// Last offset that the batch stands for.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.advance(self.last_offset_delta.into())
    }

    /// Offset that the next batch starts at.
    pub fn next_offset(&self) -> Offset {
        self.base_offset.advance(u64::from(self.last_offset_delta) + 1)
    }

    /// CRC-32C of this header's covered part followed by `records`: what `crc` must be.
    pub fn compute_crc(&self, records: &[u8]) -> u32 {
        let mut crc = Crc32c::new();
        crc.update(&self.encode()[CRC_START..]);
        crc.update(records);
        crc.finish()
    }
}

/// A CRC-32C that is fed piece by piece.
#[derive(Debug)]
pub struct Crc32c(crc_fast::Digest);

impl Crc32c {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all of them.
    pub fn finish(&self) -> u32 {
        self.0.finalize() as u32
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn i16_at(bytes: &[u8; HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn i32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> i64 {
    (i64::from(i32_at(bytes, at)) << 32) | i64::from(i32_at(bytes, at + 4) as u32)
}
