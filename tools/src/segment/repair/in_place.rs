//! `repair --in-place` and `repair --undo`: files of a partition are replaced, and the originals kept until somebody
//! removes them.
//!
//! Everything new is written and synced inside the undo directory first. Then `undo.json`, which says what takes whose
//! place, is made durable: from there on the replacement is finished, by this run or by the next one. Each original gets a
//! second name in the undo directory before the new file takes its name in one step, so that at any moment, a crash
//! included, each name stands for a whole file, old or new. Undoing renames the originals back, as often as it takes.
//! The data directory stays locked for a broker meanwhile.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use highwater_storage::UNDO_PREFIX;
use serde_json::{Value, json};

use super::plan::{Plan, SegmentPlan};
use super::{report, write};
use crate::failure::Failure;
use crate::output::note;

/// What takes whose place. An undo directory without it never came so far.
const RECORD: &str = "undo.json";
/// What the record is called before it is complete.
const RECORD_ASIDE: &str = "undo.json.tmp";
/// Where new files wait; gone when all have their place.
const NEW: &str = "new";
/// Our own files beside segments: the next start makes them again.
const SIDECARS: [&str; 3] = ["manifest", "producer-state", "compacted"];

/// A data directory that no broker opens as long as this is held.
#[derive(Debug)]
pub(super) struct Held {
    _lock: Option<File>,
}

/// Takes the lock of a data directory, if it has one: highwater's `LOCK`, or Kafka's `.lock`.
pub(super) fn hold(data: &Path) -> Result<Held> {
    let Ok(lock) = File::open(data.join("LOCK")).or_else(|_| File::open(data.join(".lock"))) else {
        return Ok(Held { _lock: None });
    };
    match lock.try_lock() {
        Ok(()) => Ok(Held { _lock: Some(lock) }),
        Err(TryLockError::WouldBlock) => {
            let message = format!(
                "a broker has {} open: stop it first, or repair into a copy with --to DIR",
                data.display()
            );
            Err(Failure::failed(message).into())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", data.display())),
    }
}

/// Takes the lock of a partition's directory, which a copy without a data directory has too: two repairs do not meet.
pub(super) fn hold_partition(partition: &Path) -> Result<Held> {
    let lock = File::open(partition).with_context(|| format!("open {}", partition.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(Held { _lock: Some(lock) }),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another repair is at work in {}: wait until it ends", partition.display());
            Err(Failure::failed(message).into())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", partition.display()))
        }
    }
}

/// Finishes what a run that was interrupted began in a partition's directory, and removes what it had not begun.
pub(super) fn finish_earlier(partition: &Path) -> Result<()> {
    for undo in undo_dirs(partition)? {
        if !undo.join(RECORD).exists() {
            // It never came to a replacement. Whatever else is in it somebody has put there.
            if names(&undo)?
                .iter()
                .all(|name| [NEW, RECORD_ASIDE, report::FILE_NAME].contains(&name.as_str()))
            {
                fs::remove_dir_all(&undo).with_context(|| format!("remove {}", undo.display()))?;
            }
        } else if undo.join(NEW).exists() {
            note(format_args!("finishing the repair that was interrupted, {}", undo.display()));
            swap(partition, &undo)?;
        }
    }
    Ok(())
}

/// The undo directories of a partition whose replacement was interrupted.
pub(super) fn unfinished(partition: &Path) -> Result<Vec<PathBuf>> {
    let mut dirs = undo_dirs(partition)?;
    dirs.retain(|undo| undo.join(RECORD).exists() && undo.join(NEW).exists());
    Ok(dirs)
}

fn undo_dirs(partition: &Path) -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(partition).with_context(|| format!("list {}", partition.display()))? {
        let entry = entry.with_context(|| format!("list {}", partition.display()))?;
        // A link leads somewhere that is not ours to change.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if entry.file_name().to_string_lossy().starts_with(UNDO_PREFIX) && is_dir {
            dirs.push(entry.path());
        }
    }
    dirs.sort();
    Ok(dirs)
}

