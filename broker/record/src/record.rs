//! Records: a walk over the uncompressed records of one batch, borrowing from its bytes.
//!
//! The layout is Kafka's (`DefaultRecord.java`). This file knows no codec. Nothing is allocated, so a count that
//! lies costs nothing: the walk ends where the bytes end.
//!
//! A walk is strict where readers could disagree about what a batch holds: sizes are exact, offsets ascend within
//! the range of the header, the header's count is the count, nothing follows the last record.

use std::iter::FusedIterator;

use thiserror::Error;

use crate::header::{BatchHeader, TimestampType};
use crate::varint::{self, VarintError};
use crate::{Offset, TimestampMs};

/// One record. Keys, values and headers are bytes: nothing says that they are text.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Its place in the partition.
    pub offset: Offset,
    /// The producer's time, or the batch's largest timestamp if the broker stamped the batch.
    pub timestamp: TimestampMs,
    /// The key, if any. An empty key is a key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers in their order. Keys may repeat.
    pub headers: Headers<'a>,
}

/// The headers of one record: pairs of key and value. The bytes were walked once, so that iterating cannot fail.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    remaining: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        take_header(&mut self.bytes).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}

/// Why the bytes of a batch are not the records that its header promises.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
#[error("record {index} of {count}: {fault}")]
pub struct RecordError {
    /// Place of the record in the batch, from 0.
    pub index: u32,
    /// How many records the header promises.
    pub count: u32,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum RecordFault {
    /// The batch ends before the promised count.
    #[error("the batch has no bytes left for it")]
    Missing,
    /// Bytes end inside a field.
    #[error("its bytes end inside {field}")]
    Short {
        /// The field.
        field: &'static str,
    },
    /// A varint has more bits than its type.
    #[error("{field} is an over-long varint")]
    Varint {
        /// The field.
        field: &'static str,
    },
    /// A size or count is negative where that has no meaning.
    #[error("{field} is {value}, it cannot be negative")]
    Negative {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i32,
    },
    /// A length points beyond what there is.
    #[error("{claimed} bytes are claimed by {field}, {available} are left")]
    Beyond {
        /// The field.
        field: &'static str,
        /// Bytes that it claims.
        claimed: usize,
        /// Bytes that are left.
        available: usize,
    },
    /// More headers than the rest of the record could hold at two bytes each.
    #[error("it claims {claimed} headers, {available} bytes are left for them")]
    HeaderCount {
        /// Headers that it claims.
        claimed: usize,
        /// Bytes that are left.
        available: usize,
    },
    /// The record is longer than its fields.
    #[error("{bytes} bytes follow its last header")]
    RecordTrailing {
        /// Bytes too many.
        bytes: usize,
    },
    /// The batch is longer than its records.
    #[error("{bytes} bytes follow the last record")]
    BatchTrailing {
        /// Bytes too many.
        bytes: usize,
    },
    /// Offsets do not ascend, or leave the range of the header.
    #[error("its offset delta is {delta}, only {from} to {to} are possible")]
    OffsetDelta {
        /// The delta.
        delta: i32,
        /// Smallest delta that would ascend.
        from: u32,
        /// The header's last offset delta.
        to: u32,
    },
    /// Base and delta do not sum up to a timestamp.
    #[error("timestamp {base} plus delta {delta} overflows")]
    Timestamp {
        /// Base timestamp of the batch.
        base: TimestampMs,
        /// The record's delta.
        delta: i64,
    },
}

/// The records of one batch, one after another. After an error it ends.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    header: BatchHeader,
    index: u32,
    /// Smallest offset delta that still ascends.
    delta_next: u32,
    ended: bool,
}

impl<'a> Records<'a> {
    /// A walk over `payload`, the uncompressed records that follow `header`.
    pub(crate) const fn new(header: BatchHeader, payload: &'a [u8]) -> Self {
        Self { rest: payload, header, index: 0, delta_next: 0, ended: false }
    }

