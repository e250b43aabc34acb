//! Decompression bombs: what is small on the wire and would be huge in memory costs little of either memory or time.
//!
//! A zstd block of four bytes stands for 128 KiB, so that 10 KiB become 320 MiB and 320 KiB become 10 GiB.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use highwater_protocol::wire::Str;
use highwater_record::{CRC_START, HEADER_BYTES, crc32c};

use crate::harness::broker::{Broker, Options};
use crate::harness::process::{anonymous_bytes, cpu_time};

use super::batches::plain_batch;
use super::client::{Connection, name_of};
use super::setting::say;

const TOPIC: &str = "bombs";
const BOMBS: u32 = 64;
/// What all of them may cost together while they go off: with the default memory budget, and with a small one, most of
/// which is for other things.
const BUDGETS: [(&[&str], u64); 2] = [(&[], 256 << 20), (&["--memory", "128MiB"], 64 << 20)];
/// What one may cost.
const CPU_MAX: Duration = Duration::from_millis(200);
/// Timestamps of the bombs.
const BOMB_TIMESTAMP: i64 = 1_700_000_000_000;

/// A zstd frame of about `compressed_bytes` (RFC 8878): a window of 128 KiB, then blocks that repeat one byte.
fn zstd_bomb(compressed_bytes: usize) -> Vec<u8> {
    const BLOCK_BYTES: u32 = 128 << 10;
    const REPEATED: u32 = 1 << 1;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    let blocks = compressed_bytes / 4;
    for block in 1..=blocks {
        let header = u32::from(block == blocks) | REPEATED | BLOCK_BYTES << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(2);
    }
    frame
}

/// A batch whose records are a bomb, with the largest timestamp that its header claims.
fn batch(compressed_bytes: usize, max_timestamp: i64) -> Bytes {
    let mut batch = plain_batch(0, 1)[..HEADER_BYTES].to_vec();
    batch.extend_from_slice(&zstd_bomb(compressed_bytes));
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[21..23].copy_from_slice(&4_i16.to_be_bytes());
    batch[27..35].copy_from_slice(&BOMB_TIMESTAMP.to_be_bytes());
    batch[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    let crc = crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// Sets off a bomb on each of many connections at once, while a good client goes on.
fn set_off(
    broker: &Broker,
    growth_bytes_max: u64,
    what: &str,
    bomb: impl Fn(&mut Connection) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let address: SocketAddr = broker.address();
    let mut producer = Connection::open(address)?;
    good_produce(&mut producer)?;
    let (bytes_before, cpu_before) = (anonymous_bytes(broker.pid())?, cpu_time(broker.pid())?);
    // Nobody waits for somebody who could not connect.
    let connections = (0..BOMBS).map(|_| Connection::open(address)).collect::<Result<Vec<_>, _>>()?;
    let together = &Barrier::new(connections.len());
    let bomb = &bomb;
    let (bytes, slowest) = thread::scope(|scope| {
        let bombers: Vec<_> = connections
            .into_iter()
            .map(|mut connection| {
                scope.spawn(move || {
                    together.wait();
                    bomb(&mut connection)
                })
            })
            .collect();
        let (mut bytes, mut slowest) = (0, Duration::ZERO);
        while !bombers.iter().all(thread::ScopedJoinHandle::is_finished) {
            bytes = bytes.max(anonymous_bytes(broker.pid())?);
            slowest = slowest.max(good_produce(&mut producer)?);
        }
        for bomber in bombers {
            bomber.join().map_err(|_| anyhow!("a bomber panicked"))??;
        }
        anyhow::Ok((bytes, slowest))
    })?;
    let grown = bytes.saturating_sub(bytes_before);
    let cpu = (cpu_time(broker.pid())? - cpu_before) / BOMBS;
    say(&format!(
        "{BOMBS} {what}: {} MiB more at most, {cpu:?} of processor each, good batches within {slowest:?}",
        grown >> 20
    ));
    ensure!(grown < growth_bytes_max, "{BOMBS} {what} cost {grown} bytes");
    ensure!(cpu < CPU_MAX, "each of {BOMBS} {what} costs {cpu:?} of processor");
    Ok(())
}

fn good_produce(producer: &mut Connection) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let answer = producer.produce(TOPIC, 1, plain_batch(0, 100))?;
    ensure!(answer.error_code == 0, "a good batch is refused: {answer:?}");
    Ok(began.elapsed())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn bombs_that_are_produced_are_refused_at_little_cost() -> anyhow::Result<()> {
    BUDGETS.into_iter().try_for_each(|(flags, growth_bytes_max)| produce_bombs(flags, growth_bytes_max))
}

fn produce_bombs(flags: &[&str], growth_bytes_max: u64) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&directory.path().join("data")).flags(flags))?;
    Connection::open(broker.address())?.create_topic(TOPIC, 2, &[])?;

    for compressed_bytes in [10 << 10, 330 << 10] {
        // Without a largest timestamp, which makes the broker look for it.
        let batch = batch(compressed_bytes, -1);
        set_off(
            &broker,
            growth_bytes_max,
            &format!("bombs of {} KiB", compressed_bytes >> 10),
            |connection| {
                let answer = connection.produce(TOPIC, 0, batch.clone())?;
                let code = answer.error_code;
                ensure!(code == ErrorCode::MessageTooLarge.code(), "a bomb is answered {}", name_of(code));
                Ok(())
            },
        )?;
    }
    let end = Connection::open(broker.address())?.latest_offset(TOPIC, 0)?;
    ensure!(end == Some(0), "bombs were stored up to {end:?}");
    Ok(())
}

