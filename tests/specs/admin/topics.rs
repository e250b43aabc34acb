//! Topics that are deleted by name or by id.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::MetadataRequest;
use highwater_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use highwater_protocol::wire::{Str, Uuid};

use super::{Admin, named};

/// How a request names a topic.
type Asked<'a> = (Option<&'a str>, Uuid);

impl Admin {
    /// Deletes topics; the codes of the answers.
    fn delete_topics(&mut self, topics: &[Asked<'_>]) -> anyhow::Result<Vec<ErrorCode>> {
        let state = |(name, topic_id): &Asked<'_>| DeleteTopicState {
            name: name.map(Str::from),
            topic_id: *topic_id,
        };
        let request = DeleteTopicsRequest {
            topics: topics.iter().map(state).collect(),
            timeout_ms: 30_000,
            ..DeleteTopicsRequest::default()
        };
        let response = self.connection.call(6, &request)?;
        Ok(response.responses.iter().map(|answer| named(answer.error_code)).collect())
    }

    /// The names of all topics.
    fn topics(&mut self) -> anyhow::Result<Vec<String>> {
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        let topics = self.connection.call(12, &request)?.topics;
        Ok(topics.into_iter().filter_map(|topic| topic.name.map(String::from)).collect())
    }
}

#[test]
fn a_topic_is_deleted_by_its_name_or_by_its_id() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let id = admin.connection.create_topic("other", 1, &[])?;

    assert_eq!(admin.delete_topics(&[(Some("t"), Uuid::ZERO), (None, id)])?, [ErrorCode::None; 2]);

    assert_eq!(admin.topics()?, [""; 0]);
    Ok(())
}

#[test]
fn a_topic_that_is_named_in_two_ways_or_in_none_is_not_deleted() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    let id = admin.connection.create_topic("t", 1, &[])?;
    let (t, absent, zero) = (Some("t"), Some("absent"), Uuid::ZERO);
    let stranger = Uuid::from_bytes([7; 16]);
    let invalid = ErrorCode::InvalidRequest;

    for (asked, expected) in [
        (&[(t, id)][..], &[invalid][..]),
        (&[(t, stranger)], &[invalid]),
        (&[(None, zero)], &[invalid]),
        (&[(t, zero), (t, zero)], &[invalid; 2]),
        (&[(None, id), (None, id)], &[invalid; 2]),
        (&[(t, zero), (None, id)], &[invalid; 2]),
        (&[(absent, zero), (absent, zero)], &[invalid; 2]),
        (&[(absent, zero)], &[ErrorCode::UnknownTopicOrPartition]),
        (&[(Some("a/b"), zero)], &[ErrorCode::UnknownTopicOrPartition]),
        (&[(None, stranger)], &[ErrorCode::UnknownTopicId]),
    ] {
        assert_eq!(admin.delete_topics(asked)?, expected, "{asked:?}");
        assert_eq!(admin.topics()?, ["t"], "{asked:?}");
    }
    Ok(())
}
