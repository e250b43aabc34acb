//! Building a batch: records go in one by one, the bytes of one v2 batch come out.
//!
//! Offsets are the base offset and counting; timestamps are relative to the first record's. A batch with holes, as
//! compaction leaves it, is made of another one (`thin.rs`).

use std::io;

use bytes::Bytes;
use thiserror::Error;

use crate::header::{Attributes, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, Producer, TimestampType};
use crate::{Codec, LeaderEpoch, Offset, TimestampMs, codec, varint};

/// Largest batch that the length field can express, in bytes.
pub(crate) const BATCH_BYTES_MAX: usize = i32::MAX as usize + LENGTH_PREFIX_BYTES;
/// What the builder takes for the largest timestamp as long as no record has a larger one
/// (Kafka: `RecordBatch.NO_TIMESTAMP`).
pub(crate) const NO_TIMESTAMP: TimestampMs = TimestampMs(-1);

/// A record to be appended.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// When it was made.
    pub timestamp: TimestampMs,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers in their order. Keys may repeat.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Why records do not become a batch.
#[derive(Debug, Error)]
pub enum BuildError {
    /// No record was appended.
    #[error("a batch needs at least one record")]
    Empty,
    /// The batch would not fit its length field.
    #[error(
        "the batch would be {bytes} bytes long, {BATCH_BYTES_MAX} is the most that the format can express"
    )]
    TooLarge {
        /// Size that it would have.
        bytes: usize,
    },
    /// Two timestamps are too far apart.
    #[error("timestamp {timestamp} is too far from the first record's {base}")]
    Timestamp {
        /// The refused timestamp.
        timestamp: TimestampMs,
        /// The first record's.
        base: TimestampMs,
    },
    /// The codec's library gave up.
    #[error("compress with {codec}: {source}")]
    Codec {
        /// The codec.
        codec: Codec,
        /// What it says.
        source: io::Error,
    },
}

/// Collects records and makes them one batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    base_offset: Offset,
    leader_epoch: Option<LeaderEpoch>,
    producer: Option<Producer>,
    log_append_time: Option<TimestampMs>,
    transactional: bool,
    control: bool,
    base_timestamp: Option<TimestampMs>,
    max_timestamp: TimestampMs,
    records: Vec<u8>,
    count: u32,
}

impl BatchBuilder {
    /// A batch as a producer sends it: base offset 0, no leader epoch, no producer id, the producer's clock.
    pub const fn new(codec: Codec) -> Self {
        Self {
            codec,
            base_offset: Offset::ZERO,
            leader_epoch: None,
            producer: None,
            log_append_time: None,
            transactional: false,
            control: false,
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            records: Vec::new(),
            count: 0,
        }
    }

    /// Gives the first record this offset.
    #[must_use]
    pub const fn base_offset(mut self, base_offset: Offset) -> Self {
        self.base_offset = base_offset;
        self
    }

    /// Names the leader that appends the batch.
    #[must_use]
    pub const fn leader_epoch(mut self, leader_epoch: LeaderEpoch) -> Self {
        self.leader_epoch = Some(leader_epoch);
        self
    }

    /// Names the idempotent producer and its sequence.
    #[must_use]
    pub const fn producer(mut self, producer: Producer) -> Self {
        self.producer = Some(producer);
        self
    }

    /// Stamps the batch with the broker's clock: readers give every record this timestamp.
    #[must_use]
    pub const fn log_append_time(mut self, timestamp: TimestampMs) -> Self {
        self.log_append_time = Some(timestamp);
        self
    }

    /// Makes the batch part of a transaction.
    #[must_use]
    pub const fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Makes the records markers of the broker instead of user records.
    #[must_use]
    pub const fn control(mut self) -> Self {
        self.control = true;
        self
    }

    /// Appends a record; on error the batch is as it was.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<(), BuildError> {
        let base = self.base_timestamp.unwrap_or(record.timestamp);
        let timestamp_delta = record
            .timestamp
            .0
            .checked_sub(base.0)
            .ok_or(BuildError::Timestamp { timestamp: record.timestamp, base })?;
        let body_bytes = body_bytes(record, timestamp_delta, self.count);
        let bytes = self.plain_bytes().saturating_add(varint::len_i64(body_bytes as i64) + body_bytes);
        if bytes > BATCH_BYTES_MAX {
            return Err(BuildError::TooLarge { bytes });
        }
        self.base_timestamp = Some(base);
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        put_record(&mut self.records, record, timestamp_delta, self.count);
        self.count += 1;
        Ok(())
    }

    /// How many records were appended.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Size of the batch if it is not compressed.
    pub const fn plain_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The bytes of the batch.
    pub fn build(self) -> Result<Bytes, BuildError> {
        let (Some(base_timestamp), Some(last_offset_delta)) =
            (self.base_timestamp, self.count.checked_sub(1))
        else {
            return Err(BuildError::Empty);
        };
        let mut bytes = Vec::with_capacity(self.plain_bytes());
        bytes.resize(HEADER_BYTES, 0);
        codec::compress(self.codec, &self.records, &mut bytes)
            .map_err(|source| BuildError::Codec { codec: self.codec, source })?;
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(BuildError::TooLarge { bytes: bytes.len() });
        }
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            size_bytes: bytes.len() as u32,
            leader_epoch: self.leader_epoch,
            crc: 0,
            attributes: self.attributes(),
            last_offset_delta,
            base_timestamp,
            max_timestamp: self.log_append_time.unwrap_or(self.max_timestamp),
            producer: self.producer,
            record_count: self.count,
        };
        header.crc = header.compute_crc(&bytes[HEADER_BYTES..]);
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(bytes.into())
    }

    const fn attributes(&self) -> Attributes {
        let timestamp_type = match self.log_append_time {
            Some(_) => TimestampType::LogAppendTime,
            None => TimestampType::CreateTime,
        };
        let mut attributes = Attributes::new(self.codec, timestamp_type);
        if self.transactional {
            attributes = attributes.with_transactional();
        }
        if self.control {
            attributes = attributes.with_control();
        }
        attributes
    }
}

/// Appends a record as it stands in a batch.
pub(crate) fn put_record(
    bytes: &mut Vec<u8>,
    record: &NewRecord<'_>,
    timestamp_delta: i64,
    offset_delta: u32,
) {
    varint::put_i64(bytes, body_bytes(record, timestamp_delta, offset_delta) as i64);
    bytes.push(0);
    varint::put_i64(bytes, timestamp_delta);
    varint::put_i64(bytes, offset_delta.into());
    put_nullable(bytes, record.key);
    put_nullable(bytes, record.value);
    varint::put_i64(bytes, record.headers.len() as i64);
    for (key, value) in record.headers {
        put_nullable(bytes, Some(key));
        put_nullable(bytes, *value);
    }
}

fn put_nullable(bytes: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::put_i64(bytes, -1),
        Some(field) => {
            varint::put_i64(bytes, field.len() as i64);
            bytes.extend_from_slice(field);
        }
    }
}

/// Size of a record without its size field.
fn body_bytes(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: u32) -> usize {
    let nullable = |field: Option<&[u8]>| match field {
        None => 1,
        Some(field) => varint::len_i64(field.len() as i64) + field.len(),
    };
    let headers = record.headers.iter().map(|(key, value)| nullable(Some(key)) + nullable(*value));
    1 + varint::len_i64(timestamp_delta)
        + varint::len_i64(offset_delta.into())
        + nullable(record.key)
        + nullable(record.value)
        + varint::len_i64(record.headers.len() as i64)
        + headers.sum::<usize>()
}
