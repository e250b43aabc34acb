//! The files beside the segments of a partition, ours and Apache Kafka's: whether they hold together, and whether the
//! segments are what they say.
//!
//! Kafka's producer snapshots are a version, a CRC-32C over what follows, a count and entries of 46 bytes
//! (`ProducerStateManager`). Knows no batches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use highwater_record::{LeaderEpoch, Offset, TopicId, crc32c};
use highwater_storage::{
    ProducerStateFile, SealedSegment, parse_leader_epochs, read_compacted, read_manifest, read_producer_state,
};

use super::data_files::DataKnown;
use super::fault::{Fault, Kind, Severity, quoted, repair};
use super::files::PartitionFiles;

/// No snapshot and no text file beside segments comes near this.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a producer in Kafka's snapshot, and of what comes before the producers.
const SNAPSHOT_ENTRY_BYTES: usize = 46;
const SNAPSHOT_HEAD_BYTES: usize = 10;
/// Endings of files that a broker left behind.
const LEFTOVERS: &[&str] = &[".deleted", ".cleaned", ".swap", ".dropped", ".tmp"];
/// Topics that brokers compact.
const COMPACTED_TOPICS: &[&str] = &["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// What is known of a partition before its segments are read.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// What a gap of offsets is worth in sealed segments.
    pub(super) gaps: Severity,
    /// And in the active one.
    pub(super) gaps_of_active: Severity,
    /// The entries of `leader-epoch-checkpoint`; empty if there is none that can be read.
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(super) faults: Vec<Fault>,
    manifest: Vec<SealedSegment>,
    producers: Option<ProducerStateFile>,
    compacted: Option<Offset>,
    recovered: Option<Offset>,
    is_ours: bool,
    is_compacted: bool,
}

/// The command that removes a file which a broker makes anew.
pub(super) fn remove(path: &Path) -> String {
    format!("rm {}", quoted(path))
}

impl Known {
    /// Reads what is in the directory of a partition.
    pub(super) fn read(partition: &PartitionFiles, directory: &Path, data: &DataKnown) -> Result<Self> {
        let key = (partition.topic.clone(), partition.partition);
        let mut known = Self {
            gaps: Severity::Error,
            gaps_of_active: Severity::Error,
            epochs: Vec::new(),
            faults: Vec::new(),
            manifest: Vec::new(),
            producers: None,
            compacted: None,
            recovered: data.recovered.get(&key).copied(),
            is_ours: data.is_ours,
            is_compacted: COMPACTED_TOPICS.contains(&partition.topic.as_str()),
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
            paths.push(entry.with_context(|| format!("list {}", directory.display()))?.path());
        }
        paths.sort();
        for path in &paths {
            known.file(path);
        }
        known.is_compacted |= data.cleaned.as_ref().is_some_and(|cleaned| cleaned.contains_key(&key));
        known.gaps = if known.is_compacted {
            Severity::Note
        } else if known.is_ours || data.cleaned.is_some() {
            Severity::Error
        } else {
            // Nothing says what the topic's policy is.
            Severity::Warning
        };
        Ok(known)
    }

