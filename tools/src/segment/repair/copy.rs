//! `repair --to`: the salvaged copy, in a directory of its own.
//!
//! A partition appears under its name when all of it is durable; a copy that was interrupted is begun anew. Our own
//! disposable sidecars are left out, since the next start makes them again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::plan::Plan;
use super::{report, write};
use crate::failure::Failure;

/// Copies what can be salvaged of each partition into `to`.
pub(super) fn run(plans: &[Plan], to: &Path) -> Result<()> {
    let name = |plan: &Plan| plan.dir.file_name().unwrap_or_default().to_owned();
    let real = real_place(to);
    for (number, plan) in plans.iter().enumerate() {
        let place = to.join(name(plan));
        if real.starts_with(&plan.dir) {
            let message = format!("{} is inside {}, which stays as it is", to.display(), plan.dir.display());
            return Err(Failure::usage(message).into());
        }
        if plans[..number].iter().any(|before| name(before) == name(plan)) {
            let message = format!("two partitions would be {}: copy one at a time", place.display());
            return Err(Failure::usage(message).into());
        }
        if place.exists() {
            let message = format!("{} exists already; name an empty directory", place.display());
            return Err(Failure::failed(message).into());
        }
    }
    write::create_dir(to)?;
    for plan in plans {
        let mut partial = name(plan);
        partial.push(".highwater-partial");
        let partial = to.join(partial);
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
        }
        partition(plan, &partial)?;
        fs::rename(&partial, to.join(name(plan))).with_context(|| format!("name {}", partial.display()))?;
    }
    let report = report::of(plans, report::Done::Copied(to));
    let path = to.join(report::FILE_NAME);
    if path.exists() {
        fs::remove_file(&path).with_context(|| format!("replace {}", path.display()))?;
    }
    write::write_file(&path, &report)?;
    write::sync_dir(to)
}

/// Where a directory is or will be, links followed.
fn real_place(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = absolute.ancestors().find_map(|above| {
        let rest = absolute.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    real.unwrap_or(absolute)
}

fn partition(plan: &Plan, dir: &Path) -> Result<()> {
    write::create_dir(dir)?;
    for segment in plan.segments.iter().filter(|segment| !segment.goes) {
        write::segment(segment, dir)?;
    }
    for path in write::carried(plan)? {
        write::copy_file(&path, &dir.join(path.file_name().unwrap_or_default()))?;
    }
    if let Some(text) = plan.epochs.text().filter(|_| !dir.join(write::EPOCHS).exists()) {
        write::write_file(&dir.join(write::EPOCHS), text.as_bytes())?;
    }
    write::sync_dir(dir)
}
