//! A data directory: one owner at a time, and the directories in it.
//!
//! The directory is private (0700) and locked for as long as [`DataDir`] lives. Partitions are the directories named
//! `<topic>-<number>`; directories of deleted topics are named `...-delete` and may be purged; everything else is
//! somebody else's and is left alone.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_record::{PartitionId, TopicId, TopicName, TopicPartition};
use thiserror::Error;

use crate::files::{Access, FileHandle, FileLayer};
use crate::log::METADATA_FILE_NAME;
use crate::own_file;

/// How directories begin, inside a partition's, where an offline repair puts aside what it replaces.
pub const UNDO_PREFIX: &str = ".highwater-undo-";

const LOCK_NAME: &str = "LOCK";
const DELETED_SUFFIX: &str = "-delete";
/// Longest file name on Linux, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Characters of a topic id's text.
const TOPIC_ID_CHARS: usize = 22;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("{} is in use by {}", path.display(), pid.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process, if its number can be read from the lock file.
        pid: Option<u32>,
    },
    /// It cannot be written to.
    #[error("{} cannot be written to: {source}", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be made or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    files: Arc<dyn FileLayer>,
    /// Held for its lock.
    _lock: Arc<dyn FileHandle>,
}

/// What is in a data directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    /// Directories that are named like partitions.
    pub partitions: Vec<TopicPartition>,
    /// Directories that are not ours, by name.
    pub unknown: Vec<String>,
}

impl DataDir {
    /// Takes the directory, which is made if it is missing (its parent must exist).
    pub fn open(path: PathBuf, files: Arc<dyn FileLayer>) -> Result<Self, DataDirError> {
        match files.create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(denied(&path, error));
            }
            _ => {}
        }
        let lock = files.open(&path.join(LOCK_NAME), Access::Create).map_err(|error| denied(&path, error))?;
        let io_error = |source| DataDirError::Io { path: path.clone(), source };
        if !lock.try_lock().map_err(io_error)? {
            return Err(DataDirError::Locked { pid: read_pid(&*lock), path });
        }
        let pid = format!("{}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.pwritev(&[IoSlice::new(pid.as_bytes())], 0))
            .map_err(|error| denied(&path, error))?;
        Ok(Self { path, files, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file layer that it is on.
    pub const fn files(&self) -> &Arc<dyn FileLayer> {
        &self.files
    }

    /// Where a partition's log is, or will be.
    pub fn partition_path(&self, partition: &TopicPartition) -> PathBuf {
        // A topic name is checked when it is made, so that this is always one name below the directory.
        self.path.join(partition.to_string())
    }

    /// Whether a partition has a directory: it gets one at its first append.
    pub fn has_directory(&self, partition: &TopicPartition) -> io::Result<bool> {
        Ok(self.files.file_len(&self.partition_path(partition))?.is_some())
    }

    /// Lists the partitions and what is not ours, each in order.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in self.files.list(&self.path)?.into_iter().filter(|entry| entry.is_dir) {
            match parse_partition(&entry.name) {
                Some(partition) => listing.partitions.push(partition),
                None if is_deleted(&entry.name) => {}
                None => listing.unknown.push(entry.name),
            }
        }
        listing.partitions.sort_unstable();
        listing.unknown.sort_unstable();
        Ok(listing)
    }

    /// The topic that a partition's directory says it belongs to; `None` if it says nothing that can be read.
    pub fn topic_id(&self, partition: &TopicPartition) -> Option<TopicId> {
        let path = self.partition_path(partition).join(METADATA_FILE_NAME);
        let bytes = own_file::load(&*self.files, &path).ok()??;
        let text = std::str::from_utf8(&bytes).ok()?;
        text.lines().find_map(|line| line.strip_prefix("topic_id:")).and_then(|id| id.trim().parse().ok())
    }

    /// The topic that a partition's directory says it belongs to, if that is another one than `topic_id`. An id that is
    /// this one but for a few bits is this one: the file is damaged, which the log says.
    pub fn other_topic(&self, partition: &TopicPartition, topic_id: TopicId) -> Option<TopicId> {
        let found = self.topic_id(partition).filter(|found| *found != topic_id)?;
        if !found.resembles(topic_id) {
            return Some(found);
        }
        let path = self.partition_path(partition).join(METADATA_FILE_NAME);
        tracing::warn!(path = %path.display(), %found, expected = %topic_id, "a topic's id is damaged by a bit or a few; the directory is used");
        None
    }

    /// Renames the directory of a partition whose topic was deleted, durably, so that a new topic of the same name
    /// never meets it. Says whether there was one; a directory that says it belongs to another topic is none.
    /// [`DataDir::purge`] removes the files.
    pub fn delete_partition(&self, partition: &TopicPartition, topic_id: TopicId) -> io::Result<bool> {
        if self.other_topic(partition, topic_id).is_some() {
            return Ok(false);
        }
        let from = self.partition_path(partition);
        match self.files.rename(&from, &self.path.join(deleted_name(partition, topic_id))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        self.files.sync_dir(&self.path)?;
        Ok(true)
    }

    /// Removes the directories of deleted partitions. Says how many bytes their files had; those who have the files
    /// open keep them. A directory that cannot be removed does not keep the others; the first error is returned.
    pub fn purge(&self) -> io::Result<u64> {
        let (mut bytes, mut first_error) = (0, None);
        for dir in self.files.list(&self.path)?.into_iter().filter(|e| e.is_dir && is_deleted(&e.name)) {
            match self.remove_deleted(&self.path.join(dir.name)) {
                Ok(removed) => bytes += removed,
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(bytes), Err)
    }

    fn remove_deleted(&self, dir: &Path) -> io::Result<u64> {
        let mut bytes = 0;
        for file in self.files.list(dir)? {
            let path = dir.join(&file.name);
            if file.is_dir && file.name.starts_with(UNDO_PREFIX) {
                bytes += self.remove_deleted(&path)?;
                continue;
            }
            self.files.unlink(&path)?;
            bytes += file.len;
        }
        self.files.remove_dir(dir)?;
        Ok(bytes)
    }
}

fn denied(path: &Path, source: io::Error) -> DataDirError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DataDirError::NotWritable { path, source }
        }
        _ => DataDirError::Io { path, source },
    }
}

