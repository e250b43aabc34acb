//! Damage is contained: whatever happens to a file of a log that was closed, the log opens, serves what is whole, names
//! what is lost and goes on; and no segment is changed for it.

use std::collections::{BTreeMap, BTreeSet};

use highwater_record::{Batch, HEADER_BYTES, TimestampMs};
use proptest::prelude::*;

use super::support::*;
use crate::{FileLayer, FirstBatch, Log, ReadChunk, ReadError, SimCall, SimFault, SimFiles};

/// One change to one file, as fractions of what there is.
#[derive(Clone, Debug)]
struct Strike {
    file: f64,
    at: f64,
    bit: u8,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Flip,
    Cut,
    Remove,
}

fn strike() -> impl Strategy<Value = Strike> {
    let kind = prop_oneof![6 => Just(Kind::Flip), 3 => Just(Kind::Cut), 1 => Just(Kind::Remove)];
    (0.0..1.0f64, 0.0..1.0f64, 0..8u8, kind).prop_map(|(file, at, bit, kind)| Strike { file, at, bit, kind })
}

/// A closed log of several segments, with a manifest, and what it holds.
struct Closed {
    home: Home,
    files: SimFiles,
    batches: Vec<Batch>,
    /// Base offsets of its segments.
    bases: Vec<i64>,
}

impl Closed {
    fn new() -> Self {
        Self::indexed_every(300)
    }

    fn indexed_every(bytes: u32) -> Self {
        let (mut home, files) = Home::sim();
        home.config.segment_bytes = 1200;
        home.config.index_interval_bytes = bytes;
        let (mut log, _) = home.open();
        for n in 0..40 {
            let made = Made {
                count: 1 + n as u32 % 3,
                len: 10 + n as usize % 50,
                timestamp: 1000 + n * 7 % 40,
                producer: (n % 2 == 0).then_some((n, 0, 0)),
                fill: n as u8,
            };
            log.append(&batch(made), epoch(1 + n as i32 / 15), NOW).unwrap();
        }
        sync(&mut log);
        log.manifest_job().unwrap().run().unwrap();
        home.known = Some(log.checkpoint());
        let batches = read_all(&log, offset(0));
        log.close().unwrap();
        let listed = files.list(&home.dir).unwrap().into_iter();
        let mut bases: Vec<i64> =
            listed.filter_map(|entry| entry.name.strip_suffix(".log")?.parse().ok()).collect();
        bases.sort_unstable();
        Self { home, files, batches, bases }
    }

    fn end(&self) -> i64 {
        self.batches.last().unwrap().header().next_offset().get()
    }

    /// Strikes one of the files that `names` lets through: the file and the byte.
    fn strike(&self, strike: &Strike, names: impl Fn(&str) -> bool) -> (String, usize) {
        let listed = self.files.list(&self.home.dir).unwrap().into_iter().map(|entry| entry.name);
        let mut listed: Vec<String> = listed.filter(|name| names(name)).collect();
        listed.sort();
        let name = listed.swap_remove((listed.len() as f64 * strike.file) as usize);
        let path = self.home.path(&name);
        let mut bytes = self.files.read(&path).unwrap();
        let at = (bytes.len() as f64 * strike.at) as usize;
        match strike.kind {
            Kind::Flip => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << strike.bit),
            Kind::Cut => bytes.truncate(at),
            Kind::Remove => {
                self.files.unlink(&path).unwrap();
                return (name, 0);
            }
        }
        self.files.overwrite(&path, &bytes);
        (name, at)
    }

    /// The offsets that a strike at a byte of a segment must cost, and no others.
    fn cost(&self, name: &str, at: usize, kind: Kind) -> Vec<(i64, i64)> {
        let Some(base) = name.strip_suffix(".log").map(|digits| digits.parse::<i64>().unwrap()) else {
            return Vec::new();
        };
        let mut position = 0;
        let mut lost = Vec::new();
        for batch in self.batches.iter().filter(|batch| self.base_of(batch) == base) {
            let header = batch.header();
            let end = position + batch.bytes().len();
            let hit = match kind {
                Kind::Flip => (position..end).contains(&at),
                Kind::Cut => at < end,
                Kind::Remove => true,
            };
            if hit {
                lost.push((header.base_offset.get(), header.next_offset().get()));
            }
            position = end;
        }
        lost.first().map(|first| (first.0, lost.last().unwrap().1)).into_iter().collect()
    }

    /// Flips bits of the `number`th batch: in its length, or in its records.
    fn strike_batch(&self, number: usize, part: Part, bit: u8) {
        let base = self.base_of(&self.batches[number]);
        let before = self.batches[..number].iter().filter(|batch| self.base_of(batch) == base);
        let position: usize = before.map(|batch| batch.bytes().len()).sum();
        let at = match part {
            Part::Length => position + 11,
            Part::Records => position + HEADER_BYTES + 3,
        };
        flip(&self.home, &self.files, base, &[(at, 1 << bit)]);
    }

    fn base_of(&self, batch: &Batch) -> i64 {
        let bases = self.bases.iter().copied();
        bases.filter(|base| *base <= batch.header().base_offset.get()).max().unwrap()
    }

    /// The segments' bytes.
    fn segments(&self) -> BTreeMap<String, Vec<u8>> {
        let listed = self.files.list(&self.home.dir).unwrap().into_iter().map(|entry| entry.name);
        let logs = listed.filter(|name| name.contains(".log"));
        logs.map(|name| (name.clone(), self.files.read(&self.home.path(&name)).unwrap())).collect()
    }
}