    fn file(&mut self, path: &Path) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            self.faults.push(Fault::foreign(path));
            return;
        };
        let outcome = match name {
            "leader-epoch-checkpoint" => self.epoch_file(path),
            "partition.metadata" => self.metadata(path),
            "manifest" => {
                self.own(path, |known| Ok(read_manifest(path)?.map(|found| known.manifest = found)))
            }
            "producer-state" => self
                .own(path, |known| Ok(read_producer_state(path)?.map(|found| known.producers = Some(found)))),
            "compacted" => {
                self.is_compacted = true;
                self.own(path, |known| Ok(read_compacted(path)?.map(|found| known.compacted = Some(found))))
            }
            "quorum-state" => Ok(()),
            _ if name.starts_with(".highwater-undo-") => {
                self.faults.push(Fault::new(
                    Kind::Leftover,
                    path,
                    "the originals of files that a repair replaced",
                ));
                Ok(())
            }
            _ if LEFTOVERS.iter().any(|ending| name.ends_with(ending)) => {
                // The cleaner leaves such files, and retention does.
                self.is_compacted |= !name.ends_with(".tmp") && !name.ends_with(".dropped");
                self.faults.push(Fault::new(
                    Kind::Leftover,
                    path,
                    "a broker left it behind; nobody reads it",
                ));
                Ok(())
            }
            _ => self.numbered(path, name),
        };
        if let Err(error) = outcome {
            self.faults.push(Fault::new(Kind::Unreadable, path, error.to_string()));
        }
    }

    /// A file that is named by an offset.
    fn numbered(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let (digits, ending) = name.split_once('.').unwrap_or((name, ""));
        let is_digits = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_numbered = is_digits(digits, 20);
        match ending {
            "log" if is_numbered => {}
            "index" | "timeindex" | "txnindex" if is_numbered => {
                if path.with_extension("log").symlink_metadata().is_err() {
                    let fault = Fault::new(Kind::OrphanIndex, path, "its segment is not there");
                    self.faults.push(fault.fixed_by(remove(path)));
                }
            }
            "snapshot" if is_numbered => return self.snapshot(path),
            // KRaft's snapshots: offset and epoch.
            "checkpoint"
                if digits
                    .split_once('-')
                    .is_some_and(|(offset, epoch)| is_digits(offset, 20) && is_digits(epoch, 10)) => {}
            _ => self.faults.push(Fault::foreign(path)),
        }
        Ok(())
    }

    /// A file of ours that `read` finds whole or not.
    fn own(&mut self, path: &Path, read: impl FnOnce(&mut Self) -> io::Result<Option<()>>) -> io::Result<()> {
        self.is_ours = true;
        if read(self)?.is_none() {
            let what =
                "its bytes are not a whole file of its kind, version and checksum; the broker does without";
            self.faults.push(Fault::new(Kind::BadSidecar, path, what).fixed_by(remove(path)));
        }
        Ok(())
    }

    fn epoch_file(&mut self, path: &Path) -> io::Result<()> {
        let text = small(path)?;
        match std::str::from_utf8(&text).ok().and_then(parse_leader_epochs) {
            Some(epochs) => self.epochs = epochs,
            // Kafka makes it empty before it writes it for the first time.
            None if text.is_empty() => {}
            None => {
                let what = "it is not a version, a count and as many lines of growing epoch and offset";
                self.faults.push(Fault::new(Kind::BadSidecar, path, what).fixed_by(remove(path)));
            }
        }
        Ok(())
    }

    fn metadata(&mut self, path: &Path) -> io::Result<()> {
        let text = small(path)?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        let is_version = lines.next() == Some("version: 0");
        let id = lines.next().and_then(|line| line.strip_prefix("topic_id: "));
        let is_id = id.is_some_and(|id| id.parse::<TopicId>().is_ok());
        if !(is_version && is_id && lines.next().is_none()) {
            let what = "it is not a version 0 and a topic id";
            self.faults.push(Fault::new(Kind::BadSidecar, path, what));
        }
        Ok(())
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        let bytes = small(path)?;
        if let Some(what) = wrong_snapshot(&bytes) {
            self.faults.push(Fault::new(Kind::BadSidecar, path, what).fixed_by(remove(path)));
        }
        Ok(())
    }

    /// What the segments of a partition, which end at `end`, are not.
    pub(super) fn against(&self, partition: &PartitionFiles, directory: &Path, end: Offset) -> Vec<Fault> {
        let mut faults = Vec::new();
        let Some(last) = partition.segments.last().filter(|last| last.next_base.is_none()) else {
            return faults;
        };
        // A broker writes the log and then these files; what is at the tail was read before them.
        if partition.owner.is_none() {
            self.tail(directory, &last.path, end, &mut faults);
        }
        if let Some(upto) = self.compacted.filter(|upto| *upto > last.base) {
            let what = format!(
                "it says that the log is compacted up to {upto}, the last segment begins at {}",
                last.base
            );
            let path = directory.join("compacted");
            faults.push(Fault::new(Kind::StaleSidecar, &path, what).fixed_by(remove(&path)));
        }
        self.sizes(partition, directory, &mut faults);
        faults
    }

    /// What ends before it should.
    fn tail(&self, directory: &Path, log: &Path, end: Offset, faults: &mut Vec<Fault>) {
        if let Some(recovered) = self.recovered.filter(|recovered| *recovered > end) {
            let what = format!(
                "a checkpoint says that everything below {recovered} is on the disk, the log ends at {end}"
            );
            faults.push(Fault::new(Kind::MissingTail, log, what).of(end, recovered).fixed_by(repair(log)));
        }
        if let Some(state) = self.producers.filter(|state| state.end > end) {
            let path = directory.join("producer-state");
            let what = format!("it covers batches up to {}, the log ends at {end}", state.end);
            faults
                .push(Fault::new(Kind::StaleSidecar, &path, what).of(end, state.end).fixed_by(remove(&path)));
        }
        if let Some((epoch, start)) = self.epochs.last().filter(|last| last.1 > end) {
            let path = directory.join("leader-epoch-checkpoint");
            let what = format!("it says that epoch {epoch} begins at {start}, the log ends at {end}");
            faults.push(Fault::new(Kind::EpochMismatch, &path, what).of(end, *start).fixed_by(remove(&path)));
        }
    }

    /// Sealed segments that are shorter or longer than when they were sealed.
    fn sizes(&self, partition: &PartitionFiles, directory: &Path, faults: &mut Vec<Fault>) {
        let manifest = directory.join("manifest");
        for sealed in &self.manifest {
            let found = partition.segments.iter().find(|segment| segment.base == sealed.base);
            let Some(segment) = found.filter(|segment| segment.next_base.is_some()) else { continue };
            let bytes = segment.bytes();
            // Compaction makes segments smaller, and is entered after the next roll.
            if bytes == sealed.bytes || self.is_compacted {
                continue;
            }
            let (file, kind) = if bytes < sealed.bytes {
                (&segment.path, Kind::MissingTail)
            } else {
                (&manifest, Kind::StaleSidecar)
            };
            let what = format!(
                "the manifest says that segment {} has {} bytes, there are {bytes}",
                sealed.base, sealed.bytes
            );
            faults.push(Fault::new(kind, file, what).at(bytes.min(sealed.bytes)));
        }
    }
}

