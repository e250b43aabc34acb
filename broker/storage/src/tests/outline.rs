//! What is told of a log that is not open is what opening it finds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::counting::CountingFiles;
use super::support::*;
use crate::{Log, LogCheckpoint, LogOutline, SimFiles};

/// What a checkpoint keeps of a log.
#[derive(Clone, Copy, Debug)]
struct Kept {
    known: LogCheckpoint,
    outline: LogOutline,
}

impl Kept {
    fn of(log: &Log) -> Option<Self> {
        Some(Self { known: log.checkpoint(), outline: log.outline()? })
    }

    fn is_at_rest(&self, home: &Home) -> bool {
        self.outline.is_at_rest(&*home.files, &home.dir, &self.known).unwrap()
    }

    /// Opens the log and compares.
    #[track_caller]
    fn check(&self, home: &Home) -> Log {
        let home = Home { known: Some(self.known), ..home.clone() };
        let (log, recovery) = home.open();
        let view = log.view();
        assert_eq!((recovery.bytes_scanned, recovery.needs_sync), (0, false));
        assert_eq!(view.log_start(), self.known.log_start);
        assert_eq!(view.end().offset, self.known.recovery_point);
        assert_eq!(view.latest_epoch(), self.outline.latest_epoch);
        assert_eq!(view.epoch_of(view.log_start()), self.outline.first_epoch);
        assert_eq!(view.size_bytes(), self.outline.size_bytes);
        log
    }
}

#[test]
fn a_log_at_rest_is_known_without_opening_a_file() {
    let (mut home, sim) = Home::sim();
    let mut log = home.open().0;
    append(&mut log, &records(3));
    log.roll(NOW).unwrap();
    append(&mut log, &records(2));
    sync(&mut log);
    let kept = Kept::of(&log).unwrap();
    drop(log);
    let (counting, counts) = CountingFiles::over(Arc::new(sim));
    home.files = counting;

    assert!(kept.is_at_rest(&home));

    assert_eq!((counts.opened.load(Ordering::Relaxed), counts.listed.load(Ordering::Relaxed)), (0, 0));
    kept.check(&home);
}

#[test]
fn an_append_ends_the_rest_whether_it_grows_a_segment_or_makes_one() {
    let (home, _sim) = Home::sim();
    let mut log = home.open().0;
    let never = Kept::of(&log).unwrap();
    assert!(never.is_at_rest(&home));
    append(&mut log, &records(3));
    sync(&mut log);
    assert!(!never.is_at_rest(&home));

    let kept = Kept::of(&log).unwrap();
    append(&mut log, &records(1));
    assert!(!kept.is_at_rest(&home));

    sync(&mut log);
    let kept = Kept::of(&log).unwrap();
    log.roll(NOW).unwrap();
    assert!(!kept.is_at_rest(&home));
    let kept = Kept::of(&log).unwrap();
    assert!(kept.is_at_rest(&home));
    append(&mut log, &records(1));
    assert!(!kept.is_at_rest(&home));
}

#[test]
fn the_tail_to_scan_is_measured_by_names_and_sizes() {
    let (home, _sim) = Home::sim();
    let mut log = home.open().0;
    append(&mut log, &records(3));
    sync(&mut log);
    let kept = Kept::of(&log).unwrap();
    let before = log.view().size_bytes();
    append(&mut log, &records(2));
    log.roll(NOW).unwrap();
    append(&mut log, &records(2));
    let all = log.view().size_bytes();
    drop(log);

    let measured =
        LogOutline::unsynced_bytes(Some(&kept.outline), &*home.files, &home.dir, Some(&kept.known)).unwrap();
    let everything = LogOutline::unsynced_bytes(None, &*home.files, &home.dir, None).unwrap();

    assert_eq!((measured, everything), (all - before, all));
    let (_, recovery) = Home { known: Some(kept.known), ..home }.open();
    assert_eq!(recovery.bytes_scanned, measured);
}

#[derive(Clone, Debug)]
enum Op {
    Append(u32),
    Roll,
    Sync,
    SyncFails,
    DeleteBefore(f64),
    Checkpoint,
    Close,
    Kill,
    Crash(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (1..5u32).prop_map(Op::Append),
        1 => Just(Op::Roll),
        4 => Just(Op::Sync),
        1 => Just(Op::SyncFails),
        1 => (0.0..1.0f64).prop_map(Op::DeleteBefore),
        4 => Just(Op::Checkpoint),
        2 => Just(Op::Close),
        2 => Just(Op::Kill),
        2 => any::<u64>().prop_map(Op::Crash),
    ];
    prop::collection::vec(op, 1..50)
}

struct World {
    home: Home,
    sim: SimFiles,
    log: Log,
    epoch: i32,
    kept: Option<Kept>,
}

impl World {
    fn new() -> Self {
        let (mut home, sim) = Home::sim();
        home.config.segment_bytes = 600;
        let log = home.open().0;
        Self { home, sim, log, epoch: 1, kept: None }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append(count) => {
                self.log.append(&records(count), epoch(self.epoch), NOW).unwrap();
            }
            Op::Roll => self.log.roll(NOW).unwrap(),
            Op::Sync => sync(&mut self.log),
            Op::SyncFails => self.sync_fails(),
            Op::DeleteBefore(fraction) => self.delete_before(fraction),
            Op::Checkpoint => self.keep(),
            Op::Close => {
                sync(&mut self.log);
                self.keep();
                let elsewhere = self.elsewhere();
                std::mem::replace(&mut self.log, elsewhere).close().unwrap();
                // A clean stop asks no file: the mark says that nothing was appended.
                self.reopen(true);
            }
            Op::Kill => self.reopen(false),
            Op::Crash(seed) => {
                self.sim = self.sim.crash(seed);
                self.home.files = Arc::new(self.sim.clone());
                self.reopen(false);
            }
        }
    }

    fn keep(&mut self) {
        self.home.known = Some(self.log.checkpoint());
        self.kept = Kept::of(&self.log);
    }

    /// A log of no consequence, to put in the place of one that is closed.
    fn elsewhere(&self) -> Log {
        Home::on(Arc::new(SimFiles::with_dir(Path::new("data"))), Path::new("data")).open().0
    }

    fn reopen(&mut self, clean: bool) {
        self.log = self.elsewhere();
        self.epoch += 1;
        if clean {
            assert!(self.kept.unwrap().is_at_rest(&self.home));
        }
        self.log = match self.kept.filter(|kept| kept.is_at_rest(&self.home)) {
            Some(kept) => kept.check(&self.home),
            None => {
                let mut log = self.home.open().0;
                sync(&mut log);
                log
            }
        };
        self.keep();
    }

    fn sync_fails(&mut self) {
        let Some(job) = self.log.begin_sync() else { return };
        self.epoch += 1;
        let error = std::io::Error::from_raw_os_error(libc::EIO);
        drop(self.log.finish_sync(job, Err(error), epoch(self.epoch)));
    }

    /// As the broker does it: the start is durable elsewhere before the log moves, and with the checkpoint at hand.
    fn delete_before(&mut self, fraction: f64) {
        let (start, end) = (self.log.view().log_start().get(), self.log.view().durable().offset.get());
        let to = offset(start + ((end - start) as f64 * fraction) as i64);
        self.log.delete_before(to).unwrap().run().unwrap();
        self.keep();
    }
}

proptest! {
    #[test]
    fn a_log_that_is_at_rest_opens_as_its_outline_says(ops in ops()) {
        let mut world = World::new();
        ops.iter().for_each(|op| world.apply(op));
    }
}
