//! The records of `__consumer_offsets` that belong to classic groups, in Kafka's format.
//!
//! A key starts with its type, a value with its version; the rest follows Kafka's generated classes
//! (`LegacyOffsetCommitKey`, `OffsetCommitKey`, `GroupMetadataKey` and their values). Types and versions that are
//! not in here are named and left to the caller to skip: they are those of a newer Kafka, or of other kinds of
//! groups.

use bytes::Bytes;
use highwater_record::{LeaderEpoch, PartitionId, TimestampMs, TopicId};
use highwater_wire::{DecodeError, Message, Reader, Str, Uuid, Writer, messages};

use crate::{Committed, Record, ReplayError};

/// Type of an offset's key before Kafka 0.9; same form as [`OFFSET_COMMIT`].
const LEGACY_OFFSET_COMMIT: i16 = 0;
/// Type of an offset's key.
const OFFSET_COMMIT: i16 = 1;
/// Type of a classic group's key.
const GROUP_METADATA: i16 = 2;

/// The version of offsets that Kafka 4.1 writes.
const OFFSET_VERSION: i16 = 4;
/// The version of offsets with an expiry of their own; it is the only one that has the field, and it has
/// neither leader epoch nor topic id.
const OFFSET_VERSION_WITH_EXPIRY: i16 = 1;
/// The version of groups that Kafka 4.1 writes.
const GROUP_VERSION: i16 = 3;

messages! {
    /// Which committed offset a record is about (types 0 and 1).
    OffsetCommitKey "0", flexible "none" {
        /// The group.
        group: Str, "0+";
        /// The topic.
        topic: Str, "0+";
        /// The partition.
        partition: i32, "0+";
    }

    /// A committed offset.
    OffsetCommitValue "0-4", flexible "4+" {
        /// The next offset to read.
        offset: i64, "0+";
        /// The leader epoch that the client gave, or -1.
        leader_epoch: i32, "3+", default -1, ignorable true;
        /// Text of the client.
        metadata: Str, "0+";
        /// When it was committed, in milliseconds since the Unix epoch.
        commit_timestamp: i64, "0+";
        /// When it expires, in milliseconds since the Unix epoch, or -1.
        expire_timestamp: i64, "1", default -1, ignorable true;
        /// The topic for which it was committed.
        topic_id: Uuid, "4+", tag 0 "4+", ignorable true;
    }

    /// Which group a record is about (type 2).
    GroupMetadataKey "0", flexible "none" {
        /// The group.
        group: Str, "0+";
    }

    /// A classic group after a rebalance.
    GroupMetadataValue "0-4", flexible "4+" {
        /// Type of the protocol; empty in a group without one.
        protocol_type: Str, "0+";
        /// Number of the rebalance.
        generation: i32, "0+";
        /// The protocol; null in a group without members.
        protocol: Option<Str>, "0+", nullable "0+";
        /// Id of the leader; null in a group without members.
        leader: Option<Str>, "0+", nullable "0+";
        /// Since when the group is in its state, in milliseconds since the Unix epoch, or -1.
        current_state_timestamp: i64, "2+", default -1, ignorable true;
        /// The members.
        members: Vec<MemberMetadata>, "0+";
    }

    /// A member of a group.
    MemberMetadata {
        /// Its id.
        member_id: Str, "0+";
        /// Its name if it is static.
        group_instance_id: Option<Str>, "3+", nullable "3+", ignorable true;
        /// The client id.
        client_id: Str, "0+";
        /// Where it came from.
        client_host: Str, "0+";
        /// How long a rebalance waits for it, in milliseconds; -1 takes the session timeout.
        rebalance_timeout: i32, "1+", default -1, ignorable true;
        /// How long it may be silent, in milliseconds.
        session_timeout: i32, "0+";
        /// What it said about itself in the group's protocol.
        subscription: Bytes, "0+";
        /// Its assignment.
        assignment: Bytes, "0+";
    }
}

/// Kafka's name of a type of record (`CoordinatorRecordType` of 4.1, and the `apiKey` of each definition); `None` for a
/// number that it has not given out. The names of types that this crate does not read are here for people.
pub const fn kind_name(kind: i16) -> Option<&'static str> {
    Some(match kind {
        LEGACY_OFFSET_COMMIT => "LegacyOffsetCommit",
        OFFSET_COMMIT => "OffsetCommit",
        GROUP_METADATA => "GroupMetadata",
        3 => "ConsumerGroupMetadata",
        4 => "ConsumerGroupPartitionMetadata",
        5 => "ConsumerGroupMemberMetadata",
        6 => "ConsumerGroupTargetAssignmentMetadata",
        7 => "ConsumerGroupTargetAssignmentMember",
        8 => "ConsumerGroupCurrentMemberAssignment",
        9 => "ShareGroupPartitionMetadata",
        10 => "ShareGroupMemberMetadata",
        11 => "ShareGroupMetadata",
        12 => "ShareGroupTargetAssignmentMetadata",
        13 => "ShareGroupTargetAssignmentMember",
        14 => "ShareGroupCurrentMemberAssignment",
        15 => "ShareGroupStatePartitionMetadata",
        16 => "ConsumerGroupRegularExpression",
        17 => "StreamsGroupMetadata",
        18 => "StreamsGroupPartitionMetadata",
        19 => "StreamsGroupMemberMetadata",
        20 => "StreamsGroupTargetAssignmentMetadata",
        21 => "StreamsGroupTargetAssignmentMember",
        22 => "StreamsGroupCurrentMemberAssignment",
        23 => "StreamsGroupTopology",
        24 => "StreamsGroupTargetAssignmentResolvedTopicIds",
        _ => return None,
    })
}

