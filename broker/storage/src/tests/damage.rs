//! Files that somebody or something has changed: nothing may panic, and what is disposable may not matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use highwater_record::TimestampMs;
use proptest::prelude::*;

use super::support::*;
use crate::{FileLayer, FirstBatch, Log, SimFiles};

/// One change to one file, as fractions of what there is.
#[derive(Clone, Debug)]
struct Damage {
    file: f64,
    at: f64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Flip(u8),
    Cut,
    Zeros(usize),
    Garbage(Vec<u8>),
    Remove,
}

fn damage() -> impl Strategy<Value = Damage> {
    let kind = prop_oneof![
        4 => (1..=255u8).prop_map(Kind::Flip),
        1 => Just(Kind::Cut),
        1 => (1..600usize).prop_map(Kind::Zeros),
        1 => prop::collection::vec(any::<u8>(), 1..100).prop_map(Kind::Garbage),
        1 => Just(Kind::Remove),
    ];
    (0.0..1.0f64, 0.0..1.0f64, kind).prop_map(|(file, at, kind)| Damage { file, at, kind })
}

impl Damage {
    fn strike(&self, home: &Home, files: &SimFiles, names: impl Fn(&str) -> bool) {
        let mut listed: Vec<String> = files.list(&home.dir).unwrap().into_iter().map(|e| e.name).collect();
        listed.retain(|name| names(name));
        if listed.is_empty() {
            return;
        }
        let path = home.path(&listed[(listed.len() as f64 * self.file) as usize]);
        let mut bytes = files.read(&path).unwrap();
        let at = (bytes.len() as f64 * self.at) as usize;
        match &self.kind {
            Kind::Flip(bits) => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bits),
            Kind::Cut => bytes.truncate(at),
            Kind::Zeros(count) => bytes.iter_mut().skip(at).take(*count).for_each(|byte| *byte = 0),
            Kind::Garbage(garbage) => {
                bytes.truncate(at);
                bytes.extend_from_slice(garbage);
            }
            Kind::Remove => return files.unlink(&path).unwrap(),
        }
        files.overwrite(&path, &bytes);
    }
}

/// A log of several segments with timestamps that go up and down, closed or killed.
fn some_log(close: bool, known: bool) -> (Home, SimFiles) {
    let (mut home, files) = Home::sim();
    home.config.segment_bytes = 1500;
    let (mut log, _) = home.open();
    for n in 0..40 {
        let made = Made { count: 1 + n as u32 % 3, timestamp: 1000 + n * 7 % 40, ..Made::default() };
        append(&mut log, &batch(Made { producer: Some((n, 0, 0)), ..made }));
    }
    sync(&mut log);
    home.known = known.then(|| log.checkpoint());
    if close {
        log.close().unwrap();
    }
    (home, files)
}

/// Everything that a reader can ask for.
fn ask_everything(log: &Log) {
    let view = log.view();
    let (start, end) = (view.log_start(), view.end().offset);
    for from in (start.get()..=end.get()).step_by(3) {
        for bytes_max in [1, 400, u32::MAX] {
            if let Ok(chunk) = view.read(offset(from), bytes_max, end, FirstBatch::Whole) {
                for range in chunk.ranges {
                    let _ = range.copy_to(&mut Vec::new());
                }
            }
        }
    }
    for timestamp in (990..1050).step_by(7) {
        let _ = view.offset_for_time(TimestampMs(timestamp), end, DECODE_LIMITS);
    }
    let _ = view.max_timestamp(end, DECODE_LIMITS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_to_any_file_makes_a_log_panic(
        strikes in prop::collection::vec(damage(), 1..4), close: bool, known: bool,
    ) {
        let (home, files) = some_log(close, known);
        strikes.iter().for_each(|damage| damage.strike(&home, &files, |_| true));

        if let Ok((mut log, _)) = home.try_open() {
            ask_everything(&log);
            log.append(&records(3), epoch(2), NOW).unwrap();
            sync(&mut log);
            log.close().unwrap();
        }
    }

    #[test]
    fn no_change_to_a_disposable_file_loses_a_record_or_stops_the_log(
        strikes in prop::collection::vec(damage(), 1..4), close: bool, known: bool,
    ) {
        let (home, files) = some_log(close, known);
        let expected = spans(&read_all(&home.open().0, offset(0)));
        strikes.iter().for_each(|damage| damage.strike(&home, &files, |name| !name.ends_with(".log")));

        let (log, _) = home.open();

        prop_assert_eq!(spans(&read_all(&log, offset(0))), expected);
        prop_assert_eq!(log.view().end_of_epoch(epoch(1)), Some((epoch(1), log.view().end().offset)));
        ask_everything(&log);
    }
}

#[test]
fn readers_see_whole_batches_while_the_owner_appends_rolls_and_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::disk(dir.path());
    home.config.segment_bytes = 20_000;
    let (mut log, _) = home.open();
    let view = log.view();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (view, done) = (Arc::clone(&view), Arc::clone(&done));
            thread::spawn(move || {
                let (mut next, mut seen) = (view.log_start(), 0);
                while !done.load(Ordering::Acquire) || next < view.end().offset {
                    let Ok(chunk) = view.read(next, 5000, view.end().offset, FirstBatch::Whole) else {
                        // Retention was faster.
                        next = view.log_start();
                        continue;
                    };
                    for range in &chunk.ranges {
                        let mut copied = Vec::new();
                        range.copy_to(&mut copied).unwrap();
                        assert!(range.mapped().is_none_or(|mapped| mapped == copied));
                        seen += split(copied.into()).len();
                    }
                    next = chunk.next_offset;
                }
                seen
            })
        })
        .collect();

    for n in 0..3000_u32 {
        append(&mut log, &batch(Made { count: 1 + n % 4, len: 50 + n as usize % 200, ..Made::default() }));
        if n % 500 == 499 {
            let job = log.delete_before(offset(log.view().end().offset.get() - 300)).unwrap();
            job.run().unwrap();
        }
    }
    done.store(true, Ordering::Release);

    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
}
