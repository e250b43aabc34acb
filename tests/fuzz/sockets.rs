//! Hostile frames through sockets, against a broker as it is started by anybody.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use bytes::{Buf as _, Bytes};
use highwater_protocol::{ApiKey, RequestError, parse_request};

use super::answers::Coverage;
use super::mutation::hostile;
use super::seeds::{PARTITIONS, Seeds, TOPIC};
use crate::faults::batches::plain_batch;
use crate::faults::client::Connection;
use crate::faults::random::Random;
use crate::faults::reader::read_all;
use crate::faults::setting::{count, say, seed};
use crate::harness::broker::{Broker, Options};
use crate::harness::process::anonymous_bytes;

/// Most frames on one connection.
const FRAMES_PER_CONNECTION: usize = 10;
/// Lengths in front of a frame that are not its own.
const LYING_LENGTHS: [i32; 6] = [-1, i32::MIN, 0, 3, i32::MAX, 100 << 20];
/// Connections at once.
const THREADS: u64 = 4;
/// After this long without a byte an answer is taken for a parked fetch.
const PATIENCE: Duration = Duration::from_millis(300);
/// How much the broker may hold more at the end than after a quarter of the frames.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn hostile_frames_through_sockets_leave_the_broker_as_it_was() -> anyhow::Result<()> {
    let frames = count("HIGHWATER_SOCKET_FRAMES", 20_000)?;
    let seed = seed()?;
    let directory = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&directory.path().join("data")))?;
    let mut good = Connection::open(broker.address())?;
    good.create_topic("good", 1, &[])?;
    let seeds = Arc::new(Seeds::new(good.create_topic(TOPIC, PARTITIONS, &[])?)?);

    let warm_up = frames / 4;
    let mut coverage = send_all(broker.address(), &seeds, seed, warm_up)?;
    let before = anonymous_bytes(broker.pid())?;
    coverage.merge(&send_all(broker.address(), &seeds, seed.wrapping_add(THREADS), frames - warm_up)?);
    let after = anonymous_bytes(broker.pid())?;

    let answer = good.produce("good", 0, plain_batch(0, 100))?;
    ensure!(answer.error_code == 0, "a good client is refused: {answer:?}");
    ensure!(read_all(broker.address(), "good", 1)?.len() == 1, "a good client does not read what it wrote");
    say(&format!(
        "through sockets: {frames} frames, seed {seed}, anonymous memory {} KiB after {warm_up} frames and {} KiB at \
         the end; {}",
        before >> 10,
        after >> 10,
        coverage.table()
    ));
    ensure!(after < before + GROWTH_BYTES_MAX, "memory grew from {before} to {after} bytes");
    let before = ends(&broker)?;
    broker.kill()?;
    broker.restart()?;
    let after = ends(&broker)?;
    ensure!(
        before.iter().zip(&after).all(|(before, after)| before <= after),
        "partitions ended at {before:?}, and after a kill at {after:?}: what was accepted is not whole on disk"
    );
    ensure!(
        !broker.log().contains("panicked"),
        "HIGHWATER_SEED={seed} made a part of the broker panic:\n{}",
        broker.log()
    );
    Ok(())
}

/// Where the partitions end; nowhere, if a damaged request has deleted the topic.
fn ends(broker: &Broker) -> anyhow::Result<Vec<Option<i64>>> {
    let mut connection = Connection::open(broker.address())?;
    (0..PARTITIONS).map(|partition| Ok(connection.latest_offset(TOPIC, partition)?)).collect()
}

fn send_all(address: SocketAddr, seeds: &Arc<Seeds>, seed: u64, frames: u64) -> anyhow::Result<Coverage> {
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let seeds = Arc::clone(seeds);
            let mut random = Random::new(seed.wrapping_add(thread));
            let share = frames / THREADS;
            std::thread::spawn(move || {
                let mut coverage = Coverage::default();
                let mut sent = 0;
                while sent < share {
                    sent += send_some(address, &seeds, &mut random, &mut coverage)?;
                }
                anyhow::Ok(coverage)
            })
        })
        .collect();
    let mut coverage = Coverage::default();
    for thread in threads {
        coverage.merge(&thread.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    Ok(coverage)
}

/// One connection: frames one after another without waiting, up to one that the broker must hang up on, then the
/// answers. How many frames were sent.
fn send_some(
    address: SocketAddr,
    seeds: &Seeds,
    random: &mut Random,
    coverage: &mut Coverage,
) -> anyhow::Result<u64> {
    let mut frames: Vec<Bytes> = Vec::new();
    let mut bytes = Vec::new();
    while frames.len() < FRAMES_PER_CONNECTION {
        let mut frame = hostile(random, seeds);
        // The answer names the request by this number alone.
        if let Some(correlation_id) = frame.get_mut(4..8) {
            correlation_id.copy_from_slice(&(frames.len() as i32).to_be_bytes());
        }
        let lies = random.below(16) == 0;
        let length = if lies { *random.choose(&LYING_LENGTHS) } else { frame.len() as i32 };
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&frame);
        frames.push(frame.into());
        let is_answered = frames.last().is_some_and(is_answered);
        if lies || !is_answered {
            break;
        }
    }
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The broker may hang up while the rest is still being sent.
    let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            coverage.parked += 1;
        }
        _ => coverage.hangups += 1,
    }
    take_answers(&frames, received.into(), coverage)?;
    Ok(frames.len() as u64)
}

/// Whether the broker may go on after this frame.
fn is_answered(frame: &Bytes) -> bool {
    match parse_request(frame.clone()) {
        Ok((_, Ok(_))) => true,
        Ok((_, Err(RequestError::UnsupportedVersion { key, .. }))) => key == ApiKey::ApiVersions,
        _ => false,
    }
}

/// The answers must belong to frames of this connection, in their order.
fn take_answers(frames: &[Bytes], mut received: Bytes, coverage: &mut Coverage) -> anyhow::Result<()> {
    let mut waiting = frames.iter();
    while received.len() >= 4 {
        let length = received.get_i32() as usize;
        if length > received.len() {
            // Cut off by a reset or by our patience.
            return Ok(());
        }
        let answer = received.split_to(length);
        let correlation_id = answer.first_chunk().map(|id| i32::from_be_bytes(*id));
        let request = waiting.find(|frame| {
            let header = parse_request((*frame).clone()).ok().map(|(header, _)| header.correlation_id);
            header.is_some() && header == correlation_id
        });
        let request =
            request.with_context(|| format!("an answer to {correlation_id:?}, which was not sent"))?;
        coverage.take_answer(request, answer).with_context(|| format!("frame {request:?}"))?;
    }
    Ok(())
}
