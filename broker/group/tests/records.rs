//! Records byte by byte as Apache Kafka 4.1.0 writes them.
//!
//! The bytes were made with Kafka's own classes: `GroupCoordinatorRecordSerde` over the records of
//! `GroupCoordinatorRecordHelpers` (`newOffsetCommitRecord`, `newOffsetCommitTombstoneRecord`,
//! `newGroupMetadataTombstoneRecord`) and over `GroupMetadataValue`, and `MessageUtil.toVersionPrefixedBytes` for
//! the versions that Kafka does not write any more (kafka-group-coordinator-4.1.0.jar).

use bytes::Bytes;
use highwater_group::records::{
    Decoded, GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue, decode,
};
use highwater_group::{
    Call, Client, CommitOffset, CommitRequest, Coordinator, Generation, GroupState, HeartbeatRequest,
    JoinRequest, LeaveRequest, Leaving, Now, Protocol, Record, ReplayError, Settings,
};
use highwater_record::{LeaderEpoch, PartitionId, TimestampMs, TopicId};
use highwater_wire::{DecodeError, Str, Uuid};
use proptest::prelude::*;

const OFFSET_KEY: &str = "00010002673100066f726465727300000007";
const LEGACY_OFFSET_KEY: &str = "00000002673100066f726465727300000007";
const OFFSET_V0: &str = "0000000000000000002a00016d0000018bcfe5687b";
const OFFSET_V1: &str = "0001000000000000002a00016d0000018bcfe5687b0000018bcfe58f0f";
const OFFSET_V2: &str = "0002000000000000002a00016d0000018bcfe5687b";
const OFFSET_V3: &str = "0003000000000000002a0000000500016d0000018bcfe5687b";
const OFFSET_V4: &str =
    "0004000000000000002a00000005026d0000018bcfe5687b0100100102030405060708090a0b0c0d0e0f10";
/// Neither epoch nor id nor metadata.
const OFFSET_V4_BARE: &str = "0004000000000000002affffffff010000018bcfe5687b00";

const GROUP_KEY: &str = "000200026731";
const GROUP_V0: &str = "00000008636f6e73756d657200000003000572616e676500026d310000000200026d310002636c00092f31302e302e\
    302e310000afc80000000301020100000002090100026d320002636c00092f31302e302e302e320000afc80000000301020200000002\
    0902";
const GROUP_V1: &str = "00010008636f6e73756d657200000003000572616e676500026d310000000200026d310002636c00092f31302e302e\
    302e31000493e00000afc80000000301020100000002090100026d320002636c00092f31302e302e302e32000493e00000afc8000000\
    03010202000000020902";
const GROUP_V2: &str = "00020008636f6e73756d657200000003000572616e676500026d310000018bcfe569c80000000200026d310002636c\
    00092f31302e302e302e31000493e00000afc80000000301020100000002090100026d320002636c00092f31302e302e302e32000493\
    e00000afc800000003010202000000020902";
const GROUP_V3: &str = "00030008636f6e73756d657200000003000572616e676500026d310000018bcfe569c80000000200026d31ffff0002\
    636c00092f31302e302e302e31000493e00000afc80000000301020100000002090100026d3200057765622d310002636c00092f3130\
    2e302e302e32000493e00000afc800000003010202000000020902";
const GROUP_V4: &str = "000409636f6e73756d6572000000030672616e6765036d310000018bcfe569c803036d310003636c0a2f31302e302e\
    302e31000493e00000afc80401020103090100036d32067765622d3103636c0a2f31302e302e302e32000493e00000afc80401020203\
    09020000";
/// Without members: protocol and leader are null.
const GROUP_V3_EMPTY: &str = "00030008636f6e73756d657200000004ffffffff0000018bcfe569c800000000";

/// A key of KIP-848 groups (`ConsumerGroupMetadataKey`).
const CONSUMER_GROUP_KEY: &str = "000300026731";