/// Reads a log from its start to its end in pieces of about `piece` bytes. Panics unless each batch is one of `good`, byte
/// for byte; gives the ranges that reads were refused for.
fn read_checked(log: &Log, good: &[Batch], piece: u32) -> Vec<(i64, i64)> {
    let view = log.view();
    let (mut lost, mut next) = (Vec::new(), view.log_start());
    while next < view.end().offset {
        match view.read(next, piece, view.end().offset, FirstBatch::Whole) {
            Ok(chunk) => {
                assert!(chunk.next_offset > next, "nothing at {next}");
                let mut bytes = Vec::new();
                chunk.ranges.iter().for_each(|range| range.copy_to(&mut bytes).unwrap());
                for batch in split(bytes.into()) {
                    let header = batch.header();
                    let original = good.iter().find(|b| b.header().base_offset == header.base_offset);
                    assert_eq!(Some(batch.bytes()), original.map(Batch::bytes), "at {}", header.base_offset);
                    assert!(header.base_offset <= next, "{next} was skipped");
                    next = header.next_offset();
                }
                assert_eq!(next, chunk.next_offset);
            }
            Err(ReadError::Quarantined(range)) => {
                assert!(range.from <= next && next < range.to);
                lost.push((range.from.get(), range.to.get()));
                next = range.to;
            }
            Err(error) => panic!("at {next}: {error}"),
        }
    }
    lost
}

fn lost(log: &Log) -> Vec<(i64, i64)> {
    log.view().quarantined().iter().map(|range| (range.from.get(), range.to.get())).collect()
}

