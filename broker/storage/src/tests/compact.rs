//! Compaction: what stays, what goes, and how the log is read, cut and opened afterwards.

use std::ops::ControlFlow;
use std::sync::Arc;

use highwater_record::{
    Batch, BatchBuilder, Codec, DecodeLimits, NewRecord, Offset, Producer, ProducerEpoch, ProducerId,
    Sequence, TimestampMs,
};

use super::support::*;
use crate::{CompactionConfig, CompactionError, CompactionOutcome, FirstBatch, Log, LogConfig, Ratio};

pub(super) const MAP_BYTES: usize = 1 << 20;
pub(super) const DELETE_RETENTION_MS: i64 = 1000;

/// A record as a test writes it down: key, and value or tombstone.
pub(super) type Pair = (String, Option<String>);

pub(super) fn pair(key: &str, value: &str) -> Pair {
    (key.to_owned(), Some(value.to_owned()))
}

fn tombstone(key: &str) -> Pair {
    (key.to_owned(), None)
}

/// A home whose log is compacted and whose segments are small.
pub(super) fn compacted(mut home: Home) -> Home {
    home.config.segment_bytes = 900;
    home.config.index_interval_bytes = 150;
    home.config.compaction = Some(CompactionConfig {
        min_lag_ms: 0,
        max_lag_ms: u64::MAX,
        dirty_ratio_min: Ratio::new(0.0).unwrap(),
        delete_retention_ms: DELETE_RETENTION_MS as u64,
    });
    home
}

pub(super) fn keyed(codec: Codec, timestamp: i64, producer: Option<(i64, i32)>, records: &[Pair]) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(Producer {
            id: ProducerId::new(id).unwrap(),
            epoch: ProducerEpoch::new(0).unwrap(),
            base_sequence: Sequence::new(sequence),
        });
    }
    for (n, (key, value)) in records.iter().enumerate() {
        builder
            .append(&NewRecord {
                timestamp: TimestampMs(timestamp + n as i64),
                key: Some(key.as_bytes()),
                value: value.as_deref().map(str::as_bytes),
                headers: &[(b"h", None)],
            })
            .unwrap();
    }
    Batch::new(builder.build().unwrap()).unwrap()
}

pub(super) fn put(log: &mut Log, records: &[Pair]) -> Offset {
    append(log, &keyed(Codec::None, 1000, None, records))
}

/// Starts a new segment and makes everything durable, so that all before may be compacted.
pub(super) fn seal(log: &mut Log) {
    log.roll(NOW).unwrap();
    sync(log);
}

/// Runs a job to its end. `after_swap` sees the log after each new segment.
pub(super) fn compact_with(
    log: &mut Log,
    now: TimestampMs,
    map_bytes: usize,
    mut after_swap: impl FnMut(&mut Log),
) -> Option<CompactionOutcome> {
    let mut job = log.begin_compaction(now)?;
    loop {
        let result = job.run(map_bytes, &mut |_| ControlFlow::Continue(()));
        match log.finish_compaction(&mut job, result) {
            CompactionOutcome::Swapped => after_swap(log),
            end => return Some(end),
        }
    }
}

pub(super) fn compact(log: &mut Log) -> Offset {
    match compact_with(log, NOW, MAP_BYTES, |_| {}) {
        Some(CompactionOutcome::Done(end)) => end,
        other => panic!("{other:?}"),
    }
}

/// Offset, key and value of each record from `from` on.
pub(super) fn rows(log: &Log, from: Offset) -> Vec<(i64, String, Option<String>)> {
    let limits = DecodeLimits { bytes_max: 1 << 20, ratio_max: 1000 };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut rows = Vec::new();
    for batch in read_all(log, from) {
        for record in batch.decompress(limits).unwrap().records() {
            let record = record.unwrap();
            assert_eq!(record.headers.count(), 1);
            rows.push((record.offset.get(), text(record.key.unwrap()), record.value.map(text)));
        }
    }
    rows
}

fn row(offset: i64, key: &str, value: &str) -> (i64, String, Option<String>) {
    (offset, key.to_owned(), Some(value.to_owned()))
}

