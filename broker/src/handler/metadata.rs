//! Metadata (3): brokers, topics, partitions and their leaders.
//!
//! Versions: 0-13. Creates unknown topics if the broker and the request allow it, and answers when the topic is
//! in service: the first answer names a leader. One request creates no more partitions than a CreateTopics may; the
//! next one creates the next. A topic that was deleted a short while ago stays unknown (ADR 14). Authorized operations
//! are not reported; there is no authorization.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use highwater_protocol::api::{MetadataRequest, MetadataResponse};
use highwater_protocol::wire::{Str, Uuid};
use highwater_record::{LeaderEpoch, TopicId, TopicName};

use crate::broker::NODE_ID;
use crate::context::Context;
use crate::topic_admin::{self, CreateError, NewTopic};
use crate::topics::Topic;

/// From here on an empty list asks for nothing and null for everything.
const EMPTY_IS_NONE_VERSION_MIN: i16 = 1;
/// From here on topics may be asked for by id.
const TOPIC_ID_VERSION_MIN: i16 = 12;

pub(crate) async fn handle(context: &Context<'_>, request: MetadataRequest) -> MetadataResponse {
    let endpoint = context.endpoint();
    let everything = match &request.topics {
        None => true,
        Some(topics) => topics.is_empty() && context.version < EMPTY_IS_NONE_VERSION_MIN,
    };
    let topics = if everything {
        context.broker.topics.all().iter().map(describe).collect()
    } else {
        let mut topics = Vec::new();
        // Each topic once, as Kafka does it: a short request cannot ask for a long answer many times over.
        let mut seen = HashSet::new();
        let mut creation = Creation::new(context, &request);
        for asked in request.topics.unwrap_or_default() {
            if !seen.insert((asked.name.clone(), asked.topic_id)) {
                continue;
            }
            topics.push(find(context, asked, &mut creation).await);
        }
        topics
    };
    let broker = MetadataResponseBroker {
        node_id: NODE_ID,
        host: Str::from(endpoint.host),
        port: endpoint.port.into(),
        rack: None,
    };
    MetadataResponse {
        brokers: vec![broker],
        cluster_id: Some(Str::from(context.broker.cluster_id.as_str())),
        controller_id: NODE_ID,
        topics,
        ..MetadataResponse::default()
    }
}

/// How many more topics a request may create.
struct Creation {
    topics_left: u32,
}

impl Creation {
    fn new(context: &Context<'_>, request: &MetadataRequest) -> Self {
        let config = context.broker.config();
        let allowed = config.auto_create_topics && request.allow_auto_topic_creation;
        let topics_max = (config.partitions_per_request_max / config.partitions_default.max(1)).max(1);
        Self { topics_left: if allowed { topics_max } else { 0 } }
    }
}

async fn find(
    context: &Context<'_>,
    asked: MetadataRequestTopic,
    creation: &mut Creation,
) -> MetadataResponseTopic {
    let Some(asked_name) = asked.name else { return by_id(context, asked.topic_id) };
    let Ok(name) = TopicName::new(&asked_name) else {
        return unknown(Some(asked_name), Uuid::ZERO, ErrorCode::InvalidTopicException);
    };
    if let Some(topic) = context.broker.topics.by_name(&name) {
        return describe(&topic);
    }
    if creation.topics_left == 0 || name.is_internal() {
        return unknown(Some(asked_name), Uuid::ZERO, ErrorCode::UnknownTopicOrPartition);
    }
    creation.topics_left -= 1;
    let new = NewTopic { name, partitions: None, configs: BTreeMap::new() };
    match topic_admin::create_on_demand(context.broker, new).await {
        Ok(topic) | Err(CreateError::Exists(topic)) => describe(&topic),
        // A client that polls for a deleted topic asks often; the first time is said elsewhere.
        Err(error @ CreateError::Rests) => unknown(Some(asked_name), Uuid::ZERO, error.code()),
        Err(error) => {
            tracing::warn!(topic = asked_name.as_str(), %error, "cannot create the topic that a client asked for");
            unknown(Some(asked_name), Uuid::ZERO, error.code())
        }
    }
}

fn by_id(context: &Context<'_>, id: Uuid) -> MetadataResponseTopic {
    if context.version < TOPIC_ID_VERSION_MIN {
        return unknown(Some(Str::from_static("")), id, ErrorCode::InvalidRequest);
    }
    let topic = TopicId::new(*id.as_bytes()).and_then(|id| context.broker.topics.by_id(id));
    topic.map_or_else(|| unknown(None, id, ErrorCode::UnknownTopicId), |topic| describe(&topic))
}

fn describe(topic: &Arc<Topic>) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().map(|partition| {
        let leader = partition.leader_epoch();
        MetadataResponsePartition {
            error_code: leader.as_ref().map_or(ErrorCode::LeaderNotAvailable, |_| ErrorCode::None).code(),
            partition_index: partition.id().partition.get(),
            leader_id: leader.as_ref().map_or(-1, |_| NODE_ID),
            leader_epoch: leader.map_or(-1, LeaderEpoch::get),
            replica_nodes: vec![NODE_ID],
            isr_nodes: vec![NODE_ID],
            offline_replicas: Vec::new(),
        }
    });
    MetadataResponseTopic {
        name: Some(Str::from(topic.name.as_str())),
        topic_id: Uuid::from_bytes(topic.id.get()),
        is_internal: topic.name.is_internal(),
        partitions: partitions.collect(),
        ..MetadataResponseTopic::default()
    }
}

fn unknown(name: Option<Str>, topic_id: Uuid, code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic { error_code: code.code(), name, topic_id, ..MetadataResponseTopic::default() }
}
