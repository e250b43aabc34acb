//! A producer that does what Kafka's clients do, with nothing between the test and the bytes.
//!
//! Five requests are in flight on one connection, each with batches for several partitions. After a lost connection
//! or an error that asks for it, everything unacknowledged is sent again, in order and with the same sequences;
//! nothing new is sent before that. A plain session has no producer id and one request in flight.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::produce::{PartitionProduceResponse, ProduceResponse};
use highwater_record::{Codec, ProducerEpoch, ProducerId};

use super::batches::{Stamped, batch_of};
use super::client::{
    Connection, PRODUCE_VERSION, answers_of, is_lost_connection, name_of, produce_request, producer_at,
};
use super::gate::{Gate, Order, STUCK};
use super::history::{Call, Moment, Placed, Stamp};
use super::random::Random;

/// What librdkafka and the Java client allow an idempotent producer.
const IN_FLIGHT_MAX: usize = 5;
/// Keys of a session; each belongs to one partition.
const KEYS: u64 = 16;
/// The pause after an error that asks for a retry.
const BACKOFF: Duration = Duration::from_millis(20);

/// What a session sends where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    /// Largest size of a value, in bytes.
    pub(crate) value_bytes_max: u64,
}

/// Whether a session has a producer id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Idempotent,
    Plain,
}

/// What a session knows at its end.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) acked: Vec<Placed>,
    pub(crate) calls: Vec<Call>,
    pub(crate) unknown: Vec<Stamp>,
}

/// A batch on its way.
#[derive(Clone, Debug)]
struct Pending {
    partition: i32,
    /// Key and stamp of each record.
    records: Vec<(u32, Stamp)>,
    bytes: Bytes,
    /// When it was made, which is just before it is sent for the first time.
    made_at: Moment,
}

impl Pending {
    /// The place in the order of sending.
    fn order(&self) -> u32 {
        self.records.first().map_or(0, |(_, stamp)| stamp.counter)
    }
}

struct InFlight {
    correlation_id: i32,
    batches: Vec<Pending>,
}

/// One producer.
pub(crate) struct Session {
    id: u32,
    kind: Kind,
    plan: Plan,
    gate: Arc<Gate>,
    random: Random,
    producer: Option<(ProducerId, ProducerEpoch)>,
    next_sequences: Vec<i32>,
    next_counter: u32,
    in_flight: VecDeque<InFlight>,
    /// What must be sent again before anything new.
    again: VecDeque<Pending>,
    /// What was refused and will be sent again, when nothing is in flight any more.
    failed: Vec<Pending>,
    sent: Sent,
}

impl Session {
    /// A session that has sent nothing.
    pub(crate) fn new(id: u32, kind: Kind, plan: Plan, gate: Arc<Gate>, seed: u64) -> Self {
        let partitions = usize::try_from(plan.partitions).expect("counts are positive");
        Self {
            id,
            kind,
            plan,
            gate,
            random: Random::new(seed),
            producer: None,
            next_sequences: vec![0; partitions],
            next_counter: 0,
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            failed: Vec::new(),
            sent: Sent::default(),
        }
    }

    /// Produces until the gate says otherwise.
    pub(crate) fn run(mut self) -> anyhow::Result<Sent> {
        let result = self.produce_through_restarts();
        if result.is_err() {
            self.gate.fail();
        }
        result.with_context(|| format!("session {}", self.id))?;
        self.take_back();
        let unsettled = self.again.iter().flat_map(|batch| &batch.records).map(|(_, stamp)| *stamp);
        self.sent.unknown.extend(unsettled);
        Ok(self.sent)
    }

    fn produce_through_restarts(&mut self) -> anyhow::Result<()> {
        loop {
            let incarnation = self.gate.incarnation();
            let connected = Connection::watched(self.plan.address, &self.gate);
            let reached = connected.is_ok();
            match connected.and_then(|connection| self.produce(connection)) {
                Ok(()) => return Ok(()),
                Err(error) if !is_lost_connection(&error) => return Err(error.into()),
                Err(_) => {}
            }
            self.take_back();
            if self.gate.order() == Order::Abandon {
                return Ok(());
            }
            // A connection that was established may have been cut by the kill itself: try soon.
            let is_down = !reached || self.gate.is_dark();
            if !self.gate.wait_past(incarnation, if is_down { STUCK } else { BACKOFF }) && is_down {
                bail!("the broker is not reachable and was not started again within {STUCK:?}");
            }
        }
    }

