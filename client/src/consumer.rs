//! Reading partitions by offset: long polls to every leader, batches checked and decompressed within limits.
//!
//! A consumer is told where to start and never decides it: an offset that is gone is an error with the numbers, not a
//! silent jump. One fetch per leader is in flight; the next one starts before the records of the last are handed out.
//! Control batches are skipped. Not here: groups, fetch sessions, committed-only reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::api::fetch::{FetchPartition, FetchTopic, PartitionData};
use highwater_protocol::api::{FetchRequest, FetchResponse};
use highwater_protocol::{ErrorCode, wire};
use highwater_record::{
    Batch, BatchError, BatchHeader, CodecError, DecodeLimits, HeaderError, Offset, Record, RecordError,
    RecordsBuf, TopicName, TopicPartition,
};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::Lane;
use crate::retry::Backoff;
use crate::{Address, BrokerError, Client, ClientError, Connection, ListOffsetsError, OffsetQuery};

/// The newest Fetch version in use: from 13 on topics are named by id.
const FETCH_VERSION_MAX: i16 = 12;

/// How a consumer reads.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// How long a broker holds a fetch that finds too little.
    pub max_wait: Duration,
    /// Bytes that end the wait.
    pub min_bytes: i32,
    /// Most bytes of one answer; a first batch may exceed it.
    pub fetch_bytes: i32,
    /// Most bytes of one partition in an answer; a first batch may exceed it.
    pub partition_bytes: i32,
    /// How far a batch may be decompressed.
    pub limits: DecodeLimits,
}

impl Default for ConsumerConfig {
    /// Waits 500 ms for a byte, takes 16 MiB and 4 MiB of one partition, decompresses a batch to 256 MiB and a
    /// thousandfold at most.
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            fetch_bytes: 16 << 20,
            partition_bytes: 4 << 20,
            limits: DecodeLimits { bytes_max: 256 << 20, ratio_max: 1000 },
        }
    }
}

/// What was read of one partition.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The end of what consumers may read.
    pub high_watermark: i64,
    /// Below it no transaction is open; -1 if unknown.
    pub last_stable_offset: i64,
    /// The first offset of the log; -1 if unknown.
    pub log_start: i64,
    /// The offset that is read next.
    pub next: Offset,
    /// The batches in their order.
    pub batches: Vec<FetchedBatch>,
}

/// A batch that was read and decompressed.
#[derive(Clone, Debug)]
pub struct FetchedBatch {
    header: BatchHeader,
    from: Offset,
    records: RecordsBuf,
}

impl FetchedBatch {
    /// The header as the broker stored it.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records that were asked for. A batch may begin before the offset that was.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
        self.records.records().filter(|record| match record {
            Ok(record) => record.offset >= self.from,
            Err(_) => true,
        })
    }
}

/// Why a partition cannot be read.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The offset is not in the log.
    #[error("{partition} has offsets {start} to {end}, not {requested}")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        requested: Offset,
        /// First offset of the log.
        start: Offset,
        /// The end of what consumers may read.
        end: Offset,
    },
    /// The records at the offset, and perhaps behind it, are lost: a file of the broker is damaged.
    #[error(
        "{partition} at offset {offset}: the records are lost, a file of the broker is damaged (CORRUPT_MESSAGE)"
    )]
    Lost {
        /// The partition.
        partition: TopicPartition,
        /// The offset that was to be read.
        offset: Offset,
    },
    /// The broker answers with an error that stays.
    #[error("{partition}: {source}")]
    Broker {
        /// The partition.
        partition: TopicPartition,
        /// The answer.
        source: BrokerError,
    },
    /// The leader cannot be asked within the time for trying again.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Neither can it be asked which offsets there are.
    #[error(transparent)]
    ListOffsets(#[from] ListOffsetsError),
    /// The bytes are no batch, or fail their checksum.
    #[error("{partition} at offset {offset}: {source}")]
    Batch {
        /// The partition.
        partition: TopicPartition,
        /// The offset that was to be read.
        offset: Offset,
        /// What is wrong.
        source: BatchError,
    },
    /// The batch cannot be decompressed.
    #[error("{partition} at offset {offset}: {source}")]
    Codec {
        /// The partition.
        partition: TopicPartition,
        /// The first offset of the batch.
        offset: Offset,
        /// What is wrong.
        source: CodecError,
    },
    /// The broker sends less than one batch, again and again.
    #[error(
        "{partition} at offset {offset}: the batch is {bytes} bytes long, the broker sent {sent} of them"
    )]
    Cut {
        /// The partition.
        partition: TopicPartition,
        /// The first offset of the batch.
        offset: Offset,
        /// Size of the batch.
        bytes: u32,
        /// How much of it came.
        sent: usize,
    },
}

