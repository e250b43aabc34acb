//! One fetch session: partitions that are kept between requests, and the epoch that keeps its requests in order.
//!
//! A session belongs to no connection. Of requests that come at once the later one goes on: it moves the epoch, and
//! the earlier one finds that it did and fails (Kafka: `FetchContext.IncrementalFetchContext`). A fetch without a
//! session is one that nobody can name. Knows neither ids nor the cache.

use highwater_protocol::ErrorCode;
use parking_lot::Mutex;

use super::read::{Found, Reading, Wanted};
use super::set::{Ask, Key, PartitionSet};
use super::watch::Turn;
use crate::topics::Topics;

/// How the partitions of a session are named (KIP-516); it cannot change on the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Naming {
    Names,
    Ids,
}

/// The epoch that a session's second request carries.
const EPOCH_FIRST: i32 = 1;

/// The epoch after `epoch`; 0 and below have other meanings (Kafka: `FetchMetadata.nextEpoch`).
const fn next_epoch(epoch: i32) -> i32 {
    match epoch.checked_add(1) {
        Some(next) => next,
        None => EPOCH_FIRST,
    }
}

/// Partitions that are fetched together.
pub(crate) struct Session {
    naming: Naming,
    state: Mutex<State>,
}

struct State {
    /// What the next request must carry.
    epoch: i32,
    partitions: PartitionSet,
}

/// A later request of the session went on in place of this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Superseded;

/// What is to be done after a pass that found too little.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Settled {
    /// Wait for the next turn of the watch.
    Wait,
    /// Count again: the partitions were not watched before.
    Again,
}

/// An incremental request.
pub(crate) struct Increment {
    /// The epoch that it carries.
    pub(crate) epoch: i32,
    pub(crate) naming: Naming,
    /// Partitions to add, or to ask another thing of.
    pub(crate) asks: Vec<(Key, Ask)>,
    /// Partitions to take out.
    pub(crate) forgotten: Vec<Key>,
}

impl Session {
    /// A session whose first request asks for `asks`.
    pub(crate) fn new(naming: Naming, asks: impl IntoIterator<Item = (Key, Ask)>) -> Self {
        let mut partitions = PartitionSet::default();
        asks.into_iter().for_each(|(key, ask)| partitions.put(key, ask));
        Self { naming, state: Mutex::new(State { epoch: EPOCH_FIRST, partitions }) }
    }

    /// What the next request must carry.
    pub(crate) fn epoch(&self) -> i32 {
        self.state.lock().epoch
    }

    /// How many partitions there are.
    pub(crate) fn partition_count(&self) -> usize {
        self.state.lock().partitions.len()
    }

    /// Takes up an incremental request; the epoch that the request after it must carry.
    pub(crate) fn advance(&self, increment: &Increment) -> Result<i32, ErrorCode> {
        let mut state = self.state.lock();
        if state.epoch != increment.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if self.naming != increment.naming {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        for (key, ask) in &increment.asks {
            state.partitions.put(key.clone(), *ask);
        }
        increment.forgotten.iter().for_each(|key| state.partitions.forget(key));
        state.epoch = next_epoch(state.epoch);
        Ok(state.epoch)
    }

    /// Begins a pass of the request before `epoch`, which waits for `bytes_min`.
    pub(crate) fn begin(
        &self,
        epoch: i32,
        topics: &Topics,
        bytes_min: u64,
    ) -> Result<(Turn, Vec<Wanted>), Superseded> {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Err(Superseded);
        }
        Ok(state.partitions.begin(topics, bytes_min))
    }

