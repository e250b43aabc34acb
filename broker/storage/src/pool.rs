//! Bounded numbers of open descriptors and maps, and the index blocks that all share.
//!
//! Whoever opens one more than the bound first closes one that was not used lately: second chance, which is LRU to
//! within a lap. A use sets a mark and takes no lock of the pool; only opening does. It knows neither files nor maps
//! but that they can be let go of.
//!
//! Invariants: (1) what is in use is never let go of, so the bound may be passed by as many as are in use at once;
//! (2) what has unsynced bytes is made durable before it is let go of, and only if nothing else is to be had.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};

use crate::block_cache::BlockCache;

/// Most maps. Linux allows a process 65,530 of all kinds (`vm.max_map_count`).
const MAPS_MAX: usize = 8192;
/// How many of those with unsynced bytes one opening makes durable at most.
const SYNCS_MAX: usize = 4;

/// The bounds that the files of a data directory share.
#[derive(Debug)]
pub struct FilePool {
    pub(crate) descriptors: Clock,
    pub(crate) maps: Clock,
    pub(crate) blocks: BlockCache,
}

impl FilePool {
    /// A pool of at most so many descriptors.
    pub fn new(descriptors_max: usize) -> Arc<Self> {
        Arc::new(Self {
            descriptors: Clock::new(descriptors_max),
            maps: Clock::new(MAPS_MAX),
            blocks: BlockCache::new(),
        })
    }

    /// How many descriptors are open.
    pub fn descriptors_open(&self) -> usize {
        self.descriptors.open.load(Ordering::Relaxed)
    }
}

/// What became of a wish that something be let go of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LetGo {
    /// It was.
    Done,
    /// There was nothing to let go of.
    Nothing,
    /// Somebody is using it.
    InUse,
    /// It has unsynced bytes.
    Unsynced,
}

/// Something that can be opened again.
pub(crate) trait Reopenable: Debug + Send + Sync {
    /// Its marks.
    fn marks(&self) -> &Marks;
    /// Lets go of what is open, without waiting for anyone and without syncing.
    fn let_go(&self) -> LetGo;
    /// Makes what is open durable and lets go of it, unless it is in use by now.
    fn sync_and_let_go(&self) -> LetGo;
}

/// What the pool and the one who uses something tell each other.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    used: AtomicBool,
    listed: AtomicBool,
}

impl Marks {
    /// It was used. Read first, so that readers on many cores do not take the line from each other.
    pub(crate) fn note_use(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that it is listed, as who opens it does; says whether that is news, so that it has to be.
    #[cfg(test)]
    pub(crate) fn note_listed(&self) -> bool {
        !self.listed.swap(true, Ordering::Relaxed)
    }
}

/// A bounded number of things that are open.
#[derive(Debug)]
pub(crate) struct Clock {
    max: usize,
    open: AtomicUsize,
    /// What may be open, each at most once, the next to be looked at first.
    ring: Mutex<VecDeque<Weak<dyn Reopenable>>>,
}

impl Clock {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, open: AtomicUsize::new(0), ring: Mutex::new(VecDeque::new()) }
    }

    /// Makes room for one more, which the caller opens next. If that fails, it calls [`Clock::release`].
    pub(crate) fn admit(&self, newcomer: &Arc<impl Reopenable + 'static>) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let over = open.saturating_sub(self.max);
        if over > 0 {
            self.make_room(over);
        }
        newcomer.marks().note_use();
        if !newcomer.marks().listed.swap(true, Ordering::Relaxed) {
            let weak = Arc::downgrade(newcomer);
            self.ring.lock().push_back(weak);
        }
    }

    /// One is closed that the pool did not close itself.
    pub(crate) fn release(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Lets go of `wanted`, if that many are to be had.
    pub(crate) fn make_room(&self, wanted: usize) {
        let (mut left, unsynced) = self.sweep(wanted);
        for one in unsynced {
            if left == 0 {
                break;
            }
            if one.sync_and_let_go() == LetGo::Done {
                self.release();
                left -= 1;
            }
        }
    }

    /// Two laps at most: the first takes marks back, the second finds them gone. Says how many are still wanted, and
    /// what could be let go of after a sync, which nobody should wait for under the ring's lock.
    fn sweep(&self, wanted: usize) -> (usize, Vec<Arc<dyn Reopenable>>) {
        let (mut left, mut unsynced) = (wanted, Vec::new());
        let mut ring = self.ring.lock();
        for _ in 0..2 * ring.len() {
            if left == 0 {
                break;
            }
            let Some(weak) = ring.pop_front() else { break };
            let Some(one) = weak.upgrade() else { continue };
            if one.marks().used.swap(false, Ordering::Relaxed) {
                ring.push_back(weak);
                continue;
            }
            // Before it is let go of: whoever opens it again from then on puts it back.
            one.marks().listed.store(false, Ordering::Relaxed);
            match one.let_go() {
                LetGo::Done => {
                    self.release();
                    left -= 1;
                }
                LetGo::Nothing => {}
                LetGo::InUse => list(&mut ring, one.marks(), weak),
                LetGo::Unsynced => {
                    list(&mut ring, one.marks(), weak);
                    if unsynced.len() < SYNCS_MAX {
                        unsynced.push(one);
                    }
                }
            }
        }
        (left, unsynced)
    }
}

/// Puts back what could not be let go of, unless it was opened again meanwhile and is about to be.
fn list(ring: &mut VecDeque<Weak<dyn Reopenable>>, marks: &Marks, weak: Weak<dyn Reopenable>) {
    if !marks.listed.swap(true, Ordering::Relaxed) {
        ring.push_back(weak);
    }
}