/// Reads partitions from the offsets that it is given.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    positions: BTreeMap<TopicPartition, Offset>,
    flights: JoinSet<Landed>,
    /// The leaders that a fetch is under way to.
    asked: Vec<Address>,
    backoff: Option<Backoff>,
    /// What was read and is not handed out yet.
    ready: Vec<FetchedPartition>,
    /// A partition that could not be read, to be dealt with after what is ready.
    trouble: Option<Trouble>,
}

/// Why a partition gave nothing.
#[derive(Debug)]
struct Trouble {
    partition: TopicPartition,
    offset: Offset,
    fault: TroubleFault,
}

#[derive(Debug)]
enum TroubleFault {
    Answer(BrokerError),
    Bytes(FetchError),
}

/// A fetch that came back.
#[derive(Debug)]
struct Landed {
    leader: Address,
    requested: BTreeMap<TopicPartition, Offset>,
    answer: Result<FetchResponse, ClientError>,
}

impl Consumer {
    /// A consumer that reads nothing yet.
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        Self {
            client,
            config,
            positions: BTreeMap::new(),
            flights: JoinSet::new(),
            asked: Vec::new(),
            backoff: None,
            ready: Vec::new(),
            trouble: None,
        }
    }

    /// Reads `partition` from `offset` on.
    pub fn assign(&mut self, partition: TopicPartition, offset: Offset) {
        self.positions.insert(partition, offset);
    }

    /// Reads `partition` no more.
    pub fn unassign(&mut self, partition: &TopicPartition) {
        self.positions.remove(partition);
    }

    /// The offset that each partition is read from next.
    pub const fn positions(&self) -> &BTreeMap<TopicPartition, Offset> {
        &self.positions
    }

    /// What one leader has, at the latest after the longest wait; possibly nothing. Errors that pass are tried again.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// If a partition cannot be read. The others can be read on, and so can this one once it is assigned anew.
    pub async fn poll(&mut self) -> Result<Vec<FetchedPartition>, FetchError> {
        if !self.ready.is_empty() {
            return Ok(std::mem::take(&mut self.ready));
        }
        if let Some(trouble) = self.trouble.take() {
            return self.deal_with(trouble).await.map(|()| Vec::new());
        }
        if let Err(error) = self.launch().await {
            return self.absorb(error).await.map(|()| Vec::new());
        }
        let Some(Ok(landed)) = self.flights.join_next().await else { return Ok(Vec::new()) };
        self.asked.retain(|leader| *leader != landed.leader);
        let answer = match landed.answer {
            Ok(answer) => answer,
            Err(error) => return self.absorb(error).await.map(|()| Vec::new()),
        };
        if let Some(error) = BrokerError::from_answer(answer.error_code, None) {
            return self.absorb(error.into()).await.map(|()| Vec::new());
        }
        // No await between here and the last partition: what is read and where to read on change together.
        for topic in answer.responses {
            let Ok(name) = TopicName::new(&topic.topic) else { continue };
            for data in topic.partitions {
                let requested = landed
                    .requested
                    .iter()
                    .find(|(key, _)| key.topic == name && key.partition.get() == data.partition_index);
                // Partitions that were moved meanwhile are read again from where they are now.
                if let Some((partition, offset)) = requested
                    && self.positions.get(partition) == Some(offset)
                {
                    self.take(partition, *offset, &data);
                }
            }
        }
        if !self.ready.is_empty() {
            // The answer is at hand; what cannot be launched now is told by the next poll.
            let _ = self.launch().await;
        }
        Ok(std::mem::take(&mut self.ready))
    }

    /// Starts a fetch to every leader that none is under way to.
    async fn launch(&mut self) -> Result<(), ClientError> {
        let mut leaders: BTreeMap<Address, (Arc<Connection>, BTreeMap<TopicPartition, Offset>)> =
            BTreeMap::new();
        for (partition, offset) in &self.positions {
            let cluster = self.client.cluster();
            if cluster.leader(partition).is_some_and(|(_, address)| self.asked.contains(address)) {
                continue;
            }
            let connection = self.client.leader(partition, Lane::Fetch).await?;
            let leader = connection.address().clone();
            if self.asked.contains(&leader) {
                continue;
            }
            let (_, group) = leaders.entry(leader).or_insert_with(|| (connection, BTreeMap::new()));
            group.insert(partition.clone(), *offset);
        }
        for (leader, (connection, requested)) in leaders {
            let request = self.request(&requested);
            let (client, grant) = (self.client.clone(), self.config.max_wait);
            self.asked.push(leader.clone());
            self.flights.spawn(async move {
                let call = async {
                    let version = connection.version::<FetchRequest>(FETCH_VERSION_MAX)?;
                    connection.call(&request, version, grant).await
                };
                let answer = call.await.map_err(|error| {
                    client.forget(&connection);
                    ClientError::Call(error)
                });
                Landed { leader, requested, answer }
            });
        }
        Ok(())
    }

    fn request(&self, partitions: &BTreeMap<TopicPartition, Offset>) -> FetchRequest {
        let mut topics: BTreeMap<&TopicName, Vec<FetchPartition>> = BTreeMap::new();
        for (partition, offset) in partitions {
            topics.entry(&partition.topic).or_default().push(FetchPartition {
                partition: partition.partition.get(),
                fetch_offset: offset.get(),
                partition_max_bytes: self.config.partition_bytes,
                ..FetchPartition::default()
            });
        }
        let topics = topics.into_iter().map(|(name, partitions)| FetchTopic {
            topic: name.as_str().into(),
            partitions,
            ..FetchTopic::default()
        });
        FetchRequest {
            max_wait_ms: i32::try_from(self.config.max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.config.min_bytes,
            max_bytes: self.config.fetch_bytes,
            topics: topics.collect(),
            ..FetchRequest::default()
        }
    }

    fn take(&mut self, partition: &TopicPartition, offset: Offset, data: &PartitionData) {
        let empty = Bytes::new();
        let bytes = match &data.records {
            wire::Records::Bytes(bytes) => bytes,
            wire::Records::Null | wire::Records::Deferred { .. } => &empty,
        };
        let read = match BrokerError::from_answer(data.error_code, None) {
            Some(error) => Err(TroubleFault::Answer(error)),
            None => split(partition, offset, bytes, self.config.limits).map_err(TroubleFault::Bytes),
        };
        let (batches, next) = match read {
            Ok(read) => read,
            Err(fault) => {
                self.trouble = Some(Trouble { partition: partition.clone(), offset, fault });
                return;
            }
        };
        self.backoff = None;
        self.positions.insert(partition.clone(), next);
        self.ready.push(FetchedPartition {
            partition: partition.clone(),
            high_watermark: data.high_watermark,
            last_stable_offset: data.last_stable_offset,
            log_start: data.log_start_offset,
            next,
            batches,
        });
    }

    /// Waits a moment if the trouble may pass, else returns it.
    async fn deal_with(&mut self, trouble: Trouble) -> Result<(), FetchError> {
        let Trouble { partition, offset, fault } = trouble;
        // It may be about a place that is not read any more.
        if self.positions.get(&partition) != Some(&offset) {
            return Ok(());
        }
        let source = match fault {
            TroubleFault::Bytes(error) => return Err(error),
            TroubleFault::Answer(source) => source,
        };
        if source.is(ErrorCode::OffsetOutOfRange) {
            return Err(self.out_of_range(&partition, offset).await);
        }
        // Unlike a batch that is corrupt when it is sent, one that is corrupt when it is read stays so.
        if source.is(ErrorCode::CorruptMessage) {
            return Err(FetchError::Lost { partition, offset });
        }
        if !source.is_retriable() || !self.pause().await {
            return Err(FetchError::Broker { partition, source });
        }
        // If this fails, the next fetch says why.
        let _ = self.client.describe(std::slice::from_ref(&partition.topic)).await;
        Ok(())
    }

    /// The error with both ends of the log, which the answer does not name.
    async fn out_of_range(&self, partition: &TopicPartition, requested: Offset) -> FetchError {
        let look_up = |query| {
            let queries = BTreeMap::from([(partition.clone(), query)]);
            async move { self.client.list_offsets(&queries).await }
        };
        let found = async {
            let (start, end) = (look_up(OffsetQuery::Earliest).await?, look_up(OffsetQuery::Latest).await?);
            let of = |found: BTreeMap<_, _>| found.get(partition).copied().flatten().unwrap_or(Offset::ZERO);
            Ok((of(start), of(end)))
        };
        match found.await {
            Ok((start, end)) => {
                FetchError::OutOfRange { partition: partition.clone(), requested, start, end }
            }
            Err(error) => FetchError::ListOffsets(error),
        }
    }

    /// Waits a moment if `error` may pass, else returns it.
    async fn absorb(&mut self, error: ClientError) -> Result<(), FetchError> {
        if !error.is_retriable() || !self.pause().await {
            return Err(error.into());
        }
        let mut topics: Vec<TopicName> = self.positions.keys().map(|key| key.topic.clone()).collect();
        topics.dedup();
        // If this fails, the next fetch says why.
        let _ = self.client.describe(&topics).await;
        Ok(())
    }

    async fn pause(&mut self) -> bool {
        let deadline = Instant::now() + self.client.config().retry_for;
        self.backoff.get_or_insert_with(|| Backoff::until(deadline)).pause().await
    }
}

