//! Retention: which segments go by age and by size, and that idle ones do not stay for ever.

use highwater_record::{Offset, TimestampMs};

use super::support::*;
use crate::{Log, Retention};

/// A log of segments that hold one batch of one record each, with these timestamps, appended at `NOW`.
fn log_of(timestamps: &[i64]) -> Log {
    let (home, _) = Home::sim();
    let (mut log, _) = home.open();
    for (place, timestamp) in timestamps.iter().enumerate() {
        if place > 0 {
            log.roll(NOW).unwrap();
        }
        append(&mut log, &batch(Made { timestamp: *timestamp, ..Made::default() }));
    }
    sync(&mut log);
    log
}

fn by_age(age_ms: u64) -> Retention {
    Retention { age_ms: Some(age_ms), bytes: None }
}

fn by_size(bytes: u64) -> Retention {
    Retention { age_ms: None, bytes: Some(bytes) }
}

#[track_caller]
fn check(log: &mut Log, retention: Retention, now: i64, expected: i64) {
    let start = log.retained_from(retention, Offset::MAX, TimestampMs(now)).unwrap();
    assert_eq!(start, offset(expected));
}

#[test]
fn segments_go_when_their_newest_record_is_older_than_the_limit() {
    let mut log = log_of(&[1000, 2000, 3000]);

    check(&mut log, by_age(500), 1500, 0);
    check(&mut log, by_age(500), 1501, 1);
    check(&mut log, by_age(500), 2501, 2);
    check(&mut log, Retention::default(), i64::MAX, 0);
}

#[test]
fn an_old_segment_behind_a_young_one_waits_for_it() {
    let mut log = log_of(&[3000, 1000, 4000]);

    check(&mut log, by_age(500), 2000, 0);
    check(&mut log, by_age(500), 3501, 2);
}

#[test]
fn a_record_from_the_future_does_not_keep_its_segment() {
    let mut log = log_of(&[i64::MAX, 1000]);

    check(&mut log, by_age(500), NOW.0 + 500, 0);
    check(&mut log, by_age(500), NOW.0 + 501, 2);
}

#[test]
fn a_segment_without_timestamps_ages_from_its_last_append() {
    let mut log = log_of(&[-1, -1]);

    check(&mut log, by_age(500), NOW.0 + 500, 0);
    check(&mut log, by_age(500), NOW.0 + 501, 2);
}

#[test]
fn the_oldest_segments_go_while_the_rest_has_enough_bytes() {
    let mut log = log_of(&[1000; 4]);
    let each = log.view().size_bytes() / 4;

    check(&mut log, by_size(4 * each), NOW.0, 0);
    check(&mut log, by_size(3 * each + 1), NOW.0, 0);
    check(&mut log, by_size(3 * each), NOW.0, 1);
    check(&mut log, by_size(each - 1), NOW.0, 3);
    check(&mut log, Retention { age_ms: Some(500), bytes: Some(3 * each) }, 1501, 4);
}

#[test]
fn nothing_goes_that_consumers_have_not_been_shown() {
    let mut log = log_of(&[1000, 1000, 1000]);

    let start = log.retained_from(by_age(0), offset(2), NOW).unwrap();

    assert_eq!(start, offset(2));
    assert_eq!(log.view().segments().len(), 3);
}

#[test]
fn when_everything_is_old_the_log_is_empty_and_goes_on_at_its_end() {
    let (home, files) = Home::sim();
    let (mut log, _) = home.open();
    append(&mut log, &records(5));
    sync(&mut log);

    check(&mut log, by_age(0), NOW.0 + 1, 5);
    let removal = log.delete_before(offset(5)).unwrap();
    assert!(removal.run().unwrap() > 0);

    assert_eq!(log.view().size_bytes(), 0);
    assert!(files.read(&home.path("00000000000000000000.log")).is_none());
    check(&mut log, by_age(0), NOW.0 + 1, 5);
    assert_eq!(append(&mut log, &records(1)), offset(5));
}

#[test]
fn a_closed_log_is_worth_opening_when_its_outline_says_so() {
    let log = log_of(&[1000, 2000]);
    let outline = log.outline().unwrap();

    assert!(!by_age(500).exceeds(&outline, TimestampMs(1500)));
    assert!(by_age(500).exceeds(&outline, TimestampMs(1501)));
    assert!(!by_size(outline.size_bytes).exceeds(&outline, NOW));
    assert!(by_size(outline.size_bytes - 1).exceeds(&outline, NOW));
    assert!(!Retention::default().exceeds(&outline, TimestampMs(i64::MAX)));
}

#[test]
fn an_idle_segment_rolls_by_the_brokers_clock() {
    let (mut home, _) = Home::sim();
    home.config.segment_ms = 100;
    let (mut log, _) = home.open();
    let rolled = |log: &mut Log, now| {
        log.roll_overdue(TimestampMs(now)).unwrap();
        log.view().segments().len()
    };
    assert_eq!(rolled(&mut log, i64::MAX), 0);
    append(&mut log, &records(1));

    assert_eq!(rolled(&mut log, NOW.0 + 100), 1);
    assert_eq!(rolled(&mut log, NOW.0 + 101), 2);
    assert_eq!(rolled(&mut log, i64::MAX), 2);
}

#[test]
fn the_time_of_the_last_append_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::disk(dir.path());
    let (mut log, _) = home.open();
    append(&mut log, &batch(Made { timestamp: i64::MAX, ..Made::default() }));
    sync(&mut log);
    log.close().unwrap();
    let path = home.path("00000000000000000000.log");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_millis(5000)).unwrap();

    let (mut log, _) = home.open();

    check(&mut log, by_age(500), 5500, 0);
    check(&mut log, by_age(500), 5501, 1);
}

#[test]
fn what_is_foretold_of_a_segment_is_what_a_pass_does() {
    let retention = |age_ms, bytes| Retention { age_ms, bytes };
    let one = log_of(&[1000]).view().size_bytes();
    for timestamps in [vec![1000, 2000, 3000], vec![3000, 1000, 4000], vec![i64::MAX, 1000], vec![-1, 5]] {
        for kept in
            [retention(Some(500), None), retention(Some(500), Some(one)), retention(None, Some(2 * one))]
        {
            let outlooks = log_of(&timestamps).outlook(kept);
            for (place, outlook) in outlooks.iter().enumerate() {
                let next = place as i64 + 1;
                if outlook.goes_after_bytes == Some(0) {
                    let mut log = log_of(&timestamps);
                    let start = log.retained_from(kept, Offset::MAX, TimestampMs(0)).unwrap();
                    assert!(start >= offset(next), "{timestamps:?} {kept:?} segment {place}");
                }
                let Some(at) = outlook.goes_at else { continue };
                let start = |now| {
                    let mut log = log_of(&timestamps);
                    log.retained_from(kept, Offset::MAX, TimestampMs(now)).unwrap()
                };
                assert!(start(at.0) >= offset(next), "{timestamps:?} {kept:?} segment {place} at {at}");
                if outlook.goes_after_bytes != Some(0) {
                    assert!(
                        start(at.0 - 1) < offset(next),
                        "{timestamps:?} {kept:?} segment {place} before {at}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_active_segment_rolls_when_it_is_foretold() {
    let mut log = log_of(&[1000]);
    let at = log.rolls_at().unwrap();

    log.roll_overdue(TimestampMs(at.0 - 1)).unwrap();
    assert_eq!(log.rolls_at(), Some(at));
    log.roll_overdue(at).unwrap();
    assert_eq!(log.rolls_at(), None);
}
