//! Bytes that want to hurt: bombs, streams that lie, and a hundred thousand random mutations.

use std::io::Read;

use bytes::Bytes;
use highwater_record::{
    Batch, BatchBuilder, CRC_START, Codec, CodecError, Compressed, DecodeLimits, Decoder, HEADER_BYTES, Keys,
    ProduceRules, RATIO_FREE_BYTES, compress, crc32c, decompress, validate,
};

use crate::golden::golden;
use crate::support::{CODECS, LIMITS, build, record};

const GIB: usize = 1 << 30;

/// Compresses `size` zeros without holding them.
fn bomb(codec: Codec, size: usize) -> Vec<u8> {
    let zeros = std::io::repeat(0).take(size as u64);
    match codec {
        Codec::Gzip => {
            let mut bomb = Vec::new();
            let mut encoder = flate2::read::GzEncoder::new(zeros, flate2::Compression::best());
            encoder.read_to_end(&mut bomb).expect("memory does not fail");
            bomb
        }
        Codec::Zstd => zstd::stream::encode_all(zeros, 19).expect("memory does not fail"),
        // Blocks are independent, so that one block again and again makes any size.
        Codec::Lz4 => {
            let mut one = Vec::new();
            compress(Codec::Lz4, &[0; 64 << 10], &mut one).expect("memory does not fail");
            let (prefix, block) = one[..one.len() - 4].split_at(7);
            [prefix, &block.repeat(size / (64 << 10)), &[0; 4]].concat()
        }
        Codec::Snappy => {
            let mut one = Vec::new();
            compress(Codec::Snappy, &[0; 32 << 10], &mut one).expect("memory does not fail");
            let (prefix, block) = one.split_at(16);
            [prefix, &block.repeat(size / (32 << 10))].concat()
        }
        Codec::None => panic!("nothing is no bomb"),
    }
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn a_bomb_is_refused_at_the_cap() {
    let limits = DecodeLimits { bytes_max: 4 << 20, ratio_max: usize::MAX };
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bomb = bomb(codec, 64 << 20);

        let refused = decompress(codec, &bomb, limits).unwrap_err();

        let sentence = format!("{} bytes of {codec} grow beyond the limit of 4194304 bytes", bomb.len());
        assert_eq!(refused.to_string(), sentence);
    }
}

#[test]
fn a_stream_gives_exactly_the_cap_and_not_a_byte_more() {
    // Miri takes a minute for the longer one.
    let bytes = if cfg!(miri) { 1_000 } else { 100_000 };
    for codec in CODECS {
        let plain = vec![7; bytes];
        let mut compressed = Vec::new();
        compress(codec, &plain, &mut compressed).unwrap();
        let read_all = |cap| {
            let mut output = Vec::new();
            let outcome = Decoder::new(codec, &compressed, cap).unwrap().read_to_end(&mut output);
            (outcome.is_ok(), output.len())
        };

        assert_eq!(read_all(bytes), (true, bytes), "{codec}");
        let (complete, count) = read_all(bytes - 1);
        assert!(!complete && count < bytes, "{codec} gave {count} bytes");
    }
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn the_ratio_counts_beyond_the_first_mebibyte() {
    let limits = DecodeLimits { bytes_max: GIB, ratio_max: 100 };
    let within = bomb(Codec::Zstd, RATIO_FREE_BYTES);
    let beyond = bomb(Codec::Zstd, RATIO_FREE_BYTES + 1);

    assert_eq!(decompress(Codec::Zstd, &within, limits).unwrap().len(), RATIO_FREE_BYTES);
    assert!(matches!(
        decompress(Codec::Zstd, &beyond, limits),
        Err(CodecError::TooLarge { limit: RATIO_FREE_BYTES, .. })
    ));
}

#[test]
fn sizes_that_snappy_claims_are_not_believed() {
    // A raw block that claims 4 GiB - 1 in ten bytes, and the same in a frame.
    let raw = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 5]].concat();
    let framed = [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x0a"[..], &raw].concat();
    let endless = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";
    let limits = DecodeLimits { bytes_max: usize::MAX, ratio_max: usize::MAX };
    let refused = |bytes: &[u8]| decompress(Codec::Snappy, bytes, limits).unwrap_err().to_string();

    let sentence = "not a snappy stream: a block of 10 bytes claims 4294967295, at most 220 fit";
    assert_eq!(refused(&raw), sentence);
    assert_eq!(refused(&framed), sentence);
    assert_eq!(refused(endless), "not a snappy stream: a block claims 4294967295 bytes, there are 0");
}

