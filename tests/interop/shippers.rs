//! Log shippers of the distribution bring every line into a topic, also when the broker dies and comes back.
//!
//! rsyslog with omkafka and syslog-ng with kafka-c, both on the distribution's librdkafka and without idempotence,
//! which is their default: a line may come twice. Each is a private process with a configuration, a state and a
//! socket of its own; the system's syslog daemon and its files are left alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::faults::client::Connection;
use crate::faults::reader::{LIMITS, read_batches};
use crate::harness::broker::{Broker, Options};
use crate::harness::clients::Running;
use crate::harness::skip::{Unavailable, or_skip};
use crate::harness::{toolbox, wait};

const TOPIC: &str = "lines";

/// How many lines are shipped.
const LINES: usize = 2_000;

/// Seconds after which a shipper is taken to hang.
const PATIENCE: &str = "180";

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn rsyslog_ships_every_line_past_a_kill() -> anyhow::Result<()> {
    ship(Shipper::Rsyslog)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn syslog_ng_ships_every_line_past_a_kill() -> anyhow::Result<()> {
    ship(Shipper::SyslogNg)
}

/// Writes lines to the shipper while the broker is there, dead, and there again, until the topic has all of them.
fn ship(shipper: Shipper) -> anyhow::Result<()> {
    let Some(packages) = or_skip(shipper.packages())? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&directory.path().join("data")))?;
    Connection::open(broker.address())?.create_topic(TOPIC, 1, &[])?;
    let mut process = Running::spawn(shipper.command(&packages, directory.path(), &broker.bootstrap())?)?;
    let socket = socket(directory.path());
    let mut input = None;
    wait::until("the shipper to listen", || {
        input = UnixStream::connect(&socket).ok();
        Ok(input.is_some())
    })?;
    let mut input = input.context("the shipper listens")?;

    send(&mut input, 0..LINES / 4)?;
    wait::until("the first lines", || Ok(end(&broker)? > 0))?;
    // Some of these are on their way when the broker dies, and none of the next has one to go to.
    send(&mut input, LINES / 4..LINES / 2)?;
    broker.kill()?;
    send(&mut input, LINES / 2..LINES * 3 / 4)?;
    broker.restart()?;
    send(&mut input, LINES * 3 / 4..LINES)?;

    let sent: BTreeSet<_> = (0..LINES).map(|number| line(number).into_bytes()).collect();
    let arrived = wait::until("all lines", || {
        Ok(end(&broker)? >= LINES as u64 && shipped(&broker)?.len() >= sent.len())
    });
    let shipped = shipped(&broker)?;
    let missing: Vec<_> = sent.difference(&shipped).map(|line| String::from_utf8_lossy(line)).collect();
    let foreign: Vec<_> = shipped.difference(&sent).map(|line| String::from_utf8_lossy(line)).collect();
    let said = process.errors()?;
    ensure!(missing.is_empty(), "{} lines are missing: {missing:?}; it said:\n{said}", missing.len());
    ensure!(foreign.is_empty(), "{} lines were never sent: {foreign:?}", foreign.len());
    arrived
}

/// A line with what shippers like to escape, to parse or to cut. It is long, so that many do not go at once.
fn line(number: usize) -> String {
    let text = "größe=3 \"quoted\" <angled> [in brackets] 100% \\n $MESSAGE %msg% 'and' so on; ".repeat(4);
    format!("<14>1 2026-01-01T00:00:00Z host app {number} - - {text}end")
}

fn send(input: &mut UnixStream, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    let lines: String = numbers.map(|number| line(number) + "\n").collect();
    input.write_all(lines.as_bytes()).context("write to the shipper")
}

/// How many records the topic has.
fn end(broker: &Broker) -> anyhow::Result<u64> {
    let offset = Connection::open(broker.address())?.latest_offset(TOPIC, 0)?;
    Ok(offset.unwrap_or(0).try_into()?)
}

