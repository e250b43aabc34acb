//! `segment verify`: every fault of a directory as a row that a program can read, and exit code 3 if one is an error.
//!
//! Segments are read on all cores, large ones in stretches; rows come in the order of the files. What a broker is
//! appending to is no fault.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use highwater_record::{Offset, TimestampMs};

use super::check::{self, Checked, Depth, Part};
use super::data_files::DataKnown;
use super::fault::{COLUMNS, Fault, Severity};
use super::files::PartitionFiles;
use super::parallel::{self, Sink};
use super::plan;
use super::progress::Progress;
use super::sidecars::{self, Known};
use crate::failure::{Failure, PROBLEMS};
use crate::output::{OutputFormat, Rows, note};
use crate::time;

/// What is verified.
#[derive(Clone, Debug)]
pub(super) struct Request<'a> {
    /// The paths that were asked for.
    pub(super) paths: &'a [PathBuf],
    pub(super) partitions: &'a [PartitionFiles],
    pub(super) depth: Depth,
    /// Only segments that were written since.
    pub(super) since: Option<TimestampMs>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Verified {
    pub(super) faults: Vec<Fault>,
    pub(super) segments: usize,
    pub(super) bytes: u64,
}

/// A moment or how long ago it was.
pub(super) fn parse_since(text: &str, now: TimestampMs) -> Result<TimestampMs> {
    if let Some(moment) = time::parse_moment(text) {
        return Ok(moment);
    }
    let ago = time::parse_duration(text.strip_prefix('-').unwrap_or(text));
    let ago = ago.and_then(|ago| i64::try_from(ago.as_millis()).ok());
    let since = ago.map(|ago| TimestampMs(now.0.saturating_sub(ago)));
    since
        .ok_or_else(|| Failure::usage(format!("{text:?} is neither a time nor a duration such as 2h")).into())
}

/// Verifies and prints.
pub(super) fn run(request: &Request<'_>, output: OutputFormat) -> Result<ExitCode> {
    let begun = Instant::now();
    let verified = verify(request)?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut rows = Rows::new(COLUMNS);
    verified.faults.iter().for_each(|fault| rows.push(fault.row()));
    rows.print(output)?;
    let count = |severity| verified.faults.iter().filter(|fault| fault.severity == severity).count();
    let errors = count(Severity::Error);
    let speed = verified.bytes as f64 / 1e9 / seconds.max(1e-9);
    note(format_args!(
        "{} segments, {} bytes, {speed:.2} GB/s: {errors} errors, {} warnings, {} notes",
        verified.segments,
        verified.bytes,
        count(Severity::Warning),
        count(Severity::Note)
    ));
    Ok(if errors > 0 { ExitCode::from(PROBLEMS) } else { ExitCode::SUCCESS })
}

/// Finds the faults, in the order of the files.
pub(super) fn verify(request: &Request<'_>) -> Result<Verified> {
    let mut verified = Verified::default();
    let directories: Vec<PathBuf> = request.partitions.iter().filter_map(sidecars::directory).collect();
    let known = known(request, &directories, &mut verified.faults)?;
    let mut plans = Vec::new();
    for (partition, known) in request.partitions.iter().zip(&known) {
        plans.push(plan::parts(partition, known, request.depth));
    }
    let is_wanted = |part: &Part<'_>| {
        request
            .since
            .is_none_or(|since| plan::modified(part.segment).is_none_or(|modified| modified >= since.0))
    };
    let parts: Vec<(usize, &Part<'_>)> = (plans.iter().enumerate())
        .flat_map(|(number, plan)| plan.0.iter().map(move |part| (number, part)))
        .filter(|(_, part)| is_wanted(part))
        .collect();
    let bytes = |part: &Part<'_>| part.stretch.bytes.end - part.stretch.bytes.start;
    let progress = Progress::new("verify", parts.iter().map(|(_, part)| bytes(part)).sum());
    let work = |(_, part): &(usize, &Part<'_>), sink: &Sink<Checked>| {
        let checked = check::check(part)?;
        progress.add(checked.bytes);
        let _ = sink.put(checked);
        Ok(())
    };
    let mut found: Vec<(Vec<Fault>, Option<Offset>)> = vec![(Vec::new(), None); request.partitions.len()];
    parallel::in_order(&parts, parallel::cores(), work, |(number, part), checked| {
        verified.segments += usize::from(part.stretch.bytes.start == 0);
        verified.bytes += checked.bytes;
        found[*number].0.extend(checked.faults);
        found[*number].1 = part.segment.next_base.is_none().then_some(checked.end);
        Ok(ControlFlow::Continue(()))
    })?;
    progress.finish();
    for (number, (faults, end)) in found.into_iter().enumerate() {
        let (partition, known) = (&request.partitions[number], &known[number]);
        verified.faults.extend(std::mem::take(&mut plans[number].1));
        verified.faults.extend(faults);
        if asks_for(request.paths, &directories[number]) {
            verified.faults.extend(known.faults.iter().cloned());
            let end = end.into_iter();
            verified.faults.extend(end.flat_map(|end| known.against(partition, &directories[number], end)));
        }
    }
    Ok(verified)
}

/// What is known of each partition. Faults of data directories that were asked for are told.
fn known(request: &Request<'_>, directories: &[PathBuf], faults: &mut Vec<Fault>) -> Result<Vec<Known>> {
    let mut data: Option<(&Path, DataKnown)> = None;
    let mut known = Vec::new();
    for (partition, directory) in request.partitions.iter().zip(directories) {
        let parent = directory.parent().unwrap_or(directory);
        let read = match data.take().filter(|(path, _)| *path == parent) {
            Some((_, read)) => read,
            None => {
                // What is above a copied partition is nobody's business, and may not even be readable.
                let is_asked = asks_for(request.paths, parent);
                let read = DataKnown::read(parent);
                let read = if is_asked { read? } else { read.unwrap_or_default() };
                if is_asked {
                    faults.extend(read.faults.iter().cloned());
                }
                read
            }
        };
        known.push(Known::read(partition, directory, &read)?);
        data = Some((parent, read));
    }
    Ok(known)
}

/// Whether a directory is one of the paths or below one.
fn asks_for(paths: &[PathBuf], directory: &Path) -> bool {
    let asked = |path: &PathBuf| path.canonicalize().is_ok_and(|path| directory.starts_with(path));
    paths.iter().any(asked)
}
