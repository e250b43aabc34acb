//! Messages of formats 0 and 1, which Kafka wrote before 0.11: one entry of an old log in, one v2 batch out.
//!
//! Only for reading old files: nothing here writes those formats, and no broker accepts or serves them.
//!
//! ```text
//! offset i64, size i32, then the message: crc u32 (CRC-32 of what follows), magic i8, attributes i8,
//! timestamp i64 (format 1 alone, KIP-32), key and value (a size i32 each, -1 for null, and the bytes)
//! ```
//!
//! A compressed entry is a wrapper: its value is a compressed row of such entries, none of them compressed itself. The
//! offset of a wrapper is that of its last message. Offsets inside are absolute in format 0 and relative to each other
//! in format 1 (KIP-31). A wrapper that the broker stamped gives its timestamp to all that is in it (KIP-32). Compaction
//! may leave gaps between the messages of a wrapper. (Kafka: `LegacyRecord.java`, `AbstractLegacyRecordBatch.java`.)
//!
//! Every byte is hostile: CRCs are compared before anything is decompressed, outside and inside; wrappers in wrappers
//! are refused; what is allocated follows bytes that there are, never a size that they claim.

use std::fmt;

use thiserror::Error;

use crate::builder::{BATCH_BYTES_MAX, NO_TIMESTAMP, NewRecord, put_record};
use crate::codec::{self, CodecError, DecodeLimits};
use crate::header::{Attributes, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, TimestampType};
use crate::{Batch, Codec, Offset, TimestampMs};

/// Where the format of an entry or of a batch stands; the same place in all three.
const MAGIC_AT: usize = 16;
/// First byte that the CRC of a message covers.
const CRC_COVERS_FROM: usize = 16;
/// Bytes of an entry that [`LegacyEntry::parse`] looks at. The shortest entries of format 0 have no more.
const FIXED_BYTES: usize = 26;
const ATTRIBUTE_LOG_APPEND_TIME: u8 = 1 << 3;

/// How the records of a log entry are written.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum MessageFormat {
    /// Messages without timestamps; Kafka up to 0.9.
    V0,
    /// Messages with timestamps; Kafka 0.10.
    V1,
    /// Record batches; Kafka since 0.11, and the only format that we write.
    V2,
}

impl MessageFormat {
    /// The format of the entry at the front of `bytes`, by its magic byte alone.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.get(MAGIC_AT)? {
            0 => Some(Self::V0),
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

impl fmt::Display for MessageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0 => "v0",
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// The fixed part of an entry of format 0 or 1. Its CRC is not compared yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LegacyEntry {
    /// Offset of the last message that the entry stands for; inside a wrapper of format 1 it is relative.
    pub offset: Offset,
    /// Size of the whole entry in bytes, offset and size included.
    pub size_bytes: u32,
    /// CRC-32 of everything from the magic on.
    pub crc: u32,
    /// Format 0 or 1.
    pub format: MessageFormat,
    /// Codec and clock, as a batch would say them. Format 0 names no clock.
    pub attributes: Attributes,
    /// Timestamp of the message, or the largest one in a wrapper; -1 in format 0.
    pub timestamp: TimestampMs,
}

/// What is wrong with one message or its fixed part.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum LegacyFault {
    /// Fewer bytes than the shortest entry has.
    #[error("{available} bytes are too few for a message, which has {FIXED_BYTES} at least")]
    Short {
        /// How many bytes there are.
        available: usize,
    },
    /// Not format 0 or 1.
    #[error("magic is {magic}, messages have 0 or 1")]
    Magic {
        /// The format that it claims.
        magic: i8,
    },
    /// The size field is smaller than the fixed part.
    #[error("message size is {size}, a message of format {format} has at least {least} bytes")]
    Size {
        /// The size field.
        size: i32,
        /// The format.
        format: MessageFormat,
        /// The smallest size that it has.
        least: i32,
    },
    /// The offset cannot be negative.
    #[error("offset is {offset}, it cannot be negative")]
    Offset {
        /// The offset.
        offset: i64,
    },
    /// The message ends after the bytes do.
    #[error("the message says it is {size_bytes} bytes long, there are {available}")]
    PastEnd {
        /// Size by the size field, offset and size included.
        size_bytes: u32,
        /// How many bytes there are.
        available: usize,
    },
    /// The checksum differs.
    #[error("message checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    Crc {
        /// CRC in the message.
        stored: u32,
        /// CRC of the bytes.
        computed: u32,
    },
    /// Key or value ends after the message does.
    #[error("{claimed} bytes are claimed by {field}, {available} are left")]
    Beyond {
        /// The field.
        field: &'static str,
        /// Its size; negative where only -1 has a meaning.
        claimed: i32,
        /// Bytes that are left for it.
        available: usize,
    },
    /// The message is longer than its fields.
    #[error("{bytes} bytes follow its value")]
    Trailing {
        /// Bytes too many.
        bytes: usize,
    },
}

