//! Fewer descriptors than logs: everything still works, and nothing unsynced is closed unseen.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::counting::CountingFiles;
use super::support::*;
use crate::pool::{Clock, LetGo, Marks, Reopenable};
use crate::{BoundedFiles, DiskFiles, FileLayer, FilePool, Log, SimCall, SimFault, SimFiles, SyncOutcome};

const DESCRIPTORS: usize = 16;
const LOGS: usize = 100;

fn bounded(files: Arc<dyn FileLayer>, descriptors: usize) -> (Arc<dyn FileLayer>, Arc<FilePool>) {
    let pool = FilePool::new(descriptors);
    (Arc::new(BoundedFiles::new(files, Arc::clone(&pool))), pool)
}

fn home(files: &Arc<dyn FileLayer>, data: &Path, number: usize) -> Home {
    let mut home = Home::on(Arc::clone(files), data);
    home.dir = data.join(format!("topic-{number}"));
    home.config.segment_bytes = 1000;
    home.config.index_interval_bytes = 100;
    home.config.writeback = true;
    home
}

/// Writes, syncs every other round, reads, closes and opens again a hundred logs with 16 descriptors.
fn a_hundred_logs(files: Arc<dyn FileLayer>, data: &Path) {
    let (counting, counts) = CountingFiles::over(files);
    let (files, pool) = bounded(counting, DESCRIPTORS);
    let mut homes: Vec<Home> = (0..LOGS).map(|number| home(&files, data, number)).collect();
    let mut logs: Vec<Log> = homes.iter().map(|home| home.open().0).collect();
    for round in 0..8 {
        for log in &mut logs {
            append(log, &records(5));
            if round % 2 == 1 {
                sync(log);
            }
        }
    }
    for log in &logs {
        assert_eq!(spans(&read_all(log, offset(0))), (0..8).map(|n| (5 * n, 5 * n + 4)).collect::<Vec<_>>());
    }
    for (log, home) in logs.into_iter().zip(&mut homes) {
        home.known = Some(log.checkpoint());
        log.close().unwrap();
    }
    for home in &homes {
        let (log, recovery) = home.open();
        assert_eq!((log.view().end().offset, recovery.bytes_scanned), (offset(40), 0));
        assert_eq!(read_all(&log, offset(0)).len(), 8);
    }

    // One more is opened and closed at once: the epoch file, a sidecar, a listing.
    let open_max = counts.open_max.load(Ordering::Relaxed);
    assert!(open_max <= DESCRIPTORS + 1, "{open_max} files were open at once");
    assert!(counts.opened.load(Ordering::Relaxed) > LOGS * 8, "nothing was opened twice");
    assert_eq!(pool.descriptors_open(), 0);
}

#[test]
fn a_hundred_logs_live_with_16_descriptors_on_real_files() {
    let dir = tempfile::tempdir().unwrap();
    a_hundred_logs(Arc::new(DiskFiles), dir.path());
}

#[test]
fn a_hundred_logs_live_with_16_descriptors_on_simulated_files() {
    a_hundred_logs(Arc::new(SimFiles::with_dir(Path::new("data"))), Path::new("data"));
}

#[test]
fn what_is_unsynced_is_synced_before_its_file_is_closed() {
    let sim = SimFiles::with_dir(Path::new("data"));
    let (files, _) = bounded(Arc::new(sim.clone()), 1);
    let mut first = home(&files, Path::new("data"), 0).open().0;
    let mut second = home(&files, Path::new("data"), 1).open().0;
    append(&mut first, &records(1));
    let before = sim.sync_count();

    append(&mut second, &records(1));

    assert_eq!(sim.sync_count(), before + 1);
    sync(&mut first);
    assert_eq!(first.view().durable().offset, offset(1));
}

#[test]
fn a_sync_that_fails_when_a_file_is_closed_fails_the_log() {
    let sim = SimFiles::with_dir(Path::new("data"));
    let (files, _) = bounded(Arc::new(sim.clone()), 1);
    let mut first = home(&files, Path::new("data"), 0).open().0;
    let mut second = home(&files, Path::new("data"), 1).open().0;
    append(&mut first, &records(1));
    sync(&mut first);
    append(&mut first, &records(1));
    let path_end = "topic-0/00000000000000000000.log".to_owned();
    sim.plan(SimFault {
        call: SimCall::Sync,
        path_end,
        after: 0,
        times: 1,
        errno: libc::EIO,
        bytes_written: 0,
    });

    append(&mut second, &records(1));
    let job = first.begin_sync().unwrap();

    assert_eq!(job.known_failure().unwrap_err().raw_os_error(), Some(libc::EIO));
    let result = job.run();
    let outcome = first.finish_sync(job, result, epoch(2));
    assert!(matches!(outcome, SyncOutcome::Failed { end, resumed: true, .. } if end.offset == offset(1)));
    // It goes on in a new segment, and what was durable is there.
    append(&mut first, &records(1));
    sync(&mut first);
    assert_eq!(spans(&read_all(&first, offset(0))), [(0, 0), (1, 1)]);
}

#[test]
fn a_file_that_is_in_use_is_not_closed() {
    let sim = SimFiles::with_dir(Path::new("data"));
    let (files, pool) = bounded(Arc::new(sim), 2);
    let mut logs: Vec<Log> = (0..4).map(|number| home(&files, Path::new("data"), number).open().0).collect();
    logs.iter_mut().for_each(|log| {
        append(log, &records(1));
    });
    let read = |log: &Log| {
        log.view().read(offset(0), 1000, offset(1), crate::FirstBatch::Whole).unwrap().ranges.remove(0)
    };

    let held: Vec<_> = logs.iter().map(read).collect();

    assert_eq!(pool.descriptors_open(), 4);
    drop(held);
    read(&logs[0]);
    append(&mut logs[1], &records(1));
    logs.truncate(2);
    assert!(pool.descriptors_open() <= 2, "{} are open", pool.descriptors_open());
}

/// Something that somebody opens again in the very moment after it was let go of.
#[derive(Debug)]
struct Wanted {
    marks: Marks,
    says: LetGo,
    /// Whoever opened it again had to list it.
    relisted: AtomicBool,
}

impl Reopenable for Wanted {
    fn marks(&self) -> &Marks {
        &self.marks
    }

    fn let_go(&self) -> LetGo {
        if self.says == LetGo::Done {
            self.relisted.store(self.marks.note_listed(), Ordering::Relaxed);
        }
        self.says
    }

    fn sync_and_let_go(&self) -> LetGo {
        LetGo::InUse
    }
}

#[test]
fn what_is_opened_again_while_it_is_let_go_of_is_listed_again() {
    for (says, relisted, stays_listed) in [
        (LetGo::Done, true, true),
        (LetGo::Nothing, false, false),
        (LetGo::InUse, false, true),
        (LetGo::Unsynced, false, true),
    ] {
        let clock = Clock::new(8);
        let one = Arc::new(Wanted { marks: Marks::default(), says, relisted: AtomicBool::new(false) });
        clock.admit(&one);

        clock.make_room(1);

        assert_eq!(one.relisted.load(Ordering::Relaxed), relisted, "{says:?}");
        assert_eq!(!one.marks.note_listed(), stays_listed, "{says:?}");
    }
}
