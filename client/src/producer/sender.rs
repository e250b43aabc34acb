//! The sender of one partition: a window of batches in flight, acknowledged from the front.
//!
//! Invariants:
//! 1. The batches of the window have consecutive sequences, and the front is the oldest without an acknowledgement.
//! 2. A batch is sent again only when no other batch of the window is in flight any more; then all without an answer
//!    are sent again, in order. A batch behind one that the broker did not take is out of sequence, so it was not
//!    taken either; one that was taken is recognised by its sequence.
//!    Not so the first batch of a producer id: a broker that knows nothing of it begins with any sequence. So until
//!    one is acknowledged, one is in flight.
//! 3. A new producer id is taken only after the broker refused the front for good: nothing behind it was taken.
//!    When it is not known whether the front was taken, the partition gives up instead.

use std::collections::VecDeque;
use std::future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::api::produce::{PartitionProduceData, TopicProduceData};
use highwater_protocol::api::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use highwater_protocol::{ErrorCode, wire};
use highwater_record::{
    BatchHeader, HEADER_BYTES, Offset, Producer as ProducerFields, ProducerEpoch, ProducerId, Sequence,
    TopicPartition,
};
use tokio::time::{Instant, sleep_until};

use super::queue::{Batch, Next, Queue, Receipt};
use super::{Acks, IN_FLIGHT_MAX, ProduceError, ProducerConfig, RetryObserver};
use crate::client::Lane;
use crate::retry::Backoff;
use crate::{BrokerError, Client, ClientError};

/// The newest Produce version in use: from 13 on topics are named by id.
const PRODUCE_VERSION_MAX: i16 = 12;

type Answer = Result<ProduceResponse, ClientError>;
type Flight = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Sends the batches of `queue` until it ends or gives up.
pub(super) async fn run(client: Client, config: Arc<ProducerConfig>, queue: Arc<Queue>) {
    let mut sender = Sender {
        link: Link { partition: queue.partition(), client, config },
        queue,
        window: VecDeque::new(),
        identity: None,
        next_sequence: Sequence::ZERO,
        is_known: false,
        backoff: None,
    };
    if let Err(error) = sender.send_all().await {
        for sent in std::mem::take(&mut sender.window) {
            sender.queue.complete(sent.receipt, Err(error.clone()));
        }
        sender.queue.give_up(&error);
    }
}

struct Sender {
    link: Link,
    queue: Arc<Queue>,
    window: VecDeque<Sent>,
    identity: Option<(ProducerId, ProducerEpoch)>,
    next_sequence: Sequence,
    /// The broker has taken a batch of this identity, so that it takes none out of sequence.
    is_known: bool,
    /// The pauses since the last acknowledgement, if something went wrong since.
    backoff: Option<Backoff>,
}

/// The way to the leader of the partition.
struct Link {
    partition: TopicPartition,
    client: Client,
    config: Arc<ProducerConfig>,
}

/// A batch of the window.
struct Sent {
    bytes: Bytes,
    receipt: Receipt,
    deadline: Instant,
    flight: Option<Flight>,
    /// Acknowledged before the front was; the offset if it is known.
    taken: Option<Option<Offset>>,
}

/// What an answer means for the batch.
enum Verdict {
    /// It is there.
    Taken(Option<Offset>),
    /// Not now.
    Retry(ClientError),
    /// Never.
    Refused(BrokerError),
    /// Nothing that can be gone on with.
    Fatal(ProduceError),
}

impl Sender {
    async fn send_all(&mut self) -> Result<(), ProduceError> {
        loop {
            let next = self.fill().await?;
            if matches!(next, Next::End) && self.window.is_empty() {
                return Ok(());
            }
            if self.window.front().is_some_and(|front| front.taken.is_some()) {
                self.acknowledge_front();
                continue;
            }
            let due = match next {
                Next::Later(due) => Some(due),
                _ => None,
            };
            let answer = {
                let flight = self.window.front_mut().and_then(|front| front.flight.as_mut());
                tokio::select! {
                    answer = optional(flight) => answer,
                    () = self.queue.woken() => continue,
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
                }
            };
            self.judge_front(answer).await?;
        }
    }

