//! Random operations on a compacted log against a list of everything that was ever appended.
//!
//! Checked after each step: every record that is read was appended at its offset; of each key the latest record is
//! there, or it was a tombstone whose time had come, and then no older one is; what a producer sent last is recognised.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use highwater_record::{Codec, Offset, TimestampMs};
use proptest::prelude::*;

use super::compact::{DELETE_RETENTION_MS, MAP_BYTES, Pair, compact_with, compacted, keyed, rows};
use super::support::*;
use crate::{CompactionOutcome, Log, SimFiles};

#[derive(Clone, Debug)]
enum Op {
    Append { keys: Vec<(u8, bool)>, codec: usize, producer: Option<i64> },
    Resend { producer: i64, back: usize },
    Seal,
    Compact { small_table: bool },
    Stop { after: usize },
    PowerCut { changes: u64, seed: u64 },
    Wait { ms: i64 },
    Checkpoint,
    Reopen { forget: bool },
    Crash { seed: u64, forget: bool },
    DeleteBefore { fraction: f64 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let keys = prop::collection::vec((0..6u8, prop::bool::weighted(0.2)), 1..4);
    let append = (keys, 0..5usize, prop::option::of(1..3i64))
        .prop_map(|(keys, codec, producer)| Op::Append { keys, codec, producer });
    let op = prop_oneof![
        30 => append,
        4 => (1..3i64, 0..5usize).prop_map(|(producer, back)| Op::Resend { producer, back }),
        6 => Just(Op::Seal),
        6 => any::<bool>().prop_map(|small_table| Op::Compact { small_table }),
        1 => (0..6usize).prop_map(|after| Op::Stop { after }),
        2 => (0..40u64, any::<u64>()).prop_map(|(changes, seed)| Op::PowerCut { changes, seed }),
        2 => (0..2 * DELETE_RETENTION_MS).prop_map(|ms| Op::Wait { ms }),
        1 => Just(Op::Checkpoint),
        2 => any::<bool>().prop_map(|forget| Op::Reopen { forget }),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(seed, forget)| Op::Crash { seed, forget }),
        1 => (0.0..1.0f64).prop_map(|fraction| Op::DeleteBefore { fraction }),
    ];
    prop::collection::vec(op, 1..80)
}

/// A record as it was appended, and when.
struct Appended {
    pair: Pair,
    at: i64,
}

/// A producer's batch: sequence, base offset, records, and codec.
type Sent = (i32, i64, Vec<Pair>, usize);

struct World {
    home: Home,
    sim: SimFiles,
    log: Option<Log>,
    history: Vec<Appended>,
    /// The batches of each producer.
    sent: BTreeMap<i64, Vec<Sent>>,
    /// Of each producer, the first batch that it may send again.
    known_from: BTreeMap<i64, usize>,
    now: i64,
    epoch: i32,
    durable: i64,
}

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

impl World {
    fn new() -> Self {
        let (home, sim) = Home::sim();
        let home = compacted(home);
        let log = Some(home.open().0);
        Self {
            home,
            sim,
            log,
            history: Vec::new(),
            sent: BTreeMap::new(),
            known_from: BTreeMap::new(),
            now: NOW.0,
            epoch: 1,
            durable: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append { keys, codec, producer } => self.append(keys, *codec, *producer),
            Op::Resend { producer, back } => self.resend(*producer, *back),
            Op::Seal => {
                let now = TimestampMs(self.now);
                self.log().roll(now).unwrap();
                self.sync();
            }
            Op::Compact { small_table } => self.compact(if *small_table { 0 } else { MAP_BYTES }),
            Op::Stop { after } => self.stop(*after),
            Op::PowerCut { changes, seed } => {
                let sim = self.sim.clone();
                sim.cut_power_after(*changes);
                let now = TimestampMs(self.now);
                compact_with(self.log(), now, MAP_BYTES, |_| {});
                self.crash(*seed, seed % 2 == 0);
            }
            Op::Wait { ms } => self.now += ms,
            Op::Checkpoint => self.home.known = Some(self.log().checkpoint()),
            Op::Reopen { forget } => {
                self.log.take().unwrap().close().unwrap();
                self.open(*forget);
            }
            Op::Crash { seed, forget } => self.crash(*seed, *forget),
            Op::DeleteBefore { fraction } => {
                let to = (self.durable as f64 * fraction) as i64;
                self.log().delete_before(offset(to)).unwrap().run().unwrap();
                // A later start must know: the broker keeps it durably elsewhere.
                self.home.known = Some(self.log().checkpoint());
            }
        }
    }

    fn append(&mut self, keys: &[(u8, bool)], codec: usize, producer: Option<i64>) {
        let base = self.history.len() as i64;
        let pairs: Vec<Pair> = (keys.iter().enumerate())
            .map(|(n, (key, dead))| {
                (format!("k{key}"), (!dead).then(|| format!("value of offset {}", base + n as i64)))
            })
            .collect();
        let sequence = producer.map(|id| {
            let next = |batches: &Vec<Sent>| batches.last().map_or(0, |last| last.0 + last.2.len() as i32);
            (id, self.sent.get(&id).map_or(0, next))
        });
        let batch = keyed(CODECS[codec], self.now, sequence, &pairs);
        let (leader, now) = (epoch(self.epoch), TimestampMs(self.now));
        let appended = self.log().append(&batch, leader, now).unwrap();
        assert!(!appended.duplicate);
        assert_eq!(appended.base_offset, offset(base));
        if let Some((id, sequence)) = sequence {
            self.sent.entry(id).or_default().push((sequence, base, pairs.clone(), codec));
        }
        let at = self.now;
        self.history.extend(pairs.into_iter().map(|pair| Appended { pair, at }));
    }

