//! Checks the tables against the `kafka-protocol` crate, whose codec is generated from Kafka 4.1's
//! definitions.
//!
//! The generator makes encodings from our tables. For every message and version, both codecs must decode
//! them, find the same value in each field of the same name, use up every byte, and encode the same bytes
//! again. The crate knows every version that we serve.
//!
//! Where the crate departs from Kafka and this oracle is blind: it accepts variable-length integers of more
//! than five bytes, takes null in every version of a field that may be null in some (so that the versions of
//! `nullable` are checked from one side only), panics on frames of fewer than four bytes, and allocates what
//! a count claims; `hostile.rs` holds those cases for our codec alone. It keeps unknown tagged fields, which
//! we skip; the generator makes none.

#![expect(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

mod generator;
mod hostile;

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use highwater_protocol::wire::{Kind, Message, Reader, StructSpec, Writer};
use highwater_protocol::{ApiKey, ErrorCode, RequestHeader, api, response_header_is_flexible};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

use crate::generator::{Generated, generate, generate_nulls};

/// Seeds for each message and version: enough that each nullable field is null, and each array empty, many
/// times.
const SEEDS: u64 = 200;

/// Fields of versions that Kafka 4.1 marks unstable; the crate has them though it does not offer the versions.
fn unstable_fields(message: &str) -> &'static [&'static str] {
    match message {
        "OffsetCommitRequest" | "OffsetCommitResponse" | "OffsetFetchRequest" | "OffsetFetchResponse" => {
            &["topic_id"]
        }
        "InitProducerIdRequest" | "InitProducerIdResponse" => {
            &["enable_2_pc", "keep_prepared_txn", "ongoing_txn_producer_epoch", "ongoing_txn_producer_id"]
        }
        _ => &[],
    }
}

/// What the crate calls a field whose name in Kafka is a word of Rust, and what we call it.
const RESERVED_NAME: [&str; 2] = ["_match", "match_"];

/// The `Debug` form of a message of the crate, with our names.
fn crate_debug(message: &impl std::fmt::Debug) -> String {
    let [theirs, ours] = RESERVED_NAME;
    format!("{message:?}").replace(theirs, ours)
}

/// Fails unless `debug` shows the values in their fields, in order.
#[track_caller]
fn check_found(debug: &str, generated: &Generated, context: &str) {
    let mut rest = plain(debug);
    for (name, value) in &generated.found {
        let expected = match value {
            Some(value) => format!("{name}: {value}"),
            None => format!("{name}: "),
        };
        let Some(at) = rest.find(&expected) else {
            panic!("{context}: no `{expected}` in order in {debug}");
        };
        rest = rest.split_off(at + expected.len());
    }
}

/// A `Debug` form without wrappers such as `Some(…)` and `BrokerId(…)`.
fn plain(debug: &str) -> String {
    let mut plain = String::with_capacity(debug.len());
    for character in debug.chars() {
        match character {
            '(' => {
                let word = plain.trim_end_matches(|c: char| c.is_ascii_alphanumeric()).len();
                plain.truncate(word);
            }
            ')' => {}
            _ => plain.push(character),
        }
    }
    plain
}

/// The numbers and truth values in the `Debug` form of a message, each after the name of its field.
fn scalars(message: &str, debug: &str) -> Vec<String> {
    let plain = plain(debug);
    let unstable = unstable_fields(message);
    let fields = plain.split([',', '{', '}', '[', ']']).map(str::trim);
    let scalars = fields.filter(|field| {
        field.split_once(": ").is_some_and(|(name, value)| {
            let scalar = value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
            scalar && !unstable.contains(&name)
        })
    });
    scalars.map(str::to_owned).collect()
}

/// Both codecs decode `generated` to the same values and encode it again.
#[track_caller]
fn check<Ours, Theirs>(version: i16, seed: u64)
where
    Ours: Message + std::fmt::Debug + PartialEq,
    Theirs: Encodable + Decodable + std::fmt::Debug,
{
    let context = format!("{} version {version} seed {seed}", Ours::SPEC.name);
    let generated = generate::<Ours>(version, seed);
    let bytes = Bytes::from(generated.bytes.clone());

    let mut reader = Reader::new(bytes.clone());
    let ours = Ours::read(&mut reader, version).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(reader.remaining(), 0, "{context}: bytes are left");
    check_found(&format!("{ours:?}"), &generated, &context);
    let mut writer = Writer::new();
    ours.write(&mut writer, version).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(writer.into_encoded().bytes, bytes, "{context}: our encoding differs");

    let mut rest = bytes.clone();
    let theirs =
        Theirs::decode(&mut rest, version).unwrap_or_else(|error| panic!("{context}: the crate: {error}"));
    assert!(rest.is_empty(), "{context}: the crate leaves bytes");
    check_found(&crate_debug(&theirs), &generated, &context);
    // This covers the fields that the version lacks: both must give them the same default.
    let scalars = |debug: String| scalars(Ours::SPEC.name, &debug);
    assert_eq!(scalars(format!("{ours:?}")), scalars(crate_debug(&theirs)), "{context}");
    let mut encoded = BytesMut::new();
    theirs.encode(&mut encoded, version).unwrap_or_else(|error| panic!("{context}: the crate: {error}"));
    assert_eq!(encoded, bytes, "{context}: the crate's encoding differs");

    // A message that came in one version and goes out in the same is the same.
    assert_eq!(Ours::read(&mut Reader::new(encoded.freeze()), version).as_ref(), Ok(&ours), "{context}");
}

