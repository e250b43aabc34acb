//! Repairs of logs that were damaged by hand and at random: no good batch is lost, nothing bad stays.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use highwater_record::{Batch, BatchBuilder, Codec, NewRecord, Offset, TimestampMs};
use highwater_storage::SegmentScan;
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::files;
use super::plan::{Part, Plan, Policy, plan};
use super::{copy, in_place};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A partition `logs-2`, and the batches that were written to it: segment, position and bytes.
struct Partition {
    data: TempDir,
    batches: Vec<(usize, Range<usize>, Vec<u8>)>,
    bases: Vec<i64>,
}

impl Partition {
    /// One number per batch: its records. Batches of a segment, its segments.
    fn new(segments: &[Vec<u8>]) -> Self {
        let mut made = Self { data: TempDir::new().unwrap(), batches: Vec::new(), bases: Vec::new() };
        fs::create_dir(made.path()).unwrap();
        let mut offset = 0;
        for (number, batches) in segments.iter().enumerate() {
            made.bases.push(offset);
            let mut log = Vec::new();
            for count in batches {
                let bytes = batch(offset, *count);
                made.batches.push((number, log.len()..log.len() + bytes.len(), bytes.clone()));
                log.extend_from_slice(&bytes);
                offset += i64::from(*count);
            }
            fs::write(made.log(number), log).unwrap();
        }
        made
    }

    fn path(&self) -> PathBuf {
        self.data.path().join("logs-2")
    }

    fn log(&self, segment: usize) -> PathBuf {
        self.path().join(format!("{:020}.log", self.bases[segment]))
    }

    fn change(&self, segment: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.log(segment)).unwrap();
        change(&mut bytes);
        fs::write(self.log(segment), bytes).unwrap();
    }

    /// Makes the indexes, and the sidecars that a broker would have.
    fn complete(&self) {
        in_place::run(&self.plan(Policy::IndexesOnly), "indexes").unwrap();
        fs::remove_dir_all(self.path().join(".highwater-undo-indexes")).unwrap();
        fs::write(self.path().join("manifest"), "m").unwrap();
        fs::write(self.path().join("partition.metadata"), "version: 0\n").unwrap();
    }

    fn plan(&self, policy: Policy) -> Plan {
        planned(&self.path(), policy)
    }

    fn copy(&self, policy: Policy) -> PathBuf {
        let to = self.data.path().join("copy");
        copy::run(&[self.plan(policy)], &to).unwrap();
        to.join("logs-2")
    }
}

fn batch(offset: i64, count: u8) -> Vec<u8> {
    let codec = CODECS[offset as usize % CODECS.len()];
    let mut builder = BatchBuilder::new(codec).base_offset(Offset::new(offset).unwrap());
    for record in 0..count {
        let value = format!("value {} {}", offset + i64::from(record), "x".repeat(usize::from(record)));
        let value = Some(value.as_bytes());
        let record = NewRecord { timestamp: TimestampMs(offset), key: None, value, headers: &[] };
        builder.append(&record).unwrap();
    }
    builder.build().unwrap().to_vec()
}

fn planned(path: &Path, policy: Policy) -> Plan {
    plan(&files::find(path).unwrap()[0], policy, Offset::ZERO).unwrap()
}

/// All batches of a directory, whole and with their checksums compared; a fault is a panic.
fn batches(path: &Path) -> Vec<Batch> {
    let mut found = Vec::new();
    for segment in &files::find(path).unwrap()[0].segments {
        let mut scan = SegmentScan::open(&segment.path).unwrap();
        while let Some(batch) = scan.next() {
            found.push(scan.read(&batch.unwrap()).unwrap());
        }
    }
    found
}

fn lost(plan: &Plan) -> Vec<(i64, i64)> {
    plan.losses.iter().map(|loss| (loss.offsets.start.get(), loss.offsets.end.get())).collect()
}

