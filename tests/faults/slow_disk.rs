//! A disk that hangs holds up those who wait for it, as long as they care to wait, and nobody else.
//!
//! strace lets every write, or every sync, of some segments wait before it begins. The others answer meanwhile, which
//! is shown by the order of events and not by the clock.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
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
use super::group_calls::{Group, OUTSIDER};
use super::reader::read_all;

/// Its segments hang.
const HUNG: &str = "hung";
/// More partitions than reactor threads on most machines.
const PARTITIONS: i32 = 6;
/// On the same disk, and not hung.
const FINE: &str = "fine";
/// How long a call hangs. Much longer than the state takes to show.
const HANG: Duration = Duration::from_secs(20);
/// How long a call hangs that a stop does not wait for. strace keeps a thread of a process that ends for as long.
const LONGER_THAN_A_STOP: Duration = Duration::from_secs(40);
/// How long a client waits for its records.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same of a client in a crowd. The others are looked at meanwhile; it is shorter than the hang, so that few writes
/// hang one after another.
const CROWD_PATIENCE_MS: i32 = 15_000;
const SLOW: &str = "highwater_disk_state{state=\"slow\"}";

/// A broker whose `calls` on some files, or on all of them, wait for `hang` before they begin.
fn hanging(data: &Path, calls: &str, hang: Duration, files: &[PathBuf]) -> Options {
    let injection = format!("delay_enter={}", hang.as_micros());
    let hung = Tampering { calls, injection: &injection, files, trace: Path::new("/dev/null") };
    Options::new(data).under(hung.wrapper())
}

fn start(data: &Path, calls: &str, flags: &[&str]) -> anyhow::Result<Broker> {
    let segment = |partition| data.join(format!("{HUNG}-{partition}/00000000000000000000.log"));
    let segments: Vec<_> = (0..PARTITIONS).map(segment).collect();
    Broker::start(hanging(data, calls, HANG, &segments).flags(flags))
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
    let broker = start(&data, calls, &[])?;
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

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_stop_does_not_wait_for_ever_for_a_disk_that_hangs() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let mut broker = Broker::start(hanging(&data, "syncfs", LONGER_THAN_A_STOP, &[]))?;
    let mut client = Connection::open(broker.address())?;
    client.create_topic(FINE, 1, &[])?;
    ensure!(client.produce(FINE, 0, plain_batch(0, 100))?.error_code == 0, "the record is not acknowledged");
    drop(client);

    let status = broker.terminate()?;

    ensure!(status.code() == Some(1), "it ended with {status}:\n{}", broker.log());
    let log = broker.log();
    ensure!(log.contains("did not let the broker stop within 25 s"), "{log}");
    let broker = Broker::start(Options::new(&data))?;
    ensure!(broker.log().contains("the last stop was not a clean one"), "{}", broker.log());
    ensure!(read_all(broker.address(), FINE, 1)?.len() == 1, "what was acknowledged is not there");
    Ok(())
}

/// How long a read takes that a recovery waits for, and a stop too: a step of the recovery has a few of them.
const STEP: Duration = Duration::from_secs(1);

#[test]
fn a_stop_that_comes_while_logs_recover_is_heard_between_two_of_them() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let data = directory.path().canonicalize()?.join("data");
    let mut broker = Broker::start(Options::new(&data))?;
    Connection::open(broker.address())?.create_topic(FINE, PARTITIONS, &[])?;
    for counter in 0..2 {
        let mut client = Connection::open(broker.address())?;
        for partition in 0..PARTITIONS {
            let answer = client.produce(FINE, partition, plain_batch(counter, 100))?;
            ensure!(answer.error_code == 0, "{answer:?}");
        }
        match counter {
            // So that there is a checkpoint, and records that it knows nothing of.
            0 => {
                broker.terminate()?;
                broker.restart()?;
            }
            _ => broker.kill()?,
        }
    }
    let checkpoint = std::fs::read(data.join("checkpoint"))?;
    let segment = |partition| data.join(format!("{FINE}-{partition}/00000000000000000000.log"));
    let segments: Vec<_> = (0..PARTITIONS).map(segment).collect();

    let starting = Broker::spawn(hanging(&data, "pread64", STEP, &segments))?;
    wait::until("the recovery to be under way", || Ok(starting.log().contains("recovering: ")))?;
    let status = starting.terminate()?;

    // What it says of logs that did not recover nobody else knows.
    ensure!(std::fs::read(data.join("checkpoint"))? == checkpoint, "the checkpoint was replaced");
    let broker = Broker::start(Options::new(&data))?;
    let log = broker.log();
    ensure!(status.success(), "it ended with {status}:\n{log}");
    ensure!(log.contains("the stop ends the recovery, which the next start begins again"), "{log}");
    ensure!(log.matches("the last stop was not a clean one").count() == 2, "{log}");
    let records = read_all(broker.address(), FINE, PARTITIONS)?.len();
    ensure!(records == 2 * PARTITIONS as usize, "{records} of the records are there");
    Ok(())
}

