//! Owned records and the few verbs that the tests share.

use bytes::Bytes;
use highwater_record::{
    Batch, BatchBuilder, Codec, DecodeLimits, NewRecord, ReadError, Record, RecordsBuf, TimestampMs,
};

#[cfg(not(miri))]
pub(crate) const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// Zstd is C, which Miri does not run. LZ4, which we build without its `unsafe`, takes Miri seconds for each batch; it has
/// those of `legacy`.
#[cfg(miri)]
pub(crate) const CODECS: [Codec; 3] = [Codec::None, Codec::Gzip, Codec::Snappy];

pub(crate) const LIMITS: DecodeLimits = DecodeLimits { bytes_max: 32 << 20, ratio_max: 1000 };

/// A record that owns its bytes, as a test writes it down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Owned {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A record with a timestamp and a value.
pub(crate) fn record(timestamp: i64, value: &[u8]) -> Owned {
    Owned { timestamp, key: None, value: Some(value.to_vec()), headers: Vec::new() }
}

impl From<Record<'_>> for Owned {
    fn from(record: Record<'_>) -> Self {
        Self {
            timestamp: record.timestamp.0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        }
    }
}

/// Appends all of `records` and builds.
pub(crate) fn build(mut builder: BatchBuilder, records: &[Owned]) -> Bytes {
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        builder
            .append(&NewRecord {
                timestamp: TimestampMs(record.timestamp),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })
            .expect("the record fits");
    }
    builder.build().expect("there are records")
}

/// The bytes of hex digits; everything else is space.
pub(crate) fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).expect("a hex digit") as u8;
    digits.chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

/// A whole batch with a good checksum.
pub(crate) fn batch(bytes: Bytes) -> Batch {
    Batch::new(bytes).expect("the batch is whole")
}

/// The offsets and the records of a batch.
pub(crate) fn read(batch: &Batch) -> Result<Vec<(i64, Owned)>, ReadError> {
    collect(&batch.decompress(LIMITS)?)
}

pub(crate) fn collect(records: &RecordsBuf) -> Result<Vec<(i64, Owned)>, ReadError> {
    records
        .records()
        .map(|record| record.map(|record| (record.offset.get(), record.into())).map_err(Into::into))
        .collect()
}