fn tree(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = (fs::read_dir(path).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_good_partition_has_nothing_to_repair() {
    let partition = Partition::new(&[vec![3, 4], vec![5]]);
    assert!(partition.plan(Policy::Skip).is_due(), "the indexes are missing");
    partition.complete();

    assert!(!partition.plan(Policy::Skip).is_due());
}

#[test]
fn a_bad_batch_is_left_out_and_an_empty_one_stands_for_its_offsets() {
    let partition = Partition::new(&[vec![3, 4, 5], vec![6]]);
    let at = partition.batches[1].1.end - 1;
    partition.change(0, |bytes| bytes[at] ^= 1);

    let copy = partition.copy(Policy::Skip);

    assert_eq!(lost(&partition.plan(Policy::Skip)), [(3, 7)]);
    let offsets: Vec<_> = batches(&copy)
        .iter()
        .map(|batch| {
            (
                batch.header().base_offset.get(),
                batch.header().next_offset().get(),
                batch.header().record_count,
            )
        })
        .collect();
    assert_eq!(offsets, [(0, 3, 3), (3, 7, 0), (7, 12, 5), (12, 18, 6)]);
    assert!(!planned(&copy, Policy::Skip).is_due());
}

#[test]
fn a_torn_tail_is_dropped_and_what_was_synced_is_not_forgotten() {
    let partition = Partition::new(&[vec![3], vec![4, 5]]);
    partition.complete();
    partition.change(1, |bytes| bytes.truncate(bytes.len() - 7));

    let files = files::find(&partition.path()).unwrap();
    let dropped = plan(&files[0], Policy::Skip, Offset::ZERO).unwrap();
    let remembered = plan(&files[0], Policy::Skip, Offset::new(12).unwrap()).unwrap();

    assert!(matches!(dropped.segments[1].parts.as_slice(), [Part::Kept(_)]));
    assert_eq!(dropped.segments[1].end.get(), 7);
    assert_eq!(remembered.segments[1].end.get(), 12);
    assert_eq!(lost(&remembered), [(7, 12)]);
}

#[test]
fn a_base_offset_that_lies_makes_no_work_without_bound() {
    for segment in [0, 1] {
        let partition = Partition::new(&[vec![3, 4], vec![5, 6]]);
        let last = partition.batches[2 * segment + 1].1.clone();
        // Damage before it, so that only the lie says how much is lost.
        partition.change(segment, |bytes| {
            bytes[last.start] = 0x40;
            bytes[last.start - 1] ^= 1;
        });

        let copy = partition.copy(Policy::Skip);

        let bytes = |path: &Path| tree(path).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        assert!(bytes(&copy) < bytes(&partition.path()) + 1000);
        assert!(batches(&copy).iter().all(|batch| batch.header().next_offset().get() <= 18));
    }
}

#[test]
fn a_segment_that_is_gone_is_bridged() {
    let partition = Partition::new(&[vec![3], vec![4], vec![5]]);
    fs::remove_file(partition.log(1)).unwrap();

    let copy = partition.copy(Policy::Skip);

    assert_eq!(lost(&partition.plan(Policy::Skip)), [(3, 7)]);
    assert_eq!(batches(&copy).len(), 3);
    assert!(!planned(&copy, Policy::Skip).is_due());
}

#[test]
fn a_log_may_be_cut_at_its_first_fault_instead() {
    let partition = Partition::new(&[vec![3], vec![4, 5], vec![6]]);
    let at = partition.batches[2].1.start + 30;
    partition.change(1, |bytes| bytes[at] ^= 1);

    let copy = partition.copy(Policy::Truncate);

    assert_eq!(batches(&copy).last().unwrap().header().next_offset().get(), 7);
    assert_eq!(files::find(&copy).unwrap()[0].segments.len(), 2);
    assert!(!planned(&copy, Policy::Truncate).is_due());
}

#[test]
fn a_repair_in_place_can_be_undone_to_the_byte() {
    let partition = Partition::new(&[vec![3, 4, 5], vec![6]]);
    partition.complete();
    let at = partition.batches[1].1.start + 25;
    partition.change(0, |bytes| bytes[at] ^= 1);
    let before = tree(&partition.path());

    let undo = in_place::run(&partition.plan(Policy::Skip), "now").unwrap();

    assert!(!partition.plan(Policy::Skip).is_due());
    assert_ne!(tree(&partition.path()), before);
    assert!(!partition.path().join("manifest").exists());
    in_place::undo(&undo).unwrap();
    assert_eq!(tree(&partition.path()), before);
    assert!(!undo.exists());
}

#[test]
fn a_repaired_segment_that_has_grown_is_not_undone() {
    let partition = Partition::new(&[vec![3, 4, 5]]);
    partition.complete();
    let at = partition.batches[1].1.start + 25;
    partition.change(0, |bytes| bytes[at] ^= 1);
    let undo = in_place::run(&partition.plan(Policy::Skip), "now").unwrap();
    partition.change(0, |bytes| bytes.extend_from_slice(&batch(12, 1)));

    let error = in_place::undo(&undo).unwrap_err().to_string();

    assert!(error.contains("what was appended since would be lost"), "{error}");
    assert_eq!(batches(&partition.path()).len(), 4);
}

#[test]
fn nothing_is_replaced_while_a_broker_has_the_directory() {
    let partition = Partition::new(&[vec![3]]);
    let lock = fs::File::create(partition.data.path().join("LOCK")).unwrap();
    assert!(in_place::hold(partition.data.path()).is_ok());

    lock.try_lock().unwrap();

    assert!(in_place::hold(partition.data.path()).unwrap_err().to_string().contains("stop it first"));
}

#[test]
fn an_interrupted_repair_is_finished_or_forgotten() {
    let partition = Partition::new(&[vec![3, 4, 5], vec![6]]);
    partition.complete();
    let at = partition.batches[1].1.start + 25;
    partition.change(0, |bytes| bytes[at] ^= 1);
    let before = tree(&partition.path());
    let plan = partition.plan(Policy::Skip);

    // Before the record is durable nothing has happened.
    let undo = in_place::prepare(&plan, "now").unwrap();
    fs::rename(undo.join("undo.json"), undo.join("undo.json.tmp")).unwrap();
    in_place::finish_earlier(&partition.path()).unwrap();
    assert_eq!((tree(&partition.path()), undo.exists()), (before.clone(), false));

    // From there on each file is old or new, and the rest follows.
    let undo = in_place::prepare(&plan, "now").unwrap();
    let log = partition.log(0);
    let name = log.file_name().unwrap();
    fs::hard_link(&log, undo.join(name)).unwrap();
    fs::rename(undo.join("new").join(name), &log).unwrap();
    fs::rename(partition.path().join("manifest"), undo.join("manifest")).unwrap();
    assert_eq!(in_place::unfinished(&partition.path()).unwrap(), std::slice::from_ref(&undo));
    in_place::finish_earlier(&partition.path()).unwrap();
    assert!(!partition.plan(Policy::Skip).is_due());
    in_place::undo(&undo).unwrap();
    assert_eq!(tree(&partition.path()), before);
}

#[test]
fn zeros_behind_the_last_batch_are_room_that_was_allocated_ahead() {
    let partition = Partition::new(&[vec![3], vec![4]]);
    partition.complete();
    partition.change(1, |bytes| bytes.resize(bytes.len() + 5000, 0));

    assert!(!partition.plan(Policy::Skip).is_due());
    assert!(!partition.plan(Policy::Truncate).is_due());

    // In a sealed segment nothing is allocated ahead.
    partition.change(0, |bytes| bytes.resize(bytes.len() + 5000, 0));
    assert!(partition.plan(Policy::Skip).is_due());
    assert_eq!(batches(&partition.copy(Policy::Skip)).len(), 2);
}

#[test]
fn a_partition_that_is_named_twice_or_file_by_file_is_repaired_once() {
    let partition = Partition::new(&[vec![3, 4], vec![5], vec![6]]);
    let mut found = files::find(&partition.log(2)).unwrap();
    found.extend(files::find(partition.data.path()).unwrap());
    found.extend(files::find(&partition.log(0)).unwrap());

    let merged = super::merged(found);

    assert_eq!(merged, files::find(&partition.path()).unwrap());
}

#[test]
fn a_repair_that_fails_leaves_nothing() {
    let partition = Partition::new(&[vec![3, 4, 5]]);
    partition.complete();
    let at = partition.batches[1].1.start + 25;
    partition.change(0, |bytes| bytes[at] ^= 1);
    let plan = partition.plan(Policy::Skip);
    let undo = partition.path().join(".highwater-undo-now");
    // Somebody else's directory is not taken for one's own.
    fs::create_dir(&undo).unwrap();
    assert!(in_place::run(&plan, "now").unwrap_err().to_string().contains("exists already"));
    assert!(undo.exists());
    fs::remove_dir(&undo).unwrap();

    // The file is not any more what was planned with.
    partition.change(0, |bytes| bytes.truncate(at));
    let before = tree(&partition.path());
    let error = format!("{:#}", in_place::run(&plan, "now").unwrap_err());

    assert!(error.contains("became shorter"), "{error}");
    assert_eq!((tree(&partition.path()), undo.exists()), (before, false));
}

#[test]
fn an_undo_directory_that_is_a_link_is_left_alone() {
    let partition = Partition::new(&[vec![3]]);
    let elsewhere = TempDir::new().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), partition.path().join(".highwater-undo-x")).unwrap();

    in_place::finish_earlier(&partition.path()).unwrap();

    assert!(partition.path().join(".highwater-undo-x").exists());
}

