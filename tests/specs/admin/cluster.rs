//! What the broker says of itself: the cluster, the quorum, its directory, what has settings, partitions page by page;
//! and what one broker has to say about elections, moves and features.

use anyhow::Context as _;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use highwater_protocol::api::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use highwater_protocol::api::describe_quorum::{self, DescribeQuorumRequest};
use highwater_protocol::api::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicRequest,
};
use highwater_protocol::api::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use highwater_protocol::api::metadata::MetadataRequestTopic;
use highwater_protocol::api::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use highwater_protocol::api::{
    DescribeClusterRequest, DescribeGroupsRequest, ListConfigResourcesRequest,
    ListPartitionReassignmentsRequest, MetadataRequest,
};

use super::{Admin, named};
use crate::faults::batches::plain_batch;
use crate::harness::wait;

#[test]
fn the_cluster_is_the_one_that_the_metadata_names() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    let metadata = admin.connection.call(9, &MetadataRequest::default())?;
    for version in 0..=2 {
        let described = admin.connection.call(version, &DescribeClusterRequest::default())?;

        assert_eq!(described.error_code, 0);
        assert_eq!(Some(&described.cluster_id), metadata.cluster_id.as_ref());
        assert_eq!((described.controller_id, described.brokers.len()), (1, 1));
        let broker = &described.brokers[0];
        assert_eq!((broker.broker_id, broker.is_fenced), (1, false));
        assert_eq!(format!("{}:{}", broker.host, broker.port), admin.served.broker.bootstrap());
        assert_eq!(described.cluster_authorized_operations, i32::MIN);
    }
    let asked = DescribeClusterRequest { include_cluster_authorized_operations: true, ..Default::default() };
    assert_eq!(admin.connection.call(1, &asked)?.cluster_authorized_operations, 8096);
    Ok(())
}

#[test]
fn the_metadata_says_what_a_client_may_do_if_it_is_asked() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let mut ask = |version, include_cluster, include_topic| -> anyhow::Result<(i32, Vec<i32>)> {
        let topic = |name: &str| MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(vec![topic("t"), topic("a/b")]),
            include_cluster_authorized_operations: include_cluster,
            include_topic_authorized_operations: include_topic,
            ..MetadataRequest::default()
        };
        let response = admin.connection.call(version, &request)?;
        let topics = response.topics.iter().map(|topic| topic.topic_authorized_operations);
        Ok((response.cluster_authorized_operations, topics.collect()))
    };
    let unasked = i32::MIN;

    for version in 8..=10 {
        assert_eq!(ask(version, false, false)?, (unasked, vec![unasked; 2]), "version {version}");
        assert_eq!(ask(version, true, true)?, (8096, vec![3576; 2]), "version {version}");
    }
    // From version 11 on DescribeCluster tells it of the cluster.
    assert_eq!(ask(13, false, true)?, (unasked, vec![3576; 2]));
    Ok(())
}

#[test]
fn controllers_have_no_endpoint() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    for (endpoint_type, code) in
        [(2, ErrorCode::MismatchedEndpointType), (3, ErrorCode::UnsupportedEndpointType)]
    {
        let request = DescribeClusterRequest { endpoint_type, ..DescribeClusterRequest::default() };
        let described = admin.connection.call(1, &request)?;
        assert_eq!((named(described.error_code), described.brokers.len()), (code, 0));
        assert!(described.error_message.is_some());
    }
    Ok(())
}

#[test]
fn this_broker_is_the_only_voter_on_its_metadata() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    let request = quorum_request(&[("__cluster_metadata", &[0])]);
    let mut ends = Vec::new();
    for version in 0..=2 {
        admin.connection.create_topic(&format!("t{version}"), 1, &[])?;
        let described = admin.connection.call(version, &request)?;

        let quorum = &described.topics[0].partitions[0];
        assert_eq!((quorum.error_code, quorum.leader_id, quorum.current_voters.len()), (0, 1, 1));
        assert_eq!(quorum.current_voters[0].log_end_offset, quorum.high_watermark);
        assert_eq!(quorum.observers.len(), 0);
        assert_eq!(described.nodes.len(), usize::from(version == 2));
        ends.push(quorum.high_watermark);
    }
    assert!(ends.is_sorted_by(|one, next| one < next), "each topic adds to the metadata: {ends:?}");
    Ok(())
}

