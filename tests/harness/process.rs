//! What a process costs: the memory that it holds and the time that it has used.

use std::time::Duration;

use anyhow::Context as _;

/// Memory of a process that is its own, in bytes: `RssAnon`, without the pages of mapped files, which belong to the
/// page cache.
pub(crate) fn anonymous_bytes(pid: u32) -> anyhow::Result<u64> {
    status_bytes(pid, "RssAnon:")
}

/// The most memory that a process has held at once, pages of mapped files included: `VmHWM`.
pub(crate) fn resident_peak_bytes(pid: u32) -> anyhow::Result<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("the kernel says {name}"))?;
    let kib: u64 =
        line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name} is a number"))?;
    Ok(kib * 1024)
}

/// Processor time of a process, user and system, in steps of a clock tick (proc_pid_stat(5)).
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("stat names the program")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().context("times are numbers"))
        .sum::<anyhow::Result<u64>>()?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}
