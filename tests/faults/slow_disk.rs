//! A disk that hangs holds up those who wait for it, as long as they care to wait, and nobody else.
//!
//! strace lets every write, or every sync, of some segments wait before it begins. The others answer meanwhile, which
//! is shown by the order of events and not by the clock.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::ProduceRequest;
use highwater_protocol::api::produce::ProduceResponse;
use highwater_protocol::wire::Str;

use crate::harness::broker::{Broker, Options};
use crate::harness::metrics::{get, metric};
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};
use crate::harness::wait;

use super::batches::plain_batch;
use super::client::{Connection, PRODUCE_VERSION, answers_of, name_of, produce_request};
use super::group_calls::Group;
use super::reader::read_all;

/// Its segments hang.
const HUNG: &str = "hung";
/// More partitions than reactor threads on most machines.
const PARTITIONS: i32 = 6;
/// On the same disk, and not hung.
const FINE: &str = "fine";
/// How long a call hangs. Much longer than the state takes to show.
const HANG: Duration = Duration::from_secs(20);
/// How long a client waits for its records.
const PATIENCE: Duration = Duration::from_secs(2);
const SLOW: &str = "highwater_disk_state{state=\"slow\"}";

fn start(data: &Path, calls: &str) -> anyhow::Result<Broker> {
    let segment = |partition| data.join(format!("{HUNG}-{partition}/00000000000000000000.log"));
    let segments: Vec<_> = (0..PARTITIONS).map(segment).collect();
    let injection = format!("delay_enter={}", HANG.as_micros());
    let trace = Path::new("/dev/null");
    let hung = Tampering { calls, injection: &injection, files: &segments, trace };
    Broker::start(Options::new(data).under(hung.wrapper()))
}

fn impatient(partition: i32, counter: u32) -> ProduceRequest {
    let request = produce_request(HUNG, [(partition, plain_batch(counter, 100))]);
    ProduceRequest { timeout_ms: i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX), ..request }
}

/// Hangs `calls` of all partitions of a topic, and looks at everybody else. How many producers were told in time that
/// their time is over, of one per partition.
fn check_hang(calls: &str) -> anyhow::Result<usize> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().canonicalize()?.join("data");
    let broker = start(&data, calls)?;
    let address = broker.address();
    let mut bystander = Connection::open(address)?;
    bystander.create_topic(HUNG, PARTITIONS, &[])?;
    bystander.create_topic(FINE, 1, &[])?;
    let answer = bystander.produce(FINE, 0, plain_batch(0, 100))?;
    ensure!(answer.error_code == 0, "{answer:?}");

    let producers = (0..PARTITIONS).map(|partition| {
        let mut producer = Connection::open(address)?;
        producer.send(PRODUCE_VERSION, &impatient(partition, 0))?;
        Ok(producer)
    });
    let mut producers = producers.collect::<anyhow::Result<Vec<_>>>()?;
    wait::until("the disk to be called slow", || Ok(metric(address, SLOW)? == 1))?;

    let group = Group { name: "nobody".into(), topic: FINE.into(), partitions: 1 };
    let beat = group.beat(&mut bystander, &Str::from("member"), 1)?;
    ensure!(beat == ErrorCode::UnknownMemberId.code(), "a heartbeat is answered {}", name_of(beat));
    ensure!(read_all(address, FINE, 1)?.len() == 1, "what is in memory cannot be read");
    let ready = get(address, "/readyz")?;
    ensure!(ready.contains("\"disk_slow\":\"the disk of ") && ready.contains("does not answer"), "{ready}");
    ensure!(get(address, "/livez")?.ends_with("ok\n"), "/livez");
    ensure!(metric(address, SLOW)? == 1, "the disk did not hang as long as all that took");
    let said = broker.log().matches("does not answer").count();
    ensure!(said == 1, "it was said {said} times:\n{}", broker.log());

    let mut timed_out = 0;
    for producer in &mut producers {
        let (_, response) = producer.receive::<ProduceResponse>(PRODUCE_VERSION)?;
        let answer = answers_of(response).pop().context("the answer names the partition")?;
        if answer.error_code == ErrorCode::RequestTimedOut.code() {
            timed_out += 1;
            let sentence = answer.error_message.context("a refusal has a sentence")?;
            ensure!(sentence.contains("within the request's timeout_ms"), "{sentence}");
        }
    }
    wait::until("the disk to answer", || Ok(metric(address, SLOW)? == 0))?;
    ensure!(broker.log().contains("answers again"), "{}", broker.log());
    // None is lost for having been late.
    wait::until("the records", || Ok(read_all(address, HUNG, PARTITIONS)?.len() == PARTITIONS as usize))?;
    Ok(timed_out)
}

#[test]
fn a_sync_that_hangs_times_its_producers_out_and_holds_up_nobody_else() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    assert_eq!(check_hang("fsync,fdatasync")?, PARTITIONS as usize);
    Ok(())
}

#[test]
fn a_write_that_hangs_holds_up_neither_heartbeats_nor_health_nor_reads() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    // Those whose write hangs on a thread of the reactor hear of it when it ends; one thread is kept clear of the disk.
    let on_reactor = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let timed_out = check_hang("pwritev")?;
    ensure!(timed_out + on_reactor >= PARTITIONS as usize, "{timed_out} producers were told in time");
    Ok(())
}
