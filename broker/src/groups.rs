//! The host of the group coordinator: 50 state machines, each with its partition of `__consumer_offsets`.
//!
//! The machines are pure (`highwater-group`); here they meet time, the log and those who wait. Handlers call
//! [`ask`], [`look`], [`park`] and [`heartbeat`], which run an event on the machine of a group and hold back its
//! answer until the partition is durable up to the state that the answer was computed from; heartbeats are exempt.
//! Knows no Kafka message.
//!
//! Invariants:
//! 1. A machine's lock is held neither across an await nor while the disk works.
//! 2. Records reach the log in the order in which the machine emitted them: at most one task per partition appends.
//! 3. What cannot be appended, or is lost before it is durable, takes the machine with it: everyone who waits hears
//!    of it, and the partition is replayed.
//! 4. Nothing is answered from a partition that is not loaded.
//!
//! Until compaction exists a load replays everything that was ever committed.

mod append;
mod load;
mod shard;
mod timers;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use highwater_group::{Answered, Call, Coordinator, Counts, Effects, GroupError, Now, Reply, Settings};
use highwater_protocol::ErrorCode;
use highwater_record::{TopicId, TopicName};
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::clock;
use shard::Shard;

pub(crate) use load::load_all;
pub(crate) use timers::run as run_timers;

/// The topic that holds the state of groups, by Kafka's name.
pub(crate) const TOPIC: &str = "__consumer_offsets";
/// Its partitions (`offsets.topic.num.partitions`).
const SHARDS: u32 = 50;
/// Most groups of a broker.
const GROUPS_MAX: usize = 10_000;
/// How long an answer waits for the disk (`offsets.commit.timeout.ms`): a member whose commit hangs must get to its
/// next heartbeat.
const DURABLE_DEADLINE: Duration = Duration::from_secs(5);

/// Why the group's coordinator gives no answer. The client asks again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unavailable {
    /// The partition is being replayed.
    Loading,
    /// What the request did is lost, or the partition is out of service.
    Lost,
    /// The disk did not answer in time: what the request did may become durable or not.
    TimedOut,
    /// The broker stops.
    Stopping,
}

impl Unavailable {
    /// What a client is told.
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::Loading => ErrorCode::CoordinatorLoadInProgress,
            Self::Lost => ErrorCode::NotCoordinator,
            Self::TimedOut | Self::Stopping => ErrorCode::CoordinatorNotAvailable,
        }
    }
}

/// What a client is told about a refusal.
pub(crate) const fn code_of(error: &GroupError) -> ErrorCode {
    match error {
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout { .. } => ErrorCode::InvalidSessionTimeout,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::GroupMaxSizeReached { .. } => ErrorCode::GroupMaxSizeReached,
        GroupError::MemberMetadataTooLarge { .. } => ErrorCode::InvalidRequest,
        GroupError::GroupTooLarge { .. } => ErrorCode::UnknownServerError,
        GroupError::TooManyGroups => ErrorCode::CoordinatorNotAvailable,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge { .. } => ErrorCode::OffsetMetadataTooLarge,
    }
}

/// The coordinators of all groups.
pub(crate) struct Groups {
    shards: Vec<Shard>,
    started: Instant,
    /// Wakes the timers when something is due earlier than they know.
    sooner: Notify,
    /// When the timers will look, in milliseconds since `started`.
    looks_at_ms: AtomicU64,
}

impl Groups {
    /// Coordinators that are not loaded yet.
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::loading()).collect();
        Self { shards, started: Instant::now(), sooner: Notify::new(), looks_at_ms: AtomicU64::new(u64::MAX) }
    }

    /// Whether one more group may be made.
    pub(crate) fn may_create(&self) -> bool {
        let groups = self.shards.iter().map(Shard::groups).sum::<usize>();
        if groups >= GROUPS_MAX {
            tracing::warn!(groups, "{GROUPS_MAX} groups are the most of a broker; no more are made");
        }
        groups < GROUPS_MAX
    }

    /// Numbers for metrics, of all partitions.
    pub(crate) fn counts(&self) -> Vec<Counts> {
        self.shards.iter().filter_map(Shard::observe).collect()
    }

    fn now(&self) -> Now {
        let elapsed = self.started.elapsed().as_millis();
        Now { wall: clock::now(), monotonic_ms: u64::try_from(elapsed).unwrap_or(u64::MAX) }
    }

    fn shard(&self, index: usize) -> &Shard {
        &self.shards[index]
    }
}

