//! Sending records: batches per partition, in order, each record once.
//!
//! [`Producer::send`] puts a record into the open batch of its partition; a task per partition sends the batches, up to
//! five in flight, and repeats what may not have arrived. With acks all the producer is idempotent: the broker drops
//! repetitions by their sequence, so that order and count hold. Without, one batch is in flight at a time: order
//! holds, but a repeated batch may be there twice.
//!
//! Each partition has a producer id of its own, so that a refused batch costs only its own partition a new one.
//! A refused batch is not split; what it held is reported with the broker's reason.
//!
//! Not here: transactions; and a new start after the broker forgot an idempotent producer (Kafka before 2.4 does that
//! to those that were idle for a week), which is reported instead.

mod queue;
mod sender;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_record::{BuildError, Codec, NewRecord, Offset, PartitionId, TopicName, TopicPartition};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::partitioner::{Sticky, partition_of_key};
use crate::retry::Backoff;
use crate::{BrokerError, Client, ClientError};
use queue::Queue;

/// Most batches in flight per partition for which brokers keep the sequences.
const IN_FLIGHT_MAX: usize = 5;
/// What a record costs beyond its key, value and headers; keeps a flood of empty records bounded too.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Whose having the records counts as having them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acks {
    /// Nobody's: the broker does not answer and loss goes unseen.
    None,
    /// The leader's.
    Leader,
    /// All in-sync replicas'.
    All,
}

impl Acks {
    const fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

type OnRetry = dyn Fn(&TopicPartition, &ClientError) + Send + Sync;

/// Who is told when something must be tried again, the first time since it went well: a producer tries for minutes.
#[derive(Clone)]
pub struct RetryObserver(Arc<OnRetry>);

impl RetryObserver {
    /// Calls `tell` with the partition and with what went wrong. It must not block.
    pub fn new(tell: impl Fn(&TopicPartition, &ClientError) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl std::fmt::Debug for RetryObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryObserver").finish_non_exhaustive()
    }
}

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// What an acknowledgement means.
    pub acks: Acks,
    /// How batches are compressed.
    pub codec: Codec,
    /// A batch is closed at this many bytes before compression. A larger record has a batch of its own.
    pub batch_bytes: usize,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// Most bytes that wait or are in flight; [`Producer::send`] waits when they are used up.
    pub buffer_bytes: usize,
    /// How long a batch is tried, from its first record on.
    pub delivery_timeout: Duration,
    /// Whether brokers may create topics that do not exist.
    pub create_topics: bool,
    /// Who is told of a first retry, if anybody.
    pub on_retry: Option<RetryObserver>,
}

impl Default for ProducerConfig {
    /// Acks all, no compression, batches of 1,000,000 bytes that wait 5 ms, 32 MiB of buffer, two minutes of trying,
    /// no creation of topics, nobody told of retries.
    fn default() -> Self {
        Self {
            acks: Acks::All,
            codec: Codec::None,
            batch_bytes: 1_000_000,
            linger: Duration::from_millis(5),
            buffer_bytes: 32 << 20,
            delivery_timeout: Duration::from_mins(2),
            create_topics: false,
            on_retry: None,
        }
    }
}

/// A record and the partition that it must go to, if any.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingRecord<'a> {
    /// The partition; without one the key decides, without a key it is one after another.
    pub partition: Option<PartitionId>,
    /// The record.
    pub record: NewRecord<'a>,
}

/// Why a record was not taken.
#[derive(Debug, Error)]
pub enum SendError {
    /// The topic cannot be described.
    #[error("topic {topic}: {source}")]
    Topic {
        /// The topic.
        topic: TopicName,
        /// Why not.
        source: ClientError,
    },
    /// There is no such partition.
    #[error("topic {topic} has partitions 0 to {}, not {partition}", .count - 1)]
    NoPartition {
        /// The topic.
        topic: TopicName,
        /// The partition asked for.
        partition: PartitionId,
        /// How many there are.
        count: i32,
    },
    /// The record fits no batch.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The partition gave up on earlier records.
    #[error("{0}")]
    Failed(ProduceError),
}

