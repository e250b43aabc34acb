//! How much the fault tests do: counts and seeds from the environment, and where skips are noted.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The number in this environment variable, or `default`.
pub(crate) fn count(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is {text:?}, it must be a number")),
        Err(_) => Ok(default),
    }
}

/// The seed in `HIGHWATER_SEED`, or a new one.
pub(crate) fn seed() -> anyhow::Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    count("HIGHWATER_SEED", u64::from(since.subsec_nanos()))
}

/// Says something on stdout, for those who run with `--nocapture`.
#[expect(clippy::print_stdout, reason = "campaigns print their seeds and what they found")]
pub(crate) fn say(sentence: &str) {
    println!("{sentence}");
}

/// Notes that a test did not run here, and why, in `target/test-skips.txt`.
pub(crate) fn skip(test: &str, reason: &str) -> anyhow::Result<()> {
    say(&format!("skipped {test}: {reason}"));
    let path = target_directory()?.join("test-skips.txt");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{test}: {reason}")?;
    Ok(())
}

/// Cargo's target directory: this binary is `<target>/<profile>/deps/highwater-<hash>`.
fn target_directory() -> anyhow::Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let target = binary.ancestors().nth(3).context("the test binary lies in a target directory")?;
    Ok(target.to_owned())
}

/// Whether this process may mount, and install packages.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a command to its end; its output if it succeeds.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {arguments:?} ended with {}: {stderr}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes sure that `program` is there, by installing Debian's `package` if it is not.
pub(crate) fn require(program: &str, package: &str) -> anyhow::Result<()> {
    static INSTALLING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if is_installed(program) {
        return Ok(());
    }
    run("apt-get", &["update", "-q"])?;
    run("apt-get", &["install", "-y", "-q", "--no-install-recommends", package])?;
    if !is_installed(program) {
        bail!("{package} is installed and {program} is still not there");
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.iter().any(|place| Path::new(place).join(program).exists())
}
