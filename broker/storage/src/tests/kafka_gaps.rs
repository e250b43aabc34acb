//! A directory that Kafka's cleaner wrote: gaps between segments, inside them and in the last one are no loss, and what is a
//! loss still is one. A log of ours has no gaps between segments, and what lacks there is a loss.

use super::compact::{compact, compacted, pair, put, rows, seal};
use super::support::*;
use crate::{Access, FileLayer, Log, LogCheckpoint, SimFiles};

/// Segments of four batches each, of which Kafka's cleaner has left some. Of Kafka's other files there is a snapshot of
/// producers.
struct Cleaned {
    home: Home,
    files: SimFiles,
    /// Base offsets of the segments.
    bases: Vec<i64>,
}

impl Cleaned {
    /// A log of sixteen records, four in a segment, of which those at `gone` are taken out.
    fn without(gone: &[i64]) -> Self {
        let (home, files) = Home::sim();
        let home = compacted(home);
        let (mut log, _) = home.open();
        for n in 0..16 {
            if n > 0 && n % 4 == 0 {
                log.roll(NOW).unwrap();
            }
            put(&mut log, &[pair(&format!("k{n}"), &n.to_string())]);
        }
        sync(&mut log);
        let batches = read_all(&log, offset(0));
        log.close().unwrap();
        let bases = vec![0, 4, 8, 12];
        for base in &bases {
            let own = batches.iter().filter(|batch| batch.header().base_offset.get() / 4 * 4 == *base);
            let left = own.filter(|batch| !gone.contains(&batch.header().base_offset.get()));
            let bytes: Vec<u8> = left.flat_map(|batch| batch.bytes().to_vec()).collect();
            files.overwrite(&home.path(&format!("{base:020}.log")), &bytes);
        }
        let cleaned = Self { home, files, bases };
        for name in cleaned.names() {
            // Kafka's own files are none of ours.
            if !name.ends_with(".log") {
                cleaned.files.unlink(&cleaned.home.path(&name)).unwrap();
            }
        }
        cleaned.files.open(&cleaned.home.path(SNAPSHOT), Access::Create).unwrap();
        cleaned
    }

