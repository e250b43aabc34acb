//! DeleteTopics (20): deletes topics, each on its own, by name or by id.
//!
//! Versions: 1-6. When the answer leaves, the deletion is durable: the topic does not come back, whatever happens. As in
//! Kafka (`ControllerApis.deleteTopics`) a topic is named by its name or by its id, and once: whatever else is asked for
//! is refused and deletes nothing.

use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::delete_topics::{DeletableTopicResult, DeleteTopicState};
use highwater_protocol::api::{DeleteTopicsRequest, DeleteTopicsResponse};
use highwater_protocol::wire::{Str, Uuid};

use super::{named_twice, topic_by_id, topic_by_name};
use crate::broker::Broker;
use crate::context::Context;
use crate::refusal::{Refusal, refuse, told};
use crate::topic_admin;
use crate::topics::Topic;

pub(crate) async fn handle(context: &Context<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO });
    let asked = request.topics.into_iter().chain(by_name);
    let found: Vec<_> = asked.map(|asked| (find(context.broker, &asked), asked)).collect();
    let twice = named_twice(found.iter().map(|(found, asked)| subject(found, asked)));
    let mut responses = Vec::with_capacity(found.len());
    for (found, asked) in found {
        let found = if twice.contains(&subject(&found, &asked)) {
            Err(refuse(ErrorCode::InvalidRequest, "the request names the topic twice"))
        } else {
            found
        };
        responses.push(match found {
            Ok(topic) => delete(context.broker, &topic).await,
            Err(refusal) => answer(asked.name, asked.topic_id, Err(refusal)),
        });
    }
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

/// The topic that is to go.
fn find(broker: &Broker, asked: &DeleteTopicState) -> Result<Arc<Topic>, Refusal> {
    let invalid = |message| Err(refuse(ErrorCode::InvalidRequest, message));
    let found = match (&asked.name, asked.topic_id) {
        (Some(name), Uuid::ZERO) => topic_by_name(broker, name),
        (None, Uuid::ZERO) => return invalid("neither a name nor an id of a topic is given"),
        (None, id) => topic_by_id(broker, id),
        (Some(_), _) => return invalid("both a name and an id of a topic are given; one of them is enough"),
    };
    found.map_err(|code| refuse(code, "there is no such topic"))
}

/// What is asked about: a topic, however it is named, or else what was meant to name it.
fn subject(found: &Result<Arc<Topic>, Refusal>, asked: &DeleteTopicState) -> (Option<Str>, Uuid) {
    match found {
        Ok(topic) => (None, Uuid::from_bytes(topic.id.get())),
        Err(_) => (asked.name.clone(), asked.topic_id),
    }
}

async fn delete(broker: &Arc<Broker>, topic: &Topic) -> DeletableTopicResult {
    let deleted = topic_admin::delete(broker, topic.name.clone(), topic.id).await;
    let deleted = deleted.map_err(|error| refuse(error.code(), error));
    answer(Some(Str::from(topic.name.as_str())), Uuid::from_bytes(topic.id.get()), deleted)
}

fn answer(name: Option<Str>, topic_id: Uuid, deleted: Result<(), Refusal>) -> DeletableTopicResult {
    let (error_code, error_message) = told(deleted);
    DeletableTopicResult { name, topic_id, error_code, error_message }
}