const COMMITTED_AT: i64 = 1_700_000_000_123;
const EXPIRES_AT: i64 = 1_700_000_009_999;
const GROUP_SINCE: i64 = 1_700_000_000_456;
const TOPIC_ID: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn bytes(hex: &str) -> Bytes {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

fn offset_key() -> OffsetCommitKey {
    OffsetCommitKey { group: Str::from("g1"), topic: Str::from("orders"), partition: 7 }
}

fn offset() -> OffsetCommitValue {
    OffsetCommitValue {
        offset: 42,
        metadata: Str::from("m"),
        commit_timestamp: COMMITTED_AT,
        ..OffsetCommitValue::default()
    }
}

fn member(id: &str, instance_id: Option<&str>, number: u8) -> MemberMetadata {
    MemberMetadata {
        member_id: Str::from(id),
        group_instance_id: instance_id.map(Str::from),
        client_id: Str::from("cl"),
        client_host: Str::from(format!("/10.0.0.{number}")),
        rebalance_timeout: 300_000,
        session_timeout: 45_000,
        subscription: Bytes::copy_from_slice(&[1, 2, number]),
        assignment: Bytes::copy_from_slice(&[9, number]),
    }
}

fn group() -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: Str::from("consumer"),
        generation: 3,
        protocol: Some(Str::from("range")),
        leader: Some(Str::from("m1")),
        current_state_timestamp: GROUP_SINCE,
        members: vec![member("m1", None, 1), member("m2", Some("web-1"), 2)],
    }
}

#[track_caller]
fn check_offset(key: &str, value: &str, expected: OffsetCommitValue) {
    let decoded = decode(bytes(key), Some(bytes(value)));

    assert_eq!(decoded, Ok(Decoded::Offset { key: offset_key(), value: Some(expected) }));
}

#[track_caller]
fn check_group(value: &str, expected: GroupMetadataValue) {
    let decoded = decode(bytes(GROUP_KEY), Some(bytes(value)));

    let key = GroupMetadataKey { group: Str::from("g1") };
    assert_eq!(decoded, Ok(Decoded::Group { key, value: Some(expected) }));
}

#[test]
fn every_version_of_an_offset_is_read() {
    check_offset(LEGACY_OFFSET_KEY, OFFSET_V0, offset());
    check_offset(OFFSET_KEY, OFFSET_V0, offset());
    check_offset(OFFSET_KEY, OFFSET_V1, OffsetCommitValue { expire_timestamp: EXPIRES_AT, ..offset() });
    check_offset(OFFSET_KEY, OFFSET_V2, offset());
    let with_epoch = OffsetCommitValue { leader_epoch: 5, ..offset() };
    check_offset(OFFSET_KEY, OFFSET_V3, with_epoch.clone());
    check_offset(
        OFFSET_KEY,
        OFFSET_V4,
        OffsetCommitValue { topic_id: Uuid::from_bytes(TOPIC_ID), ..with_epoch },
    );
    check_offset(OFFSET_KEY, OFFSET_V4_BARE, OffsetCommitValue { metadata: Str::default(), ..offset() });
}

#[test]
fn every_version_of_a_group_is_read() {
    let without = |change: fn(&mut MemberMetadata)| {
        let mut group = group();
        group.members.iter_mut().for_each(change);
        group
    };
    let v2 = without(|member| member.group_instance_id = None);
    let v1 = GroupMetadataValue { current_state_timestamp: -1, ..v2.clone() };
    let v0 = GroupMetadataValue {
        current_state_timestamp: -1,
        ..without(|member| (member.group_instance_id, member.rebalance_timeout) = (None, -1))
    };

    check_group(GROUP_V0, v0);
    check_group(GROUP_V1, v1);
    check_group(GROUP_V2, v2);
    check_group(GROUP_V3, group());
    check_group(GROUP_V4, group());
    check_group(
        GROUP_V3_EMPTY,
        GroupMetadataValue { generation: 4, protocol: None, leader: None, members: Vec::new(), ..group() },
    );
}

#[test]
fn tombstones_are_read() {
    assert_eq!(decode(bytes(OFFSET_KEY), None), Ok(Decoded::Offset { key: offset_key(), value: None }));
    let key = GroupMetadataKey { group: Str::from("g1") };
    assert_eq!(decode(bytes(GROUP_KEY), None), Ok(Decoded::Group { key, value: None }));
}

#[test]
fn what_a_newer_kafka_writes_is_named_and_skipped() {
    assert_eq!(
        decode(bytes(CONSUMER_GROUP_KEY), Some(bytes("0000"))),
        Ok(Decoded::Unknown { kind: 3, version: None })
    );
    assert_eq!(
        decode(bytes(OFFSET_KEY), Some(bytes("0005ff"))),
        Ok(Decoded::Unknown { kind: 1, version: Some(5) })
    );

    let mut coordinator = Coordinator::new(Settings::default());
    coordinator.replay(bytes(CONSUMER_GROUP_KEY), Some(bytes("0000"))).unwrap();
    coordinator.replay(bytes(GROUP_KEY), Some(bytes("ffff"))).unwrap();

    assert_eq!(coordinator.counts().records_skipped, 2);
    assert_eq!(coordinator.group_count(), 0);
}