#[test]
fn two_repairs_do_not_meet() {
    let partition = Partition::new(&[vec![3]]);
    let held = in_place::hold_partition(&partition.path()).unwrap();

    let error = in_place::hold_partition(&partition.path()).unwrap_err().to_string();

    assert!(error.contains("another repair is at work"), "{error}");
    drop(held);
    assert!(in_place::hold_partition(&partition.path()).is_ok());
}

#[test]
fn a_copy_is_not_written_into_what_it_is_of() {
    let partition = Partition::new(&[vec![3]]);
    let before = tree(&partition.path());

    for to in [partition.path(), partition.path().join("new/deeper")] {
        let error = copy::run(&[partition.plan(Policy::Skip)], &to).unwrap_err().to_string();
        assert!(error.contains("stays as it is"), "{error}");
    }
    let twice = [partition.plan(Policy::Skip), partition.plan(Policy::Skip)];
    assert!(copy::run(&twice, &partition.data.path().join("copy")).is_err());
    assert_eq!(tree(&partition.path()), before);
    assert!(!partition.data.path().join("copy").exists());
}

#[test]
fn epochs_are_those_of_the_batches_and_the_file_may_know_more() {
    let partition = Partition::new(&[vec![3, 4], vec![5]]);
    for (segment, range, _) in &partition.batches {
        partition.change(*segment, |bytes| bytes[range.start + 12..range.start + 16].fill(0));
    }
    partition.complete();
    let file = partition.path().join("leader-epoch-checkpoint");
    let is_wrong = |text: &str| {
        fs::write(&file, text).unwrap();
        partition.plan(Policy::Skip).epochs_wrong
    };

    assert!(!is_wrong("0\n1\n0 0\n"));
    // Kafka began an epoch at the end of the log when it started.
    assert!(!is_wrong("0\n2\n0 0\n2 12\n"));
    assert!(is_wrong("0\n2\n0 0\n2 7\n"), "the batch at 7 has epoch 0");
    assert!(is_wrong("0\n1\n"));

    // Of one segment nobody can tell.
    let one = plan(&files::find(&partition.log(0)).unwrap()[0], Policy::Skip, Offset::ZERO).unwrap();
    assert!(!one.epochs_wrong);

    // No CRC covers an epoch: one batch that lies is not believed.
    let at = partition.batches[1].1.start + 12;
    partition.change(0, |bytes| bytes[at] = 0x40);
    assert!(!is_wrong("0\n1\n0 0\n"));
}

