//! Valid frames of the APIs for administrators, to be damaged.

use highwater_protocol::api::alter_client_quotas::{self, AlterClientQuotasRequest, EntityData, OpData};
use highwater_protocol::api::alter_configs::{self, AlterConfigsRequest};
use highwater_protocol::api::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use highwater_protocol::api::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use highwater_protocol::api::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use highwater_protocol::api::describe_client_quotas::{ComponentData, DescribeClientQuotasRequest};
use highwater_protocol::api::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use highwater_protocol::api::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use highwater_protocol::api::describe_quorum::{self, DescribeQuorumRequest};
use highwater_protocol::api::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use highwater_protocol::api::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use highwater_protocol::api::incremental_alter_configs::{self, IncrementalAlterConfigsRequest};
use highwater_protocol::api::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};
use highwater_protocol::api::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use highwater_protocol::api::{DescribeClusterRequest, ListConfigResourcesRequest};
use highwater_protocol::wire::Str;

use super::{Frame, TOPIC, every_version};

/// Every request in every version that can carry it.
pub(super) fn frames(frames: &mut Vec<Frame>) {
    every_version(frames, |_| delete_records());
    configs(frames);
    for topics in
        [None, Some(vec![DescribableLogDirTopic { topic: TOPIC.into(), partitions: vec![0, 1, 9] }])]
    {
        every_version(frames, |_| DescribeLogDirsRequest { topics: topics.clone() });
    }
    every_version(frames, |_| create_partitions());
    for topic_partitions in
        [None, Some(vec![TopicPartitions { topic: TOPIC.into(), partitions: vec![0, 9] }])]
    {
        every_version(frames, |version| ElectLeadersRequest {
            election_type: i8::from(version > 0),
            topic_partitions: topic_partitions.clone(),
            timeout_ms: 100,
        });
    }
    reassignments(frames);
    every_version(frames, |_| describe_client_quotas());
    every_version(frames, |_| alter_client_quotas());
    every_version(frames, |_| describe_quorum());
    every_version(frames, |_| update_features());
    every_version(frames, |version| DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        endpoint_type: 1,
        include_fenced_brokers: version >= 2,
    });
    every_version(frames, |version| ListConfigResourcesRequest {
        resource_types: if version > 0 { vec![2, 4, 16] } else { Vec::new() },
    });
    every_version(frames, |_| describe_topic_partitions());
}

fn delete_records() -> DeleteRecordsRequest {
    let partitions = [(0, 0), (1, -1), (1, i64::MAX), (9, 0)];
    let partitions =
        partitions.map(|(partition_index, offset)| DeleteRecordsPartition { partition_index, offset });
    let topic = |name: &str| DeleteRecordsTopic { name: name.into(), partitions: partitions.to_vec() };
    DeleteRecordsRequest { topics: vec![topic(TOPIC), topic("no-such-topic")], timeout_ms: 100 }
}

fn configs(frames: &mut Vec<Frame>) {
    let resources = [(2, TOPIC), (2, "no-such-topic"), (4, "1"), (4, ""), (8, "1"), (16, "x"), (32, "g")];
    every_version(frames, |version| DescribeConfigsRequest {
        resources: resources
            .map(|(resource_type, name)| DescribeConfigsResource {
                resource_type,
                resource_name: name.into(),
                configuration_keys: (resource_type != 2).then(|| vec!["log.dirs".into()]),
            })
            .to_vec(),
        include_synonyms: true,
        include_documentation: version >= 3,
    });
    every_version(frames, |_| AlterConfigsRequest {
        resources: resources
            .map(|(resource_type, name)| alter_configs::AlterConfigsResource {
                resource_type,
                resource_name: name.into(),
                configs: vec![alter_configs::AlterableConfig {
                    name: "max.message.bytes".into(),
                    value: Some("100000".into()),
                }],
            })
            .to_vec(),
        validate_only: false,
    });
    let changes =
        [(0, "segment.bytes", Some("1048576")), (1, "flush.ms", None), (2, "cleanup.policy", Some("delete"))];
    every_version(frames, |_| IncrementalAlterConfigsRequest {
        resources: resources
            .map(|(resource_type, name)| incremental_alter_configs::AlterConfigsResource {
                resource_type,
                resource_name: name.into(),
                configs: changes
                    .map(|(config_operation, name, value)| incremental_alter_configs::AlterableConfig {
                        name: name.into(),
                        config_operation,
                        value: value.map(Str::from),
                    })
                    .to_vec(),
            })
            .to_vec(),
        validate_only: false,
    });
}

