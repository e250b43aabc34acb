//! The manifest of a partition: what its sealed segments are, so that one that is cut or gone is known by what it held.
//!
//! A file of ours, `manifest`: for each sealed and synced segment its offsets, size and time range, entered in the
//! background after the roll. It is read only when something is missing or nothing else is known, so that a start costs
//! no read of it. It has no checksum of whole files: every batch has one, and is held against it before it is served.
//! Disposable: without it less can be told, and what it lacks is added after the next roll. It vouches for offsets, so
//! it goes before a log is cut below them. Byte table in `broker/docs/format.md`.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_record::{BatchHeader, HEADER_BYTES, Offset, TimestampMs};

use crate::disk::DiskFiles;
use crate::files::FileLayer;
use crate::log::Log;
use crate::own_file::{self, Durable, Fields, Kind, frame, unframe};
use crate::segment::{Place, Segment, file_name};

const KIND: Kind = Kind { magic: *b"HWMF", version: 2 };
/// Name of the file in a partition's directory.
const FILE_NAME: &str = "manifest";
/// Size of a segment's entry.
const SEALED_BYTES: usize = 40;

/// A sealed segment, as the manifest of its partition has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SealedSegment {
    /// Its base offset.
    pub base: Offset,
    /// The offset after its last batch.
    pub end: Offset,
    /// Size of its `.log` file.
    pub bytes: u64,
    /// Base timestamp of its first batch.
    pub first_timestamp: TimestampMs,
    /// Its largest timestamp, -1 if no record has one.
    pub max_timestamp: TimestampMs,
}

/// The segments of one log, by base offset.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Manifest(Vec<SealedSegment>);

impl Manifest {
    /// Reads the file of a log; `None` if there is none that holds together.
    pub(super) fn load(place: &Place) -> Option<Self> {
        load(&*place.files, &place.dir.join(FILE_NAME))
    }

    /// The offset after everything that it knows of, all of which was synced.
    pub(super) fn end(&self) -> Offset {
        self.0.iter().map(|sealed| sealed.end).max().unwrap_or_default()
    }

    /// Size of the segment with this base offset, if it is known.
    pub(super) fn bytes_of(&self, base: Offset) -> Option<u64> {
        self.0.iter().find(|sealed| sealed.base == base).map(|sealed| sealed.bytes)
    }

    /// Whether it agrees that a segment whose file has `log_bytes` had no batch at the offsets behind its last one, so that
    /// these are a gap and not lost. What it does not know it does not deny.
    pub(super) fn allows_gap(&self, base: Offset, log_bytes: u64, gap: Range<Offset>) -> bool {
        match self.0.iter().find(|sealed| sealed.base == base) {
            Some(sealed) => sealed.bytes <= log_bytes && sealed.end >= gap.end,
            None => self.names(gap.start, gap.end).is_empty(),
        }
    }

    /// Whether it knows the segment with this base offset.
    pub(super) fn knows(&self, base: Offset) -> bool {
        self.0.iter().any(|sealed| sealed.base == base)
    }

    /// The files that held offsets of a range.
    pub(super) fn names(&self, from: Offset, to: Offset) -> Vec<String> {
        let held = self.0.iter().filter(|sealed| sealed.base < to && sealed.end > from);
        held.map(|sealed| file_name(sealed.base, "log")).collect()
    }

    /// Whether it has exactly this segment.
    fn has(&self, segment: &Segment) -> bool {
        let end = segment.end();
        let same = |sealed: &SealedSegment| {
            sealed.base == segment.base() && sealed.end == end.offset && sealed.bytes == end.bytes
        };
        self.0.iter().any(same)
    }

