//! The metadata log: durable transactions, compaction, damage.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use highwater_record::Offset;
use proptest::prelude::*;

use super::support::*;
use crate::{MetaLog, MetaStore, SimCall, SimFault, SimFiles, TransactError, Transaction};

const LOG: &str = "data/__cluster_metadata-0/00000000000000000000.log";

fn open(files: &SimFiles) -> MetaLog {
    open_to(files, Offset::ZERO)
}

fn open_to(files: &SimFiles, known_end: Offset) -> MetaLog {
    MetaLog::open(Arc::new(files.clone()), Path::new("data"), known_end, NOW).unwrap()
}

fn files() -> SimFiles {
    SimFiles::with_dir(Path::new("data"))
}

fn put(store: &MetaLog, key: &'static str, value: &'static str) {
    store.transact(Transaction::new().put(key, value), NOW).unwrap();
}

fn values(store: &MetaLog, prefix: &str) -> Vec<(Bytes, Bytes)> {
    store.range(prefix.as_bytes()).into_iter().map(|(key, value)| (key, value.bytes)).collect()
}

#[test]
fn a_transaction_that_returned_survives_any_crash() {
    let files = files();
    let store = open(&files);
    put(&store, "topic/a", "1");
    put(&store, "topic/b", "2");
    store.transact(Transaction::new().delete("topic/a").put("other", "3"), NOW).unwrap();

    for seed in 0..50 {
        let again = open(&files.crash(seed));
        assert_eq!(again.damage(), None);
        assert_eq!(values(&again, "topic/"), [("topic/b".into(), "2".into())]);
        assert_eq!(again.get(b"other").unwrap(), store.get(b"other").unwrap());
    }
}

#[test]
fn a_transaction_happens_only_if_its_expectations_hold() {
    let store = open(&files());
    let first = store.transact(Transaction::new().expect("k", None).put("k", "1"), NOW).unwrap();

    let conflict = store.transact(Transaction::new().expect("k", None).put("k", "2"), NOW);
    assert!(
        matches!(conflict, Err(TransactError::Conflict { actual: Some(version), .. }) if version == first)
    );
    assert_eq!(store.get(b"k").unwrap().bytes, "1");

    let second = store.transact(Transaction::new().expect("k", Some(first)).put("k", "2"), NOW).unwrap();
    assert!(second > first);
    assert_eq!(store.get(b"k").unwrap().version, second);
}

#[test]
fn a_transaction_that_cannot_be_synced_did_not_happen() {
    let files = files();
    let store = open(&files);
    put(&store, "k", "1");
    let errno = libc::EIO;
    let fault = SimFault {
        call: SimCall::Sync,
        path_end: ".log".into(),
        after: 0,
        times: 1,
        errno,
        bytes_written: 0,
    };
    files.plan(fault);

    let failed = store.transact(Transaction::new().put("k", "2"), NOW);

    assert!(matches!(failed, Err(TransactError::Io(_))));
    assert_eq!(store.get(b"k").unwrap().bytes, "1");
    put(&store, "l", "3");
    let again = open(&files.crash(7));
    assert_eq!(values(&again, ""), [("k".into(), "1".into()), ("l".into(), "3".into())]);
}

#[test]
fn the_log_is_compacted_and_versions_stay() {
    let files = files();
    let store = open(&files);
    let kept = store.transact(Transaction::new().put("kept", "x"), NOW).unwrap();
    let value = Bytes::from(vec![7; 10_000]);
    for _ in 0..300 {
        store.transact(Transaction::new().put("big", value.clone()), NOW).unwrap();
        assert!(store.log_bytes() < 1_100_000);
    }

    for seed in 0..20 {
        let again = open(&files.crash(seed));
        assert_eq!(again.damage(), None);
        assert_eq!(again.get(b"kept").unwrap().version, kept);
        assert_eq!(again.get(b"big"), store.get(b"big"));
    }
}

#[test]
fn the_end_is_later_than_every_transaction_also_after_opening_again() {
    let files = files();
    let store = open(&files);
    let empty = store.end();
    let first = store.transact(Transaction::new().put("a", "1"), NOW).unwrap();
    let second = store.transact(Transaction::new().put("b", "2").delete("a"), NOW).unwrap();

    assert!(empty <= first && first < second && second < store.end());
    let end = store.end();
    drop(store);
    assert_eq!(open(&files).end(), end);
}