#[test]
fn bombs_that_are_stored_cost_little_when_a_time_is_looked_up() -> anyhow::Result<()> {
    BUDGETS.into_iter().try_for_each(|(flags, growth_bytes_max)| look_up_bombs(flags, growth_bytes_max))
}

fn look_up_bombs(flags: &[&str], growth_bytes_max: u64) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&directory.path().join("data")).flags(flags))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 2, &[])?;
    for compressed_bytes in [10 << 10, 330 << 10] {
        let answer = connection.produce(TOPIC, 0, batch(compressed_bytes, BOMB_TIMESTAMP + 10))?;
        ensure!(answer.error_code == 0, "a batch that need not be opened is refused: {answer:?}");
    }

    for timestamp in [BOMB_TIMESTAMP + 5, -3] {
        set_off(&broker, growth_bytes_max, &format!("lookups of the time {timestamp}"), |connection| {
            let answer = connection.call(7, &lookup(timestamp, 1))?;
            let found = answer.topics.first().and_then(|topic| topic.partitions.first());
            let found = found.context("the answer names the partition")?;
            // What cannot be opened is found by its header.
            ensure!((found.error_code, found.offset) == (0, 0), "the lookup found {found:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn one_request_cannot_open_a_bomb_many_times() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&directory.path().join("data")))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 2, &[])?;
    connection.produce(TOPIC, 0, batch(330 << 10, BOMB_TIMESTAMP + 10))?;
    let before = cpu_time(broker.pid())?;

    let answer = connection.call(7, &lookup(BOMB_TIMESTAMP + 5, 10_000))?;

    let codes: Vec<i16> =
        answer.topics.iter().flat_map(|topic| &topic.partitions).map(|found| found.error_code).collect();
    assert_eq!(codes, vec![ErrorCode::InvalidRequest.code(); 10_000]);
    let cpu = cpu_time(broker.pid())? - before;
    ensure!(cpu < 2 * CPU_MAX, "a request for the same partition ten thousand times costs {cpu:?}");
    Ok(())
}

/// Asks for a time in partition 0, so many times over.
fn lookup(timestamp: i64, times: usize) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() };
    let topic = ListOffsetsTopic { name: Str::from(TOPIC), partitions: vec![partition; times] };
    ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() }
}