    fn put(&mut self, sealed: SealedSegment) {
        // It may have taken the place of several.
        self.0.retain(|old| old.base < sealed.base || old.base >= sealed.end);
        let at = self.0.partition_point(|old| old.base < sealed.base);
        self.0.insert(at, sealed);
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(4 + self.0.len() * SEALED_BYTES);
        body.extend_from_slice(&(self.0.len() as u32).to_be_bytes());
        for sealed in &self.0 {
            body.extend_from_slice(&sealed.base.get().to_be_bytes());
            body.extend_from_slice(&sealed.end.get().to_be_bytes());
            body.extend_from_slice(&sealed.bytes.to_be_bytes());
            body.extend_from_slice(&sealed.first_timestamp.0.to_be_bytes());
            body.extend_from_slice(&sealed.max_timestamp.0.to_be_bytes());
        }
        frame(KIND, &body)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unframe(KIND, bytes)?);
        let mut manifest = Self::default();
        for _ in 0..fields.u32()? {
            manifest.put(SealedSegment {
                base: Offset::new(fields.i64()?)?,
                end: Offset::new(fields.i64()?)?,
                bytes: u64::try_from(fields.i64()?).ok()?,
                first_timestamp: TimestampMs(fields.i64()?),
                max_timestamp: TimestampMs(fields.i64()?),
            });
        }
        fields.0.is_empty().then_some(manifest)
    }
}

/// Reads a partition's `manifest` offline: its segments by base offset, or nothing if it does not hold together.
pub fn read_manifest(path: &Path) -> io::Result<Option<Vec<SealedSegment>>> {
    let bytes = own_file::load(&DiskFiles, path)?.unwrap_or_default();
    Ok(Manifest::decode(&bytes).map(|manifest| manifest.0))
}

fn load(files: &dyn FileLayer, path: &Path) -> Option<Manifest> {
    own_file::load(files, path).ok().flatten().and_then(|bytes| Manifest::decode(&bytes))
}

/// Removes the manifest, durably, before something goes that it vouches for.
pub(super) fn forget(place: &Place) -> io::Result<()> {
    match place.files.unlink(&place.dir.join(FILE_NAME)) {
        Ok(()) => place.files.sync_dir(&place.dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Work that brings the manifest up to date. It waits for the disk; it may be dropped.
#[derive(Debug)]
pub struct ManifestJob {
    files: Arc<dyn FileLayer>,
    path: PathBuf,
    log_start: Offset,
    segments: Vec<Arc<Segment>>,
}

impl ManifestJob {
    /// Enters the segments that the manifest does not have, of each of which the first header is read, and replaces it.
    pub fn run(&self) -> io::Result<()> {
        let stored = load(&*self.files, &self.path);
        let mut manifest = stored.clone().unwrap_or_default();
        manifest.0.retain(|sealed| sealed.end > self.log_start);
        for segment in &self.segments {
            // A damaged one is remembered as it was.
            if manifest.has(segment) || segment.quarantine().concerns(segment.base()) {
                continue;
            }
            match sealed(segment) {
                Ok(sealed) => manifest.put(sealed),
                // Retention took it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if stored.as_ref() == Some(&manifest) {
            return Ok(());
        }
        own_file::store(&*self.files, &self.path, &manifest.encode(), Durable::Contents)
    }
}

fn sealed(segment: &Segment) -> io::Result<SealedSegment> {
    let end = segment.end();
    let max_timestamp = segment.max_time().timestamp;
    let mut head = [0; HEADER_BYTES];
    let read = segment.log_file()?.pread(&mut head, 0)?;
    let first = BatchHeader::parse(&head[..read]).ok();
    let first_timestamp = first.map_or(max_timestamp, |first| first.base_timestamp);
    Ok(SealedSegment {
        base: segment.base(),
        end: end.offset,
        bytes: end.bytes,
        first_timestamp,
        max_timestamp,
    })
}

impl Log {
    /// Work that enters segments which were sealed since the last time into the manifest; `None` if there is none, or
    /// none that is durable.
    pub fn manifest_job(&mut self) -> Option<ManifestJob> {
        if !self.owed.manifest || self.failed {
            return None;
        }
        let mut segments = Vec::clone(&self.view.segments());
        if let Some(writer) = &self.writer {
            segments.retain(|segment| segment.base() != writer.segment().base());
        }
        if segments.iter().any(|segment| segment.end().offset > self.durable.offset) {
            return None;
        }
        self.owed.manifest = false;
        Some(ManifestJob {
            files: Arc::clone(&self.place.files),
            path: self.place.dir.join(FILE_NAME),
            log_start: self.view.log_start(),
            segments,
        })
    }
}
