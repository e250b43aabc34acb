//! A memory limit for a broker: a cgroup of its own, of the first or the second version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::skip::{Absent, Unavailable};

/// Where the memory controller of the first version lies, and where groups of the second do.
const ROOTS: [(&str, &str); 2] =
    [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];

/// A cgroup with a memory limit. Removed when dropped, after its processes have ended.
pub(crate) struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// A group of at most `bytes` bytes, page cache included, which the kernel takes back first.
    pub(crate) fn new(name: &str, bytes: u64) -> Result<Self, Unavailable> {
        if !rustix::process::geteuid().is_root() {
            return Err(Absent::Root("making a cgroup needs root".to_owned()).into());
        }
        for (root, limit) in ROOTS {
            let group = Self(Path::new(root).join(format!("highwater-{name}-{}", std::process::id())));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Ok(group);
            }
        }
        Err(Absent::Root("this root may not limit memory by a cgroup".to_owned()).into())
    }

    /// What a broker is run under: a shell that enters the group and becomes the broker.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }

    /// The most bytes that the group has held, page cache included.
    pub(crate) fn peak_bytes(&self) -> anyhow::Result<u64> {
        let read = |file: &str| fs::read_to_string(self.0.join(file));
        let text = read("memory.max_usage_in_bytes").or_else(|_| read("memory.peak"))?;
        text.trim().parse().context("a number of bytes")
    }

    /// How many processes the kernel has killed for the limit.
    pub(crate) fn kills(&self) -> anyhow::Result<u64> {
        let read = |file: &str| fs::read_to_string(self.0.join(file));
        let text = read("memory.oom_control").or_else(|_| read("memory.events"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.context("the kernel counts kills")?.trim().parse().context("a number of kills")
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // A broker that a failed test left in it keeps the group.
        let _ = fs::remove_dir(&self.0);
    }
}
