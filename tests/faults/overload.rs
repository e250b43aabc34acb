//! Producers that offer more than a broker takes, by the clock and not by its answers, consumers that read what they can,
//! and the check that nothing acknowledged is lost or moved.
//!
//! A producer that the broker holds back falls behind its clock; what is late by more than its patience it gives up, as
//! Kafka's clients do. Knows nothing of memory.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use highwater_protocol::api::produce::ProduceResponse;
use highwater_record::Codec;

use crate::harness::metrics::livez;
use crate::harness::wait;

use super::batches::{Stamped, batch_of};
use super::client::{Connection, PRODUCE_VERSION, answers_of, name_of, produce_request};
use super::history::Stamp;
use super::reader::{placed, split};

/// How late a batch may be before it is given up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Requests in flight of a producer that goes by the answers.
const WINDOW: usize = 5;
/// The timestamp that asks for the start of a log.
const EARLIEST: i64 = -2;

/// Who is at work on which topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) address: SocketAddr,
    pub(crate) topic: &'static str,
    pub(crate) partitions: i32,
    /// Producers; there are half as many consumers.
    pub(crate) producers: u32,
    /// Bytes of a batch, which has one record.
    pub(crate) batch_bytes: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) offered: u64,
    /// Given up by their producers, never sent.
    pub(crate) expired: u64,
    /// Answered with a timeout: there or not.
    pub(crate) timed_out: u64,
    /// Where acknowledged batches are: the counters by partition and offset.
    pub(crate) acked: BTreeMap<(i32, i64), Stamp>,
    /// Bytes that consumers were given.
    pub(crate) read_bytes: u64,
    /// The longest that the broker took to say that it lives.
    pub(crate) slowest_livez: Duration,
}

impl Crowd {
    /// How many batches the broker acknowledges in a second while every producer goes by the answers.
    pub(crate) fn measure(&self, length: Duration) -> anyhow::Result<f64> {
        let producers: Vec<_> = (0..self.producers)
            .map(|id| {
                let crowd = *self;
                thread::spawn(move || crowd.closed_loop(id, length))
            })
            .collect();
        let mut acked = 0;
        for producer in producers {
            acked += join(producer)?;
        }
        Ok(acked as f64 / length.as_secs_f64())
    }

    fn closed_loop(&self, id: u32, length: Duration) -> anyhow::Result<u64> {
        let mut connection = Connection::open(self.address)?;
        let (began, mut sent, mut acked) = (Instant::now(), 0, 0);
        while began.elapsed() < length {
            connection.send(PRODUCE_VERSION, &self.request(id, sent))?;
            sent += 1;
            if sent as usize >= WINDOW {
                let (_, answer) = connection.receive::<ProduceResponse>(PRODUCE_VERSION)?;
                let answer = answers_of(answer).pop().context("the answer names the partition")?;
                ensure!(answer.error_code == 0, "a batch is answered {}", name_of(answer.error_code));
                acked += 1;
            }
        }
        Ok(acked)
    }

    /// Offers so many batches in a second for so long, while consumers read and somebody asks whether the broker lives.
    pub(crate) fn offer(&self, per_second: f64, length: Duration) -> anyhow::Result<Tally> {
        let is_over = Arc::new(AtomicBool::new(false));
        let interval = Duration::from_secs_f64(f64::from(self.producers) / per_second);
        // Other sessions than those that measured.
        let producers: Vec<_> = (0..self.producers)
            .map(|id| {
                let crowd = *self;
                thread::spawn(move || crowd.open_loop(crowd.producers + id, interval, length))
            })
            .collect();
        let read_bytes = Arc::new(AtomicU64::new(0));
        let consumers: Vec<_> = (0..self.producers.div_ceil(2))
            .map(|_| {
                let (crowd, is_over, read_bytes) = (*self, Arc::clone(&is_over), Arc::clone(&read_bytes));
                thread::spawn(move || crowd.consume(&is_over, &read_bytes))
            })
            .collect();
        let probe = thread::spawn({
            let (address, is_over) = (self.address, Arc::clone(&is_over));
            move || slowest_livez(address, &is_over)
        });
        let (mut tally, mut ended) = (Tally::default(), Ok(()));
        for producer in producers {
            match join(producer) {
                Ok(sent) => ended = ended.and(tally.add(sent)),
                Err(error) => ended = ended.and(Err(error)),
            }
        }
        is_over.store(true, Ordering::Release);
        for consumer in consumers {
            ended = ended.and(join(consumer));
        }
        tally.slowest_livez = join(probe)?;
        tally.read_bytes = read_bytes.load(Ordering::Relaxed);
        ended.map(|()| tally)
    }

    fn request(&self, session: u32, counter: u32) -> highwater_protocol::api::ProduceRequest {
        let record =
            Stamped { key: session, stamp: Stamp { session, counter }, value_bytes: self.batch_bytes };
        let partition = (session + counter) as i32 % self.partitions;
        produce_request(self.topic, [(partition, batch_of(Codec::None, None, &[record]))])
    }

    /// Sends by the clock; what is said to it is read beside.
    fn open_loop(&self, session: u32, interval: Duration, length: Duration) -> anyhow::Result<Tally> {
        let mut connection = Connection::open_patient(self.address)?;
        let (sent, awaited) = mpsc::channel();
        let mut listener = connection.twin()?;
        let answers = thread::spawn(move || listen(&mut listener, &awaited));
        let offered = self.send_by_the_clock(&mut connection, session, (interval, length), &sent);
        drop(sent);
        // Everything that was sent is answered before the connection goes.
        let answered = join(answers);
        connection.socket()?.shutdown(Shutdown::Both).ok();
        let (offered, expired) = offered?;
        Ok(Tally { offered, expired, ..answered? })
    }

