//! Every order that memory and threads may take, tried by loom on the product's own code (`cargo xtask nightly loom`).
//!
//! A test here is a model or a control. A control takes away what the model relies on, and must fail.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_record::Offset;
use loom::cell::UnsafeCell;
use loom::thread;

use crate::files::FileLayer;
use crate::lazy_file::LazyFile;
use crate::map::PublishedEnd;
use crate::point::{LogPoint, PointCell};
use crate::pool::{Clock, FilePool, LetGo, Marks, Reopenable};
use crate::sync::{Mutex, Without, check, check_without};
use crate::{BoundedFiles, SimFiles};

/// Two appends and two readers, who touch every byte below the end that they see. Loom fails the model if a byte is
/// touched that is not known to be complete.
fn readers_of_a_growing_file() {
    let file = Arc::new((PublishedEnd::new(0), [UnsafeCell::new(()), UnsafeCell::new(())]));
    let reader = || {
        let file = Arc::clone(&file);
        thread::spawn(move || {
            let (published, bytes) = &*file;
            let first = published.get();
            bytes[..first as usize].iter().for_each(|byte| byte.with(|_| ()));
            let second = published.get();
            assert!(first <= second, "the end moved from {first} back to {second}");
            bytes[..second as usize].iter().for_each(|byte| byte.with(|_| ()));
        })
    };
    let readers = [reader(), reader()];
    let (published, bytes) = &*file;
    for (byte, end) in bytes.iter().zip(1..) {
        byte.with_mut(|_| ());
        published.publish(end);
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_reader_sees_every_byte_below_the_published_end() {
    check(readers_of_a_growing_file);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_an_end_that_releases_nothing_shows_unwritten_bytes() {
    check_without(Without::Release, readers_of_a_growing_file);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_reader_that_acquires_nothing_sees_unwritten_bytes() {
    check_without(Without::Acquire, readers_of_a_growing_file);
}

fn point(number: u64) -> LogPoint {
    LogPoint { offset: Offset::ZERO.advance(number), bytes: number * 3 }
}

/// One thread moves a point so many times, another reads it.
fn a_reader_of_a_moving_point(moves: u64, reads: usize) {
    let cell = Arc::new(PointCell::new(point(0)));
    let reader = thread::spawn({
        let cell = Arc::clone(&cell);
        move || {
            let mut before = point(0);
            for _ in 0..reads {
                let seen = cell.load();
                assert_eq!(seen.offset.get() as u64 * 3, seen.bytes, "half of a point: {seen:?}");
                assert!(before.bytes <= seen.bytes, "back from {before:?} to {seen:?}");
                before = seen;
            }
        }
    });
    (1..=moves).for_each(|number| cell.store(point(number)));
    reader.join().unwrap();
}

#[test]
fn a_point_is_read_whole_and_never_goes_back() {
    check(|| a_reader_of_a_moving_point(1, 2));
    check(|| a_reader_of_a_moving_point(2, 1));
}

#[test]
#[should_panic(expected = "half of a point")]
fn control_a_point_without_fences_is_read_in_halves() {
    check_without(Without::Fences, || a_reader_of_a_moving_point(1, 1));
}

#[test]
#[should_panic(expected = "half of a point")]
fn control_a_point_that_releases_nothing_is_read_in_halves() {
    check_without(Without::Release, || a_reader_of_a_moving_point(1, 1));
}

#[test]
#[should_panic(expected = "half of a point")]
fn control_a_point_that_acquires_nothing_is_read_in_halves() {
    check_without(Without::Acquire, || a_reader_of_a_moving_point(1, 1));
}

/// Something that a pool may let go of, with the locks of a map or a file.
#[derive(Debug, Default)]
struct Thing {
    open: Mutex<bool>,
    marks: Marks,
}

impl Thing {
    fn used(self: &Arc<Self>, clock: &Clock) {
        let mut open = self.open.lock();
        if !*open {
            clock.admit(self);
            *open = true;
        }
    }
}

impl Reopenable for Thing {
    fn marks(&self) -> &Marks {
        &self.marks
    }

    fn let_go(&self) -> LetGo {
        let Some(mut open) = self.open.try_lock() else { return LetGo::InUse };
        if std::mem::take(&mut *open) { LetGo::Done } else { LetGo::Nothing }
    }

    fn sync_and_let_go(&self) -> LetGo {
        self.let_go()
    }
}

#[test]
fn what_is_open_can_always_be_let_go_of() {
    check(|| {
        let (clock, thing) = (Arc::new(Clock::new(8)), Arc::new(Thing::default()));
        thing.used(&clock);
        let user = thread::spawn({
            let (clock, thing) = (Arc::clone(&clock), Arc::clone(&thing));
            move || thing.used(&clock)
        });
        clock.make_room(1);
        user.join().unwrap();

        clock.make_room(1);

        assert!(!*thing.open.lock(), "it is open, and the pool does not know it any more");
    });
}

/// When a writer notes that its bytes are not synced.
#[derive(Clone, Copy)]
enum Noted {
    WhileHeld,
    Afterwards,
}

/// A file is written while the pool wants its descriptor back.
fn a_file_is_closed_while_it_is_written(noted: Noted) {
    let sim = SimFiles::with_dir(Path::new("data"));
    let pool = FilePool::new(8);
    let files: Arc<dyn FileLayer> = Arc::new(BoundedFiles::new(Arc::new(sim.clone()), Arc::clone(&pool)));
    let file = Arc::new(LazyFile::new(files, PathBuf::from("data/a.log")));
    file.create_new().unwrap();
    let writer = thread::spawn({
        let file = Arc::clone(&file);
        move || {
            let handle = file.get().unwrap();
            handle.pwritev(&[IoSlice::new(b"bytes")], 0).unwrap();
            if matches!(noted, Noted::WhileHeld) {
                file.note_unsynced();
            }
            drop(handle);
            if matches!(noted, Noted::Afterwards) {
                file.note_unsynced();
            }
        }
    });
    pool.descriptors.make_room(1);
    writer.join().unwrap();
    pool.descriptors.make_room(1);

    assert_eq!(pool.descriptors_open(), 0, "nobody uses the file");
    assert_eq!(sim.sync_count(), 1, "the file was closed and not synced");
}

#[test]
fn a_file_with_unsynced_bytes_is_synced_before_it_is_closed() {
    check(|| a_file_is_closed_while_it_is_written(Noted::WhileHeld));
}

#[test]
#[should_panic(expected = "closed and not synced")]
fn control_bytes_that_are_noted_too_late_are_closed_unsynced() {
    check(|| a_file_is_closed_while_it_is_written(Noted::Afterwards));
}
