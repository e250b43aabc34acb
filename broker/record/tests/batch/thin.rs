//! What compaction leaves of a batch: everything but the records that go.

use highwater_record::{
    Batch, BatchBuilder, Codec, DecodeLimits, LeaderEpoch, Offset, Producer, ProducerEpoch, ProducerId,
    Record, Sequence, Thinned, TimestampMs, TimestampType,
};

use crate::support::{CODECS, LIMITS, Owned, batch, build, read, record};

const HORIZON: TimestampMs = TimestampMs(5_000);

fn producer() -> Producer {
    Producer {
        id: ProducerId::new(7).expect("it is legal"),
        epoch: ProducerEpoch::new(2).expect("it is legal"),
        base_sequence: Sequence::new(11),
    }
}

/// Records with keys `0` to `4` at offsets 100 to 104, as a log has them; number 3 is a tombstone.
fn five(builder: BatchBuilder) -> Batch {
    let builder = builder
        .base_offset(Offset::new(100).expect("it is legal"))
        .leader_epoch(LeaderEpoch::new(3).expect("it is legal"))
        .producer(producer());
    let records: Vec<_> = (0..5_u8)
        .map(|n| Owned {
            key: Some(vec![n]),
            value: (n != 3).then(|| vec![n; 40]),
            headers: vec![(b"twice".to_vec(), Some(vec![n])), (b"twice".to_vec(), None)],
            ..record(1_000 + i64::from(n), b"")
        })
        .collect();
    batch(build(builder, &records))
}

fn thin(batch: &Batch, keys: &[u8]) -> Thinned {
    let keep = |record: &Record<'_>| record.key.is_some_and(|key| keys.contains(&key[0]));
    batch.thin(LIMITS, HORIZON, keep).expect("the records are whole")
}

#[test]
fn kept_records_stay_as_they_are_and_so_does_what_the_header_says_of_the_producer() {
    for codec in CODECS {
        let whole = five(BatchBuilder::new(codec));

        let Thinned::Rewritten(rest) = thin(&whole, &[1, 4]) else { panic!("{codec}") };

        let rest = batch(rest.bytes().clone());
        let all = read(&whole).unwrap();
        assert_eq!(read(&rest).unwrap(), [all[1].clone(), all[4].clone()]);
        let (old, new) = (whole.header(), rest.header());
        assert_eq!((new.base_offset, new.last_offset()), (old.base_offset, old.last_offset()));
        assert_eq!((new.producer, new.leader_epoch), (Some(producer()), old.leader_epoch));
        assert_eq!(new.attributes, old.attributes);
        assert_eq!((new.record_count, new.max_timestamp), (2, TimestampMs(1_004)));
        assert_eq!(new.delete_horizon(), None);
    }
}

#[test]
fn a_tombstone_that_stays_gets_a_horizon_once() {
    let whole = five(BatchBuilder::new(Codec::Snappy));

    let Thinned::Rewritten(all) = thin(&whole, &[0, 1, 2, 3, 4]) else { panic!("no horizon is set") };

    assert_eq!(all.header().delete_horizon(), Some(HORIZON));
    assert_eq!(read(&batch(all.bytes().clone())).unwrap(), read(&whole).unwrap(), "times are the same");
    assert!(matches!(thin(&all, &[0, 1, 2, 3, 4]), Thinned::Same));
    let keep = |record: &Record<'_>| record.value.is_none();
    let Thinned::Rewritten(rest) = all.thin(LIMITS, TimestampMs(9_000), keep).unwrap() else { panic!() };
    assert_eq!(rest.header().delete_horizon(), Some(HORIZON));
    assert_eq!(read(&rest).unwrap(), [read(&whole).unwrap()[3].clone()]);
}

#[test]
fn the_brokers_time_stays_the_time_of_every_record() {
    let whole = five(BatchBuilder::new(Codec::None).log_append_time(TimestampMs(77_777)));

    let Thinned::Rewritten(rest) = thin(&whole, &[2, 3]) else { panic!("nothing went") };

    assert_eq!(rest.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    let times: Vec<_> = read(&rest).unwrap().into_iter().map(|(_, record)| record.timestamp).collect();
    assert_eq!(times, [77_777, 77_777]);
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn a_batch_that_keeps_all_or_nothing_is_not_written_anew() {
    let whole = five(BatchBuilder::new(Codec::Zstd));

    assert!(matches!(thin(&whole, &[]), Thinned::Emptied));
    let values = |record: &Record<'_>| record.value.is_some();
    let Thinned::Rewritten(values) = whole.thin(LIMITS, HORIZON, values).unwrap() else { panic!() };
    assert!(matches!(values.thin(LIMITS, HORIZON, |_| true).unwrap(), Thinned::Same));
}

#[test]
fn an_emptied_batch_is_a_header_that_says_the_same_of_offsets_and_producer() {
    let whole = five(BatchBuilder::new(Codec::Gzip));

    let empty = batch(whole.emptied().bytes().clone());

    assert_eq!(empty.bytes().len(), 61);
    let (old, new) = (whole.header(), empty.header());
    assert_eq!((new.base_offset, new.last_offset()), (old.base_offset, old.last_offset()));
    assert_eq!((new.producer, new.leader_epoch), (old.producer, old.leader_epoch));
    assert_eq!((new.record_count, new.max_timestamp), (0, old.max_timestamp));
    assert_eq!(new.attributes.codec(), Some(Codec::None));
    assert!(read(&empty).unwrap().is_empty());
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn records_that_cannot_be_decoded_within_limits_are_an_error() {
    let whole = five(BatchBuilder::new(Codec::Zstd));

    let tight = DecodeLimits { bytes_max: 23, ratio_max: 1 };

    assert!(whole.thin(tight, HORIZON, |_| true).is_err());
}

#[test]
fn an_empty_batch_stands_for_offsets_beside_another() {
    let whole = five(BatchBuilder::new(Codec::Gzip));
    let offset = |n| Offset::new(n).expect("it is legal");
    let empty = |from, to| Batch::without_records(offset(from), offset(to), whole.header());

    let filler = empty(105, 120).expect("there are fifteen");

    let header = *batch(filler.bytes().clone()).header();
    assert_eq!((header.base_offset, header.next_offset()), (offset(105), offset(120)));
    assert_eq!(
        (header.record_count, header.producer, header.leader_epoch),
        (0, None, whole.header().leader_epoch)
    );
    assert!(read(&filler).unwrap().is_empty());
    assert!(empty(105, 105).is_none() && empty(105, 100).is_none());
    assert!(empty(105, 105 + (1 << 31)).is_some());
    assert!(empty(105, 106 + (1 << 31)).is_none());
}
