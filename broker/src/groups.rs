//! The host of the group coordinator: 50 state machines, each with its partition of `__consumer_offsets`.
//!
//! The machines are pure (`highwater-group`); here they meet time, the log and those who wait. Handlers call
//! [`ask`], [`ask_each`], [`look_each`], [`park`] and [`heartbeat`], which run an event on the machine of a group and hold back its
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
//! A load replays what compaction has left of everything that was ever committed.

mod alarm;
mod append;
mod load;
mod shard;
#[cfg(test)]
mod tests;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use highwater_group::{Answered, Call, Coordinator, Counts, Effects, GroupError, Now, Reply, Settings};
use highwater_protocol::ErrorCode;
use highwater_record::{TopicId, TopicName};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::clock;
use crate::config::Config;
use crate::log_limit::note;
use crate::memory::Bytes;
use alarm::Alarm;
use shard::{Pending, Place, Shard};

pub(crate) use load::{load_all, load_later};
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
    /// So much waits for the disk already that the request was not begun.
    Behind,
    /// The broker stops.
    Stopping,
    /// Nothing can be stored: the metadata is damaged.
    ReadOnly,
}

impl Unavailable {
    /// What a client is told.
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::Loading => ErrorCode::CoordinatorLoadInProgress,
            Self::Lost => ErrorCode::NotCoordinator,
            Self::TimedOut | Self::Behind | Self::Stopping | Self::ReadOnly => {
                ErrorCode::CoordinatorNotAvailable
            }
        }
    }
}

/// What a client is told about a refusal.
pub(crate) fn code_of(error: &GroupError) -> ErrorCode {
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
        GroupError::TooManyGroups => {
            note(|dropped| {
                tracing::warn!(dropped, "refused a group: this broker has the {GROUPS_MAX} that it may have");
            });
            ErrorCode::CoordinatorNotAvailable
        }
        GroupError::NoRoom { bytes, room } => {
            note(|dropped| {
                tracing::warn!(
                    dropped,
                    "refused a member: {} more of members' metadata and assignments are too many, there is room for {}; all \
                     members may take a sixteenth of --memory, and 128 MiB at most",
                    Bytes(*bytes as u64),
                    Bytes(*room as u64)
                );
            });
            ErrorCode::CoordinatorNotAvailable
        }
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge { .. } => ErrorCode::OffsetMetadataTooLarge,
    }
}

/// The coordinators of all groups.
pub(crate) struct Groups {
    shards: Vec<Shard>,
    /// Most bytes of what the members of all groups bring and are assigned. Who joins at the same moment may exceed it.
    member_bytes_max: usize,
    started: Instant,
    alarm: Alarm,
}

impl Groups {
    /// Coordinators that are not loaded yet. Their members bring and are assigned `member_bytes_max` in all.
    pub(crate) fn new(member_bytes_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Shard::loading()).collect();
        Self { shards, member_bytes_max, started: Instant::now(), alarm: Alarm::new() }
    }

    /// Whether one more group may be made.
    pub(crate) fn may_create(&self) -> bool {
        self.shards.iter().map(Shard::groups).sum::<usize>() < GROUPS_MAX
    }

    /// How many bytes more members may bring or be assigned.
    pub(crate) fn room_bytes(&self) -> usize {
        self.member_bytes_max.saturating_sub(self.shards.iter().map(Shard::member_bytes).sum())
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

fn settings(config: &Config) -> Settings {
    let delay_ms = config.initial_rebalance_delay.as_millis();
    Settings {
        initial_rebalance_delay_ms: u32::try_from(delay_ms).unwrap_or(u32::MAX),
        ..Settings::default()
    }
}

/// Which partition holds a group: Java's `String.hashCode`, made positive as Kafka's `Utils.abs` does it, modulo the
/// number of partitions (`GroupCoordinatorService.partitionFor`).
fn shard_of(group: &str) -> usize {
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let positive = hash.checked_abs().unwrap_or(0).unsigned_abs();
    (positive % SHARDS) as usize
}

fn place_of<'a>(broker: &'a Arc<Broker>, group: &str) -> Place<'a> {
    Place { broker, index: shard_of(group) }
}

/// Runs an event on the machine of `group`; the answer is given when everything it rests on is durable.
pub(crate) async fn ask<T>(
    broker: &Arc<Broker>,
    group: &str,
    event: impl FnOnce(&mut Coordinator, Now) -> Answered<T>,
) -> Result<T, Unavailable> {
    writable(broker)?;
    shard::ask(place_of(broker, group), event)?.settled(Instant::now() + DURABLE_DEADLINE).await
}

