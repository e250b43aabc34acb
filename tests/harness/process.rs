//! How much memory a process holds.

use anyhow::Context as _;

/// Memory of a process that is its own, in bytes: `RssAnon`, without the pages of mapped files, which belong to the
/// page cache.
pub(crate) fn anonymous_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("the kernel says RssAnon")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("RssAnon is a number")?;
    Ok(kib * 1024)
}