/// Why an entry does not become a batch.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum LegacyError {
    /// The entry itself is wrong.
    #[error(transparent)]
    Entry(#[from] LegacyFault),
    /// Bytes follow the entry.
    #[error("{bytes} bytes follow the entry")]
    Trailing {
        /// Bytes too many.
        bytes: usize,
    },
    /// A codec that these formats do not have.
    #[error("codec {number} is unknown in format {format}, the known ones are 0 to 3")]
    Codec {
        /// The number in the attributes.
        number: i16,
        /// The format.
        format: MessageFormat,
    },
    /// A wrapper with nothing to unwrap.
    #[error("the message is compressed and has no value")]
    NoValue,
    /// What is wrapped cannot be decompressed.
    #[error("the {bytes} bytes of the message's value are not a {codec} stream")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// Size of the value.
        bytes: usize,
    },
    /// What is wrapped passes the cap.
    #[error("{compressed} bytes of {codec} grow beyond the limit of {limit} bytes")]
    Bomb {
        /// The codec.
        codec: Codec,
        /// Size of the value.
        compressed: usize,
        /// Most bytes of output for it.
        limit: usize,
    },
    /// A wrapper of nothing.
    #[error("no message is in the compressed one")]
    Empty,
    /// A wrapped message is wrong.
    #[error("message {index} of the compressed one: {fault}")]
    Inner {
        /// Its place in the wrapper, from 0.
        index: u32,
        /// What is wrong with it.
        fault: LegacyFault,
    },
    /// A wrapper in a wrapper.
    #[error("message {index} of the compressed one is compressed itself")]
    Nested {
        /// Its place in the wrapper, from 0.
        index: u32,
    },
    /// Offsets in a wrapper do not ascend.
    #[error("message {index} of the compressed one has offset {offset} after {before}")]
    OffsetOrder {
        /// Its place in the wrapper, from 0.
        index: u32,
        /// Its offset as it stands there.
        offset: Offset,
        /// The offset before it.
        before: Offset,
    },
    /// The offset of a wrapper is that of its last message.
    #[error("the last message of the compressed one has offset {last}, the compressed one has {wrapper}")]
    LastOffset {
        /// Offset of the last message as it stands there.
        last: Offset,
        /// Offset of the wrapper.
        wrapper: Offset,
    },
    /// Offsets of one batch are within 2^31 of each other.
    #[error("offsets {first} and {last} are too far apart for one batch")]
    OffsetRange {
        /// The first one.
        first: Offset,
        /// The last one.
        last: Offset,
    },
    /// Two timestamps are too far apart.
    #[error("timestamp {timestamp} is too far from the first message's {base}")]
    Timestamp {
        /// The later message's.
        timestamp: TimestampMs,
        /// The first message's.
        base: TimestampMs,
    },
    /// The batch would not fit its length field.
    #[error(
        "the messages would be a batch of {bytes} bytes, {BATCH_BYTES_MAX} is the most that the format can express"
    )]
    TooLarge {
        /// Size that it would have.
        bytes: usize,
    },
}

