//! The load: connections that produce the same batch, or fetch a topic in rounds, and what came of it.
//!
//! A connection is a thread. The server's CPU is read by the caller, from outside.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use highwater_record::BatchHeader;

use crate::batch::Batch;
use crate::connection::Connection;
use crate::frame::{self, FetchSpec, Target};

/// How long a fetch may wait when there is nothing: never, in a load that reads what is there.
const FETCH_WAIT_MS: i32 = 500;

/// Where the load goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) topic: &'a str,
    /// Connection `n` uses partition `n % partitions`.
    pub(crate) partitions: u32,
    pub(crate) connections: u32,
}

/// When a connection has done its part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// All connections together have moved this many bytes.
    Bytes(u64),
    /// This much time has passed.
    Elapsed(Duration),
}

/// What a load did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes of whole batches.
    pub(crate) bytes: u64,
    /// Requests that were answered.
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// From before the request was written to after its answer was read, sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Outcome {
    pub(crate) fn mib_per_second(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.elapsed.as_secs_f64()
    }

    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// Produces `batch` again and again, with up to `in_flight` requests unanswered on each connection.
pub(crate) fn produce(place: Place<'_>, in_flight: usize, batch: &Batch, until: Until) -> Result<Outcome> {
    ensure!(in_flight > 0, "at least one request must be in flight");
    drive(place, until, |connection, target, goal| {
        let mut request = frame::produce(target, &batch.bytes);
        let (mut outcome, mut sent_at) = (Outcome::default(), VecDeque::with_capacity(in_flight));
        let (mut bytes_sent, mut is_done) = (0, false);
        while !is_done || !sent_at.is_empty() {
            while !is_done && sent_at.len() < in_flight {
                sent_at.push_back(Instant::now());
                connection.send(&mut request)?;
                bytes_sent += batch.bytes.len() as u64;
                is_done = goal.is_reached(bytes_sent);
            }
            let answer = connection.receive()?;
            frame::produced(answer.body, answer.correlation)?;
            outcome.latencies.extend(sent_at.pop_front().map(|at| at.elapsed()));
            outcome.requests += 1;
        }
        outcome.bytes = bytes_sent;
        Ok(outcome)
    })
}

/// Fetches each partition from offset 0 to its end, and again, `max_bytes` at a time, one fetch in flight.
pub(crate) fn consume(place: Place<'_>, max_bytes: i32, until: Until) -> Result<Outcome> {
    drive(place, until, |connection, target, goal| {
        let (mut outcome, mut offset) = (Outcome::default(), 0);
        while !goal.is_reached(outcome.bytes) {
            let spec = FetchSpec { offset, max_wait_ms: FETCH_WAIT_MS, min_bytes: 1, max_bytes };
            let sent_at = Instant::now();
            connection.send(&mut frame::fetch(target, spec))?;
            let answer = connection.receive()?;
            let fetched = frame::fetched(answer.body, answer.correlation)?;
            outcome.latencies.push(sent_at.elapsed());
            outcome.requests += 1;
            let whole = whole_batches(fetched.records)?;
            let Some(next_offset) = whole.next_offset else {
                let Target { topic, partition } = target;
                anyhow::bail!("{topic}-{partition} has nothing at offset {offset}; produce to it first");
            };
            outcome.bytes += whole.bytes;
            offset = if next_offset < fetched.high_watermark { next_offset } else { 0 };
        }
        Ok(outcome)
    })
}

/// What of an answer can be used: a batch that was cut at the end is fetched again.
#[derive(Debug, Default, Eq, PartialEq)]
struct WholeBatches {
    bytes: u64,
    next_offset: Option<i64>,
}

fn whole_batches(records: &[u8]) -> Result<WholeBatches> {
    let (mut whole, mut rest) = (WholeBatches::default(), records);
    while rest.len() >= highwater_record::HEADER_BYTES {
        let header = BatchHeader::parse(rest).context("read a fetched batch")?;
        let Some(after) = rest.get(header.size_bytes as usize..) else { break };
        whole.bytes += u64::from(header.size_bytes);
        whole.next_offset = Some(header.next_offset().get());
        rest = after;
    }
    Ok(whole)
}

/// When one connection stops.
#[derive(Clone, Copy, Debug)]
enum Goal {
    Bytes(u64),
    At(Instant),
}

impl Goal {
    fn is_reached(self, bytes: u64) -> bool {
        match self {
            Self::Bytes(goal) => bytes >= goal,
            Self::At(end) => Instant::now() >= end,
        }
    }
}

/// Runs `work` on every connection at once, from the moment that all of them are open.
fn drive<W>(place: Place<'_>, until: Until, work: W) -> Result<Outcome>
where
    W: Fn(&mut Connection, Target<'_>, Goal) -> Result<Outcome> + Sync,
{
    let count = place.connections.max(1);
    let opened: Result<Vec<_>> = (0..count).map(|_| Connection::open(place.address)).collect();
    let (barrier, work) = (&Barrier::new(count as usize + 1), &work);
    thread::scope(|scope| {
        let run = |(index, mut connection): (u32, Connection)| {
            scope.spawn(move || {
                let partition = (index % place.partitions.max(1)) as i32;
                barrier.wait();
                // By the connection's own clock: the thread that waits for all may be scheduled late.
                let began = Instant::now();
                let goal = match until {
                    Until::Bytes(bytes) => Goal::Bytes(bytes / u64::from(count)),
                    Until::Elapsed(time) => Goal::At(began + time),
                };
                let mut outcome = work(&mut connection, Target { topic: place.topic, partition }, goal)?;
                outcome.elapsed = began.elapsed();
                Ok::<_, anyhow::Error>(outcome)
            })
        };
        let threads: Vec<_> = (0..).zip(opened?).map(run).collect();
        barrier.wait();
        let mut total = Outcome::default();
        for thread in threads {
            let Ok(outcome) = thread.join() else { anyhow::bail!("a connection's thread panicked") };
            let outcome = outcome?;
            total.bytes += outcome.bytes;
            total.requests += outcome.requests;
            total.latencies.extend(outcome.latencies);
            total.elapsed = total.elapsed.max(outcome.elapsed);
        }
        total.latencies.sort();
        Ok(total)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_cut_is_not_counted() {
        let batch = Batch::build(4096, 100).unwrap();
        let two: Vec<u8> = batch.bytes.iter().chain(&batch.bytes).copied().collect();
        let next_offset = Some(i64::from(batch.record_count));
        let one = WholeBatches { bytes: batch.bytes.len() as u64, next_offset };

        assert_eq!(whole_batches(&two[..two.len() - 1]).unwrap(), one);
        assert_eq!(whole_batches(&two[..batch.bytes.len() + 20]).unwrap(), one);
        assert_eq!(whole_batches(&[]).unwrap(), WholeBatches::default());
        assert_eq!(whole_batches(&two).unwrap().bytes, two.len() as u64);
    }
}
