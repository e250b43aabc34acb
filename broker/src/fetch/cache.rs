//! Which fetch sessions are kept: at most so many, with at most so many partitions, and who gives way to whom.
//!
//! The rule is Kafka's (`FetchSessionCacheShard.tryEvict`): a new session takes the place of one that nobody has used
//! for two minutes; failing that, of the least valuable one that is two minutes old, if it is worth more; followers
//! are worth more than consumers and may take a consumer's place at any age; more partitions are worth more than
//! fewer. Who finds no place fetches without a session, and nobody gives way to him. The bounds on partitions are ours.
//! Time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_protocol::ErrorCode;
use parking_lot::Mutex;

use super::session::{Increment, Session};
use crate::metrics;

/// Most sessions (`max.incremental.fetch.session.cache.slots`).
const SESSIONS_MAX: usize = 1000;
/// Most partitions of all sessions together, at about 300 bytes each.
const PARTITIONS_MAX: usize = 200_000;
/// Most partitions of one session, so that it cannot take the place of all others; more than a broker has.
const SESSION_PARTITIONS_MAX: usize = PARTITIONS_MAX / 4;
/// How long a session is safe (`min.incremental.fetch.session.eviction.ms`).
const SAFE_FOR: Duration = Duration::from_secs(120);

/// Who fetches; followers are served first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fetcher {
    Consumer,
    Follower,
}

/// The order in which sessions give way, the first one first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Worth {
    fetcher: Fetcher,
    partitions: usize,
    id: i32,
}

struct Bounds {
    sessions_max: usize,
    partitions_max: usize,
    session_partitions_max: usize,
    safe_for: Duration,
}

/// What is kept, by id.
struct Cache<S> {
    bounds: Bounds,
    entries: HashMap<i32, Entry<S>>,
    by_use: BTreeSet<(Instant, i32)>,
    /// Those that a consumer may take the place of, and those that a follower may.
    evictable: [BTreeSet<Worth>; 2],
    partitions: usize,
    /// Those that gave way, until somebody takes them.
    evicted: Vec<S>,
}

struct Entry<S> {
    session: S,
    worth: Worth,
    created: Instant,
    used: Instant,
}

impl<S> Cache<S> {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: HashMap::new(),
            by_use: BTreeSet::new(),
            evictable: Default::default(),
            partitions: 0,
            evicted: Vec::new(),
        }
    }

    /// Keeps `session` under `id`, which must be free, if there is room or others give way. False if it finds no place.
    fn admit(&mut self, (id, session): (i32, S), fetcher: Fetcher, partitions: usize, now: Instant) -> bool {
        if partitions > self.bounds.session_partitions_max {
            return false;
        }
        let worth = Worth { fetcher, partitions, id };
        let Some(victims) = self.victims(worth, now) else {
            return false;
        };
        let gone: Vec<S> = victims.into_iter().filter_map(|id| self.remove(id)).collect();
        self.evicted.extend(gone);
        self.partitions += partitions;
        self.by_use.insert((now, id));
        let entry = Entry { session, worth, created: now, used: now };
        self.set_evictable(&entry, now);
        self.entries.insert(id, entry);
        true
    }

    /// Those that must give way to a session of that worth, as few as make room for it; `None` if those that would do
    /// not make enough.
    fn victims(&self, newcomer: Worth, now: Instant) -> Option<Vec<i32>> {
        let is_unused = |used: Instant| now.saturating_duration_since(used) > self.bounds.safe_for;
        let unused = self.by_use.iter().take_while(|(used, _)| is_unused(*used)).map(|(_, id)| *id);
        // Of equal worth the newcomer gives way, as in Kafka, where it is compared under the id 0.
        let compared = Worth { id: 0, ..newcomer };
        let lesser = self.evictable[newcomer.fetcher as usize].iter().take_while(|worth| compared >= **worth);
        let is_used = |id: &i32| self.entries.get(id).is_some_and(|entry| !is_unused(entry.used));
        let mut candidates = unused.chain(lesser.map(|worth| worth.id).filter(is_used));

        let (mut victims, mut partitions) = (Vec::new(), self.partitions);
        while self.entries.len() - victims.len() >= self.bounds.sessions_max
            || partitions + newcomer.partitions > self.bounds.partitions_max
        {
            let victim = candidates.next()?;
            partitions -= self.entries.get(&victim).map_or(0, |entry| entry.worth.partitions);
            victims.push(victim);
        }
        Some(victims)
    }

    /// Notes that a session is used and how many partitions it has now. False if it has outgrown the bounds and is gone.
    fn touch(&mut self, id: i32, partitions: usize, now: Instant) -> bool {
        let Some(entry) = self.remove_entry(id) else { return true };
        if partitions > self.bounds.session_partitions_max
            || self.partitions + partitions > self.bounds.partitions_max
        {
            return false;
        }
        self.partitions += partitions;
        self.by_use.insert((now, id));
        let entry = Entry { worth: Worth { partitions, ..entry.worth }, used: now, ..entry };
        self.set_evictable(&entry, now);
        self.entries.insert(id, entry);
        true
    }

    fn set_evictable(&mut self, entry: &Entry<S>, now: Instant) {
        let aged = now.saturating_duration_since(entry.created) > self.bounds.safe_for;
        let [by_consumers, by_followers] = &mut self.evictable;
        if aged {
            by_consumers.insert(entry.worth);
        }
        if aged || entry.worth.fetcher == Fetcher::Consumer {
            by_followers.insert(entry.worth);
        }
    }

    fn remove(&mut self, id: i32) -> Option<S> {
        self.remove_entry(id).map(|entry| entry.session)
    }

    fn remove_entry(&mut self, id: i32) -> Option<Entry<S>> {
        let entry = self.entries.remove(&id)?;
        self.by_use.remove(&(entry.used, id));
        for evictable in &mut self.evictable {
            evictable.remove(&entry.worth);
        }
        self.partitions -= entry.worth.partitions;
        Some(entry)
    }
}

