//! What lies in a data directory: its files by kind, and the batches of its partitions by their places.
//!
//! A file that no kind is known for is an error, so that whoever adds a file to a data directory has to say here what
//! it is, and the tests that harm files of every kind harm it too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use highwater_record::{Batch, BatchHeader};

/// The partition that holds the metadata.
pub(crate) const METADATA: &str = "__cluster_metadata-0";
/// The topic that holds what groups have committed.
pub(crate) const COMMITS: &str = "__consumer_offsets";

/// What a file is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Lock,
    Checkpoint,
    /// The log of the metadata: topics, settings, log starts, lost ranges.
    Metadata,
    /// A log of what groups have committed.
    Commits,
    SealedSegment,
    ActiveSegment,
    OffsetIndex,
    TimeIndex,
    ProducerState,
    LeaderEpochs,
    /// Which topic a directory belongs to.
    TopicId,
    Manifest,
    Compacted,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::Lock,
        Self::Checkpoint,
        Self::Metadata,
        Self::Commits,
        Self::SealedSegment,
        Self::ActiveSegment,
        Self::OffsetIndex,
        Self::TimeIndex,
        Self::ProducerState,
        Self::LeaderEpochs,
        Self::TopicId,
        Self::Manifest,
        Self::Compacted,
    ];

    /// The kind of a file in the data directory itself, or in a partition's.
    fn of(folder: &str, name: &str) -> Option<Self> {
        let kind = match (folder, name) {
            ("", "LOCK") => Self::Lock,
            ("", "checkpoint") => Self::Checkpoint,
            ("", _) => return None,
            (_, "producer-state") => Self::ProducerState,
            (_, "leader-epoch-checkpoint") => Self::LeaderEpochs,
            (_, "partition.metadata") => Self::TopicId,
            (_, "manifest") => Self::Manifest,
            (_, "compacted") => Self::Compacted,
            _ => {
                let (base, extension) = name.split_once('.')?;
                let is_base = base.len() == 20 && base.bytes().all(|byte| byte.is_ascii_digit());
                match extension {
                    _ if !is_base => return None,
                    "index" => Self::OffsetIndex,
                    "timeindex" => Self::TimeIndex,
                    "log" if folder == METADATA => Self::Metadata,
                    "log" if folder.starts_with(COMMITS) => Self::Commits,
                    "log" => Self::SealedSegment,
                    _ => return None,
                }
            }
        };
        Some(kind)
    }

    /// Whether it holds batches of a partition that can be read.
    pub(crate) const fn is_log(self) -> bool {
        matches!(self, Self::Commits | Self::SealedSegment | Self::ActiveSegment)
    }
}

/// A file of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct DataFile {
    pub(crate) kind: Kind,
    /// The partition's directory, or nothing.
    pub(crate) folder: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Every file below a data directory, in the order of their names.
pub(crate) fn files(data: &Path) -> anyhow::Result<Vec<DataFile>> {
    let mut found = files_in(data, "")?;
    let folders: Vec<String> = names(data, |path| path.is_dir())?;
    for folder in folders {
        let mut inside = files_in(&data.join(&folder), &folder)?;
        let segments = inside.iter_mut().filter(|file| file.kind == Kind::SealedSegment);
        if let Some(last) = segments.last() {
            last.kind = Kind::ActiveSegment;
        }
        found.append(&mut inside);
    }
    Ok(found)
}

fn names(directory: &Path, wanted: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if wanted(&entry.path()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn files_in(directory: &Path, folder: &str) -> anyhow::Result<Vec<DataFile>> {
    let mut files = Vec::new();
    // What was being written when a broker was killed, or was moved aside, counts for nothing.
    let is_skipped = |path: &Path| {
        let extension = path.extension().unwrap_or_default();
        (folder.is_empty() && path.is_dir())
            || ["tmp", "cleaned", "swap", "dropped"].iter().any(|skipped| extension == *skipped)
    };
    for name in names(directory, |path| !is_skipped(path))? {
        let path = directory.join(&name);
        let Some(kind) = Kind::of(folder, &name) else {
            bail!(
                "{} is of no kind that is known here: give it one, so that it is harmed too",
                path.display()
            );
        };
        let bytes = path.metadata()?.len();
        files.push(DataFile { kind, folder: folder.to_owned(), path, bytes });
    }
    Ok(files)
}

/// A batch at its place on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    pub(crate) file: PathBuf,
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    pub(crate) bytes: Bytes,
    /// Whether its checksum fits.
    pub(crate) is_whole: bool,
}

impl Laid {
    /// The bytes of the file that it takes.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.position..self.position + self.bytes.len() as u64
    }
}

/// The batches of every partition that has any, the metadata's excepted, by the names of their directories.
pub(crate) fn batches(data: &Path) -> anyhow::Result<BTreeMap<String, Vec<Laid>>> {
    let mut partitions: BTreeMap<String, Vec<Laid>> = BTreeMap::new();
    for file in files(data)?.into_iter().filter(|file| file.kind.is_log()) {
        let laid = batches_of(&file.path).with_context(|| file.path.display().to_string())?;
        partitions.entry(file.folder).or_default().extend(laid);
    }
    Ok(partitions)
}

fn batches_of(file: &Path) -> anyhow::Result<Vec<Laid>> {
    let mut rest = Bytes::from(fs::read(file)?);
    let (mut laid, mut position) = (Vec::new(), 0);
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest)?;
        let size = header.size_bytes as usize;
        ensure!(size <= rest.len(), "the batch at position {position} does not end in the file");
        let bytes = rest.split_to(size);
        let is_whole = Batch::new(bytes.clone()).is_ok();
        laid.push(Laid { file: file.to_owned(), position, header, bytes, is_whole });
        position += size as u64;
    }
    Ok(laid)
}

/// Copies a directory and what is below it.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_knows_has_no_kind() {
        assert_eq!(Kind::of("t-0", "00000000000000000042.log"), Some(Kind::SealedSegment));
        assert_eq!(Kind::of(METADATA, "00000000000000000042.log"), Some(Kind::Metadata));
        assert_eq!(Kind::of("", "checkpoint"), Some(Kind::Checkpoint));
        for (folder, name) in [("t-0", "checkpoint"), ("t-0", "42.log"), ("", "manifest"), ("t-0", "new")] {
            assert_eq!(Kind::of(folder, name), None, "{folder}/{name}");
        }
    }
}
