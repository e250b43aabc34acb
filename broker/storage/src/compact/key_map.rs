//! The latest offset of each key, in a table of a fixed size (Kafka's `SkimpyOffsetMap`).
//!
//! Keys are not kept, only 128 bits of a hash of each. Its seeds are drawn for each table, so that nobody can choose
//! keys that collide. The table never grows: who fills it is told so and stops.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;

use highwater_record::Offset;

/// Slots of a table that stay empty at least, so that searches stay short: one in so many (Kafka's
/// `log.cleaner.io.buffer.load.factor` is 0.9).
const EMPTY_ONE_IN: usize = 10;
/// The smallest table.
const SLOTS_MIN: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: [u64; 2],
    /// The offset and one, in a slot that is taken.
    after: Option<NonZeroU64>,
}

/// The table is full: the key is not in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

#[derive(Debug)]
pub(super) struct KeyMap {
    slots: Vec<Slot>,
    taken: usize,
    seeds: [RandomState; 2],
}

impl KeyMap {
    /// A table with room for `keys`, or for as many as fit into `bytes_max`.
    pub(super) fn new(keys: u64, bytes_max: usize) -> Self {
        let wanted = keys.saturating_add(keys / (EMPTY_ONE_IN as u64 - 1)).saturating_add(1);
        let slots = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes_max / size_of::<Slot>());
        let empty = Slot { hash: [0; 2], after: None };
        Self {
            slots: vec![empty; slots.max(SLOTS_MIN)],
            taken: 0,
            seeds: [RandomState::new(), RandomState::new()],
        }
    }

    /// Notes that the latest record of `key` so far is at `offset`.
    pub(super) fn put(&mut self, key: &[u8], offset: Offset) -> Result<(), Full> {
        let (at, hash) = self.find(key);
        if self.slots[at].after.is_none() {
            if self.taken >= self.slots.len() - self.slots.len().div_ceil(EMPTY_ONE_IN) {
                return Err(Full);
            }
            self.taken += 1;
        }
        self.slots[at] = Slot { hash, after: NonZeroU64::new(offset.get() as u64 + 1) };
        Ok(())
    }

    /// The latest offset of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        let (at, _) = self.find(key);
        Offset::new((self.slots[at].after?.get() - 1) as i64)
    }

    /// The slot that has the key or would get it. There is always an empty one, so the search ends.
    fn find(&self, key: &[u8]) -> (usize, [u64; 2]) {
        let hash = [self.seeds[0].hash_one(key), self.seeds[1].hash_one(key)];
        let mut at = (hash[0] % self.slots.len() as u64) as usize;
        while self.slots[at].after.is_some() && self.slots[at].hash != hash {
            at = (at + 1) % self.slots.len();
        }
        (at, hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }

    #[test]
    fn the_latest_offset_of_each_key_is_known_and_no_other_key_is() {
        let mut map = KeyMap::new(1000, usize::MAX);
        for n in 0..3000_i64 {
            map.put(&(n % 1000).to_be_bytes(), offset(n)).unwrap();
        }

        for key in 0..1000_i64 {
            assert_eq!(map.get(&key.to_be_bytes()), Some(offset(2000 + key)));
        }
        assert_eq!(map.get(&1000_i64.to_be_bytes()), None);
        assert_eq!(map.get(b""), None);
    }

    #[test]
    fn a_table_takes_no_more_bytes_than_it_may_and_says_when_it_is_full() {
        let mut map = KeyMap::new(u64::MAX, 100 * size_of::<Slot>());
        for key in 0..90_i64 {
            map.put(&key.to_be_bytes(), offset(key)).unwrap();
        }

        assert_eq!(map.put(b"one more", offset(90)), Err(Full));
        assert_eq!(map.slots.len(), 100);
        map.put(&7_i64.to_be_bytes(), offset(91)).unwrap();
        assert_eq!(map.get(&7_i64.to_be_bytes()), Some(offset(91)));
        assert_eq!(map.get(b"one more"), None);
    }
}
