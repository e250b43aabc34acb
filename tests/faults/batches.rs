//! Batches of stamped records.

use bytes::Bytes;
use highwater_record::{BatchBuilder, Codec, NewRecord, Producer, TimestampMs};

use super::history::Stamp;

/// What records are stamped with: later than any test runs, so that retention counts from the append.
const LATER_MS: i64 = 4_000_000_000_000;

/// A record to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamped {
    pub(crate) key: u32,
    pub(crate) stamp: Stamp,
    /// About how large the value is.
    pub(crate) value_bytes: usize,
}

/// One batch of at least one record.
pub(crate) fn batch_of(codec: Codec, producer: Option<Producer>, records: &[Stamped]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for record in records {
        let appended = builder.append(&NewRecord {
            timestamp: TimestampMs(LATER_MS + i64::from(record.stamp.counter)),
            key: Some(record.key.to_string().as_bytes()),
            value: Some(&record.stamp.to_value(record.value_bytes)),
            headers: &[],
        });
        appended.expect("a few small records fit a batch");
    }
    builder.build().expect("a batch of records can be built")
}

/// One uncompressed batch of one record of session 0, without a producer id.
pub(crate) fn plain_batch(counter: u32, value_bytes: usize) -> Bytes {
    let stamp = Stamp { session: 0, counter };
    batch_of(Codec::None, None, &[Stamped { key: 0, stamp, value_bytes }])
}