/// No CRC covers a leader epoch. One that agrees with neither neighbour is noticed, at the border of two epochs it may
/// not be.
fn is_epoch(closed: &Closed, name: &str, at: usize) -> bool {
    let Some(base) = name.strip_suffix(".log").map(|digits| digits.parse::<i64>().unwrap()) else {
        return false;
    };
    let mut position = 0;
    closed.batches.iter().filter(|batch| closed.base_of(batch) == base).any(|batch| {
        let start = position;
        position += batch.bytes().len();
        (start + 12..start + 16).contains(&at)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_to_any_file_costs_the_offsets_it_hit_and_nothing_else(
        strike in strike(), piece in prop_oneof![Just(1u32), Just(300), Just(1 << 20)],
    ) {
        let closed = Closed::new();
        let (name, at) = closed.strike(&strike, |_| true);
        let struck = closed.segments();
        prop_assume!(strike.kind != Kind::Flip || !is_epoch(&closed, &name, at));
        let expected = closed.cost(&name, at, strike.kind);

        let (mut log, _) = closed.home.open();

        prop_assert_eq!(log.view().end().offset.get(), closed.end());
        prop_assert_eq!(read_checked(&log, &closed.batches, piece), expected.clone(), "{} {}", name, at);
        prop_assert_eq!(lost(&log), expected.clone());
        prop_assert_eq!(closed.segments(), struck.clone());
        ask_for_times(&log);

        // It goes on, and knows the same when it is opened again.
        let appended = log.append(&records(2), epoch(9), NOW).unwrap().base_offset;
        prop_assert_eq!(appended.get(), closed.end());
        sync(&mut log);
        let mut home = closed.home.clone();
        home.known = Some(log.checkpoint());
        log.close().unwrap();
        let (log, _) = home.open();
        let mut good = closed.batches.clone();
        good.extend(read_all(&log, appended));
        prop_assert_eq!(read_checked(&log, &good, piece), expected);
        prop_assert_eq!(log.view().end().offset.get(), closed.end() + 2);
        for (name, bytes) in &struck {
            prop_assert!(closed.segments()[name].starts_with(bytes), "{} was changed", name);
        }
    }

    #[test]
    fn without_a_checkpoint_the_manifest_vouches_for_sealed_segments(strike in strike()) {
        let closed = Closed::new();
        let active = format!("{:020}.log", closed.bases.last().unwrap());
        let (name, at) = closed.strike(&strike, |name| name != active);
        prop_assume!(strike.kind != Kind::Flip || !is_epoch(&closed, &name, at));
        // Where a log begins is known from elsewhere as well.
        let known = crate::LogCheckpoint {
            log_start: offset(0), recovery_point: offset(0), high_watermark: offset(0),
        };
        let home = Home { known: Some(known), ..closed.home.clone() };
        let struck = closed.segments();
        let expected = closed.cost(&name, at, strike.kind);

        let (log, _) = home.open();

        prop_assert_eq!(read_checked(&log, &closed.batches, 300), if name == "manifest" { Vec::new() } else { expected });
        prop_assert_eq!(log.view().end().offset.get(), closed.end());
        prop_assert_eq!(closed.segments(), struck);
    }
}

/// What of a batch is struck.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Part {
    Length,
    Records,
}

/// Bits of a few batches that are neighbours, or nearly so: number, part and bit.
fn near_strikes() -> impl Strategy<Value = BTreeSet<(usize, Part, u8)>> {
    let part = || prop_oneof![Just(Part::Length), Just(Part::Records)];
    (0..38usize).prop_flat_map(move |first| {
        prop::collection::btree_set((first..40.min(first + 6), part(), 0..7u8), 2..7)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(2000, 20_000, 100_000), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn flips_in_neighbours_cost_the_batches_they_hit_whatever_is_read_first(
        strikes in near_strikes(), piece in prop_oneof![Just(1u32), Just(300), Just(1 << 20)], from in 0..70i64,
    ) {
        // Every batch but the first of a segment has an index entry.
        let closed = Closed::indexed_every(0);
        let mut expected = BTreeSet::new();
        for (number, part, bit) in strikes {
            closed.strike_batch(number, part, bit);
            let header = closed.batches[number].header();
            expected.extend(header.base_offset.get()..header.next_offset().get());
        }
        let (log, _) = closed.home.open();
        let (view, end) = (log.view(), log.view().end().offset);

        let _ = view.read(offset(from), piece, end, FirstBatch::Whole);
        ask_for_times(&log);
        let lost = read_checked(&log, &closed.batches, piece);

        prop_assert_eq!(lost.into_iter().flat_map(|(from, to)| from..to).collect::<BTreeSet<_>>(), expected);
        prop_assert_eq!(end.get(), closed.end());
    }
}

/// Every lookup by time leads to a record that can be read.
fn ask_for_times(log: &Log) {
    let (view, end) = (log.view(), log.view().end().offset);
    let times = (995..1045)
        .step_by(5)
        .map(|time| view.offset_for_time(TimestampMs(time), end, DECODE_LIMITS).unwrap());
    for found in times.chain([view.max_timestamp(end, DECODE_LIMITS).unwrap()]).flatten() {
        view.read(found.offset, 1, end, FirstBatch::Whole).unwrap();
    }
}

/// Fails the next reads of a file.
fn fail_reads(files: &SimFiles, path_end: &str, after: u32) {
    files.plan(SimFault {
        call: SimCall::Read,
        path_end: path_end.to_owned(),
        after,
        times: 1,
        errno: 5,
        bytes_written: 0,
    });
}

/// The batches of a chunk, as long as its files let themselves be read.
fn batches_of(chunk: &ReadChunk) -> usize {
    let mut bytes = Vec::new();
    chunk.ranges.iter().for_each(|range| range.copy_to(&mut bytes).unwrap());
    split(bytes.into()).len()
}

#[test]
fn what_was_checked_is_not_read_again_to_be_checked() {
    let closed = Closed::new();
    let (log, _) = closed.home.open();
    let (view, end) = (log.view(), log.view().end().offset);
    assert!(!view.is_hot(offset(70), 1000), "the active segment was not written by this process");
    read_checked(&log, &closed.batches, 1 << 20);
    let first = "00000000000000000000.log";
    let path = closed.home.path(first);
    let mut bytes = closed.files.read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;

    // Nobody would notice now: this is what tells that the check was paid once.
    closed.files.overwrite(&path, &bytes);
    view.read(offset(0), 1 << 20, end, FirstBatch::Whole).unwrap();

    assert_eq!(lost(&log), []);
    assert!(view.is_hot(offset(70), 1000), "all of the active segment was checked");
    drop(log);
    let (log, _) = closed.home.open();
    read_checked(&log, &closed.batches, 1 << 20);
    assert_eq!(lost(&log).len(), 1);
}

#[test]
fn what_this_process_appended_is_served_without_being_read() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    for _ in 0..10 {
        append(&mut log, &records(2));
    }
    let view = log.view();
    // The walk to the end of the first piece reads one window; nothing else may.
    fail_reads(&files, ".log", 2);

    let chunk = view.read(offset(0), 1 << 20, view.end().offset, FirstBatch::Whole).unwrap();

    assert!(view.is_hot(offset(0), 1000));
    assert_eq!(chunk.next_offset, offset(20));
}

#[test]
fn a_disk_error_fails_one_read_alone_and_what_came_before_it_is_served() {
    let closed = Closed::new();
    let (log, _) = closed.home.open();
    let (view, end) = (log.view(), log.view().end().offset);
    let all = batches_of(&view.read(offset(0), 1 << 20, end, FirstBatch::Whole).unwrap());
    let mut parts = BTreeSet::new();
    let mut errors = 0;
    for after in 0..60 {
        let (log, _) = closed.home.open();
        let view = log.view();
        fail_reads(&closed.files, "00000000000000000000.log", after);
        match view.read(offset(0), 1 << 20, end, FirstBatch::Whole) {
            Ok(chunk) => {
                // A plan that was not used up would hit the copy.
                closed.files.forget_plans();
                parts.insert(batches_of(&chunk));
            }
            Err(ReadError::Io(error)) => {
                assert_eq!(error.raw_os_error(), Some(5));
                errors += 1;
            }
            Err(error) => panic!("{error}"),
        }
        closed.files.forget_plans();
        assert_eq!(lost(&log), [], "an error of the disk is no damage");
        assert_eq!(read_checked(&log, &closed.batches, 300), []);
    }
    assert!(errors > 0 && parts.len() > 2 && parts.contains(&all), "{errors} errors, {parts:?} batches");
}

#[test]
fn the_manifest_names_a_segment_that_is_missing_and_one_that_was_cut() {
    for (file, strike, words) in [
        (21, Kind::Remove, "these segment files are missing: 00000000000000000021.log"),
        (0, Kind::Remove, "these segment files are missing: 00000000000000000000.log"),
        (39, Kind::Cut, "it had"),
    ] {
        let closed = Closed::new();
        let path = closed.home.path(&format!("{file:020}.log"));
        match strike {
            Kind::Remove => closed.files.unlink(&path).unwrap(),
            _ => closed.files.overwrite(&path, &[]),
        }

        let (log, _) = closed.home.open();

        let found = log.view().quarantined();
        assert_eq!(found.len(), 1);
        assert!(found[0].cause.contains(words), "{}", found[0].cause);
        assert_eq!(found[0].path, path);
    }
}

#[test]
fn a_segment_that_is_missing_is_named_without_a_manifest_too() {
    for file in [0, 21, 39] {
        let closed = Closed::new();
        closed.files.unlink(&closed.home.path("manifest")).unwrap();
        let path = closed.home.path(&format!("{file:020}.log"));
        closed.files.unlink(&path).unwrap();

        let (log, _) = closed.home.open();

        let found = log.view().quarantined();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].path, found[0].position), (&path, 0));
        assert!(found[0].cause.contains("missing"), "{}", found[0].cause);
    }
}

