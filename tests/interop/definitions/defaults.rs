//! What a field is if nobody sets it, in our structs and in Kafka's.
//!
//! The tables do not say it, so that it is read off what each struct's `Default` prints. Both sides are written
//! alike: `null`, or the value without an `Option` around it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use highwater_protocol::ApiKey;
use highwater_protocol::wire::{Kind, Uuid, Wire};
use serde_json::Value;

/// The values by struct and field in the names of the tables; the structs of one API have different names.
pub(super) type Defaults = BTreeMap<(&'static str, &'static str), String>;

/// How null is written.
pub(super) const NULL: &str = "null";

macro_rules! defaults {
    ($module:ident: $($struct:ident),+ $(,)?) => {
        [$(of_struct::<highwater_protocol::api::$module::$struct>()),+].into_iter().flatten().collect()
    };
}

/// The defaults of every struct of an API. One that is left out is found by the comparison.
pub(super) fn of(key: ApiKey) -> Defaults {
    match key {
        ApiKey::Produce => defaults![produce:
            ProduceRequest, TopicProduceData, PartitionProduceData, ProduceResponse, TopicProduceResponse,
            PartitionProduceResponse, BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint,
        ],
        ApiKey::Fetch => defaults![fetch:
            FetchRequest, ReplicaState, FetchTopic, FetchPartition, ForgottenTopic, FetchResponse,
            FetchableTopicResponse, PartitionData, EpochEndOffset, LeaderIdAndEpoch, SnapshotId,
            AbortedTransaction, NodeEndpoint,
        ],
        ApiKey::ListOffsets => defaults![list_offsets:
            ListOffsetsRequest, ListOffsetsTopic, ListOffsetsPartition, ListOffsetsResponse,
            ListOffsetsTopicResponse, ListOffsetsPartitionResponse,
        ],
        ApiKey::Metadata => defaults![metadata:
            MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
            MetadataResponseTopic, MetadataResponsePartition,
        ],
        ApiKey::OffsetCommit => defaults![offset_commit:
            OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitRequestPartition, OffsetCommitResponse,
            OffsetCommitResponseTopic, OffsetCommitResponsePartition,
        ],
        ApiKey::OffsetFetch => defaults![offset_fetch:
            OffsetFetchRequest, OffsetFetchRequestTopic, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
            OffsetFetchResponse, OffsetFetchResponseTopic, OffsetFetchResponsePartition,
            OffsetFetchResponseGroup, OffsetFetchResponseTopics, OffsetFetchResponsePartitions,
        ],
        ApiKey::FindCoordinator => defaults![find_coordinator:
            FindCoordinatorRequest, FindCoordinatorResponse, Coordinator,
        ],
        ApiKey::JoinGroup => defaults![join_group:
            JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
        ],
        ApiKey::Heartbeat => defaults![heartbeat:
            HeartbeatRequest, HeartbeatResponse,
        ],
        ApiKey::LeaveGroup => defaults![leave_group:
            LeaveGroupRequest, MemberIdentity, LeaveGroupResponse, MemberResponse,
        ],
        ApiKey::SyncGroup => defaults![sync_group:
            SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
        ],
        ApiKey::DescribeGroups => defaults![describe_groups:
            DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
        ],
        ApiKey::ListGroups => defaults![list_groups:
            ListGroupsRequest, ListGroupsResponse, ListedGroup,
        ],
        ApiKey::ApiVersions => defaults![api_versions:
            ApiVersionsRequest, ApiVersionsResponse, ApiVersion, SupportedFeatureKey, FinalizedFeatureKey,
        ],
        ApiKey::CreateTopics => defaults![create_topics:
            CreateTopicsRequest, CreatableTopic, CreatableReplicaAssignment, CreatableTopicConfig,
            CreateTopicsResponse, CreatableTopicResult, CreatableTopicConfigs,
        ],
        ApiKey::DeleteTopics => defaults![delete_topics:
            DeleteTopicsRequest, DeleteTopicState, DeleteTopicsResponse, DeletableTopicResult,
        ],
        ApiKey::InitProducerId => defaults![init_producer_id:
            InitProducerIdRequest, InitProducerIdResponse,
        ],
        ApiKey::OffsetForLeaderEpoch => defaults![offset_for_leader_epoch:
            OffsetForLeaderEpochRequest, OffsetForLeaderTopic, OffsetForLeaderPartition,
            OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult, EpochEndOffset,
        ],
        ApiKey::DeleteGroups => defaults![delete_groups:
            DeleteGroupsRequest, DeleteGroupsResponse, DeletableGroupResult,
        ],
        ApiKey::OffsetDelete => defaults![offset_delete:
            OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteRequestPartition, OffsetDeleteResponse,
            OffsetDeleteResponseTopic, OffsetDeleteResponsePartition,
        ],
    }
}

/// The defaults of one struct, field by field.
pub(super) fn of_struct<T: Debug + Default + Wire>() -> Defaults {
    let Kind::Struct(spec) = T::KIND else {
        return Defaults::new();
    };
    let printed = format!("{:#?}", T::default());
    let mut values = Vec::new();
    for line in printed.lines() {
        // A field begins one step to the right of the struct's own braces; what lies deeper belongs to it.
        match line.strip_prefix("    ").filter(|field| !field.starts_with([' ', ')', ']', '}'])) {
            Some(field) => values.push(field.split_once(": ").unwrap_or((field, "")).1.to_owned()),
            None => values.last_mut().into_iter().for_each(|value| value.push_str(line.trim())),
        }
    }
    let names = spec.fields.iter().map(|field| (spec.name, field.name));
    names.zip(values.iter().map(|value| without_option(value))).collect()
}

/// Strips what `Debug` puts around the value of a field.
fn without_option(printed: &str) -> String {
    let value = printed.trim_end_matches(['}', ',']);
    match value.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => inner.trim_end_matches(',').to_owned(),
        None if matches!(value, "None" | "Null") => NULL.to_owned(),
        // No bytes are written like no elements.
        None if value == "b\"\"" => "[]".to_owned(),
        None => value.to_owned(),
    }
}

/// The default of a field of this type in Kafka (`FieldSpec.fieldDefault` of its generator).
pub(super) fn of_kafka(kind: &str, default: Option<&Value>) -> String {
    let text = match default {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let hexadecimal = text.strip_prefix("0x").map(|digits| i64::from_str_radix(digits, 16));
    match (kind, text.as_str()) {
        ("records", _) | (_, NULL) => NULL.to_owned(),
        ("bool", "") => "false".to_owned(),
        ("int8" | "int16" | "uint16" | "int32" | "int64", "") => "0".to_owned(),
        ("float64", "") => "0.0".to_owned(),
        ("string", _) => format!("{text:?}"),
        ("uuid", "") => Uuid::default().to_string(),
        (_, "") => "[]".to_owned(),
        (_, text) => hexadecimal.and_then(Result::ok).map_or(text.to_owned(), |number| number.to_string()),
    }
}
