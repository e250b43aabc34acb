//! CreatePartitions (37): adds partitions to topics, each topic on its own.
//!
//! Versions: 0-3. When the answer leaves, the partitions are durable and serve. Assignments must name this broker
//! alone for each new partition.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use highwater_record::TopicName;

use super::each_once;
use crate::broker::NODE_ID;
use crate::context::Context;
use crate::refusal::{Refusal, refuse, told};
use crate::topic_change::{self, Growth, Mode};

pub(crate) async fn handle(
    context: &Context<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mode = Mode::of(request.validate_only);
    let name_of = |topic: &CreatePartitionsTopic| topic.name.clone();
    let create = |topic| create(context, topic, mode);
    let created = each_once(request.topics, "topic", name_of, create).await;
    let results = created.into_iter().map(|(name, result)| {
        let (error_code, error_message) = told(result);
        CreatePartitionsTopicResult { name, error_code, error_message }
    });
    CreatePartitionsResponse { results: results.collect(), ..CreatePartitionsResponse::default() }
}

async fn create(context: &Context<'_>, asked: CreatePartitionsTopic, mode: Mode) -> Result<(), Refusal> {
    let name =
        TopicName::new(&asked.name).map_err(|error| refuse(ErrorCode::UnknownTopicOrPartition, error))?;
    let assigned = asked.assignments.as_ref().map(Vec::len);
    if asked.assignments.iter().flatten().any(|assignment| assignment.broker_ids != [NODE_ID]) {
        let message = format!("the assignment must place each partition on broker {NODE_ID} alone");
        return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
    }
    let growth = Growth { count: asked.count, assigned };
    let added = topic_change::add_partitions(context.broker, name, growth, mode).await;
    added.map_err(|error| refuse(error.code(), error))
}