    /// Produces on one connection until the end or until it breaks.
    fn produce(&mut self, mut connection: Connection) -> io::Result<()> {
        if self.kind == Kind::Idempotent && self.producer.is_none() {
            self.producer = Some(connection.init_producer()?);
        }
        while self.gate.order() != Order::Abandon {
            self.gate.wait_while_frozen();
            if self.in_flight.is_empty() {
                self.take_back();
                self.gate.wait_for_room();
            }
            self.fill_window(&mut connection)?;
            if self.in_flight.is_empty() {
                if self.gate.order() == Order::Produce {
                    // Another session took the room.
                    continue;
                }
                break;
            }
            self.gate.wait_while_frozen();
            let (correlation_id, response) = connection.receive::<ProduceResponse>(PRODUCE_VERSION)?;
            self.settle(correlation_id, response)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{error:#}")))?;
        }
        Ok(())
    }

    /// Sends as much as may be in flight: first what is sent again, alone, then what is new.
    fn fill_window(&mut self, connection: &mut Connection) -> io::Result<()> {
        let window = match self.kind {
            Kind::Idempotent => IN_FLIGHT_MAX,
            Kind::Plain => 1,
        };
        // After a failed batch nothing is sent until all that was in flight is answered.
        while self.failed.is_empty() && self.in_flight.len() < window {
            let batches = match self.again.pop_front() {
                Some(batch) => vec![batch],
                None if self.gate.wants_more() => self.next_batches(),
                None => break,
            };
            let request = produce_request(
                &self.plan.topic,
                batches.iter().map(|batch| (batch.partition, batch.bytes.clone())),
            );
            // In flight before it is sent: a connection that breaks may have carried it over.
            let correlation_id = connection.next_correlation_id();
            self.in_flight.push_back(InFlight { correlation_id, batches });
            connection.send(PRODUCE_VERSION, &request)?;
        }
        Ok(())
    }

    /// Takes up an answer.
    fn settle(&mut self, correlation_id: i32, response: ProduceResponse) -> anyhow::Result<()> {
        let request = self.in_flight.pop_front().context("an answer that nobody waits for")?;
        ensure!(request.correlation_id == correlation_id, "answers come out of order");
        let answers = answers_of(response);
        ensure!(answers.len() == request.batches.len(), "the answer speaks of other partitions");
        for batch in request.batches {
            let answer = answers.iter().find(|answer| answer.index == batch.partition);
            self.settle_batch(batch, answer.context("the answer leaves out a partition")?)?;
        }
        Ok(())
    }

    fn settle_batch(&mut self, batch: Pending, answer: &PartitionProduceResponse) -> anyhow::Result<()> {
        if answer.error_code == ErrorCode::None.code() {
            let answered_at = self.gate.moment();
            self.gate.count_acked(batch.records.len() as u64);
            let before = self.sent.acked.len();
            for (delta, (key, stamp)) in batch.records.iter().enumerate() {
                self.sent.acked.push(Placed {
                    partition: batch.partition,
                    offset: answer.base_offset + delta as i64,
                    key: *key,
                    stamp: Some(*stamp),
                });
            }
            let first = self.sent.acked[before..].first().copied();
            self.sent.calls.extend(first.map(|first| Call { first, sent_at: batch.made_at, answered_at }));
            return Ok(());
        }
        let earlier_failed = self
            .failed
            .iter()
            .any(|other| other.partition == batch.partition && other.order() < batch.order());
        if !asks_for_a_retry(answer.error_code, earlier_failed) {
            let last_acked = self.sent.acked.iter().rev().find(|record| record.partition == batch.partition);
            bail!(
                "partition {} answers {} to {} records from {}: {:?}; restarts so far: {}, acknowledged last: {}",
                batch.partition,
                name_of(answer.error_code),
                batch.records.len(),
                batch.order(),
                answer.error_message.as_deref().unwrap_or_default(),
                self.gate.incarnation(),
                last_acked.map(ToString::to_string).unwrap_or_default(),
            );
        }
        self.failed.push(batch);
        self.gate.wait_past(self.gate.incarnation(), BACKOFF);
        Ok(())
    }

    /// Lines up everything unacknowledged to be sent again, in the order in which it was first sent.
    fn take_back(&mut self) {
        self.again.extend(self.in_flight.drain(..).flat_map(|request| request.batches));
        self.again.extend(self.failed.drain(..));
        self.again.make_contiguous().sort_by_key(Pending::order);
    }

    /// New batches for one request: one to all partitions, one to eight records each.
    fn next_batches(&mut self) -> Vec<Pending> {
        let first = self.random.below(self.plan.partitions as u64);
        let count = 1 + self.random.below(self.plan.partitions as u64);
        let partitions = (first..first + count).map(|index| (index % self.plan.partitions as u64) as i32);
        partitions.collect::<Vec<_>>().into_iter().map(|partition| self.next_batch(partition)).collect()
    }

    fn next_batch(&mut self, partition: i32) -> Pending {
        let count = 1 + self.random.below(8) as i32;
        let sequence = &mut self.next_sequences[partition as usize];
        let producer = self.producer.map(|producer| producer_at(producer, *sequence));
        *sequence += count;
        let codec = *self.random.choose(&[Codec::None, Codec::None, Codec::Lz4, Codec::Zstd]);
        let mut records = Vec::new();
        for _ in 0..count {
            let stamp = Stamp { session: self.id, counter: self.next_counter };
            self.next_counter += 1;
            let key = (self.random.below(KEYS) * self.plan.partitions as u64) as u32 + partition as u32;
            let value_bytes = self.random.below(self.plan.value_bytes_max) as usize;
            records.push(Stamped { key, stamp, value_bytes });
        }
        let bytes = batch_of(codec, producer, &records);
        let records = records.iter().map(|record| (record.key, record.stamp)).collect();
        Pending { partition, records, bytes, made_at: self.gate.moment() }
    }
}

/// Whether Kafka's clients would send the batch again.
fn asks_for_a_retry(code: i16, earlier_failed: bool) -> bool {
    match ErrorCode::from_code(code) {
        Some(
            ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::KafkaStorageError
            | ErrorCode::RequestTimedOut,
        ) => true,
        // The batch before it failed, so this one could not fit.
        Some(ErrorCode::OutOfOrderSequenceNumber) => earlier_failed,
        _ => false,
    }
}