/// Why a record was not acknowledged.
#[derive(Clone, Debug, Error)]
pub enum ProduceError {
    /// The broker refuses the batch for good.
    #[error("{partition} refuses a batch of {records} records and {bytes} bytes: {source}")]
    Refused {
        /// The partition.
        partition: TopicPartition,
        /// Records in the batch.
        records: u32,
        /// Size of the batch as it was sent.
        bytes: usize,
        /// The answer.
        source: BrokerError,
    },
    /// The broker does not know the sequence that it acknowledged before.
    #[error(
        "{partition} has lost track of this producer ({source}): records that it acknowledged earlier may be gone; \
         what was not acknowledged is not sent again"
    )]
    Forgotten {
        /// The partition.
        partition: TopicPartition,
        /// The answer.
        source: BrokerError,
    },
    /// The time for trying is up. The records may be there.
    #[error("{partition} did not acknowledge within {after:.0?}: {last}")]
    Expired {
        /// The partition.
        partition: TopicPartition,
        /// How long it was tried.
        after: Duration,
        /// The last reason.
        last: ClientError,
    },
    /// The leader cannot be talked to at all.
    #[error("{partition}: {source}")]
    Client {
        /// The partition.
        partition: TopicPartition,
        /// Why not.
        source: ClientError,
    },
    /// The answer does not speak of the partition.
    #[error("{partition} is missing in the broker's answer")]
    Unanswered {
        /// The partition.
        partition: TopicPartition,
    },
    /// The batch cannot be built.
    #[error("{partition}: {message}")]
    Build {
        /// The partition.
        partition: TopicPartition,
        /// Why not.
        message: String,
    },
    /// The producer was dropped first.
    #[error("the producer ended before the record was acknowledged")]
    Abandoned,
}

/// Where a record went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acked {
    /// The partition.
    pub partition: TopicPartition,
    /// Its offset; `None` with acks 0, and for a repetition that the broker knows only to be one.
    pub offset: Option<Offset>,
}

/// What a batch came to: the offset of its first record.
type Outcome = Result<Option<Offset>, ProduceError>;

/// A record on its way.
#[derive(Clone, Debug)]
pub struct Delivery {
    partition: TopicPartition,
    index: u32,
    batch: watch::Receiver<Option<Outcome>>,
}

impl Delivery {
    /// Waits until the record is acknowledged or given up.
    ///
    /// # Errors
    ///
    /// If it was given up.
    pub async fn wait(mut self) -> Result<Acked, ProduceError> {
        let outcome = match self.batch.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        let base = outcome.unwrap_or(Err(ProduceError::Abandoned))?;
        let offset = base.map(|base| base.advance(self.index.into()));
        Ok(Acked { partition: self.partition, offset })
    }
}

/// What was sent to one partition.
#[derive(Clone, Debug)]
pub struct PartitionSummary {
    /// The partition.
    pub partition: TopicPartition,
    /// Records acknowledged; with acks 0, records sent.
    pub records: u64,
    /// Offset of the first of them, if known.
    pub first: Option<Offset>,
    /// Offset of the last of them, if known.
    pub last: Option<Offset>,
    /// Records given up.
    pub failed: u64,
    /// Why the first of them was.
    pub error: Option<ProduceError>,
}

/// Sends records.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    config: Arc<ProducerConfig>,
    buffer: Arc<Semaphore>,
    queues: Mutex<HashMap<TopicPartition, Arc<Queue>>>,
    sticky: Mutex<HashMap<TopicName, Sticky>>,
    senders: Mutex<JoinSet<()>>,
}

impl Producer {
    /// A producer that has not asked anybody anything yet.
    ///
    /// # Panics
    ///
    /// If the buffer is smaller than 1 byte or larger than a semaphore can count (2^61 bytes).
    pub fn new(client: Client, config: ProducerConfig) -> Self {
        assert!(config.buffer_bytes > 0, "a producer needs a buffer");
        Self {
            client,
            buffer: Arc::new(Semaphore::new(config.buffer_bytes)),
            config: Arc::new(config),
            queues: Mutex::new(HashMap::new()),
            sticky: Mutex::new(HashMap::new()),
            senders: Mutex::new(JoinSet::new()),
        }
    }

    /// Takes a record. Waits while the buffer is full; does not wait for the acknowledgement.
    ///
    /// # Errors
    ///
    /// If the topic or the partition does not exist, or the partition has given up.
    pub async fn send(
        &self,
        topic: &TopicName,
        outgoing: &OutgoingRecord<'_>,
    ) -> Result<Delivery, SendError> {
        let record = &outgoing.record;
        let bytes = record_bytes(record);
        let count = self.partition_count(topic).await?;
        let partition = match (outgoing.partition, record.key) {
            (Some(partition), _) if partition.get() >= count => {
                return Err(SendError::NoPartition { topic: topic.clone(), partition, count });
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, count),
            (None, None) => self.next_sticky(topic, bytes, count),
        };
        let queue = self.queue(TopicPartition { topic: topic.clone(), partition });
        let permits = bytes.min(self.config.buffer_bytes).min(u32::MAX as usize) as u32;
        let permit = match Arc::clone(&self.buffer).try_acquire_many_owned(permits) {
            Ok(permit) => permit,
            Err(_) => {
                // Batches that linger hold what this record waits for.
                self.close_batches();
                let acquired = Arc::clone(&self.buffer).acquire_many_owned(permits).await;
                acquired.map_err(|_| SendError::Failed(ProduceError::Abandoned))?
            }
        };
        queue.append(record, permit, &self.config)
    }

