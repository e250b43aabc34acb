//! Random operations against a list of batches that is right by its simplicity.
//!
//! Checked after each step: what can be read is what was appended, in order, at its offsets; nothing that a sync
//! covered is lost, whatever crash comes; opening again gives the same; lookups by offset and time agree.

use std::path::Path;
use std::sync::Arc;

use highwater_record::{Batch, TimestampMs};
use proptest::prelude::*;

use super::support::*;
use crate::{
    AppendError, CutError, FileLayer, FirstBatch, Log, LogCheckpoint, SimCall, SimFault, SimFiles,
    SyncOutcome,
};

#[derive(Clone, Debug)]
enum Op {
    Append {
        count: u32,
        len: usize,
        timestamp: i64,
        producer: Option<i64>,
    },
    /// Sends one of the last five batches of a producer again.
    Resend {
        producer: i64,
        back: usize,
    },
    Roll,
    Sync,
    /// A sync during which a batch is appended.
    SyncWhileAppending,
    Checkpoint,
    Manifest,
    Truncate {
        fraction: f64,
    },
    DeleteBefore {
        fraction: f64,
        remove: bool,
    },
    Close,
    Kill,
    Crash {
        seed: u64,
        again: Option<u64>,
    },
    SyncFails {
        directory: bool,
    },
    WriteFails {
        bytes_written: usize,
    },
    DiskFull,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let append = (1..5u32, 1..120usize, 0..60i64, prop::option::of(1..3i64))
        .prop_map(|(count, len, timestamp, producer)| Op::Append { count, len, timestamp, producer });
    let fraction = 0.0..1.0f64;
    let op = prop_oneof![
        24 => append,
        4 => (1..3i64, 0..5usize).prop_map(|(producer, back)| Op::Resend { producer, back }),
        1 => Just(Op::Roll),
        5 => Just(Op::Sync),
        2 => Just(Op::SyncWhileAppending),
        3 => Just(Op::Checkpoint),
        2 => Just(Op::Manifest),
        1 => fraction.clone().prop_map(|fraction| Op::Truncate { fraction }),
        1 => (fraction, any::<bool>()).prop_map(|(fraction, remove)| Op::DeleteBefore { fraction, remove }),
        2 => Just(Op::Close),
        1 => Just(Op::Kill),
        4 => (any::<u64>(), prop::option::of(any::<u64>())).prop_map(|(seed, again)| Op::Crash { seed, again }),
        1 => any::<bool>().prop_map(|directory| Op::SyncFails { directory }),
        1 => (0..200usize).prop_map(|bytes_written| Op::WriteFails { bytes_written }),
        1 => Just(Op::DiskFull),
    ];
    prop::collection::vec(op, 1..60)
}

/// A batch as it must come back.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    base: i64,
    made: Made,
    epoch: i32,
}

impl Kept {
    fn end(&self) -> i64 {
        self.base + i64::from(self.made.count)
    }
}

struct World {
    home: Home,
    sim: Option<SimFiles>,
    log: Option<Log>,
    /// Everything that is in the log, and what retention took.
    history: Vec<Kept>,
    /// Histories that were cut. A crash may bring them back as far as they agree with what was acknowledged since.
    ghosts: Vec<Vec<Kept>>,
    start: i64,
    /// Everything below must survive.
    acknowledged: i64,
    epoch: i32,
    fill: u8,
    /// Added to producers' numbers.
    producers_from: i64,
}

impl World {
    fn new(mut home: Home, sim: Option<SimFiles>) -> Self {
        home.config.segment_bytes = 1500;
        home.config.index_interval_bytes = 150;
        home.config.index_bytes_max = 120;
        let (log, _) = home.open();
        Self {
            home,
            sim,
            log: Some(log),
            history: Vec::new(),
            ghosts: Vec::new(),
            start: 0,
            acknowledged: 0,
            epoch: 1,
            fill: 0,
            producers_from: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn end(&self) -> i64 {
        self.history.last().map_or(0, Kept::end).max(self.start)
    }

    fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::Append { count, len, timestamp, producer } => {
                let made = self.made(count, len, timestamp, producer);
                self.append(made);
            }
            Op::Resend { producer, back } => self.resend(producer, back),
            Op::Roll => self.log().roll(NOW).unwrap(),
            Op::Sync => self.sync(false),
            Op::SyncWhileAppending => self.sync(true),
            Op::Checkpoint => self.home.known = Some(self.checkpoint()),
            Op::Manifest => {
                let job = self.log().manifest_job();
                job.into_iter().for_each(|job| job.run().unwrap());
            }
            Op::Truncate { fraction } => self.truncate(fraction),
            Op::DeleteBefore { fraction, remove } => self.delete_before(fraction, remove),
            Op::Close => self.close(),
            Op::Kill => self.reopen(),
            Op::Crash { seed, again } => self.crash(seed, again),
            Op::SyncFails { directory } => self.sync_fails(directory),
            Op::WriteFails { bytes_written } => self.write_fails(bytes_written),
            Op::DiskFull => self.disk_full(),
        }
        self.check();
    }

