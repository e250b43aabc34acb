//! Messages of formats 0 and 1: read as Kafka reads them, refused when they lie.
//!
//! The golden bytes were put together by a Python script from the layout, with its own CRC-32 and xxHash, so that they
//! share nothing with the code that reads them. What real brokers wrote is read by the tools' tests.

use highwater_record::{
    Batch, Codec, DecodeLimits, LegacyEntry, LegacyError, LegacyFault, MessageFormat, Offset, TimestampMs,
    TimestampType, compress, up_convert,
};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

use crate::support::{CODECS, LIMITS, hex, read};

const TIME: i64 = 1_500_000_000_000;

const V0: &str = "0000000000000007 00000014 8faa5588 0000 00000001 6b 00000005 76616c7565";
const V0_NULL: &str = "0000000000000008 0000000e a7ec6803 0000 ffffffff ffffffff";
const V1: &str = "0000000000000009 0000001b 11f4c53b 0100 0000015d3ef79800 00000000 00000005 76616c7565";
const V1_STAMPED: &str = "000000000000000a 00000016 bfcaeb76 0108 0000015d3ef79801 ffffffff 00000000";

/// Offsets 20, 21 and 23.
const V0_GZIP: &str = "0000000000000017 00000058 e7dca0da 0001 ffffffff 0000004a
    1f8b080000000000000363600003112016f295b45d03e631260209e6fcbc548824832810f32d7f93c1ccc0f01f0aa032e2402cccfe73
    ef1e0618602dc9284a4d050094b9d17057000000";
const V0_SNAPPY: &str = "0000000000000017 0000007c fd3f4ef4 0002 ffffffff 0000006e
    82534e415050590000000001000000010000005a57f0560000000000000014000000124d193dac00000000000161000000036f6e6500
    000000000000150000000ea7ec68030000ffffffffffffffff00000000000000170000001307f9bdbc000000000000000000057468
    726565";
/// The checksum of the frame's header is 1a where 82 would be right.
const V0_LZ4: &str = "0000000000000017 00000074 f85a6cae 0003 ffffffff 00000066
    04224d18 6040 1a
    570000800000000000000014000000124d193dac00000000000161000000036f6e6500000000000000150000000ea7ec68030000ffff
    ffffffffffff00000000000000170000001307f9bdbc00000000000000000005746872656500000000";
const V0_LZ4_RIGHT: &str = "0000000000000017 00000074 18e8ff87 0003 ffffffff 00000066
    04224d18 6040 82
    570000800000000000000014000000124d193dac00000000000161000000036f6e6500000000000000150000000ea7ec68030000ffff
    ffffffffffff00000000000000170000001307f9bdbc00000000000000000005746872656500000000";

/// Offsets 0, 1 and 3 in a wrapper of offset 23.
const V1_GZIP: &str = "0000000000000017 00000069 3a362354 0101 0000015d3ef79809 ffffffff 00000053
    1f8b080000000000000363608003298706e5338c400663acddf7192011c64420c19c9f970a550192142bdd34ad09a66afaefff500055
    c10cc4d24f0476ed829bc30995612dc9284a4d05005bed40e06f000000";
const V1_SNAPPY: &str = "0000000000000017 0000009c 3d76fcda 0102 0000015d3ef79809 ffffffff 00000086
    82534e41505059000000000100000001000000726ff06e00000000000000000000001a408023cc01000000015d3ef798000000000161
    000000036f6e6500000000000000010000001675b2968201000000015d3ef797fbffffffffffffffff00000000000000030000001b
    e410baba01000000015d3ef7980900000000000000057468726565";
const V1_LZ4: &str = "0000000000000017 00000094 f2153967 0103 0000015d3ef79809 ffffffff 0000007e
    04224d18 6040 82
    6f00008000000000000000000000001a408023cc01000000015d3ef798000000000161000000036f6e65000000000000000100000016
    75b2968201000000015d3ef797fbffffffffffffffff00000000000000030000001be410baba01000000015d3ef79809000000000000
    0005746872656500000000";
const V1_GZIP_STAMPED: &str = "0000000000000017 00000069 24d13e57 0109 0000015d3ef79832 ffffffff 00000053
    1f8b080000000000000363608003298706e5338c400663acddf7192011c64420c19c9f970a550192142bdd34ad09a66afaefff500055
    c10cc4d24f0476ed829bc30995612dc9284a4d05005bed40e06f000000";

/// A message, as a test writes it down.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Message {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