fn create_partitions() -> CreatePartitionsRequest {
    let topic = |name: &str, count, assigned: bool| CreatePartitionsTopic {
        name: name.into(),
        count,
        assignments: assigned.then(|| vec![CreatePartitionsAssignment { broker_ids: vec![1] }]),
    };
    let topics = vec![topic(TOPIC, 3, true), topic("created", 4, false), topic("no-such-topic", 2, false)];
    CreatePartitionsRequest { topics, timeout_ms: 100, validate_only: false }
}

fn reassignments(frames: &mut Vec<Frame>) {
    let partitions = [(0, Some(vec![1])), (1, None), (0, Some(vec![2, 3])), (9, Some(Vec::new()))];
    let partitions =
        partitions.map(|(partition_index, replicas)| ReassignablePartition { partition_index, replicas });
    every_version(frames, |_| AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic { name: TOPIC.into(), partitions: partitions.to_vec() }],
        ..AlterPartitionReassignmentsRequest::default()
    });
    every_version(frames, |_| ListPartitionReassignmentsRequest {
        topics: Some(vec![ListPartitionReassignmentsTopics {
            name: TOPIC.into(),
            partition_indexes: vec![0, 9],
        }]),
        ..ListPartitionReassignmentsRequest::default()
    });
}

fn describe_client_quotas() -> DescribeClientQuotasRequest {
    let components = [("user", 0, Some("alice")), ("client-id", 1, None), ("ip", 2, None)];
    let components = components.map(|(entity_type, match_type, name)| ComponentData {
        entity_type: entity_type.into(),
        match_type,
        match_: name.map(Str::from),
    });
    DescribeClientQuotasRequest { components: components.to_vec(), strict: false }
}

fn alter_client_quotas() -> AlterClientQuotasRequest {
    let ops = [("producer_byte_rate", 1e9, false), ("consumer_byte_rate", 0.0, true)];
    let entry = |name: Option<&str>| alter_client_quotas::request::EntryData {
        entity: vec![EntityData { entity_type: "client-id".into(), entity_name: name.map(Str::from) }],
        ops: ops.map(|(key, value, remove)| OpData { key: key.into(), value, remove }).to_vec(),
    };
    // No default: a quota of every client would slow the test itself down.
    AlterClientQuotasRequest {
        entries: vec![entry(Some("shipper")), entry(Some("auditor"))],
        validate_only: false,
    }
}

fn describe_quorum() -> DescribeQuorumRequest {
    let partition = describe_quorum::request::PartitionData { partition_index: 0 };
    let topic = describe_quorum::request::TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![partition],
    };
    DescribeQuorumRequest { topics: vec![topic] }
}

fn update_features() -> UpdateFeaturesRequest {
    let feature = |feature: &str, max_version_level| FeatureUpdateKey {
        feature: feature.into(),
        max_version_level,
        ..FeatureUpdateKey::default()
    };
    UpdateFeaturesRequest {
        feature_updates: vec![feature("metadata.version", 20), feature("no.such.feature", 0)],
        ..UpdateFeaturesRequest::default()
    }
}

fn describe_topic_partitions() -> DescribeTopicPartitionsRequest {
    let topics = [TOPIC, "created", "no-such-topic"].map(|name| TopicRequest { name: name.into() });
    DescribeTopicPartitionsRequest {
        topics: topics.to_vec(),
        response_partition_limit: 1,
        cursor: Some(Cursor { topic_name: TOPIC.into(), partition_index: 1 }),
    }
}
