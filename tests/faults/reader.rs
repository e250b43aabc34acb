//! Reading partitions by Fetch, whole or as they grow.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use highwater_protocol::wire::Str;
use highwater_record::{Batch, BatchHeader, DecodeLimits, HEADER_BYTES};

use super::client::{Connection, name_of};
use super::history::{Placed, Stamp};

/// The newest version that names topics.
const FETCH_VERSION: i16 = 12;
/// How long a poll waits for records, in milliseconds.
const POLL_WAIT_MS: i32 = 250;
/// More than any batch of these tests grows to.
pub(crate) const LIMITS: DecodeLimits = DecodeLimits { bytes_max: 64 << 20, ratio_max: 10_000 };

impl Connection {
    /// Asks for one partition from `offset` on, without waiting for more than there is.
    pub(crate) fn fetch(&mut self, topic: &str, index: i32, offset: i64) -> std::io::Result<PartitionData> {
        let partition = FetchPartition {
            partition: index,
            fetch_offset: offset,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        };
        let topic =
            FetchTopic { topic: Str::from(topic), partitions: vec![partition], ..FetchTopic::default() };
        let request =
            FetchRequest { min_bytes: 1, max_bytes: 8 << 20, topics: vec![topic], ..FetchRequest::default() };
        let response = self.call(FETCH_VERSION, &request)?;
        let data = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        data.ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, "the answer names no partition")
        })
    }
}

impl Connection {
    /// Waits a little for records of these partitions, each from an offset on.
    pub(crate) fn poll(&mut self, topic: &str, wanted: &[(i32, i64)]) -> std::io::Result<Vec<PartitionData>> {
        let partition = |&(partition, fetch_offset): &(i32, i64)| FetchPartition {
            partition,
            fetch_offset,
            partition_max_bytes: 256 << 10,
            ..FetchPartition::default()
        };
        let partitions = wanted.iter().map(partition).collect();
        let request = FetchRequest {
            max_wait_ms: POLL_WAIT_MS,
            min_bytes: 1,
            max_bytes: 1 << 20,
            topics: vec![FetchTopic { topic: Str::from(topic), partitions, ..FetchTopic::default() }],
            ..FetchRequest::default()
        };
        let response = self.call(FETCH_VERSION, &request)?;
        Ok(response.responses.into_iter().flat_map(|topic| topic.partitions).collect())
    }
}

/// Every record of every partition, from offset 0 to the high watermark.
pub(crate) fn read_all(address: SocketAddr, topic: &str, partitions: i32) -> anyhow::Result<Vec<Placed>> {
    let mut records = Vec::new();
    for partition in 0..partitions {
        for batch in read_batches(address, topic, partition)? {
            records.extend(placed(&batch, partition)?);
        }
    }
    Ok(records)
}

/// Every batch of a partition, from offset 0 to the high watermark.
pub(crate) fn read_batches(address: SocketAddr, topic: &str, partition: i32) -> anyhow::Result<Vec<Batch>> {
    let mut connection = Connection::open(address)?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut offset = 0;
    loop {
        let data = connection.fetch(topic, partition, offset)?;
        if data.error_code != 0 {
            bail!("fetch of {topic}-{partition} from {offset}: {}", name_of(data.error_code));
        }
        let before = offset;
        for batch in split(data.records.bytes().cloned().unwrap_or_default())? {
            ensure!(
                batch.header().base_offset.get() >= offset,
                "fetch of {topic}-{partition} from {offset} went back to {}",
                batch.header().base_offset
            );
            offset = batch.header().next_offset().get();
            batches.push(batch);
        }
        if offset >= data.high_watermark {
            return Ok(batches);
        }
        ensure!(
            offset > before,
            "fetch of {topic}-{partition} stands still at {offset} below the high watermark {}",
            data.high_watermark
        );
    }
}

/// The whole batches in an answer; Kafka allows the last one to be cut off.
pub(crate) fn split(mut bytes: Bytes) -> anyhow::Result<Vec<Batch>> {
    let mut batches = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let size = BatchHeader::parse(&bytes)?.size_bytes as usize;
        if size > bytes.len() {
            break;
        }
        batches.push(Batch::new(bytes.split_to(size))?);
    }
    Ok(batches)
}

/// The records of a batch at their places.
pub(crate) fn placed(batch: &Batch, partition: i32) -> anyhow::Result<Vec<Placed>> {
    let mut records = Vec::new();
    for record in batch.decompress(LIMITS)?.records() {
        let record = record?;
        let key = record.key.context("records of these tests have keys")?;
        records.push(Placed {
            partition,
            offset: record.offset.get(),
            key: std::str::from_utf8(key)?.parse()?,
            stamp: record.value.and_then(Stamp::from_value),
        });
    }
    Ok(records)
}
