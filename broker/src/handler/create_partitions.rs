//! CreatePartitions (37): adds partitions to topics, each topic on its own.
//!
//! Versions: 0-3. When the answer leaves, the partitions are durable and serve. Assignments must name this broker
//! alone for each new partition.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use highwater_protocol::wire::Str;
use highwater_record::TopicName;

use super::named_twice;
use crate::broker::NODE_ID;
use crate::config_admin::{Refusal, refuse};
use crate::context::Context;
use crate::topic_change::{self, Growth, Mode};

pub(crate) async fn handle(
    context: &Context<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mode = Mode::of(request.validate_only);
    let twice = named_twice(request.topics.iter().map(|topic| topic.name.clone()));
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let name = asked.name.clone();
        let created = if twice.contains(&name) {
            Err(refuse(
                ErrorCode::InvalidRequest,
                format!("the request names topic {:?} twice", name.as_str()),
            ))
        } else {
            create(context, asked, mode).await
        };
        let refusal = created.err();
        results.push(CreatePartitionsTopicResult {
            name,
            error_code: refusal.as_ref().map_or(ErrorCode::None, |refusal| refusal.code).code(),
            error_message: refusal.map(|refusal| Str::from(refusal.message)),
        });
    }
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}

async fn create(context: &Context<'_>, asked: CreatePartitionsTopic, mode: Mode) -> Result<(), Refusal> {
    let name =
        TopicName::new(&asked.name).map_err(|error| refuse(ErrorCode::InvalidTopicException, error))?;
    let assigned = asked.assignments.as_ref().map(Vec::len);
    if asked.assignments.iter().flatten().any(|assignment| assignment.broker_ids != [NODE_ID]) {
        let message = format!("the assignment must place each partition on broker {NODE_ID} alone");
        return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
    }
    let growth = Growth { count: asked.count, assigned };
    let added = topic_change::add_partitions(context.broker, name, growth, mode).await;
    added.map_err(|error| refuse(error.code(), error))
}