/// The fetch sessions of a broker.
pub(crate) struct FetchSessions {
    cache: Mutex<Cache<Arc<Session>>>,
}

impl FetchSessions {
    /// None yet.
    pub(crate) fn new() -> Self {
        let bounds = Bounds {
            sessions_max: SESSIONS_MAX,
            partitions_max: PARTITIONS_MAX,
            session_partitions_max: SESSION_PARTITIONS_MAX,
            safe_for: SAFE_FOR,
        };
        Self { cache: Mutex::new(Cache::new(bounds)) }
    }

    /// Closes a session, if there is one.
    pub(crate) fn close(&self, id: i32) {
        // Dropped when the cache is free again: it leaves its partitions.
        let closed = self.with_cache(|cache| cache.remove(id));
        drop(closed);
    }

    /// Keeps a session for later requests; its id, unless there is no place for it.
    pub(crate) fn admit(&self, session: &Arc<Session>, fetcher: Fetcher, now: Instant) -> Option<i32> {
        let partitions = session.partition_count();
        let admitted = self.with_cache(|cache| {
            let id = free_id(cache);
            cache.admit((id, Arc::clone(session)), fetcher, partitions, now).then_some(id)
        });
        if admitted.is_some() {
            session.keep();
        }
        admitted
    }

    /// Takes up an incremental request: the session, and the epoch of the request after this one. `None` instead of a
    /// session if none of its partitions is left: the session is closed, and the request stands for itself.
    pub(crate) fn resume(
        &self,
        id: i32,
        increment: &Increment,
        now: Instant,
    ) -> Result<Option<(Arc<Session>, i32)>, ErrorCode> {
        let found = self.cache.lock().entries.get(&id).map(|entry| Arc::clone(&entry.session));
        let session = found.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let epoch = session.advance(increment)?;
        let partitions = session.partition_count();
        if partitions == 0 {
            self.close(id);
            return Ok(None);
        }
        if !self.with_cache(|cache| cache.touch(id, partitions, now)) {
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        Ok(Some((session, epoch)))
    }

    fn with_cache<T>(&self, change: impl FnOnce(&mut Cache<Arc<Session>>) -> T) -> T {
        let mut cache = self.cache.lock();
        let result = change(&mut cache);
        metrics::set_fetch_sessions(cache.entries.len(), cache.partitions);
        let evicted = std::mem::take(&mut cache.evicted);
        drop(cache);
        metrics::count_fetch_session_evictions(evicted.len() as u64);
        result
    }
}

/// A positive id that no session has. Not guessable by counting.
fn free_id<S>(cache: &Cache<S>) -> i32 {
    loop {
        let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
        let id = i32::from_be_bytes([a & 0x7f, b, c, d]);
        if id != 0 && !cache.entries.contains_key(&id) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache for two sessions and 100 partitions, at most 80 of them in one, whose sessions are named by letters, and
    /// its clock in seconds.
    struct Played {
        cache: Cache<char>,
        start: Instant,
    }

    impl Played {
        fn new() -> Self {
            Self::with_room_for(2)
        }

        fn with_room_for(sessions_max: usize) -> Self {
            let safe_for = Duration::from_secs(120);
            let bounds = Bounds { sessions_max, partitions_max: 100, session_partitions_max: 80, safe_for };
            Self { cache: Cache::new(bounds), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Admits a session under the number of its letter; those that gave way to it, or `None` if it found no place.
        fn admit(
            &mut self,
            name: char,
            fetcher: Fetcher,
            partitions: usize,
            seconds: u64,
        ) -> Option<Vec<char>> {
            let now = self.at(seconds);
            let admitted = self.cache.admit((name as i32, name), fetcher, partitions, now);
            admitted.then(|| std::mem::take(&mut self.cache.evicted))
        }

        fn touch(&mut self, name: char, partitions: usize, seconds: u64) -> bool {
            let now = self.at(seconds);
            self.cache.touch(name as i32, partitions, now)
        }

        /// With two consumers of ten and twenty partitions.
        fn full() -> Self {
            let mut played = Self::new();
            assert_eq!(played.admit('a', Fetcher::Consumer, 10, 0), Some(vec![]));
            assert_eq!(played.admit('b', Fetcher::Consumer, 20, 1), Some(vec![]));
            played
        }
    }

    #[test]
    fn young_sessions_that_are_used_keep_their_places() {
        let mut played = Played::full();

        assert_eq!(played.admit('c', Fetcher::Consumer, 50, 120), None);
        assert!(played.cache.evicted.is_empty());
    }

    #[test]
    fn a_session_that_nobody_used_gives_way_to_anyone() {
        let mut played = Played::full();
        played.touch('a', 10, 100);

        assert_eq!(played.admit('c', Fetcher::Consumer, 1, 122), Some(vec!['b']));
    }

    #[test]
    fn an_old_session_in_use_gives_way_to_one_with_more_partitions() {
        let mut played = Played::full();
        played.touch('a', 10, 130);
        played.touch('b', 20, 130);

        assert_eq!(played.admit('c', Fetcher::Consumer, 9, 131), None);
        // Kafka compares the newcomer as if its id were 0: at the same size it gives way as well.
        assert_eq!(played.admit('c', Fetcher::Consumer, 10, 131), None);
        assert_eq!(played.admit('c', Fetcher::Consumer, 11, 131), Some(vec!['a']));
    }

    #[test]
    fn a_follower_takes_the_place_of_the_smallest_consumer_at_any_age() {
        let mut played = Played::full();

        assert_eq!(played.admit('f', Fetcher::Follower, 1, 2), Some(vec!['a']));
        assert_eq!(played.admit('g', Fetcher::Follower, 1, 2), Some(vec!['b']));
        // Of followers, which are young, none gives way.
        assert_eq!(played.admit('h', Fetcher::Follower, 50, 3), None);
        assert_eq!(played.admit('c', Fetcher::Consumer, 50, 3), None);
    }

    #[test]
    fn partitions_of_all_sessions_are_bounded() {
        let mut played = Played::new();
        played.admit('a', Fetcher::Consumer, 60, 0);

        assert_eq!(played.admit('b', Fetcher::Consumer, 41, 1), None);
        assert_eq!(played.admit('b', Fetcher::Consumer, 81, 1000), None, "no session may be that large");
        assert_eq!(played.admit('b', Fetcher::Consumer, 40, 1), Some(vec![]));
        assert!(!played.touch('a', 61, 2), "a session cannot outgrow the bound either");
        assert_eq!(played.admit('c', Fetcher::Consumer, 20, 3), Some(vec![]));
        assert!(!played.touch('b', 81, 4), "nor its own");
        assert_eq!(played.cache.partitions, 20);
    }

    #[test]
    fn as_few_sessions_as_make_room_give_way_and_none_if_they_do_not() {
        let mut played = Played::with_room_for(9);
        for (name, partitions) in [('a', 10), ('b', 20), ('c', 70)] {
            assert_eq!(played.admit(name, Fetcher::Consumer, partitions, 0), Some(vec![]));
        }
        played.touch('b', 20, 130);
        played.touch('c', 70, 130);

        // Nobody used the first, and the second is worth less: not enough.
        assert_eq!(played.admit('d', Fetcher::Consumer, 60, 131), None);
        assert!(played.cache.evicted.is_empty());
        assert_eq!((played.cache.entries.len(), played.cache.partitions), (3, 100));

        assert_eq!(played.admit('d', Fetcher::Consumer, 30, 131), Some(vec!['a', 'b']));
        assert_eq!(played.cache.partitions, 100);
    }

    #[test]
    fn a_session_that_left_leaves_nothing_behind() {
        let mut played = Played::full();
        played.touch('a', 15, 130);

        played.cache.remove('a' as i32);
        played.cache.remove('b' as i32);

        assert_eq!(played.cache.partitions, 0);
        assert!(played.cache.by_use.is_empty());
        assert!(played.cache.evictable.iter().all(BTreeSet::is_empty));
    }
}
