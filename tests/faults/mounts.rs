//! File systems of a test's own: ext4 and xfs in image files, whose power can be cut, and tmpfs.
//!
//! A power cut is the shutdown ioctl (`xfs_io -x -c shutdown`): from then on nothing reaches the image, and what was
//! not synced is gone at the next mount. It does not model a drive that lies about its flushes. Needs root.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::harness::skip::{Absent, Unavailable};
use crate::harness::toolbox;

use super::setting::{is_root, run};

/// A file system in an image file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// The file system of a trial.
    pub(crate) const fn of_trial(trial: u64) -> Self {
        if trial.is_multiple_of(2) { Self::Ext4 } else { Self::Xfs }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        })
    }
}

/// Whether something may be mounted here.
pub(crate) fn can_mount() -> Result<(), Unavailable> {
    if !is_root() {
        return Err(Absent::Root("mounting needs root".to_owned()).into());
    }
    let directory = tempfile::tempdir().map_err(|error| Unavailable::Broken(error.to_string()))?;
    let probe = Mount::tmpfs(1 << 20, &directory.path().join("probe"));
    probe.map(drop).map_err(|_| Absent::Root("this root may not mount".to_owned()).into())
}

/// Whether file systems in image files may be mounted here, and cut off.
pub(crate) fn can_mount_images() -> Result<(), Unavailable> {
    can_mount()?;
    if run("losetup", &["--find"]).is_err() {
        return Err(Absent::Root("this machine has no loop devices".to_owned()).into());
    }
    toolbox::debian("xfs_io", "xfsprogs").map(drop)
}

/// A mounted file system. Unmounted when dropped.
pub(crate) struct Mount {
    image: Option<PathBuf>,
    point: PathBuf,
    is_mounted: bool,
}

impl Mount {
    /// Makes a file system in an image file of 400 MiB beside `point`, and mounts it there.
    pub(crate) fn image(file_system: FileSystem, point: &Path) -> anyhow::Result<Self> {
        // xfs refuses to be smaller than 300 MiB; the file is sparse.
        Self::image_of(400 << 20, file_system, point)
    }

    /// Makes a file system of `bytes` bytes in an image file beside `point`, and mounts it there.
    pub(crate) fn image_of(bytes: u64, file_system: FileSystem, point: &Path) -> anyhow::Result<Self> {
        let image = point.with_extension("img");
        std::fs::File::create(&image)?.set_len(bytes)?;
        let maker = match file_system {
            FileSystem::Ext4 => "mkfs.ext4",
            FileSystem::Xfs => "mkfs.xfs",
        };
        run(maker, &["-q", text(&image)])?;
        std::fs::create_dir(point)?;
        let mut mount = Self { image: Some(image), point: point.to_owned(), is_mounted: false };
        mount.mount()?;
        Ok(mount)
    }

    /// Mounts a tmpfs of `bytes` bytes.
    pub(crate) fn tmpfs(bytes: u64, point: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(point)?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", text(point)])?;
        Ok(Self { image: None, point: point.to_owned(), is_mounted: true })
    }

    /// Mounts `point` onto itself, so that it can be made read-only.
    pub(crate) fn bind(point: &Path) -> anyhow::Result<Self> {
        run("mount", &["--bind", text(point), text(point)])?;
        Ok(Self { image: None, point: point.to_owned(), is_mounted: true })
    }

    /// Refuses all writes.
    pub(crate) fn make_read_only(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "remount,bind,ro", text(&self.point)]).map(drop)
    }

    /// Cuts the power: nothing more reaches the image. The mount is of no use until [`Mount::power_up`].
    pub(crate) fn cut_power(&self) -> anyhow::Result<()> {
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.point)]).map(drop)
    }

    /// Mounts again what the cut has left. Nobody may have files open.
    pub(crate) fn power_up(&mut self) -> anyhow::Result<()> {
        run("umount", &[text(&self.point)])?;
        self.is_mounted = false;
        self.mount()
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let image = self.image.as_deref().expect("only images are mounted again");
        run("mount", &["-o", "loop", text(image), text(&self.point)])?;
        self.is_mounted = true;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted {
            // Lazily: a test that failed may have left a broker on it. There is nobody to tell of an error.
            let _ = run("umount", &["--lazy", text(&self.point)]);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are ASCII")
}
