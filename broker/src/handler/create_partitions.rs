//! CreatePartitions (37): adds partitions to topics, each topic on its own.
//!
//! Versions: 0-3. When the answer leaves, the partitions are durable and serve. Assignments must name this broker
//! alone for each new partition. A request for too many partitions is refused as a whole, as in CreateTopics.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use highwater_record::TopicName;

use super::{each_once, topic_by_name};
use crate::broker::{Broker, NODE_ID};
use crate::context::Context;
use crate::refusal::{Refusal, refuse, told};
use crate::topic_change::{self, Growth, Mode};

pub(crate) async fn handle(
    context: &Context<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    if let Some(refusal) = too_many(context.broker, &request) {
        return refuse_all(request, &refusal);
    }
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

/// Says no if the request asks for more new partitions than one request may.
fn too_many(broker: &Broker, request: &CreatePartitionsRequest) -> Option<Refusal> {
    let added = |asked: &CreatePartitionsTopic| {
        let existing = topic_by_name(broker, &asked.name).ok()?.record.partitions;
        u64::try_from(asked.count).ok()?.checked_sub(existing.into())
    };
    let added = request.topics.iter().filter_map(added).sum::<u64>();
    let max = broker.config().partitions_per_request_max;
    (added > u64::from(max)).then(|| {
        let message = format!("{added} partitions are to be added, one request may create {max}");
        refuse(ErrorCode::PolicyViolation, message)
    })
}

/// The same answer for each topic.
fn refuse_all(request: CreatePartitionsRequest, refusal: &Refusal) -> CreatePartitionsResponse {
    let results = request.topics.into_iter().enumerate().map(|(index, topic)| {
        let (error_code, error_message) = refusal.told_of_part(index);
        CreatePartitionsTopicResult { name: topic.name, error_code, error_message }
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
