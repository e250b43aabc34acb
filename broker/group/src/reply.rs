//! What comes out of the machine: records, replies and views.

use bytes::Bytes;
use highwater_record::{LeaderEpoch, PartitionId, TimestampMs, TopicId};
use highwater_wire::Str;

use crate::{Call, Generation, GroupError};

/// A record for the partition, in Kafka's format. The host stamps it with the time of the event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The key: its first two bytes name the type.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl Record {
    /// Length of key and value in bytes.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// What the host has to do: append the records in order, and send the replies once everything is durable.
#[derive(Debug, Default, PartialEq)]
#[must_use = "records are to be appended and replies to be sent"]
pub struct Effects {
    /// To append.
    pub records: Vec<Record>,
    /// To send: answers to parked calls, of other requests too.
    pub replies: Vec<(Call, Reply)>,
}

impl Effects {
    /// Adds what came later.
    pub fn append(&mut self, later: Self) {
        self.records.extend(later.records);
        self.replies.extend(later.replies);
    }
}

/// The answer to a request that never waits for other members, and what else it caused. The answer too is held
/// until everything is durable.
#[derive(Debug, PartialEq)]
#[must_use = "records are to be appended and the answer to be sent"]
pub struct Answered<T> {
    /// The answer.
    pub answer: T,
    /// What else there is to do.
    pub effects: Effects,
}

/// The reply to a call that may have waited.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a join.
    Join(JoinReply),
    /// To a sync.
    Sync(Result<Synced, GroupError>),
}

/// The reply to a join.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinReply {
    /// The member's id, also on errors: with [`GroupError::MemberIdRequired`] it is the id to come back with.
    pub member_id: Str,
    /// The generation that it joined.
    pub outcome: Result<Joined, GroupError>,
}

/// A generation as one of its members sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Its number.
    pub generation: Generation,
    /// The group's protocol type.
    pub protocol_type: Str,
    /// The protocol that was chosen; `None` only where Kafka has none either (versions below 7 send it empty).
    pub protocol: Option<Str>,
    /// Id of the leader.
    pub leader: Str,
    /// Whether the leader has nothing to assign (KIP-814).
    pub skip_assignment: bool,
    /// All members if this one is the leader, else none.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: Str,
    /// Its name if it is static.
    pub instance_id: Option<Str>,
    /// What it said about itself in the chosen protocol.
    pub metadata: Bytes,
}

/// A member's assignment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Synced {
    /// The group's protocol type (versions 5+).
    pub protocol_type: Option<Str>,
    /// The protocol (versions 5+).
    pub protocol: Option<Str>,
    /// The assignment; empty if the leader gave none.
    pub assignment: Bytes,
}

/// What became of one member that leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// Its id as it was given.
    pub member_id: Str,
    /// Its name if it is static.
    pub instance_id: Option<Str>,
    /// Whether it is out.
    pub outcome: Result<(), GroupError>,
}

/// A committed offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch as it was given.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Text of the client.
    pub metadata: Str,
    /// When it was committed.
    pub committed_at: TimestampMs,
    /// When it expires, if the commit said so (old clients only).
    pub expires_at: Option<TimestampMs>,
    /// The topic for which it was committed, if that was known.
    pub topic_id: Option<TopicId>,
}

/// A committed offset and its partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchedOffset {
    /// The topic.
    pub topic: Str,
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub committed: Committed,
}

/// The state of a group. One that is gone has none; Kafka calls that `Dead`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Waits for its members to join.
    PreparingRebalance,
    /// Waits for the leader's assignments.
    CompletingRebalance,
    /// Members have their assignments.
    Stable,
}

impl GroupState {
    /// The name that Kafka sends (`ClassicGroupState.java`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A group for DescribeGroups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Description {
    /// Its state.
    pub state: GroupState,
    /// Its protocol type; empty if it has none.
    pub protocol_type: Str,
    /// Its protocol if it is stable, else empty.
    pub protocol: Str,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member for DescribeGroups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: Str,
    /// Its name if it is static.
    pub instance_id: Option<Str>,
    /// Who it is.
    pub client_id: Str,
    /// Where it comes from.
    pub client_host: Str,
    /// Its subscription in the group's protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its last assignment; empty if it has none yet.
    pub assignment: Bytes,
}

/// A group for ListGroups. All groups are of type `classic`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// Its name.
    pub group: Str,
    /// Its protocol type; empty if it has none.
    pub protocol_type: Str,
    /// Its state.
    pub state: GroupState,
}

/// Why a group rebalances.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// A member joined that was not there.
    MemberJoined,
    /// A member joined again with other metadata.
    MetadataChanged,
    /// The leader joined again, which asks for a rebalance.
    LeaderRejoined,
    /// A static member came back as another process with other metadata.
    StaticMemberReplaced,
    /// A member left.
    MemberLeft,
    /// A member was silent for its session timeout.
    SessionExpired,
    /// Members did not ask for their assignment in time.
    SyncTimedOut,
    /// The group's new state could not be stored, since it is too large.
    AssignmentRefused,
    /// The group was loaded and is larger than it may be.
    LoadedTooLarge,
}

impl Reason {
    /// All reasons, in the order in which [`Counts::rebalances`] counts them.
    pub const ALL: [Self; 9] = [
        Self::MemberJoined,
        Self::MetadataChanged,
        Self::LeaderRejoined,
        Self::StaticMemberReplaced,
        Self::MemberLeft,
        Self::SessionExpired,
        Self::SyncTimedOut,
        Self::AssignmentRefused,
        Self::LoadedTooLarge,
    ];

    /// The name for labels of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MemberJoined => "member_joined",
            Self::MetadataChanged => "metadata_changed",
            Self::LeaderRejoined => "leader_rejoined",
            Self::StaticMemberReplaced => "static_member_replaced",
            Self::MemberLeft => "member_left",
            Self::SessionExpired => "session_expired",
            Self::SyncTimedOut => "sync_timed_out",
            Self::AssignmentRefused => "assignment_refused",
            Self::LoadedTooLarge => "loaded_too_large",
        }
    }
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Groups without members.
    pub empty: usize,
    /// Groups that wait for members.
    pub preparing_rebalance: usize,
    /// Groups that wait for assignments.
    pub completing_rebalance: usize,
    /// Groups at work.
    pub stable: usize,
    /// Members of all groups.
    pub members: usize,
    /// Committed offsets.
    pub offsets: usize,
    /// Joins and syncs that wait for their reply.
    pub parked: usize,
    /// Rebalances begun since the start, by reason: indexed by `Reason as usize`.
    pub rebalances: [u64; Reason::ALL.len()],
    /// Members dropped because they were silent, since the start.
    pub sessions_expired: u64,
    /// Offsets expired since the start.
    pub offsets_expired: u64,
    /// Records of the log whose type or version is not known and that were skipped.
    pub records_skipped: u64,
}

impl Counts {
    /// Groups in all.
    pub const fn groups(&self) -> usize {
        self.empty + self.preparing_rebalance + self.completing_rebalance + self.stable
    }
}