fn message(offset: i64, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Message {
    Message { offset, timestamp, key: key.map(Into::into), value: value.map(Into::into) }
}

/// What a batch has, which messages never have headers.
fn messages(batch: &Batch) -> Vec<Message> {
    let records = read(batch).expect("the records are whole").into_iter();
    let message = records.map(|(offset, record)| {
        assert_eq!(record.headers, []);
        Message { offset, timestamp: record.timestamp, key: record.key, value: record.value }
    });
    message.collect()
}

/// One entry of format `magic`.
fn entry(magic: u8, attributes: u8, message: &Message) -> Vec<u8> {
    let mut body = vec![magic, attributes];
    if magic == 1 {
        body.extend(message.timestamp.to_be_bytes());
    }
    for field in [&message.key, &message.value] {
        body.extend(field.as_ref().map_or(-1, |field| field.len() as i32).to_be_bytes());
        body.extend(field.iter().flatten());
    }
    seal(message.offset, &body)
}

/// An entry of what the CRC covers.
fn seal(offset: i64, body: &[u8]) -> Vec<u8> {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, body) as u32;
    let size = body.len() as i32 + 4;
    [&offset.to_be_bytes()[..], &size.to_be_bytes(), &crc.to_be_bytes(), body].concat()
}

/// A wrapper of `plain`, as it stands.
fn wrap(magic: u8, number: u8, codec: Codec, offset: i64, plain: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    compress(codec, plain, &mut value).expect("memory does not fail");
    entry(magic, number, &message(offset, TIME, None, Some(&value)))
}

fn row(magic: u8, messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(|message| entry(magic, 0, message)).collect()
}

fn refusal(bytes: &[u8]) -> String {
    up_convert(bytes, LIMITS).expect_err("it is refused").to_string()
}

#[test]
fn single_messages_keep_offset_timestamp_and_nulls() {
    let cases = [
        (V0, message(7, -1, Some(b"k"), Some(b"value"))),
        (V0_NULL, message(8, -1, None, None)),
        (V1, message(9, TIME, Some(b""), Some(b"value"))),
        (V1_STAMPED, message(10, TIME + 1, None, Some(b""))),
    ];
    for (golden, expected) in cases {
        let batch = up_convert(&hex(golden), LIMITS).unwrap();

        assert_eq!(messages(&batch), std::slice::from_ref(&expected));
        assert_eq!(batch.header().max_timestamp, TimestampMs(expected.timestamp));
        // The bytes are those of a batch that anybody can read.
        assert_eq!(Batch::new(batch.bytes().clone()).unwrap().header(), batch.header());
    }
}

#[test]
fn absolute_offsets_of_format_0_are_taken_as_they_are() {
    let expected = [
        message(20, -1, Some(b"a"), Some(b"one")),
        message(21, -1, None, None),
        message(23, -1, Some(b""), Some(b"three")),
    ];
    for golden in [V0_GZIP, V0_SNAPPY, V0_LZ4, V0_LZ4_RIGHT] {
        let batch = up_convert(&hex(golden), LIMITS).unwrap();

        assert_eq!(messages(&batch), expected);
        let header = batch.header();
        assert_eq!((header.record_count, header.next_offset().get(), header.max_timestamp.0), (3, 24, -1));
    }
}