/// Ten keys, written again and again, in segments of about four batches.
pub(super) fn filled(home: &Home) -> Log {
    let (mut log, _) = home.open();
    for n in 0..60 {
        let codec = [Codec::None, Codec::Zstd, Codec::Gzip, Codec::Lz4, Codec::Snappy][n % 5];
        let key = |n: usize| format!("k{}", n % 10);
        let producer = (n % 3 == 0).then_some((7, n as i32 / 3 * 2));
        let records =
            [pair(&key(n), &format!("v{n}")), (key(n * 7 + 1), (n % 7 > 0).then(|| format!("w{n}")))];
        append(&mut log, &keyed(codec, 1000 + n as i64, producer, &records));
    }
    seal(&mut log);
    larger_segments(home, &mut log);
    log
}

/// From now on three segments may become one.
pub(super) fn larger_segments(home: &Home, log: &mut Log) {
    log.set_config(LogConfig { segment_bytes: 2800, ..home.config.clone() });
}

#[test]
fn only_the_latest_record_of_each_key_stays_and_offsets_do_not_change() {
    let (home, _) = Home::sim();
    let (mut log, _) = compacted(home).open();
    put(&mut log, &[pair("a", "1"), pair("b", "1")]);
    put(&mut log, &[pair("a", "2"), pair("c", "1")]);
    put(&mut log, &[pair("a", "3")]);
    seal(&mut log);
    put(&mut log, &[pair("b", "2")]);

    assert_eq!(compact(&mut log), offset(5));

    let expected = [row(1, "b", "1"), row(3, "c", "1"), row(4, "a", "3"), row(5, "b", "2")];
    assert_eq!(rows(&log, offset(0)), expected, "the active segment is left alone");
    assert_eq!(spans(&read_all(&log, offset(0))), [(0, 1), (2, 3), (4, 4), (5, 5)]);
    assert!(log.begin_compaction(NOW).is_none(), "nothing is dirty any more");
}

#[test]
fn a_read_of_what_is_gone_begins_with_the_empty_batch_in_its_place() {
    let (home, _) = Home::sim();
    let (mut log, _) = compacted(home).open();
    for n in 0..6 {
        put(&mut log, &[pair("a", &n.to_string())]);
    }
    seal(&mut log);
    compact(&mut log);

    for from in 0..6 {
        assert_eq!(rows(&log, offset(from)), [row(5, "a", "5")]);
        let chunk = log.view().read(offset(from), 1000, offset(5), FirstBatch::Whole).unwrap();
        let bytes = if from < 5 { 61 } else { 0 };
        assert_eq!((chunk.bytes, chunk.next_offset), (bytes, offset(5)), "one empty batch is below offset 5");
    }
    let found = log.view().offset_for_time(TimestampMs(0), offset(6), DECODE_LIMITS).unwrap().unwrap();
    assert_eq!(found.offset, offset(5));
}

#[test]
fn a_tombstone_stays_for_its_retention_and_deletes_for_ever() {
    let (home, _) = Home::sim();
    let home = compacted(home);
    let (mut log, _) = home.open();
    put(&mut log, &[pair("a", "1"), pair("b", "1")]);
    put(&mut log, &[tombstone("a")]);
    put(&mut log, &[pair("b", "2")]);
    seal(&mut log);
    compact(&mut log);
    let deleted = (2, "a".to_owned(), None);
    assert_eq!(rows(&log, offset(0)), [deleted.clone(), row(3, "b", "2")]);
    let horizon = TimestampMs(NOW.0 + DELETE_RETENTION_MS);
    let left = read_all(&log, offset(2));
    assert_eq!(spans(&left), [(2, 2), (3, 3)]);
    let marked = left[0].header().delete_horizon();
    assert_eq!(marked, Some(horizon));

    let just_before = TimestampMs(horizon.0 - 1);
    for (now, left) in [(just_before, vec![deleted, row(3, "b", "2")]), (horizon, vec![row(3, "b", "2")])] {
        put(&mut log, &[pair("c", "1")]);
        seal(&mut log);
        assert!(matches!(compact_with(&mut log, now, MAP_BYTES, |_| {}), Some(CompactionOutcome::Done(_))));
        let rows = rows(&log, offset(0));
        assert_eq!(rows[..left.len()], left, "at {now}");
        assert!(rows[left.len()..].iter().all(|row| row.1 == "c"));
    }
}