/// The batches in `bytes`, and the offset after them. A batch that is cut at the end is left for the next fetch.
fn split(
    partition: &TopicPartition,
    from: Offset,
    bytes: &Bytes,
    limits: DecodeLimits,
) -> Result<(Vec<FetchedBatch>, Offset), FetchError> {
    let mut next = from;
    let mut batches = Vec::new();
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let header = match BatchHeader::parse(&rest) {
            Ok(header) => header,
            Err(HeaderError::Short { .. }) if next > from => break,
            Err(source) => {
                let source = source.into();
                return Err(FetchError::Batch { partition: partition.clone(), offset: next, source });
            }
        };
        let size = header.size_bytes as usize;
        if size > rest.len() {
            if next > from {
                break;
            }
            let (offset, bytes) = (header.base_offset, header.size_bytes);
            return Err(FetchError::Cut { partition: partition.clone(), offset, bytes, sent: rest.len() });
        }
        let batch = Batch::new(rest.split_to(size)).map_err(|source| FetchError::Batch {
            partition: partition.clone(),
            offset: next,
            source,
        })?;
        if header.next_offset() <= next {
            continue;
        }
        if !header.attributes.is_control() {
            let records = batch.decompress(limits).map_err(|source| FetchError::Codec {
                partition: partition.clone(),
                offset: header.base_offset,
                source,
            })?;
            batches.push(FetchedBatch { header, from: next, records });
        }
        next = header.next_offset();
    }
    Ok((batches, next))
}