/// The group that a record is about, whatever its type: the key of every type with a name begins with it. `None` if the
/// type has none, or the key does not have this form.
pub fn group_of(key: Bytes) -> Option<Str> {
    let mut key = Reader::new(key);
    kind_name(key.int16().ok()?)?;
    GroupMetadataKey::read(&mut key, 0).ok().map(|key| key.group)
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// An offset was committed, or dropped.
    Offset {
        /// Which one.
        key: OffsetCommitKey,
        /// The offset; `None` is a tombstone.
        value: Option<OffsetCommitValue>,
    },
    /// A group rebalanced, or was deleted.
    Group {
        /// Which one.
        key: GroupMetadataKey,
        /// The group; `None` is a tombstone.
        value: Option<GroupMetadataValue>,
    },
    /// A record of a type or version that is not known here.
    Unknown {
        /// The type that the key names.
        kind: i16,
        /// The version that the value names, if the type is known.
        version: Option<i16>,
    },
}

/// Reads a record.
///
/// # Errors
///
/// If its type and version are known and it does not have their form. Bytes after a value are ignored, as Kafka
/// does.
pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Decoded, ReplayError> {
    let mut key = Reader::new(key);
    let kind = key.int16().map_err(ReplayError::Key)?;
    match kind {
        LEGACY_OFFSET_COMMIT | OFFSET_COMMIT => {
            let key = OffsetCommitKey::read(&mut key, 0).map_err(ReplayError::Key)?;
            decode_value(kind, value, |value| Decoded::Offset { key, value })
        }
        GROUP_METADATA => {
            let key = GroupMetadataKey::read(&mut key, 0).map_err(ReplayError::Key)?;
            decode_value(kind, value, |value| Decoded::Group { key, value })
        }
        _ => Ok(Decoded::Unknown { kind, version: None }),
    }
}

fn decode_value<T: Message>(
    kind: i16,
    value: Option<Bytes>,
    decoded: impl FnOnce(Option<T>) -> Decoded,
) -> Result<Decoded, ReplayError> {
    let Some(value) = value else {
        return Ok(decoded(None));
    };
    let mut value = Reader::new(value);
    let version = value.int16().map_err(ReplayError::Version)?;
    if !T::VERSIONS.contains(version) {
        return Ok(Decoded::Unknown { kind, version: Some(version) });
    }
    let refuse = |source: DecodeError| ReplayError::Value { version, source };
    T::read(&mut value, version).map(Some).map(decoded).map_err(refuse)
}

impl OffsetCommitValue {
    /// The offset in words of its own, in bytes of its own.
    pub(crate) fn into_committed(self) -> Committed {
        Committed {
            offset: self.offset,
            leader_epoch: LeaderEpoch::new(self.leader_epoch),
            metadata: self.metadata.detach(),
            committed_at: TimestampMs(self.commit_timestamp),
            expires_at: (self.expire_timestamp != -1).then_some(TimestampMs(self.expire_timestamp)),
            topic_id: TopicId::new(*self.topic_id.as_bytes()),
        }
    }

    fn of(committed: &Committed) -> Self {
        Self {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch.map_or(-1, LeaderEpoch::get),
            metadata: committed.metadata.clone(),
            commit_timestamp: committed.committed_at.0,
            expire_timestamp: committed.expires_at.map_or(-1, |at| at.0),
            topic_id: committed.topic_id.map_or(Uuid::ZERO, |id| Uuid::from_bytes(id.get())),
        }
    }
}

/// The record of a committed offset; without one, its tombstone.
pub(crate) fn offset_record(
    group: &Str,
    topic: &Str,
    partition: PartitionId,
    committed: Option<&Committed>,
) -> Record {
    let key = OffsetCommitKey { group: group.clone(), topic: topic.clone(), partition: partition.get() };
    let value = committed.map(|committed| {
        let version =
            if committed.expires_at.is_some() { OFFSET_VERSION_WITH_EXPIRY } else { OFFSET_VERSION };
        encode(version, &OffsetCommitValue::of(committed), version)
    });
    Record { key: encode(OFFSET_COMMIT, &key, 0), value }
}

/// The record of a group; without one, its tombstone.
pub(crate) fn group_record(group: &Str, value: Option<&GroupMetadataValue>) -> Record {
    let key = GroupMetadataKey { group: group.clone() };
    let value = value.map(|value| encode(GROUP_VERSION, value, GROUP_VERSION));
    Record { key: encode(GROUP_METADATA, &key, 0), value }
}

/// Two bytes of type or version, and the message.
fn encode(prefix: i16, message: &impl Message, version: i16) -> Bytes {
    let mut writer = Writer::new();
    writer.int16(prefix);
    message
        .write(&mut writer, version)
        .expect("names come from the wire or the log, which have the same limits");
    writer.into_encoded().bytes.freeze()
}