#[test]
fn raw_snappy_is_read_like_framed_snappy() {
    // Miri takes half a minute for the longer one.
    let lines = if cfg!(miri) { 20 } else { 2_000 };
    let plain = b"one block without any framing, as some clients send it".repeat(lines);
    let raw = snap::raw::Encoder::new().compress_vec(&plain).unwrap();

    assert_eq!(decompress(Codec::Snappy, &raw, LIMITS).unwrap(), plain);
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn a_zstd_window_beyond_eight_mebibytes_is_refused() {
    let with_window = |log| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        std::io::Write::write_all(&mut encoder, b"small content, large window").unwrap();
        encoder.finish().unwrap()
    };

    assert!(decompress(Codec::Zstd, &with_window(23), LIMITS).is_ok());
    assert!(matches!(decompress(Codec::Zstd, &with_window(24), LIMITS), Err(CodecError::Corrupt { .. })));
}

#[test]
fn what_is_no_stream_or_more_than_one_is_refused() {
    for codec in CODECS.into_iter().filter(|codec| *codec != Codec::None) {
        let mut compressed = Vec::new();
        compress(codec, b"some content", &mut compressed).unwrap();
        let cut = &compressed[..compressed.len() - 5];
        let longer = [&compressed[..], b"rest"].concat();

        assert!(decompress(codec, b"", LIMITS).is_err() || codec == Codec::Snappy, "{codec} took nothing");
        assert!(decompress(codec, b"not compressed at all", LIMITS).is_err(), "{codec} took text");
        assert!(decompress(codec, cut, LIMITS).is_err(), "{codec} took a part");
        assert!(decompress(codec, &longer, LIMITS).is_err(), "{codec} took more");
    }
}

/// A generator that needs no crate: the mutations are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => bytes.truncate(at.max(1)),
            4 => bytes.insert(at, random.below(256) as u8),
            _ => drop(bytes.remove(at)),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// Makes size and checksum hold again, so that the mutation is seen by what comes after them.
fn reseal(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_BYTES {
        let length = bytes.len() as u32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c(&bytes[CRC_START..]);
        bytes[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
    }
}

#[test]
fn a_hundred_thousand_mutations_are_refused_or_read() {
    let small = [record(1, b"first value"), record(2, b"second value, as long as it is"), record(3, b"")];
    let mut seeds: Vec<Vec<u8>> = CODECS.map(|codec| build(BatchBuilder::new(codec), &small).to_vec()).into();
    seeds.extend(["none", "none_log_append_time"].map(|name| golden(name).bytes().to_vec()));
    let rules = ProduceRules {
        batch_bytes_max: 1 << 20,
        produce_version: 13,
        compressed: Compressed::Walk,
        keys: Keys::Optional,
        limits: DecodeLimits { bytes_max: 1 << 20, ratio_max: 100 },
    };
    // Miri takes a twentieth of a second for each.
    let rounds = if cfg!(miri) { 100 } else { 100_000 };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut whole, mut accepted, mut records) = (0, 0, 0);

    for round in 0..rounds {
        let mut bytes = seeds[round % seeds.len()].clone();
        mutate(&mut bytes, &mut random);
        if round % 10 != 0 {
            reseal(&mut bytes);
        }
        let bytes = Bytes::from(bytes);
        if let Ok(batch) = Batch::new(bytes.clone()) {
            whole += 1;
            if let Ok(plain) = batch.decompress(rules.limits) {
                records += plain.records().filter(Result::is_ok).count();
            }
        }
        if let Ok(batch) = validate(bytes, &rules) {
            accepted += 1;
            let plain = batch.decompress(rules.limits).expect("an accepted batch decompresses");
            assert_eq!(plain.records().filter(Result::is_ok).count(), batch.header().record_count as usize);
            assert!(plain.records().all(|record| record.is_ok()));
        }
    }

    // Each stage was reached, and none lets everything pass.
    println!("of {rounds} mutations {whole} are whole, {accepted} accepted, {records} records read");
    assert!((rounds / 2..rounds / 10 * 9).contains(&whole));
    assert!((rounds / 100..whole / 2).contains(&accepted));
    assert!(records > rounds / 10);
}