#[test]
fn malformed_records_are_errors_that_change_nothing() {
    let mut coordinator = Coordinator::new(Settings::default());
    let mut replay = |key: &str, value: &str| coordinator.replay(bytes(key), Some(bytes(value))).unwrap_err();
    let end = |needed, remaining| DecodeError::UnexpectedEnd { needed, remaining };

    assert_eq!(replay("", ""), ReplayError::Key(end(2, 0)));
    assert_eq!(replay("000200056731", OFFSET_V4), ReplayError::Key(end(5, 2)));
    assert_eq!(replay(OFFSET_KEY, "00"), ReplayError::Version(end(2, 1)));
    assert_eq!(replay(OFFSET_KEY, "000400"), ReplayError::Value { version: 4, source: end(8, 1) });
    assert_eq!(replay("00010002673100066f7264657273ffffffff", OFFSET_V4), ReplayError::Partition(-1));
    assert_eq!(
        replay(GROUP_KEY, "00030000ffffffffffffffff000000000000000000000000"),
        ReplayError::Generation(-1)
    );
    // A count that no value can have allocates nothing.
    assert!(matches!(
        replay(GROUP_KEY, "0003000000000001ffffffff00000000000000007fffffff"),
        ReplayError::Value { version: 3, source: DecodeError::CountExceedsBytes { .. } }
    ));
    assert_eq!(coordinator.group_count(), 0);
}

fn at(wall: i64) -> Now {
    Now { wall: TimestampMs(wall), monotonic_ms: 0 }
}

fn commit(offset: CommitOffset, retention_ms: Option<u64>) -> Vec<Record> {
    let request = CommitRequest {
        group: Str::from("g1"),
        generation: None,
        member_id: Str::default(),
        instance_id: None,
        retention_ms,
        offsets: vec![offset],
        knows_group_id_not_found: true,
        may_create: true,
    };
    let answered = Coordinator::new(Settings::default()).commit(request, at(COMMITTED_AT));
    assert_eq!(answered.answer, Ok(vec![Ok(())]));
    answered.effects.records
}

fn commit_offset() -> CommitOffset {
    CommitOffset {
        topic: Str::from("orders"),
        topic_id: TopicId::new(TOPIC_ID),
        partition: PartitionId::new(7).expect("not negative"),
        offset: 42,
        leader_epoch: LeaderEpoch::new(5),
        metadata: Str::from("m"),
    }
}

#[test]
fn offsets_are_written_as_kafka_writes_them() {
    let written = |value| vec![Record { key: bytes(OFFSET_KEY), value: Some(bytes(value)) }];
    let bare =
        CommitOffset { topic_id: None, leader_epoch: None, metadata: Str::default(), ..commit_offset() };

    assert_eq!(commit(commit_offset(), None), written(OFFSET_V4));
    assert_eq!(commit(bare, None), written(OFFSET_V4_BARE));
    let retention_ms = u64::try_from(EXPIRES_AT - COMMITTED_AT).unwrap();
    assert_eq!(commit(commit_offset(), Some(retention_ms)), written(OFFSET_V1));
}

#[test]
fn tombstones_are_written_as_kafka_writes_them() {
    let mut coordinator = Coordinator::new(Settings::default());
    coordinator.replay(bytes(OFFSET_KEY), Some(bytes(OFFSET_V3))).unwrap();
    coordinator.replay(bytes(GROUP_KEY), Some(bytes(GROUP_V3_EMPTY))).unwrap();

    let deleted = coordinator.delete_groups(&[Str::from("g1")], at(0));

    let tombstone = |key| Record { key: bytes(key), value: None };
    assert_eq!(deleted.effects.records, [tombstone(OFFSET_KEY), tombstone(GROUP_KEY)]);
}

