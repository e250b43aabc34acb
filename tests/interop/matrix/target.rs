//! The broker that a row of the matrix is about: ours, or another one for comparison.
//!
//! `HIGHWATER_MATRIX_AGAINST=HOST:PORT` names the other one. Its files are out of reach and it is not killed, so
//! that some cells stay empty; what a client cannot do there either is no fault of ours.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use bytes::Bytes;
use highwater_record::{Batch, BatchHeader, Codec};

use super::records::{Base64, Line};
use crate::faults::reader::LIMITS;
use crate::harness::broker::{Broker, Options};
use crate::harness::drivers::Driver;
use crate::harness::dump_log::segment_files;
use crate::harness::wire::create_topic_with;

/// Names another broker than ours.
const AGAINST: &str = "HIGHWATER_MATRIX_AGAINST";

/// The broker of one row.
pub(crate) enum Target {
    /// Ours.
    Ours(Broker),
    /// Another one, and what makes names unused on it.
    Other(SocketAddr, String),
}

impl Target {
    /// Starts ours with its data in `directory`, unless another one is named.
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Self> {
        let Ok(other) = std::env::var(AGAINST) else {
            return Ok(Self::Ours(Broker::start(Options::new(&directory.join("data")))?));
        };
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let address = other.parse().with_context(|| format!("{AGAINST} is {other}, not an address"))?;
        Ok(Self::Other(address, format!("-{}", since_epoch.as_millis())))
    }

    /// Whether the row says something about our broker.
    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// The process, if it may be killed.
    pub(crate) const fn broker(&mut self) -> Option<&mut Broker> {
        match self {
            Self::Ours(broker) => Some(broker),
            Self::Other(..) => None,
        }
    }

    /// `HOST:PORT` for clients.
    pub(crate) fn bootstrap(&self) -> String {
        self.address().to_string()
    }

    /// A name for a topic or a group that nobody used before.
    pub(crate) fn name(&self, what: &str) -> String {
        match self {
            Self::Ours(_) => what.to_owned(),
            Self::Other(_, suffix) => format!("{what}{suffix}"),
        }
    }

    /// Creates a topic for records of up to 4 MiB.
    pub(crate) fn create_topic(&self, name: &str, partitions: usize) -> anyhow::Result<()> {
        self.create_topic_with(name, partitions, &[("max.message.bytes", "4194304")])
    }

    /// Creates a topic with settings of its own.
    pub(super) fn create_topic_with(
        &self,
        name: &str,
        partitions: usize,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        create_topic_with(self.address(), name, partitions, settings)
    }

    /// What each partition of a topic holds: out of our files, or read by Kafka's own client.
    pub(super) fn stored(&self, topic: &str, partitions: usize) -> anyhow::Result<Vec<Line>> {
        match self {
            Self::Ours(broker) => {
                let batches = batches(broker.data(), topic, partitions)?;
                let lines = batches.iter().map(|(partition, batch)| lines(*partition, batch));
                Ok(lines.collect::<anyhow::Result<Vec<_>>>()?.concat())
            }
            Self::Other(..) => {
                let (topic, partitions) = (format!("topic={topic}"), format!("partitions={partitions}"));
                let arguments = [topic.as_str(), partitions.as_str(), "from=beginning"];
                let read = Driver::Java.must("consume", &self.bootstrap(), &arguments)?;
                read.into_iter().map(|line| Ok(serde_json::from_value(line)?)).collect()
            }
        }
    }

    /// Fails unless most records of a topic lie in batches of `codec`: clients leave out compression in silence
    /// if they think that the broker cannot read it, and rightly where it would make a small batch larger.
    pub(super) fn check_codec(&self, topic: &str, partitions: usize, codec: Codec) -> anyhow::Result<()> {
        let Self::Ours(broker) = self else { return Ok(()) };
        let (mut all, mut compressed) = (0, 0);
        for (_, batch) in batches(broker.data(), topic, partitions)? {
            let header = batch.header();
            all += header.record_count;
            if header.attributes.codec() == Some(codec) {
                compressed += header.record_count;
            }
        }
        ensure!(compressed * 2 > all, "{compressed} of {all} records of {topic} are in {codec}");
        Ok(())
    }

    /// The headers in each segment of partition 0 of a topic, if its files are within reach.
    pub(super) fn segments(&self, topic: &str) -> anyhow::Result<Option<Vec<Vec<BatchHeader>>>> {
        let Self::Ours(broker) = self else { return Ok(None) };
        let headers =
            |file: &PathBuf| Ok(batches_of(file)?.iter().map(|batch| *batch.header()).collect::<Vec<_>>());
        let files = segment_files(&broker.data().join(format!("{topic}-0")), &["log"])?;
        files.iter().map(headers).collect::<anyhow::Result<_>>().map(Some)
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(broker) => broker.address(),
            Self::Other(address, _) => *address,
        }
    }
}

/// The batches of a topic with the partition of each, out of the files below `data`.
fn batches(data: &Path, topic: &str, partitions: usize) -> anyhow::Result<Vec<(usize, Batch)>> {
    let mut found = Vec::new();
    for partition in 0..partitions {
        let directory = data.join(format!("{topic}-{partition}"));
        if !directory.exists() {
            // A partition's directory is made at its first append.
            continue;
        }
        for file in segment_files(&directory, &["log"])? {
            found.extend(batches_of(&file)?.into_iter().map(|batch| (partition, batch)));
        }
    }
    Ok(found)
}

/// The batches of a segment.
fn batches_of(file: &Path) -> anyhow::Result<Vec<Batch>> {
    let (mut found, mut rest) = (Vec::new(), Bytes::from(fs::read(file)?));
    while !rest.is_empty() {
        let size = BatchHeader::parse(&rest)?.size_bytes as usize;
        ensure!(size <= rest.len(), "the last batch of {} is cut off", file.display());
        found.push(Batch::new(rest.split_to(size))?);
    }
    Ok(found)
}

/// How many records partition 0 of a topic holds in whole batches, also after a kill that cut off the last one.
pub(super) fn records_on_disk(data: &Path, topic: &str) -> anyhow::Result<usize> {
    let mut count = 0;
    for file in segment_files(&data.join(format!("{topic}-0")), &["log"])? {
        let bytes = fs::read(&file)?;
        let mut rest = bytes.as_slice();
        while let Ok(header) = BatchHeader::parse(rest) {
            let Some(after) = rest.get(header.size_bytes as usize..) else { break };
            count += header.record_count as usize;
            rest = after;
        }
    }
    Ok(count)
}

fn lines(partition: usize, batch: &Batch) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for record in batch.decompress(LIMITS)?.records() {
        let record = record?;
        let header = |(name, value): (&[u8], Option<&[u8]>)| {
            Ok((String::from_utf8(name.to_vec())?, value.map(|bytes| Base64(bytes.to_vec()))))
        };
        lines.push(Line {
            partition,
            offset: Some(record.offset.get()),
            timestamp: Some(record.timestamp.0),
            key: record.key.map(|bytes| Base64(bytes.to_vec())),
            value: record.value.map(|bytes| Base64(bytes.to_vec())),
            headers: record.headers.map(header).collect::<anyhow::Result<_>>()?,
        });
    }
    Ok(lines)
}
