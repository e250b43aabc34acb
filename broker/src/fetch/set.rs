//! The partitions of a fetch or a fetch session: what was asked of each, what the client was told, and which of them
//! are worth reading.
//!
//! A set that is registered at its partitions hears when they move, so that a pass reads only those that did. Until
//! it is registered every pass reads all. Knows neither epochs nor sessions, and reads nothing itself.
//!
//! Invariants: (1) a partition that is neither due nor marked would be left out of an incremental answer: it has no
//! bytes at its fetch offset, no error, and the client knows its high watermark and log start; (2) no partition is
//! kept alive by a set, so that a deleted topic's files are not held by a client that went away.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use highwater_protocol::ErrorCode;
use highwater_protocol::api::fetch::FetchPartition;
use highwater_protocol::wire::{Str, Uuid};
use highwater_record::{TopicId, TopicName};

use super::read::{Found, Wanted};
use super::watch::{Registration, Turn, Watch};
use crate::partition::Partition;
use crate::topics::Topics;

/// A topic as the client names it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum TopicKey {
    /// By name, before version 13. Detached from the request's frame.
    Name(Str),
    /// By id, from version 13 on.
    Id(Uuid),
}

/// A partition as the client names it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key {
    pub(crate) topic: TopicKey,
    pub(crate) index: i32,
}

/// What is asked of a partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ask {
    /// The epoch that the client believes in, or below 0.
    pub(crate) current_leader_epoch: i32,
    /// As it came: it may be no offset at all.
    pub(crate) fetch_offset: i64,
    pub(crate) bytes_max: u32,
}

impl Ask {
    /// What a request asks.
    pub(crate) fn of(partition: &FetchPartition) -> Self {
        Self {
            current_leader_epoch: partition.current_leader_epoch,
            fetch_offset: partition.fetch_offset,
            bytes_max: u32::try_from(partition.partition_max_bytes).unwrap_or(0),
        }
    }
}

/// What the client was told last; both are -1 after an error, as on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Told {
    high_watermark: i64,
    log_start: i64,
}

struct Slot {
    key: Key,
    /// Its place among the others.
    order: u64,
    ask: Ask,
    told: Option<Told>,
    /// The name that the topic had when its id was known.
    name: Option<TopicName>,
    partition: Weak<Partition>,
    registration: Option<Arc<Registration>>,
}

impl Slot {
    /// Whether an incremental answer must say this (Kafka: `CachedPartition.maybeUpdateResponseData`).
    fn is_news(&self, found: &Found) -> bool {
        found.has_records() || found.failed() || self.told != Some(told_by(found))
    }

    /// The partition, looked up again if it is not in service under the handle that was kept.
    fn resolve(&mut self, topics: &Topics) -> Result<Arc<Partition>, ErrorCode> {
        match self.partition.upgrade() {
            Some(partition) if partition.leader_epoch().is_ok() => Ok(partition),
            _ => look_up(topics, &self.key, &mut self.name),
        }
    }

    /// Sees to it that the slot is registered at `partition` and nowhere else.
    fn register(&mut self, watch: &Arc<Watch>, number: u32, partition: &Arc<Partition>) {
        if self.registration.is_some() && std::ptr::eq(self.partition.as_ptr(), Arc::as_ptr(partition)) {
            return;
        }
        self.leave();
        let registration = Registration::new(watch, number, self.ask.bytes_max.into());
        partition.fetches.enter(&registration);
        self.registration = Some(registration);
    }

    fn leave(&mut self) {
        if let (Some(registration), Some(partition)) = (self.registration.take(), self.partition.upgrade()) {
            partition.fetches.leave(&registration);
        }
    }
}

fn told_by(found: &Found) -> Told {
    Told { high_watermark: found.data.high_watermark, log_start: found.data.log_start_offset }
}

