//! What a broker accepts from a producer, rule by rule, and what it says when it refuses.

use bytes::{Bytes, BytesMut};
use highwater_record::{
    Batch, BatchBuilder, BatchHeader, CRC_START, Codec, Compressed, DecodeLimits, HEADER_BYTES, Keys,
    ProduceRules, Producer, ProducerEpoch, ProducerId, Sequence, TimestampMs, crc32c, validate,
};

use crate::support::{CODECS, LIMITS, Owned, batch, build, read, record};

const RULES: ProduceRules = ProduceRules {
    batch_bytes_max: 1_000,
    produce_version: 9,
    compressed: Compressed::Trust,
    keys: Keys::Optional,
    limits: LIMITS,
};
const STRICT: ProduceRules = ProduceRules { compressed: Compressed::Walk, ..RULES };

fn three_records(codec: Codec) -> Bytes {
    build(BatchBuilder::new(codec), &[record(10, b"a"), record(30, b"b"), record(20, b"c")])
}

/// The batch after `change`, with a checksum that holds.
fn changed(bytes: &Bytes, change: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut bytes = BytesMut::from(&bytes[..]);
    change(&mut bytes);
    let crc = crc32c(&bytes[CRC_START..]);
    bytes[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

fn with_header(bytes: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    changed(bytes, |bytes| {
        let mut header = BatchHeader::parse(bytes).expect("the header is whole");
        change(&mut header);
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    })
}

#[track_caller]
fn check_refused(bytes: Bytes, rules: &ProduceRules, sentence: &str) {
    assert_eq!(validate(bytes, rules).expect_err("it is refused").to_string(), sentence);
}

#[test]
fn a_batch_of_a_producer_passes_through_unchanged_in_every_codec() {
    for codec in CODECS {
        let bytes = three_records(codec);

        for rules in [RULES, STRICT] {
            assert_eq!(validate(bytes.clone(), &rules).unwrap().bytes(), &bytes, "{codec}");
        }
    }
}

#[test]
fn where_a_key_is_required_the_first_record_without_one_is_named_in_every_codec() {
    let keyed = ProduceRules { keys: Keys::Required, ..RULES };
    let with_key = |timestamp| Owned { key: Some(b"k".to_vec()), ..record(timestamp, b"v") };
    for codec in CODECS {
        let some = build(BatchBuilder::new(codec), &[with_key(1), record(2, b"v"), with_key(3)]);
        let all = build(BatchBuilder::new(codec), &[with_key(1), with_key(2)]);

        validate(all, &keyed).unwrap();
        validate(some.clone(), &RULES).unwrap();
        check_refused(
            some,
            &keyed,
            "record 1 has no key, and the topic is compacted (cleanup.policy), which needs one",
        );
    }
}

#[test]
fn exactly_one_batch_within_the_size_limit_is_accepted() {
    let bytes = three_records(Codec::None);
    let two = Bytes::from([&bytes[..], &bytes[..]].concat());

    check_refused(
        two,
        &RULES,
        "170 bytes were sent, the first batch is 85 of them; exactly one batch is allowed",
    );
    check_refused(bytes.slice(..84), &RULES, "batch says it is 85 bytes long, there are 84");
    check_refused(bytes.slice(..60), &RULES, "60 bytes are too few for a batch header of 61");
    let small = ProduceRules { batch_bytes_max: 84, ..RULES };
    check_refused(bytes, &small, "batch is 85 bytes long, max.message.bytes allows 84");
}

#[test]
fn what_only_the_broker_sets_is_refused() {
    let bytes = three_records(Codec::None);
    let attributes = |bits: u8| changed(&bytes, |bytes| bytes[22] |= bits);

    check_refused(
        with_header(&bytes, |h| h.base_offset = h.last_offset()),
        &RULES,
        "base offset is 2, a producer sends 0",
    );
    check_refused(attributes(1 << 3), &RULES, "timestamp type is LogAppendTime, a producer sends CreateTime");
    check_refused(attributes(1 << 4), &RULES, "transactional batches are not supported");
    check_refused(attributes(1 << 5), &RULES, "control batches cannot be produced");
    check_refused(attributes(1 << 6), &RULES, "batch has a delete horizon, only compaction sets one");
    check_refused(attributes(6), &RULES, "codec 6 is unknown, the known ones are 0 to 4");
}

#[test]
fn a_bad_checksum_is_named_with_both_numbers() {
    let bytes = three_records(Codec::None);
    let stored = Batch::new(bytes.clone()).unwrap().header().crc;
    let mut flipped = BytesMut::from(&bytes[..]);
    flipped[84] ^= 1;
    let computed = crc32c(&flipped[CRC_START..]);

    let sentence = format!("batch checksum is {stored:#010x}, its bytes give {computed:#010x}");
    check_refused(flipped.freeze(), &RULES, &sentence);
}

#[test]
fn counts_that_lie_are_refused() {
    let bytes = three_records(Codec::None);
    let claim = |count: u32, last: u32| {
        with_header(&bytes, |header| (header.record_count, header.last_offset_delta) = (count, last))
    };

    check_refused(claim(0, 2), &RULES, "batch counts 0 records, its last offset delta is 2");
    check_refused(claim(3, 7), &RULES, "batch counts 3 records, its last offset delta is 7");
    check_refused(claim(4, 3), &RULES, "record 3 of 4: the batch has no bytes left for it");
    check_refused(claim(2, 1), &RULES, "record 2 of 2: 8 bytes follow the last record");
    let most = i32::MAX as u32;
    check_refused(
        claim(most, most - 1),
        &RULES,
        "record 3 of 2147483647: the batch has no bytes left for it",
    );
}

#[test]
fn offsets_count_from_zero() {
    // Size, attributes, timestamp delta, offset delta.
    let bytes = changed(&three_records(Codec::None), |bytes| bytes[HEADER_BYTES + 8 + 3] = 4);

    check_refused(bytes, &RULES, "record 2 of 3: its offset delta is 2, only 3 to 2 are possible");
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn zstd_needs_a_request_that_can_carry_it() {
    let old = ProduceRules { produce_version: 6, ..RULES };

    check_refused(
        three_records(Codec::Zstd),
        &old,
        "zstd needs Produce version 7, the request has version 6",
    );
}

#[test]
fn an_idempotent_producer_numbers_its_records() {
    let producer = |base_sequence| Producer {
        id: ProducerId::new(5).unwrap(),
        epoch: ProducerEpoch::ZERO,
        base_sequence,
    };
    let bytes = |base_sequence| {
        build(BatchBuilder::new(Codec::None).producer(producer(base_sequence)), &[record(1, b"a")])
    };

    assert!(validate(bytes(Some(Sequence::ZERO)), &RULES).is_ok());
    check_refused(bytes(None), &RULES, "producer 5 sent no base sequence");
}

#[test]
fn an_unset_largest_timestamp_is_corrected_in_every_codec() {
    for codec in CODECS {
        let bytes = three_records(codec);
        let unset = with_header(&bytes, |header| header.max_timestamp = TimestampMs(-1));

        let accepted = validate(unset, &RULES).unwrap();

        assert_eq!(accepted.bytes(), &bytes, "{codec}");
        assert_eq!(read(&Batch::new(accepted.bytes().clone()).unwrap()).unwrap().len(), 3);
    }
}

#[test]
fn records_inside_a_compressed_batch_are_looked_at_only_on_demand() {
    for codec in CODECS.into_iter().filter(|codec| *codec != Codec::None) {
        let bytes = three_records(codec);
        let lying = with_header(&bytes, |header| (header.record_count, header.last_offset_delta) = (4, 3));

        assert_eq!(validate(lying.clone(), &RULES).unwrap().header().record_count, 4);
        check_refused(lying, &STRICT, "record 3 of 4: the batch has no bytes left for it");
        let tight = ProduceRules { limits: DecodeLimits { bytes_max: 23, ratio_max: 1 }, ..STRICT };
        let payload = bytes.len() - HEADER_BYTES;
        check_refused(
            bytes,
            &tight,
            &format!("{payload} bytes of {codec} grow beyond the limit of 23 bytes"),
        );
    }
}

#[test]
fn a_stamp_of_the_broker_keeps_the_checksum_true() {
    let sent = batch(three_records(Codec::Gzip));

    let stamped = sent.with_max_timestamp(highwater_record::TimestampType::LogAppendTime, TimestampMs(77));

    let stored = Batch::new(stamped.bytes().clone()).unwrap();
    assert!(read(&stored).unwrap().iter().all(|(_, record)| record.timestamp == 77));
    assert_eq!(stored.payload(), sent.payload());
}
