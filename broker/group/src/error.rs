//! What can be wrong with a request, and with a record that is replayed.

use highwater_wire::DecodeError;
use thiserror::Error;

/// Why a request about a group is refused. Each variant names the Kafka error that the host sends.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum GroupError {
    /// `INVALID_GROUP_ID`
    #[error("the group's name is empty")]
    InvalidGroupId,
    /// `INVALID_SESSION_TIMEOUT`
    #[error(
        "a session timeout of {timeout_ms} ms is outside {min_ms}..={max_ms} \
         (group.min.session.timeout.ms, group.max.session.timeout.ms)"
    )]
    InvalidSessionTimeout {
        /// What the member asked for.
        timeout_ms: i32,
        /// The shortest allowed.
        min_ms: u32,
        /// The longest allowed.
        max_ms: u32,
    },
    /// `UNKNOWN_MEMBER_ID`
    #[error("the group has no such member")]
    UnknownMemberId,
    /// `MEMBER_ID_REQUIRED`
    #[error("the member must join again with the id that it is given")]
    MemberIdRequired,
    /// `ILLEGAL_GENERATION`
    #[error("the generation is not the group's")]
    IllegalGeneration,
    /// `INCONSISTENT_GROUP_PROTOCOL`
    #[error("the protocol type differs from the group's, or no protocol is supported by all members")]
    InconsistentGroupProtocol,
    /// `REBALANCE_IN_PROGRESS`
    #[error("the group rebalances: join again")]
    RebalanceInProgress,
    /// `FENCED_INSTANCE_ID`
    #[error("another member has taken over this group.instance.id")]
    FencedInstanceId,
    /// `GROUP_MAX_SIZE_REACHED`
    #[error("the group has its {limit} members already (group.max.size)")]
    GroupMaxSizeReached {
        /// The most members of a group.
        limit: usize,
    },
    /// `INVALID_REQUEST`: Kafka has no such limit but the size of a request.
    #[error("the member's protocols take {bytes} bytes, at most {limit} are allowed")]
    MemberMetadataTooLarge {
        /// What the member brought.
        bytes: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// The host's cap on what members bring and are assigned: `COORDINATOR_NOT_AVAILABLE` or what it prefers.
    #[error("{bytes} bytes more of members' metadata and assignments are too many, there is room for {room}")]
    NoRoom {
        /// How many bytes more would have to be kept.
        bytes: usize,
        /// How many there is room for.
        room: usize,
    },
    /// `UNKNOWN_SERVER_ERROR`, as Kafka answers when the record is larger than the topic accepts.
    #[error("the group's state takes {bytes} bytes in the log, at most {limit} are allowed")]
    GroupTooLarge {
        /// Size of key and value.
        bytes: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// The host's cap on groups: `COORDINATOR_NOT_AVAILABLE` or what it prefers.
    #[error("no more groups can be made")]
    TooManyGroups,
    /// `NON_EMPTY_GROUP`
    #[error("the group has members")]
    NonEmptyGroup,
    /// `GROUP_ID_NOT_FOUND`
    #[error("there is no such group")]
    GroupIdNotFound,
    /// `GROUP_SUBSCRIBED_TO_TOPIC`
    #[error("members of the group are subscribed to the topic")]
    GroupSubscribedToTopic,
    /// `OFFSET_METADATA_TOO_LARGE`
    #[error(
        "the offset's metadata has {bytes} bytes, at most {limit} are allowed (offset.metadata.max.bytes)"
    )]
    OffsetMetadataTooLarge {
        /// What the client brought.
        bytes: usize,
        /// The most bytes allowed.
        limit: usize,
    },
}

/// Why a record of a known type cannot be replayed. The host adds the offset at which it is.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ReplayError {
    /// The key is too short for its type, or has no type.
    #[error("the key is malformed: {0}")]
    Key(DecodeError),
    /// The value is not of its version's form.
    #[error("the value of version {version} is malformed: {source}")]
    Value {
        /// The version that the value names.
        version: i16,
        /// What is wrong.
        source: DecodeError,
    },
    /// The value is too short to have a version.
    #[error("the value has no version: {0}")]
    Version(DecodeError),
    /// A partition below zero.
    #[error("partition {0} is negative")]
    Partition(i32),
    /// A generation below zero.
    #[error("generation {0} is negative")]
    Generation(i32),
}
