//! What virtual machines are made of: QEMU, nbdkit, a kernel of Debian's, and a file system in memory that holds the
//! broker, the libraries that it needs and busybox.
//!
//! QEMU and nbdkit are the system's, the kernel and busybox are unpacked from packages: nobody boots them but us.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::broker;
use super::skip::{Absent, Unavailable};
use super::toolbox;

/// The kernel with drivers for virtual machines alone.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const KERNEL_PREFIX: &str = "vmlinuz-";
const KERNEL_SUFFIX: &str = "-cloud-amd64";
/// What a machine loads, with what that needs. What a kernel has built in is not there as a file.
const MODULES: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_pci",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_blk",
    "virtio_net",
    "net_failover",
    "failover",
    "ext4",
    "jbd2",
    "mbcache",
    "crc16",
    "crc32c_generic",
];
/// What runs first in a machine.
const INIT: &str = include_str!("machine.sh");

/// The programs and packages that machines are made of.
pub(crate) struct Parts {
    qemu: PathBuf,
    nbdkit: PathBuf,
    kernel: PathBuf,
    modules: PathBuf,
    busybox: PathBuf,
}

/// Finds the parts, and installs those that are missing.
pub(crate) fn parts() -> Result<Parts, Unavailable> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Absent::Toolchain("the virtual machine is an x86-64, this machine is not".into()).into());
    }
    // They come with e2fsprogs and with the C library, which the broker runs on.
    toolbox::program("mkfs.ext4")?;
    toolbox::program("ldd")?;
    let packages = toolbox::unpacked("machine", &[KERNEL_PACKAGE, "busybox-static"])?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| packages.join(path));
    let busybox = busybox.into_iter().find(|file| file.is_file());
    // A system that runs this kernel itself has it installed, and then apt has fetched nothing but its name.
    let kernel = [packages.as_path(), Path::new("/")].into_iter().find_map(kernel_below);
    let (Some(busybox), Some((kernel, modules))) = (busybox, kernel) else {
        return Err(Unavailable::Broken(format!("no busybox or no kernel in {}", packages.display())));
    };
    let qemu = toolbox::debian("qemu-system-x86_64", "qemu-system-x86")?;
    let nbdkit = toolbox::debian("nbdkit", "nbdkit")?;
    Ok(Parts { qemu, nbdkit, kernel, modules, busybox })
}

/// A kernel and the folder of its modules.
fn kernel_below(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let files = fs::read_dir(root.join("boot")).ok()?.flatten();
    files.filter_map(|file| file.file_name().into_string().ok()).find_map(|name| {
        let version = name.strip_prefix(KERNEL_PREFIX).filter(|version| version.ends_with(KERNEL_SUFFIX))?;
        let modules = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path).join(version));
        let modules = modules.into_iter().find(|folder| folder.is_dir())?;
        Some((root.join("boot").join(&name), modules))
    })
}

/// Everything that a machine needs but its disk.
pub(crate) struct Kit {
    pub(super) qemu: PathBuf,
    pub(super) nbdkit: PathBuf,
    pub(super) kernel: PathBuf,
    /// The file system in memory that a machine begins with, as an archive.
    pub(super) memory: PathBuf,
    /// Holds the archive. Removed when dropped.
    _directory: TempDir,
}

impl Kit {
    /// Packs the broker of the tests.
    pub(crate) fn pack(parts: Parts) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("highwater-machine-")?;
        let root = directory.path().join("root");
        for folder in ["dev", "proc", "sys", "disk"] {
            fs::create_dir_all(root.join(folder))?;
        }
        copy(&parts.busybox, &root.join("bin/busybox"))?;
        let highwater = broker::binary()?;
        copy(highwater, &root.join("bin/highwater"))?;
        for library in libraries_of(highwater)? {
            copy(&library, &below(&root, &library))?;
        }
        fs::write(root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        copy_modules(&parts, &root)?;
        let memory = directory.path().join("memory.cpio");
        // Not compressed: an emulated processor copies faster than it unpacks.
        let archive = Command::new("sh")
            .args(["-c", "find . | \"$1\" cpio -o -H newc > \"$2\"", "sh"])
            .args([&parts.busybox, &memory])
            .current_dir(&root)
            .stderr(Stdio::null())
            .status()?;
        ensure!(archive.success(), "cpio ended with {archive}");
        fs::remove_dir_all(&root)?;
        let Parts { qemu, nbdkit, kernel, .. } = parts;
        Ok(Self { qemu, nbdkit, kernel, memory, _directory: directory })
    }
}

/// The shared libraries of a program and the linker that loads them, as `ldd` names them.
fn libraries_of(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    ensure!(output.status.success(), "ldd ended with {}", output.status);
    let said = String::from_utf8(output.stdout)?;
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn copy_modules(parts: &Parts, root: &Path) -> anyhow::Result<()> {
    let version = parts.modules.file_name().context("modules lie in a folder of their version")?;
    let target = root.join("lib/modules").join(version);
    for file in files_below(&parts.modules)? {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // `.ko`, or `.ko.xz` where a distribution compresses them.
        let is_wanted = name.split_once(".ko").is_some_and(|(name, _)| MODULES.contains(&name));
        if is_wanted || name == "modules.builtin" || name == "modules.order" {
            copy(&file, &target.join(name))?;
        }
    }
    let depmod = Command::new(&parts.busybox).args(["depmod", "-b"]).arg(root).arg(version).status()?;
    ensure!(depmod.success(), "depmod ended with {depmod}");
    Ok(())
}

fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Links are not followed: the only ones lead to the kernel's sources.
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn below(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to.parent().context("files lie in folders")?)?;
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}
