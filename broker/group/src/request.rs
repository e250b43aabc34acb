//! What goes into the machine: plain values without protocol versions.
//!
//! Names and bytes may be slices of a request's frame: the machine copies what it keeps. No text is longer than
//! 32,767 bytes, as on Kafka's wire: the log cannot hold longer ones.

use bytes::Bytes;
use highwater_record::{LeaderEpoch, PartitionId, TimestampMs, TopicId};
use highwater_wire::Str;

/// Names a request that waits for its reply. The host never uses one twice for a `Coordinator`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Call(pub u64);

/// The time of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// What clocks on the wall show: for timestamps in records and the age of offsets.
    pub wall: TimestampMs,
    /// Milliseconds of a clock that never runs backwards: for sessions and rebalances.
    pub monotonic_ms: u64,
}

/// Number of a rebalance of a group. Grows by one at each, and starts over at 1 after the largest.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Generation(i32);

impl Generation {
    /// Rejects negative values: on the wire they say that there is no generation.
    pub const fn new(raw: i32) -> Option<Self> {
        if raw >= 0 { Some(Self(raw)) } else { None }
    }

    /// The number as it goes over the wire.
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The one after this; after the largest it is 1 again, since clients take 0 for a group that never met.
    pub(crate) const fn next(self) -> Self {
        if self.0 == i32::MAX { Self(1) } else { Self(self.0 + 1) }
    }
}

/// Who sends a join.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Client {
    /// The client id of the request's header; empty if it has none.
    pub id: Str,
    /// The address it comes from, as operators see it (Kafka: `/127.0.0.1`).
    pub host: Str,
}

/// A way to assign partitions that a member supports, with what the member says about itself in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Protocol {
    /// Name, such as `range`.
    pub name: Str,
    /// The member's subscription, opaque except in groups of type `consumer`.
    pub metadata: Bytes,
}

/// A member joins, or joins again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinRequest {
    /// The group.
    pub group: Str,
    /// The id that the member got before; empty if it has none.
    pub member_id: Str,
    /// The name of a static member (KIP-345).
    pub instance_id: Option<Str>,
    /// Type of the group's protocol, such as `consumer`.
    pub protocol_type: Str,
    /// What the member supports, the one it likes best first.
    pub protocols: Vec<Protocol>,
    /// The member is dropped if it is silent for so long, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for the member, in milliseconds; `None` (version 0) takes the session timeout.
    pub rebalance_timeout_ms: Option<i32>,
    /// Whether a dynamic member without id must come back with the one it is given (KIP-394: versions 4+).
    pub require_known_member_id: bool,
    /// Whether the client understands that a leader need not assign (KIP-814: versions 9+).
    pub supports_skip_assignment: bool,
    /// Who sends it.
    pub client: Client,
    /// Random bytes, of which an id is made if the member needs one.
    pub unique: [u8; 16],
    /// Whether a group that does not exist may be made: the host's cap on groups.
    pub may_create: bool,
    /// By how much [`Coordinator::member_bytes`](crate::Coordinator::member_bytes) may grow: the host's cap on them.
    pub room_bytes: usize,
}

/// What the leader assigns to a member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyncAssignment {
    /// The member.
    pub member_id: Str,
    /// Its assignment, opaque.
    pub assignment: Bytes,
}

/// A member asks for its assignment; the leader brings everybody's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyncRequest {
    /// The group.
    pub group: Str,
    /// The generation that the member joined.
    pub generation: Option<Generation>,
    /// The member.
    pub member_id: Str,
    /// The name of a static member.
    pub instance_id: Option<Str>,
    /// The protocol type the member believes in (versions 5+).
    pub protocol_type: Option<Str>,
    /// The protocol the member believes in (versions 5+).
    pub protocol: Option<Str>,
    /// The leader's assignments.
    pub assignments: Vec<SyncAssignment>,
    /// By how much [`Coordinator::member_bytes`](crate::Coordinator::member_bytes) may grow: the host's cap on them.
    pub room_bytes: usize,
}

/// A member says that it is alive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: Str,
    /// The generation that the member is in.
    pub generation: Option<Generation>,
    /// The member.
    pub member_id: Str,
    /// The name of a static member.
    pub instance_id: Option<Str>,
}

/// A member that leaves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leaving {
    /// Its id; may be empty if it is named by its instance id (an administrator removes it).
    pub member_id: Str,
    /// The name of a static member.
    pub instance_id: Option<Str>,
}

/// Members leave a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaveRequest {
    /// The group.
    pub group: Str,
    /// The members; versions 0-2 have exactly one.
    pub members: Vec<Leaving>,
}

/// One offset to commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommitOffset {
    /// The topic. The host has checked that topic and partition exist.
    pub topic: Str,
    /// The id of the topic that has this name now.
    pub topic_id: Option<TopicId>,
    /// The partition.
    pub partition: PartitionId,
    /// The next offset to read, as the client gives it.
    pub offset: i64,
    /// The leader epoch that the client gives with it; kept as given.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Text of the client; null is empty.
    pub metadata: Str,
}

/// Offsets to commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommitRequest {
    /// The group.
    pub group: Str,
    /// The generation of the member; `None` for commits outside of group membership.
    pub generation: Option<Generation>,
    /// The member; empty outside of group membership.
    pub member_id: Str,
    /// The name of a static member.
    pub instance_id: Option<Str>,
    /// How long to keep the offsets, in milliseconds (versions 2-4; -1 is `None`).
    pub retention_ms: Option<u64>,
    /// The offsets.
    pub offsets: Vec<CommitOffset>,
    /// Whether the client understands that a group does not exist (versions 9+); others hear of an illegal
    /// generation.
    pub knows_group_id_not_found: bool,
    /// Whether a group that does not exist may be made: the host's cap on groups.
    pub may_create: bool,
}

/// A committed offset that somebody asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedOffset {
    /// The topic.
    pub topic: Str,
    /// The id of the topic that has this name now; an offset committed for another id counts as absent. `None`
    /// takes any.
    pub topic_id: Option<TopicId>,
    /// The partition.
    pub partition: PartitionId,
}

/// A partition by its topic's name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicPartitionRef {
    /// The topic.
    pub topic: Str,
    /// The partition.
    pub partition: PartitionId,
}

/// Which groups to list. Kafka compares both without regard to case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ListFilter {
    /// Names of states (KIP-518), such as `Stable`; empty takes all.
    pub states: Vec<Str>,
    /// Names of group types (KIP-848): `classic`; empty takes all.
    pub types: Vec<Str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_start_over_at_one() {
        let next = |raw| Generation::new(raw).map(|generation| generation.next().get());

        assert_eq!(next(0), Some(1));
        assert_eq!(next(i32::MAX), Some(1));
        assert_eq!(next(-1), None);
    }
}
