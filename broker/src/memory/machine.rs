//! What the system says about memory: how much there is for this process, and how much it has held at most.

use std::path::{Path, PathBuf};

use super::MemorySize;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What is assumed where the system does not say.
const UNKNOWN_BYTES: u64 = 1 << 30;

/// The default budget on this machine.
pub(crate) fn default_budget() -> MemorySize {
    let machine = field_of("/proc/meminfo", "MemTotal:").unwrap_or(UNKNOWN_BYTES);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = cgroup_limit(Path::new(CGROUPS), &groups);
    MemorySize::share_of(limit.map_or(machine, |limit| limit.min(machine)))
}

/// The most memory that this process has held at once, pages of mapped files included (`VmHWM`, proc_pid_status(5)).
pub(crate) fn resident_peak_bytes() -> Option<u64> {
    field_of("/proc/self/status", "VmHWM:")
}

/// A line of a file in proc that counts in kB, in bytes.
fn field_of(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// The least limit of the groups that `membership` (`/proc/self/cgroup`, cgroups(7)) names, and of all above them.
fn cgroup_limit(mounts: &Path, membership: &str) -> Option<u64> {
    let places = membership.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next(), parts.next().unwrap_or(""), parts.next().unwrap_or("/"));
        let (roots, file): (Vec<PathBuf>, _) = match controllers {
            // Version 2, alone or beside version 1.
            "" => (vec![mounts.to_owned(), mounts.join("unified")], "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (vec![mounts.join("memory")], "memory.limit_in_bytes")
            }
            _ => (Vec::new(), ""),
        };
        let path = path.trim_start_matches('/').to_owned();
        // In a container the path may be the host's and lead nowhere here; the group's own files are at the root then.
        roots.into_iter().flat_map(move |root| {
            let below: Vec<PathBuf> =
                Path::new(&path).ancestors().map(|part| root.join(part).join(file)).collect();
            below
        })
    });
    // "max" is no number, which means no limit.
    places.filter_map(|place| std::fs::read_to_string(place).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_above_the_process_counts_in_version_2() {
        let root = mounted(&[
            ("memory.max", "max\n"),
            ("pod/memory.max", "268435456\n"),
            ("pod/broker/memory.max", "536870912\n"),
            ("pod/other/memory.max", "1\n"),
        ]);

        assert_eq!(cgroup_limit(root.path(), "0::/pod/broker\n"), Some(256 << 20));
        assert_eq!(cgroup_limit(root.path(), "0::/\n"), None);
    }

    #[test]
    fn the_memory_controller_of_version_1_counts_and_no_other() {
        let root = mounted(&[
            ("memory/box/memory.limit_in_bytes", "134217728\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu/box/memory.limit_in_bytes", "1\n"),
        ]);

        let membership = "5:devices:/\n4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n";

        assert_eq!(cgroup_limit(root.path(), membership), Some(128 << 20));
    }

    #[test]
    fn a_path_that_leads_nowhere_here_means_the_root_of_the_mount() {
        let root = mounted(&[("memory/memory.limit_in_bytes", "67108864\n")]);

        assert_eq!(cgroup_limit(root.path(), "4:memory:/docker/0123\n"), Some(64 << 20));
    }

    #[test]
    fn this_process_has_held_something() {
        assert!(resident_peak_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(default_budget().bytes() >= 64 << 20);
    }
}
