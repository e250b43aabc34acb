//! A virtual machine with a broker in it, which is killed as a whole: kernel, page cache, broker and all.
//!
//! QEMU emulates the processor (TCG), so that every machine can do it. The disk is an image behind nbdkit, which keeps
//! what is written to it to itself until it is told to flush, as the volatile cache of a drive does, and is killed
//! with the machine. Clients outside reach the broker through a port of QEMU's, so that their connections are reset
//! when it is killed; a machine that falls silent is not modelled.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::broker::Process;
use super::machine_kit::Kit;
use super::wait;

/// Memory of a machine: twice the archive that it begins with, and room for a page cache.
const MEMORY_MIB: u32 = 448;
/// Size of its disk. The file is sparse.
const DISK_BYTES: u64 = 400 << 20;

/// A machine that runs. Killed when dropped.
pub(crate) struct Machine<'a> {
    kit: &'a Kit,
    directory: PathBuf,
    address: SocketAddr,
    settings: Vec<String>,
    running: Running,
}

/// The processes of a machine that runs.
struct Running {
    qemu: Process,
    /// The disk.
    nbdkit: Process,
}

impl<'a> Machine<'a> {
    /// Makes a disk and starts a machine with it, and waits until clients can reach the broker. Settings are
    /// variables of the broker's environment, `NAME=VALUE`. Everything is kept in `directory`, what the machine says
    /// in `console.log`.
    pub(crate) fn start(kit: &'a Kit, directory: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let disk = directory.join("disk.img");
        File::create(&disk)?.set_len(DISK_BYTES)?;
        let made = Command::new("mkfs.ext4").arg("-q").arg(&disk).status().context("run mkfs.ext4")?;
        ensure!(made.success(), "mkfs.ext4 ended with {made}");
        let address = free_address()?;
        let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        settings.push(format!("HIGHWATER_ADVERTISE={address}"));
        let running = boot(kit, directory, address, &settings)?;
        Ok(Self { kit, directory: directory.to_owned(), address, settings, running })
    }

    /// Where clients find the broker.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the machine and its disk with SIGKILL, and waits until they are gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let Running { qemu, nbdkit } = &mut self.running;
        // One right after the other: what the disk has not flushed by then is lost.
        qemu.0.kill()?;
        nbdkit.0.kill()?;
        qemu.0.wait()?;
        nbdkit.0.wait()?;
        Ok(())
    }

    /// Starts a killed machine again, with what is left on its disk, and waits until clients can reach the broker.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.running = boot(self.kit, &self.directory, self.address, &self.settings)?;
        Ok(())
    }
}

fn boot(kit: &Kit, directory: &Path, address: SocketAddr, settings: &[String]) -> anyhow::Result<Running> {
    let nbdkit = spin_up(kit, directory)?;
    let console = directory.join("console.log");
    let mut said = OpenOptions::new().create(true).append(true).read(true).open(&console)?;
    said.seek(SeekFrom::End(0))?;
    let mut qemu = Process(power_up(kit, directory, settings)?);
    let mut text = String::new();
    wait::until("the broker in the machine", || {
        // A line may be read in pieces, and what a dying machine says is not always text.
        let mut bytes = Vec::new();
        said.read_to_end(&mut bytes)?;
        text.push_str(&String::from_utf8_lossy(&bytes));
        ensure!(qemu.0.try_wait()?.is_none(), "the machine has ended");
        Ok(text.lines().any(|line| line.starts_with("highwater ") && line.contains(" ready on ")))
    })
    .with_context(|| format!("its console:\n{text}"))?;
    open_port(&mut qemu.0, address)
        .with_context(|| fs::read_to_string(directory.join("qemu.log")).unwrap_or_default())?;
    Ok(Running { qemu, nbdkit })
}

/// Starts the disk, and waits until it can be connected to.
fn spin_up(kit: &Kit, directory: &Path) -> anyhow::Result<Process> {
    let (socket, pid) = (directory.join("disk.sock"), directory.join("disk.pid"));
    // What a killed disk has left.
    for file in [&socket, &pid] {
        if file.exists() {
            fs::remove_file(file)?;
        }
    }
    let mut command = Command::new(&kit.nbdkit);
    command.arg("--foreground").arg("--unix").arg(&socket).arg("--pidfile").arg(&pid);
    command.arg("--filter=cache").arg("file").arg(directory.join("disk.img"));
    // The blocks of ext4, so that neighbours do not reach the disk together.
    command.args(["cache=writeback", "cache-min-block-size=4096"]);
    let mut nbdkit = Process(command.stdin(Stdio::null()).spawn().context("start nbdkit")?);
    wait::until("nbdkit to listen", || {
        ensure!(nbdkit.0.try_wait()?.is_none(), "nbdkit has ended");
        Ok(pid.exists())
    })?;
    Ok(nbdkit)
}

fn power_up(kit: &Kit, directory: &Path, settings: &[String]) -> anyhow::Result<Child> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut command = Command::new(&kit.qemu);
    command.args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", &MEMORY_MIB.to_string()]);
    // The emulated processor has an instruction for random numbers, without which the kernel collects them for long.
    command.args(["-cpu", "max", "-nodefaults", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(&kit.kernel).arg("-initrd").arg(&kit.memory);
    command.arg("-append").arg(format!("console=ttyS0 quiet panic=-1 NO_COLOR=1 {}", settings.join(" ")));
    let drive =
        format!("if=virtio,format=raw,cache=writeback,file=nbd+unix:///?socket={}", file("disk.sock"));
    command.args(["-drive", &drive]);
    command.args(["-netdev", "user,id=network,restrict=on"]);
    command.args(["-device", "virtio-net-pci,netdev=network,romfile="]);
    let console = format!("file,id=console,append=on,path={}", file("console.log"));
    command.args(["-chardev", &console, "-serial", "chardev:console", "-qmp", "stdio"]);
    let monitor = File::create(directory.join("qemu.log"))?;
    command.stdin(Stdio::piped()).stderr(monitor.try_clone()?).stdout(monitor);
    command.spawn().context("start QEMU")
}

/// Lets clients in. Not before the broker is there: until then they are refused, as by a broker that is down.
fn open_port(qemu: &mut Child, address: SocketAddr) -> anyhow::Result<()> {
    let monitor = qemu.stdin.as_mut().context("QEMU's monitor is piped")?;
    let forward = format!("hostfwd_add network tcp:{}:{}-10.0.2.15:9092", address.ip(), address.port());
    let forward = json!({"execute": "human-monitor-command", "arguments": {"command-line": forward}});
    writeln!(monitor, "{}\n{forward}", json!({"execute": "qmp_capabilities"}))?;
    wait::until("QEMU's port", || {
        ensure!(qemu.try_wait()?.is_none(), "the machine has ended");
        // While nobody listens there, a socket can be connected to itself.
        let connected = TcpStream::connect(address);
        Ok(connected.is_ok_and(|stream| stream.local_addr().is_ok_and(|local| local != address)))
    })
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