#[test]
fn a_manifest_costs_a_read_of_one_header_per_segment() {
    let (mut home, files) = Home::sim();
    home.config.segment_bytes = 100_000;
    let (mut log, _) = home.open();
    for _ in 0..40 {
        append(&mut log, &batch(Made { len: 20_000, ..Made::default() }));
    }
    sync(&mut log);
    let sealed = log.view().segments().len() - 1;
    assert_eq!(sealed, 9);
    fail_reads(&files, ".log", sealed as u32);

    log.manifest_job().unwrap().run().unwrap();

    assert_eq!(files.read(&home.path("manifest")).unwrap().len(), 16 + 4 + 40 * sealed);
}

#[test]
fn a_log_that_is_truncated_forgets_what_it_lost_above() {
    let closed = Closed::new();
    let path = closed.home.path(&format!("{:020}.log", 39));
    closed.files.unlink(&path).unwrap();
    let (mut log, _) = closed.home.open();
    assert_eq!(lost(&log), [(39, 55)]);

    log.truncate(offset(45), epoch(9)).unwrap();

    assert_eq!(lost(&log), [(39, 45)]);
    assert_eq!(append(&mut log, &records(1)), offset(45));
    assert!(closed.files.read(&closed.home.path("manifest")).is_none(), "it vouched for what is gone");
    assert_eq!(spans(&read_all(&log, offset(45))), [(45, 45)]);
    log.truncate(offset(39), epoch(9)).unwrap();
    assert!(!log.view().is_damaged());
}