/// Repairs a partition where it is; says where the originals are. `stamp` names the undo directory.
pub(super) fn run(plan: &Plan, stamp: &str) -> Result<PathBuf> {
    let undo = prepare(plan, stamp)?;
    swap(&plan.dir, &undo)?;
    Ok(undo)
}

/// Writes everything that is new, and what is to happen.
pub(super) fn prepare(plan: &Plan, stamp: &str) -> Result<PathBuf> {
    let undo = plan.dir.join(format!("{UNDO_PREFIX}{stamp}"));
    if undo.exists() {
        let message = format!("{} exists already; nothing was changed", undo.display());
        return Err(Failure::failed(message).into());
    }
    fill(plan, &undo).inspect_err(|_| {
        // Nothing was replaced, and on a disk that is full what is here is in the way.
        if !undo.join(RECORD).exists() {
            let _ = fs::remove_dir_all(&undo);
        }
    })?;
    Ok(undo)
}

fn fill(plan: &Plan, undo: &Path) -> Result<()> {
    let new = undo.join(NEW);
    write::create_dir(&new)?;
    for segment in plan.segments.iter().filter(|segment| !segment.goes) {
        if segment.is_rewritten() {
            write::segment(segment, &new)?;
        } else if segment.is_reindexed() {
            write::indexes(&segment.file.path, segment.file.base, segment.file.next_base, &new)?;
        }
    }
    if let Some(text) = plan.epochs.text().filter(|_| plan.epochs_wrong) {
        write::write_file(&new.join(write::EPOCHS), text.as_bytes())?;
    }
    let names = names(&new)?;
    let mut arrivals = Vec::new();
    for name in &names {
        let bytes = fs::metadata(new.join(name)).with_context(|| format!("look at {name}"))?.len();
        arrivals.push(json!({ "name": name, "bytes": bytes }));
    }
    let mut originals: Vec<String> = names.into_iter().filter(|name| plan.dir.join(name).exists()).collect();
    originals.extend(departures(plan).filter(|name| plan.dir.join(name).exists()));
    let record = json!({ "version": 1, "originals": originals, "new": arrivals });
    let report = report::of(std::slice::from_ref(plan), report::Done::Replaced(undo));
    write::write_file(&undo.join(report::FILE_NAME), &report)?;
    write::sync_dir(&new)?;
    own_like(plan, undo)?;
    let aside = undo.join(RECORD_ASIDE);
    write::write_file(&aside, format!("{record:#}\n").as_bytes())?;
    fs::rename(&aside, undo.join(RECORD)).with_context(|| format!("name {}", aside.display()))?;
    write::sync_dir(undo)?;
    write::sync_dir(&plan.dir)
}

/// Gives what was made to whoever has the segments: the broker may be another user than who repairs.
fn own_like(plan: &Plan, undo: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let Some(segment) = plan.segments.first() else { return Ok(()) };
    let owner = || {
        let like = fs::metadata(&segment.file.path)?;
        let new = undo.join(NEW);
        let files =
            fs::read_dir(&new)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        for path in files.iter().chain([&new, &undo.to_owned()]) {
            let made = fs::metadata(path)?;
            if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
                chown(path, Some(like.uid()), Some(like.gid()))?;
            }
        }
        std::io::Result::Ok(())
    };
    owner().with_context(|| format!("give {} to the owner of the segments", undo.display()))
}

