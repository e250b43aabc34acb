//! The table of faults: what is done to a good partition, and what `segment verify` says of it: kind, file, position,
//! offsets.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use highwater_record::{BatchBuilder, Codec, LeaderEpoch, NewRecord, Offset, TimestampMs, crc32c};
use tempfile::TempDir;

use super::check::Depth;
use super::fault::{Fault, Kind, Severity};
use super::files;
use super::verify::{Request, Verified, parse_since, verify};

const BATCH_RECORDS: i64 = 10;
const SEGMENT_BATCHES: i64 = 5;

/// Partition `logs-2` with offsets 0 to 99 in two segments of five batches, indexes of every other batch, epochs 3 and
/// 4, and files of Kafka's beside them.
struct Partition {
    data: TempDir,
}

/// What a fault is expected to be: kind, name of the file, position, offsets.
type Expected = (Kind, String, Option<u64>, Option<(i64, i64)>);

impl Partition {
    fn new() -> Self {
        let partition = Self { data: TempDir::new().unwrap() };
        fs::create_dir(partition.path()).unwrap();
        for base in [0, 50] {
            partition.write_segment(base);
        }
        partition.write("leader-epoch-checkpoint", b"0\n2\n3 0\n4 70\n");
        partition.write("partition.metadata", b"version: 0\ntopic_id: j6hPE3nlSrCxOuC34cQVXw\n");
        partition.write("00000000000000000050.snapshot", &snapshot());
        let data = partition.data.path();
        fs::write(data.join("cleaner-offset-checkpoint"), "0\n0\n").unwrap();
        fs::write(data.join("recovery-point-offset-checkpoint"), "0\n1\nlogs 2 100\n").unwrap();
        fs::write(data.join("meta.properties"), "version=1\nnode.id=1\ncluster.id=x\n").unwrap();
        partition
    }

