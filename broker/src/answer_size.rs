//! How much memory an answer may take, told from its request: what is charged before the answer is begun.
//!
//! Estimates on the large side, in bytes, for the decoded request, the response and its encoded form together. An
//! answer that leaves is charged for what it is (`dispatch`). Knows no handler.

use highwater_protocol::Request;
use highwater_protocol::api::ProduceRequest;

use crate::context::Context;

/// Whatever an answer says besides its elements.
const BASE_BYTES: u64 = 512;
/// What a partition of a fetch takes: what was asked, what was found, and its place in the answer.
const FETCHED_BYTES: u64 = 512;
/// What a partition of a produce takes until it is acknowledged.
const PRODUCED_BYTES: u64 = 256;
/// What a topic or a partition takes in an answer about all of them.
const DESCRIBED_BYTES: u64 = 512;
/// How many times larger than its frame a decoded request and its answer are together. A structure of three fields
/// that came in twelve bytes is ten times as large.
const DECODED_FACTOR: u64 = 16;

/// A produce request with its acknowledgements.
pub(crate) fn of_produce(request: &ProduceRequest) -> u64 {
    let partitions: usize = request.topic_data.iter().map(|topic| topic.partition_data.len()).sum();
    BASE_BYTES + PRODUCED_BYTES * (request.topic_data.len() + partitions) as u64
}

/// A pass of a fetch over so many partitions.
pub(crate) fn of_fetch(partitions: usize) -> u64 {
    BASE_BYTES + FETCHED_BYTES * partitions as u64
}

/// Any other answer. `None` for those that must not wait: somebody may be waiting for what they bring about, and their
/// sizes are bounded by the limits of groups.
pub(crate) fn estimate(context: &Context<'_>, request: &Request) -> Option<u64> {
    let decoded = BASE_BYTES + DECODED_FACTOR * context.request_bytes as u64;
    match request {
        Request::Produce(_) | Request::Fetch(_) => None,
        Request::JoinGroup(_)
        | Request::SyncGroup(_)
        | Request::Heartbeat(_)
        | Request::LeaveGroup(_)
        | Request::OffsetCommit(_)
        | Request::FindCoordinator(_)
        | Request::ApiVersions(_) => None,
        Request::Metadata(_) | Request::DescribeTopicPartitions(_) | Request::DescribeLogDirs(_) => {
            Some(decoded + DESCRIBED_BYTES * context.broker.topics.partition_count() as u64)
        }
        _ => Some(decoded),
    }
}
