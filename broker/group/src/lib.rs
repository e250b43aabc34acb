//! Group coordination as a replayable state machine, the records of `__consumer_offsets`, and those of
//! `__transaction_state` to read.
//!
//! A [`Coordinator`] holds the groups of one partition of `__consumer_offsets`. Requests and the time go in;
//! [`Effects`] come out: records to append and replies to send. There is no timer, no socket, no storage and
//! no Kafka protocol message in here: the host maps requests and replies, asks [`Coordinator::next_deadline`]
//! and calls [`Coordinator::expire`].
//!
//! What the host promises:
//! 1. It appends the records of all [`Effects`] in the order in which it got them.
//! 2. It sends no reply and no answer (heartbeats excepted) before everything appended so far is durable.
//! 3. The machine changes its state at once. If an append fails, the host throws the `Coordinator` away, makes
//!    a new one and replays the partition. Parked calls die with it: the host answers them.
//! 4. It replays all records of the partition in order, then calls [`Coordinator::loaded`], then the rest.
//! 5. Time never runs backwards in [`Now::monotonic_ms`].
//!
//! What the machine promises:
//! 1. Replaying the records it emitted yields the same durable state: groups, their members, generation and
//!    assignments as of the last completed rebalance, and all committed offsets.
//! 2. Each [`Call`] is answered at most once, and exactly once unless it is abandoned: [`Coordinator::expire`]
//!    answers what would wait forever.
//! 3. Groups and their members are capped by [`Settings`] and by the host's `may_create` and `room_bytes`; offsets by
//!    the partitions that the host says exist.
//!
//! The semantics are those of Kafka 4.1's classic groups (`ClassicGroup.java`, `GroupMetadataManager.java`,
//! `OffsetMetadataManager.java`).

#![forbid(unsafe_code)]

mod admin;
mod coordinator;
mod error;
mod group;
mod join;
mod leave;
mod offsets;
pub mod records;
mod replay;
mod reply;
mod request;
mod settings;
mod subscription;
mod sync;
mod timers;
pub mod transaction_records;
mod turn;

pub use coordinator::Coordinator;
pub use error::{GroupError, ReplayError};
pub use reply::{
    Answered, Committed, Counts, DescribedMember, Description, Effects, FetchedOffset, GroupState, JoinReply,
    Joined, JoinedMember, Left, Listed, Reason, Record, Reply, Synced,
};
pub use request::{
    Call, Client, CommitOffset, CommitRequest, Generation, HeartbeatRequest, JoinRequest, LeaveRequest,
    Leaving, ListFilter, Now, Protocol, SyncAssignment, SyncRequest, TopicPartitionRef, WantedOffset,
};
pub use settings::Settings;