    /// Puts as many batches in flight as the window and the queue allow.
    async fn fill(&mut self) -> Result<Next, ProduceError> {
        self.launch_waiting().await;
        let room = match self.link.config.acks {
            Acks::All => IN_FLIGHT_MAX,
            Acks::Leader | Acks::None => 1,
        };
        while self.window.len() < room {
            match self.queue.next(Instant::now(), self.link.config.linger) {
                Next::Batch(batch) => self.enter(*batch).await?,
                next => return Ok(next),
            }
        }
        Ok(Next::Nothing)
    }

    async fn enter(&mut self, batch: Batch) -> Result<(), ProduceError> {
        let Batch { mut builder, born, receipt } = batch;
        let deadline = born + self.link.config.delivery_timeout;
        if self.link.config.acks == Acks::All {
            match self.fields(deadline).await {
                Ok(fields) => builder = builder.producer(fields),
                Err(error) => {
                    self.queue.complete(receipt, Err(error.clone()));
                    return Err(error);
                }
            }
            self.next_sequence = self.next_sequence.advance(receipt.records());
        }
        let bytes = match builder.build() {
            Ok(bytes) => bytes,
            Err(error) => {
                let error = ProduceError::Build {
                    partition: self.link.partition.clone(),
                    message: error.to_string(),
                };
                self.queue.complete(receipt, Err(error.clone()));
                return Err(error);
            }
        };
        self.window.push_back(Sent { bytes, receipt, deadline, flight: None, taken: None });
        self.launch_waiting().await;
        Ok(())
    }

    /// Puts in flight what is not, in order: one batch only until the broker knows the producer.
    async fn launch_waiting(&mut self) {
        let one_at_a_time = self.link.config.acks == Acks::All && !self.is_known;
        for sent in self.window.iter_mut().filter(|sent| sent.taken.is_none()) {
            if sent.flight.is_none() {
                sent.flight = Some(self.link.launch(sent.bytes.clone()).await);
            }
            if one_at_a_time {
                return;
            }
        }
    }

    /// The producer fields of the next batch; asks for a producer id if there is none.
    async fn fields(&mut self, deadline: Instant) -> Result<ProducerFields, ProduceError> {
        let mut backoff = Backoff::until(deadline);
        let mut told = false;
        let (id, epoch) = loop {
            if let Some(identity) = self.identity {
                break identity;
            }
            match self.link.ask_identity().await {
                Ok(identity) => {
                    self.identity = Some(identity);
                    self.next_sequence = Sequence::ZERO;
                    self.is_known = false;
                }
                Err(source) => {
                    if source.is_retriable() && !std::mem::replace(&mut told, true) {
                        self.link.tell(&source);
                    }
                    if !source.is_retriable() || !backoff.pause().await {
                        return Err(ProduceError::Client { partition: self.link.partition.clone(), source });
                    }
                }
            }
        };
        Ok(ProducerFields { id, epoch, base_sequence: Some(self.next_sequence) })
    }

    async fn judge_front(&mut self, answer: Answer) -> Result<(), ProduceError> {
        let verdict = self.verdict(answer);
        let Some(front) = self.window.front_mut() else { return Ok(()) };
        front.flight = None;
        match verdict {
            Verdict::Taken(offset) => {
                front.taken = Some(offset);
                self.is_known = true;
                self.backoff = None;
                self.acknowledge_front();
                Ok(())
            }
            Verdict::Retry(error) => self.repeat(error).await,
            Verdict::Refused(source) => self.drop_front(source).await,
            Verdict::Fatal(error) => Err(error),
        }
    }

