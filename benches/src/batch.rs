//! A v2 record batch built once and sent many times: the generator must cost the machine as little as it can.
//!
//! Uncompressed, no keys, no headers, no producer id, so that the same bytes are valid again and again.

use anyhow::{Context, Result, ensure};
use highwater_record::{Attributes, BatchHeader, Codec, HEADER_BYTES, Offset, TimestampMs, TimestampType};

/// Timestamp of every record: a fixed day, so that two runs send the same bytes.
const TIMESTAMP: TimestampMs = TimestampMs(1_790_000_000_000);
/// Room that a record needs besides its value: length, attributes, deltas, key, value length, header count.
const RECORD_OVERHEAD_BYTES_MAX: usize = 24;

/// The bytes of a batch and how many records they hold.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) record_count: u32,
}

impl Batch {
    /// A batch of at most `batch_bytes`, filled with records whose values have `value_bytes`.
    pub(crate) fn build(batch_bytes: usize, value_bytes: usize) -> Result<Self> {
        let room = batch_bytes.saturating_sub(HEADER_BYTES);
        let fits = value_bytes + RECORD_OVERHEAD_BYTES_MAX;
        ensure!(fits <= room, "a record of {value_bytes} bytes does not fit in a batch of {batch_bytes}");
        let (mut records, mut count, mut noise) = (Vec::with_capacity(room), 0, Noise(42));
        while records.len() + fits <= room {
            put_record(&mut records, count, value_bytes, &mut noise);
            count += 1;
        }
        let header = BatchHeader {
            base_offset: Offset::new(0).context("0 is an offset")?,
            size_bytes: u32::try_from(HEADER_BYTES + records.len()).context("size of the batch")?,
            leader_epoch: None,
            crc: 0,
            attributes: Attributes::new(Codec::None, TimestampType::CreateTime),
            last_offset_delta: count - 1,
            base_timestamp: TIMESTAMP,
            max_timestamp: TIMESTAMP,
            producer: None,
            record_count: count,
        };
        let header = BatchHeader { crc: header.compute_crc(&records), ..header };
        let mut bytes = header.encode().to_vec();
        bytes.append(&mut records);
        Ok(Self { bytes, record_count: count })
    }
}

/// One record, as `DefaultRecord.java` lays it out.
fn put_record(records: &mut Vec<u8>, offset_delta: u32, value_bytes: usize, noise: &mut Noise) {
    let mut body = vec![0];
    put_varint(&mut body, 0);
    put_varint(&mut body, offset_delta.into());
    put_varint(&mut body, -1);
    put_varint(&mut body, value_bytes as i64);
    body.extend((0..value_bytes).map(|_| noise.letter()));
    put_varint(&mut body, 0);
    put_varint(records, body.len() as i64);
    records.append(&mut body);
}

/// Zigzag, then seven bits a byte, least significant first.
fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// Letters in no order (xorshift), the same in every run.
struct Noise(u64);

impl Noise {
    fn letter(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        b'a' + (self.0 % 26) as u8
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    #[test]
    fn an_independent_decoder_reads_every_record() {
        let batch = Batch::build(64 << 10, 1000).unwrap();

        let mut bytes = Bytes::from(batch.bytes.clone());
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        let records = set.records;

        assert_eq!(records.len(), batch.record_count as usize);
        assert!(records.iter().all(|record| record.value.as_ref().is_some_and(|value| value.len() == 1000)));
        assert!((0..).zip(&records).all(|(offset, record)| record.offset == offset));
    }

    #[test]
    fn a_batch_is_as_full_as_its_records_allow() {
        let batch = Batch::build(1 << 20, 1000).unwrap();

        assert!(batch.bytes.len() <= 1 << 20);
        assert!(batch.bytes.len() + 1024 > 1 << 20);
    }

    #[test]
    fn a_value_that_does_not_fit_gets_a_sentence() {
        let error = Batch::build(100, 1000).unwrap_err().to_string();

        assert_eq!(error, "a record of 1000 bytes does not fit in a batch of 100");
    }
}