    fn send_by_the_clock(
        &self,
        connection: &mut Connection,
        session: u32,
        (interval, length): (Duration, Duration),
        sent: &Sender<Stamp>,
    ) -> anyhow::Result<(u64, u64)> {
        let (began, mut expired) = (Instant::now(), 0);
        for counter in 0.. {
            let due = interval * counter;
            if due >= length {
                return Ok((u64::from(counter), expired));
            }
            match due.checked_sub(began.elapsed()) {
                Some(early) => wait::beat(early),
                None if began.elapsed() - due > PATIENCE => {
                    expired += 1;
                    continue;
                }
                None => {}
            }
            connection.send(PRODUCE_VERSION, &self.request(session, counter)).context("send a batch")?;
            sent.send(Stamp { session, counter }).map_err(|_| anyhow!("nobody listens to the answers"))?;
        }
        unreachable!("a load that is offered has an end")
    }

    /// Reads all partitions from their starts on, round and round, and compares every checksum.
    fn consume(&self, is_over: &AtomicBool, read_bytes: &AtomicU64) -> anyhow::Result<()> {
        let mut connection = Connection::open_patient(self.address)?;
        let mut positions = vec![0; self.partitions as usize];
        while !is_over.load(Ordering::Acquire) {
            let wanted: Vec<(i32, i64)> = (0..).zip(positions.iter().copied()).collect();
            for data in connection.poll(self.topic, &wanted)? {
                let position = &mut positions[data.partition_index as usize];
                match ErrorCode::from_code(data.error_code) {
                    Some(ErrorCode::None) => {}
                    // Retention was faster.
                    Some(ErrorCode::OffsetOutOfRange) => {
                        *position = earliest(&mut connection, self.topic, data.partition_index)?;
                        continue;
                    }
                    _ => anyhow::bail!("a consumer is answered {}", name_of(data.error_code)),
                }
                let bytes = data.records.bytes().cloned().unwrap_or_default();
                read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if let Some(last) = split(bytes)?.last() {
                    *position = last.header().next_offset().get();
                }
            }
        }
        Ok(())
    }

    /// Holds what is left of the log against what was acknowledged; how many batches were compared.
    pub(crate) fn check(&self, tally: &Tally) -> anyhow::Result<u64> {
        let mut connection = Connection::open(self.address)?;
        let mut compared = 0;
        for partition in 0..self.partitions {
            let (mut at, end) = (
                earliest(&mut connection, self.topic, partition)?,
                connection.latest_offset(self.topic, partition)?.context("the partition has an end")?,
            );
            let mut acked = tally.acked.range((partition, at)..=(partition, i64::MAX)).peekable();
            while at < end {
                let data = connection.fetch(self.topic, partition, at)?;
                ensure!(data.error_code == 0, "{partition}:{at} is answered {}", name_of(data.error_code));
                let batches = split(data.records.bytes().cloned().unwrap_or_default())?;
                ensure!(!batches.is_empty(), "nothing is served at {partition}:{at}");
                for record in batches.iter().map(|batch| placed(batch, partition)) {
                    let record = record?.pop().context("a batch has a record")?;
                    ensure!(record.offset == at, "{record} is served at {at}");
                    if let Some((_, stamp)) = acked.next_if(|(place, _)| place.1 == at) {
                        ensure!(record.stamp == Some(*stamp), "{record}: {stamp} was acknowledged there");
                        compared += 1;
                    }
                    at += 1;
                }
            }
            ensure!(acked.next().is_none(), "batches that were acknowledged lie beyond {partition}:{end}");
        }
        Ok(compared)
    }
}

impl Tally {
    fn add(&mut self, more: Self) -> anyhow::Result<()> {
        self.offered += more.offered;
        self.expired += more.expired;
        self.timed_out += more.timed_out;
        for (place, stamp) in more.acked {
            let other = self.acked.insert(place, stamp);
            ensure!(other.is_none(), "{place:?} was acknowledged to {stamp} and to {other:?}");
        }
        Ok(())
    }
}

/// Takes the answers in the order in which their batches were sent.
fn listen(connection: &mut Connection, awaited: &Receiver<Stamp>) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for stamp in awaited {
        let (_, answer) =
            connection.receive::<ProduceResponse>(PRODUCE_VERSION).context("wait for an answer")?;
        let answer = answers_of(answer).pop().context("the answer names the partition")?;
        match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => {
                tally.acked.insert((answer.index, answer.base_offset), stamp);
            }
            Some(ErrorCode::RequestTimedOut) => tally.timed_out += 1,
            _ => anyhow::bail!("a batch is answered {answer:?}"),
        }
    }
    Ok(tally)
}

fn earliest(connection: &mut Connection, topic: &str, partition_index: i32) -> anyhow::Result<i64> {
    let partition =
        ListOffsetsPartition { partition_index, timestamp: EARLIEST, ..ListOffsetsPartition::default() };
    let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    let response = connection.call(7, &request)?;
    let found = response.topics.first().and_then(|topic| topic.partitions.first());
    Ok(found.context("the answer names the partition")?.offset)
}

/// The longest that an answer from /livez took.
fn slowest_livez(address: SocketAddr, is_over: &AtomicBool) -> anyhow::Result<Duration> {
    let mut slowest = Duration::ZERO;
    while !is_over.load(Ordering::Acquire) {
        let asked = Instant::now();
        livez(address)?;
        slowest = slowest.max(asked.elapsed());
        wait::beat(Duration::from_millis(200));
    }
    Ok(slowest)
}

fn join<T>(thread: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("somebody panicked")))
}
