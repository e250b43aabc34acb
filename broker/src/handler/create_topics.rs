//! CreateTopics (19): creates topics, each on its own.
//!
//! Versions: 2-7. Synchronous: when the answer leaves, the topic is durable and serves. A replication factor above
//! 1 is accepted as 1 unless the broker is told otherwise; manual assignments must name this broker only. A request
//! for too many partitions is refused as a whole (Kafka: `ReplicationControlManager`, POLICY_VIOLATION).

use std::collections::BTreeMap;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfigs, CreatableTopicResult};
use highwater_protocol::api::{CreateTopicsRequest, CreateTopicsResponse};
use highwater_protocol::wire::Uuid;
use highwater_record::TopicName;

use super::each_once;
use crate::broker::NODE_ID;
use crate::config::Config;
use crate::config_admin::Source;
use crate::context::Context;
use crate::refusal::{Refusal, refuse};
use crate::topic_admin::{self, NewTopic};

pub(crate) async fn handle(context: &Context<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    if let Some(refusal) = too_many(context.broker.config(), &request) {
        return refuse_all(request, &refusal);
    }
    let name_of = |topic: &CreatableTopic| topic.name.clone();
    let create = |topic| create(context, topic, request.validate_only);
    let created = each_once(request.topics, "topic", name_of, create).await;
    let topics = created.into_iter().map(|(name, created)| {
        created.unwrap_or_else(|refusal| {
            let (error_code, error_message) = refusal.told();
            CreatableTopicResult { name, error_code, error_message, ..CreatableTopicResult::default() }
        })
    });
    CreateTopicsResponse { topics: topics.collect(), ..CreateTopicsResponse::default() }
}

/// Says no if the request asks for more partitions than one request may.
fn too_many(config: &Config, request: &CreateTopicsRequest) -> Option<Refusal> {
    let count = |topic: &CreatableTopic| match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => u64::from(config.partitions_default),
        (0, partitions) => u64::try_from(partitions).unwrap_or(0),
        (assigned, _) => assigned as u64,
    };
    let asked = request.topics.iter().map(count).sum::<u64>();
    // One topic with the broker's own default is never too much.
    let max = config.partitions_per_request_max.max(config.partitions_default);
    (asked > u64::from(max)).then(|| {
        let message = format!("the request asks for {asked} partitions, one request may create {max}");
        refuse(ErrorCode::PolicyViolation, message)
    })
}

/// The same answer for each topic.
fn refuse_all(request: CreateTopicsRequest, refusal: &Refusal) -> CreateTopicsResponse {
    let topics = request.topics.into_iter().enumerate().map(|(index, topic)| {
        let (error_code, error_message) = refusal.told_of_part(index);
        CreatableTopicResult {
            name: topic.name,
            error_code,
            error_message,
            ..CreatableTopicResult::default()
        }
    });
    CreateTopicsResponse { topics: topics.collect(), ..CreateTopicsResponse::default() }
}

async fn create(
    context: &Context<'_>,
    asked: CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refusal> {
    let broker = context.broker;
    let name =
        TopicName::new(&asked.name).map_err(|error| refuse(ErrorCode::InvalidTopicException, error))?;
    let partitions = partition_count(&asked)?;
    check_replication(broker.config(), &asked)?;
    let new = NewTopic { name, partitions, configs: configs(&asked)? };
    let (count, id) = if validate_only {
        let (count, _) = topic_admin::check(broker, &new).map_err(|error| refuse(error.code(), error))?;
        (count, Uuid::ZERO)
    } else {
        let topic = topic_admin::create(broker, new).await.map_err(|error| refuse(error.code(), error))?;
        note_replication(&asked);
        (topic.record.partitions, Uuid::from_bytes(topic.id.get()))
    };
    let set = asked.configs.into_iter().map(|config| CreatableTopicConfigs {
        name: config.name,
        value: config.value,
        config_source: Source::Topic as i8,
        ..CreatableTopicConfigs::default()
    });
    Ok(CreatableTopicResult {
        name: asked.name,
        topic_id: id,
        num_partitions: i32::try_from(count).unwrap_or(i32::MAX),
        replication_factor: 1,
        configs: Some(set.collect()),
        ..CreatableTopicResult::default()
    })
}

/// How many partitions are asked for; `None` leaves it to the broker.
fn partition_count(asked: &CreatableTopic) -> Result<Option<u32>, Refusal> {
    if asked.assignments.is_empty() {
        return match asked.num_partitions {
            -1 => Ok(None),
            count @ 1.. => Ok(u32::try_from(count).ok()),
            count => Err(refuse(
                ErrorCode::InvalidPartitions,
                format!("{count} partitions were asked for, a topic has at least 1"),
            )),
        };
    }
    if asked.num_partitions != -1 || asked.replication_factor != -1 {
        let message =
            "an assignment replaces the partition count and the replication factor: both must be -1";
        return Err(refuse(ErrorCode::InvalidRequest, message));
    }
    let mut indexes: Vec<_> = asked.assignments.iter().map(|assignment| assignment.partition_index).collect();
    indexes.sort_unstable();
    let consecutive = indexes.iter().zip(0..).all(|(index, expected)| *index == expected);
    let here = asked.assignments.iter().all(|assignment| assignment.broker_ids == [NODE_ID]);
    if !consecutive || !here {
        let message =
            format!("the assignment must number partitions from 0 and place each on broker {NODE_ID} alone");
        return Err(refuse(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(u32::try_from(indexes.len()).ok())
}

fn check_replication(broker: &Config, asked: &CreatableTopic) -> Result<(), Refusal> {
    match asked.replication_factor {
        -1 | 1 => Ok(()),
        2.. if broker.accept_replication_as_one => Ok(()),
        factor => {
            let message =
                format!("replication factor is {factor}, this broker keeps 1 replica of each partition");
            Err(refuse(ErrorCode::InvalidReplicationFactor, message))
        }
    }
}

/// Says that a topic has fewer replicas than were asked for.
fn note_replication(asked: &CreatableTopic) {
    if let factor @ 2.. = asked.replication_factor {
        let topic = asked.name.as_str();
        tracing::warn!(topic, factor, "one broker keeps one replica: the factor counts as 1");
    }
}

fn configs(asked: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let mut configs = BTreeMap::new();
    for config in &asked.configs {
        let Some(value) = &config.value else {
            return Err(refuse(
                ErrorCode::InvalidConfig,
                format!("topic config {:?} has no value", config.name.as_str()),
            ));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    Ok(configs)
}
