//! Builder to bytes to records, for every codec.

use highwater_record::{
    BatchBuilder, BuildError, Codec, LeaderEpoch, NewRecord, Offset, Producer, ProducerEpoch, ProducerId,
    Sequence, TimestampMs, TimestampType,
};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

use crate::support::{CODECS, LIMITS, Owned, batch, build, read, record};

fn any_field(size_max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..size_max)
}

fn any_optional(size_max: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(any_field(size_max))
}

fn any_record() -> impl Strategy<Value = Owned> {
    let headers = vec((any_field(4), any_optional(20)), 0..4);
    (any::<i32>(), any_optional(20), any_optional(300), headers).prop_map(
        |(timestamp, key, value, headers)| Owned { timestamp: timestamp.into(), key, value, headers },
    )
}

proptest! {
    #[test]
    fn records_come_back_as_they_were_appended(
        records in vec(any_record(), 1..if cfg!(miri) { 4 } else { 40 }),
        base_offset in 0..i64::MAX / 2,
        leader_epoch in 0..i32::MAX,
    ) {
        for codec in CODECS {
            let base = Offset::new(base_offset).unwrap();
            let epoch = LeaderEpoch::new(leader_epoch).unwrap();
            let builder = BatchBuilder::new(codec).base_offset(base).leader_epoch(epoch);

            let batch = batch(build(builder, &records));

            let expected: Vec<_> = (base_offset..).zip(records.iter().cloned()).collect();
            prop_assert_eq!(read(&batch).unwrap(), expected);
            let header = batch.header();
            prop_assert_eq!(header.attributes.codec(), Some(codec));
            prop_assert_eq!(header.leader_epoch, Some(epoch));
            prop_assert_eq!(header.last_offset(), base.advance(records.len() as u64 - 1));
            let largest = records.iter().map(|record| record.timestamp).max().unwrap().max(-1);
            prop_assert_eq!(header.max_timestamp, TimestampMs(largest));
        }
    }
}

#[test]
fn duplicate_and_binary_header_keys_survive() {
    let headers = vec![
        (b"trace".to_vec(), Some(b"1".to_vec())),
        (b"trace".to_vec(), None),
        (vec![0xff, 0xfe], Some(Vec::new())),
        (Vec::new(), Some(b"empty key".to_vec())),
    ];
    let written = Owned { headers, ..record(5, b"v") };

    let batch = batch(build(BatchBuilder::new(Codec::None), std::slice::from_ref(&written)));

    assert_eq!(read(&batch).unwrap(), [(0, written)]);
}

#[test]
fn a_stamped_batch_gives_every_record_the_time_of_the_broker() {
    let builder = BatchBuilder::new(Codec::Lz4).log_append_time(TimestampMs(9_000));

    let batch = batch(build(builder, &[record(1, b"a"), record(70_000, b"b")]));

    assert_eq!(batch.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.header().base_timestamp, TimestampMs(1));
    let timestamps: Vec<_> = read(&batch).unwrap().into_iter().map(|(_, record)| record.timestamp).collect();
    assert_eq!(timestamps, [9_000, 9_000]);
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn flags_and_producer_stand_in_the_header() {
    let producer = Producer {
        id: ProducerId::new(7).unwrap(),
        epoch: ProducerEpoch::new(3).unwrap(),
        base_sequence: Sequence::new(41),
    };
    let builder = BatchBuilder::new(Codec::Zstd).producer(producer).transactional().control();

    let header = *batch(build(builder, &[record(1, b"a")])).header();

    assert_eq!(header.producer, Some(producer));
    assert!(header.attributes.is_transactional());
    assert!(header.attributes.is_control());
}

#[test]
#[cfg_attr(miri, ignore = "compresses 600 KB with each codec, which takes Miri minutes")]
fn large_records_cross_the_blocks_of_every_codec() {
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(300_000)
    .collect();
    let records = [record(1, &noise), record(2, &vec![b'x'; 300_000]), record(3, b"")];
    for codec in CODECS {
        let batch = batch(build(BatchBuilder::new(codec), &records));

        let values: Vec<_> = read(&batch).unwrap().into_iter().map(|(_, record)| record).collect();
        assert_eq!(values, records, "{codec}");
    }
}

#[test]
fn the_first_record_at_or_after_a_time_is_found_in_every_codec() {
    for codec in CODECS {
        let builder = BatchBuilder::new(codec).base_offset(Offset::new(100).unwrap());
        let batch =
            batch(build(builder, &[record(10, b"a"), record(30, b"b"), record(20, b"c"), record(30, b"d")]));
        let find = |timestamp| {
            let found = batch.first_at_or_after(TimestampMs(timestamp), LIMITS).unwrap();
            found.map(|(offset, timestamp)| (offset.get(), timestamp.0))
        };

        assert_eq!(find(i64::MIN), Some((100, 10)));
        assert_eq!(find(11), Some((101, 30)));
        assert_eq!(find(31), None);
        let (offset, timestamp) = batch.max_timestamp_record(LIMITS).unwrap().unwrap();
        assert_eq!((offset.get(), timestamp.0), (101, 30));
    }
}

#[test]
fn what_does_not_fit_a_batch_is_refused_and_leaves_it_as_it_was() {
    let mut builder = BatchBuilder::new(Codec::None);
    assert!(matches!(builder.clone().build(), Err(BuildError::Empty)));
    let at =
        |timestamp| NewRecord { timestamp: TimestampMs(timestamp), key: None, value: None, headers: &[] };
    builder.append(&at(-2)).unwrap();

    let refused = builder.append(&at(i64::MAX)).unwrap_err();

    assert_eq!(refused.to_string(), format!("timestamp {} is too far from the first record's -2", i64::MAX));
    assert_eq!(builder.count(), 1);
    assert_eq!(builder.build().unwrap().len(), 61 + 7);
}