    fn resend(&mut self, producer: i64, back: usize) {
        let Some(batches) = self.sent.get(&producer) else { return };
        let known_from = self.known_from.get(&producer).copied().unwrap_or(0);
        let Some(at) = batches.len().checked_sub(back + 1).filter(|at| *at >= known_from) else { return };
        let (sequence, base, pairs, codec) = batches[at].clone();
        if base < self.log().view().log_start().get() {
            // What is deleted may be forgotten.
            return;
        }
        let batch = keyed(CODECS[codec], self.now, Some((producer, sequence)), &pairs);
        let (leader, now) = (epoch(self.epoch), TimestampMs(self.now));
        let again = self.log().append(&batch, leader, now).unwrap();
        assert!(again.duplicate, "producer {producer}, {back} back");
        assert_eq!(again.base_offset, offset(base));
    }

    fn sync(&mut self) {
        sync(self.log());
        self.durable = self.log().view().durable().offset.get();
    }

    fn compact(&mut self, map_bytes: usize) {
        let now = TimestampMs(self.now);
        match compact_with(self.log(), now, map_bytes, |_| {}) {
            None => {}
            Some(CompactionOutcome::Done(end)) => {
                assert!(end.get() <= self.durable);
                if map_bytes == MAP_BYTES {
                    self.check_compacted(end);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn stop(&mut self, after: usize) {
        let now = TimestampMs(self.now);
        let Some(mut job) = self.log().begin_compaction(now) else { return };
        let mut left = after;
        loop {
            let result = job.run(MAP_BYTES, &mut |_| {
                left = left.saturating_sub(1);
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if !matches!(self.log().finish_compaction(&mut job, result), CompactionOutcome::Swapped) {
                return;
            }
        }
    }

    /// Everything below `end` that was not deleted has one record of each key.
    fn check_compacted(&mut self, end: Offset) {
        let start = self.log().view().log_start();
        let batches = spans(&read_all(self.log(), start));
        assert!(batches.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "a gap in {batches:?}");
        let rows = rows(self.log(), start);
        let mut keys = std::collections::BTreeSet::new();
        for row in rows.iter().filter(|row| row.0 < end.get() && row.0 >= start.get()) {
            assert!(keys.insert(&row.1), "two records of {} below {end}", row.1);
        }
    }

    fn crash(&mut self, seed: u64, forget: bool) {
        self.log = None;
        self.sim = self.sim.crash(seed);
        self.home.files = Arc::new(self.sim.clone());
        self.open(forget);
        let end = self.log().view().end().offset.get();
        assert!(end >= self.durable, "{} was durable, the log ends at {end}", self.durable);
        self.history.truncate(end as usize);
        for (producer, batches) in &mut self.sent {
            let sent = batches.len();
            batches.retain(|batch| batch.1 < end);
            // Who sent a sixth batch has heard of the first, whether the sixth was lost or not.
            let known_from = self.known_from.entry(*producer).or_default();
            *known_from = (*known_from).max(sent.saturating_sub(5)).min(batches.len());
        }
        self.sync();
    }

    fn open(&mut self, forget: bool) {
        let mut home = self.home.clone();
        if forget {
            // Log starts are kept elsewhere; the rest of the checkpoint is lost.
            home.known =
                home.known.map(|known| crate::LogCheckpoint { recovery_point: Offset::ZERO, ..known });
        }
        let (log, _) = home.open();
        self.epoch += 1;
        self.log = Some(log);
        let leader = epoch(self.epoch);
        self.log().set_epoch_min(leader);
    }

    fn check(&mut self) {
        let start = self.log().view().log_start();
        let (now, rows) = (self.now, rows(self.log(), start));
        assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
        for (at, key, value) in &rows {
            assert_eq!(self.history[*at as usize].pair, (key.clone(), value.clone()), "offset {at}");
        }
        let mut latest = BTreeMap::new();
        for (at, appended) in self.history.iter().enumerate() {
            latest.insert(&appended.pair.0, (at as i64, appended));
        }
        for (key, (at, appended)) in latest.into_iter().filter(|(_, (at, _))| *at >= start.get()) {
            if rows.iter().any(|row| row.0 == at) {
                continue;
            }
            assert!(appended.pair.1.is_none(), "{key} at {at} is lost");
            assert!(now >= appended.at + DELETE_RETENTION_MS, "the tombstone of {key} went too early");
            assert!(rows.iter().all(|row| row.1 != *key), "{key} came back");
        }
        for from in start.get()..self.history.len() as i64 {
            let next = rows.iter().find(|row| row.0 >= from);
            if let Some(next) = next {
                let first = super::compact::rows(self.log(), offset(from));
                assert!(first.contains(next), "a read from {from} misses {}", next.0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_log_has_the_latest_record_of_each_key_whatever_happens(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
            world.check();
        }
        world.sync();
        world.apply(&Op::Seal);
        world.compact(MAP_BYTES);
        world.check();
    }
}
