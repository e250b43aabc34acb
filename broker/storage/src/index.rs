//! The two index files of a segment, in Kafka's formats: `.index` and `.timeindex`.
//!
//! Both are arrays of fixed entries that grow together with the segment, sparse and disposable. An index never
//! decides what is in the log: whoever uses an entry checks it against the batch that it points to. Entries are
//! collected and written a few at a time; the newest are kept in memory, because that is where readers look.
//! The files hold entries and nothing else, never reserved space, so that Kafka's tools accept them after a crash.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use highwater_record::{Offset, TimestampMs};
use parking_lot::RwLock;

use crate::block_cache::{Block, BlockKey};
use crate::files::{FileLayer, read_exact_at};
use crate::lazy_file::LazyFile;

/// Entries that are written at once.
const PENDING_MAX: usize = 64;
/// Entries that are kept in memory at most; half of them go when there are more.
const RECENT_MAX: usize = 1024;
/// The search in the file reads this many entries at once in the end.
const BLOCK_ENTRIES: u32 = 256;

/// One fixed-size entry of an index file.
pub(crate) trait Entry: Copy + std::fmt::Debug {
    const BYTES: usize;
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Self;
    /// Whether this entry may come directly after `before`.
    fn follows(&self, before: &Self) -> bool;
}

/// Where a batch begins: the distance of its **last** offset to the base of the segment, and its position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OffsetEntry {
    /// Last offset of the batch, relative to the segment's base offset.
    pub relative_offset: u32,
    /// Position of the batch in the segment.
    pub position: u32,
}

/// The largest timestamp up to and including the batch that ends at an offset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimeEntry {
    /// The timestamp; all records with a larger one come later.
    pub timestamp: TimestampMs,
    /// Last offset of the batch that has it, relative to the segment's base offset.
    pub relative_offset: u32,
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self { relative_offset: be_u32(&bytes[..4]), position: be_u32(&bytes[4..8]) }
    }

    fn follows(&self, before: &Self) -> bool {
        self.relative_offset > before.relative_offset && self.position > before.position
    }
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.0.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let timestamp = (u64::from(be_u32(&bytes[..4])) << 32) | u64::from(be_u32(&bytes[4..8]));
        Self { timestamp: TimestampMs(timestamp as i64), relative_offset: be_u32(&bytes[8..12]) }
    }

    fn follows(&self, before: &Self) -> bool {
        self.timestamp > before.timestamp && self.relative_offset > before.relative_offset
    }
}

impl OffsetEntry {
    /// The entry of a batch, if its offset and position can be expressed.
    pub(crate) fn new(base: Offset, last: Offset, position: u64) -> Option<Self> {
        Some(Self { relative_offset: relative(base, last)?, position: u32::try_from(position).ok()? })
    }
}

impl TimeEntry {
    pub(crate) fn new(base: Offset, last: Offset, timestamp: TimestampMs) -> Option<Self> {
        Some(Self { timestamp, relative_offset: relative(base, last)? })
    }
}