    fn made(&mut self, count: u32, len: usize, timestamp: i64, producer: Option<i64>) -> Made {
        self.fill = self.fill.wrapping_add(1);
        let producer = producer.map(|id| {
            let id = id + self.producers_from;
            let last = self.history.iter().rev().find(|kept| kept.made.producer.is_some_and(|p| p.0 == id));
            (id, 0, last.map_or(0, |kept| kept.made.producer.unwrap().2 + kept.made.count as i32))
        });
        Made { count, len, fill: self.fill, timestamp, producer }
    }

    fn append(&mut self, made: Made) {
        let (end, number) = (self.end(), self.epoch);
        let appended = self.log().append(&batch(made), epoch(number), NOW).unwrap();
        assert!(!appended.duplicate);
        assert_eq!(appended.base_offset.get(), end);
        self.keep(made, end);
    }

    fn keep(&mut self, made: Made, base: i64) {
        let epoch = self.log().view().latest_epoch().unwrap().get();
        self.history.push(Kept { base, made, epoch });
    }

    fn resend(&mut self, producer: i64, back: usize) {
        let sent =
            self.history.iter().rev().filter(|kept| kept.made.producer.is_some_and(|p| p.0 == producer));
        let Some(kept) = sent.clone().nth(back).cloned() else { return };
        if kept.base < self.start {
            // Retention may have taken the memory along with the batch.
            return;
        }
        let number = self.epoch;
        let appended = self.log().append(&batch(kept.made), epoch(number), NOW).unwrap();
        assert!(appended.duplicate, "{kept:?} was appended twice");
        assert_eq!(appended.base_offset.get(), kept.base);
        assert_eq!(appended.last_offset.get(), kept.end() - 1);
    }

    fn sync(&mut self, appending: bool) {
        let Some(job) = self.log().begin_sync() else { return };
        assert!(self.log().begin_sync().is_none(), "two jobs at once");
        let target = job.target().offset.get();
        assert_eq!(target, self.end());
        if appending {
            let made = self.made(2, 30, 20, Some(1));
            self.append(made);
        }
        let result = job.run();
        let next = epoch(self.epoch + 1);
        let outcome = self.log().finish_sync(job, result, next);
        assert!(
            matches!(outcome, SyncOutcome::Durable(point) if point.offset.get() == target),
            "{outcome:?}"
        );
        self.acknowledged = target;
    }

    fn checkpoint(&mut self) -> LogCheckpoint {
        self.log().checkpoint()
    }

    /// Something between the log's start and its end, at the start of a batch.
    fn pick(&self, fraction: f64) -> i64 {
        let in_log: Vec<i64> =
            self.history.iter().map(|k| k.base).filter(|base| *base >= self.start).collect();
        if in_log.is_empty() { self.end() } else { in_log[(in_log.len() as f64 * fraction) as usize] }
    }

    fn truncate(&mut self, fraction: f64) {
        let to = self.pick(fraction);
        if let Some(known) = &mut self.home.known {
            known.recovery_point = known.recovery_point.min(offset(to));
        }
        self.epoch += 1;
        let number = self.epoch;
        let end = self.log().truncate(offset(to), epoch(number)).unwrap();
        assert_eq!(end.offset.get(), to);
        self.lose_from(to);
        self.acknowledged = self.acknowledged.min(to);
    }

    fn lose_from(&mut self, to: i64) {
        self.ghosts.push(self.history.clone());
        self.history.retain(|kept| kept.base < to);
    }

    fn delete_before(&mut self, fraction: f64, remove: bool) {
        let to = self.pick(fraction);
        let job = self.log().delete_before(offset(to)).unwrap();
        self.start = self.start.max(to);
        // The caller makes the start durable before files go.
        let start = offset(self.start);
        let known = self.home.known.get_or_insert(LogCheckpoint {
            log_start: start,
            recovery_point: offset(0),
            high_watermark: offset(0),
        });
        known.log_start = start;
        if remove {
            job.run().unwrap();
        }
    }

    fn close(&mut self) {
        self.home.known = Some(self.checkpoint());
        self.log.take().unwrap().close().unwrap();
        self.reopen();
    }

    fn reopen(&mut self) {
        self.log = None;
        let (log, recovery) = self.home.open();
        assert_eq!(recovery.needs_sync, log.view().durable().offset < log.view().end().offset);
        self.log = Some(log);
        self.epoch += 1;
    }

