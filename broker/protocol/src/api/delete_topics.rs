//! DeleteTopics (key 20): deletes topics.
//!
//! Versions 1 to 6, flexible from 4.
//! Source: `DeleteTopicsRequest.json` and `DeleteTopicsResponse.json` of Apache Kafka 4.1.
//!
//! Version 5 adds a sentence to each error (KIP-599), 6 takes ids as well as names (KIP-516).

use highwater_wire::{Str, Uuid, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Topics to delete.
    DeleteTopicsRequest "1-6", flexible "4+" {
        /// The topics to delete, by name or id, from version 6 on.
        topics: Vec<DeleteTopicState>, "6+";
        /// The topics to delete, by name, up to version 5.
        topic_names: Vec<Str>, "0-5", ignorable true;
        /// Milliseconds to wait until the topics are gone.
        timeout_ms: i32, "0+";
    }

    /// A topic to delete.
    DeleteTopicState {
        /// The topic's name; null if it is named by its id.
        name: Option<Str>, "6+", nullable "6+";
        /// The topic's id; zero if it is named by its name.
        topic_id: Uuid, "6+";
    }

    /// The topics deleted.
    DeleteTopicsResponse "1-6", flexible "4+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// What happened, per topic.
        responses: Vec<DeletableTopicResult>, "0+";
    }

    /// A topic deleted, or why not.
    DeletableTopicResult {
        /// The topic's name; null if it was named by an unknown id.
        name: Option<Str>, "0+", nullable "6+";
        /// The topic's id.
        topic_id: Uuid, "6+", ignorable true;
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// A sentence about the error, or null.
        error_message: Option<Str>, "5+", nullable "5+", ignorable true;
    }
}

impl ApiRequest for DeleteTopicsRequest {
    const KEY: ApiKey = ApiKey::DeleteTopics;
    type Response = DeleteTopicsResponse;
}

impl ApiResponse for DeleteTopicsResponse {
    const KEY: ApiKey = ApiKey::DeleteTopics;
}