/// The distinct values in the topic.
fn shipped(broker: &Broker) -> anyhow::Result<BTreeSet<Vec<u8>>> {
    let mut values = BTreeSet::new();
    for batch in read_batches(broker.address(), TOPIC, 0)? {
        for record in batch.decompress(LIMITS)?.records() {
            values.insert(record?.value.context("a line is a value")?.to_vec());
        }
    }
    Ok(values)
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("socket")
}

/// A log shipper.
#[derive(Clone, Copy)]
enum Shipper {
    Rsyslog,
    SyslogNg,
}

impl Shipper {
    /// The folder of its unpacked packages.
    fn packages(self) -> Result<PathBuf, Unavailable> {
        match self {
            Self::Rsyslog => toolbox::unpacked("rsyslog", &["rsyslog", "rsyslog-kafka"]),
            Self::SyslogNg => toolbox::unpacked("syslog-ng", &["syslog-ng-core", "syslog-ng-mod-rdkafka"]),
        }
    }

    /// The shipper in the foreground, under a watchdog, with everything it writes in `directory`.
    fn command(self, packages: &Path, directory: &Path, bootstrap: &str) -> anyhow::Result<Command> {
        let file = |name: &str| directory.join(name);
        let configuration = file("configuration");
        fs::write(&configuration, self.configuration(directory, bootstrap))?;
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", PATIENCE]);
        match self {
            Self::Rsyslog => {
                let modules = folder_of(packages, "omkafka.so")?;
                command.arg(packages.join("usr/sbin/rsyslogd")).arg("-n").arg("-f").arg(configuration);
                command.arg("-i").arg(file("pid")).arg("-M").arg(modules);
            }
            Self::SyslogNg => {
                let modules = folder_of(packages, "libkafka.so")?;
                command.arg(packages.join("usr/sbin/syslog-ng")).args(["-F", "-e", "--no-caps", "-f"]);
                command.arg(configuration).arg("-p").arg(file("pid")).arg("-R").arg(file("state"));
                command.arg("-c").arg(file("control")).arg("--module-path").arg(modules);
            }
        }
        command.env("LD_LIBRARY_PATH", libraries(packages)?).stdin(Stdio::null());
        Ok(command)
    }

    /// Lines of a socket go into the topic as they are. Without its two settings on retries rsyslog discards what
    /// it cannot send at once.
    fn configuration(self, directory: &Path, bootstrap: &str) -> String {
        let (socket, directory) = (socket(directory), directory.display());
        let socket = socket.display();
        match self {
            Self::Rsyslog => format!(
                r#"global(workDirectory="{directory}")
                module(load="imptcp")
                module(load="omkafka")
                template(name="line" type="string" string="%rawmsg%")
                input(type="imptcp" path="{socket}" ruleset="ship")
                ruleset(name="ship") {{
                    action(type="omkafka" broker=["{bootstrap}"] topic="{TOPIC}" template="line"
                           action.resumeRetryCount="-1" action.resumeInterval="1" resubmitOnFailure="on")
                }}
                "#
            ),
            Self::SyslogNg => format!(
                r#"@version: 3.35
                source lines {{ unix-stream("{socket}" flags(no-parse)); }};
                destination topic {{
                    kafka-c(bootstrap-servers("{bootstrap}") topic("{TOPIC}") message("$MESSAGE"));
                }};
                log {{ source(lines); destination(topic); flags(flow-control); }};
                "#
            ),
        }
    }
}

/// The folder below `root` that holds the file `name`.
fn folder_of(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let found = folders(root)?.into_iter().find(|folder| folder.join(name).is_file());
    found.with_context(|| format!("{name} is nowhere below {}", root.display()))
}

/// Where the dynamic linker finds what lies below `root`.
fn libraries(root: &Path) -> anyhow::Result<OsString> {
    let mut places = folders(&root.join("usr/lib"))?;
    if root.join("lib").is_dir() {
        places.extend(folders(&root.join("lib"))?);
    }
    Ok(std::env::join_paths(places)?)
}

/// `root` and every folder below it.
fn folders(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        found.extend(
            entries.iter().map(fs::DirEntry::path).filter(|path| path.is_dir() && !path.is_symlink()),
        );
        next += 1;
    }
    Ok(found)
}