fn quorum_request(topics: &[(&str, &[i32])]) -> DescribeQuorumRequest {
    let partition = |index: &i32| describe_quorum::request::PartitionData { partition_index: *index };
    let topic = |(name, partitions): &(&str, &[i32])| describe_quorum::request::TopicData {
        topic_name: (*name).into(),
        partitions: partitions.iter().map(partition).collect(),
    };
    DescribeQuorumRequest { topics: topics.iter().map(topic).collect() }
}

#[test]
fn the_quorum_of_one_partition_is_described_and_no_other() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    let metadata = "__cluster_metadata";
    for (topics, count) in [
        (&[(metadata, &[0, 0][..])][..], 2),
        (&[(metadata, &[0]), (metadata, &[0])], 2),
        (&[(metadata, &[0]), ("t", &[0])], 2),
        (&[(metadata, &[1])], 1),
        (&[("t", &[0])], 1),
        (&[(metadata, &[])], 0),
        (&[], 0),
    ] {
        let described = admin.connection.call(2, &quorum_request(topics))?;

        let partitions = described.topics.iter().flat_map(|topic| &topic.partitions);
        let codes: Vec<_> = partitions.map(|partition| named(partition.error_code)).collect();
        assert_eq!(codes, vec![ErrorCode::UnknownTopicOrPartition; count], "{topics:?}");
        assert_eq!((described.error_code, described.nodes.len()), (0, 0), "{topics:?}");
    }
    Ok(())
}

#[test]
fn the_data_directory_is_described_with_real_sizes() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(2)?;
    admin.connection.produce("t", 1, plain_batch(0, 10_000))?;
    for version in 1..=4 {
        let described = admin.connection.call(version, &DescribeLogDirsRequest { topics: None })?;

        let [directory] = &described.results[..] else { panic!("there is one directory: {described:?}") };
        assert_eq!((described.error_code, directory.error_code), (0, 0));
        assert_eq!(directory.log_dir, admin.served.broker.data().display().to_string().as_str());
        let sizes: Vec<_> = directory.topics[0].partitions.iter().map(|one| one.partition_size).collect();
        let file = std::fs::metadata(admin.served.broker.data().join("t-1/00000000000000000000.log"))?;
        assert_eq!(sizes, [0, i64::try_from(file.len())?]);
        if version == 4 {
            assert!(0 < directory.usable_bytes && directory.usable_bytes <= directory.total_bytes);
        } else {
            assert_eq!((directory.total_bytes, directory.usable_bytes), (-1, -1));
        }
    }
    let asked = |topic: &str| DescribableLogDirTopic { topic: topic.into(), partitions: vec![1, 9] };
    let request = DescribeLogDirsRequest { topics: Some(vec![asked("t"), asked("absent")]) };
    let described = admin.connection.call(4, &request)?;
    let topics = &described.results[0].topics;
    assert_eq!((topics.len(), topics[0].partitions.len()), (1, 1));
    Ok(())
}

#[test]
fn config_resources_are_topics_and_this_broker() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let mut list = |version, resource_types: &[i8]| -> anyhow::Result<(ErrorCode, Vec<(i8, String)>)> {
        let request = ListConfigResourcesRequest { resource_types: resource_types.to_vec() };
        let response = admin.connection.call(version, &request)?;
        let found = response.config_resources.iter();
        let found = found.map(|one| (one.resource_type, one.resource_name.to_string())).collect();
        Ok((named(response.error_code), found))
    };
    let owned = |found: &[(i8, &str)]| found.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect();

    assert_eq!(list(0, &[])?, (ErrorCode::None, owned(&[])));
    assert_eq!(list(1, &[])?, (ErrorCode::None, owned(&[(2, "t"), (4, "1"), (8, "1")])));
    assert_eq!(list(1, &[2, 16])?, (ErrorCode::None, owned(&[(2, "t")])));
    assert_eq!(list(1, &[2, 3])?, (ErrorCode::UnsupportedVersion, owned(&[])));
    Ok(())
}

