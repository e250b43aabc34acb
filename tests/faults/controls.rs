//! Negative controls: brokers that break their promises, to show that the check would find it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use highwater_protocol::api::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use highwater_protocol::{Request, RequestHeader, encode_response};
use highwater_record::{Batch, BatchBuilder, Codec, NewRecord};

use crate::harness::broker::{Broker, Options};
use crate::harness::meddler::{Deed, Meddler, Plan};
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};

use super::campaign::{Campaign, Crew, Outcome, TOPIC, under_load};
use super::client::Connection;
use super::gate::Order;
use super::mounts::{FileSystem, Mount, can_mount_images};
use super::producer::Kind;
use super::reader::LIMITS;
use super::setting::Trials;
use super::trials::run_controls;

/// Acknowledgements before a control's cut: long before the system writes anything back by itself.
pub(super) const ACKS: u64 = 500;
/// Of so many requests of a kind of session one is meddled with.
const EVERY: u64 = 10;
const TRIALS: Trials = Trials { pr: 1, nightly: 10, release: 10 };

#[test]
fn a_power_cut_under_os_is_caught_losing_records() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() {
        return Ok(());
    }
    let lost = |outcome: &Outcome| outcome.verdict.lost_count() > 0;
    let body = |directory: &Path, seed| cut_power(directory, seed, &["--durability", "os"], false);
    run_controls("T9 a power cut under os", TRIALS, body, lost)
}

#[test]
fn a_power_cut_without_syncs_is_caught_losing_records() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() || or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    let lost = |outcome: &Outcome| outcome.verdict.lost_count() > 0;
    let body = |directory: &Path, seed| cut_power(directory, seed, &[], true);
    run_controls("T9 a power cut while syncs do nothing", TRIALS, body, lost)
}

fn cut_power(directory: &Path, seed: u64, flags: &[&str], is_lying: bool) -> anyhow::Result<Outcome> {
    let data = directory.join("data");
    let mut mount = Mount::image(FileSystem::of_trial(seed), &data)?;
    let mut broker = Broker::start(Options::new(&data).flags(flags))?;
    let campaign = Campaign::start(&broker, &Crew::default(), seed)?;
    // Calls that say that they have synced, and have not.
    let trace = directory.join("trace");
    let lie = Tampering { calls: "fdatasync,fsync,syncfs", injection: "retval=0", files: &[], trace: &trace };
    let liar = if is_lying { Some(lie.attach(broker.pid())?) } else { None };
    campaign.gate.wait_for_acks(ACKS)?;

    // Nobody may write over what is missing.
    campaign.gate.give(Order::Abandon);
    mount.cut_power()?;
    broker.kill()?;
    drop(liar);
    mount.power_up()?;
    broker.restart()?;
    campaign.abandon()
}

#[test]
fn a_broker_that_drops_is_caught() -> anyhow::Result<()> {
    let lost = |outcome: &Outcome| outcome.verdict.lost_count() > 0;
    let body = |directory: &Path, seed| through(directory, seed, Kind::Plain, drop_some);
    run_controls("T9 a broker that acknowledges and drops", TRIALS, body, lost)
}

#[test]
fn a_broker_that_doubles_is_caught() -> anyhow::Result<()> {
    let doubled = |outcome: &Outcome| !outcome.verdict.doubled.is_empty();
    let body = |directory: &Path, seed| through(directory, seed, Kind::Idempotent, double_some);
    run_controls("T9 a broker that appends twice", TRIALS, body, doubled)
}

/// A campaign through a proxy that does this to one of [`EVERY`] Produce requests of sessions of a kind.
fn through(
    directory: &Path,
    seed: u64,
    kind: Kind,
    deed: fn(std::net::SocketAddr, &RequestHeader, &ProduceRequest) -> anyhow::Result<Deed>,
) -> anyhow::Result<Outcome> {
    let seen = AtomicU64::new(0);
    let plan: Box<Plan> = Box::new(move |upstream, header, request| {
        let Request::Produce(request) = request else { return Ok(Deed::Pass) };
        let is_meant = kind_of(request)? == kind && seen.fetch_add(1, Ordering::Relaxed) % EVERY == EVERY - 1;
        if is_meant { deed(upstream, header, request) } else { Ok(Deed::Pass) }
    });
    let proxy = Meddler::bind(plan)?;
    let mut broker = Broker::start(Options::new(&directory.join("data")))?;
    proxy.forward_to(broker.address());
    let crew = Crew { proxy: Some(proxy.address()), members: 0, ..Crew::default() };
    under_load(&mut broker, &crew, seed, |_, campaign| campaign.gate.wait_for_acks(4 * ACKS))
}

fn kind_of(request: &ProduceRequest) -> anyhow::Result<Kind> {
    let batch = batches_of(request).next().context("a request holds a batch")?.1;
    let producer = Batch::new(batch)?.header().producer;
    Ok(if producer.is_some() { Kind::Idempotent } else { Kind::Plain })
}

fn batches_of(request: &ProduceRequest) -> impl Iterator<Item = (i32, Bytes)> + '_ {
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    partitions.filter_map(|data| Some((data.index, data.records.bytes()?.clone())))
}

/// Acknowledges a plain session's request without a broker. An idempotent session would notice by itself.
fn drop_some(
    _: std::net::SocketAddr,
    header: &RequestHeader,
    request: &ProduceRequest,
) -> anyhow::Result<Deed> {
    let partition = |(index, _)| PartitionProduceResponse { index, ..PartitionProduceResponse::default() };
    let topic = TopicProduceResponse {
        name: TOPIC.into(),
        partition_responses: batches_of(request).map(partition).collect(),
        ..TopicProduceResponse::default()
    };
    let response = ProduceResponse { responses: vec![topic], ..ProduceResponse::default() };
    let frame = encode_response(header.correlation_id, header.api_version, &response)?;
    Ok(Deed::Answer(frame.bytes.freeze()))
}

/// Appends an idempotent session's records once more, as a broker does that does not know its producers.
fn double_some(
    upstream: std::net::SocketAddr,
    _: &RequestHeader,
    request: &ProduceRequest,
) -> anyhow::Result<Deed> {
    for (partition, batch) in batches_of(request) {
        let plain = without_producer(&Batch::new(batch)?)?;
        Connection::open(upstream)?.produce(TOPIC, partition, plain)?;
    }
    Ok(Deed::Pass)
}

fn without_producer(batch: &Batch) -> anyhow::Result<Bytes> {
    let mut builder = BatchBuilder::new(Codec::None);
    for record in batch.decompress(LIMITS)?.records() {
        let record = record?;
        let (timestamp, key, value) = (record.timestamp, record.key, record.value);
        builder.append(&NewRecord { timestamp, key, value, headers: &[] })?;
    }
    Ok(builder.build()?)
}
