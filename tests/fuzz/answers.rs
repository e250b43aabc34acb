//! What came back: whether it is a whole answer to what was sent, and which handlers said what.

mod groups;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use highwater_protocol::api::{
    ApiVersionsResponse, CreateTopicsResponse, DeleteTopicsResponse, FetchResponse, FindCoordinatorResponse,
    InitProducerIdResponse, ListOffsetsResponse, MetadataResponse, OffsetForLeaderEpochResponse,
    ProduceResponse,
};
use highwater_protocol::wire::Reader;
use highwater_protocol::{
    ApiKey, ApiResponse, ErrorCode, RequestHeader, parse_request, response_header_is_flexible,
};

use crate::faults::reader::split;

/// How often which API answered in which version, and with which codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    versions: BTreeMap<(ApiKey, i16), u64>,
    codes: BTreeMap<(ApiKey, i16), u64>,
    pub(crate) answers: u64,
    pub(crate) silences: u64,
    pub(crate) hangups: u64,
    /// Requests that were still waiting for records when the test went on.
    pub(crate) parked: u64,
}

impl Coverage {
    /// Checks that `frame`, without its length prefix, is a whole answer to `request`, and counts it.
    pub(crate) fn take_answer(&mut self, request: &Bytes, frame: Bytes) -> anyhow::Result<()> {
        let (header, body) =
            parse_request(request.clone()).context("an answer to a request without a header")?;
        let key = header.known_key().context("an answer to an unknown API")?;
        let version = match body {
            Ok(_) => header.api_version,
            // The one request that is answered though it cannot be decoded.
            Err(error) if key == ApiKey::ApiVersions && !key.served().contains(header.api_version) => {
                let _ = error;
                0
            }
            Err(error) => bail!("an answer to a request that cannot be decoded: {error}"),
        };
        let codes = codes_of(key, version, &header, frame).with_context(|| {
            format!("the answer to {key} {version}, correlation id {}", header.correlation_id)
        })?;
        self.answers += 1;
        *self.versions.entry((key, version)).or_default() += 1;
        for code in codes {
            ensure!(ErrorCode::from_code(code).is_some(), "{key} answers the unknown code {code}");
            *self.codes.entry((key, code)).or_default() += 1;
        }
        Ok(())
    }

    /// Adds what another thread saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (version, count) in &other.versions {
            *self.versions.entry(*version).or_default() += count;
        }
        for (code, count) in &other.codes {
            *self.codes.entry(*code).or_default() += count;
        }
        self.answers += other.answers;
        self.silences += other.silences;
        self.hangups += other.hangups;
        self.parked += other.parked;
    }

    /// The versions that no answer came from.
    pub(crate) fn missing(&self) -> Vec<(ApiKey, i16)> {
        let all = ApiKey::ALL
            .iter()
            .flat_map(|key| (key.served().min()..=key.served().max()).map(move |version| (*key, version)));
        all.filter(|version| !self.versions.contains_key(version)).collect()
    }

    /// A line per API.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{} answers, {} hang-ups, {} silent, {} parked\n",
            self.answers, self.hangups, self.silences, self.parked
        );
        for key in ApiKey::ALL {
            let versions: Vec<String> = self
                .versions
                .iter()
                .filter(|((of, _), _)| of == key)
                .map(|((_, version), count)| format!("v{version}:{count}"))
                .collect();
            let codes: Vec<String> = self
                .codes
                .iter()
                .filter(|((of, _), _)| of == key)
                .map(|((_, code), count)| {
                    format!("{}:{count}", ErrorCode::from_code(*code).map_or("?", ErrorCode::name))
                })
                .collect();
            let _ = writeln!(table, "  {key} {} | {}", versions.join(" "), codes.join(" "));
        }
        table
    }
}

/// Decodes the answer to its last byte; the error codes in it.
fn codes_of(key: ApiKey, version: i16, header: &RequestHeader, frame: Bytes) -> anyhow::Result<Vec<i16>> {
    let body = Body { version, correlation_id: header.correlation_id, frame };
    Ok(match key {
        ApiKey::Produce => {
            let response = body.decode::<ProduceResponse>()?;
            let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            partitions.map(|partition| partition.error_code).collect()
        }
        ApiKey::Fetch => {
            let response = body.decode::<FetchResponse>()?;
            let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
            for records in partitions.clone().filter_map(|partition| partition.records.bytes()) {
                // Whatever was accepted comes back as batches whose checksums hold.
                split(records.clone()).context("the records of a partition")?;
            }
            partitions.map(|partition| partition.error_code).chain([response.error_code]).collect()
        }
        ApiKey::ListOffsets => {
            let response = body.decode::<ListOffsetsResponse>()?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).collect()
        }
        ApiKey::Metadata => {
            let response = body.decode::<MetadataResponse>()?;
            response.topics.iter().map(|topic| topic.error_code).chain([response.error_code]).collect()
        }
        ApiKey::FindCoordinator => {
            let response = body.decode::<FindCoordinatorResponse>()?;
            let coordinators = response.coordinators.iter().map(|coordinator| coordinator.error_code);
            coordinators.chain([response.error_code]).collect()
        }
        ApiKey::ApiVersions => vec![body.decode::<ApiVersionsResponse>()?.error_code],
        ApiKey::CreateTopics => {
            body.decode::<CreateTopicsResponse>()?.topics.iter().map(|topic| topic.error_code).collect()
        }
        ApiKey::DeleteTopics => {
            body.decode::<DeleteTopicsResponse>()?.responses.iter().map(|topic| topic.error_code).collect()
        }
        ApiKey::InitProducerId => vec![body.decode::<InitProducerIdResponse>()?.error_code],
        ApiKey::OffsetCommit
        | ApiKey::OffsetFetch
        | ApiKey::JoinGroup
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteGroups
        | ApiKey::OffsetDelete => groups::codes_of(key, body)?,
        ApiKey::OffsetForLeaderEpoch => {
            let response = body.decode::<OffsetForLeaderEpochResponse>()?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).collect()
        }
    })
}

struct Body {
    version: i16,
    correlation_id: i32,
    frame: Bytes,
}

impl Body {
    fn decode<R: ApiResponse>(self) -> anyhow::Result<R> {
        let mut reader = Reader::new(self.frame);
        let correlation_id = reader.int32()?;
        ensure!(correlation_id == self.correlation_id, "names correlation id {correlation_id}");
        if response_header_is_flexible(R::KEY, self.version) {
            reader.skip_tagged_fields()?;
        }
        let response = R::read(&mut reader, self.version)?;
        ensure!(reader.remaining() == 0, "has {} bytes after its end", reader.remaining());
        Ok(response)
    }
}
