//! Making a log durable without holding it: take a job, run it anywhere, hand the result back.
//!
//! One job at a time. A job covers everything that was appended when it was taken: segment files oldest first, then
//! the directories that got new names. A job that fails is final (D4): what it would have made durable is cut off,
//! and the log goes on in a new segment. Epoch file, sidecar and indexes ride along; they are disposable, and their
//! failure is not the job's.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_record::{LeaderEpoch, Offset};
use rustix::io::Errno;

use crate::epochs;
use crate::files::{Access, FileLayer};
use crate::log::Log;
use crate::own_file::{self, Durable};
use crate::point::LogPoint;
use crate::producers;
use crate::segment::Segment;

/// Work that makes a log durable up to [`SyncJob::target`].
#[derive(Debug)]
pub struct SyncJob {
    files: Arc<dyn FileLayer>,
    dir: PathBuf,
    target: LogPoint,
    generation: u64,
    /// Oldest first, each with the end that it had.
    segments: Vec<(Arc<Segment>, LogPoint)>,
    metadata: Option<PathBuf>,
    sync_dir: bool,
    sync_parent: bool,
    epochs: Option<String>,
    epochs_stored: AtomicBool,
    indexes: Vec<Arc<Segment>>,
    sidecar: Option<SidecarJob>,
}

/// Work that writes the producers' sidecar. It may be dropped.
#[derive(Debug)]
pub struct SidecarJob {
    files: Arc<dyn FileLayer>,
    path: PathBuf,
    end: Offset,
    bytes: Vec<u8>,
    stored: AtomicBool,
}

/// What a sync came to.
#[derive(Debug)]
pub enum SyncOutcome {
    /// The log is durable up to here.
    Durable(LogPoint),
    /// The log was cut while the job ran; the job says nothing about it any more.
    Superseded,
    /// The process has no descriptor left to sync with. Nothing was lost: take another job later.
    Postponed(io::Error),
    /// The sync failed, which is final. Nothing above `end` may be acknowledged.
    Failed {
        /// Why.
        error: io::Error,
        /// Where the log ends now.
        end: LogPoint,
        /// Whether the log takes appends again; if not, [`Log::resume`] must be tried.
        resumed: bool,
    },
}

impl SyncJob {
    /// The place that the log is durable up to when the job has succeeded.
    pub const fn target(&self) -> LogPoint {
        self.target
    }

    /// What is known of the job's fate before it runs: the error of a sync that was made when one of its files was
    /// closed for want of descriptors. Whoever syncs the whole file system instead must ask.
    pub fn known_failure(&self) -> io::Result<()> {
        self.segments.iter().try_for_each(|(segment, _)| segment.known_failure())
    }

    /// Does the work, on any thread, without the log. It must be run at most once, and its result handed back.
    pub fn run(&self) -> io::Result<()> {
        if let Some(text) = &self.epochs {
            let path = self.dir.join(epochs::FILE_NAME);
            match own_file::store(&*self.files, &path, text.as_bytes(), Durable::Contents) {
                Ok(()) => self.epochs_stored.store(true, Ordering::Release),
                // The log was given up meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "epochs are not stored"),
            }
        }
        for (segment, _) in &self.segments {
            match segment.sync_log() {
                // Retention took the segment while the job was out.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        if let Some(path) = &self.metadata {
            self.files.open(path, Access::Write)?.fdatasync()?;
        }
        if self.sync_dir {
            self.files.sync_dir(&self.dir)?;
        }
        if let Some(parent) = self.dir.parent().filter(|_| self.sync_parent) {
            self.files.sync_dir(parent)?;
        }
        for segment in &self.indexes {
            segment.sync_indexes();
        }
        if let Some(sidecar) = &self.sidecar
            && let Err(error) = sidecar.run()
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %sidecar.path.display(), %error, "producer state is not stored");
        }
        Ok(())
    }
}

/// Whether a call failed before it reached the disk, for want of a descriptor: neither fsync nor fdatasync says this.
fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

impl SidecarJob {
    /// Writes the sidecar.
    pub fn run(&self) -> io::Result<()> {
        own_file::store(&*self.files, &self.path, &self.bytes, Durable::Contents)?;
        self.stored.store(true, Ordering::Release);
        Ok(())
    }
}