#[test]
fn a_full_table_ends_the_pass_and_the_next_one_goes_on() {
    let (home, _) = Home::sim();
    let (mut log, _) = compacted(home).open();
    for round in 0..2 {
        for key in 0..40 {
            put(&mut log, &[pair(&format!("k{key}"), &format!("v{round}"))]);
        }
    }
    seal(&mut log);
    let mut ends = Vec::new();

    while let Some(CompactionOutcome::Done(end)) = compact_with(&mut log, NOW, 0, |_| {}) {
        ends.push(end.get());
    }

    assert_eq!(ends, [14, 28, 42, 56, 70, 80], "the smallest table has room for 14 keys");
    assert_eq!(rows(&log, offset(0)).len(), 40);
    assert!(rows(&log, offset(0)).iter().all(|row| row.2.as_deref() == Some("v1")));
}

#[test]
fn small_segments_become_one_and_lookups_agree_with_a_fresh_start() {
    let (home, _) = Home::sim();
    let home = compacted(home);
    let mut log = filled(&home);
    let before = log.view().segments().len();

    compact(&mut log);

    assert!(log.view().segments().len() <= before / 2, "{before} segments before");
    let (reopened, recovery) = home.open();
    assert_eq!(recovery.bytes_dropped + u64::from(recovery.segments_dropped), 0);
    assert_eq!(rows(&reopened, offset(0)), rows(&log, offset(0)));
    for timestamp in 990..1070 {
        let find = |log: &Log| {
            log.view().offset_for_time(TimestampMs(timestamp), Offset::MAX, DECODE_LIMITS).unwrap()
        };
        let time = |row: &&(i64, String, Option<String>)| 1000 + row.0 / 2 + row.0 % 2 >= timestamp;
        let expected = rows(&log, offset(0)).iter().find(time).map(|row| row.0);
        assert_eq!(find(&log).map(|found| found.offset.get()), expected, "time {timestamp}");
        assert_eq!(find(&reopened), find(&log));
    }
    let latest = |log: &Log| log.view().max_timestamp(Offset::MAX, DECODE_LIMITS).unwrap();
    assert_eq!(latest(&reopened), latest(&log));
    assert!(reopened.begin_compaction(NOW).is_none(), "how far the log is compacted survives");
}

#[test]
fn a_compacted_log_is_recovered_whole_without_a_checkpoint_and_with_an_old_one() {
    for checkpoint_at in [None, Some(3), Some(17), Some(40)] {
        let (home, sim) = Home::sim();
        let mut home = compacted(home);
        let (mut log, _) = home.open();
        for n in 0..60 {
            put(&mut log, &[pair(&format!("k{}", n % 3), &format!("v{n}"))]);
            if Some(n) == checkpoint_at {
                sync(&mut log);
                home.known = Some(log.checkpoint());
            }
        }
        seal(&mut log);
        compact(&mut log);
        put(&mut log, &[pair("z", "last")]);
        sync(&mut log);
        let expected = rows(&log, offset(0));
        for seed in 0..10 {
            let home = Home { files: Arc::new(sim.crash(seed)), ..home.clone() };
            let (log, recovery) = home.open();
            assert_eq!(recovery.bytes_dropped, 0, "checkpoint at {checkpoint_at:?}, seed {seed}");
            assert_eq!(rows(&log, offset(0)), expected);
            assert_eq!(log.view().end().offset, offset(61));
        }
    }
}