/// Nothing is told to a machine that could not be stored.
fn writable(broker: &Broker) -> Result<(), Unavailable> {
    broker.metadata.read_only().map_or(Ok(()), |_| Err(Unavailable::ReadOnly))
}

/// Runs an event for each of `asked` on the machine of its group, all of them before the first answer is waited for;
/// the answers are in the same order.
pub(crate) async fn ask_each<I, T>(
    broker: &Arc<Broker>,
    asked: &[I],
    group: impl Fn(&I) -> &str,
    event: impl Fn(&mut Coordinator, &I, Now) -> Answered<T>,
) -> Vec<Result<T, Unavailable>> {
    let ask = |one| {
        writable(broker)?;
        shard::ask(place_of(broker, group(one)), |machine, now| event(machine, one, now))
    };
    settle_all(broker, asked.iter().map(ask).collect()).await
}

/// Reads for each of `asked` from the machine of its group, in the same way.
pub(crate) async fn look_each<I, T>(
    broker: &Arc<Broker>,
    asked: &[I],
    group: impl Fn(&I) -> &str,
    read: impl Fn(&Coordinator, &I) -> T,
) -> Vec<Result<T, Unavailable>> {
    let look = |one| shard::ask_always(place_of(broker, group(one)), |machine, _| only(read(machine, one)));
    settle_all(broker, asked.iter().map(look).collect()).await
}

/// Whether the log that the group is kept in has lost records: what is not known of the group may be among them.
pub(crate) fn may_have_lost(broker: &Arc<Broker>, group: &str) -> bool {
    shard::has_lost(place_of(broker, group))
}

/// Reads from every machine. The answer is given when everything it rests on is durable.
pub(crate) async fn look_everywhere<T>(
    broker: &Arc<Broker>,
    read: impl Fn(&Coordinator) -> Vec<T>,
) -> Result<Vec<T>, Unavailable> {
    let mut found = Vec::new();
    for answer in ask_everywhere(broker, |machine, _| only(read(machine))).await {
        found.extend(answer?);
    }
    Ok(found)
}

/// An answer without effects.
fn only<T>(answer: T) -> Answered<T> {
    Answered { answer, effects: Effects::default() }
}

/// Runs an event on every machine, however much waits for the disk.
async fn ask_everywhere<T>(
    broker: &Arc<Broker>,
    event: impl Fn(&mut Coordinator, Now) -> Answered<T>,
) -> Vec<Result<T, Unavailable>> {
    let indexes = 0..broker.groups.shards.len();
    let pending = indexes.map(|index| shard::ask_always(Place { broker, index }, &event)).collect();
    settle_all(broker, pending).await
}

/// Waits for answers to events that have all been run, so that their syncs go side by side: one deadline holds for all,
/// and a stop ends the wait.
async fn settle_all<T>(
    broker: &Broker,
    all: Vec<Result<Pending<T>, Unavailable>>,
) -> Vec<Result<T, Unavailable>> {
    let deadline = Instant::now() + DURABLE_DEADLINE;
    let mut stopping = broker.stopping();
    let mut answers = Vec::with_capacity(all.len());
    for pending in all {
        answers.push(match pending {
            Ok(pending) => tokio::select! {
                biased;
                answer = pending.settled(deadline) => answer,
                () = stopping.stopped() => Err(Unavailable::Stopping),
            },
            Err(unavailable) => Err(unavailable),
        });
    }
    answers
}

/// Tells the machine of `group` that a member is alive. The answer does not wait for the disk.
pub(crate) fn heartbeat(
    broker: &Arc<Broker>,
    group: &str,
    event: impl FnOnce(&mut Coordinator, Now) -> Result<(), GroupError>,
) -> Result<Result<(), GroupError>, Unavailable> {
    shard::tell(place_of(broker, group), |machine, now| (event(machine, now), Effects::default()))
}

/// Runs an event whose reply may be long in coming. If the returned future is dropped, the machine hears that nobody
/// waits for the reply any more.
pub(crate) async fn park(
    broker: &Arc<Broker>,
    group: &str,
    event: impl FnOnce(&mut Coordinator, Call, Now) -> Effects,
) -> Result<Reply, Unavailable> {
    writable(broker)?;
    shard::park(place_of(broker, group), event).await
}

/// Drops what was committed for a deleted topic, in every group. True if that is durable everywhere; else a
/// partition is not in service, and the caller comes back when it is.
pub(crate) async fn forget_topic(broker: &Arc<Broker>, topic: &TopicName, id: TopicId) -> bool {
    let forget = |machine: &mut Coordinator, now| Answered {
        answer: (),
        effects: machine.topic_deleted(topic.as_str(), Some(id), now),
    };
    ask_everywhere(broker, forget).await.iter().all(Result::is_ok)
}
