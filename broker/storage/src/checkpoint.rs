//! The checkpoint of a data directory: what is known of each log, and whether the last stop was a clean one.
//!
//! One file, `checkpoint`, replaced as a whole. It is disposable: without it every log is read from its start. A
//! clean-stop mark counts only for the incarnation that it names. Byte table in `broker/docs/format.md`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_record::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId, TopicName, TopicPartition};

use crate::files::FileLayer;
use crate::log::{LogCheckpoint, LogOutline, TailSegment};
use crate::own_file::{self, Durable, Fields, Kind, frame, unframe};

const KIND: Kind = Kind { magic: *b"HWCP", version: 3 };
/// Name of the file in the data directory.
const FILE_NAME: &str = "checkpoint";

/// What is known of one partition's log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PartitionCheckpoint {
    /// The topic that the log belongs to. A log of another topic of the same name is not meant.
    pub topic_id: Option<TopicId>,
    /// Its offsets.
    pub log: LogCheckpoint,
    /// What it is like below its recovery point, if that is known: then it need not be opened to serve.
    pub outline: Option<LogOutline>,
}

/// The contents of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Checkpoint {
    /// The incarnation that stopped cleanly, if the last one did: all that it wrote is durable.
    pub clean_stop: Option<LeaderEpoch>,
    /// Where the metadata log ended, durably: one that ends before has lost something.
    pub metadata_end: Offset,
    /// The partitions.
    pub partitions: BTreeMap<TopicPartition, PartitionCheckpoint>,
}

/// What loading found.
#[derive(Debug)]
pub enum LoadedCheckpoint {
    /// There is no file.
    Absent,
    /// There is one, but it does not hold together or cannot be read. Treat it as absent, and say so.
    Unusable {
        /// What is wrong with it.
        reason: String,
    },
    /// The file.
    Found(Checkpoint),
}

/// The checkpoint file of one data directory.
#[derive(Clone, Debug)]
pub struct CheckpointFile {
    files: Arc<dyn FileLayer>,
    path: PathBuf,
}

impl CheckpointFile {
    /// The file in `data_dir`, whether it exists or not.
    pub fn new(files: Arc<dyn FileLayer>, data_dir: &Path) -> Self {
        Self { files, path: data_dir.join(FILE_NAME) }
    }

    /// Reads the file. Never an error: the file is disposable.
    pub fn load(&self) -> LoadedCheckpoint {
        match own_file::load(&*self.files, &self.path) {
            Ok(None) => LoadedCheckpoint::Absent,
            Ok(Some(bytes)) => match Checkpoint::decode(&bytes) {
                Some(checkpoint) => LoadedCheckpoint::Found(checkpoint),
                None => LoadedCheckpoint::Unusable {
                    reason: format!(
                        "its {} bytes are not a whole checkpoint of version {}",
                        bytes.len(),
                        KIND.version
                    ),
                },
            },
            Err(error) => LoadedCheckpoint::Unusable { reason: error.to_string() },
        }
    }

    /// Replaces the file; it is durable when this returns.
    pub fn store(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        own_file::store(&*self.files, &self.path, &checkpoint.encode(), Durable::Yes)
    }
}

impl Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(24 + self.partitions.len() * 112);
        body.extend_from_slice(&self.clean_stop.map_or(-1, LeaderEpoch::get).to_be_bytes());
        body.extend_from_slice(&self.metadata_end.get().to_be_bytes());
        body.extend_from_slice(&(self.partitions.len() as u32).to_be_bytes());
        for (partition, known) in &self.partitions {
            let topic = partition.topic.as_str().as_bytes();
            // A legal name has at most 249 bytes.
            body.push(topic.len() as u8);
            body.extend_from_slice(topic);
            body.extend_from_slice(&partition.partition.get().to_be_bytes());
            body.extend_from_slice(&known.topic_id.map_or([0; 16], TopicId::get));
            for offset in [known.log.log_start, known.log.recovery_point, known.log.high_watermark] {
                body.extend_from_slice(&offset.get().to_be_bytes());
            }
            body.push(u8::from(known.outline.is_some()));
            if let Some(outline) = &known.outline {
                encode_outline(outline, &mut body);
            }
        }
        frame(KIND, &body)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unframe(KIND, bytes)?);
        let clean_stop = LeaderEpoch::new(fields.i32()?);
        let metadata_end = Offset::new(fields.i64()?)?;
        let count = fields.u32()?;
        let mut partitions = BTreeMap::new();
        for _ in 0..count {
            let length = usize::from(fields.u8()?);
            let topic = TopicName::new(std::str::from_utf8(fields.bytes(length)?).ok()?).ok()?;
            let partition = PartitionId::new(fields.i32()?)?;
            let topic_id = TopicId::new(*fields.bytes(16)?.first_chunk()?);
            let log = LogCheckpoint {
                log_start: Offset::new(fields.i64()?)?,
                recovery_point: Offset::new(fields.i64()?)?,
                high_watermark: Offset::new(fields.i64()?)?,
            };
            let outline = match fields.u8()? {
                0 => None,
                1 => Some(decode_outline(&mut fields)?),
                _ => return None,
            };
            let known = PartitionCheckpoint { topic_id, log, outline };
            partitions.insert(TopicPartition { topic, partition }, known);
        }
        fields.0.is_empty().then_some(Self { clean_stop, metadata_end, partitions })
    }
}

