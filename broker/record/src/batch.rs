//! A whole batch as one run of bytes: its header, its checksum, its patch points.
//!
//! [`Batch`] is a batch whose bytes are complete and whose CRC was compared; holding one is the proof. What the
//! records inside say is another question: `records` walks them, `validate` decides what a broker accepts.

use bytes::Bytes;
use thiserror::Error;

use crate::header::{BatchHeader, CRC_START, HEADER_BYTES, HeaderError, crc32c};
use crate::{LeaderEpoch, Offset, TimestampMs, TimestampType};

/// A complete v2 batch whose checksum holds. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

/// Why bytes are not one whole batch.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum BatchError {
    /// The fixed part does not parse.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The batch and the bytes differ in length.
    #[error("batch says it is {expected} bytes long, there are {actual}")]
    Size {
        /// Size by the batch's length field.
        expected: u32,
        /// Bytes that there are.
        actual: usize,
    },
    /// The checksum differs.
    #[error("batch checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    Crc {
        /// CRC in the header.
        stored: u32,
        /// CRC of the bytes.
        computed: u32,
    },
}

impl Batch {
    /// Takes exactly one batch and compares its CRC.
    pub fn new(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.size_bytes as usize != bytes.len() {
            return Err(BatchError::Size { expected: header.size_bytes, actual: bytes.len() });
        }
        let computed = crc32c(&bytes[CRC_START..]);
        if computed != header.crc {
            return Err(BatchError::Crc { stored: header.crc, computed });
        }
        Ok(Self { header, bytes })
    }

    /// The same batch with another largest timestamp and clock. The CRC covers both, so the bytes are copied.
    ///
    /// The two reasons: the broker stamps the batch (LogAppendTime), or the producer left the timestamp unset.
    #[must_use]
    pub fn with_max_timestamp(&self, timestamp_type: TimestampType, max_timestamp: TimestampMs) -> Self {
        let attributes = self.header.attributes.with_timestamp_type(timestamp_type);
        let mut header = BatchHeader { attributes, max_timestamp, ..self.header };
        header.crc = header.compute_crc(self.payload());
        let mut bytes = self.bytes.to_vec();
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        Self { header, bytes: bytes.into() }
    }

    /// A batch of a header and of bytes that have room for it in front; size and CRC are set.
    pub(crate) fn from_parts(mut header: BatchHeader, mut bytes: Vec<u8>) -> Self {
        header.size_bytes = bytes.len() as u32;
        header.crc = header.compute_crc(&bytes[HEADER_BYTES..]);
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        Self { header, bytes: bytes.into() }
    }

    /// The decoded header.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes, header included.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes after the header: records, compressed or not.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

/// Sets base offset and leader epoch of the batch at the front of `bytes`; the CRC covers neither.
///
/// # Panics
/// If `bytes` is shorter than a batch header.
pub fn patch(bytes: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    assert!(bytes.len() >= HEADER_BYTES, "a batch has at least {HEADER_BYTES} bytes");
    bytes[0..8].copy_from_slice(&base_offset.get().to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.get().to_be_bytes());
}
