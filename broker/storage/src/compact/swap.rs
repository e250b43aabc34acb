//! The file protocol by which a new segment takes the place of old ones, and what a start does about one that was cut
//! short. The names are Kafka's: `.cleaned` while it is written, `.swap` from the moment that it counts.
//!
//! 1. `<base>.log.cleaned` is written and synced, with its indexes.
//! 2. It is renamed to `<base>.log.swap`, and the directory is synced. Until here a crash leaves the old segments.
//! 3. The old indexes and all old logs but the first go; `.swap` is renamed over the first; the new indexes get their
//!    names. From 2 on a crash leaves the new segment: a start that finds a `.swap` does step 3 again. So step 3 need not
//!    be durable before anything else; the directory is synced once more when the pass is done.
//!
//! The new segment ends where the last old one ended, so the `.swap` itself says which files it replaces.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use highwater_record::Offset;

use crate::batches::{ReadAt, WalkError, walk};
use crate::files::{Access, FileHandle};
use crate::segment::{Place, Segment, base_of};

/// Mark of files that do not count yet.
pub(super) const CLEANED: &str = ".cleaned";
/// Mark of a log that counts although the old files may still be there.
pub(super) const SWAP: &str = ".swap";
const SUFFIXES: [&str; 3] = ["log", "index", "timeindex"];

/// How far a swap came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Swapped {
    /// What stands at the end of the names of the new segment's files.
    pub(crate) mark: &'static str,
    /// Whether its indexes have their names.
    pub(crate) indexed: bool,
}

/// Removes what does not count, if it is there.
pub(super) fn remove_cleaned(place: &Place, base: Offset) {
    for suffix in SUFFIXES {
        let _ = place.files.unlink(&place.path(base, &format!("{suffix}{CLEANED}")));
    }
}

/// Puts the cleaned segment in the place of `old`, whose files are pinned. After an error the old ones stand.
pub(crate) fn swap(place: &Place, old: &[Arc<Segment>]) -> io::Result<Swapped> {
    let base = old[0].base();
    let marked = place.path(base, &format!("log{SWAP}"));
    let begun = place
        .files
        .rename(&place.path(base, &format!("log{CLEANED}")), &marked)
        .and_then(|()| place.files.sync_dir(&place.dir));
    if let Err(error) = begun {
        let _ = place.files.unlink(&marked);
        return Err(error);
    }
    let bases: Vec<_> = old.iter().map(|segment| segment.base()).collect();
    match replace(place, base, &bases) {
        Ok(()) => Ok(Swapped { mark: "", indexed: take_indexes(place, base).is_ok() }),
        Err(error) => {
            // There is no way back, and none is needed: the next start goes on from here.
            tracing::error!(path = %marked.display(), %error, "a compacted segment keeps its mark, and nothing from it on is compacted, until the next start");
            Ok(Swapped { mark: SWAP, indexed: false })
        }
    }
}

/// Removes the files of old segments, newest first, and gives the first one's name to the new log.
fn replace(place: &Place, base: Offset, old: &[Offset]) -> io::Result<()> {
    for old in old.iter().rev() {
        for suffix in ["timeindex", "index"] {
            // An index that stays is compared with the log before it is believed.
            let _ = place.files.unlink(&place.path(*old, suffix));
        }
        if *old != base {
            gone(place.files.unlink(&place.path(*old, "log")))?;
        }
    }
    place.files.rename(&place.path(base, &format!("log{SWAP}")), &place.path(base, "log"))
}

fn take_indexes(place: &Place, base: Offset) -> io::Result<()> {
    ["index", "timeindex"].iter().try_for_each(|suffix| {
        place.files.rename(&place.path(base, &format!("{suffix}{CLEANED}")), &place.path(base, suffix))
    })
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Completes what a stop or a crash cut short, before the segments are looked at: a `.swap` takes its place, a
/// `.cleaned` goes. Says whether there was anything to do: then the directory is to be synced.
pub(crate) fn complete(place: &Place) -> io::Result<bool> {
    let entries = match place.files.list(&place.dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let logs: Vec<_> = entries.iter().filter_map(|entry| base_of(&entry.name, "log")).collect();
    let mut changed = false;
    for entry in &entries {
        let path = place.dir.join(&entry.name);
        if let Some(base) = base_of(&entry.name, "log.swap") {
            changed = true;
            match end_of(place, &path, base, entry.len) {
                Ok(end) => {
                    let mut old: Vec<_> =
                        logs.iter().copied().filter(|log| *log > base && *log < end).collect();
                    old.push(base);
                    old.sort_unstable();
                    tracing::info!(path = %path.display(), "completing a compaction that was cut short");
                    replace(place, base, &old)?;
                }
                Err(WalkError::Io(error)) => return Err(error),
                Err(WalkError::Fault(fault)) => {
                    let (position, fault) = (fault.position, fault.fault);
                    tracing::error!(path = %path.display(), position, %fault, "a compacted segment is damaged and is moved aside");
                    place.files.rename(&path, &place.path(base, "log.swap.dropped"))?;
                }
            }
        } else if SUFFIXES.iter().any(|suffix| base_of(&entry.name, &format!("{suffix}{CLEANED}")).is_some())
        {
            gone(place.files.unlink(&path))?;
            changed = true;
        }
    }
    Ok(changed)
}

struct Bytes(Arc<dyn FileHandle>);

impl ReadAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.pread(buffer, position)
    }
}

/// Where the batches of a file end.
fn end_of(place: &Place, path: &Path, base: Offset, len: u64) -> Result<Offset, WalkError> {
    let file = Bytes(place.files.open(path, Access::Read)?);
    let mut end = base;
    walk(&file, 0, len, base, |_, header| {
        end = header.next_offset();
        ControlFlow::<()>::Continue(())
    })?;
    Ok(end)
}