#[test]
fn relative_offsets_of_format_1_end_at_the_wrapper() {
    let expected = [
        message(20, TIME, Some(b"a"), Some(b"one")),
        message(21, TIME - 5, None, None),
        message(23, TIME + 9, Some(b""), Some(b"three")),
    ];
    for golden in [V1_GZIP, V1_SNAPPY, V1_LZ4] {
        let batch = up_convert(&hex(golden), LIMITS).unwrap();

        assert_eq!(messages(&batch), expected);
        assert_eq!(batch.header().max_timestamp, TimestampMs(TIME + 9));
        assert_eq!(batch.header().attributes.timestamp_type(), TimestampType::CreateTime);
    }
    let batch = up_convert(&hex(V1_GZIP_STAMPED), LIMITS).unwrap();
    assert_eq!(batch.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    // Also where listings look for the first timestamp.
    assert_eq!(batch.header().base_timestamp, TimestampMs(TIME + 50));
    let stamped = expected.map(|message| Message { timestamp: TIME + 50, ..message });
    assert_eq!(messages(&batch), stamped);
}

#[test]
fn the_fixed_part_says_size_clock_and_codec() {
    let parse = |golden| LegacyEntry::parse(&hex(golden)).unwrap();

    let (plain, wrapper) = (parse(V0), parse(V1_GZIP_STAMPED));

    assert_eq!((plain.format, plain.size_bytes, plain.timestamp.0), (MessageFormat::V0, 32, -1));
    assert_eq!(plain.header().record_count, 1);
    assert_eq!((wrapper.format, wrapper.size_bytes), (MessageFormat::V1, 117));
    assert_eq!(wrapper.attributes.codec(), Some(Codec::Gzip));
    let header = wrapper.header_of(&up_convert(&hex(V1_GZIP_STAMPED), LIMITS).unwrap());
    assert_eq!((header.base_offset.get(), header.last_offset().get(), header.record_count), (20, 23, 3));
    assert_eq!((header.size_bytes, header.crc), (117, 0x24d1_3e57));
    assert_eq!((header.attributes, header.max_timestamp.0), (wrapper.attributes, TIME + 50));
}

#[test]
fn an_entry_alone_and_looked_into_have_the_same_header() {
    for golden in [V0, V0_NULL, V1, V1_STAMPED] {
        let entry = LegacyEntry::parse(&hex(golden)).unwrap();

        assert_eq!(entry.header(), entry.header_of(&up_convert(&hex(golden), LIMITS).unwrap()));
    }
}

#[test]
fn what_a_wrapper_cannot_hold_is_refused_by_name() {
    let one = |offset| message(offset, TIME, None, Some(b"x"));
    let wrapped = |magic, offset, plain: &[u8]| refusal(&wrap(magic, 2, Codec::Snappy, offset, plain));

    assert_eq!(wrapped(1, 9, b""), "no message is in the compressed one");
    assert_eq!(
        wrapped(0, 9, &row(0, &[one(5), one(5)])),
        "message 1 of the compressed one has offset 5 after 5"
    );
    let late = "the last message of the compressed one has offset 10, the compressed one has 9";
    assert_eq!(wrapped(0, 9, &row(0, &[one(5), one(10)])), late);
    assert_eq!(wrapped(1, 9, &row(1, &[one(5), one(10)])), late);
    let far = "offsets 0 and 2147483648 are too far apart for one batch";
    assert_eq!(wrapped(0, 1 << 31, &row(0, &[one(0), one(1 << 31)])), far);
    let nested = wrap(1, 2, Codec::Snappy, 0, &row(1, &[one(0)]));
    assert_eq!(wrapped(1, 9, &nested), "message 0 of the compressed one is compressed itself");
    let torn = row(1, &[one(0), one(1)]);
    let short = "message 1 of the compressed one: the message says it is 35 bytes long, there are 34";
    assert_eq!(wrapped(1, 9, &torn[..torn.len() - 1]), short);
    let mut flipped = row(1, &[one(0)]);
    flipped[34] ^= 1;
    assert!(wrapped(1, 9, &flipped).starts_with("message 0 of the compressed one: message checksum is 0x"));
    let apart = [message(0, i64::MIN, None, None), message(1, 1, None, None)];
    assert!(wrapped(1, 9, &row(1, &apart)).starts_with("timestamp 1 is too far from the first"));
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn what_is_no_entry_is_refused_by_name() {
    let empty = message(9, TIME, None, None);

    assert_eq!(refusal(&entry(1, 1, &empty)), "the message is compressed and has no value");
    let zstd = "codec 4 is unknown in format v1, the known ones are 0 to 3";
    assert_eq!(refusal(&wrap(1, 4, Codec::Zstd, 9, b"plain")), zstd);
    assert_eq!(refusal(&[hex(V0), hex(V0)].concat()), "32 bytes follow the entry");
    assert_eq!(refusal(&entry(2, 0, &empty)), "magic is 2, messages have 0 or 1");
    assert_eq!(refusal(&seal(-1, &[0; 10])), "offset is -1, it cannot be negative");
    // Both fields empty, and four bytes more.
    assert_eq!(refusal(&seal(1, &[0; 14])), "4 bytes follow its value");
    let least = "message size is 14, a message of format v1 has at least 22 bytes";
    assert_eq!(refusal(&seal(1, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0])), least);
    let long_key = [&[0, 0][..], &i32::MAX.to_be_bytes(), &[0; 4]].concat();
    assert_eq!(refusal(&seal(1, &long_key)), "2147483647 bytes are claimed by the key, 4 are left");
    let negative_value = [&[0, 0][..], &[0; 4], &(-2_i32).to_be_bytes()].concat();
    assert_eq!(refusal(&seal(1, &negative_value)), "-2 bytes are claimed by the value, 0 are left");
}

#[test]
fn a_format_1_frame_of_lz4_needs_the_right_checksum() {
    let mut value = Vec::new();
    compress(Codec::Lz4, &row(1, &[message(0, TIME, None, None)]), &mut value).unwrap();
    value[6] ^= 1;

    let wrong = |magic| up_convert(&entry(magic, 3, &message(0, TIME, None, Some(&value))), LIMITS);

    assert!(wrong(0).is_ok());
    assert!(matches!(wrong(1), Err(LegacyError::Corrupt { codec: Codec::Lz4, .. })));
}

#[test]
#[cfg_attr(miri, ignore = "compresses 3 MiB three times, which takes Miri many minutes")]
fn a_wrapper_is_decompressed_within_the_limits() {
    let large = message(0, TIME, None, Some(&vec![0; 3 << 20]));
    let limits = DecodeLimits { bytes_max: 2 << 20, ratio_max: 1000 };
    for (number, codec) in [(1, Codec::Gzip), (2, Codec::Snappy), (3, Codec::Lz4)] {
        let bytes = wrap(1, number, codec, 0, &row(1, std::slice::from_ref(&large)));

        let refused = up_convert(&bytes, limits);

        assert!(matches!(refused, Err(LegacyError::Bomb { limit: 2_097_152, .. })), "{codec}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "looks at six thousand entries, which takes Miri minutes")]
fn every_cut_and_every_flipped_bit_is_found() {
    for golden in [V0, V0_NULL, V1, V1_STAMPED, V0_GZIP, V0_LZ4, V1_SNAPPY, V1_GZIP_STAMPED] {
        let bytes = hex(golden);
        for length in 0..bytes.len() {
            assert!(up_convert(&bytes[..length], LIMITS).is_err(), "{length} bytes of {golden}");
        }
        let whole = messages(&up_convert(&bytes, LIMITS).unwrap());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);

            let outcome = up_convert(&flipped, LIMITS);

            // The CRC does not cover the offset. Relative ones move with it; absolute ones and bit 63 are told.
            if bit < 64 {
                let Ok(batch) = outcome else { continue };
                let moved: Vec<_> = messages(&batch).into_iter().zip(&whole).collect();
                assert!(moved.iter().all(|(a, b)| (&a.key, &a.value) == (&b.key, &b.value)));
            } else {
                assert!(outcome.is_err(), "bit {bit} of {golden}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "compresses 750 wrappers, which takes Miri minutes")]
fn resealed_lies_are_values() {
    // Each byte of a wrapper and of what is in it takes every edge; the CRCs are right again, so that all is reached.
    let inner = row(1, &[message(0, TIME, Some(b"k"), Some(b"one")), message(2, TIME, None, Some(b"two"))]);
    let (mut refused, mut taken) = (0, 0);
    for at in 0..inner.len() {
        for edge in [0, 1, 0x7f, 0x80, 0xff] {
            let mut lie = inner.clone();
            lie[at] = edge;
            // The first message ends where its size said.
            let first = entry(1, 0, &message(0, TIME, Some(b"k"), Some(b"one"))).len();
            let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &lie[16..first]) as u32;
            lie[12..16].copy_from_slice(&crc.to_be_bytes());
            for (number, codec) in [(0, Codec::None), (1, Codec::Gzip), (3, Codec::Lz4)] {
                let bytes = wrap(1, number, codec, 9, &lie);
                match up_convert(&bytes, LIMITS) {
                    Ok(batch) => taken += messages(&batch).len(),
                    Err(LegacyError::Entry(LegacyFault::Crc { .. })) => panic!("it was sealed"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 300 && taken > 300, "{refused} refused, {taken} taken");
}

fn any_field() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(vec(any::<u8>(), 0..60))
}

/// Messages whose offsets ascend from 0 on, with gaps as compaction leaves them.
fn any_messages() -> impl Strategy<Value = Vec<Message>> {
    let count = 1..if cfg!(miri) { 4 } else { 30 };
    vec((1..5_i64, any::<i32>(), any_field(), any_field()), count).prop_map(|parts| {
        let mut next = -1;
        let mut place = |(gap, timestamp, key, value): (i64, i32, _, _)| {
            next += gap;
            Message { offset: next, timestamp: timestamp.into(), key, value }
        };
        parts.into_iter().map(&mut place).collect()
    })
}

proptest! {
    #[test]
    fn messages_come_back_as_they_were_wrapped(inner in any_messages(), base in 0..i64::MAX / 2, magic in 0..2_u8) {
        let last = base + inner.last().unwrap().offset;
        let expected: Vec<_> = inner
            .iter()
            .map(|message| Message {
                offset: base + message.offset,
                timestamp: if magic == 0 { -1 } else { message.timestamp },
                ..message.clone()
            })
            .collect();
        let plain = row(magic, if magic == 0 { &expected } else { &inner });
        let codecs = [(1, Codec::Gzip), (2, Codec::Snappy), (3, Codec::Lz4)];
        for (number, codec) in codecs.into_iter().filter(|(_, codec)| CODECS.contains(codec)) {
            let batch = up_convert(&wrap(magic, number, codec, last, &plain), LIMITS).unwrap();

            prop_assert_eq!(messages(&batch), expected.clone());
            prop_assert_eq!(batch.header().last_offset(), Offset::new(last).unwrap());
        }
        let alone = up_convert(&entry(magic, 0, &expected[0]), LIMITS).unwrap();
        prop_assert_eq!(messages(&alone), &expected[..1]);
    }
}
