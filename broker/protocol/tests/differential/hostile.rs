//! Encodings that lie about their length or their counts, and tagged fields that nobody has defined.
//!
//! A decoder that believed a count would fail these tests by taking the machine's memory: the claims are of
//! two to four thousand million elements. What it must do instead is name the lie.

use bytes::Bytes;
use highwater_protocol::api::FetchRequest;
use highwater_protocol::wire::{DecodeError, Message, Reader};
use highwater_protocol::{ApiKey, encode_request, parse_request};
use proptest::prelude::*;

use crate::generator::{Count, generate};

const SEEDS: u64 = 12;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 20 } else { 20_000 }))]

    /// Nothing but the absence of a panic is asked for here; the cases below ask for the right error.
    #[test]
    fn any_frame_is_parsed_or_refused(api in 0..ApiKey::ALL.len(), version in -1_i16..20, body: Vec<u8>) {
        let mut frame = ApiKey::ALL[api].code().to_be_bytes().to_vec();
        frame.extend(version.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0xff, 0xff, 0]);
        frame.extend(&body);
        let _ = parse_request(Bytes::from(frame));
        let _ = parse_request(Bytes::from(body));
    }
}

/// Every truncation, every array count replaced by a lie, and too many tagged fields, in every version of `M`.
pub(crate) fn check<M: Message + std::fmt::Debug>() {
    for version in M::VERSIONS.min()..=M::VERSIONS.max() {
        if M::FLEXIBLE.contains(version) && M::SPEC.fields.iter().all(|field| field.tag.is_none()) {
            check_unknown_tags::<M>(version, &generate::<M>(version, 0).bytes);
        }
        for seed in 0..SEEDS {
            let generated = generate::<M>(version, seed);
            check_truncations::<M>(version, &generated.bytes);
            check_overwritten::<M>(version, &generated.bytes);
            for count in generated.counts {
                check_count::<M>(version, &generated.bytes, count);
            }
        }
    }
}

fn read<M: Message>(version: i16, bytes: Vec<u8>) -> Result<M, DecodeError> {
    M::read(&mut Reader::new(Bytes::from(bytes)), version)
}

/// The decoder needs every byte of an encoding, so that each shorter one is an error.
fn check_truncations<M: Message>(version: i16, bytes: &[u8]) {
    for length in 0..bytes.len() {
        let read = read::<M>(version, bytes[..length].to_vec());
        assert!(read.is_err(), "{} version {version} cut to {length} is no error", M::SPEC.name);
    }
}

/// Extreme numbers anywhere end in a value or an error; which one depends on the field they hit.
fn check_overwritten<M: Message>(version: i16, bytes: &[u8]) {
    let extremes: [&[u8]; 4] =
        [&[0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xfe], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 11]];
    for at in 0..bytes.len() {
        for extreme in extremes {
            let mut changed = bytes.to_vec();
            let end = changed.len().min(at + extreme.len());
            changed[at..end].copy_from_slice(&extreme[..end - at]);
            let _ = read::<M>(version, changed);
        }
    }
}

/// A count that cannot be is recognised as such.
fn check_count<M: Message + std::fmt::Debug>(version: i16, bytes: &[u8], count: Count) {
    let context = || format!("{} version {version} count at {}", M::SPEC.name, count.at);
    let with = |lie: &[u8]| {
        let length = if count.compact { 1 } else { 4 };
        let mut changed = bytes.to_vec();
        changed.splice(count.at..count.at + length, lie.iter().copied());
        read::<M>(version, changed).map(|_| ())
    };
    if !count.compact {
        let claimed = with(&i32::MAX.to_be_bytes());
        assert!(matches!(claimed, Err(DecodeError::CountExceedsBytes { .. })), "{}: {claimed:?}", context());
        assert_eq!(with(&(-2_i32).to_be_bytes()), Err(DecodeError::NegativeLength(-2)), "{}", context());
        return;
    }
    let claimed = with(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    // Inside a tagged field the longer count moves the value's last bytes out of the field, and nothing else.
    assert!(matches!(claimed, Err(DecodeError::CountExceedsBytes { .. })), "{}: {claimed:?}", context());
    let endless = with(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
    let too_long = matches!(
        endless,
        Err(DecodeError::VarintTooLong { bits: 32 } | DecodeError::UnexpectedEnd { needed: 1, .. })
    );
    assert!(too_long, "{}: {endless:?}", context());
}

#[test]
fn a_fetch_request_skips_tags_that_nobody_has_defined() {
    // It has tagged fields of its own, which only a value without them leaves out.
    for version in 12..=18 {
        let frame = encode_request(1, None, version, &FetchRequest::default()).unwrap();
        // The body begins behind the size, eight bytes of header, a null client id and no tagged fields.
        check_unknown_tags::<FetchRequest>(version, &frame[15..]);
    }
}

/// Up to 128 unknown tagged fields are skipped, one more is refused, and so are more than there are bytes for. The last
/// byte of `plain` is a count of no tagged fields.
fn check_unknown_tags<M: Message + std::fmt::Debug>(version: i16, plain: &[u8]) {
    assert!(plain.ends_with(&[0]));
    let context = || format!("{} version {version}", M::SPEC.name);
    let with_tags = |count: u16| {
        let mut tagged = plain[..plain.len() - 1].to_vec();
        tagged.extend([count as u8 | 0x80, (count >> 7) as u8]);
        for tag in 0..count {
            // Tags from 1000 on, each of two bytes that look like a count.
            let tag = 1000 + tag;
            tagged.extend([tag as u8 | 0x80, (tag >> 7) as u8, 2, 0xff, 0x7f]);
        }
        tagged
    };
    let skipped = read::<M>(version, with_tags(128));
    let without = read::<M>(version, plain.to_vec());
    assert_eq!(format!("{skipped:?}"), format!("{without:?}"), "{}", context());
    let refused = read::<M>(version, with_tags(129));
    assert!(
        matches!(refused, Err(DecodeError::TooManyTags { count: 129, .. })),
        "{}: {refused:?}",
        context()
    );

    let mut lying = plain[..plain.len() - 1].to_vec();
    lying.extend([0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0, 1, 0]);
    let refused = read::<M>(version, lying);
    assert!(
        matches!(refused, Err(DecodeError::TooManyTags { allowed: 2, .. })),
        "{}: {refused:?}",
        context()
    );
}