    fn names(&self) -> Vec<String> {
        self.files.list(&self.home.dir).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    fn bytes(&self) -> Vec<Option<Vec<u8>>> {
        let read = |base: &i64| self.files.read(&self.home.path(&format!("{base:020}.log")));
        self.bases.iter().map(read).collect()
    }
}

/// What Kafka writes when it stops.
const SNAPSHOT: &str = "00000000000000000016.snapshot";

fn offsets(log: &Log) -> Vec<i64> {
    rows(log, offset(0)).into_iter().map(|row| row.0).collect()
}

const GONE: [&[i64]; 6] = [&[3], &[3, 4], &[0, 1, 5, 7, 11], &[4, 5, 6, 7], &[13], &[7, 12, 14]];

#[test]
fn gaps_anywhere_cost_nothing_whether_anything_is_known_of_the_log_or_not() {
    for gone in GONE {
        let cleaned = Cleaned::without(gone);
        let before = cleaned.bytes();
        let left: Vec<_> = (0..16).filter(|n| !gone.contains(n)).collect();

        let (mut log, recovery) = cleaned.home.open();

        assert_eq!((offsets(&log), recovery.bytes_dropped, recovery.segments_dropped), (left.clone(), 0, 0));
        assert!(log.view().quarantined().is_empty());
        assert_eq!(log.view().end().offset.get(), 16);
        sync(&mut log);
        let known = log.checkpoint();
        log.roll(NOW).unwrap();
        log.manifest_job().unwrap().run().unwrap();
        drop(log);
        for known in [Some(known), None] {
            let (log, _) = Home { known, ..cleaned.home.clone() }.open();
            assert_eq!(offsets(&log), left, "{gone:?} {known:?}");
            assert!(log.view().quarantined().is_empty(), "{gone:?} {known:?}");
        }
        assert_eq!(cleaned.bytes(), before, "no file is changed");
    }
}

#[test]
fn a_compacted_segment_that_became_the_last_one_keeps_what_lies_behind_its_gaps() {
    let cleaned = Cleaned::without(&[5, 7]);
    cleaned.files.unlink(&cleaned.home.path(SNAPSHOT)).unwrap();
    for base in [8, 12] {
        cleaned.files.unlink(&cleaned.home.path(&format!("{base:020}.log"))).unwrap();
    }

    let (log, recovery) = cleaned.home.open();

    assert_eq!((offsets(&log), recovery.bytes_dropped), (vec![0, 1, 2, 3, 4, 6], 0));
    assert_eq!(log.view().end().offset.get(), 7);
}

#[test]
fn a_log_that_is_not_compacted_has_lost_what_a_gap_lacks() {
    let cleaned = Cleaned::without(&[3]);
    let known =
        LogCheckpoint { log_start: offset(0), recovery_point: offset(16), high_watermark: offset(16) };
    let mut home = Home { known: Some(known), ..cleaned.home.clone() };
    home.config.compaction = None;

    let (log, _) = home.open();

    let lost: Vec<_> = log.view().quarantined().iter().map(|lost| (lost.from.get(), lost.to.get())).collect();
    assert_eq!(lost, [(3, 4)]);
}

#[test]
fn a_compacted_log_that_kafka_never_wrote_has_lost_what_lacks_between_segments() {
    for (recovery_point, lost, end) in [(16, vec![(3, 4)], 16), (0, Vec::new(), 3)] {
        let cleaned = Cleaned::without(&[3]);
        cleaned.files.unlink(&cleaned.home.path(SNAPSHOT)).unwrap();
        let recovery_point = offset(recovery_point);
        let known = LogCheckpoint { log_start: offset(0), recovery_point, high_watermark: recovery_point };

        let (log, _) = Home { known: Some(known), ..cleaned.home }.open();

        let found = log.view().quarantined();
        let found: Vec<_> = found.iter().map(|lost| (lost.from.get(), lost.to.get())).collect();
        assert_eq!((found, log.view().end().offset.get()), (lost, end));
    }
}

#[test]
fn what_the_manifest_knows_to_have_been_there_is_lost_in_a_compacted_log_too() {
    for (strike, expected) in [("cut", (6, 8)), ("removed", (4, 8))] {
        let cleaned = Cleaned::without(&[]);
        let (mut log, _) = cleaned.home.open();
        sync(&mut log);
        log.roll(NOW).unwrap();
        log.manifest_job().unwrap().run().unwrap();
        let home = Home { known: Some(log.checkpoint()), ..cleaned.home.clone() };
        drop(log);
        let path = home.path(&format!("{:020}.log", 4));
        let bytes = cleaned.files.read(&path).unwrap();
        match strike {
            "cut" => cleaned.files.overwrite(&path, &bytes[..bytes.len() / 4 * 2]),
            _ => cleaned.files.unlink(&path).unwrap(),
        }

        let (log, _) = home.open();

        let lost = log.view().quarantined();
        let lost: Vec<_> = lost.iter().map(|lost| (lost.from.get(), lost.to.get())).collect();
        assert_eq!(lost, [expected], "{strike}");
    }
}

#[test]
fn a_wrong_checksum_and_an_offset_that_goes_back_are_faults_in_a_compacted_log_too() {
    let known =
        LogCheckpoint { log_start: offset(0), recovery_point: offset(16), high_watermark: offset(16) };
    for strike in ["checksum", "offset"] {
        let cleaned = Cleaned::without(&[3]);
        let path = cleaned.home.path(&format!("{:020}.log", 4));
        let mut bytes = cleaned.files.read(&path).unwrap();
        let last = bytes.len() / 4 * 3;
        match strike {
            "checksum" => *bytes.last_mut().unwrap() ^= 1,
            // It says 3, and not 7.
            _ => bytes[last + 7] = 3,
        }
        cleaned.files.overwrite(&path, &bytes);

        let (log, _) = Home { known: Some(known), ..cleaned.home }.open();

        let read = spans(&read_all_readable(&log));
        let read: Vec<_> = read.into_iter().map(|span| span.0).collect();
        assert_eq!(read, [0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15], "{strike}");
    }
}

#[test]
fn a_batch_of_the_last_segment_that_lies_about_its_offset_is_no_batch_behind_a_gap() {
    let cleaned = Cleaned::without(&[]);
    let path = cleaned.home.path(&format!("{:020}.log", 12));
    let mut bytes = cleaned.files.read(&path).unwrap();
    // The second batch says 29, and not 13.
    let second = bytes.len() / 4;
    bytes[second + 7] ^= 16;
    cleaned.files.overwrite(&path, &bytes);

    let (log, _) = cleaned.home.open();

    assert_eq!(offsets(&log), (0..13).collect::<Vec<_>>());
    assert_eq!(log.view().end().offset.get(), 13);
}

#[test]
fn our_cleaner_closes_the_gaps_behind_the_segments_that_it_cleans() {
    let cleaned = Cleaned::without(&[3, 7, 11]);
    let (mut log, _) = cleaned.home.open();
    for n in [0, 5, 9] {
        put(&mut log, &[pair(&format!("k{n}"), "again")]);
    }
    seal(&mut log);
    let left: Vec<_> = (0..19).filter(|n| ![0, 3, 5, 7, 9, 11].contains(n)).collect();

    assert_eq!(compact(&mut log).get(), 19);

    assert_eq!(offsets(&log), left);
    for segment in log.view().segments().iter() {
        let mut end = segment.base();
        segment
            .walk(0, segment.end().bytes, |_, header| {
                end = header.next_offset();
                std::ops::ControlFlow::<()>::Continue(())
            })
            .unwrap();
        assert_eq!(end, segment.end().offset, "it ends with a batch");
    }
    let known = Some(log.checkpoint());
    log.close().unwrap();
    let (log, _) = Home { known, ..cleaned.home.clone() }.open();
    assert_eq!(offsets(&log), left);
    assert!(log.view().quarantined().is_empty());
}