impl LegacyEntry {
    /// Reads the fixed part at the front of `bytes`. The entry may be longer than `bytes`: compare `size_bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, LegacyFault> {
        let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
            return Err(LegacyFault::Short { available: bytes.len() });
        };
        let Some(format @ (MessageFormat::V0 | MessageFormat::V1)) = MessageFormat::of(fixed) else {
            return Err(LegacyFault::Magic { magic: fixed[MAGIC_AT] as i8 });
        };
        let size = u32_at(fixed, 8) as i32;
        let least = (fields_at(format) - LENGTH_PREFIX_BYTES + 8) as i32;
        if size < least {
            return Err(LegacyFault::Size { size, format, least });
        }
        let offset = i64_at(fixed, 0);
        let stamped = format == MessageFormat::V1 && fixed[17] & ATTRIBUTE_LOG_APPEND_TIME != 0;
        let clock = if stamped { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        Ok(Self {
            offset: Offset::new(offset).ok_or(LegacyFault::Offset { offset })?,
            size_bytes: size as u32 + LENGTH_PREFIX_BYTES as u32,
            crc: u32_at(fixed, 12),
            format,
            attributes: Attributes::of_codec_number(fixed[17].into()).with_timestamp_type(clock),
            timestamp: if format == MessageFormat::V1 {
                TimestampMs(i64_at(fixed, 18))
            } else {
                NO_TIMESTAMP
            },
        })
    }

    /// What a batch header would say of an entry that nobody has looked into: one message at its offset. A compressed
    /// entry may begin earlier; how many messages it has is not known, and 0 is said.
    ///
    /// Size, CRC, codec and clock are the entry's own, the rest is what [`up_convert`] would give.
    pub fn header(&self) -> BatchHeader {
        BatchHeader {
            base_offset: self.offset,
            size_bytes: self.size_bytes,
            leader_epoch: None,
            crc: self.crc,
            attributes: self.attributes,
            last_offset_delta: 0,
            base_timestamp: self.timestamp,
            max_timestamp: self.largest(self.timestamp),
            producer: None,
            record_count: u32::from(!self.is_compressed()),
        }
    }

    /// The header of `batch`, which this entry was up-converted to, with size, CRC and codec of the entry.
    pub fn header_of(&self, batch: &Batch) -> BatchHeader {
        BatchHeader {
            size_bytes: self.size_bytes,
            crc: self.crc,
            attributes: self.attributes,
            ..*batch.header()
        }
    }

    /// Whether the value is a compressed row of entries, by a known codec or not.
    pub const fn is_compressed(&self) -> bool {
        self.attributes.codec_number() != 0
    }

    fn is_stamped(&self) -> bool {
        self.attributes.timestamp_type() == TimestampType::LogAppendTime
    }

    /// The largest timestamp, as a batch header says it, of records of which `timestamp` is the largest.
    fn largest(&self, timestamp: TimestampMs) -> TimestampMs {
        if self.is_stamped() { self.timestamp } else { timestamp.max(NO_TIMESTAMP) }
    }
}

/// Makes exactly one entry, its CRCs compared, an uncompressed v2 batch in memory with the same records: offsets,
/// timestamps, keys, values. The batch never was in a log: its size, its CRC and its missing codec are its own.
///
/// Of a batch's two clocks the entry's is kept; messages of format 0 have the timestamp -1.
pub fn up_convert(bytes: &[u8], limits: DecodeLimits) -> Result<Batch, LegacyError> {
    let mut rest = bytes;
    let message = Message::take(&mut rest)?;
    if !rest.is_empty() {
        return Err(LegacyError::Trailing { bytes: rest.len() });
    }
    let entry = message.entry;
    let (format, number) = (entry.format, entry.attributes.codec_number());
    let codec = match entry.attributes.codec() {
        Some(Codec::None) => {
            let mut records = Records::new(entry);
            records.append(0, &message)?;
            return records.into_batch();
        }
        Some(codec @ (Codec::Gzip | Codec::Snappy | Codec::Lz4)) => codec,
        Some(Codec::Zstd) | None => return Err(LegacyError::Codec { number, format }),
    };
    let compressed = message.value.ok_or(LegacyError::NoValue)?;
    let plain = match (format, codec) {
        (MessageFormat::V0, Codec::Lz4) => codec::decompress_lz4_of_v0(compressed, limits),
        _ => codec::decompress(codec, compressed, limits),
    };
    let plain = plain.map_err(|error| match (error, compressed.len()) {
        (CodecError::TooLarge { limit, .. }, compressed) => LegacyError::Bomb { codec, compressed, limit },
        (_, bytes) => LegacyError::Corrupt { codec, bytes },
    })?;
    let (mut rest, mut index) = (&plain[..], 0);
    let mut records = Records::new(entry);
    while !rest.is_empty() {
        let inner = Message::take(&mut rest).map_err(|fault| LegacyError::Inner { index, fault })?;
        if inner.entry.is_compressed() {
            return Err(LegacyError::Nested { index });
        }
        records.append(index, &inner)?;
        index += 1;
    }
    records.into_batch()
}

/// One message whose bytes are whole and whose CRC was compared.
struct Message<'a> {
    entry: LegacyEntry,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    fn take(bytes: &mut &'a [u8]) -> Result<Self, LegacyFault> {
        let entry = LegacyEntry::parse(bytes)?;
        let size_bytes = entry.size_bytes;
        let Some((whole, rest)) = bytes.split_at_checked(size_bytes as usize) else {
            return Err(LegacyFault::PastEnd { size_bytes, available: bytes.len() });
        };
        let (stored, computed) = (entry.crc, crc32(&whole[CRC_COVERS_FROM..]));
        if computed != stored {
            return Err(LegacyFault::Crc { stored, computed });
        }
        let mut fields = &whole[fields_at(entry.format)..];
        let key = take_nullable(&mut fields, "the key")?;
        let value = take_nullable(&mut fields, "the value")?;
        if !fields.is_empty() {
            return Err(LegacyFault::Trailing { bytes: fields.len() });
        }
        *bytes = rest;
        Ok(Self { entry, key, value })
    }
}

