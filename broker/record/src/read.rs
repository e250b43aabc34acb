//! Reading records out of a batch: decompressed if needed, always within limits.
//!
//! A [`RecordsBuf`] owns what [`Records`] borrow. Uncompressed batches are never copied.

use bytes::Bytes;
use thiserror::Error;

use crate::codec::{self, CodecError, DecodeLimits};
use crate::record::{RecordError, Records};
use crate::{Batch, BatchHeader, Codec, Offset, TimestampMs};

/// The uncompressed records of one batch.
#[derive(Clone, Debug)]
pub struct RecordsBuf {
    header: BatchHeader,
    payload: Bytes,
}

impl RecordsBuf {
    /// The records in their order.
    pub fn records(&self) -> Records<'_> {
        Records::new(self.header, &self.payload)
    }

    /// The bytes of all records, uncompressed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Size of the records without the batch header, uncompressed.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
}

/// Why the records of a batch cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// They cannot be decompressed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// They are not what the header promises.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Batch {
    /// The records of an uncompressed batch; `None` if it is compressed: see [`Batch::decompress`].
    pub fn records(&self) -> Option<Records<'_>> {
        (self.header().attributes.codec() == Some(Codec::None))
            .then(|| Records::new(*self.header(), self.payload()))
    }

    /// The records, decompressed within `limits`. An uncompressed batch is neither copied nor limited.
    pub fn decompress(&self, limits: DecodeLimits) -> Result<RecordsBuf, CodecError> {
        let header = *self.header();
        let payload = match header.attributes.codec() {
            None => return Err(CodecError::Unknown { number: header.attributes.codec_number() }),
            Some(Codec::None) => self.bytes().slice(crate::HEADER_BYTES..),
            Some(codec) => codec::decompress(codec, self.payload(), limits)?.into(),
        };
        Ok(RecordsBuf { header, payload })
    }

    /// The first record whose timestamp is at least `timestamp`: its offset and its timestamp.
    ///
    /// A batch whose header promises only earlier timestamps is not opened.
    pub fn first_at_or_after(
        &self,
        timestamp: TimestampMs,
        limits: DecodeLimits,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        if self.header().max_timestamp < timestamp {
            return Ok(None);
        }
        for record in self.decompress(limits)?.records() {
            let record = record?;
            if record.timestamp >= timestamp {
                return Ok(Some((record.offset, record.timestamp)));
            }
        }
        Ok(None)
    }

    /// The first of the records with the largest timestamp: its offset and its timestamp. `None` if no record is
    /// left in the batch.
    pub fn max_timestamp_record(
        &self,
        limits: DecodeLimits,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        let mut largest: Option<(Offset, TimestampMs)> = None;
        for record in self.decompress(limits)?.records() {
            let record = record?;
            if largest.is_none_or(|(_, timestamp)| record.timestamp > timestamp) {
                largest = Some((record.offset, record.timestamp));
            }
        }
        Ok(largest)
    }
}
