//! Comparing by key: the latest record of each key in one partition with that in the other.
//!
//! The latest records are held in memory up to a bound. If they are more, the keys are shared out by their hash, and both
//! partitions are read once for each share; the shares are halved until one fits.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;

use super::super::files::PartitionFiles;
use super::Differences;
use super::walk::{Entry, RecordWalk};
use crate::resolve::Range;

/// Bytes of records that are held of both partitions together, about.
const HELD_BYTES_MAX: usize = 20 << 20;
/// What a record costs besides its key and value, about.
const ENTRY_BYTES: usize = 384;
/// Beyond so many shares a single key is larger than the bound: then it is held all the same.
const SHARES_MAX: u64 = 1 << 20;

type Latest = HashMap<Vec<u8>, Entry>;

/// Compares two partitions by key.
pub(super) fn compare(
    of: &PartitionFiles,
    sides: [Option<&PartitionFiles>; 2],
    range: &Range,
    differences: &mut Differences,
) -> Result<()> {
    // The whole first, then halves until they fit.
    let mut shares = vec![(0, 1)];
    let mut is_first = true;
    while let Some((number, of_shares)) = shares.pop() {
        let Some([a, b]) = read(sides, range, (number, of_shares), differences, is_first)? else {
            shares.push((number + of_shares, of_shares * 2));
            shares.push((number, of_shares * 2));
            continue;
        };
        is_first = false;
        let mut pairs: Vec<_> = a.iter().map(|(key, entry)| (Some(entry), b.get(key))).collect();
        pairs.extend(b.iter().filter(|(key, _)| !a.contains_key(*key)).map(|(_, entry)| (None, Some(entry))));
        pairs.sort_by_key(|(a, b)| a.or(*b).map(|entry| entry.offset));
        for (a, b) in pairs {
            differences.pair(of, a, b);
        }
    }
    Ok(())
}

/// The latest records of a share of the keys; `None` if they are too many.
fn read(
    sides: [Option<&PartitionFiles>; 2],
    range: &Range,
    (number, of_shares): (u64, u64),
    differences: &mut Differences,
    is_counted: bool,
) -> Result<Option<[Latest; 2]>> {
    let mut found = [Latest::new(), Latest::new()];
    let (mut held, mut keyless, mut unreadable) = (0, 0, 0);
    for (latest, files) in found.iter_mut().zip(sides) {
        let mut walk = RecordWalk::new(files, range);
        while let Some(entry) = walk.next()? {
            if entry.is_control() {
                continue;
            }
            let Some(key) = &entry.key else {
                keyless += 1;
                continue;
            };
            if hash(key) % of_shares != number {
                continue;
            }
            let key = key.clone();
            held += entry.bytes() + key.len() + ENTRY_BYTES;
            if let Some(before) = latest.insert(key, entry) {
                held -= before.bytes() + before.key.as_ref().map_or(0, Vec::len) + ENTRY_BYTES;
            }
            if held > HELD_BYTES_MAX && of_shares < SHARES_MAX {
                return Ok(None);
            }
        }
        unreadable += walk.unreadable;
    }
    if is_counted {
        differences.keyless += keyless;
        differences.unreadable += unreadable;
    }
    Ok(Some(found))
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