#[test]
fn a_producers_last_five_batches_are_known_after_compaction_and_a_restart_without_its_sidecar() {
    let (home, sim) = Home::sim();
    let home = compacted(home);
    let (mut log, _) = home.open();
    let sent: Vec<_> =
        (0..8).map(|n| keyed(Codec::None, 1000, Some((7, n)), &[pair("a", &n.to_string())])).collect();
    for batch in &sent {
        append(&mut log, batch);
    }
    for n in 0..20 {
        put(&mut log, &[pair("a", &format!("later {n}"))]);
    }
    seal(&mut log);
    compact(&mut log);
    assert_eq!(rows(&log, offset(0)), [row(27, "a", "later 19")]);
    log.close().unwrap();
    sim.overwrite(&home.path("producer-state"), b"");

    let (mut log, _) = home.open();

    for n in 3..8_u32 {
        let again = log.append(&sent[n as usize], epoch(2), NOW).unwrap();
        assert!(again.duplicate, "batch {n}");
        assert_eq!(again.base_offset, offset(n.into()));
    }
    assert!(log.append(&keyed(Codec::None, 1000, Some((7, 9)), &[pair("a", "x")]), epoch(2), NOW).is_err());
}

#[test]
fn a_batch_that_cannot_be_read_ends_the_pass_before_it_and_loses_nothing() {
    let (home, sim) = Home::sim();
    let home = compacted(home);
    let (mut log, _) = home.open();
    for n in 0..30 {
        put(&mut log, &[pair(&format!("k{}", n % 2), &n.to_string())]);
    }
    seal(&mut log);
    let segments = log.view().segments();
    let damaged = segments[1].path().to_owned();
    let mut bytes = sim.read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    sim.overwrite(&damaged, &bytes);
    let first_whole = segments[2].base().get();
    let bad = first_whole - 1;

    let Some(CompactionOutcome::Failed(CompactionError::Damaged { offset: at, .. })) =
        compact_with(&mut log, NOW, MAP_BYTES, |_| {})
    else {
        panic!("the damage is not named");
    };

    assert_eq!(at, offset(bad));
    assert_eq!(sim.read(&damaged).unwrap(), bytes, "the damaged segment is as it was");
    assert_eq!(rows(&log, offset(first_whole)).len() as i64, 30 - first_whole);
    assert!(log.begin_compaction(NOW).is_none(), "it is not tried again and again");
}

#[test]
fn what_is_removed_leaves_one_empty_batch_for_each_run_and_epoch() {
    let (home, _) = Home::sim();
    let (mut log, _) = compacted(home).open();
    let epochs = [1, 1, 1, 1, 2, 2, 2, 3];
    for (key, leader) in ["a", "b", "a", "a", "a", "a", "c", "a"].into_iter().zip(epochs) {
        log.append(&keyed(Codec::None, 1000, None, &[pair(key, "value")]), epoch(leader), NOW).unwrap();
    }
    seal(&mut log);

    compact(&mut log);

    let left = read_all(&log, offset(0));
    assert_eq!(spans(&left), [(0, 0), (1, 1), (2, 3), (4, 5), (6, 6), (7, 7)]);
    let leaders: Vec<_> = left.iter().map(|batch| batch.header().leader_epoch.unwrap().get()).collect();
    assert_eq!(leaders, [1, 1, 1, 2, 2, 3]);
    let counts: Vec<_> = left.iter().map(|batch| batch.header().record_count).collect();
    assert_eq!(counts, [0, 1, 0, 0, 1, 1]);
}