#[test]
fn a_torn_tail_is_not_damage_and_the_store_goes_on() {
    let files = files();
    let store = open(&files);
    put(&store, "a", "1");
    let before = files.read(Path::new(LOG)).unwrap().len();
    put(&store, "b", "2");
    let whole = files.read(Path::new(LOG)).unwrap();
    drop(store);

    for len in before..whole.len() {
        files.overwrite(Path::new(LOG), &whole[..len]);
        let store = open(&files);
        assert_eq!(store.damage(), None, "{len} bytes");
        assert_eq!(values(&store, ""), [("a".into(), "1".into())]);
        put(&store, "c", "3");
    }
}

#[test]
fn damage_before_a_valid_transaction_makes_the_store_read_only_and_touches_nothing() {
    let files = files();
    let store = open(&files);
    put(&store, "a", "1");
    let second = files.read(Path::new(LOG)).unwrap().len();
    put(&store, "b", "2");
    let third = files.read(Path::new(LOG)).unwrap().len();
    put(&store, "c", "3");
    drop(store);
    let good = files.read(Path::new(LOG)).unwrap();

    for at in (second..third).filter(|at| !(second + 12..second + 16).contains(at)) {
        let mut bad = good.clone();
        bad[at] ^= 4;
        files.overwrite(Path::new(LOG), &bad);
        let store = open(&files);

        assert_eq!(store.damage().map(|damage| damage.position), Some(second as u64), "byte {at}");
        assert_eq!(values(&store, ""), [("a".into(), "1".into())]);
        let refused = store.transact(Transaction::new().put("d", "4"), NOW);
        assert!(matches!(refused, Err(TransactError::Damaged(_))));
        assert_eq!(files.read(Path::new(LOG)).unwrap(), bad);
    }
}

#[test]
fn a_wrong_epoch_costs_no_transaction_and_touches_nothing() {
    let files = files();
    let store = open(&files);
    let mut batches = vec![0];
    for key in ["a", "b", "c"] {
        put(&store, key, "1");
        batches.push(files.read(Path::new(LOG)).unwrap().len());
    }
    drop(store);
    let good = files.read(Path::new(LOG)).unwrap();

    for (batch, bit) in batches[..3].iter().flat_map(|batch| (96..128).map(move |bit| (batch, bit))) {
        let mut bad = good.clone();
        bad[batch + bit / 8] ^= 128 >> (bit % 8);
        files.overwrite(Path::new(LOG), &bad);
        let store = open(&files);

        assert!(
            store.damage().is_some() || values(&store, "").len() == 3,
            "bit {bit} of the batch at {batch}"
        );
        assert_eq!(files.read(Path::new(LOG)).unwrap(), bad);
    }
}

#[test]
fn a_log_that_ends_before_what_was_durable_is_damaged_wherever_it_was_cut() {
    let files = files();
    let store = open(&files);
    put(&store, "a", "1");
    let first = files.read(Path::new(LOG)).unwrap().len();
    put(&store, "b", "2");
    let known_end = offset(store.end().get());
    drop(store);
    let whole = files.read(Path::new(LOG)).unwrap();
    assert_eq!(open_to(&files, known_end).damage(), None);

    for len in 0..whole.len() {
        files.overwrite(Path::new(LOG), &whole[..len]);
        let store = open_to(&files, known_end);

        let valid_bytes = if len < first { 0 } else { first };
        assert_eq!(store.damage().map(|damage| damage.position), Some(valid_bytes as u64), "{len} bytes");
        assert_eq!(store.get(b"a").is_some(), len >= first);
        assert_eq!(files.read(Path::new(LOG)).unwrap(), &whole[..len]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60, 5_000, 50_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_a_map_over_crashes(
        steps in prop::collection::vec((0..8u8, prop::option::of(0..200usize), prop::option::of(any::<u64>())), 1..40),
    ) {
        let mut files = files();
        let mut store = open(&files);
        let mut model = std::collections::BTreeMap::new();
        for (key, value, crash) in steps {
            let key = Bytes::from(vec![b'k', key]);
            let transaction = match value {
                Some(len) => {
                    let value = Bytes::from(vec![1; len]);
                    model.insert(key.clone(), value.clone());
                    Transaction::new().put(key, value)
                }
                None => {
                    model.remove(&key);
                    Transaction::new().delete(key)
                }
            };
            store.transact(transaction, NOW).unwrap();
            if let Some(seed) = crash {
                files = files.crash(seed);
                store = open(&files);
            }
            prop_assert!(store.damage().is_none());
            let expected: Vec<_> = model.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(values(&store, "k"), expected);
        }
    }
}