    fn crash(&mut self, seed: u64, again: Option<u64>) {
        let Some(sim) = &self.sim else { return self.reopen() };
        self.log = None;
        let mut files = sim.crash(seed);
        if let Some(seed) = again {
            self.home.files = Arc::new(files.clone());
            let end = self.home.open().0.view().end().offset;
            files = files.crash(seed);
            self.home.files = Arc::new(files.clone());
            let twice = self.home.open().0;
            assert_eq!(twice.view().end().offset, end, "recovery is not idempotent");
            files = files.crash(seed ^ 1);
        }
        self.home.files = Arc::new(files.clone());
        self.sim = Some(files);
        self.reopen();
        let end = self.log().view().end().offset.get();
        assert!(end >= self.acknowledged, "{} was acknowledged, {end} is left", self.acknowledged);
        let found: Vec<Kept> = self.read();
        let mut candidates = vec![self.history.clone()];
        candidates.extend(self.ghosts.iter().cloned());
        let acknowledged = |history: &[Kept]| -> Vec<Kept> {
            let in_log = |kept: &&Kept| kept.end() > self.start && kept.end() <= self.acknowledged;
            history.iter().filter(in_log).cloned().collect()
        };
        let promised = acknowledged(&self.history);
        candidates.retain(|history| acknowledged(history) == promised);
        if found.is_empty() && candidates.len() > 1 {
            // Nothing to be read says which history is there, so nothing says what its producers sent last.
            self.producers_from += 10;
        }
        let survivor = candidates.into_iter().find(|history| {
            let expected: Vec<&Kept> =
                history.iter().filter(|kept| kept.end() > self.start && kept.end() <= end).collect();
            expected.len() == found.len() && expected.iter().zip(&found).all(|(a, b)| **a == *b)
        });
        self.history = survivor.unwrap_or_else(|| panic!("{found:?} was never the log's end {end}"));
        self.history.retain(|kept| kept.end() <= end);
    }