    fn verdict(&self, answer: Answer) -> Verdict {
        let partition = || self.link.partition.clone();
        let answer = match answer {
            Ok(_) if self.link.config.acks == Acks::None => return Verdict::Taken(None),
            Ok(answer) => answer,
            Err(error) if error.is_retriable() => return Verdict::Retry(error),
            Err(source) => return Verdict::Fatal(ProduceError::Client { partition: partition(), source }),
        };
        let ours = answer
            .responses
            .iter()
            .filter(|topic| topic.name == self.link.partition.topic.as_str())
            .flat_map(|topic| &topic.partition_responses)
            .find(|response| response.index == self.link.partition.partition.get());
        let Some(ours) = ours else {
            return Verdict::Fatal(ProduceError::Unanswered { partition: partition() });
        };
        let Some(error) = BrokerError::from_answer(ours.error_code, ours.error_message.as_ref()) else {
            return Verdict::Taken(Offset::new(ours.base_offset));
        };
        match error.known() {
            Some(ErrorCode::DuplicateSequenceNumber) => Verdict::Taken(None),
            Some(
                ErrorCode::OutOfOrderSequenceNumber
                | ErrorCode::UnknownProducerId
                | ErrorCode::InvalidProducerEpoch
                | ErrorCode::InvalidProducerIdMapping
                | ErrorCode::ProducerFenced,
            ) => Verdict::Fatal(ProduceError::Forgotten { partition: partition(), source: error }),
            _ if error.is_retriable() => Verdict::Retry(error.into()),
            _ => Verdict::Refused(error),
        }
    }

    fn acknowledge_front(&mut self) {
        if let Some(Sent { receipt, taken: Some(offset), .. }) = self.window.pop_front() {
            self.queue.complete(receipt, Ok(offset));
        }
    }

    /// Waits until nothing of the window is in flight. What was taken is noted; errors behind the front follow from
    /// the front's.
    async fn settle(&mut self) {
        for index in 0..self.window.len() {
            let Some(flight) = self.window[index].flight.take() else { continue };
            let answer = flight.await;
            if let Verdict::Taken(offset) = self.verdict(answer) {
                self.window[index].taken = Some(offset);
            }
        }
    }

    /// Sends again what has no acknowledgement.
    async fn repeat(&mut self, error: ClientError) -> Result<(), ProduceError> {
        if self.backoff.is_none() {
            self.link.tell(&error);
        }
        self.settle().await;
        let Some(deadline) = self.window.front().map(|front| front.deadline) else { return Ok(()) };
        let mut backoff = *self.backoff.get_or_insert_with(|| Backoff::until(deadline));
        if Instant::now() >= deadline || !backoff.pause().await {
            let after = self.link.config.delivery_timeout;
            return Err(ProduceError::Expired { partition: self.link.partition.clone(), after, last: error });
        }
        self.backoff = Some(backoff);
        // If the cluster cannot be asked, the flights say so.
        let _ = self.link.client.describe(std::slice::from_ref(&self.link.partition.topic)).await;
        self.launch_waiting().await;
        Ok(())
    }

    /// Gives the front up and goes on with what follows, under a new producer id that leaves no gap.
    async fn drop_front(&mut self, source: BrokerError) -> Result<(), ProduceError> {
        self.settle().await;
        let Some(front) = self.window.pop_front() else { return Ok(()) };
        let error = ProduceError::Refused {
            partition: self.link.partition.clone(),
            records: front.receipt.records(),
            bytes: front.bytes.len(),
            source,
        };
        self.queue.complete(front.receipt, Err(error));
        if self.link.config.acks != Acks::All {
            return Ok(());
        }
        self.identity = None;
        for index in 0..self.window.len() {
            let sent = &self.window[index];
            if sent.taken.is_some() {
                continue;
            }
            let (deadline, records) = (sent.deadline, sent.receipt.records());
            let fields = self.fields(deadline).await?;
            self.next_sequence = self.next_sequence.advance(records);
            let sent = &mut self.window[index];
            sent.bytes = renumber(&sent.bytes, fields);
        }
        self.launch_waiting().await;
        Ok(())
    }
}