/// Finds a partition as Kafka does: an id whose name was known before and is gone, or names another topic now, says so.
fn look_up(topics: &Topics, key: &Key, name: &mut Option<TopicName>) -> Result<Arc<Partition>, ErrorCode> {
    let topic = match &key.topic {
        TopicKey::Name(asked) => TopicName::new(asked).ok().and_then(|name| topics.by_name(&name)),
        TopicKey::Id(id) => match TopicId::new(*id.as_bytes()).and_then(|id| topics.by_id(id)) {
            Some(topic) => {
                *name = Some(topic.name.clone());
                Some(topic)
            }
            None => {
                let name = name.as_ref().ok_or(ErrorCode::UnknownTopicId)?;
                let other = topics.by_name(name);
                return match other.as_ref().and_then(|topic| topic.partition(key.index)) {
                    Some(_) => Err(ErrorCode::InconsistentTopicId),
                    None => Err(ErrorCode::UnknownTopicOrPartition),
                };
            }
        },
    };
    let found = topic.as_ref().and_then(|topic| topic.partition(key.index)).cloned();
    found.ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// The partitions of one fetch or session, in the order in which they are read.
#[derive(Default)]
pub(crate) struct PartitionSet {
    watch: Arc<Watch>,
    slots: Vec<Option<Slot>>,
    vacant: Vec<u32>,
    by_key: HashMap<Key, u32>,
    next_order: u64,
    registered: bool,
    /// Whether the client was told of all partitions once.
    answered: bool,
    /// Slots to read in the next pass whether they are marked or not. What a pass took stays here until it is
    /// settled, since the fetch may be dropped in between.
    due: Vec<u32>,
}

impl PartitionSet {
    /// How many partitions there are.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// What the partitions report to.
    pub(crate) const fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Adds a partition at the end, or asks another thing of one that is there.
    pub(crate) fn put(&mut self, key: Key, ask: Ask) {
        if let Some(number) = self.by_key.get(&key) {
            self.due.push(*number);
            if let Some(Some(slot)) = self.slots.get_mut(*number as usize) {
                slot.ask = ask;
            }
            return;
        }
        let slot = Slot {
            key: key.clone(),
            order: self.next_order,
            ask,
            told: None,
            name: None,
            partition: Weak::new(),
            registration: None,
        };
        self.next_order += 1;
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // A request of 2^32 partitions fits into no frame.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.slots[number as usize] = Some(slot);
        self.by_key.insert(key, number);
        self.due.push(number);
    }

    /// Takes a partition out, if it is there.
    pub(crate) fn forget(&mut self, key: &Key) {
        let Some(number) = self.by_key.remove(key) else { return };
        if let Some(mut slot) = self.slots.get_mut(number as usize).and_then(Option::take) {
            slot.leave();
        }
        self.vacant.push(number);
    }

    /// From the next pass on, watches the partitions. False if it does already.
    pub(crate) fn watch_from_now(&mut self) -> bool {
        if self.registered {
            return false;
        }
        self.registered = true;
        // What moved before the registration was not heard.
        self.due = self.by_key.values().copied().collect();
        true
    }

    /// Begins a pass of a fetch that waits for `bytes_min`: what to read, in order.
    pub(crate) fn begin(&mut self, topics: &Topics, bytes_min: u64) -> (Turn, Vec<Wanted>) {
        // Armed before the marks are taken, so that what comes after them counts.
        let turn = self.watch.arm(bytes_min);
        let mut taken = self.watch.take_marked();
        taken.append(&mut self.due);
        let order_of = |number: &u32| Some((self.slots.get(*number as usize)?.as_ref()?.order, *number));
        let mut in_order: Vec<(u64, u32)> = taken.iter().filter_map(order_of).collect();
        in_order.sort_unstable();
        in_order.dedup();
        let wanted = in_order.iter().filter_map(|(_, number)| self.want(*number, topics)).collect();
        self.due = in_order.into_iter().map(|(_, number)| number).collect();
        (turn, wanted)
    }

    fn want(&mut self, number: u32, topics: &Topics) -> Option<Wanted> {
        let slot = self.slots.get_mut(number as usize)?.as_mut()?;
        if let Some(registration) = &slot.registration {
            registration.unmark();
        }
        let partition = slot.resolve(topics);
        if let Ok(partition) = &partition {
            if self.registered {
                slot.register(&self.watch, number, partition);
            }
            slot.partition = Arc::downgrade(partition);
        }
        let Key { topic, index } = slot.key.clone();
        Some(Wanted { slot: number, topic, index, ask: slot.ask, partition })
    }

    /// Takes note of a pass after which the fetch waits on.
    pub(crate) fn settle(&mut self, found: &[Found]) {
        self.due.clear();
        for found in found {
            let Some(Some(slot)) = self.slots.get(found.slot as usize) else { continue };
            if slot.is_news(found) || found.cut {
                self.due.push(found.slot);
            }
            if let Some(registration) = &slot.registration {
                registration.set_room(u64::from(slot.ask.bytes_max).saturating_sub(found.readable_bytes));
            }
        }
    }

    /// Takes note of a pass that is answered, and leaves out of it what the client knows. In incremental answers
    /// partitions that have records go to the end, so that each gets its turn.
    pub(crate) fn answer(&mut self, found: Vec<Found>) -> Vec<Found> {
        self.settle(&found);
        self.due.clear();
        let incremental = std::mem::replace(&mut self.answered, true);
        let mut answered = Vec::with_capacity(found.len());
        for found in found {
            let Some(Some(slot)) = self.slots.get_mut(found.slot as usize) else { continue };
            if found.has_records() || found.failed() || found.cut {
                self.due.push(found.slot);
            }
            if !slot.is_news(&found) {
                continue;
            }
            slot.told = Some(told_by(&found));
            if incremental && found.has_records() {
                slot.order = self.next_order;
                self.next_order += 1;
            }
            answered.push(found);
        }
        answered
    }
}

impl Drop for PartitionSet {
    fn drop(&mut self) {
        self.slots.iter_mut().flatten().for_each(Slot::leave);
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::api::fetch::PartitionData;
    use highwater_protocol::wire::Records;

    use super::*;

    fn key(index: i32) -> Key {
        Key { topic: TopicKey::Name(Str::from("t")), index }
    }

    fn ask(fetch_offset: i64) -> Ask {
        Ask { current_leader_epoch: -1, fetch_offset, bytes_max: 100 }
    }

    fn set(partitions: i32) -> PartitionSet {
        let mut set = PartitionSet::default();
        (0..partitions).for_each(|index| set.put(key(index), ask(0)));
        set
    }

    /// The numbers of the partitions that a pass looks at, in order.
    fn pass(set: &mut PartitionSet) -> Vec<u32> {
        set.begin(&Topics::default(), 1).1.into_iter().map(|wanted| wanted.slot).collect()
    }

    /// What a read of a partition says: its high watermark, its error, and whether there are records.
    fn found(slot: u32, high_watermark: i64, code: ErrorCode, record_bytes: usize) -> Found {
        let records = match record_bytes {
            0 => Records::Bytes(bytes::Bytes::new()),
            len => Records::Deferred { len: u32::try_from(len).unwrap() },
        };
        let data = PartitionData {
            partition_index: i32::try_from(slot).unwrap(),
            error_code: code.code(),
            high_watermark,
            log_start_offset: 0,
            records,
            ..PartitionData::default()
        };
        let topic = TopicKey::Name(Str::from("t"));
        Found { slot, topic, data, ranges: Vec::new(), readable_bytes: record_bytes as u64, cut: false }
    }

    fn quiet(slot: u32) -> Found {
        found(slot, 5, ErrorCode::None, 0)
    }

    fn answered(set: &mut PartitionSet, found: Vec<Found>) -> Vec<u32> {
        set.answer(found).into_iter().map(|found| found.slot).collect()
    }

    /// A set of three partitions that the client knows all about.
    fn known() -> PartitionSet {
        let mut set = set(3);
        assert_eq!(pass(&mut set), [0, 1, 2]);
        assert_eq!(
            answered(&mut set, vec![quiet(0), quiet(1), quiet(2)]),
            [0, 1, 2],
            "a full answer has all"
        );
        set
    }

    #[test]
    fn what_the_client_knows_is_neither_read_nor_told() {
        let mut set = known();

        assert_eq!(pass(&mut set), [0; 0]);
        set.put(key(1), ask(5));
        assert_eq!(pass(&mut set), [1], "what is asked anew is read");
        assert_eq!(answered(&mut set, vec![quiet(1)]), [0; 0], "and not told, if it is what it was");
    }

    #[test]
    fn records_an_error_and_a_moved_watermark_or_start_are_news() {
        let mut set = known();
        let mut start = quiet(2);
        start.data.log_start_offset = 3;
        let news = vec![found(0, 5, ErrorCode::None, 10), found(1, 6, ErrorCode::None, 0), start];

        assert_eq!(answered(&mut set, news), [0, 1, 2]);
    }

    #[test]
    fn an_error_is_told_at_every_request_and_its_end_once() {
        let mut set = known();
        let error = || found(1, -1, ErrorCode::NotLeaderOrFollower, 0);

        assert_eq!(answered(&mut set, vec![error()]), [1]);
        assert_eq!(pass(&mut set), [1]);
        assert_eq!(answered(&mut set, vec![error()]), [1]);
        assert_eq!(pass(&mut set), [1]);
        assert_eq!(answered(&mut set, vec![quiet(1)]), [1]);

        assert_eq!(pass(&mut set), [0; 0]);
    }

    #[test]
    fn partitions_that_had_records_go_behind_the_others() {
        let mut set = known();
        let records = |slot| found(slot, 5, ErrorCode::None, 10);

        answered(&mut set, vec![records(0), quiet(1), quiet(2)]);
        (0..3).for_each(|index| set.put(key(index), ask(5)));
        assert_eq!(pass(&mut set), [1, 2, 0]);
        answered(&mut set, vec![records(1), records(2), quiet(0)]);
        (0..3).for_each(|index| set.put(key(index), ask(5)));

        assert_eq!(pass(&mut set), [0, 1, 2]);
    }

    #[test]
    fn a_partition_that_a_limit_left_out_is_read_again() {
        let mut set = known();

        assert_eq!(answered(&mut set, vec![Found { cut: true, ..quiet(1) }]), [0; 0]);

        assert_eq!(pass(&mut set), [1]);
    }

    #[test]
    fn a_pass_that_was_dropped_is_made_again() {
        let mut set = set(2);

        assert_eq!(pass(&mut set), [0, 1]);
        assert_eq!(pass(&mut set), [0, 1]);
    }

    #[test]
    fn news_that_came_while_waiting_is_told_at_the_end() {
        let mut set = known();
        set.put(key(1), ask(6));
        assert_eq!(pass(&mut set), [1]);

        set.settle(&[found(1, 6, ErrorCode::None, 0)]);

        assert_eq!(pass(&mut set), [1]);
        assert_eq!(answered(&mut set, vec![found(1, 6, ErrorCode::None, 0)]), [1]);
    }

    #[test]
    fn the_place_of_a_forgotten_partition_is_used_again() {
        let mut set = known();

        set.forget(&key(0));
        set.forget(&key(0));
        set.put(key(8), ask(0));

        assert_eq!((set.len(), set.slots.len()), (3, 3));
        assert_eq!(set.begin(&Topics::default(), 1).1.first().map(|wanted| wanted.index), Some(8));
        assert!(set.slots[0].as_ref().is_some_and(|slot| slot.order > 2), "it is the last one");
    }
}
