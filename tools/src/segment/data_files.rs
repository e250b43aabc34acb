//! The files of a data directory that stand beside the partitions, ours and Apache Kafka's: whether they hold together,
//! and what they say of the logs.
//!
//! Knows no segments. Kafka's checkpoints are text: version 0, a count, and `topic partition offset` per line
//! (`OffsetCheckpointFile`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use highwater_record::{Offset, TopicName};
use highwater_storage::{CheckpointFile, DiskFiles, LoadedCheckpoint};

use super::fault::{Fault, Kind};

/// Offsets by topic and partition.
type Offsets = BTreeMap<(String, i32), Offset>;

/// Names in a data directory that are no partitions and need no look.
const KNOWN: &[&str] = &["LOCK", ".lock", ".kafka_cleanshutdown", "bootstrap.checkpoint", "lost+found"];
/// Kafka's checkpoints of offsets.
const CHECKPOINTS: &[&str] =
    &[RECOVERY, CLEANED, "replication-offset-checkpoint", "log-start-offset-checkpoint"];
const RECOVERY: &str = "recovery-point-offset-checkpoint";
const CLEANED: &str = "cleaner-offset-checkpoint";

/// What a data directory says of its logs.
#[derive(Clone, Debug, Default)]
pub(super) struct DataKnown {
    /// A broker of ours wrote it.
    pub(super) is_ours: bool,
    /// How far Kafka's cleaner came; none if there is no such file.
    pub(super) cleaned: Option<Offsets>,
    /// Everything below is durable, by the file that says so.
    pub(super) recovered: Offsets,
    pub(super) faults: Vec<Fault>,
}

impl DataKnown {
    /// Reads what is there.
    pub(super) fn read(data: &Path) -> Result<Self> {
        let mut known = Self::default();
        let mut entries = Vec::new();
        for entry in fs::read_dir(data).with_context(|| format!("list {}", data.display()))? {
            entries.push(entry.with_context(|| format!("list {}", data.display()))?.path());
        }
        entries.sort();
        for path in &entries {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                known.faults.push(Fault::foreign(path));
                continue;
            };
            if path.is_dir() { known.directory(path, name) } else { known.file(path, name) }
        }
        known.faults.extend(known.emptied(data));
        Ok(known)
    }

    /// Partitions that have no segment left and should have some: none of them is looked at for itself.
    fn emptied(&self, data: &Path) -> Vec<Fault> {
        let mut faults = Vec::new();
        for ((topic, partition), recovered) in self.recovered.iter().filter(|entry| *entry.1 > Offset::ZERO) {
            let directory = data.join(format!("{topic}-{partition}"));
            // Names in a file are not to be trusted.
            let is_here = TopicName::new(topic).is_ok() && directory.is_dir();
            if is_here && super::files::is_without_segments(&directory) {
                let what = format!(
                    "a checkpoint says that everything below {recovered} is on the disk, there are no segments"
                );
                faults.push(Fault::new(Kind::MissingTail, &directory, what).of(Offset::ZERO, *recovered));
            }
        }
        faults
    }

    fn directory(&mut self, path: &Path, name: &str) {
        let is_partition = name.rsplit_once('-').is_some_and(|(topic, number)| {
            !topic.is_empty() && number.parse::<u16>().is_ok_and(|parsed| parsed.to_string() == number)
        });
        if ["-delete", "-stray", "-future"].iter().any(|suffix| name.ends_with(suffix)) {
            self.faults.push(Fault::new(Kind::Leftover, path, "a partition that a broker has put aside"));
        } else if !is_partition && !KNOWN.contains(&name) {
            self.faults.push(Fault::foreign(path));
        }
    }

    fn file(&mut self, path: &Path, name: &str) {
        match name {
            "checkpoint" => self.checkpoint(path),
            "meta.properties" => self.properties(path),
            _ if CHECKPOINTS.contains(&name) => self.kafka_checkpoint(path, name),
            _ if name.ends_with(".tmp") => {
                self.faults.push(Fault::new(Kind::Leftover, path, "a file that was being replaced"));
            }
            _ if KNOWN.contains(&name) => {}
            _ => self.faults.push(Fault::foreign(path)),
        }
        self.is_ours |= name == "checkpoint" || name == "LOCK";
    }

    fn checkpoint(&mut self, path: &Path) {
        let data = path.parent().unwrap_or(path);
        match CheckpointFile::new(Arc::new(DiskFiles), data).load() {
            LoadedCheckpoint::Absent => {}
            LoadedCheckpoint::Unusable { reason } => {
                let fault = Fault::new(Kind::BadSidecar, path, reason);
                self.faults.push(fault.fixed_by(super::sidecars::remove(path)));
            }
            LoadedCheckpoint::Found(checkpoint) => {
                for (id, partition) in checkpoint.partitions {
                    let key = (id.topic.as_str().to_owned(), id.partition.get());
                    self.recovered.insert(key, partition.log.recovery_point);
                }
            }
        }
    }

    fn properties(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let has = |key: &str| {
            text.lines()
                .any(|line| line.trim().split_once('=').is_some_and(|(k, v)| k == key && !v.is_empty()))
        };
        if !has("version") || !(has("node.id") || has("broker.id")) {
            let what = "it does not say a version and the number of a node";
            self.faults.push(Fault::new(Kind::BadSidecar, path, what));
        }
    }

    fn kafka_checkpoint(&mut self, path: &Path, name: &str) {
        let offsets = fs::read_to_string(path).ok().and_then(|text| parse_checkpoint(&text));
        let Some(offsets) = offsets else {
            let what = "it is not a version, a count and as many lines of topic, partition and offset";
            self.faults
                .push(Fault::new(Kind::BadSidecar, path, what).fixed_by(super::sidecars::remove(path)));
            return;
        };
        match name {
            RECOVERY => self.recovered.extend(offsets),
            CLEANED => self.cleaned = Some(offsets),
            _ => {}
        }
    }
}

/// Kafka makes the file empty before it writes it for the first time.
fn parse_checkpoint(text: &str) -> Option<Offsets> {
    let mut offsets = Offsets::new();
    if text.is_empty() {
        return Some(offsets);
    }
    let mut lines = text.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    for line in lines.by_ref().take(count) {
        let mut words = line.split(' ');
        let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?);
        let offset = Offset::new(offset.parse().ok()?)?;
        offsets.insert((topic.to_owned(), partition.parse().ok()?), offset);
    }
    (offsets.len() == count && lines.next().is_none()).then_some(offsets)
}
