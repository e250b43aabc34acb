//! Single records whose bytes lie, one by one, and what is said about each.

use bytes::Bytes;
use highwater_record::{Batch, BatchHeader, Codec, HEADER_BYTES, TimestampMs};

use crate::support::{LIMITS, batch, build, record};

/// A batch that says it holds one uncompressed record and has `payload` for it.
fn holding(payload: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Batch {
    let bytes = build(highwater_record::BatchBuilder::new(Codec::None), &[record(1, b"a")]);
    let mut header = BatchHeader::parse(&bytes).expect("the header is whole");
    header.size_bytes = (HEADER_BYTES + payload.len()) as u32;
    change(&mut header);
    header.crc = header.compute_crc(payload);
    batch(Bytes::from([&header.encode(), payload].concat()))
}

#[track_caller]
fn check(payload: &[u8], fault: &str) {
    let batch = holding(payload, |_| ());
    let mut records = batch.records().expect("the batch is not compressed");

    let error = records.next().expect("something is said").expect_err("the record is refused");

    assert_eq!(error.to_string(), format!("record 0 of 1: {fault}"));
    assert!(records.next().is_none(), "nothing follows an error");
}

#[test]
fn the_smallest_record_has_seven_bytes() {
    let batch = holding(&[12, 0, 0, 0, 1, 1, 0], |_| ());

    let record = batch.records().unwrap().next().unwrap().unwrap();

    assert_eq!((record.key, record.value, record.headers.len()), (None, None, 0));
}

#[test]
fn sizes_that_lie_are_named() {
    check(&[], "the batch has no bytes left for it");
    check(&[14, 0, 0, 0, 1, 1, 0], "7 bytes are claimed by the record size, 6 are left");
    check(&[11, 0, 0, 0, 1, 1, 0], "the record size is -6, it cannot be negative");
    check(&[0], "1 bytes are claimed by the attributes, 0 are left");
    check(&[2, 0], "its bytes end inside the timestamp delta");
    check(&[12, 0, 0, 0, 6, 1, 0], "3 bytes are claimed by the key size, 2 are left");
    check(&[12, 0, 0, 0, 3, 1, 0], "the key size is -2, it cannot be negative");
    check(&[12, 0, 0, 0, 1, 4, 0], "2 bytes are claimed by the value size, 1 are left");
    check(&[14, 0, 0, 0, 1, 1, 0, 9], "1 bytes follow its last header");
}

#[test]
fn headers_that_lie_are_named() {
    check(&[12, 0, 0, 0, 1, 1, 1], "the header count is -1, it cannot be negative");
    check(&[14, 0, 0, 0, 1, 1, 2, 0], "it claims 1 headers, 1 bytes are left for them");
    check(&[16, 0, 0, 0, 1, 1, 2, 1, 1], "a header key size is -1, it cannot be negative");
    check(&[16, 0, 0, 0, 1, 1, 2, 0, 3], "a header value size is -2, it cannot be negative");
    let most = [22, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0];
    check(&most, "it claims 2147483647 headers, 1 bytes are left for them");
}

#[test]
fn over_long_varints_are_named() {
    check(&[0x8c, 0x80, 0x80, 0x80, 0x80, 0x00, 0, 0, 0, 1, 1, 0], "the record size is an over-long varint");
    check(&[20, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x1f, 1, 1, 0], "the offset delta is an over-long varint");
}

#[test]
fn offsets_outside_the_batch_are_named() {
    check(&[12, 0, 0, 1, 1, 1, 0], "its offset delta is -1, only 0 to 0 are possible");
    check(&[12, 0, 0, 2, 1, 1, 0], "its offset delta is 1, only 0 to 0 are possible");
}

#[test]
fn a_timestamp_that_overflows_is_named() {
    let batch = holding(&[12, 0, 2, 0, 1, 1, 0], |header| header.base_timestamp = TimestampMs(i64::MAX));

    let error = batch.records().unwrap().next().unwrap().unwrap_err();

    assert_eq!(error.to_string(), "record 0 of 1: timestamp 9223372036854775807 plus delta 1 overflows");
}

#[test]
fn a_batch_that_compaction_thinned_out_keeps_its_offsets() {
    // Deltas 2 and 7 of 0 to 9.
    let payload = [12, 0, 0, 4, 1, 1, 0, 12, 0, 0, 14, 1, 1, 0];
    let batch = holding(&payload, |header| (header.record_count, header.last_offset_delta) = (2, 9));

    let offsets: Vec<_> = batch.records().unwrap().map(|record| record.unwrap().offset.get()).collect();

    assert_eq!(offsets, [2, 7]);
}

#[test]
fn an_emptied_batch_has_no_records() {
    let batch = holding(&[], |header| (header.record_count, header.last_offset_delta) = (0, 9));

    assert!(batch.records().unwrap().next().is_none());
    assert_eq!(batch.max_timestamp_record(LIMITS).unwrap(), None);
}