impl Link {
    /// Says that something is tried again.
    fn tell(&self, error: &ClientError) {
        if let Some(RetryObserver(tell)) = &self.config.on_retry {
            tell(&self.partition, error);
        }
    }

    async fn ask_identity(&self) -> Result<(ProducerId, ProducerEpoch), ClientError> {
        let connection = self.client.any_connection().await?;
        let version = connection.version::<InitProducerIdRequest>(i16::MAX)?;
        let request = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..Default::default() };
        let answer = connection.call(&request, version, Duration::ZERO).await.inspect_err(|_| {
            self.client.forget(&connection);
        })?;
        if let Some(error) = BrokerError::from_answer(answer.error_code, None) {
            // The answer has no room for a sentence, and this code is a broker's that changes nothing any more.
            let is_read_only = error.is(ErrorCode::PolicyViolation);
            let message = is_read_only.then(|| {
                "the broker gives out no producer ids: it is read-only; its log and /readyz say why"
                    .to_owned()
            });
            return Err(BrokerError { message, ..error }.into());
        }
        match (ProducerId::new(answer.producer_id), ProducerEpoch::new(answer.producer_epoch)) {
            (Some(id), Some(epoch)) => Ok((id, epoch)),
            _ => Err(BrokerError {
                code: ErrorCode::UnknownServerError.code(),
                message: Some("the broker answered without a producer id".to_owned()),
            }
            .into()),
        }
    }

    /// Sends a batch. What goes wrong comes out of the flight, so that it is judged in one place.
    async fn launch(&self, bytes: Bytes) -> Flight {
        let connection = match self.client.leader(&self.partition, Lane::Produce).await {
            Ok(connection) => connection,
            Err(error) => return Box::pin(future::ready(Err(error))),
        };
        let request = self.request(bytes);
        let client = self.client.clone();
        let started = async {
            let version = connection.version::<ProduceRequest>(PRODUCE_VERSION_MAX)?;
            if self.config.acks == Acks::None {
                connection.send(&request, version).await?;
                return Ok(None);
            }
            connection.start(&request, version, Duration::ZERO).await.map(Some)
        };
        match started.await {
            Ok(None) => Box::pin(future::ready(Ok(ProduceResponse::default()))),
            Ok(Some(pending)) => Box::pin(async move {
                pending.wait().await.map_err(|error| {
                    client.forget(&connection);
                    error.into()
                })
            }),
            Err(error) => {
                self.client.forget(&connection);
                Box::pin(future::ready(Err(error.into())))
            }
        }
    }

    fn request(&self, bytes: Bytes) -> ProduceRequest {
        let data = PartitionProduceData {
            index: self.partition.partition.get(),
            records: wire::Records::Bytes(bytes),
        };
        let topic = TopicProduceData {
            name: self.partition.topic.as_str().into(),
            partition_data: vec![data],
            ..TopicProduceData::default()
        };
        let timeout = self.client.config().connection.request_timeout;
        ProduceRequest {
            transactional_id: None,
            acks: self.config.acks.wire(),
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![topic],
        }
    }
}

/// The same batch from another producer.
fn renumber(batch: &[u8], producer: ProducerFields) -> Bytes {
    let mut header = BatchHeader::parse(batch).expect("this sender built the batch");
    header.producer = Some(producer);
    header.crc = header.compute_crc(&batch[HEADER_BYTES..]);
    let mut bytes = batch.to_vec();
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    bytes.into()
}

/// The answer of a flight; never, if there is none.
async fn optional(flight: Option<&mut Flight>) -> Answer {
    match flight {
        Some(flight) => flight.await,
        None => future::pending().await,
    }
}