#[test]
fn files_of_kafka_that_are_good_have_nothing_to_repair() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/segments");
    let mut partitions = 0;
    for version in fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        // Beside the brokers' directories are the programs that made them.
        for files in files::find(&version).into_iter().flatten().filter(|files| files.topic != "torn") {
            let plan = plan(&files, Policy::Skip, Offset::ZERO).unwrap();
            assert!(!plan.is_due() && plan.losses.is_empty(), "{}: {:?}", plan.dir.display(), plan.losses);
            partitions += 1;
        }
    }
    assert!(partitions > 40, "only {partitions}");
}

/// Something that happens to the bytes of a segment.
#[derive(Clone, Debug)]
enum Harm {
    Flip(usize, u8),
    Zero(usize, usize),
    Cut(usize, usize),
    Insert(usize, Vec<u8>),
    Shorten(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = 0_usize..4096;
    prop_oneof![
        4 => (at.clone(), 1_u8..).prop_map(|(at, mask)| Harm::Flip(at, mask)),
        1 => (at.clone(), 1_usize..300).prop_map(|(at, len)| Harm::Zero(at, len)),
        1 => (at.clone(), 1_usize..300).prop_map(|(at, len)| Harm::Cut(at, len)),
        1 => (at.clone(), vec(any::<u8>(), 1..90)).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        1 => at.prop_map(Harm::Shorten),
    ]
}

impl Harm {
    /// Does it, and says which bytes of the original it touched; of an insertion, the seam.
    fn apply(&self, bytes: &mut Vec<u8>) -> Range<usize> {
        let len = bytes.len();
        let clamp = |at: usize| at % len;
        match self {
            Self::Flip(at, mask) => {
                bytes[clamp(*at)] ^= mask;
                clamp(*at)..clamp(*at) + 1
            }
            Self::Zero(at, count) => {
                let range = clamp(*at)..(clamp(*at) + count).min(len);
                bytes[range.clone()].fill(0);
                range
            }
            Self::Cut(at, count) => {
                let range = clamp(*at)..(clamp(*at) + count).min(len);
                bytes.drain(range.clone());
                range
            }
            Self::Insert(at, more) => {
                bytes.splice(clamp(*at)..clamp(*at), more.iter().copied());
                clamp(*at)..clamp(*at)
            }
            Self::Shorten(at) => {
                bytes.truncate(clamp(*at));
                clamp(*at)..len
            }
        }
    }
}

/// Whether two batches are the same but for the leader epoch, which nothing vouches for.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a[..12] == b[..12] && a.get(16..) == b.get(16..)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_batch_that_was_not_touched_is_lost(
        segments in vec(vec(1_u8..9, 1..6), 1..4),
        harms in vec((any::<prop::sample::Index>(), harm()), 1..3),
    ) {
        let partition = Partition::new(&segments);
        // One harm per segment, so that what it touched can be told.
        let mut touched = std::collections::BTreeMap::new();
        for (which, harm) in &harms {
            let segment = which.index(segments.len());
            if touched.contains_key(&segment) {
                continue;
            }
            // No CRC covers the base offset, and behind the last batch nothing vouches for it.
            let last = &partition.batches.last().unwrap().1;
            let is_last = segment + 1 == segments.len();
            partition.change(segment, |bytes| {
                let mut harmed = bytes.clone();
                let hit = harm.apply(&mut harmed);
                // The same where harm begins before a header and ends in it, or turns two headers into one.
                let straddles = partition.batches.iter().any(|(of, batch, _)| {
                    let header = batch.start + 1..=batch.start + 21;
                    *of == segment && header.contains(&hit.end) && hit.start < batch.start
                });
                let hits_last = hit.start < last.start + 8 && hit.end.max(hit.start + 1) > last.start;
                if !(straddles || is_last && hits_last) {
                    *bytes = harmed;
                    touched.insert(segment, hit);
                }
            });
        }
        let is_whole = |segment: &usize, range: &Range<usize>| touched.get(segment).is_none_or(|hit| {
            // A seam inside a batch breaks it; zeros over zeros may not.
            range.end <= hit.start || hit.end <= range.start
        });

        let copy = partition.copy(Policy::Skip);

        let kept = batches(&copy);
        let mut end = 0;
        for batch in &kept {
            prop_assert_eq!(batch.header().base_offset.get(), end, "offsets follow each other");
            end = batch.header().next_offset().get();
            let known = partition.batches.iter().any(|(_, _, bytes)| is_same(bytes, batch.bytes()));
            prop_assert!(known || batch.header().record_count == 0, "a batch that nobody wrote");
        }
        for (segment, range, bytes) in &partition.batches {
            let is_kept = kept.iter().any(|batch| &batch.bytes()[..] == bytes.as_slice());
            prop_assert!(is_kept || !is_whole(segment, range), "batch at {:?} of segment {} is lost", range, segment);
        }
        prop_assert!(!planned(&copy, Policy::Skip).is_due(), "a second repair finds something");
    }
}
