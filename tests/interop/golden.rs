//! Frames that real clients and our broker exchanged (`tests/golden/wire/<client>`): each is decoded, and encoded
//! again to the same bytes. The frames in `tests/golden/wire/apache-kafka` come from the same tours of
//! librdkafka 2.16 and the Java client to Apache Kafka 4.1.0, recorded by hand through the same proxy: there the
//! answers are not ours.
//!
//! The tours record the clients of today through a proxy, hold every frame to the same rule, and fail if a client
//! uses an API or a version of which no golden frame is kept. `HIGHWATER_BLESS=1 cargo test golden` keeps
//! what they recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bytes::Bytes;
use highwater_protocol::api::{
    AlterClientQuotasResponse, AlterConfigsResponse, AlterPartitionReassignmentsResponse,
    ApiVersionsResponse, CreatePartitionsResponse, CreateTopicsResponse, DeleteGroupsResponse,
    DeleteRecordsResponse, DeleteTopicsResponse, DescribeClientQuotasResponse, DescribeClusterResponse,
    DescribeConfigsResponse, DescribeGroupsResponse, DescribeLogDirsResponse, DescribeQuorumResponse,
    DescribeTopicPartitionsResponse, ElectLeadersResponse, FetchResponse, FindCoordinatorResponse,
    HeartbeatResponse, IncrementalAlterConfigsResponse, InitProducerIdResponse, JoinGroupResponse,
    LeaveGroupResponse, ListConfigResourcesResponse, ListGroupsResponse, ListOffsetsResponse,
    ListPartitionReassignmentsResponse, MetadataResponse, OffsetCommitResponse, OffsetDeleteResponse,
    OffsetFetchResponse, OffsetForLeaderEpochResponse, ProduceResponse, SyncGroupResponse,
    UpdateFeaturesResponse,
};
use highwater_protocol::{
    ApiKey, ApiResponse, Request, SIZE_PREFIX_BYTES, decode_response, encode_request, encode_response,
    parse_request,
};

use crate::harness::broker::{Broker, Options};
use crate::harness::clients::Client;
use crate::harness::drivers::Driver;
use crate::harness::recorder::{Exchange, Recorder};
use crate::harness::skip::or_skip;
use crate::harness::toolbox::tests_dir;
use crate::harness::wire::create_topic;

/// Longer frames are not kept.
const KEPT_BYTES_MAX: usize = 2_048;

/// The APIs without a golden frame. None of the tours uses them: Kafka's command line tools do (`kafka_tools`), and
/// their tables are held against Kafka's definitions and against another codec.
const OF_TOOLS_ALONE: [ApiKey; 10] = [
    ApiKey::AlterConfigs,
    ApiKey::DescribeLogDirs,
    ApiKey::ElectLeaders,
    ApiKey::AlterPartitionReassignments,
    ApiKey::ListPartitionReassignments,
    ApiKey::DescribeClientQuotas,
    ApiKey::AlterClientQuotas,
    ApiKey::DescribeQuorum,
    ApiKey::UpdateFeatures,
    ApiKey::ListConfigResources,
];

/// Digits in a line of a golden file.
const LINE_DIGITS: usize = 100;

#[test]
fn golden_frames_are_encoded_to_the_bytes_that_they_were_decoded_from() -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for speakers in fs::read_dir(tests_dir().join("golden/wire"))? {
        let directory = speakers?.path();
        for (key, version) in kept(&directory)? {
            let read = |kind| read_hex(&golden_path(&directory, key, version, kind));
            let exchange =
                Exchange { key: key.code(), version, request: read("request")?, response: read("response")? };
            round_trip(&exchange).with_context(|| format!("{key} {version} in {}", directory.display()))?;
            seen.insert(key);
        }
    }
    let missing: BTreeSet<_> = ApiKey::ALL.iter().copied().filter(|key| !seen.contains(key)).collect();
    assert_eq!(
        missing,
        BTreeSet::from(OF_TOOLS_ALONE),
        "the APIs without golden frames are those that are named"
    );
    Ok(())
}