#[test]
fn a_segment_that_the_disk_cannot_read_fails_its_own_reads_until_it_can() {
    let closed = Closed::new();
    let (unread, next) = (closed.bases[1], closed.bases[2]);
    make_unreadable(&closed.files, &format!("{unread:020}.log"));

    let (log, _) = closed.home.open();

    let view = log.view();
    let read = |from| view.read(offset(from), 1 << 20, view.end().offset, FirstBatch::Whole);
    assert_eq!(read(0).unwrap().next_offset, offset(unread));
    for from in unread..next {
        assert!(matches!(read(from), Err(ReadError::Io(_))), "{from}");
    }
    assert_eq!(read(next).unwrap().next_offset, offset(closed.end()));
    assert!(matches!(view.max_timestamp(view.end().offset, DECODE_LIMITS), Err(ReadError::Io(_))));
    assert!(view.quarantined().is_empty(), "nobody knows that anything is lost");
    closed.files.forget_plans();
    assert_eq!(spans(&read_all(&log, offset(0))), spans(&closed.batches));
}

/// A segment of ten batches of one record, each with an index entry, closed; the positions of its batches.
fn ten_batches() -> (Home, SimFiles, Vec<usize>) {
    let (mut home, files) = Home::sim();
    let (mut log, _) = home.open();
    let mut positions = vec![0];
    for fill in 0..10 {
        let made = batch(Made { len: 400, fill, ..Made::default() });
        append(&mut log, &made);
        positions.push(positions.last().unwrap() + made.bytes().len());
    }
    log.roll(NOW).unwrap();
    append(&mut log, &records(1));
    sync(&mut log);
    home.known = Some(log.checkpoint());
    log.close().unwrap();
    (home, files, positions)
}

/// Flips bits of a segment's file, by their bytes.
fn flip(home: &Home, files: &SimFiles, base: i64, bits: &[(usize, u8)]) {
    let path = home.path(&format!("{base:020}.log"));
    let mut bytes = files.read(&path).unwrap();
    bits.iter().for_each(|(at, bit)| bytes[*at] ^= bit);
    files.overwrite(&path, &bytes);
}

#[test]
fn an_index_entry_into_a_range_that_begins_before_it_leads_behind_the_range() {
    let (home, files, at) = ten_batches();
    // The records of one batch, and the length of the next.
    flip(&home, &files, 0, &[(at[5] + 100, 1), (at[6] + 11, 8)]);
    let (log, _) = home.open();
    let view = log.view();
    let read = |from| view.read(offset(from), 1 << 20, offset(11), FirstBatch::Whole);

    assert_eq!(read(0).unwrap().next_offset, offset(5));
    assert!(matches!(read(5), Err(ReadError::Quarantined(range)) if range.to == offset(7)));

    assert_eq!(read(7).unwrap().next_offset, offset(11));
}

#[test]
fn an_index_entry_that_lies_into_a_range_skips_nothing() {
    let (home, files, at) = ten_batches();
    flip(&home, &files, 0, &[(at[6] + 11, 8)]);
    let index = home.path("00000000000000000000.index");
    let mut entries = files.read(&index).unwrap();
    let entry = entries.chunks_exact(8).position(|entry| entry[..4] == 2u32.to_be_bytes()).unwrap();
    entries[8 * entry + 4..8 * entry + 8].copy_from_slice(&(at[6] as u32 + 50).to_be_bytes());
    files.overwrite(&index, &entries);
    let (log, _) = home.open();
    let view = log.view();
    let read = |from| view.read(offset(from), 1, offset(11), FirstBatch::Whole);
    assert!(matches!(view.read(offset(6), 1, offset(11), FirstBatch::Whole), Err(ReadError::Quarantined(_))));

    assert_eq!(read(3).unwrap().next_offset, offset(4));
}

