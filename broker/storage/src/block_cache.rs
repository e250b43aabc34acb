//! The blocks of index files that lookups used last.
//!
//! Consumers read in order, so the entries that one lookup read from a file are those that the next ones ask for. A fixed
//! number of blocks is kept for all indexes of a data directory together; two indexes that share a place take it from
//! each other, which costs a read. It knows no entries, only bytes.
//!
//! Invariant: what is kept under a key never changes. An index whose file is cut goes on under a new key.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Blocks that are kept at most, of 3 KiB each.
const BLOCKS_MAX: usize = 256;

/// Under what an index keeps its block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BlockKey(u64);

impl BlockKey {
    /// A key that nobody had before.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Consecutive entries of an index file.
#[derive(Debug)]
pub(crate) struct Block {
    /// The number of the first entry.
    pub(crate) first: u32,
    /// The entries as they are in the file.
    pub(crate) bytes: Box<[u8]>,
}

/// Where one of the indexes that share it keeps a block.
type Place = Mutex<Option<(BlockKey, Block)>>;

#[derive(Debug)]
pub(crate) struct BlockCache(Box<[Place]>);

impl BlockCache {
    pub(crate) fn new() -> Self {
        Self((0..BLOCKS_MAX).map(|_| Mutex::new(None)).collect())
    }

    /// Asks the block of an index, if it is kept.
    pub(crate) fn ask<R>(&self, key: BlockKey, question: impl FnOnce(&Block) -> Option<R>) -> Option<R> {
        let place = self.place(key).lock();
        let (owner, block) = place.as_ref()?;
        if *owner == key { question(block) } else { None }
    }

    /// Keeps a block of an index instead of the one that was kept.
    pub(crate) fn keep(&self, key: BlockKey, block: Block) {
        *self.place(key).lock() = Some((key, block));
    }

    fn place(&self, key: BlockKey) -> &Place {
        &self.0[(key.0 % BLOCKS_MAX as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(first: u32) -> Block {
        Block { first, bytes: Box::default() }
    }

    #[test]
    fn an_index_finds_its_own_block_and_no_other() {
        let cache = BlockCache::new();
        let [mine, yours] = [BlockKey(1), BlockKey(1 + BLOCKS_MAX as u64)];

        cache.keep(mine, block(10));
        assert_eq!(cache.ask(mine, |block| Some(block.first)), Some(10));
        assert_eq!(cache.ask(yours, |block| Some(block.first)), None);

        cache.keep(yours, block(20));
        assert_eq!(cache.ask(mine, |block| Some(block.first)), None, "the place was taken");
        assert_eq!(cache.ask(yours, |block| Some(block.first)), Some(20));
    }
}