/// Asks for a page of these topics, or of all of them.
fn page(
    admin: &mut Admin,
    topics: &[&str],
    limit: i32,
    cursor: Option<(&str, i32)>,
) -> anyhow::Result<DescribeTopicPartitionsResponse> {
    let request = DescribeTopicPartitionsRequest {
        topics: topics.iter().map(|name| TopicRequest { name: (*name).into() }).collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(topic, partition_index)| Cursor { topic_name: topic.into(), partition_index }),
    };
    Ok(admin.connection.call(0, &request)?)
}

/// A topic and the number of a partition.
type Place = (String, i32);

/// The partitions of a page, and where the next page begins.
fn contents(page: &DescribeTopicPartitionsResponse) -> (Vec<Place>, Option<Place>) {
    let partitions = page.topics.iter().flat_map(|topic| {
        assert_eq!(topic.error_code, 0, "{topic:?}");
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        topic.partitions.iter().map(move |partition| {
            assert_eq!((partition.error_code, partition.leader_id), (0, 1));
            (name.clone(), partition.partition_index)
        })
    });
    let next = page.next_cursor.as_ref().map(|next| (next.topic_name.to_string(), next.partition_index));
    (partitions.collect(), next)
}

#[test]
fn pages_of_partitions_join_without_a_gap() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    for (name, partitions) in [("b", 3), ("a", 2), ("c", 1)] {
        admin.connection.create_topic(name, partitions, &[])?;
    }
    let expected: Vec<_> = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("c", 0)]
        .map(|(name, partition)| (name.to_owned(), partition))
        .to_vec();
    for limit in 1..=7 {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let at = cursor.as_ref().map(|(name, partition): &Place| (name.as_str(), *partition));
            let (partitions, next) = contents(&page(&mut admin, &[], limit, at)?);
            assert!(partitions.len() <= usize::try_from(limit)?);
            found.extend(partitions);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    // A limit that is none asks for one.
    assert_eq!(contents(&page(&mut admin, &["b"], 0, None)?).0.len(), 1);
    Ok(())
}

#[test]
fn a_page_names_topics_that_are_not_there_and_refuses_a_cursor_to_nowhere() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;

    let answer = page(&mut admin, &["t", "absent", "a/b", "t"], 10, None)?;

    let codes: Vec<_> = answer
        .topics
        .iter()
        .map(|topic| (topic.name.as_deref().unwrap_or_default(), named(topic.error_code)))
        .collect();
    assert_eq!(
        codes,
        [
            ("a/b", ErrorCode::InvalidTopicException),
            ("absent", ErrorCode::UnknownTopicOrPartition),
            ("t", ErrorCode::None),
        ]
    );
    for cursor in [("elsewhere", 0), ("t", -1)] {
        let answer = page(&mut admin, &["t"], 10, Some(cursor))?;
        assert_eq!(named(answer.topics[0].error_code), ErrorCode::InvalidRequest);
    }
    Ok(())
}

#[test]
fn no_election_is_needed() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let topic = |name: &str, partitions: &[i32]| TopicPartitions {
        topic: name.into(),
        partitions: partitions.to_vec(),
    };
    let mut elect = |election_type, topic_partitions| -> anyhow::Result<(ErrorCode, Vec<ErrorCode>)> {
        let request = ElectLeadersRequest { election_type, topic_partitions, timeout_ms: 1000 };
        let response = admin.connection.call(2, &request)?;
        let results = response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
        Ok((named(response.error_code), results.map(|one| named(one.error_code)).collect()))
    };

    let named_ones = vec![topic("t", &[0, 5]), topic("absent", &[0]), topic("a/b", &[0])];
    let expected = vec![
        ErrorCode::ElectionNotNeeded,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::UnknownTopicOrPartition,
    ];
    assert_eq!(elect(0, Some(named_ones.clone()))?, (ErrorCode::None, expected.clone()));
    assert_eq!(elect(1, Some(named_ones))?, (ErrorCode::None, expected));
    assert_eq!(elect(0, None)?, (ErrorCode::None, Vec::new()));
    assert_eq!(elect(2, None)?, (ErrorCode::InvalidRequest, Vec::new()));
    Ok(())
}

