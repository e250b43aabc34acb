//! Rolling by time, the broker's own clock, and lookups by time.

use highwater_record::{
    Batch, BatchBuilder, CRC_START, Codec, HEADER_BYTES, NewRecord, TimestampMs, TimestampType, crc32c,
};

use super::support::*;
use crate::{Log, TimedOffset};

fn at(timestamp: i64) -> Made {
    Made { timestamp, ..Made::default() }
}

fn segments(log: &Log) -> usize {
    log.view().segments().len()
}

#[test]
fn a_segment_rolls_when_a_batch_is_too_much_later_than_its_first() {
    let (mut home, _) = Home::sim();
    home.config.segment_ms = 100;
    let (mut log, _) = home.open();

    append(&mut log, &batch(at(1000)));
    append(&mut log, &batch(at(1100)));
    append(&mut log, &batch(at(900)));
    assert_eq!(segments(&log), 1);

    append(&mut log, &batch(at(1101)));
    assert_eq!(segments(&log), 2);
}

#[test]
fn a_segment_without_timestamps_rolls_by_the_brokers_time() {
    let (mut home, _) = Home::sim();
    home.config.segment_ms = 100;
    let (mut log, _) = home.open();
    let mut append_at = |now| log.append(&batch(at(-1)), epoch(1), TimestampMs(now)).unwrap().base_offset;

    append_at(5000);
    append_at(5100);
    let base = append_at(5101);

    assert_eq!(segments(&log), 2);
    assert_eq!(base, offset(2));
}

#[test]
fn a_segment_rolls_when_an_index_is_full() {
    let (mut home, _) = Home::sim();
    home.config.index_interval_bytes = 1;
    home.config.index_bytes_max = 48;
    let (mut log, _) = home.open();

    for _ in 0..20 {
        append(&mut log, &records(1));
    }

    assert_eq!(segments(&log), 4);
    assert_eq!(read_all(&log, offset(0)).len(), 20);
}

#[test]
fn the_brokers_time_replaces_the_producers_and_the_checksum_holds() {
    let (mut home, _) = Home::sim();
    home.config.timestamp_type = TimestampType::LogAppendTime;
    let (mut log, _) = home.open();
    let sent = batch(Made { producer: Some((1, 0, 0)), ..at(7) });

    let appended = log.append(&sent, epoch(1), TimestampMs(5000)).unwrap();
    let again = log.append(&sent, epoch(1), TimestampMs(6000)).unwrap();

    assert_eq!(appended.log_append_time, Some(TimestampMs(5000)));
    assert_eq!((again.duplicate, again.log_append_time), (true, Some(TimestampMs(5000))));
    let found = &read_all(&log, offset(0))[0];
    assert_eq!(found.header().max_timestamp, TimestampMs(5000));
    assert_eq!(found.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(found.records().unwrap().next().unwrap().unwrap().timestamp, TimestampMs(5000));
}

#[test]
fn a_record_is_found_by_time_inside_a_compressed_batch_and_only_below_the_limit() {
    let (home, _) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &batch(at(10)));
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(codec);
        for timestamp in [20, 30, 25] {
            let timestamp = TimestampMs(timestamp);
            builder.append(&NewRecord { timestamp, key: None, value: Some(b"v"), headers: &[] }).unwrap();
        }
        append(&mut log, &Batch::new(builder.build().unwrap()).unwrap());
    }
    let view = log.view();
    let found = |timestamp, offset_: i64| {
        Some(TimedOffset {
            offset: offset(offset_),
            timestamp: TimestampMs(timestamp),
            leader_epoch: Some(epoch(1)),
        })
    };
    let end = view.end().offset;

    assert_eq!(view.offset_for_time(TimestampMs(21), end, DECODE_LIMITS).unwrap(), found(30, 2));
    assert_eq!(view.offset_for_time(TimestampMs(11), end, DECODE_LIMITS).unwrap(), found(20, 1));
    assert_eq!(view.offset_for_time(TimestampMs(31), end, DECODE_LIMITS).unwrap(), None);
    assert_eq!(view.offset_for_time(TimestampMs(21), offset(2), DECODE_LIMITS).unwrap(), None);
    assert_eq!(view.max_timestamp(end, DECODE_LIMITS).unwrap(), found(30, 2));
    assert_eq!(view.max_timestamp(offset(1), DECODE_LIMITS).unwrap(), found(10, 0));

    let _job = log.delete_before(offset(3)).unwrap();
    assert_eq!(view.offset_for_time(TimestampMs(21), end, DECODE_LIMITS).unwrap(), found(25, 3));
}

#[test]
fn a_batch_that_no_codec_reads_is_found_by_its_header() {
    let (home, _) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &batch(at(10)));
    let mut builder = BatchBuilder::new(Codec::Gzip);
    for timestamp in [20, 30] {
        let timestamp = TimestampMs(timestamp);
        builder.append(&NewRecord { timestamp, key: None, value: Some(b"v"), headers: &[] }).unwrap();
    }
    let mut unreadable = builder.build().unwrap().to_vec();
    unreadable[HEADER_BYTES..].fill(0xff);
    let crc = crc32c(&unreadable[CRC_START..]);
    unreadable[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    append(&mut log, &Batch::new(unreadable.into()).unwrap());
    append(&mut log, &batch(at(15)));
    let view = log.view();
    let end = view.end().offset;
    let found = |timestamp, offset_: i64| {
        Some(TimedOffset {
            offset: offset(offset_),
            timestamp: TimestampMs(timestamp),
            leader_epoch: Some(epoch(1)),
        })
    };

    assert_eq!(view.offset_for_time(TimestampMs(25), end, DECODE_LIMITS).unwrap(), found(30, 1));
    assert_eq!(view.max_timestamp(end, DECODE_LIMITS).unwrap(), found(30, 1));
    assert_eq!(view.offset_for_time(TimestampMs(5), end, DECODE_LIMITS).unwrap(), found(10, 0));

    let _job = log.delete_before(offset(2)).unwrap();
    assert_eq!(view.offset_for_time(TimestampMs(25), end, DECODE_LIMITS).unwrap(), found(30, 2));
}
