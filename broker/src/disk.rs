//! Whether the disk has room and whether it answers, as states that are entered once and left by themselves (ADR 20).
//!
//! *Full*: below a reserve, or once a write found no space, records of clients are refused before they are tried. What the
//! broker writes for itself may use the reserve, so that deletions and commits go on. *Slow*: a write or a sync has been
//! under way for seconds. Once a second somebody looks; an append costs no system call for it. Knows no protocol and
//! no log; time is an argument.

mod room;
mod under_way;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use highwater_storage::{FileLayer, Space};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::memory::Bytes;
use crate::metrics;

use room::{Cause, Room};
pub use room::{DiskReserve, DiskReserveError};
pub(crate) use under_way::UnderWay;

/// How often somebody looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// A write or a sync that takes longer says that the disk does not answer.
const SLOW_AFTER: Duration = Duration::from_secs(3);

/// The disk that the data directory is on.
pub(crate) struct Disk {
    path: PathBuf,
    under_way: Arc<UnderWay>,
    state: Mutex<State>,
    /// Whether records of clients are refused: what an append looks at.
    refuses: AtomicBool,
    /// Whether it matters that an append succeeds.
    awaits_success: AtomicBool,
    /// How many bytes may be appended before the room is measured sooner than planned.
    margin_bytes: AtomicI64,
    sooner: Notify,
}

struct State {
    room: Room,
    /// How long the oldest write or sync has been under way, if that is too long.
    stalled: Option<Duration>,
}

/// What is told of the disk.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct DiskReading {
    /// Free bytes, where that is known.
    pub(crate) free_bytes: Option<u64>,
    /// Why it is full, if it is.
    pub(crate) full: Option<String>,
    /// Why it is slow, if it is.
    pub(crate) slow: Option<String>,
    /// How long the oldest write or sync has been under way, if that is too long.
    pub(crate) stalled: Duration,
}

impl Disk {
    /// The disk of the data directory `path`; `reserve` stays free of clients' records.
    pub(crate) fn new(path: PathBuf, reserve: Option<DiskReserve>) -> Self {
        let state = State { room: Room::new(reserve), stalled: None };
        Self {
            path,
            under_way: Arc::default(),
            state: Mutex::new(state),
            refuses: AtomicBool::new(false),
            awaits_success: AtomicBool::new(false),
            margin_bytes: AtomicI64::new(0),
            sooner: Notify::new(),
        }
    }

    /// Where writes and syncs are noted while they are under way.
    pub(crate) const fn under_way(&self) -> &Arc<UnderWay> {
        &self.under_way
    }

