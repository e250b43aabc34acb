//! Scans of segments of message formats 0 and 1, which brokers of that time wrote (`tests/golden/segments`).

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use highwater_record::{Codec, DecodeLimits, HeaderError, MessageFormat, Offset};

use crate::batches::BatchFault;
use crate::disk::DiskFiles;
use crate::{ScanError, ScannedBatch, SegmentScan};

const LIMITS: DecodeLimits = DecodeLimits { bytes_max: 1 << 20, ratio_max: 1000 };

fn kafka(partition: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/segments").join(partition)
}

/// The `.log` files of a partition by base offset.
fn logs(partition: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(kafka(partition)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

/// A copy of a segment that a test may damage.
struct Copy {
    path: PathBuf,
    file: fs::File,
    bytes: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Copy {
    fn of(log: &Path) -> Self {
        let (dir, bytes) = (tempfile::tempdir().unwrap(), fs::read(log).unwrap());
        let path = dir.path().join(log.file_name().unwrap());
        fs::write(&path, &bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        Self { path, file, bytes, _dir: dir }
    }

    fn scan(&self) -> SegmentScan {
        SegmentScan::open(&self.path).unwrap()
    }

    /// Changes one bit, or changes it back.
    fn flip(&mut self, at: usize, bit: usize) {
        self.bytes[at] ^= 1 << bit;
        self.file.write_all_at(&self.bytes[at..=at], at as u64).unwrap();
    }
}

/// The batches of a scan and the offsets of the records that could be read, up to the first fault of the scan.
fn read_all(mut scan: SegmentScan) -> (Vec<ScannedBatch>, Vec<i64>) {
    let (mut batches, mut offsets) = (Vec::new(), Vec::new());
    while let Some(Ok(batch)) = scan.next() {
        batches.push(batch);
        let Ok(whole) = scan.read(&batch) else { continue };
        let Ok(records) = whole.decompress(LIMITS) else { continue };
        offsets.extend(records.records().map_while(Result::ok).map(|record| record.offset.get()));
    }
    (batches, offsets)
}

#[test]
fn a_log_of_three_formats_is_one_row_of_batches() {
    let mut formats = Vec::new();
    let (mut mixed, mut next) = (0, Offset::ZERO);
    for path in logs("kafka-0.11/mixed-0") {
        let bytes = fs::read(&path).unwrap();
        let mut scan = SegmentScan::open(&path).unwrap();
        let (mut position, mut here) = (0, Vec::new());
        while let Some(batch) = scan.next() {
            let batch = batch.unwrap();
            assert_eq!((batch.position, batch.header.base_offset), (position, next));
            let range = position as usize..position as usize + batch.header.size_bytes as usize;
            assert_eq!(scan.bytes(&batch).unwrap(), bytes[range]);
            position += u64::from(batch.header.size_bytes);
            next = batch.header.next_offset();
            here.push(batch.format);
        }
        assert_eq!(position, bytes.len() as u64);
        here.dedup();
        mixed += usize::from(here.len() > 1);
        formats.extend(here);
    }

    formats.dedup();
    assert_eq!(formats, [MessageFormat::V0, MessageFormat::V1, MessageFormat::V2]);
    assert_eq!(next.get(), 222);
    assert!(mixed > 0, "no segment has two formats");
}

#[test]
fn a_wrapper_has_the_header_of_its_records_and_its_own_codec() {
    let path = &logs("kafka-0.10.2/compacted-0")[0];
    let (batches, _) = read_all(SegmentScan::open(path).unwrap());
    let mut scan = SegmentScan::open(path).unwrap();

    let mut gaps = 0;
    for batch in &batches {
        // Not the one that the scan has just converted: it is read again.
        let whole = scan.read(batch).unwrap();
        let (header, made) = (batch.header, whole.header());
        assert_eq!(header.attributes.codec(), Some(Codec::Gzip));
        assert_eq!(made.attributes.codec(), Some(Codec::None));
        assert_eq!((header.base_offset, header.last_offset()), (made.base_offset, made.last_offset()));
        assert_eq!((header.record_count, header.max_timestamp), (made.record_count, made.max_timestamp));
        gaps += header.last_offset_delta + 1 - header.record_count;
    }
    assert!(gaps > 0, "compaction left no gap inside a wrapper");
    assert!(scan.next().is_some());
}

#[test]
fn a_damaged_wrapper_is_told_when_it_is_read_and_the_scan_goes_on() {
    let mut copy = Copy::of(&logs("kafka-0.10.2/gzip-0")[0]);
    let (batches, offsets) = read_all(copy.scan());
    let hit = batches[1];
    copy.flip(hit.position as usize + hit.header.size_bytes as usize - 3, 0);

    let mut scan = copy.scan();
    let (after, read) = read_all(copy.scan());

    assert_eq!(after.len(), batches.len());
    assert_eq!((after[0], &after[2..]), (batches[0], &batches[2..]));
    assert_eq!((after[1].header.last_offset(), after[1].header.record_count), (hit.header.last_offset(), 0));
    let lost = hit.header.base_offset.get()..hit.header.next_offset().get();
    assert_eq!(read, offsets.into_iter().filter(|offset| !lost.contains(offset)).collect::<Vec<_>>());
    let second = scan.nth(1).unwrap().unwrap();
    assert!(matches!(scan.read(&second), Err(ScanError::Fault { fault: BatchFault::Crc { .. }, .. })));
}

#[test]
fn a_wrapper_with_a_good_checksum_and_no_stream_in_it_is_told_when_it_is_read() {
    let mut copy = Copy::of(&logs("kafka-0.10.2/gzip-0")[0]);
    let first = read_all(copy.scan()).0[0];
    // The gzip magic behind the sizes of key and value.
    copy.flip(34, 0);
    let crc = crc32fast::hash(&copy.bytes[16..first.header.size_bytes as usize]);
    copy.file.write_all_at(&crc.to_be_bytes(), 12).unwrap();

    let mut scan = copy.scan();
    let batch = scan.next().unwrap().unwrap();

    let error = scan.read(&batch).unwrap_err().to_string();
    assert_eq!(error, "position 0: the 49 bytes of the message's value are not a gzip stream");
    assert_eq!(scan.next().unwrap().unwrap().header.base_offset, first.header.next_offset());
}

#[test]
fn every_cut_and_every_changed_byte_ends_or_is_told() {
    for partition in ["kafka-0.8.2/lz4-0", "kafka-0.10.2/plain-0"] {
        let mut copy = Copy::of(&logs(partition)[0]);
        let (_, whole) = read_all(copy.scan());
        for at in 0..copy.bytes.len() {
            copy.flip(at, at % 8);

            let (batches, offsets) = read_all(copy.scan());

            // No CRC covers an offset: the records of one entry may move, never those of others.
            assert!(offsets.len() <= whole.len(), "{partition} byte {at}");
            assert!(batches.windows(2).all(|two| two[0].header.last_offset() < two[1].header.base_offset));
            copy.flip(at, at % 8);
        }
        for len in (0..copy.bytes.len()).rev() {
            copy.file.set_len(len as u64).unwrap();

            let (_, offsets) = read_all(copy.scan());

            assert!(whole.starts_with(&offsets) && offsets.len() < whole.len(), "{len} bytes");
        }
    }
}

#[test]
fn to_a_broker_old_formats_are_damage() {
    for (partition, magic) in [("kafka-0.8.0/plain-0", 0), ("kafka-0.10.2/gzip-0", 1)] {
        let mut scan = SegmentScan::open_on(&DiskFiles, &logs(partition)[0]).unwrap();

        let Some(Err(ScanError::Fault { position: 0, fault })) = scan.next() else {
            panic!("it was read");
        };

        assert_eq!(fault, BatchFault::Header(HeaderError::Magic { magic }));
    }
}