/// Both codecs refuse null in the fields that our table never allows it in: where we wrongly do not allow it,
/// the crate accepts it.
fn check_forbidden_nulls<Ours: Message, Theirs: Decodable>(version: i16, seed: u64) {
    for (field, bytes) in generate_nulls::<Ours>(version, seed) {
        let context = format!("{} version {version} field {field}", Ours::SPEC.name);
        let bytes = Bytes::from(bytes);
        assert!(Ours::read(&mut Reader::new(bytes.clone()), version).is_err(), "{context}");
        assert!(Theirs::decode(&mut bytes.clone(), version).is_err(), "{context} may be null in the crate");
    }
}

/// The names of all the fields that the crate's structs have, with those nested in them.
fn names_in_crate<Ours: Message, Theirs: Decodable + std::fmt::Debug>() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for version in Ours::VERSIONS.min()..=Ours::VERSIONS.max() {
        for seed in 0..SEEDS {
            let mut bytes = Bytes::from(generate::<Ours>(version, seed).bytes);
            let debug = crate_debug(&Theirs::decode(&mut bytes, version).unwrap());
            let before_colons = debug.split(": ").map(|text| {
                text.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
            });
            names.extend(before_colons.filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    names
}

/// The names of all the fields of our table, with those nested in it.
fn names_in_table(spec: &StructSpec, names: &mut BTreeSet<String>) {
    for field in spec.fields {
        names.insert(field.name.to_owned());
        let mut kind = field.kind;
        while let Kind::Array(element) = kind {
            kind = *element;
        }
        if let Kind::Struct(nested) = kind {
            names_in_table(nested, names);
        }
    }
}

/// No field of the crate is missing in our table: a forgotten tagged field would not show in the bytes.
fn check_names<Ours: Message, Theirs: Decodable + std::fmt::Debug>() {
    let mut ours = BTreeSet::new();
    names_in_table(Ours::SPEC, &mut ours);
    let mut theirs = names_in_crate::<Ours, Theirs>();
    let unstable = unstable_fields(Ours::SPEC.name);
    theirs.retain(|name| name != "unknown_tagged_fields" && !unstable.contains(&name.as_str()));

    assert_eq!(ours, theirs);
}

/// A test of all versions, and a property over any seed, for each message.
macro_rules! check_messages {
    ($($test:ident: $message:ident;)*) => {$(
        mod $test {
            use super::*;

            #[test]
            #[cfg_attr(miri, ignore = "the text that is compared takes Miri minutes for a message")]
            fn every_version_agrees_with_the_crate() {
                let versions = api::$message::VERSIONS;
                for version in versions.min()..=versions.max() {
                    for seed in 0..SEEDS {
                        check::<api::$message, theirs::$message>(version, seed);
                        check_forbidden_nulls::<api::$message, theirs::$message>(version, seed);
                    }
                }
                check_names::<api::$message, theirs::$message>();
            }

            proptest! {
                #[test]
                #[cfg_attr(miri, ignore = "the text that is compared takes Miri seconds for a value")]
                fn any_value_survives(seed: u64, choice: u16) {
                    let versions = api::$message::VERSIONS;
                    let count = versions.max() - versions.min() + 1;
                    let version = versions.min() + i16::try_from(choice % count.cast_unsigned()).unwrap();
                    check::<api::$message, theirs::$message>(version, seed);
                }
            }

            #[test]
            #[cfg_attr(miri, ignore = "thousands of decodes for each message; whole frames are decoded by `any_frame`")]
            fn lies_are_refused() {
                hostile::check::<api::$message>();
            }
        }
    )*};
}

check_messages! {
    produce_request: ProduceRequest;
    produce_response: ProduceResponse;
    fetch_request: FetchRequest;
    fetch_response: FetchResponse;
    list_offsets_request: ListOffsetsRequest;
    list_offsets_response: ListOffsetsResponse;
    metadata_request: MetadataRequest;
    metadata_response: MetadataResponse;
    offset_commit_request: OffsetCommitRequest;
    offset_commit_response: OffsetCommitResponse;
    offset_fetch_request: OffsetFetchRequest;
    offset_fetch_response: OffsetFetchResponse;
    find_coordinator_request: FindCoordinatorRequest;
    find_coordinator_response: FindCoordinatorResponse;
    join_group_request: JoinGroupRequest;
    join_group_response: JoinGroupResponse;
    heartbeat_request: HeartbeatRequest;
    heartbeat_response: HeartbeatResponse;
    leave_group_request: LeaveGroupRequest;
    leave_group_response: LeaveGroupResponse;
    sync_group_request: SyncGroupRequest;
    sync_group_response: SyncGroupResponse;
    describe_groups_request: DescribeGroupsRequest;
    describe_groups_response: DescribeGroupsResponse;
    list_groups_request: ListGroupsRequest;
    list_groups_response: ListGroupsResponse;
    api_versions_request: ApiVersionsRequest;
    api_versions_response: ApiVersionsResponse;
    create_topics_request: CreateTopicsRequest;
    create_topics_response: CreateTopicsResponse;
    delete_topics_request: DeleteTopicsRequest;
    delete_topics_response: DeleteTopicsResponse;
    delete_records_request: DeleteRecordsRequest;
    delete_records_response: DeleteRecordsResponse;
    init_producer_id_request: InitProducerIdRequest;
    init_producer_id_response: InitProducerIdResponse;
    offset_for_leader_epoch_request: OffsetForLeaderEpochRequest;
    offset_for_leader_epoch_response: OffsetForLeaderEpochResponse;
    describe_configs_request: DescribeConfigsRequest;
    describe_configs_response: DescribeConfigsResponse;
    alter_configs_request: AlterConfigsRequest;
    alter_configs_response: AlterConfigsResponse;
    describe_log_dirs_request: DescribeLogDirsRequest;
    describe_log_dirs_response: DescribeLogDirsResponse;
    create_partitions_request: CreatePartitionsRequest;
    create_partitions_response: CreatePartitionsResponse;
    delete_groups_request: DeleteGroupsRequest;
    delete_groups_response: DeleteGroupsResponse;
    elect_leaders_request: ElectLeadersRequest;
    elect_leaders_response: ElectLeadersResponse;
    incremental_alter_configs_request: IncrementalAlterConfigsRequest;
    incremental_alter_configs_response: IncrementalAlterConfigsResponse;
    alter_partition_reassignments_request: AlterPartitionReassignmentsRequest;
    alter_partition_reassignments_response: AlterPartitionReassignmentsResponse;
    list_partition_reassignments_request: ListPartitionReassignmentsRequest;
    list_partition_reassignments_response: ListPartitionReassignmentsResponse;
    offset_delete_request: OffsetDeleteRequest;
    offset_delete_response: OffsetDeleteResponse;
    describe_client_quotas_request: DescribeClientQuotasRequest;
    describe_client_quotas_response: DescribeClientQuotasResponse;
    alter_client_quotas_request: AlterClientQuotasRequest;
    alter_client_quotas_response: AlterClientQuotasResponse;
    describe_quorum_request: DescribeQuorumRequest;
    describe_quorum_response: DescribeQuorumResponse;
    update_features_request: UpdateFeaturesRequest;
    update_features_response: UpdateFeaturesResponse;
    describe_cluster_request: DescribeClusterRequest;
    describe_cluster_response: DescribeClusterResponse;
    list_config_resources_request: ListConfigResourcesRequest;
    list_config_resources_response: ListConfigResourcesResponse;
    describe_topic_partitions_request: DescribeTopicPartitionsRequest;
    describe_topic_partitions_response: DescribeTopicPartitionsResponse;
}

#[test]
fn headers_have_the_crates_versions_and_bytes() {
    for key in ApiKey::ALL {
        let known = theirs::ApiKey::try_from(key.code()).unwrap();
        for version in key.served().min()..=key.served().max() {
            let header = RequestHeader {
                api_key: key.code(),
                api_version: version,
                correlation_id: 0x0102_0304,
                client_id: Some("shipper".into()),
            };
            let mut writer = Writer::new();
            header.encode(&mut writer).unwrap();
            let bytes = writer.into_encoded().bytes.freeze();

            let mut rest = bytes.clone();
            let decoded =
                theirs::RequestHeader::decode(&mut rest, known.request_header_version(version)).unwrap();
            assert!(rest.is_empty(), "{key} version {version}");
            assert_eq!(decoded.correlation_id, header.correlation_id);
            assert_eq!(decoded.client_id.as_deref(), Some("shipper"));
            assert_eq!(RequestHeader::decode(&mut Reader::new(bytes)), Ok(header));

            let flexible = known.response_header_version(version) == 1;
            assert_eq!(response_header_is_flexible(*key, version), flexible, "{key} version {version}");
        }
    }
}

#[test]
fn error_codes_have_the_crates_names() {
    use kafka_protocol::ResponseError;

    for error in ErrorCode::ALL.iter().filter(|error| !error.is_none()) {
        let theirs = ResponseError::try_from_code(error.code()).unwrap();
        assert_eq!(format!("{error:?}"), format!("{theirs:?}"));
    }
}