impl Log {
    /// Whether a segment was sealed that no job has taken up yet. Who syncs no appends syncs then, so that the recovery
    /// point moves.
    pub fn has_sealed(&self) -> bool {
        !self.owed.indexes.is_empty()
    }

    /// Work that makes all of the log durable; `None` if it is, or while another job is out.
    pub fn begin_sync(&mut self) -> Option<SyncJob> {
        if self.syncing || self.failed || self.durable.offset == self.end.offset {
            return None;
        }
        let durable = self.durable.offset;
        let segments = self.view.segments();
        let first = segments.partition_point(|segment| segment.end().offset <= durable);
        let segments = segments[first..].iter().map(|segment| (Arc::clone(segment), segment.end())).collect();
        let metadata = if self.owed.parent { self.metadata_path() } else { None };
        self.syncing = true;
        Some(SyncJob {
            files: Arc::clone(&self.place.files),
            dir: self.place.dir.clone(),
            target: self.end,
            generation: self.generation,
            segments,
            metadata,
            sync_dir: std::mem::take(&mut self.owed.dir),
            sync_parent: std::mem::take(&mut self.owed.parent),
            epochs: self.owed.epochs.then(|| self.view.epochs().to_text()),
            epochs_stored: AtomicBool::new(false),
            indexes: std::mem::take(&mut self.owed.indexes),
            sidecar: if self.owed.sidecar { self.sidecar() } else { None },
        })
    }

    /// Takes the result of a job. After a failure the log is cut at its durable end and goes on in a new segment,
    /// whose batches get at least `new_epoch`.
    pub fn finish_sync(
        &mut self,
        job: SyncJob,
        result: io::Result<()>,
        new_epoch: LeaderEpoch,
    ) -> SyncOutcome {
        self.syncing = false;
        if let Err(error) = result {
            if out_of_descriptors(&error) && job.generation == self.generation {
                self.owe_again(job);
                return SyncOutcome::Postponed(error);
            }
            tracing::error!(dir = %self.place.dir.display(), %error, "sync failed; what it covered is cut off");
            // Names that were not made durable are owed again, now by the new segment.
            self.owed.dir |= job.sync_dir;
            self.owed.parent |= job.sync_parent;
            drop(job);
            self.fail();
            let resumed = self.resume(new_epoch, self.durable.offset);
            if let Err(error) = &resumed {
                tracing::error!(dir = %self.place.dir.display(), %error, "the log takes no appends");
            }
            return SyncOutcome::Failed { error, end: self.end, resumed: resumed.is_ok() };
        }
        if job.generation != self.generation {
            return SyncOutcome::Superseded;
        }
        for (segment, end) in &job.segments {
            segment.set_durable(*end);
        }
        self.set_durable(job.target);
        if job.epochs_stored.load(Ordering::Acquire) {
            self.owed.epochs = job.epochs.as_deref() != Some(&*self.view.epochs().to_text());
        }
        if let Some(sidecar) = &job.sidecar {
            self.finish_sidecar(sidecar);
        }
        SyncOutcome::Durable(job.target)
    }

    /// Takes back what a job was to do besides the segments, which stay dirty by themselves.
    fn owe_again(&mut self, job: SyncJob) {
        self.owed.dir |= job.sync_dir;
        self.owed.parent |= job.sync_parent;
        self.owed.indexes.extend(job.indexes);
    }

    /// Work that brings the producers' sidecar up to the end of a log that is durable, so that opening it again
    /// needs no walk; `None` if it is there already. Handing it back with [`Log::finish_sidecar`] is all that it needs.
    pub fn sidecar_job(&self) -> Option<SidecarJob> {
        let due = self.durable.offset == self.end.offset && self.owed.sidecar_end != Some(self.end.offset);
        (due && self.dir_exists && !self.failed).then(|| self.sidecar()).flatten()
    }

    /// Takes note of a sidecar, if it was written.
    pub fn finish_sidecar(&mut self, job: &SidecarJob) {
        if job.stored.load(Ordering::Acquire) {
            self.owed.sidecar_end = Some(job.end);
            self.owed.sidecar = false;
        }
    }

    fn sidecar(&self) -> Option<SidecarJob> {
        Some(SidecarJob {
            files: Arc::clone(&self.place.files),
            path: self.place.dir.join(producers::FILE_NAME),
            end: self.end.offset,
            bytes: self.snapshot().encode(),
            stored: AtomicBool::new(false),
        })
    }
}