#[test]
fn a_group_is_written_as_kafka_writes_it() {
    let mut coordinator = Coordinator::new(Settings::default());
    coordinator.replay(bytes(GROUP_KEY), Some(bytes(GROUP_V4))).unwrap();
    let _ = coordinator.loaded(at(0));
    // The static member is back, and the group is stored as it was but for the member's id.
    let request = JoinRequest {
        group: Str::from("g1"),
        member_id: Str::default(),
        instance_id: Some(Str::from("web-1")),
        protocol_type: Str::from("consumer"),
        protocols: vec![Protocol { name: Str::from("range"), metadata: Bytes::from_static(&[1, 2, 2]) }],
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: Some(300_000),
        require_known_member_id: true,
        supports_skip_assignment: true,
        client: Client::default(),
        unique: [0; 16],
        may_create: false,
        room_bytes: usize::MAX,
    };

    let effects = coordinator.join(Call(1), request, at(GROUP_SINCE));

    let id = "web-1-00000000-0000-0000-0000-000000000000";
    let hex_id: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
    let expected = GROUP_V3.replace("00026d320005", &format!("{:04x}{hex_id}0005", id.len()));
    assert_eq!(effects.records, [Record { key: bytes(GROUP_KEY), value: Some(bytes(&expected)) }]);
}

#[test]
fn a_group_that_emptied_is_written_as_kafka_writes_it() {
    let mut coordinator = Coordinator::new(Settings::default());
    coordinator.replay(bytes(GROUP_KEY), Some(bytes(GROUP_V3))).unwrap();
    let _ = coordinator.loaded(Now { wall: TimestampMs(0), monotonic_ms: 0 });

    let effects = coordinator.expire(Now { wall: TimestampMs(GROUP_SINCE), monotonic_ms: 45_000 });

    assert_eq!(effects.records, [Record { key: bytes(GROUP_KEY), value: Some(bytes(GROUP_V3_EMPTY)) }]);
}

#[test]
fn a_member_of_a_version_0_record_has_its_session_timeout_for_rebalances_too() {
    let mut coordinator = Coordinator::new(Settings::default());
    coordinator.replay(bytes(GROUP_KEY), Some(bytes(GROUP_V0))).unwrap();
    let _ = coordinator.loaded(at(0));
    let request = LeaveRequest {
        group: Str::from("g1"),
        members: vec![Leaving { member_id: Str::from("m1"), instance_id: None }],
    };
    let _ = coordinator.leave(request, at(0));
    let alive = HeartbeatRequest {
        group: Str::from("g1"),
        generation: Generation::new(3),
        member_id: Str::from("m2"),
        instance_id: None,
    };
    let after = |monotonic_ms| Now { wall: TimestampMs(0), monotonic_ms };
    coordinator.heartbeat(&alive, after(44_000)).unwrap_err();

    let state = |coordinator: &Coordinator| coordinator.describe("g1").map(|group| group.state);
    let _ = coordinator.expire(after(44_999));
    assert_eq!(state(&coordinator), Some(GroupState::PreparingRebalance));
    let _ = coordinator.expire(after(45_000));
    assert_eq!(state(&coordinator), Some(GroupState::Empty));
}

/// Kafka's records with bytes changed and the end cut off.
fn damaged() -> impl Strategy<Value = (Bytes, Bytes)> {
    let goldens = vec![
        (OFFSET_KEY, OFFSET_V1),
        (OFFSET_KEY, OFFSET_V4),
        (GROUP_KEY, GROUP_V0),
        (GROUP_KEY, GROUP_V3),
        (GROUP_KEY, GROUP_V4),
    ];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(goldens), changes, proptest::option::weighted(0.3, any::<prop::sample::Index>()))
        .prop_map(|((key, value), changes, cut)| {
            let mut damaged = bytes(value).to_vec();
            for (index, byte) in changes {
                let position = index.index(damaged.len());
                damaged[position] = byte;
            }
            if let Some(cut) = cut {
                damaged.truncate(cut.index(damaged.len()));
            }
            (bytes(key), Bytes::from(damaged))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 2_000 }) })]

    #[test]
    fn a_damaged_log_is_an_error_or_a_group_that_works(records in proptest::collection::vec(damaged(), 1..6)) {
        let mut coordinator = Coordinator::new(Settings::default());
        for (key, value) in records {
            let _ = coordinator.replay(key, Some(value));
        }
        let _ = coordinator.loaded(at(0));
        // Its members, whatever they are, fall silent, and what it writes about itself can be read.
        for record in coordinator.expire(Now { wall: TimestampMs(i64::MAX), monotonic_ms: 1 << 40 }).records {
            prop_assert!(decode(record.key, record.value).is_ok());
        }
        prop_assert_eq!(coordinator.counts().members, 0);
    }
}
