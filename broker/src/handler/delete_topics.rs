//! DeleteTopics (20): deletes topics, each on its own, by name or by id.
//!
//! Versions: 1-6. When the answer leaves, the deletion is durable: the topic does not come back, whatever happens.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::delete_topics::{DeletableTopicResult, DeleteTopicState};
use highwater_protocol::api::{DeleteTopicsRequest, DeleteTopicsResponse};
use highwater_protocol::wire::{Str, Uuid};
use highwater_record::TopicName;

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
    let found: Result<TopicName, ErrorCode> = match &asked.name {
        Some(name) => topic_by_name(context.broker, name).map(|topic| topic.name.clone()),
        None => topic_by_id(context.broker, asked.topic_id).map(|topic| topic.name.clone()),
    };
    let name = match found {
        Ok(name) => name,
        Err(code) => return failed(code, "there is no such topic".to_owned()),
    };
    let text = Str::from(name.as_str());
    match topic_admin::delete(context.broker, name).await {
        Ok(id) => DeletableTopicResult {
            name: Some(text),
            topic_id: Uuid::from_bytes(id.get()),
            error_code: ErrorCode::None.code(),
            error_message: None,
        },
        Err(error) => failed(error.code(), error.to_string()),
    }
}