fn read_pid(lock: &dyn FileHandle) -> Option<u32> {
    let mut bytes = [0; 16];
    let read = lock.pread(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..read]).ok()?.trim().parse().ok()
}

/// The partition that a directory's name says, if it is exactly how we would name it.
fn parse_partition(name: &str) -> Option<TopicPartition> {
    let (topic, number) = name.rsplit_once('-')?;
    let partition = TopicPartition {
        topic: TopicName::new(topic).ok()?,
        partition: PartitionId::new(number.parse().ok()?)?,
    };
    (partition.to_string() == name).then_some(partition)
}

fn deleted_name(partition: &TopicPartition, topic_id: TopicId) -> String {
    let mut end = String::new();
    write!(end, "-{}.{topic_id}{DELETED_SUFFIX}", partition.partition)
        .expect("writing to a string cannot fail");
    let topic = partition.topic.as_str();
    // Topic names are ASCII, so any byte is a character.
    format!("{}{end}", &topic[..topic.len().min(NAME_BYTES_MAX - end.len())])
}

fn is_deleted(name: &str) -> bool {
    let Some(rest) = name.strip_suffix(DELETED_SUFFIX) else { return false };
    let Some((partition, topic_id)) = rest.rsplit_once('.') else { return false };
    topic_id.len() == TOPIC_ID_CHARS
        && topic_id.parse::<TopicId>().is_ok()
        && parse_partition(partition).is_some()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::disk::DiskFiles;

    fn partition(topic: &str, id: i32) -> TopicPartition {
        TopicPartition { topic: TopicName::new(topic).unwrap(), partition: PartitionId::new(id).unwrap() }
    }

    fn open(path: &Path) -> Result<DataDir, DataDirError> {
        DataDir::open(path.to_owned(), Arc::new(DiskFiles))
    }

    #[test]
    fn a_deletion_spares_the_directory_of_a_later_topic_of_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(&dir.path().join("data")).unwrap();
        let (old, new) = (TopicId::new([1; 16]).unwrap(), TopicId::new([2; 16]).unwrap());
        let path = data.partition_path(&partition("t", 0));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("partition.metadata"), format!("version: 0\ntopic_id: {new}\n")).unwrap();

        assert!(!data.delete_partition(&partition("t", 0), old).unwrap());
        assert!(path.exists());

        assert!(data.delete_partition(&partition("t", 0), new).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn an_id_that_is_damaged_by_a_bit_is_no_other_topic() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(&dir.path().join("data")).unwrap();
        let id = "j6hPE3nlSrCxOuC34cQVXw".parse::<TopicId>().unwrap();
        let path = data.partition_path(&partition("t", 0)).join("partition.metadata");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let text = format!("version: 0\ntopic_id: {id}\n");

        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(data.other_topic(&partition("t", 0), id), None, "bit {bit}");
        }

        let other = "Xk3pQ8mTR2aZb6cVd9eWfg".parse::<TopicId>().unwrap();
        std::fs::write(&path, text).unwrap();
        assert_eq!(data.other_topic(&partition("t", 0), other), Some(id));
    }

    #[test]
    fn a_deleted_directory_that_cannot_be_removed_does_not_keep_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(&dir.path().join("data")).unwrap();
        let id = TopicId::new([1; 16]).unwrap();
        for topic in ["a", "b", "c"] {
            std::fs::create_dir(data.partition_path(&partition(topic, 0))).unwrap();
        }
        std::fs::create_dir(data.partition_path(&partition("b", 0)).join("not ours")).unwrap();
        for topic in ["a", "b", "c"] {
            data.delete_partition(&partition(topic, 0), id).unwrap();
        }

        data.purge().unwrap_err();

        let left =
            std::fs::read_dir(data.path()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(left, 1);
    }

    #[test]
    fn a_data_directory_is_private_and_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let owner = open(&path).unwrap();

        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        let second = open(&path);

        assert_eq!(mode & 0o777, 0o700);
        let Err(DataDirError::Locked { pid, .. }) = second else { panic!("{second:?}") };
        assert_eq!(pid, Some(std::process::id()));

        drop(owner);

        open(&path).unwrap();
    }

    #[test]
    fn partitions_are_listed_and_strangers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        for name in ["logs-0", "a-b-12", "logs-00", "lost+found", "x", "-1", "logs-+1"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("file-3"), "").unwrap();

        let listing = data.list().unwrap();

        assert_eq!(listing.partitions, [partition("a-b", 12), partition("logs", 0)]);
        assert_eq!(listing.unknown, ["-1", "logs-+1", "logs-00", "lost+found", "x"]);
    }

    #[test]
    fn a_deleted_partition_leaves_its_name_at_once_and_its_files_when_purged() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        let long = partition(&"x".repeat(249), 99_999);
        let id = TopicId::new([9; 16]).unwrap();
        for partition in [&long, &partition("logs", 0)] {
            std::fs::create_dir(data.partition_path(partition)).unwrap();
            std::fs::write(data.partition_path(partition).join("00000000000000000000.log"), "12345").unwrap();
            assert!(data.delete_partition(partition, id).unwrap());
            assert!(!data.delete_partition(partition, id).unwrap());
        }
        assert_eq!(data.list().unwrap(), Listing::default());

        assert_eq!(data.purge().unwrap(), 10);

        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named_in_the_error() {
        let refused = open(Path::new("/proc/highwater-data"));

        let Err(error) = refused else { panic!("made a directory in /proc") };
        assert!(error.to_string().starts_with("/proc/highwater-data"), "{error}");
    }
}