/// Distance of an offset to a segment's base. Kafka keeps it in a signed 32 bit field.
pub(crate) fn relative(base: Offset, offset: Offset) -> Option<u32> {
    u32::try_from(offset.since(base)).ok().filter(|distance| *distance <= i32::MAX as u32)
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

/// One index file.
#[derive(Debug)]
pub(crate) struct Index<E> {
    file: LazyFile,
    state: RwLock<State<E>>,
}

#[derive(Debug)]
struct State<E> {
    /// Entries in the file.
    stored: u32,
    /// The newest entries, those not yet written included.
    recent: Vec<E>,
    /// How many of `recent`, at its end, are not in the file.
    pending: usize,
    /// Under what a block of the file is kept in memory: a new key whenever the file is cut.
    key: BlockKey,
}

impl<E> State<E> {
    fn new(stored: u32) -> Self {
        Self { stored, recent: Vec::new(), pending: 0, key: BlockKey::new() }
    }

    const fn len(&self) -> u32 {
        self.stored + self.pending as u32
    }

    /// Entries that are in the file only.
    const fn older(&self) -> u32 {
        self.len() - self.recent.len() as u32
    }
}

impl<E: Entry> Index<E> {
    /// An index whose file has `stored` entries, or does not exist if that is zero.
    pub(crate) fn new(files: Arc<dyn FileLayer>, path: PathBuf, stored: u32) -> Self {
        Self { file: LazyFile::new(files, path), state: RwLock::new(State::new(stored)) }
    }

    pub(crate) fn len(&self) -> u32 {
        self.state.read().len()
    }

    /// Adds an entry, which reaches the file at the next flush; says whether one is due. An entry that would break
    /// the order is left out.
    pub(crate) fn append(&self, entry: E) -> bool {
        let mut state = self.state.write();
        if state.recent.last().is_some_and(|last| !entry.follows(last)) {
            return false;
        }
        state.recent.push(entry);
        state.pending += 1;
        state.pending.is_multiple_of(PENDING_MAX)
    }

    /// Writes what is pending. Only the writer of the segment calls this.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let (stored, bytes) = {
            let state = self.state.read();
            let mut bytes = Vec::with_capacity(state.pending * E::BYTES);
            state.recent[state.recent.len() - state.pending..].iter().for_each(|e| e.encode(&mut bytes));
            (state.stored, bytes)
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let end = u64::from(stored) * E::BYTES as u64;
        let file = self.file.get_or_create()?;
        let written = file.pwritev(&[IoSlice::new(&bytes)], end);
        self.file.note_unsynced();
        if let Err(error) = written {
            // Half an entry would make the whole file look broken to Kafka's tools.
            file.set_len(end)?;
            return Err(error);
        }
        let mut state = self.state.write();
        state.stored += state.pending as u32;
        state.pending = 0;
        if state.recent.len() > RECENT_MAX {
            state.recent.drain(..RECENT_MAX / 2);
        }
        Ok(())
    }

    /// The last entry.
    pub(crate) fn last(&self) -> io::Result<Option<E>> {
        self.last_where(|_| true)
    }

    /// The same as [`Index::last_where`] from what is in memory alone; nothing if that does not tell.
    pub(crate) fn last_at_hand(&self, matches: impl Fn(&E) -> bool) -> Option<Option<E>> {
        let (older, key) = match self.last_recent(&matches) {
            Ok(found) => return Some(Some(found)),
            Err(rest) => rest,
        };
        if older == 0 { Some(None) } else { self.ask_kept(older, key, matches) }
    }

    /// The last entry for which `matches` holds; it must hold for a prefix of the entries.
    pub(crate) fn last_where(&self, matches: impl Fn(&E) -> bool) -> io::Result<Option<E>> {
        let (older, key) = match self.last_recent(&matches) {
            Ok(found) => return Ok(Some(found)),
            Err(rest) => rest,
        };
        if older == 0 {
            return Ok(None);
        }
        if let Some(known) = self.ask_kept(older, key, &matches) {
            return Ok(known);
        }
        let block = self.find_block(older, &matches)?;
        let found = Self::last_in(&block, older, &matches).flatten();
        if let Some(pool) = self.file.pool() {
            pool.blocks.keep(key, block);
        }
        Ok(found)
    }

    /// The last of the newest entries for which `matches` holds, or how many others there are in the file and under what
    /// a block of those is kept.
    fn last_recent(&self, matches: impl Fn(&E) -> bool) -> Result<E, (u32, BlockKey)> {
        let state = self.state.read();
        let count = state.recent.partition_point(matches);
        count.checked_sub(1).map(|last| state.recent[last]).ok_or((state.older(), state.key))
    }

    fn ask_kept(&self, older: u32, key: BlockKey, matches: impl Fn(&E) -> bool) -> Option<Option<E>> {
        self.file.pool()?.blocks.ask(key, |block| Self::last_in(block, older, matches))
    }

    /// The last entry of `older` ones in the file for which `matches` holds, as far as a block tells: nothing if it
    /// lies outside.
    fn last_in(block: &Block, older: u32, matches: impl Fn(&E) -> bool) -> Option<Option<E>> {
        let entries = block.bytes.chunks_exact(E::BYTES);
        let (mut low, mut high) = (0, entries.len());
        let entry = |number: usize| E::decode(&block.bytes[number * E::BYTES..]);
        while low < high {
            let middle = low + (high - low) / 2;
            if matches(&entry(middle)) { low = middle + 1 } else { high = middle }
        }
        let (from_front, to_end) = (block.first == 0, block.first + entries.len() as u32 >= older);
        match low {
            0 => from_front.then_some(None),
            all if all == entries.len() && !to_end => None,
            count => Some(Some(entry(count - 1))),
        }
    }

    /// Searches the file for the block that has the last of `older` entries for which `matches` holds, if one does.
    fn find_block(&self, older: u32, matches: impl Fn(&E) -> bool) -> io::Result<Block> {
        let file = self.file.get()?;
        let (mut low, mut high) = (0, older);
        let mut bytes = vec![0; E::BYTES];
        // Until the entry after the last that matches is in the block as well, so that the block answers by itself.
        while high - low >= BLOCK_ENTRIES {
            let middle = low + (high - low) / 2;
            read_exact_at(&*file, &mut bytes, u64::from(middle) * E::BYTES as u64)?;
            if matches(&E::decode(&bytes)) {
                low = middle;
            } else {
                high = middle;
            }
        }
        // As many as fit, not only up to `high`: those after it are what is looked for next.
        let count = (older - low).min(BLOCK_ENTRIES);
        let mut bytes = vec![0; count as usize * E::BYTES];
        read_exact_at(&*file, &mut bytes, u64::from(low) * E::BYTES as u64)?;
        Ok(Block { first: low, bytes: bytes.into() })
    }

    /// Reads the whole file and says how many entries from the front are in order.
    pub(crate) fn entries_in_order(&self) -> io::Result<u32> {
        if self.len() == 0 {
            return Ok(0);
        }
        let file = self.file.get()?;
        let mut block = vec![0; BLOCK_ENTRIES as usize * E::BYTES];
        let mut before: Option<E> = None;
        let mut count = 0;
        loop {
            let read = file.pread(&mut block, u64::from(count) * E::BYTES as u64)?;
            for entry in block[..read].chunks_exact(E::BYTES).map(E::decode) {
                if before.is_some_and(|before| !entry.follows(&before)) {
                    return Ok(count);
                }
                before = Some(entry);
                count += 1;
            }
            if read < block.len() {
                return Ok(count);
            }
        }
    }

    /// Keeps the first `count` entries, all of which must be in the file or in memory.
    pub(crate) fn truncate(&self, count: u32) -> io::Result<()> {
        self.flush()?;
        let mut state = self.state.write();
        self.file.get_or_create()?.set_len(u64::from(count) * E::BYTES as u64)?;
        *state = State::new(count);
        Ok(())
    }

    /// Keeps the first `count` entries if there are more.
    pub(crate) fn truncate_if_shorter(&self, count: u32) -> io::Result<()> {
        if count < self.len() { self.truncate(count) } else { Ok(()) }
    }

    /// How many entries match; they must be a prefix.
    pub(crate) fn count_where(&self, matches: impl Fn(&E) -> bool) -> io::Result<u32> {
        let len = self.len();
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle)? {
                Some(entry) if matches(&entry) => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The entry with this number, if there are so many.
    pub(crate) fn entry(&self, number: u32) -> io::Result<Option<E>> {
        {
            let state = self.state.read();
            if number >= state.len() {
                return Ok(None);
            }
            if number >= state.older() {
                return Ok(Some(state.recent[(number - state.older()) as usize]));
            }
        }
        let mut bytes = vec![0; E::BYTES];
        read_exact_at(&*self.file.get()?, &mut bytes, u64::from(number) * E::BYTES as u64)?;
        Ok(Some(E::decode(&bytes)))
    }

    /// Makes the file durable, after a flush.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.state.read().stored == 0 { Ok(()) } else { self.file.sync() }
    }

    /// Makes an empty file for a new segment. Entries of an earlier segment of the same name go.
    pub(crate) fn create(&self) -> io::Result<()> {
        self.file.get_or_create()?.set_len(0)?;
        // The first entries come much later than the segment, if at all.
        self.file.close();
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.file.close();
    }

    /// Keeps the file open from now on: see [`LazyFile::pin`].
    pub(crate) fn pin(&self) -> io::Result<()> {
        self.file.pin()
    }

    pub(crate) fn unpin(&self) {
        self.file.unpin();
    }

    pub(crate) fn remove(&self) {
        self.file.remove();
    }

    pub(crate) fn path(&self) -> &PathBuf {
        self.file.path()
    }
}