/// The name of the topic that holds the state of groups.
fn topic_name() -> TopicName {
    TopicName::new(TOPIC).expect("the name is a legal one")
}

fn settings() -> Settings {
    Settings::default()
}

/// Which partition holds a group: Java's `String.hashCode`, made positive as Kafka's `Utils.abs` does it, modulo the
/// number of partitions (`GroupCoordinatorService.partitionFor`).
fn shard_of(group: &str) -> usize {
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let positive = hash.checked_abs().unwrap_or(0).unsigned_abs();
    (positive % SHARDS) as usize
}

/// Runs an event on the machine of `group`; the answer is given when everything it rests on is durable.
pub(crate) async fn ask<T>(
    broker: &Arc<Broker>,
    group: &str,
    event: impl FnOnce(&mut Coordinator, Now) -> Answered<T>,
) -> Result<T, Unavailable> {
    shard::ask(broker, shard_of(group), event).await
}

/// Reads from the machine of `group`; the answer is given when everything it rests on is durable.
pub(crate) async fn look<T>(
    broker: &Arc<Broker>,
    group: &str,
    read: impl FnOnce(&Coordinator) -> T,
) -> Result<T, Unavailable> {
    look_into(broker, shard_of(group), read).await
}

/// Reads from every machine, one after the other.
pub(crate) async fn look_everywhere<T>(
    broker: &Arc<Broker>,
    read: impl Fn(&Coordinator) -> Vec<T>,
) -> Result<Vec<T>, Unavailable> {
    let mut found = Vec::new();
    for index in 0..broker.groups.shards.len() {
        found.extend(look_into(broker, index, &read).await?);
    }
    Ok(found)
}

async fn look_into<T>(
    broker: &Arc<Broker>,
    index: usize,
    read: impl FnOnce(&Coordinator) -> T,
) -> Result<T, Unavailable> {
    let event =
        |machine: &mut Coordinator, _| Answered { answer: read(machine), effects: Effects::default() };
    shard::ask(broker, index, event).await
}

/// Tells the machine of `group` that a member is alive. The answer does not wait for the disk.
pub(crate) fn heartbeat(
    broker: &Arc<Broker>,
    group: &str,
    event: impl FnOnce(&mut Coordinator, Now) -> Result<(), GroupError>,
) -> Result<Result<(), GroupError>, Unavailable> {
    shard::tell(broker, shard_of(group), |machine, now| (event(machine, now), Effects::default()))
}

/// Runs an event whose reply may be long in coming. If the returned future is dropped, the machine hears that nobody
/// waits for the reply any more.
pub(crate) async fn park(
    broker: &Arc<Broker>,
    group: &str,
    event: impl FnOnce(&mut Coordinator, Call, Now) -> Effects,
) -> Result<Reply, Unavailable> {
    shard::park(broker, shard_of(group), event).await
}

/// Drops what was committed for a deleted topic, in every group. True if that is durable everywhere; else a
/// partition is not in service, and the caller comes back when it is.
pub(crate) async fn forget_topic(broker: &Arc<Broker>, topic: &TopicName, id: TopicId) -> bool {
    let mut everywhere = true;
    for index in 0..broker.groups.shards.len() {
        let event = |machine: &mut Coordinator, now| Answered {
            answer: (),
            effects: machine.topic_deleted(topic.as_str(), Some(id), now),
        };
        everywhere &= shard::ask(broker, index, event).await.is_ok();
    }
    everywhere
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_where_kafka_has_it() {
        // Java: Utils.abs("...".hashCode()) % 50.
        assert_eq!(shard_of(""), 0);
        assert_eq!(shard_of("a"), 97 % 50);
        assert_eq!(shard_of("group"), 98629247 % 50);
        // A hash of Integer.MIN_VALUE counts as 0.
        assert_eq!(shard_of("polygenelubricants"), 0);
        // One code point beyond the basic plane is two units.
        assert_eq!(shard_of("\u{1f600}"), (0xd83d * 31 + 0xde00) % 50);
    }
}