#[test]
fn any_flipped_bit_of_a_base_offset_in_a_compacted_segment_costs_its_batch_alone() {
    let (home, sim) = Home::sim();
    let mut home = compacted(home);
    let (mut log, _) = home.open();
    for key in ["a", "b", "a", "a", "a", "c", "a", "d", "e", "a", "a"] {
        put(&mut log, &[pair(key, "value")]);
    }
    seal(&mut log);
    put(&mut log, &[pair("f", "value")]);
    sync(&mut log);
    compact(&mut log);
    let batches = read_all(&log, offset(0));
    assert!(spans(&batches).windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
    home.known = Some(log.checkpoint());
    log.close().unwrap();
    let path = home.path("00000000000000000000.log");
    let good = sim.read(&path).unwrap();
    let mut position = 0;
    for (at, batch) in batches[..batches.len() - 1].iter().enumerate() {
        for bit in 0..64 {
            let mut bytes = good.clone();
            bytes[position + bit / 8] ^= 128 >> (bit % 8);
            sim.overwrite(&path, &bytes);

            let (log, _) = home.open();

            let mut expected = spans(&batches);
            let lost = expected.remove(at);
            assert_eq!(spans(&read_all_readable(&log)), expected, "bit {bit} of batch {at}");
            let named: Vec<_> =
                log.view().quarantined().iter().map(|lost| (lost.from.get(), lost.to.get())).collect();
            assert_eq!(named, [(lost.0, lost.1 + 1)], "bit {bit} of batch {at}");
        }
        position += batch.bytes().len();
    }
}

#[test]
fn a_log_that_is_cut_inside_a_gap_ends_before_the_gap_and_opens_again() {
    for to in 0..60 {
        let (home, _) = Home::sim();
        let home = compacted(home);
        let (mut log, _) = home.open();
        for n in 0..60 {
            put(&mut log, &[pair(&format!("k{}", n / 12), &n.to_string())]);
        }
        seal(&mut log);
        compact(&mut log);
        let expected: Vec<_> = rows(&log, offset(0)).into_iter().filter(|row| row.0 < to).collect();

        let end = log.truncate(offset(to), epoch(2)).unwrap().offset;

        assert!(end <= offset(to));
        assert_eq!(rows(&log, offset(0)), expected, "cut at {to}");
        log.append(&keyed(Codec::None, 1000, None, &[pair("n", "1")]), epoch(2), NOW).unwrap();
        sync(&mut log);
        let after = rows(&log, offset(0));
        drop(log);
        let (log, recovery) = home.open();
        assert_eq!(recovery.segments_dropped, 0);
        assert_eq!(rows(&log, offset(0)), after, "cut at {to}, opened again");
    }
}

#[test]
fn records_that_are_too_young_wait_and_those_that_waited_too_long_do_not() {
    let (home, _) = Home::sim();
    let mut home = compacted(home);
    let mut rules = home.config.compaction.unwrap();
    rules.min_lag_ms = 100;
    rules.max_lag_ms = 1000;
    rules.dirty_ratio_min = Ratio::new(1.0).unwrap();
    home.config.compaction = Some(rules);
    let (mut log, _) = home.open();
    for n in 0..3 {
        for _ in 0..4 {
            append(&mut log, &keyed(Codec::None, 5000 + n * 200, None, &[pair("a", &n.to_string())]));
        }
        seal(&mut log);
    }
    let look = |log: &Log, now| log.dirt().unwrap().look(TimestampMs(now)).unwrap();

    assert_eq!(look(&log, 5099).dirty_bytes, 0, "the first segment is too young");
    let first = look(&log, 5100);
    assert!(first.dirty_bytes > 0 && !first.is_eligible(), "a ratio of 1 is never passed");
    assert_eq!(look(&log, 5300).dirty_bytes, 2 * first.dirty_bytes);
    assert!(!look(&log, 6000).is_due && look(&log, 6001).is_due && look(&log, 6001).is_eligible());
}

#[test]
fn how_dirty_a_log_at_rest_is_is_told_by_names_and_sizes() {
    let home = compacted(Home::sim().0);
    let mut log = filled(&home);
    let dirty_above = |log: &Log, ratio| {
        let config = CompactionConfig {
            dirty_ratio_min: Ratio::new(ratio).unwrap(),
            ..home.config.compaction.unwrap()
        };
        log.outline().unwrap().may_be_dirty(&*home.files, &home.dir, &config).unwrap()
    };
    assert!(dirty_above(&log, 0.9), "all of it is dirty");

    compact(&mut log);
    assert!(!dirty_above(&log, 0.0), "none of it is");

    put(&mut log, &[pair("k1", "new")]);
    sync(&mut log);
    assert!(!dirty_above(&log, 0.0), "what is not sealed does not count");
    seal(&mut log);
    assert!(dirty_above(&log, 0.0) && !dirty_above(&log, 0.9), "a small part is");
    let bounded = CompactionConfig {
        dirty_ratio_min: Ratio::new(0.9).unwrap(),
        max_lag_ms: 1,
        ..home.config.compaction.unwrap()
    };
    let outline = log.outline().unwrap();
    assert!(
        outline.may_be_dirty(&*home.files, &home.dir, &bounded).unwrap(),
        "it may have waited for too long"
    );
}
