//! Which files a path means: a data directory, a partition's directory, or single segments.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use highwater_record::Offset;

use crate::failure::Failure;

/// The segments of one partition, by base offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PartitionFiles {
    /// The topic by the directory's name; the whole name if it is not a partition's.
    pub(super) topic: String,
    /// The partition by the directory's name; -1 if it is not a partition's.
    pub(super) partition: i32,
    /// Who has the files open, if somebody has.
    pub(super) owner: Option<String>,
    /// The segments that were asked for.
    pub(super) segments: Vec<SegmentFile>,
}

/// One segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SegmentFile {
    /// The `.log` file.
    pub(super) path: PathBuf,
    /// The base offset that is its name.
    pub(super) base: Offset,
    /// The base offset of the next segment; none if it is the active one.
    pub(super) next_base: Option<Offset>,
}

impl PartitionFiles {
    /// Whether a broker may be writing a segment.
    pub(super) const fn may_change(&self, segment: &SegmentFile) -> bool {
        self.owner.is_some() && segment.next_base.is_none()
    }
}

impl SegmentFile {
    /// Size of the file now, for a sense of how much there is to do; 0 if it cannot be asked.
    pub(super) fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }
}

/// The partitions below `path`, in order.
pub(super) fn find(path: &Path) -> Result<Vec<PartitionFiles>> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::not_found(format!("{} does not exist", path.display())).into()
        }
        _ => anyhow::Error::from(error).context(format!("look at {}", path.display())),
    })?;
    // Names come from the real path, so that `.` and links have them too.
    let path = &path.canonicalize().with_context(|| format!("look at {}", path.display()))?;
    let found = if metadata.is_file() {
        let base = base_offset(path).ok_or_else(|| {
            Failure::usage(format!("{} is no segment: its name is not 20 digits and .log", path.display()))
        })?;
        let mut partition = partition_at(path.parent().unwrap_or(Path::new("/")))?;
        partition.segments.retain(|segment| segment.base == base);
        vec![partition]
    } else {
        let own = partition_at(path)?;
        if own.segments.is_empty() { partitions_below(path)? } else { vec![own] }
    };
    if found.is_empty() {
        let message = format!("{} holds no segments, nor do its subdirectories", path.display());
        return Err(Failure::not_found(message).into());
    }
    Ok(found)
}

fn partitions_below(path: &Path) -> Result<Vec<PartitionFiles>> {
    let mut partitions = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        let entry = entry.with_context(|| format!("list {}", path.display()))?;
        if entry.path().is_dir() {
            partitions.push(partition_at(&entry.path())?);
        }
    }
    partitions.retain(|partition| !partition.segments.is_empty());
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(partitions)
}

fn partition_at(directory: &Path) -> Result<PartitionFiles> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
        if let Some(base) = base_offset(&path) {
            segments.push(SegmentFile { path, base, next_base: None });
        }
    }
    segments.sort_by_key(|segment| segment.base);
    for index in 1..segments.len() {
        segments[index - 1].next_base = Some(segments[index].base);
    }
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let numbered =
        name.rsplit_once('-').and_then(|(topic, number)| Some((topic, number.parse::<u16>().ok()?)));
    let (topic, partition) = match numbered {
        Some((topic, number)) if !topic.is_empty() => (topic.to_owned(), i32::from(number)),
        _ => (name, -1),
    };
    Ok(PartitionFiles { topic, partition, owner: directory.parent().and_then(owner), segments })
}

/// Whether a directory can be listed and has no segment.
pub(super) fn is_without_segments(directory: &Path) -> bool {
    partition_at(directory).is_ok_and(|partition| partition.segments.is_empty())
}

fn base_offset(path: &Path) -> Option<Offset> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".log")?;
    let is_base = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_base.then(|| digits.parse().ok().and_then(Offset::new))?
}

/// The broker that holds the lock of a data directory: highwater's `LOCK`, or Kafka's `.lock`.
///
/// A shared lock is tried and given back at once; nothing is written.
fn owner(data: &Path) -> Option<String> {
    let lock = File::open(data.join("LOCK")).or_else(|_| File::open(data.join(".lock"))).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(data.join("LOCK")).ok();
            let pid = pid.filter(|pid| pid.trim().parse::<u32>().is_ok());
            Some(pid.map_or("a broker".to_owned(), |pid| format!("a broker (process {})", pid.trim())))
        }
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}