    /// Where a failure cuts the log, if it may.
    fn after_failure(&mut self, resumed: Result<(), CutError>) {
        match resumed {
            Ok(()) => {
                let end = self.log().view().end().offset.get();
                assert!(end >= self.acknowledged, "cut to {end}, {} was acknowledged", self.acknowledged);
                self.lose_from(end);
            }
            Err(CutError::Unsynced { .. }) => {
                let refused = self.log().append(&records(1), epoch(99), NOW);
                assert!(matches!(refused, Err(AppendError::Failed)));
                self.reopen();
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn sync_fails(&mut self, directory: bool) {
        let Some(sim) = self.sim.clone() else { return };
        let made = self.made(1, 50, 30, None);
        self.append(made);
        self.log().roll(NOW).unwrap();
        let made = self.made(1, 50, 30, None);
        self.append(made);
        let (call, path_end) =
            if directory { (SimCall::SyncDir, "topic-0") } else { (SimCall::Sync, ".log") };
        sim.plan(SimFault {
            call,
            path_end: path_end.into(),
            after: 0,
            times: 1,
            errno: libc::EIO,
            bytes_written: 0,
        });
        self.epoch += 1;
        let Some(job) = self.log().begin_sync() else { panic!("appended bytes need no sync") };
        let result = job.run();
        let next = epoch(self.epoch);
        let SyncOutcome::Failed { resumed, .. } = self.log().finish_sync(job, result, next) else {
            panic!("the failed sync was taken for a good one");
        };
        let outcome =
            if resumed { Ok(()) } else { self.log().resume(next, highwater_record::Offset::ZERO).map(drop) };
        self.after_failure(outcome);
    }

    fn write_fails(&mut self, bytes_written: usize) {
        let Some(sim) = self.sim.clone() else { return };
        sim.plan(SimFault {
            call: SimCall::Write,
            path_end: ".log".into(),
            after: 0,
            times: 1,
            errno: libc::EIO,
            bytes_written,
        });
        let made = self.made(1, 100, 30, None);
        let number = self.epoch;
        let refused = self.log().append(&batch(made), epoch(number), NOW);
        assert!(matches!(refused, Err(AppendError::Io(_))), "{refused:?}");
        assert!(self.log().begin_sync().is_none());
        self.epoch += 1;
        let next = epoch(self.epoch);
        let resumed = self.log().resume(next, highwater_record::Offset::ZERO).map(drop);
        self.after_failure(resumed);
    }

    fn disk_full(&mut self) {
        let Some(sim) = self.sim.clone() else { return };
        sim.set_capacity(Some(0));
        let made = self.made(1, 100, 30, Some(1));
        let number = self.epoch;
        let refused = self.log().append(&batch(made), epoch(number), NOW);
        assert!(matches!(refused, Err(AppendError::NoSpace(_))), "{refused:?}");
        sim.set_capacity(None);
        self.check();
        self.append(made);
    }

    fn read(&mut self) -> Vec<Kept> {
        let log = self.log.as_ref().unwrap();
        read_all(log, log.view().log_start()).iter().map(as_kept).collect()
    }

    fn check(&mut self) {
        let view = self.log().view();
        assert_eq!(view.log_start().get(), self.start);
        assert_eq!(view.end().offset.get(), self.end());
        assert!(view.durable().offset <= view.end().offset);
        let in_log: Vec<Kept> = self.history.iter().filter(|kept| kept.end() > self.start).cloned().collect();
        assert_eq!(self.read(), in_log);
        self.check_times(&in_log);
        self.check_reads(&in_log);
    }

    fn check_times(&mut self, in_log: &[Kept]) {
        let view = self.log().view();
        for wanted in [0, 13, 29, 47, 59, 60] {
            let found = view.offset_for_time(TimestampMs(wanted), view.end().offset, DECODE_LIMITS).unwrap();
            let expected = in_log.iter().find(|kept| kept.made.timestamp >= wanted);
            assert_eq!(
                found.map(|found| (found.offset.get(), found.timestamp.0)),
                expected.map(|kept| (kept.base.max(self.start), kept.made.timestamp)),
                "time {wanted}"
            );
        }
        let largest = in_log.iter().map(|kept| kept.made.timestamp).max();
        let found = view.max_timestamp(view.end().offset, DECODE_LIMITS).unwrap();
        assert_eq!(found.map(|found| found.timestamp.0), largest);
    }

    fn check_reads(&mut self, in_log: &[Kept]) {
        let view = self.log().view();
        let middle = in_log.get(in_log.len() / 2).map_or(self.start, |kept| kept.base);
        for (from, until, bytes_max) in
            [(self.start, middle, 500), (middle, self.end(), 200), (middle, self.end(), u32::MAX)]
        {
            let from = from.max(self.start);
            let chunk = view.read(offset(from), bytes_max, offset(until), FirstBatch::Whole).unwrap();
            let mut bytes = Vec::new();
            chunk.ranges.iter().for_each(|range| range.copy_to(&mut bytes).unwrap());
            let found: Vec<Kept> = split(bytes.into()).iter().map(as_kept).collect();
            let mut room = i64::from(bytes_max);
            let mut expected = Vec::new();
            for kept in in_log.iter().filter(|kept| kept.end() > from && kept.end() <= until) {
                room -= i64::from(batch(kept.made).header().size_bytes);
                if room < 0 && !expected.is_empty() {
                    break;
                }
                expected.push(kept.clone());
            }
            assert_eq!(found, expected, "read {from} to {until}, {bytes_max} bytes");
        }
    }
}

/// What a batch from the log was made of.
fn as_kept(batch: &Batch) -> Kept {
    let header = batch.header();
    let value = batch.records().unwrap().next().unwrap().unwrap().value.unwrap();
    let producer = header.producer.map(|p| (p.id.get(), p.epoch.get(), p.base_sequence.unwrap().get()));
    let made = Made {
        count: header.record_count,
        len: value.len(),
        fill: value[0],
        timestamp: header.max_timestamp.0,
        producer,
    };
    Kept { base: header.base_offset.get(), made, epoch: header.leader_epoch.unwrap().get() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(300, 20_000, 200_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_on_files_that_crash_and_fail_agrees_with_the_model(ops in ops()) {
        let (home, sim) = Home::sim();
        let mut world = World::new(home, Some(sim));
        ops.iter().for_each(|op| world.apply(op));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(40, 1_000, 10_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_on_real_files_agrees_with_the_model(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(Home::disk(dir.path()), None);
        ops.iter().for_each(|op| world.apply(op));
    }
}

#[test]
fn the_simulated_crash_keeps_what_was_synced_and_loses_names_that_were_not() {
    use std::io::IoSlice;

    use crate::Access;

    let files = SimFiles::with_dir(Path::new("data"));
    let path = Path::new("data/file");
    let file = files.open(path, Access::CreateNew).unwrap();
    file.pwritev(&[IoSlice::new(&[1; 2000])], 0).unwrap();
    file.fdatasync().unwrap();
    assert!((0..50).any(|seed| files.crash(seed).read(path).is_none()));
    files.sync_dir(Path::new("data")).unwrap();
    file.pwritev(&[IoSlice::new(&[2; 2000])], 2000).unwrap();

    let images: Vec<Vec<u8>> = (0..50).map(|seed| files.crash(seed).read(path).unwrap()).collect();

    assert!(images.iter().all(|bytes| bytes[..2000] == [1; 2000]));
    assert!(images.iter().any(|bytes| bytes.len() == 2000));
    assert!(images.iter().any(|bytes| bytes.len() == 4000 && bytes[2000..] == [2; 2000]));
    assert!(images.iter().any(|bytes| bytes[2000..].contains(&0) && bytes[2000..].contains(&2)));
}