    /// Bytes of the batch that no record was taken from yet.
    pub const fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take_record(&mut self) -> Result<Record<'a>, RecordFault> {
        if self.rest.is_empty() {
            return Err(RecordFault::Missing);
        }
        let size = take_size(&mut self.rest, "the record size")?;
        let mut body = take_bytes(&mut self.rest, "the record size", size)?;
        // The attributes of a record are unused in format 2.
        take_bytes(&mut body, "the attributes", 1)?;
        let timestamp_delta = varint::take_i64(&mut body).map_err(in_field("the timestamp delta"))?;
        let offset_delta = varint::take_i32(&mut body).map_err(in_field("the offset delta"))?;
        let offset = self.offset_of(offset_delta)?;
        let timestamp = self.timestamp_of(timestamp_delta)?;
        let key = take_nullable(&mut body, "the key size")?;
        let value = take_nullable(&mut body, "the value size")?;
        let headers = take_headers(body)?;
        Ok(Record { offset, timestamp, key, value, headers })
    }

    #[inline]
    fn offset_of(&mut self, delta: i32) -> Result<Offset, RecordFault> {
        let (from, to) = (self.delta_next, self.header.last_offset_delta);
        match u32::try_from(delta) {
            Ok(delta) if (from..=to).contains(&delta) => {
                self.delta_next = delta + 1;
                Ok(self.header.base_offset.advance(delta.into()))
            }
            _ => Err(RecordFault::OffsetDelta { delta, from, to }),
        }
    }

    #[inline]
    fn timestamp_of(&self, delta: i64) -> Result<TimestampMs, RecordFault> {
        if self.header.attributes.timestamp_type() == TimestampType::LogAppendTime {
            return Ok(self.header.max_timestamp);
        }
        let base = self.header.base_timestamp;
        base.0.checked_add(delta).map(TimestampMs).ok_or(RecordFault::Timestamp { base, delta })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let outcome = if self.index == self.header.record_count {
            self.ended = true;
            match self.rest.len() {
                0 => return None,
                bytes => Err(RecordFault::BatchTrailing { bytes }),
            }
        } else {
            self.take_record()
        };
        let outcome = outcome.map_err(|fault| {
            self.ended = true;
            RecordError { index: self.index, count: self.header.record_count, fault }
        });
        self.index = self.index.saturating_add(1);
        Some(outcome)
    }
}

impl FusedIterator for Records<'_> {}

fn in_field(field: &'static str) -> impl Fn(VarintError) -> RecordFault {
    move |error| match error {
        VarintError::Short => RecordFault::Short { field },
        VarintError::Overlong => RecordFault::Varint { field },
    }
}

#[inline]
fn take_bytes<'a>(
    bytes: &mut &'a [u8],
    field: &'static str,
    claimed: usize,
) -> Result<&'a [u8], RecordFault> {
    let Some((taken, rest)) = bytes.split_at_checked(claimed) else {
        return Err(RecordFault::Beyond { field, claimed, available: bytes.len() });
    };
    *bytes = rest;
    Ok(taken)
}

#[inline]
fn take_size(bytes: &mut &[u8], field: &'static str) -> Result<usize, RecordFault> {
    let value = varint::take_i32(bytes).map_err(in_field(field))?;
    usize::try_from(value).map_err(|_| RecordFault::Negative { field, value })
}

/// Takes a size and that many bytes; a size of -1 is null.
#[inline]
fn take_nullable<'a>(bytes: &mut &'a [u8], field: &'static str) -> Result<Option<&'a [u8]>, RecordFault> {
    match varint::take_i32(bytes).map_err(in_field(field))? {
        -1 => Ok(None),
        value => {
            let size = usize::try_from(value).map_err(|_| RecordFault::Negative { field, value })?;
            take_bytes(bytes, field, size).map(Some)
        }
    }
}

/// Takes all that is left of a record: its headers, walked once.
#[inline]
fn take_headers(mut body: &[u8]) -> Result<Headers<'_>, RecordFault> {
    let count = take_size(&mut body, "the header count")?;
    if count > body.len() / 2 {
        return Err(RecordFault::HeaderCount { claimed: count, available: body.len() });
    }
    let headers = Headers { bytes: body, remaining: count };
    for _ in 0..count {
        take_header(&mut body)?;
    }
    match body.len() {
        0 => Ok(headers),
        bytes => Err(RecordFault::RecordTrailing { bytes }),
    }
}

fn take_header<'a>(bytes: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), RecordFault> {
    let size = take_size(bytes, "a header key size")?;
    let key = take_bytes(bytes, "a header key size", size)?;
    Ok((key, take_nullable(bytes, "a header value size")?))
}
