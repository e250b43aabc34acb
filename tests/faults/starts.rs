//! What starts and stops cost, seen by the system calls they make: nothing for a partition that nobody uses, and a scan
//! that says how far it has come.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use highwater_protocol::api::produce::ProduceResponse;

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};
use crate::harness::wait::until;

use super::batches::plain_batch;
use super::client::{Connection, PRODUCE_VERSION, produce_request};

const TOPIC: &str = "idle";
const PARTITIONS: i32 = 40;
/// Starts and stops sync the metadata and the checkpoint: a handful of times, however many partitions there are.
const SYNCS_MAX: usize = 20;

/// A broker under strace, which writes these calls to `trace`.
fn traced(data: &Path, trace: &Path, calls: &str) -> Options {
    Options::new(data).under(strace::recording(calls, trace))
}

fn produce(address: SocketAddr, partitions: std::ops::Range<i32>, value_bytes: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    for partition in partitions {
        let request = produce_request(TOPIC, [(partition, plain_batch(1, value_bytes))]);
        let response: ProduceResponse = connection.call(PRODUCE_VERSION, &request)?;
        let code = response.responses[0].partition_responses[0].error_code;
        ensure!(code == 0, "partition {partition} answers {code}");
    }
    Ok(())
}

/// A data directory with a record in each partition, stopped cleanly.
fn filled(data: &Path) -> anyhow::Result<()> {
    let mut broker = Broker::start(Options::new(data))?;
    Connection::open(broker.address())?.create_topic(TOPIC, PARTITIONS, &[])?;
    produce(broker.address(), 0..PARTITIONS, 100)?;
    ensure!(broker.terminate()?.success(), "{}", broker.log());
    Ok(())
}

/// The lines of a trace whose process has ended.
fn calls(trace: &Path) -> anyhow::Result<Vec<String>> {
    until("strace to write its last line", || {
        let text = std::fs::read_to_string(trace)?;
        Ok(text.lines().last().is_some_and(|line| line.contains("+++ ")))
    })?;
    Ok(std::fs::read_to_string(trace)?.lines().map(str::to_owned).collect())
}

fn naming<'a>(calls: &'a [String], name: &str) -> Vec<&'a String> {
    calls.iter().filter(|call| call.contains(name)).collect()
}

#[test]
fn a_clean_start_and_stop_open_and_sync_nothing_of_a_partition() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let (data, trace) = (directory.path().join("data"), directory.path().join("trace"));
    filled(&data)?;

    let kinds = "open,openat,creat,fsync,fdatasync";
    let mut broker = Broker::start(traced(&data, &trace, kinds))?;
    ensure!(broker.terminate()?.success(), "{}", broker.log());

    let idle = calls(&trace)?;
    ensure!(naming(&idle, "/checkpoint").len() > 1, "strace saw no checkpoint:\n{}", idle.join("\n"));
    let touched = naming(&idle, "idle-");
    ensure!(touched.is_empty(), "{touched:#?}");
    let syncs = naming(&idle, "sync(").len();
    ensure!(syncs <= SYNCS_MAX, "{syncs} syncs:\n{}", idle.join("\n"));

    // One that is used is opened, and no other.
    std::fs::remove_file(&trace)?;
    let mut broker = Broker::start(traced(&data, &trace, kinds))?;
    produce(broker.address(), 7..8, 100)?;
    ensure!(broker.terminate()?.success(), "{}", broker.log());
    let used = calls(&trace)?;
    ensure!(!naming(&used, "/idle-7/").is_empty(), "{used:#?}");
    let touched = naming(&used, "idle-").into_iter().filter(|call| !call.contains("idle-7")).count();
    ensure!(touched == 0, "{touched} calls for other partitions:\n{}", used.join("\n"));
    Ok(())
}

#[test]
fn a_start_after_kill_9_opens_only_what_was_appended_to() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let (data, trace) = (directory.path().join("data"), directory.path().join("trace"));
    filled(&data)?;
    let mut broker = Broker::start(Options::new(&data))?;
    produce(broker.address(), 7..8, 100)?;
    broker.kill()?;

    let mut broker = Broker::start(traced(&data, &trace, "open,openat,creat"))?;
    ensure!(broker.terminate()?.success(), "{}", broker.log());

    let calls = calls(&trace)?;
    ensure!(!naming(&calls, "/idle-7/").is_empty(), "{calls:#?}");
    let touched = naming(&calls, "idle-").into_iter().filter(|call| !call.contains("idle-7")).count();
    ensure!(touched == 0, "{touched} calls for other partitions:\n{}", calls.join("\n"));
    Ok(())
}

/// What the broker at `address` says to `GET /readyz`; empty while nobody listens.
fn readyz(address: SocketAddr) -> String {
    let mut said = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n");
        // A broker that is being killed says nothing.
        let _ = asked.and_then(|()| stream.read_to_string(&mut said));
    }
    said
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_long_recovery_says_how_far_it_has_come() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let directory = directory.path().canonicalize()?;
    let (data, trace) = (directory.join("data"), directory.join("trace"));
    // Nothing is synced, so all of it is to be scanned.
    let mut broker = Broker::start(Options::new(&data).flags(&["--durability", "os"]))?;
    Connection::open(broker.address())?.create_topic(TOPIC, 2, &[])?;
    for _ in 0..8 {
        produce(broker.address(), 0..1, 500_000)?;
    }
    broker.kill()?;

    // A slow disk: each read of the tail takes 300 ms more.
    let files = [data.join(format!("{TOPIC}-0/00000000000000000000.log"))];
    let slow = Tampering { calls: "pread64", injection: "delay_enter=300000", files: &files, trace: &trace };
    let mut options = Options::new(&data).under(slow.wrapper());
    options.port = broker.address().port();
    let (address, is_over) = (broker.address(), AtomicBool::new(false));
    let (broker, heard) = thread::scope(|scope| {
        let listener = scope.spawn(|| {
            let mut heard = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                heard.push(readyz(address));
            }
            heard
        });
        let started = Broker::start(options);
        is_over.store(true, Ordering::Release);
        (started, listener.join())
    });
    let (broker, heard) = (broker?, heard.map_err(|_| anyhow::anyhow!("the listener panicked"))?);

    let recovering = heard.iter().find(|said| said.contains("recovering: 1 of 2 partitions"));
    let recovering = recovering.context("nobody was told that the broker recovers")?;
    ensure!(recovering.starts_with("HTTP/1.1 503"), "{recovering}");
    let log = broker.log();
    let told = log.lines().find(|line| line.contains("recovering: 1 of 2 partitions"));
    let told = told.with_context(|| format!("the log says nothing of it:\n{log}"))?;
    ensure!(told.contains("GiB scanned") && told.contains("idle-0"), "{told}");
    let ready = readyz(address);
    ensure!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"ready\":true"), "{ready}");
    Ok(())
}
