//! Writing what a plan says: segments and their indexes, synced, into a directory where nobody looks yet.
//!
//! Batches that stay are copied byte for byte. What was written is read again and must hold together as a whole before
//! anything else happens. It replaces nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use highwater_record::{Batch, BatchHeader, Offset};
use highwater_storage::{Crcs, IndexBuilder, Piece, SalvageScan};

use super::plan::{Part, Plan, SegmentPlan};

/// Bytes between two index entries: Kafka's default of `index.interval.bytes`, and ours.
const INDEX_INTERVAL_BYTES: u32 = 4096;

/// The suffixes of a segment's files that are written anew.
pub(super) const SUFFIXES: [&str; 3] = ["log", "index", "timeindex"];

/// Makes a directory that only its owner may look into.
pub(super) fn create_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("create {}", path.display()))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", path.display()))
}

/// Writes a small file whole, and syncs it.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Copies a file of any size, and syncs the copy.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let copy = || {
        let mut file = create(to)?;
        std::io::copy(&mut File::open(from)?, &mut file)?;
        file.sync_all()
    };
    copy().with_context(|| format!("copy {}", from.display()))
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Writes a segment and both indexes into `dir`.
pub(super) fn segment(plan: &SegmentPlan, dir: &Path) -> Result<()> {
    let path = dir.join(plan.file.path.file_name().unwrap_or_default());
    log(plan, &path).with_context(|| format!("write {}", path.display()))?;
    let damage = indexes(&path, plan.file.base, plan.file.next_base, dir)?;
    if let Some(position) = damage {
        bail!("{} does not hold together at position {position} after it was written", path.display());
    }
    Ok(())
}

/// Writes the indexes of a segment file into `dir`; says where the first damage is, which they lead past.
pub(super) fn indexes(
    log: &Path,
    base: Offset,
    next_base: Option<Offset>,
    dir: &Path,
) -> Result<Option<u64>> {
    let mut damage = None;
    let mut index = || {
        let mut builder = IndexBuilder::create(dir, base, INDEX_INTERVAL_BYTES)?;
        for piece in SalvageScan::open(log, base, next_base, Crcs::Compared)? {
            match piece? {
                Piece::Good(batch) => builder.add(batch.position, &batch.header),
                Piece::Damaged(bad) => damage = damage.or(Some(bad.from_position)),
            }
        }
        builder.finish()?;
        // An index without entries is not synced by its builder: nothing is in it, but its name is to stay.
        for suffix in ["index", "timeindex"] {
            File::open(dir.join(format!("{:020}.{suffix}", base.get())))?.sync_all()?;
        }
        anyhow::Ok(())
    };
    index().with_context(|| format!("write the indexes of {}", log.display()))?;
    Ok(damage)
}

fn log(plan: &SegmentPlan, path: &Path) -> Result<()> {
    let mut source = File::open(&plan.file.path)?;
    let modified = source.metadata()?.modified()?;
    let mut out = BufWriter::with_capacity(256 << 10, create(path)?);
    for part in &plan.parts {
        match part {
            Part::Kept(bytes) => copy(&mut source, bytes, &mut out)?,
            Part::Empty { offsets, like: Some(like) } => empty(offsets, like, &mut out)?,
            // Without a single batch in the whole log there is nothing to step over.
            Part::Empty { like: None, .. } => {}
        }
    }
    let out = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    // Its age decides when retention takes it.
    out.set_modified(modified)?;
    Ok(out.sync_all()?)
}

fn copy(source: &mut File, bytes: &Range<u64>, out: &mut impl Write) -> Result<()> {
    source.seek(SeekFrom::Start(bytes.start))?;
    let wanted = bytes.end - bytes.start;
    let copied = std::io::copy(&mut Read::take(source, wanted), out)?;
    if copied < wanted {
        bail!("the file became shorter while it was read: {copied} of {wanted} bytes were left");
    }
    Ok(())
}

fn empty(offsets: &Range<Offset>, like: &BatchHeader, out: &mut impl Write) -> Result<()> {
    if let Some(batch) = Batch::without_records(offsets.start, offsets.end, like) {
        out.write_all(batch.bytes())?;
    }
    Ok(())
}

/// The files of a partition that a repair leaves as they are and a copy takes along: what Kafka keeps beside segments.
pub(super) fn carried(plan: &Plan) -> Result<Vec<PathBuf>> {
    let mut carried = Vec::new();
    let bases: Vec<_> = plan.segments.iter().filter(|segment| !segment.goes).map(|s| s.file.base).collect();
    for entry in fs::read_dir(&plan.dir).with_context(|| format!("list {}", plan.dir.display()))? {
        let path = entry.with_context(|| format!("list {}", plan.dir.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (stem, suffix) = name.rsplit_once('.').unwrap_or((&name, ""));
        let is_carried = match suffix {
            "metadata" => stem == "partition",
            "txnindex" => stem.parse().ok().and_then(Offset::new).is_some_and(|base| bases.contains(&base)),
            "snapshot" => !plan.changes_segments(),
            _ => name == EPOCHS && !plan.epochs_wrong,
        };
        if is_carried && path.is_file() {
            carried.push(path);
        }
    }
    carried.sort();
    Ok(carried)
}

/// Kafka's file of leader epochs.
pub(super) const EPOCHS: &str = "leader-epoch-checkpoint";
