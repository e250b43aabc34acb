//! A log on files that stay as they are is the log that an ordinary opening makes of them, and no file is changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::support::{Home, Made, append, batch, config, offset, read_all, records, spans, sync};
use crate::{Access, DiskFiles, FileLayer, FirstBatch, Log, ReadOnlyFiles};

/// The name and contents of every file of a directory.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    files.collect()
}

/// A stopped log of several segments; nobody remembers how far it reached.
fn home(dir: &Path) -> Home {
    let mut home = Home::disk(dir);
    home.config.segment_bytes = 300;
    let (mut log, _) = home.open();
    for sequence in 0..20 {
        append(&mut log, &batch(Made { producer: Some((7, 0, sequence)), ..Made::default() }));
    }
    sync(&mut log);
    log.close().unwrap();
    assert!(names(&home.dir, "log").len() > 3);
    home
}

/// The files with a suffix, in order.
fn names(dir: &Path, suffix: &str) -> Vec<String> {
    let suffix = format!(".{suffix}");
    contents(dir).into_keys().filter(|name| name.ends_with(&suffix)).collect()
}

/// What of a log clients can tell.
fn told(log: &Log) -> (i64, Vec<(i64, i64)>, usize) {
    let view = log.view();
    (view.end().offset.get(), spans(&read_all(log, offset(0))), log.producer_count())
}

/// Opens a log that something was done to, on files that stay as they are and then on ordinary ones.
#[track_caller]
fn check(what: &str, damage: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    damage(&home.dir);
    let before = contents(&home.dir);

    let files = Arc::new(ReadOnlyFiles::new(Arc::clone(&home.files)));
    let read_only = Home { files, dir: home.dir.clone(), config: home.config.clone(), known: None };
    let (mut log, _) = read_only.open();
    let seen = told(&log);
    if let Some(job) = log.begin_sync() {
        let result = job.run();
        log.finish_sync(job, result, super::support::epoch(9));
    }
    log.close().unwrap();

    assert!(contents(&home.dir) == before, "{what}: a file was changed");
    assert_eq!(seen, told(&home.open().0), "{what}");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_opening_would_change_on_the_disk_it_changes_in_memory() {
    check("nothing", |_| {});
    check("a torn tail", |dir| {
        let last = dir.join(names(dir, "log").pop().unwrap());
        let len = std::fs::metadata(&last).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(last).unwrap().set_len(len - 3).unwrap();
    });
    check("segments after a damaged one", |dir| flip(&dir.join(&names(dir, "log")[1]), 100));
    check("no indexes and no sidecars", |dir| {
        for name in contents(dir).into_keys().filter(|name| !name.ends_with(".log")) {
            std::fs::remove_file(dir.join(name)).unwrap();
        }
    });
    check("indexes of half an entry", |dir| {
        for name in names(dir, "index").into_iter().chain(names(dir, "timeindex")) {
            std::fs::write(dir.join(name), [1; 9]).unwrap();
        }
    });
    check("a compaction that was cut short", |dir| {
        let first = dir.join(&names(dir, "log")[0]);
        std::fs::rename(&first, first.with_extension("log.swap")).unwrap();
        std::fs::write(&first, b"the old one").unwrap();
        std::fs::write(first.with_extension("index.cleaned"), b"not of any use").unwrap();
    });
}

#[test]
fn a_segment_is_neither_written_nor_made() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let before = contents(&home.dir);
    let files: Arc<dyn FileLayer> = Arc::new(ReadOnlyFiles::new(Arc::new(DiskFiles)));
    let (mut log, _) =
        Log::open(Arc::clone(&files), home.dir.clone(), config(), None, super::support::NOW).unwrap();
    let end = log.view().end();

    assert!(log.append(&records(1), super::support::epoch(9), super::support::NOW).is_err());
    assert!(files.open(&home.path("00000000000000009999.log"), Access::Create).is_err());
    assert!(files.create_dir(&home.dir.join("more")).is_err());

    let view = log.view();
    assert_eq!(view.end(), end);
    assert!(view.read(offset(0), 100, end.offset, FirstBatch::Whole).is_ok());
    assert!(contents(&home.dir) == before, "a file was changed");
}