#[test]
fn kcat_says_nothing_that_has_no_golden_frame() -> anyhow::Result<()> {
    tour(Client::Kcat)
}

#[test]
fn the_current_librdkafka_says_nothing_that_has_no_golden_frame() -> anyhow::Result<()> {
    tour(Client::Confluent)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn the_java_client_says_nothing_that_has_no_golden_frame() -> anyhow::Result<()> {
    tour(Client::Java)
}

fn tour(client: Client) -> anyhow::Result<()> {
    if or_skip(client.install())?.is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let recorder = Recorder::bind()?;
    let proxy = recorder.address().to_string();
    let options = Options::new(&dir.path().join("data")).flags(&["--advertise", &proxy]);
    let broker = Broker::start(options)?;
    recorder.forward_to(broker.address());

    client.tour(&proxy, "tour")?;
    let driver = match client {
        Client::Kcat => Driver::Kcat,
        Client::Confluent => Driver::Confluent,
        Client::Java => Driver::Java,
    };
    if or_skip(driver.install())?.is_some() {
        // The librdkafka of today ends some requests of administrators with bytes that no field asks for.
        if driver != Driver::Confluent {
            driver.run("admin", &proxy, &["topic=tour-admin"])?;
        }
        let line = dir.path().join("line");
        fs::write(&line, "tour\n")?;
        create_topic(broker.address(), "tour-group", 1)?;
        client.produce(&proxy, "none", "tour-group", &[line])?;
        driver.run("group", &proxy, &["topic=tour-group", "group=tour", "until=1"])?;
    }

    let exchanges = recorder.take();
    let directory = tests_dir().join("golden/wire").join(client.name());
    let mut used = BTreeMap::new();
    for exchange in exchanges {
        let key = ApiKey::from_code(exchange.key).context("clients use what is advertised")?;
        round_trip(&exchange).with_context(|| format!("{key} {}", exchange.version))?;
        let kept: &mut Vec<Exchange> = used.entry((key, exchange.version)).or_default();
        kept.push(exchange);
    }
    if std::env::var_os("HIGHWATER_BLESS").is_some() {
        bless(&directory, &used)?;
    }
    let kept = kept(&directory)?;
    let missing: Vec<_> = used.keys().filter(|name| !kept.contains(name)).collect();
    ensure!(missing.is_empty(), "{} uses {missing:?}, of which no golden frame is kept", client.name());
    Ok(())
}

/// Decodes both frames and compares what they are encoded to.
fn round_trip(exchange: &Exchange) -> anyhow::Result<()> {
    let key = ApiKey::from_code(exchange.key).context("an API that is known")?;
    let body = |frame: &[u8]| Bytes::copy_from_slice(frame).slice(SIZE_PREFIX_BYTES..);
    let request = request_again(body(&exchange.request))?;
    ensure!(request == exchange.request, "the request becomes\n{}", hex(&request));
    let response = response_again(key, body(&exchange.response), exchange.version)?;
    ensure!(response == exchange.response, "the response becomes\n{}", hex(&response));
    Ok(())
}

fn request_again(frame: Bytes) -> anyhow::Result<Bytes> {
    let (header, request) = parse_request(frame)?;
    let (id, client, version) = (header.correlation_id, header.client_id.as_deref(), header.api_version);
    let encoded = match &request? {
        Request::Produce(body) => encode_request(id, client, version, body),
        Request::Fetch(body) => encode_request(id, client, version, body),
        Request::ListOffsets(body) => encode_request(id, client, version, body),
        Request::Metadata(body) => encode_request(id, client, version, body),
        Request::OffsetCommit(body) => encode_request(id, client, version, body),
        Request::OffsetFetch(body) => encode_request(id, client, version, body),
        Request::FindCoordinator(body) => encode_request(id, client, version, body),
        Request::JoinGroup(body) => encode_request(id, client, version, body),
        Request::Heartbeat(body) => encode_request(id, client, version, body),
        Request::LeaveGroup(body) => encode_request(id, client, version, body),
        Request::SyncGroup(body) => encode_request(id, client, version, body),
        Request::DescribeGroups(body) => encode_request(id, client, version, body),
        Request::ListGroups(body) => encode_request(id, client, version, body),
        Request::ApiVersions(body) => encode_request(id, client, version, body),
        Request::CreateTopics(body) => encode_request(id, client, version, body),
        Request::DeleteTopics(body) => encode_request(id, client, version, body),
        Request::DeleteRecords(body) => encode_request(id, client, version, body),
        Request::InitProducerId(body) => encode_request(id, client, version, body),
        Request::OffsetForLeaderEpoch(body) => encode_request(id, client, version, body),
        Request::DescribeConfigs(body) => encode_request(id, client, version, body),
        Request::AlterConfigs(body) => encode_request(id, client, version, body),
        Request::DescribeLogDirs(body) => encode_request(id, client, version, body),
        Request::CreatePartitions(body) => encode_request(id, client, version, body),
        Request::DeleteGroups(body) => encode_request(id, client, version, body),
        Request::ElectLeaders(body) => encode_request(id, client, version, body),
        Request::IncrementalAlterConfigs(body) => encode_request(id, client, version, body),
        Request::AlterPartitionReassignments(body) => encode_request(id, client, version, body),
        Request::ListPartitionReassignments(body) => encode_request(id, client, version, body),
        Request::OffsetDelete(body) => encode_request(id, client, version, body),
        Request::DescribeClientQuotas(body) => encode_request(id, client, version, body),
        Request::AlterClientQuotas(body) => encode_request(id, client, version, body),
        Request::DescribeQuorum(body) => encode_request(id, client, version, body),
        Request::UpdateFeatures(body) => encode_request(id, client, version, body),
        Request::DescribeCluster(body) => encode_request(id, client, version, body),
        Request::ListConfigResources(body) => encode_request(id, client, version, body),
        Request::DescribeTopicPartitions(body) => encode_request(id, client, version, body),
    };
    Ok(encoded?)
}

fn response_again(key: ApiKey, frame: Bytes, version: i16) -> anyhow::Result<Bytes> {
    match key {
        ApiKey::Produce => response_as::<ProduceResponse>(frame, version),
        ApiKey::Fetch => response_as::<FetchResponse>(frame, version),
        ApiKey::ListOffsets => response_as::<ListOffsetsResponse>(frame, version),
        ApiKey::Metadata => response_as::<MetadataResponse>(frame, version),
        ApiKey::OffsetCommit => response_as::<OffsetCommitResponse>(frame, version),
        ApiKey::OffsetFetch => response_as::<OffsetFetchResponse>(frame, version),
        ApiKey::FindCoordinator => response_as::<FindCoordinatorResponse>(frame, version),
        ApiKey::JoinGroup => response_as::<JoinGroupResponse>(frame, version),
        ApiKey::Heartbeat => response_as::<HeartbeatResponse>(frame, version),
        ApiKey::LeaveGroup => response_as::<LeaveGroupResponse>(frame, version),
        ApiKey::SyncGroup => response_as::<SyncGroupResponse>(frame, version),
        ApiKey::DescribeGroups => response_as::<DescribeGroupsResponse>(frame, version),
        ApiKey::ListGroups => response_as::<ListGroupsResponse>(frame, version),
        ApiKey::ApiVersions => response_as::<ApiVersionsResponse>(frame, version),
        ApiKey::CreateTopics => response_as::<CreateTopicsResponse>(frame, version),
        ApiKey::DeleteTopics => response_as::<DeleteTopicsResponse>(frame, version),
        ApiKey::DeleteRecords => response_as::<DeleteRecordsResponse>(frame, version),
        ApiKey::InitProducerId => response_as::<InitProducerIdResponse>(frame, version),
        ApiKey::OffsetForLeaderEpoch => response_as::<OffsetForLeaderEpochResponse>(frame, version),
        ApiKey::DescribeConfigs => response_as::<DescribeConfigsResponse>(frame, version),
        ApiKey::AlterConfigs => response_as::<AlterConfigsResponse>(frame, version),
        ApiKey::DescribeLogDirs => response_as::<DescribeLogDirsResponse>(frame, version),
        ApiKey::CreatePartitions => response_as::<CreatePartitionsResponse>(frame, version),
        ApiKey::DeleteGroups => response_as::<DeleteGroupsResponse>(frame, version),
        ApiKey::ElectLeaders => response_as::<ElectLeadersResponse>(frame, version),
        ApiKey::IncrementalAlterConfigs => response_as::<IncrementalAlterConfigsResponse>(frame, version),
        ApiKey::AlterPartitionReassignments => {
            response_as::<AlterPartitionReassignmentsResponse>(frame, version)
        }
        ApiKey::ListPartitionReassignments => {
            response_as::<ListPartitionReassignmentsResponse>(frame, version)
        }
        ApiKey::OffsetDelete => response_as::<OffsetDeleteResponse>(frame, version),
        ApiKey::DescribeClientQuotas => response_as::<DescribeClientQuotasResponse>(frame, version),
        ApiKey::AlterClientQuotas => response_as::<AlterClientQuotasResponse>(frame, version),
        ApiKey::DescribeQuorum => response_as::<DescribeQuorumResponse>(frame, version),
        ApiKey::UpdateFeatures => response_as::<UpdateFeaturesResponse>(frame, version),
        ApiKey::DescribeCluster => response_as::<DescribeClusterResponse>(frame, version),
        ApiKey::ListConfigResources => response_as::<ListConfigResourcesResponse>(frame, version),
        ApiKey::DescribeTopicPartitions => response_as::<DescribeTopicPartitionsResponse>(frame, version),
    }
}

fn response_as<R: ApiResponse>(frame: Bytes, version: i16) -> anyhow::Result<Bytes> {
    let (id, response) = decode_response::<R>(frame, version)?;
    Ok(encode_response(id, version, &response)?.bytes.freeze())
}

/// The APIs and versions of which frames are kept in `directory`.
fn kept(directory: &Path) -> anyhow::Result<BTreeSet<(ApiKey, i16)>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut kept = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let parsed = name.strip_suffix("_request.hex").and_then(|stem| stem.split_once("_v"));
        if let Some((api, version)) = parsed {
            let key = ApiKey::ALL.iter().find(|key| key.to_string() == api);
            kept.insert((*key.with_context(|| format!("{name} names an API"))?, version.parse()?));
        }
    }
    Ok(kept)
}

/// Keeps, of each API and version, the exchange that says most.
fn bless(directory: &Path, used: &BTreeMap<(ApiKey, i16), Vec<Exchange>>) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    for ((key, version), exchanges) in used {
        let length = |exchange: &&Exchange| exchange.request.len() + exchange.response.len();
        let small = exchanges.iter().filter(|exchange| length(exchange) <= KEPT_BYTES_MAX);
        let most = small.max_by_key(length).with_context(|| format!("every {key} {version} is too long"))?;
        fs::write(golden_path(directory, *key, *version, "request"), hex(&most.request))?;
        fs::write(golden_path(directory, *key, *version, "response"), hex(&most.response))?;
    }
    Ok(())
}

fn golden_path(directory: &Path, key: ApiKey, version: i16, kind: &str) -> PathBuf {
    directory.join(format!("{key}_v{version}_{kind}.hex"))
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines = digits.as_bytes().chunks(LINE_DIGITS).map(|line| String::from_utf8_lossy(line) + "\n");
    lines.collect()
}

fn read_hex(path: &Path) -> anyhow::Result<Vec<u8>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let digits: String = text.split_whitespace().collect();
    let pairs =
        digits.as_bytes().chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    pairs.collect()
}
