//! DescribeQuorum (55): who votes on the metadata: this broker alone.
//!
//! Versions: 0-2. The metadata is the log `__cluster_metadata-0`, which this broker leads in the epoch of its
//! incarnation; what is in it is durable, so that its end is its high watermark. As in Kafka (`hasValidTopicPartition`)
//! a request asks for that partition, once and for nothing else.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
    request,
};
use highwater_protocol::wire::Str;

use crate::broker::NODE_ID;
use crate::clock;
use crate::context::Context;
use crate::refusal::refuse;

const METADATA_TOPIC: &str = "__cluster_metadata";
/// Below this version answers have no nodes.
const NODES_VERSION_MIN: i16 = 2;

pub(crate) fn handle(context: &Context<'_>, request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let is_metadata = |topic: &request::TopicData| {
        let partitions = topic.partitions.iter().map(|partition| partition.partition_index);
        topic.topic_name == METADATA_TOPIC && partitions.eq([0])
    };
    let [topic] = &request.topics[..] else { return refuse_all(request) };
    if !is_metadata(topic) {
        return refuse_all(request);
    }
    let topic = TopicData { topic_name: topic.topic_name.clone(), partitions: vec![describe(context)] };
    DescribeQuorumResponse { topics: vec![topic], nodes: nodes(context), ..Default::default() }
}

/// The same answer for each partition.
fn refuse_all(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let message = format!("only {METADATA_TOPIC}-0 has voters, and is asked for alone");
    let refusal = refuse(ErrorCode::UnknownTopicOrPartition, message);
    let mut indexes = 0..;
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut indexes).map(|(partition, index)| {
            let (error_code, error_message) = refusal.told_of_part(index);
            let partition_index = partition.partition_index;
            PartitionData { partition_index, error_code, error_message, ..PartitionData::default() }
        });
        TopicData { partitions: partitions.collect(), topic_name: topic.topic_name.clone() }
    });
    DescribeQuorumResponse { topics: topics.collect(), ..Default::default() }
}

fn describe(context: &Context<'_>) -> PartitionData {
    let end = context.broker.metadata.end();
    let voter = ReplicaState {
        replica_id: NODE_ID,
        log_end_offset: end,
        // The leader fetches from nobody and has always caught up with itself.
        last_fetch_timestamp: -1,
        last_caught_up_timestamp: clock::now().0,
        ..ReplicaState::default()
    };
    PartitionData {
        partition_index: 0,
        leader_id: NODE_ID,
        leader_epoch: context.broker.epoch.get(),
        high_watermark: end,
        current_voters: vec![voter],
        ..PartitionData::default()
    }
}

fn nodes(context: &Context<'_>) -> Vec<Node> {
    if context.version < NODES_VERSION_MIN {
        return Vec::new();
    }
    let endpoint = context.endpoint();
    let listener =
        Listener { name: Str::from_static("PLAINTEXT"), host: Str::from(endpoint.host), port: endpoint.port };
    vec![Node { node_id: NODE_ID, listeners: vec![listener] }]
}
