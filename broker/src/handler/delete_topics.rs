//! DeleteTopics (20): deletes topics, each on its own, by name or by id.
//!
//! Versions: 1-6. When the answer leaves, the deletion is durable: the topic does not come back, whatever happens.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::delete_topics::{DeletableTopicResult, DeleteTopicState};
use highwater_protocol::api::{DeleteTopicsRequest, DeleteTopicsResponse};
use highwater_protocol::wire::{Str, Uuid};

use super::{topic_by_id, topic_by_name};
use crate::context::Context;
use crate::topic_admin;

pub(crate) async fn handle(context: &Context<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO });
    let mut responses = Vec::new();
    for asked in request.topics.into_iter().chain(by_name) {
        responses.push(delete(context, asked).await);
    }
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

async fn delete(context: &Context<'_>, asked: DeleteTopicState) -> DeletableTopicResult {
    let failed = |code: ErrorCode, message: String| DeletableTopicResult {
        name: asked.name.clone(),
        topic_id: asked.topic_id,
        error_code: code.code(),
        error_message: Some(Str::from(message)),
    };
    let found = match &asked.name {
        Some(name) => topic_by_name(context.broker, name),
        None => topic_by_id(context.broker, asked.topic_id),
    };
    let topic = match found {
        Ok(topic) => topic,
        Err(code) => return failed(code, "there is no such topic".to_owned()),
    };
    match topic_admin::delete(context.broker, topic.name.clone(), topic.id).await {
        Ok(()) => DeletableTopicResult {
            name: Some(Str::from(topic.name.as_str())),
            topic_id: Uuid::from_bytes(topic.id.get()),
            error_code: ErrorCode::None.code(),
            error_message: None,
        },
        Err(error) => failed(error.code(), error.to_string()),
    }
}