/// The records of a batch, made of the messages of one entry. Offsets are as the messages say them, so that those of a
/// wrapper of format 1 are known only when the last one was seen.
struct Records {
    entry: LegacyEntry,
    first: Option<(Offset, TimestampMs)>,
    last: Offset,
    max_timestamp: TimestampMs,
    count: u32,
    /// Room for a batch header, then the records.
    bytes: Vec<u8>,
}

impl Records {
    fn new(entry: LegacyEntry) -> Self {
        let bytes = vec![0; HEADER_BYTES];
        Self { entry, first: None, last: Offset::ZERO, max_timestamp: NO_TIMESTAMP, count: 0, bytes }
    }

    fn append(&mut self, index: u32, message: &Message<'_>) -> Result<(), LegacyError> {
        let offset = message.entry.offset;
        let timestamp = if self.entry.is_stamped() { self.entry.timestamp } else { message.entry.timestamp };
        let (first, base) = *self.first.get_or_insert((offset, timestamp));
        if index > 0 && offset <= self.last {
            return Err(LegacyError::OffsetOrder { index, offset, before: self.last });
        }
        let offset_delta = delta(first, offset)?;
        let timestamp_delta =
            timestamp.0.checked_sub(base.0).ok_or(LegacyError::Timestamp { timestamp, base })?;
        let record = NewRecord { timestamp, key: message.key, value: message.value, headers: &[] };
        put_record(&mut self.bytes, &record, timestamp_delta, offset_delta);
        self.last = offset;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        Ok(())
    }

    fn into_batch(self) -> Result<Batch, LegacyError> {
        let (first, base_timestamp) = self.first.ok_or(LegacyError::Empty)?;
        let (last, wrapper) = (self.last, self.entry.offset);
        if last > wrapper {
            return Err(LegacyError::LastOffset { last, wrapper });
        }
        // Relative offsets say how far the others lie before the last one, absolute ones say it all.
        let base_offset = match self.entry.format {
            MessageFormat::V1 => Offset::ZERO.advance(wrapper.since(Offset::ZERO) - last.since(first)),
            MessageFormat::V0 | MessageFormat::V2 => first,
        };
        if self.bytes.len() > BATCH_BYTES_MAX {
            return Err(LegacyError::TooLarge { bytes: self.bytes.len() });
        }
        let header = BatchHeader {
            base_offset,
            size_bytes: 0,
            leader_epoch: None,
            crc: 0,
            attributes: Attributes::new(Codec::None, self.entry.attributes.timestamp_type()),
            last_offset_delta: delta(base_offset, wrapper)?,
            base_timestamp,
            max_timestamp: self.entry.largest(self.max_timestamp),
            producer: None,
            record_count: self.count,
        };
        Ok(Batch::from_parts(header, self.bytes))
    }
}

/// How far `last` lies after `first`, if a batch can say it.
fn delta(first: Offset, last: Offset) -> Result<u32, LegacyError> {
    let delta = i32::try_from(last.since(first)).map_err(|_| LegacyError::OffsetRange { first, last })?;
    Ok(delta as u32)
}

/// Where the key's size stands in an entry.
const fn fields_at(format: MessageFormat) -> usize {
    match format {
        MessageFormat::V0 => 18,
        MessageFormat::V1 | MessageFormat::V2 => 26,
    }
}

fn take_nullable<'a>(bytes: &mut &'a [u8], field: &'static str) -> Result<Option<&'a [u8]>, LegacyFault> {
    let Some((size, rest)) = bytes.split_first_chunk() else {
        return Err(LegacyFault::Beyond { field, claimed: 4, available: bytes.len() });
    };
    let claimed = i32::from_be_bytes(*size);
    *bytes = rest;
    if claimed == -1 {
        return Ok(None);
    }
    let taken = usize::try_from(claimed).ok().and_then(|size| rest.split_at_checked(size));
    let (taken, rest) = taken.ok_or(LegacyFault::Beyond { field, claimed, available: rest.len() })?;
    *bytes = rest;
    Ok(Some(taken))
}

/// CRC-32 (IEEE): what protected messages before batches had CRC-32C.
fn crc32(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes) as u32
}

fn u32_at(bytes: &[u8; FIXED_BYTES], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8; FIXED_BYTES], at: usize) -> i64 {
    (i64::from(u32_at(bytes, at)) << 32) | i64::from(u32_at(bytes, at + 4))
}