    /// Takes note of a pass that found too little.
    pub(crate) fn settle(&self, epoch: i32, reading: &Reading) -> Result<Settled, Superseded> {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Err(Superseded);
        }
        if state.partitions.watch_from_now() {
            return Ok(Settled::Again);
        }
        state.partitions.settle(&reading.found);
        state.partitions.watch().credit(reading.readable_bytes);
        Ok(Settled::Wait)
    }

    /// Waits until another pass is worth it.
    pub(crate) async fn woken(&self, turn: Turn) {
        let watch = std::sync::Arc::clone(self.state.lock().partitions.watch());
        watch.woken(turn).await;
    }

    /// What the client must be told of a pass.
    pub(crate) fn answer(&self, epoch: i32, reading: Reading) -> Result<Vec<Found>, Superseded> {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Err(Superseded);
        }
        Ok(state.partitions.answer(reading.found))
    }

    /// Watches the partitions from now on, because the session stays.
    pub(crate) fn keep(&self) {
        self.state.lock().partitions.watch_from_now();
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::wire::Str;

    use super::super::set::TopicKey;
    use super::*;

    fn ask() -> Ask {
        Ask { current_leader_epoch: -1, fetch_offset: 0, bytes_max: 100 }
    }

    fn key(index: i32) -> Key {
        Key { topic: TopicKey::Name(Str::from("t")), index }
    }

    fn increment(epoch: i32) -> Increment {
        Increment { epoch, naming: Naming::Names, asks: Vec::new(), forgotten: Vec::new() }
    }

    /// A session of three partitions of a topic that does not exist.
    fn session() -> Session {
        Session::new(Naming::Names, (0..3).map(|index| (key(index), ask())))
    }

    #[test]
    fn each_request_carries_the_epoch_after_the_one_before() {
        let session = session();

        assert_eq!(session.advance(&increment(1)), Ok(2));
        assert_eq!(session.advance(&increment(1)), Err(ErrorCode::InvalidFetchSessionEpoch));
        assert_eq!(session.advance(&increment(3)), Err(ErrorCode::InvalidFetchSessionEpoch));
        assert_eq!(session.advance(&increment(2)), Ok(3));
    }

    #[test]
    fn epochs_go_on_with_one_after_the_largest() {
        let session = session();
        session.state.lock().epoch = i32::MAX;

        assert_eq!(session.advance(&increment(i32::MAX)), Ok(1));
        assert_eq!(session.advance(&increment(1)), Ok(2));
    }

    #[test]
    fn the_form_of_topics_cannot_change_on_the_way() {
        let session = session();
        let ids = Increment { naming: Naming::Ids, ..increment(1) };

        assert_eq!(session.advance(&ids), Err(ErrorCode::FetchSessionTopicIdError));
        // The refused request moved nothing.
        assert_eq!(session.advance(&increment(1)), Ok(2));
    }

    #[test]
    fn an_increment_adds_and_forgets_partitions() {
        let session = session();

        let asks = vec![(key(2), ask()), (key(7), ask())];
        session.advance(&Increment { asks, forgotten: vec![key(0), key(9)], ..increment(1) }).unwrap();

        let (_, wanted) = session.begin(2, &Topics::default(), 1).unwrap();
        assert_eq!(wanted.iter().map(|wanted| wanted.index).collect::<Vec<_>>(), [1, 2, 7]);
    }

    /// Whether a fetch that is parked in `turn` would go on.
    fn wakes(session: &Session, turn: Turn) -> bool {
        let woken = std::pin::pin!(session.woken(turn));
        woken.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn bytes_that_are_credited_and_counted_both_are_a_reason_to_count_again_and_no_more() {
        let (session, topics) = (session(), Topics::default());
        let counted = Reading { readable_bytes: 600, ..Reading::default() };
        session.keep();
        let (turn, _) = session.begin(1, &topics, 1000).unwrap();

        // 600 bytes arrive after the partitions are watched and before they are counted.
        session.state.lock().partitions.watch().credit(600);
        assert_eq!(session.settle(1, &counted), Ok(Settled::Wait));
        assert!(wakes(&session, turn));
        let (turn, _) = session.begin(1, &topics, 1000).unwrap();
        assert_eq!(session.settle(1, &counted), Ok(Settled::Wait));

        assert!(!wakes(&session, turn));
    }

    #[test]
    fn partitions_that_were_not_watched_are_counted_again() {
        let (session, topics) = (session(), Topics::default());
        session.begin(1, &topics, 1000).unwrap();

        assert_eq!(session.settle(1, &Reading::default()), Ok(Settled::Again));

        assert_eq!(session.begin(1, &topics, 1000).unwrap().1.len(), 3);
        assert_eq!(session.settle(1, &Reading::default()), Ok(Settled::Wait));
    }

    #[test]
    fn a_request_finds_that_a_later_one_took_over() {
        let session = session();
        let topics = Topics::default();
        let epoch = session.advance(&increment(1)).unwrap();
        let (_, taken) = session.begin(epoch, &topics, 1).unwrap();

        let later = session.advance(&increment(2)).unwrap();

        assert_eq!(session.settle(epoch, &Reading::default()), Err(Superseded));
        assert!(session.answer(epoch, Reading::default()).is_err());
        assert!(session.begin(epoch, &topics, 1).is_err());
        let (_, again) = session.begin(later, &topics, 1).unwrap();
        assert_eq!(again.len(), taken.len(), "what the earlier one took is read by the later one");
    }
}