    /// Sends what is open without waiting for more, and waits until all is acknowledged or given up.
    pub async fn flush(&self) {
        self.close_batches();
        let all = self.config.buffer_bytes.min(u32::MAX as usize) as u32;
        // What is on its way holds a part of the buffer.
        let _ = self.buffer.acquire_many(all).await;
    }

    /// Whether some record was given up.
    pub fn has_failed(&self) -> bool {
        lock(&self.queues).values().any(|queue| queue.has_failed())
    }

    /// What was sent so far, by partition.
    pub fn summary(&self) -> Vec<PartitionSummary> {
        let mut summary: Vec<_> = lock(&self.queues).values().map(|queue| queue.summary()).collect();
        summary.sort_by(|a, b| a.partition.cmp(&b.partition));
        summary
    }

    /// Sends everything, waits for it and ends.
    pub async fn finish(self) -> Vec<PartitionSummary> {
        for queue in lock(&self.queues).values() {
            queue.finish();
        }
        let mut senders = std::mem::take(&mut *lock(&self.senders));
        while senders.join_next().await.is_some() {}
        self.summary()
    }

    fn close_batches(&self) {
        for queue in lock(&self.queues).values() {
            queue.close_batch();
        }
    }

    fn queue(&self, partition: TopicPartition) -> Arc<Queue> {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(&partition) {
            return Arc::clone(queue);
        }
        let queue = Arc::new(Queue::new(partition.clone()));
        let sender = sender::run(self.client.clone(), Arc::clone(&self.config), Arc::clone(&queue));
        lock(&self.senders).spawn(sender);
        queues.insert(partition, Arc::clone(&queue));
        queue
    }

    fn next_sticky(&self, topic: &TopicName, bytes: usize, count: i32) -> PartitionId {
        let mut sticky = lock(&self.sticky);
        // The hasher's keys are random per process.
        let seed = || RandomState::new().hash_one(topic.as_str()) as u32;
        sticky.entry(topic.clone()).or_insert_with(|| Sticky::new(seed())).next(
            bytes,
            self.config.batch_bytes,
            count,
        )
    }

    async fn partition_count(&self, topic: &TopicName) -> Result<i32, SendError> {
        let known = |cluster: &crate::Cluster| {
            let count = cluster.topic(topic)?.partitions.len();
            i32::try_from(count).ok().filter(|count| *count > 0)
        };
        if let Some(count) = known(&self.client.cluster()) {
            return Ok(count);
        }
        let mut backoff = Backoff::until(Instant::now() + self.client.config().retry_for);
        let topics = std::slice::from_ref(topic);
        loop {
            let described = match self.config.create_topics {
                true => self.client.describe_or_create(topics).await,
                false => self.client.describe(topics).await,
            };
            let source = match described {
                Ok(cluster) => match (known(&cluster), cluster.topics.get(topic)) {
                    (Some(count), _) => return Ok(count),
                    (None, Some(Err(error))) => ClientError::Broker(error.clone()),
                    (None, _) => {
                        let partition = TopicPartition { topic: topic.clone(), partition: PartitionId::ZERO };
                        ClientError::NoLeader { partition }
                    }
                },
                Err(error) => error,
            };
            // A topic that nobody is going to create will not appear.
            let hopeless = !self.config.create_topics
                && matches!(&source, ClientError::Broker(error)
                    if error.is(highwater_protocol::ErrorCode::UnknownTopicOrPartition));
            if hopeless || !source.is_retriable() || !backoff.pause().await {
                return Err(SendError::Topic { topic: topic.clone(), source });
            }
        }
    }
}

fn record_bytes(record: &NewRecord<'_>) -> usize {
    let headers = record.headers.iter().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len));
    RECORD_OVERHEAD_BYTES
        + record.key.map_or(0, <[u8]>::len)
        + record.value.map_or(0, <[u8]>::len)
        + headers.sum::<usize>()
}

/// Nothing panics while these locks are held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