    fn path(&self) -> PathBuf {
        self.data.path().join("logs-2")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    fn write_segment(&self, base: i64) {
        let (mut log, mut index, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..SEGMENT_BATCHES {
            let first = base + number * BATCH_RECORDS;
            let last = first + BATCH_RECORDS - 1;
            if number % 2 == 1 {
                let relative = i32::try_from(last - base).unwrap().to_be_bytes();
                index.extend_from_slice(&relative);
                index.extend_from_slice(&i32::try_from(log.len()).unwrap().to_be_bytes());
                times.extend_from_slice(&last.to_be_bytes());
                times.extend_from_slice(&relative);
            }
            log.extend_from_slice(&batch(first));
        }
        self.write(&format!("{base:020}.log"), &log);
        self.write(&format!("{base:020}.index"), &index);
        self.write(&format!("{base:020}.timeindex"), &times);
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    fn verify(&self, depth: Depth) -> Verified {
        let paths = [self.data.path().to_owned()];
        let partitions = files::find(&paths[0]).unwrap();
        verify(&Request { paths: &paths, partitions: &partitions, depth, since: None }).unwrap()
    }
}

/// The kinds of all faults, in order.
fn kinds(verified: &Verified) -> Vec<Kind> {
    verified.faults.iter().map(|fault| fault.kind).collect()
}

/// Ten records from an offset on, which is their time as well.
fn batch(first: i64) -> Vec<u8> {
    let epoch = LeaderEpoch::new(if first < 70 { 3 } else { 4 }).unwrap();
    let builder = BatchBuilder::new(Codec::None).base_offset(Offset::new(first).unwrap());
    let mut builder = builder.leader_epoch(epoch);
    for offset in first..first + BATCH_RECORDS {
        let value = Some(&b"value"[..]);
        builder
            .append(&NewRecord { timestamp: TimestampMs(offset), key: None, value, headers: &[] })
            .unwrap();
    }
    builder.build().unwrap().into()
}

/// A batch's size: all are alike.
fn size() -> usize {
    batch(0).len()
}

/// A snapshot of no producers.
fn snapshot() -> Vec<u8> {
    let mut bytes = vec![0, 1];
    bytes.extend_from_slice(&crc32c(&[0; 4]).to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

fn told(fault: &Fault) -> Expected {
    let file = fault.file.file_name().unwrap().to_string_lossy().into_owned();
    (fault.kind, file, fault.position, fault.offsets.map(|offsets| (offsets.0.get(), offsets.1.get())))
}

fn expected(kind: Kind, file: &str, position: Option<usize>, offsets: Option<(i64, i64)>) -> Expected {
    (kind, file.to_owned(), position.map(|position| position as u64), offsets)
}

const FIRST: &str = "00000000000000000000.log";
const LAST: &str = "00000000000000000050.log";

/// Verifies after a change of one file and compares all faults above notes.
#[track_caller]
fn check(name: &str, change: impl FnOnce(&mut Vec<u8>), expected: &[Expected]) {
    let partition = Partition::new();
    partition.change(name, change);
    compare(&partition, Depth::Crcs, expected);
}

#[track_caller]
fn compare(partition: &Partition, depth: Depth, expected: &[Expected]) {
    let verified = partition.verify(depth);
    let faults = verified.faults.iter().filter(|fault| fault.severity > Severity::Note);
    assert_eq!(faults.map(told).collect::<Vec<_>>(), expected, "{:#?}", verified.faults);
}

#[test]
fn a_good_partition_has_no_faults() {
    for depth in [Depth::Fast, Depth::Crcs, Depth::Deep] {
        let verified = Partition::new().verify(depth);
        assert_eq!(verified.faults, []);
        assert_eq!((verified.segments, verified.bytes), (2, 10 * size() as u64));
    }
}

#[test]
fn a_first_index_entry_of_zeros_is_one() {
    check("00000000000000000000.index", |index| drop(index.splice(0..0, [0; 8])), &[]);
    check("00000000000000000000.timeindex", |index| drop(index.splice(0..0, [0; 12])), &[]);
}

#[test]
fn the_epoch_of_a_last_batch_is_held_against_the_file_and_the_batch_before() {
    let at = 4 * size();
    let fault = expected(Kind::BadEpoch, LAST, Some(at), Some((90, 100)));
    check(LAST, |log| log[at + 14] ^= 1, &[fault]);
}

#[test]
fn a_segment_that_is_a_link_to_nowhere_is_unreadable() {
    let partition = Partition::new();
    let path = partition.path().join(FIRST);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("gone", &path).unwrap();

    for depth in [Depth::Fast, Depth::Crcs] {
        compare(&partition, depth, &[expected(Kind::Unreadable, FIRST, None, None)]);
    }
}

#[test]
fn a_bit_in_any_field_of_a_header_is_named_with_its_batch() {
    // Batch 1, offsets 10 to 19.
    let lost = Some((10, 20));
    for (field, at, kind) in [
        ("base offset", 7, Kind::BadOffset),
        ("base offset, high", 0, Kind::BadHeader),
        ("length", 11, Kind::BadCrc),
        ("length, high", 8, Kind::BadHeader),
        ("leader epoch", 15, Kind::BadEpoch),
        ("magic", 16, Kind::BadHeader),
        ("crc", 17, Kind::BadCrc),
        ("attributes", 22, Kind::BadCrc),
        ("last offset delta", 26, Kind::BadCrc),
        ("base timestamp", 34, Kind::BadCrc),
        ("max timestamp", 42, Kind::BadCrc),
        ("producer id", 50, Kind::BadCrc),
        ("producer epoch", 52, Kind::BadCrc),
        ("sequence", 56, Kind::BadCrc),
        ("count", 60, Kind::BadCrc),
        ("record", 70, Kind::BadCrc),
    ] {
        let flip = if at == 0 || at == 8 { 0x80 } else { 4 };
        let partition = Partition::new();
        partition.change(FIRST, |bytes| bytes[size() + at] ^= flip);
        println!("{field}");
        compare(&partition, Depth::Crcs, &[expected(kind, FIRST, Some(size()), lost)]);
    }
}

#[test]
fn tails_gaps_and_overlaps_are_told_apart() {
    let torn = expected(Kind::TornTail, LAST, Some(4 * size()), Some((90, 100)));
    let missing = expected(Kind::MissingTail, LAST, None, Some((90, 100)));
    check(LAST, |bytes| bytes.truncate(5 * size() - 3), &[torn]);
    check(
        LAST,
        |bytes| bytes.truncate(4 * size()),
        &[expected(Kind::BadIndex, "none", None, None), missing][1..],
    );
    // A preallocated file.
    check(LAST, |bytes| bytes.resize(bytes.len() + 500, 0), &[]);
    let gap = expected(Kind::OffsetGap, FIRST, Some(4 * size()), Some((40, 50)));
    check(FIRST, |bytes| bytes.truncate(4 * size()), &[gap]);
    let inside = expected(Kind::OffsetGap, LAST, Some(4 * size()), Some((90, 100)));
    check(
        LAST,
        |bytes| {
            bytes.truncate(4 * size());
            bytes.extend_from_slice(&batch(100));
        },
        &[inside],
    );
    let overlap = expected(Kind::Overlap, FIRST, Some(5 * size()), None);
    check(FIRST, |bytes| bytes.extend_from_slice(&batch(50)), &[overlap]);
}

#[test]
fn a_wrong_name_is_told_with_the_right_one() {
    let partition = Partition::new();
    let path = |base: i64, ending: &str| partition.path().join(format!("{base:020}.{ending}"));
    for ending in ["log", "index", "timeindex"] {
        fs::rename(path(50, ending), path(60, ending)).unwrap();
    }

    let verified = partition.verify(Depth::Crcs);

    let wrong = verified.faults.iter().find(|fault| fault.kind == Kind::WrongName).unwrap();
    assert_eq!(told(wrong), expected(Kind::WrongName, "00000000000000000060.log", Some(0), Some((50, 51))));
    assert!(wrong.fix.as_ref().unwrap().ends_with(&path(50, "log").display().to_string()));
}

#[test]
fn indexes_are_held_against_the_batches() {
    let index = "00000000000000000000.index";
    let times = "00000000000000000000.timeindex";
    // The position of the second entry, its offset, the position of the first one out of order.
    check(index, |bytes| bytes[15] ^= 1, &[expected(Kind::BadIndex, index, Some(8), Some((39, 40)))]);
    check(index, |bytes| bytes[11] ^= 1, &[expected(Kind::BadIndex, index, Some(8), Some((38, 39)))]);
    check(
        index,
        |bytes| bytes[8] ^= 1,
        &[expected(Kind::BadIndex, index, Some(8), Some((16_777_255, 16_777_256)))],
    );
    check(index, |bytes| bytes.truncate(13), &[expected(Kind::BadIndex, index, Some(8), None)]);
    check(times, |bytes| bytes[19] ^= 1, &[expected(Kind::BadTimeIndex, times, Some(12), Some((39, 40)))]);
    check(times, |bytes| bytes[23] ^= 1, &[]);
    check(times, |bytes| bytes[23] ^= 16, &[expected(Kind::BadTimeIndex, times, Some(12), Some((55, 56)))]);
    // An index of an older log of the same name.
    check(
        LAST,
        |bytes| bytes.truncate(3 * size()),
        &[
            expected(Kind::BadIndex, "00000000000000000050.index", Some(8), Some((89, 90))),
            expected(Kind::BadTimeIndex, "00000000000000000050.timeindex", Some(12), Some((89, 90))),
            expected(Kind::MissingTail, LAST, None, Some((80, 100))),
        ],
    );
}

#[test]
fn small_files_are_held_against_their_form_and_the_log() {
    let (epochs, metadata) = ("leader-epoch-checkpoint", "partition.metadata");
    let snapshot = "00000000000000000050.snapshot";
    check(epochs, |bytes| bytes[0] ^= 1, &[expected(Kind::BadSidecar, epochs, None, None)]);
    check(
        epochs,
        |bytes| *bytes = b"0\n2\n2 0\n4 70\n".to_vec(),
        &[
            // For each stretch of a segment.
            expected(Kind::EpochMismatch, epochs, None, Some((0, 30))),
            expected(Kind::EpochMismatch, epochs, None, Some((30, 50))),
            expected(Kind::EpochMismatch, epochs, None, Some((50, 70))),
        ],
    );
    check(metadata, |bytes| bytes[0] ^= 1, &[expected(Kind::BadSidecar, metadata, None, None)]);
    for at in 0..10 {
        check(snapshot, |bytes| bytes[at] ^= 1, &[expected(Kind::BadSidecar, snapshot, None, None)]);
    }
    for name in ["manifest", "producer-state", "compacted", "../checkpoint"] {
        let partition = Partition::new();
        partition.write(name, b"HWMF, but no more");
        let file = Path::new(name).file_name().unwrap().to_str().unwrap();
        compare(&partition, Depth::Crcs, &[expected(Kind::BadSidecar, file, None, None)]);
    }
    for name in ["../meta.properties", "../recovery-point-offset-checkpoint", "../cleaner-offset-checkpoint"]
    {
        let partition = Partition::new();
        partition.change(name, |bytes| *bytes = b"?".to_vec());
        let found = partition.verify(Depth::Crcs);
        assert_eq!(kinds(&found), [Kind::BadSidecar], "{name}");
    }
}

#[test]
fn a_partition_whose_segments_are_gone_is_told_of() {
    let partition = Partition::new();
    let data = partition.data.path();
    fs::create_dir(data.join("logs-7")).unwrap();
    fs::write(data.join("recovery-point-offset-checkpoint"), "0\n2\nlogs 2 100\nlogs 7 30\n").unwrap();

    compare(&partition, Depth::Fast, &[expected(Kind::MissingTail, "logs-7", None, Some((0, 30)))]);
}

#[test]
fn strangers_and_leftovers_are_named() {
    let partition = Partition::new();
    for name in ["notes.txt", "00000000000000000007.index", "00000000000000000000.log.deleted", "7.log"] {
        partition.write(name, b"");
    }

    let found = partition.verify(Depth::Crcs);

    let named: Vec<_> = found.faults.iter().map(|fault| (fault.kind.name(), told(fault).1)).collect();
    let named: Vec<_> = named.iter().map(|(kind, file)| (*kind, file.as_str())).collect();
    assert_eq!(
        named,
        [
            ("leftover", "00000000000000000000.log.deleted"),
            ("orphan-index", "00000000000000000007.index"),
            ("foreign-file", "7.log"),
            ("foreign-file", "notes.txt"),
        ]
    );
}

#[test]
fn what_a_broker_appends_to_is_no_fault() {
    let partition = Partition::new();
    partition.change(LAST, |bytes| bytes.truncate(5 * size() - 3));
    let lock = File::create(partition.data.path().join(".lock")).unwrap();
    lock.try_lock().unwrap();

    let found = partition.verify(Depth::Deep);

    assert_eq!(kinds(&found), [Kind::UnstableTail]);
    assert_eq!(found.faults[0].severity, Severity::Note);
}

#[test]
fn gaps_are_no_fault_where_the_topic_may_be_compacted() {
    let partition = Partition::new();
    partition.change(FIRST, |bytes| drop(bytes.drain(2 * size()..3 * size())));
    for name in ["00000000000000000000.index", "00000000000000000000.timeindex"] {
        fs::remove_file(partition.path().join(name)).unwrap();
    }
    let gap = expected(Kind::OffsetGap, FIRST, Some(2 * size()), Some((20, 30)));
    compare(&partition, Depth::Crcs, &[gap]);

    fs::write(partition.data.path().join("cleaner-offset-checkpoint"), "0\n1\nlogs 2 50\n").unwrap();

    compare(&partition, Depth::Crcs, &[]);
    assert!(kinds(&partition.verify(Depth::Crcs)).contains(&Kind::OffsetGap));
}

#[test]
fn records_that_are_not_what_their_header_says_are_found_in_depth() {
    let partition = Partition::new();
    partition.change(LAST, |bytes| {
        let batch = &mut bytes[size()..2 * size()];
        // A largest timestamp of one more, with the checksum that fits.
        batch[42] += 1;
        let crc = crc32c(&batch[21..]).to_be_bytes();
        batch[17..21].copy_from_slice(&crc);
    });
    fs::remove_file(partition.path().join("00000000000000000050.timeindex")).unwrap();

    compare(&partition, Depth::Crcs, &[]);
    let wrong = expected(Kind::BadRecords, LAST, Some(size()), Some((60, 70)));
    compare(&partition, Depth::Deep, &[wrong]);
}

/// A file of ours around `body`, by `broker/docs/format.md`.
fn framed(magic: &[u8; 4], version: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = [magic.as_slice(), &[0, version, 0, 0], &(body.len() as u32).to_be_bytes()].concat();
    let crc = crc32(&[&bytes, body].concat());
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// CRC-32 (IEEE), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

fn numbers(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Our own files, as they are beside the good partition.
fn own_files() -> [(&'static str, Vec<u8>); 4] {
    let manifest = [&[0, 0, 0, 1], numbers(&[0, 50, 5 * size() as i64, 0, 49]).as_slice()].concat();
    let state = [numbers(&[100, -1]).as_slice(), &[0; 8]].concat();
    let checkpoint = [&[255; 4], numbers(&[0]).as_slice(), &[0; 4]].concat();
    [
        ("manifest", framed(b"HWMF", 2, &manifest)),
        ("producer-state", framed(b"HWPS", 1, &state)),
        ("compacted", framed(b"HWCO", 1, &numbers(&[50]))),
        ("../checkpoint", framed(b"HWCP", 3, &checkpoint)),
    ]
}

#[test]
fn a_bit_in_any_of_our_own_files_is_named_with_the_file() {
    for (name, bytes) in own_files() {
        let partition = Partition::new();
        partition.write(name, &bytes);
        compare(&partition, Depth::Fast, &[]);
        let file = Path::new(name).file_name().unwrap().to_str().unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            partition.write(name, &bytes);
            compare(&partition, Depth::Fast, &[expected(Kind::BadSidecar, file, None, None)]);
        }
    }
}

#[test]
fn our_own_files_are_held_against_the_log() {
    let partition = Partition::new();
    partition.write("manifest", &own_files()[0].1);
    partition.change(FIRST, |bytes| bytes.truncate(4 * size()));
    compare(
        &partition,
        Depth::Fast,
        &[
            expected(Kind::OffsetGap, FIRST, Some(4 * size()), Some((40, 50))),
            expected(Kind::MissingTail, FIRST, Some(4 * size()), None),
        ],
    );

    let partition = Partition::new();
    let state = [numbers(&[120, -1]).as_slice(), &[0; 8]].concat();
    partition.write("producer-state", &framed(b"HWPS", 1, &state));
    let stale = expected(Kind::StaleSidecar, "producer-state", None, Some((100, 120)));
    compare(&partition, Depth::Fast, &[stale]);

    let partition = Partition::new();
    partition.write("compacted", &framed(b"HWCO", 1, &numbers(&[60])));
    compare(&partition, Depth::Fast, &[expected(Kind::StaleSidecar, "compacted", None, None)]);
}

#[test]
fn only_what_was_written_since_is_read() {
    let now = TimestampMs(1_700_000_000_000);
    assert_eq!(parse_since("2h", now).unwrap(), TimestampMs(now.0 - 7_200_000));
    assert_eq!(parse_since("2023-11-14", now).unwrap(), TimestampMs(1_699_920_000_000));
    assert!(parse_since("yesterday", now).is_err());

    let partition = Partition::new();
    let paths = [partition.path()];
    let partitions = files::find(&paths[0]).unwrap();
    let request = |since| Request { paths: &paths, partitions: &partitions, depth: Depth::Fast, since };
    assert_eq!(verify(&request(Some(TimestampMs(0)))).unwrap().segments, 2);
    assert_eq!(verify(&request(Some(TimestampMs(i64::MAX)))).unwrap(), Verified::default());
}