    /// Why records of clients are refused, if they are.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.refuses.load(Ordering::Relaxed).then(|| self.sentence(&self.state.lock().room))
    }

    /// Counts what is about to be appended.
    pub(crate) fn count(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.margin_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before > 0 && before <= bytes {
            self.sooner.notify_one();
        }
    }

    /// Takes note of a write that found no space; what to tell whoever wanted it.
    pub(crate) fn no_space(&self, now: Instant) -> String {
        self.change(|room| room.found_none(now));
        self.sooner.notify_one();
        self.sentence(&self.state.lock().room)
    }

    /// Takes note of an append that found space.
    pub(crate) fn found_space(&self) {
        if self.awaits_success.load(Ordering::Relaxed) {
            self.change(|room| {
                room.found_some();
                false
            });
        }
    }

    /// Whether `bytes` more leave the reserve free, as far as is known.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.state.lock().room.fits(bytes)
    }

    /// Says which flag is the cause if the reserve that was asked for is more than there is.
    pub(crate) fn check_reserve(&self) {
        let state = self.state.lock();
        if state.room.asks_too_much() {
            tracing::error!(
                path = %self.path.display(),
                "no record is taken for now: --disk-reserve {} is more than the {} that are free; a smaller one would do",
                Bytes(state.room.reserve_bytes()),
                Bytes(state.room.free_bytes().unwrap_or_default())
            );
        }
    }

    /// Asks the file system how much room there is. May wait for the disk.
    pub(crate) fn measure(&self, files: &dyn FileLayer, now: Instant) {
        if let Some(space) = self.space(files) {
            self.change(|room| room.measured(space, now));
        }
    }

    /// Whether there is less than the reserve.
    fn is_short(&self, files: &dyn FileLayer) -> bool {
        let reserve = self.state.lock().room.reserve_bytes();
        self.space(files).is_some_and(|space| space.free_bytes < reserve)
    }

    fn space(&self, files: &dyn FileLayer) -> Option<Space> {
        files.space(&self.path).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "cannot ask how much space is free");
            None
        })
    }

    /// Says it once if the room is another one now.
    fn change(&self, change: impl FnOnce(&mut Room) -> bool) {
        let mut state = self.state.lock();
        let changed = change(&mut state.room);
        self.refuses.store(state.room.refuses(), Ordering::Relaxed);
        self.awaits_success.store(state.room.awaits_success(), Ordering::Relaxed);
        self.margin_bytes.store(state.room.margin_bytes(), Ordering::Relaxed);
        if !changed {
            return;
        }
        if state.room.is_full() {
            tracing::error!("{}", self.sentence(&state.room));
        } else {
            let free = Bytes(state.room.free_bytes().unwrap_or_default());
            tracing::warn!(path = %self.path.display(), %free, "there is space again; records are taken");
        }
    }

    fn sentence(&self, room: &Room) -> String {
        let path = self.path.display();
        let free = Bytes(room.free_bytes().unwrap_or_default());
        let (reserve, resume) = (Bytes(room.reserve_bytes()), Bytes(room.resume_bytes()));
        let why = match room.cause() {
            _ if room.is_below_reserve() => {
                format!("{free} are free, and below {reserve} (--disk-reserve) records are refused")
            }
            // What was measured before it was full is not worth telling.
            None | Some(Cause::Unknown) => "a write found no space".to_owned(),
            Some(Cause::Full) => format!("a write found no space, with {free} free by its own account"),
            Some(Cause::Untold) => {
                format!("a write found no space although {free} are free, as with a quota")
            }
        };
        let then = match room.total_bytes().filter(|total| *total < room.resume_bytes()) {
            _ if room.reserve_bytes() == 0 => "without --disk-reserve every write is tried".to_owned(),
            _ if room.cause() == Some(Cause::Untold) => "it tries records again by itself".to_owned(),
            Some(total) => {
                format!("with {} in all it takes records only with a smaller --disk-reserve", Bytes(total))
            }
            None => format!(
                "with {resume} free, a little more than --disk-reserve, it takes records again by itself"
            ),
        };
        format!(
            "the disk of {path} is full: {why}. Reads go on, and deletions and commits as long as they find space. Delete \
             topics or records, or add space: {then}"
        )
    }

    /// Looks how long the oldest write or sync has been under way, and says it once if that is too long or no longer is.
    /// True while it is.
    pub(crate) fn look(&self, now: Instant) -> bool {
        let age = self.under_way.oldest(now).filter(|age| *age >= SLOW_AFTER);
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.stalled, age);
        let path = self.path.display();
        match (before, age) {
            (None, Some(age)) => tracing::error!("{}", slow_sentence(&path, age)),
            (Some(before), None) => tracing::warn!(
                "the disk of {path} answers again; the oldest write or sync was under way for {:.1} s or more",
                before.as_secs_f64()
            ),
            _ => {}
        }
        age.is_some()
    }

    /// What is to be told of it.
    pub(crate) fn reading(&self) -> DiskReading {
        let state = self.state.lock();
        let room = &state.room;
        DiskReading {
            free_bytes: room.free_bytes(),
            full: room.is_full().then(|| self.sentence(room)),
            slow: state.stalled.map(|age| slow_sentence(&self.path.display(), age)),
            stalled: state.stalled.unwrap_or_default(),
        }
    }
}

fn slow_sentence(path: &dyn std::fmt::Display, age: Duration) -> String {
    format!(
        "the disk of {path} does not answer: a write or a sync has been under way for {:.1} s. Acknowledgements wait for it, \
         each as long as its client allows; reads of what is in memory and groups' heartbeats go on",
        age.as_secs_f64()
    )
}