fn encode_outline(outline: &LogOutline, body: &mut Vec<u8>) {
    let (base, bytes) = outline.tail.map_or((-1, 0), |tail| (tail.base.get(), tail.bytes));
    body.extend_from_slice(&outline.size_bytes.to_be_bytes());
    body.extend_from_slice(&base.to_be_bytes());
    body.extend_from_slice(&bytes.to_be_bytes());
    for epoch in [outline.first_epoch, outline.latest_epoch] {
        body.extend_from_slice(&epoch.map_or(-1, LeaderEpoch::get).to_be_bytes());
    }
    body.extend_from_slice(&outline.oldest.map_or(-1, |oldest| oldest.0).to_be_bytes());
}

fn decode_outline(fields: &mut Fields<'_>) -> Option<LogOutline> {
    let size_bytes = fields.u64()?;
    let (base, bytes) = (fields.i64()?, fields.u64()?);
    Some(LogOutline {
        size_bytes,
        tail: Offset::new(base).map(|base| TailSegment { base, bytes }),
        first_epoch: LeaderEpoch::new(fields.i32()?),
        latest_epoch: LeaderEpoch::new(fields.i32()?),
        oldest: Some(TimestampMs(fields.i64()?)).filter(|oldest| oldest.0 >= 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimFiles;

    fn sample() -> Checkpoint {
        let offset = |n| Offset::new(n).unwrap();
        let partition = |topic: &str, id| TopicPartition {
            topic: TopicName::new(topic).unwrap(),
            partition: PartitionId::new(id).unwrap(),
        };
        let log =
            LogCheckpoint { log_start: offset(5), recovery_point: offset(90), high_watermark: offset(80) };
        let known = |id, outline| PartitionCheckpoint { topic_id: TopicId::new([id; 16]), log, outline };
        let outline = LogOutline {
            size_bytes: 1 << 40,
            tail: Some(TailSegment { base: offset(70), bytes: 1234 }),
            first_epoch: LeaderEpoch::new(0),
            latest_epoch: LeaderEpoch::new(6),
            oldest: Some(TimestampMs(1_700_000_000_000)),
        };
        Checkpoint {
            clean_stop: LeaderEpoch::new(7),
            metadata_end: offset(33),
            partitions: BTreeMap::from([
                (partition("logs", 0), known(3, Some(outline))),
                (partition("logs", 1), known(3, Some(LogOutline::EMPTY))),
                (partition("__meta", 12), known(0, None)),
            ]),
        }
    }

    #[test]
    fn a_stored_checkpoint_survives_a_crash() {
        let files = SimFiles::with_dir(Path::new("data"));
        CheckpointFile::new(Arc::new(files.clone()), Path::new("data")).store(&sample()).unwrap();

        for seed in 0..20 {
            let after = CheckpointFile::new(Arc::new(files.crash(seed)), Path::new("data"));
            assert!(matches!(after.load(), LoadedCheckpoint::Found(found) if found == sample()));
        }
    }

    #[test]
    fn a_damaged_checkpoint_is_reported_and_not_used() {
        let files = SimFiles::with_dir(Path::new("data"));
        let file = CheckpointFile::new(Arc::new(files.clone()), Path::new("data"));
        assert!(matches!(file.load(), LoadedCheckpoint::Absent));
        file.store(&sample()).unwrap();
        let path = Path::new("data/checkpoint");
        let good = files.read(path).unwrap();

        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            files.overwrite(path, &bad);
            assert!(matches!(file.load(), LoadedCheckpoint::Unusable { .. }), "byte {at}");
        }
    }
}