/// Names that nothing new takes: our sidecars, and segments that go.
fn departures(plan: &Plan) -> impl Iterator<Item = String> {
    let of_segment = |segment: &SegmentPlan| {
        let base = segment.file.base.get();
        write::SUFFIXES.iter().chain(&["txnindex"]).map(move |suffix| format!("{base:020}.{suffix}"))
    };
    let sidecars = SIDECARS.iter().filter(|_| plan.changes_segments()).map(|name| (*name).to_owned());
    sidecars.chain(plan.segments.iter().filter(|segment| segment.goes).flat_map(of_segment))
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Puts new files in the place of the originals. Any part of it may have happened already.
fn swap(partition: &Path, undo: &Path) -> Result<()> {
    let record = Record::read(undo)?;
    let new = undo.join(NEW);
    // Those that have their second name already may be gone from their place, or others be in it.
    for name in record.originals.iter().filter(|name| !undo.join(name).exists()) {
        match fs::hard_link(partition.join(name), undo.join(name)) {
            Ok(()) => {}
            Err(error) => return Err(error).with_context(|| format!("keep {name} in {}", undo.display())),
        }
    }
    write::sync_dir(undo)?;
    for name in record.originals.iter().filter(|name| !record.has_new(name)) {
        remove(&partition.join(name))?;
    }
    for (name, _) in &record.new {
        match fs::rename(new.join(name), partition.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("put {name} in its place")),
        }
    }
    write::sync_dir(partition)?;
    fs::remove_dir(&new).with_context(|| format!("remove {}", new.display()))?;
    write::sync_dir(undo)
}

/// Brings the originals back and removes the undo directory. Says how many came back.
pub(super) fn undo(undo: &Path) -> Result<usize> {
    let name = undo.file_name().unwrap_or_default().to_string_lossy();
    let partition = undo.parent().filter(|_| name.starts_with(UNDO_PREFIX) && undo.join(RECORD).exists());
    let Some(partition) = partition else {
        let message = format!("{} is no undo directory: it has no {RECORD}", undo.display());
        return Err(Failure::usage(message).into());
    };
    let _held = hold(partition.parent().unwrap_or(Path::new("/")))?;
    let _mine = hold_partition(partition)?;
    if undo.join(NEW).exists() {
        swap(partition, undo)?;
    }
    let record = Record::read(undo)?;
    refuse_grown(partition, undo, &record)?;
    for (name, _) in record.new.iter().filter(|(name, _)| !record.originals.contains(name)) {
        remove(&partition.join(name))?;
    }
    for name in &record.originals {
        match fs::rename(undo.join(name), partition.join(name)) {
            Ok(()) => {}
            // An earlier run that was interrupted brought it back.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("bring {name} back")),
        }
    }
    write::sync_dir(partition)?;
    fs::remove_dir_all(undo).with_context(|| format!("remove {}", undo.display()))?;
    write::sync_dir(partition)?;
    Ok(record.originals.len())
}

/// Records that were appended to a repaired segment would go with it.
fn refuse_grown(partition: &Path, undo: &Path, record: &Record) -> Result<()> {
    for (name, bytes) in record.new.iter().filter(|(name, _)| name.ends_with(".log")) {
        let is_back = !undo.join(name).exists();
        let now = fs::metadata(partition.join(name)).map_or(0, |metadata| metadata.len());
        if !is_back && now != *bytes {
            let message = format!(
                "{name} has {now} bytes and had {bytes} when it was repaired: what was appended since would be lost; \
                 the originals stay in {}",
                undo.display()
            );
            return Err(Failure::failed(message).into());
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

/// The contents of `undo.json`.
struct Record {
    originals: Vec<String>,
    new: Vec<(String, u64)>,
}

impl Record {
    fn read(undo: &Path) -> Result<Self> {
        let path = undo.join(RECORD);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let parsed = serde_json::from_slice(&bytes).ok().and_then(|value| Self::parse(&value));
        parsed
            .with_context(|| format!("{} is damaged: the files beside it are the originals", path.display()))
    }

    fn parse(value: &Value) -> Option<Self> {
        let originals = value["originals"].as_array()?.iter().map(plain_name).collect::<Option<_>>()?;
        let arrival = |entry: &Value| Some((plain_name(&entry["name"])?, entry["bytes"].as_u64()?));
        let new = value["new"].as_array()?.iter().map(arrival).collect::<Option<_>>()?;
        Some(Self { originals, new })
    }

    fn has_new(&self, name: &str) -> bool {
        self.new.iter().any(|(new, _)| new == name)
    }
}

/// A file's name that leads nowhere else.
fn plain_name(value: &Value) -> Option<String> {
    let name = value.as_str()?;
    let is_plain = !name.is_empty() && !name.contains('/') && name != ".." && name != ".";
    is_plain.then(|| name.to_owned())
}