/// Measures the room, after logs have given back what they reserved if it is short.
fn measure(broker: &Broker) {
    if broker.disk.is_short(&*broker.files) {
        for topic in broker.topics.all() {
            topic.partitions.iter().for_each(|partition| partition.give_back_space());
        }
    }
    broker.disk.measure(&*broker.files, Instant::now());
}

/// Looks at the disk until the broker stops. Never waits for it.
pub(crate) async fn run(broker: Arc<Broker>) {
    let mut stopping = broker.stopping();
    let mut measuring: Option<JoinHandle<()>> = None;
    loop {
        // One at a time: on a disk that hangs, asking may hang as well.
        if measuring.as_ref().is_none_or(JoinHandle::is_finished) {
            let broker = Arc::clone(&broker);
            measuring = Some(tokio::task::spawn_blocking(move || measure(&broker)));
        }
        if broker.disk.look(Instant::now()) {
            // From here on appends keep off the reactor threads, until one was quick.
            broker.append_pace.observe(SLOW_AFTER);
        }
        metrics::set_disk(&broker.disk.reading());
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = broker.disk.sooner.notified() => {}
            () = stopping.stopped() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_both_numbers_the_setting_the_path_and_what_helps() {
        let disk = Disk::new("/data".into(), Some("1MiB".parse().unwrap()));
        assert_eq!(disk.refusal(), None);

        let space = Space { free_bytes: 3 << 18, total_bytes: 8 << 20 };
        disk.change(|room| room.measured(space, Instant::now()));

        let refusal = disk.refusal().unwrap();
        for part in ["/data", "768 KiB", "1 MiB (--disk-reserve)", "Delete topics or records", "1.1 MiB free"]
        {
            assert!(refusal.contains(part), "{part:?} is not in {refusal:?}");
        }
        assert_eq!(disk.reading().full, Some(refusal));
    }

    #[test]
    fn a_reserve_that_is_larger_than_the_disk_is_named_as_the_cause() {
        let disk = Disk::new("/data".into(), Some("500GiB".parse().unwrap()));

        disk.change(|room| {
            room.measured(Space { free_bytes: 47 << 30, total_bytes: 60 << 30 }, Instant::now())
        });

        let refusal = disk.refusal().unwrap();
        assert!(
            refusal.contains("with 60 GiB in all it takes records only with a smaller --disk-reserve"),
            "{refusal}"
        );
        assert!(!refusal.contains("562"), "{refusal}");
    }

    #[test]
    fn a_write_that_finds_no_space_tells_nothing_that_was_measured_before() {
        let (disk, now) = (Disk::new("/data".into(), Some("1MiB".parse().unwrap())), Instant::now());
        let measure = |free_bytes, now| {
            disk.change(|room| room.measured(Space { free_bytes, total_bytes: 64 << 20 }, now));
            disk.reading().full.unwrap_or_default()
        };
        assert_eq!(measure(16 << 20, now), "");

        let told = disk.no_space(now);
        assert!(told.contains("a write found no space.") && !told.contains("16 MiB"), "{told}");
        let told = measure(1 << 20, now);
        assert!(told.contains("a write found no space, with 1 MiB free by its own account"), "{told}");

        disk.no_space(now);
        let told = measure(16 << 20, now + Duration::from_secs(2));
        assert!(told.contains("although 16 MiB are free") && disk.refusal().is_none(), "{told}");
        disk.found_space();
        assert_eq!(measure(16 << 20, now + Duration::from_secs(60)), "");
    }

    #[test]
    fn a_disk_is_slow_while_something_is_under_way_for_seconds() {
        let disk = Disk::new("/data".into(), None);
        let began = Instant::now();
        let sync = disk.under_way().begin(began);

        assert!(!disk.look(began + SLOW_AFTER - Duration::from_millis(1)));
        assert_eq!(disk.reading(), DiskReading::default());
        assert!(disk.look(began + SLOW_AFTER));
        assert!(disk.reading().slow.unwrap().contains("under way for 3.0 s"));
        assert_eq!(disk.refusal(), None);

        drop(sync);
        assert!(!disk.look(began + 2 * SLOW_AFTER));
        assert_eq!(disk.reading(), DiskReading::default());
    }
}