/// Hangs `calls` under a crowd of producers of one partition, each with so many requests, and looks at everybody else.
fn check_crowd(calls: &str, memory: &str, producers: usize, requests: usize) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().canonicalize()?.join("data");
    let broker = start(&data, calls, &["--memory", memory])?;
    let address = broker.address();
    let mut bystander = Connection::open(address)?;
    bystander.create_topic(HUNG, 1, &[])?;
    bystander.create_topic(FINE, 1, &[])?;
    ensure!(bystander.produce(FINE, 0, plain_batch(0, 100))?.error_code == 0, "the first record");
    let group = Group { name: "readers".into(), topic: FINE.into(), partitions: 1 };
    ensure!(group.commit(&mut bystander, OUTSIDER, &[(0, 0)])?.get(&0) == Some(&0), "the first commit");

    let request = produce_request(HUNG, [(0, plain_batch(0, 100))]);
    let request = ProduceRequest { timeout_ms: CROWD_PATIENCE_MS, ..request };
    let crowd = (0..producers).map(|_| {
        let mut producer = Connection::open(address)?;
        for _ in 0..requests {
            producer.send(PRODUCE_VERSION, &request)?;
        }
        Ok(producer)
    });
    let mut crowd = crowd.collect::<anyhow::Result<Vec<_>>>()?;
    wait::until("the disk to be called slow", || Ok(metric(address, SLOW)? == 1))?;

    let mut latecomer = Connection::open(address)?;
    let beat = group.beat(&mut latecomer, &Str::from("member"), 1)?;
    ensure!(beat == ErrorCode::UnknownMemberId.code(), "a heartbeat is answered {}", name_of(beat));
    ensure!(read_all(address, FINE, 1)?.len() == 1, "what is in memory cannot be read");
    ensure!(group.commit(&mut latecomer, OUTSIDER, &[(0, 1)])?.get(&0) == Some(&0), "a commit");
    latecomer.create_topic("late", 1, &[])?;
    // With a small budget producers wait for one another.
    if memory == AMPLE {
        ensure!(latecomer.produce(FINE, 0, plain_batch(1, 100))?.error_code == 0, "a record elsewhere");
    }
    for producer in &crowd {
        ensure!(!has_answer(&producer.socket()?)?, "the others waited until the crowd was answered");
    }

    for producer in &mut crowd {
        for _ in 0..requests {
            let (_, response) = producer.receive::<ProduceResponse>(PRODUCE_VERSION)?;
            let code = answers_of(response).pop().context("the answer names the partition")?.error_code;
            let expected = [0, ErrorCode::RequestTimedOut.code()];
            ensure!(expected.contains(&code), "a producer is answered {}", name_of(code));
        }
    }
    Ok(())
}

/// Whether something has come that was not read yet.
fn has_answer(socket: &TcpStream) -> anyhow::Result<bool> {
    socket.set_nonblocking(true)?;
    let peeked = socket.peek(&mut [0]);
    socket.set_nonblocking(false)?;
    match peeked {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        peeked => Ok(peeked.map(|_| true)?),
    }
}

/// A budget in which nobody waits for memory.
const AMPLE: &str = "1GiB";

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_crowd_behind_a_write_that_hangs_leaves_threads_for_everybody_else() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    check_crowd("pwritev", AMPLE, 600, 1)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_crowd_behind_a_disk_that_hangs_leaves_memory_for_everybody_else() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    check_crowd("pwritev", "32MiB", 140, 1)?;
    check_crowd("fsync,fdatasync", "32MiB", 10, 256)
}