#[test]
fn a_segment_in_which_a_read_finds_damage_takes_no_more_appends() {
    let (mut home, files) = Home::sim();
    let (mut log, _) = home.open();
    for fill in 0..5 {
        append(&mut log, &batch(Made { len: 400, fill, ..Made::default() }));
    }
    sync(&mut log);
    home.known = Some(log.checkpoint());
    log.close().unwrap();
    flip(&home, &files, 0, &[(100, 1)]);
    let path = home.path("00000000000000000000.log");
    let struck = files.read(&path).unwrap();
    let (mut log, _) = home.open();
    assert!(matches!(
        log.view().read(offset(0), 1, offset(5), FirstBatch::Whole),
        Err(ReadError::Quarantined(_))
    ));

    append(&mut log, &records(1));
    append(&mut log, &records(1));
    sync(&mut log);

    assert!(files.read(&path).unwrap() == struck, "the file was changed");
    assert_eq!(log.view().segments().len(), 2);
    assert_eq!(spans(&read_all(&log, offset(1))), (1..7).map(|n| (n, n)).collect::<Vec<_>>());
}

/// Every read of a file fails.
fn make_unreadable(files: &SimFiles, path_end: &str) {
    files.plan(SimFault {
        call: SimCall::Read,
        path_end: path_end.to_owned(),
        after: 0,
        times: u32::MAX,
        errno: 5,
        bytes_written: 0,
    });
}

#[test]
fn a_log_whose_last_records_cannot_be_read_takes_more_and_knows_epochs_and_producers_by_their_files() {
    for missing in ["nothing", "producer-state", "leader-epoch-checkpoint"] {
        let (mut home, files) = Home::sim();
        let (mut log, _) = home.open();
        let sent = |sequence| batch(Made { producer: Some((7, 0, sequence)), ..Made::default() });
        for sequence in 0..2 {
            log.append(&sent(sequence), epoch(1 + sequence), NOW).unwrap();
            // The last segment is empty, as the clock leaves that of a quiet log.
            log.roll(NOW).unwrap();
        }
        sync(&mut log);
        home.known = Some(log.checkpoint());
        log.close().unwrap();
        let _ = files.unlink(&home.path(missing));
        make_unreadable(&files, "00000000000000000001.log");

        let (mut log, _) = home.open();

        let view = log.view();
        let read = |from| view.read(offset(from), 1, offset(2), FirstBatch::Whole);
        assert_eq!(read(0).unwrap().next_offset, offset(1), "{missing}");
        assert!(matches!(read(1), Err(ReadError::Io(_))), "{missing}");
        let known = if missing == "leader-epoch-checkpoint" { 1 } else { 2 };
        assert_eq!(view.latest_epoch(), Some(epoch(known)), "{missing}");
        if missing != "producer-state" {
            let again = log.append(&sent(1), epoch(3), NOW).unwrap();
            assert_eq!((again.duplicate, again.base_offset), (true, offset(1)), "{missing}");
        }
        assert_eq!(log.append(&records(1), epoch(3), NOW).unwrap().base_offset, offset(2), "{missing}");
    }
}

#[test]
fn a_base_offset_that_seems_to_end_a_segment_hides_nothing_behind_it() {
    let closed = Closed::new();
    let name = "00000000000000000021.log";
    let path = closed.home.path(name);
    let mut bytes = closed.files.read(&path).unwrap();
    let own = closed.batches.iter().filter(|batch| closed.base_of(batch) == 21);
    let before = own.take_while(|batch| batch.header().base_offset < offset(36));
    let struck = before.map(|batch| batch.bytes().len()).sum::<usize>();
    // One record at 36 says that it is at 38, where the segment ends. Behind it are 37 and 38.
    bytes[struck + 7] ^= 2;
    closed.files.overwrite(&path, &bytes);

    let (log, _) = closed.home.open();

    assert_eq!(read_checked(&log, &closed.batches, 1), [(36, 37)]);
    assert_eq!(lost(&log), [(36, 37)]);
}
