//! Batches that Kafka's own client wrote (`tests/golden/batch`, by `WriteBatches.java`) are read as it reads them.

use highwater_record::{
    Batch, BatchBuilder, Codec, HEADER_BYTES, LeaderEpoch, Offset, Producer, ProducerEpoch, ProducerId,
    Sequence, TimestampMs, TimestampType,
};

use crate::support::{Owned, batch, build, hex, read, record};

const TIME: i64 = 1_700_000_000_000;

/// The batch in a golden file, its checksum compared.
pub(crate) fn golden(name: &str) -> Batch {
    let path = format!("{}/tests/golden/batch/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the golden file is there");
    batch(hex(&text))
}

fn small_records() -> Vec<Owned> {
    let headers = vec![
        (b"h".to_vec(), Some(b"1".to_vec())),
        (b"h".to_vec(), Some(b"2".to_vec())),
        (b"h".to_vec(), None),
        ("schlüssel".into(), Some(vec![0xff, 0])),
    ];
    vec![
        Owned { key: Some(b"key".to_vec()), headers, ..record(TIME, b"value") },
        Owned { value: None, ..record(TIME - 1000, b"") },
        Owned {
            key: Some(Vec::new()),
            headers: vec![(Vec::new(), Some(Vec::new()))],
            ..record(TIME + 5000, b"")
        },
    ]
}

fn large_record() -> Owned {
    let lines = (0..2_000).map(|line| format!("line {line:04} of a log that says the same in every line\n"));
    record(TIME + 1000, lines.collect::<String>().as_bytes())
}

/// What `WriteBatches.java` sets besides the records.
fn builder(codec: Codec) -> BatchBuilder {
    BatchBuilder::new(codec)
        .base_offset(Offset::new(1000).expect("not negative"))
        .leader_epoch(LeaderEpoch::new(7).expect("not negative"))
        .producer(Producer {
            id: ProducerId::new(4000).expect("not negative"),
            epoch: ProducerEpoch::new(2).expect("not negative"),
            base_sequence: Sequence::new(17),
        })
}

fn numbered(records: Vec<Owned>) -> Vec<(i64, Owned)> {
    (1000..).zip(records).collect()
}

#[test]
fn uncompressed_batches_are_byte_for_byte_those_of_java() {
    let records = small_records();

    assert_eq!(build(builder(Codec::None), &records), golden("none").bytes());
    assert_eq!(build(builder(Codec::None).transactional(), &records), golden("none_transactional").bytes());
    assert_eq!(read(&golden("none")).unwrap(), numbered(records));
}

#[test]
fn a_batch_stamped_by_a_broker_reads_with_its_time() {
    let stamped = golden("none_log_append_time");
    let mut records = small_records();
    records.iter_mut().for_each(|record| record.timestamp = TIME + 60_000);

    assert_eq!(read(&stamped).unwrap(), numbered(records));
    let ours = golden("none").with_max_timestamp(TimestampType::LogAppendTime, TimestampMs(TIME + 60_000));
    assert_eq!(ours.bytes(), stamped.bytes());
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn every_codec_of_java_is_read() {
    let mut records = small_records();
    records.push(large_record());
    for (name, codec) in
        [("gzip", Codec::Gzip), ("snappy", Codec::Snappy), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)]
    {
        let batch = golden(name);

        assert_eq!(batch.header().attributes.codec(), Some(codec));
        assert_eq!(read(&batch).unwrap(), numbered(records.clone()), "{name}");
    }
}

#[test]
#[cfg_attr(
    miri,
    ignore = "compresses 88 KB three times, which takes Miri minutes; round trips compress less"
)]
fn our_framing_is_that_of_java() {
    let mut records = small_records();
    records.push(large_record());
    // Magic, versions; then comes the size of a block, which is the compressor's business.
    let prefixes = [("snappy", Codec::Snappy, 16), ("lz4", Codec::Lz4, 7)];
    for (name, codec, prefix_bytes) in prefixes {
        let ours = build(builder(codec), &records);

        let prefix = HEADER_BYTES..HEADER_BYTES + prefix_bytes;
        assert_eq!(ours[prefix.clone()], golden(name).bytes()[prefix], "{name}");
    }
    // The first snappy block says how much it holds: 32 KiB, as a varint.
    let block = HEADER_BYTES + 20..HEADER_BYTES + 23;
    assert_eq!(build(builder(Codec::Snappy), &records)[block.clone()], [0x80, 0x80, 0x02]);
    assert_eq!(golden("snappy").bytes()[block], [0x80, 0x80, 0x02]);
}