fn small(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::metadata(path)?.len();
    if bytes > FILE_BYTES_MAX {
        let what = format!("{bytes} bytes are too many for such a file");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    fs::read(path)
}

/// What is wrong with the bytes of a producer snapshot of Kafka, if something is.
fn wrong_snapshot(bytes: &[u8]) -> Option<String> {
    let Some(head) = bytes.first_chunk::<SNAPSHOT_HEAD_BYTES>() else {
        return Some(format!("{} bytes are too few for a snapshot", bytes.len()));
    };
    let version = i16::from_be_bytes([head[0], head[1]]);
    let stored = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
    let count = i32::from_be_bytes([head[6], head[7], head[8], head[9]]);
    if version != 1 {
        return Some(format!("its version is {version}, only 1 is known"));
    }
    let computed = crc32c(&bytes[6..]);
    if stored != computed {
        return Some(format!("checksum is {stored:#010x}, the bytes give {computed:#010x}"));
    }
    let entries = bytes.len() - SNAPSHOT_HEAD_BYTES;
    let fits = usize::try_from(count).ok().and_then(|count| count.checked_mul(SNAPSHOT_ENTRY_BYTES));
    (fits != Some(entries)).then(|| format!("it says {count} producers, there are {entries} bytes of them"))
}

/// The directory of a partition.
pub(super) fn directory(partition: &PartitionFiles) -> Option<PathBuf> {
    Some(partition.segments.first()?.path.parent()?.to_owned())
}