#[test]
fn replicas_stay_where_they_are() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let mut reassign = |partition_index, replicas: Option<&[i32]>, may_change| -> anyhow::Result<ErrorCode> {
        let partition = ReassignablePartition { partition_index, replicas: replicas.map(<[i32]>::to_vec) };
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: 1000,
            allow_replication_factor_change: may_change,
            topics: vec![ReassignableTopic { name: "t".into(), partitions: vec![partition] }],
        };
        let response = admin.connection.call(1, &request)?;
        assert_eq!((response.error_code, response.allow_replication_factor_change), (0, may_change));
        Ok(named(response.responses[0].partitions[0].error_code))
    };

    assert_eq!(reassign(0, Some(&[1]), true)?, ErrorCode::None);
    assert_eq!(reassign(0, None, true)?, ErrorCode::NoReassignmentInProgress);
    assert_eq!(reassign(0, Some(&[2]), true)?, ErrorCode::InvalidReplicaAssignment);
    assert_eq!(reassign(0, Some(&[1, 2]), true)?, ErrorCode::InvalidReplicaAssignment);
    assert_eq!(reassign(0, Some(&[1, 2]), false)?, ErrorCode::InvalidReplicationFactor);
    assert_eq!(reassign(0, Some(&[]), true)?, ErrorCode::InvalidReplicaAssignment);
    assert_eq!(reassign(3, Some(&[1]), true)?, ErrorCode::UnknownTopicOrPartition);
    let moving = admin.connection.call(0, &ListPartitionReassignmentsRequest::default())?;
    assert_eq!((moving.error_code, moving.topics.len()), (0, 0));
    Ok(())
}

#[test]
fn no_feature_has_a_level() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    let update = FeatureUpdateKey {
        feature: "metadata.version".into(),
        max_version_level: 7,
        ..FeatureUpdateKey::default()
    };
    let request = UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() };

    let each = admin.connection.call(1, &request)?;
    assert_eq!((each.error_code, named(each.results[0].error_code)), (0, ErrorCode::InvalidUpdateVersion));
    let whole = admin.connection.call(2, &request)?;
    assert_eq!((named(whole.error_code), whole.results.len()), (ErrorCode::InvalidUpdateVersion, 0));
    assert!(whole.error_message.is_some_and(|message| message.contains("metadata.version")));
    assert_eq!(admin.connection.call(2, &UpdateFeaturesRequest::default())?.error_code, 0);
    Ok(())
}

#[test]
fn what_a_client_may_do_with_a_group_is_said_if_it_is_asked() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    let mut ask = |version, include_authorized_operations| -> anyhow::Result<(i16, i32)> {
        let groups = vec!["nobody".into()];
        let request = DescribeGroupsRequest { groups, include_authorized_operations };
        let response = admin.connection.call(version, &request)?;
        let group = response.groups.first().context("the answer names the group")?;
        Ok((group.error_code, group.authorized_operations))
    };
    // Groups load after the start.
    wait::until("groups to be answered for", || Ok(ask(3, false)?.0 == 0))?;

    for version in 3..=5 {
        assert_eq!(ask(version, false)?, (0, i32::MIN));
        assert_eq!(ask(version, true)?, (0, 3400));
    }
    assert_eq!(ask(6, true)?, (ErrorCode::GroupIdNotFound.code(), i32::MIN));
    Ok(())
}
