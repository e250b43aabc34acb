//! Calls that fail: a sync once, a write, a call that a signal interrupts. Nothing acknowledged is lost, a sync that
//! failed is never repeated, and the partition goes on.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;

use crate::harness::broker::{Broker, Options};
use crate::harness::metrics;
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};

use super::campaign::{Campaign, Crew, TOPIC, under_load, wait_for};
use super::random::Random;
use super::setting::Trials;
use super::trials::run_trials;

/// Records that must be acknowledged while calls are slow.
const SLOW_ACKS: u64 = 500;

/// The segments of the campaign's partitions that are there now.
fn segments(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for partition in std::fs::read_dir(data)? {
        let partition = partition?.path();
        if partition.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TOPIC)) {
            found.extend(std::fs::read_dir(partition)?.filter_map(|file| Some(file.ok()?.path())));
        }
    }
    found.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    Ok(found)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_failed_sync_under_load_is_never_repeated_and_loses_nothing() -> anyhow::Result<()> {
    if or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    run_trials("T10 failed syncs", Trials { pr: 1, nightly: 50, release: 300 }, |directory, seed| {
        let injection = format!("error=EIO:when={}", 1 + seed % 5);
        let trace = directory.join("trace");
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            campaign.gate.wait_for_acks(100)?;
            let files = segments(broker.data())?;
            let failing =
                Tampering { calls: "fdatasync,fsync", injection: &injection, files: &files, trace: &trace };
            let tracer = failing.attach(broker.pid())?;
            wait_for(&campaign.gate, "a sync to fail", || has_injected(&trace))?;
            campaign.let_everybody_work()?;
            drop(tracer);
            let traced = std::fs::read_to_string(&trace)?;
            let again = synced_after_failure(&traced);
            ensure!(again.is_empty(), "files were synced after a sync of theirs failed: {again:?}");
            restart_after_kill(broker, campaign)
        })
    })
}

fn has_injected(trace: &Path) -> bool {
    std::fs::read_to_string(trace).is_ok_and(|text| text.contains("(INJECTED)"))
}

fn restart_after_kill(broker: &mut Broker, campaign: &Campaign) -> anyhow::Result<()> {
    broker.kill()?;
    broker.restart()?;
    campaign.gate.restarted();
    campaign.let_everybody_work()
}

/// The files of which a sync began after one had failed, from what strace wrote. A call that other threads' calls came
/// between is written in two lines, the file in the first.
fn synced_after_failure(trace: &str) -> Vec<&str> {
    let mut failed = HashSet::new();
    let mut under_way = HashMap::new();
    let mut again = Vec::new();
    for line in trace.lines() {
        let (thread, call) = line.trim_start().split_once(' ').unwrap_or((line, ""));
        let file = call.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(file, _)| file);
        let is_resumed = call.trim_start().starts_with("<...");
        let file = if is_resumed { under_way.remove(thread) } else { file };
        let Some(file) = file else { continue };
        if !is_resumed && failed.contains(file) {
            again.push(file);
        }
        if call.contains("<unfinished") {
            under_way.insert(thread, file);
        }
        if call.contains("(INJECTED)") {
            failed.insert(file);
        }
    }
    again
}

#[test]
fn a_sync_after_a_failed_one_is_found_in_a_trace() {
    let trace = "\
        7  fdatasync(3</a.log>) = 0\n\
        8  fdatasync(4</b.log> <unfinished ...>\n\
        7  fdatasync(3</a.log>) = -1 EIO (Input/output error) (INJECTED)\n\
        8  <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)\n\
        7  fdatasync(5</c.log>) = 0\n";

    assert_eq!(synced_after_failure(trace), [] as [&str; 0]);
    let repeated = format!("{trace}9  fsync(4</b.log>) = 0\n");
    assert_eq!(synced_after_failure(&repeated), ["/b.log"]);
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_failed_write_is_not_acknowledged_and_loses_nothing() -> anyhow::Result<()> {
    if or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    run_trials("T11 failed writes", Trials { pr: 1, nightly: 50, release: 300 }, |directory, seed| {
        let injection = format!("error=EIO:when={}+50", 1 + seed % 20);
        let trace = directory.join("trace");
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            campaign.gate.wait_for_acks(100)?;
            let files = segments(broker.data())?;
            let calls = "pwritev,pwrite64";
            let failing = Tampering { calls, injection: &injection, files: &files, trace: &trace };
            let tracer = failing.attach(broker.pid())?;
            wait_for(&campaign.gate, "a write to fail", || has_injected(&trace))?;
            campaign.let_everybody_work()?;
            drop(tracer);
            restart_after_kill(broker, campaign)
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn interrupted_calls_are_made_again() -> anyhow::Result<()> {
    if or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    run_trials("T11 interrupted calls", Trials { pr: 1, nightly: 20, release: 100 }, |directory, seed| {
        let injection = format!("error=EINTR:when={}+3", 1 + seed % 3);
        let trace = directory.join("trace");
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            campaign.gate.wait_for_acks(100)?;
            let calls = "pwritev,pwrite64,pread64,fallocate,ftruncate,sendfile";
            let failing = Tampering { calls, injection: &injection, files: &[], trace: &trace };
            let _tracer = failing.attach(broker.pid())?;
            campaign.gate.wait_for_acks(SLOW_ACKS)?;
            ensure!(has_injected(&trace), "nothing was interrupted");
            ensure!(!broker.log().contains(" ERROR "), "an interruption is an error:\n{}", broker.log());
            Ok(())
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_slow_disk_costs_time_and_nothing_else() -> anyhow::Result<()> {
    if or_skip(strace::can_attach())?.is_none() {
        return Ok(());
    }
    run_trials("T17 a slow disk", Trials { pr: 1, nightly: 20, release: 60 }, |directory, seed| {
        let mut random = Random::new(seed);
        let injection = format!("delay_enter={}", 100_000 + random.below(400_000));
        let trace = directory.join("trace");
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            campaign.let_settle()?;
            let generation = campaign.generation();
            let calls = "fdatasync,fsync";
            let slow = Tampering { calls, injection: &injection, files: &[], trace: &trace };
            let _tracer = slow.attach(broker.pid())?;
            let target = campaign.gate.acked() + SLOW_ACKS;
            while campaign.gate.acked() < target {
                ensure!(!campaign.gate.has_failed(), "somebody failed");
                metrics::livez(broker.address())?;
                campaign.gate.let_work(Duration::from_millis(50));
            }
            ensure!(std::fs::read_to_string(&trace)?.contains("(DELAYED)"), "no sync was slow");
            ensure!(campaign.generation() == generation, "members were dropped while the disk was slow");
            Ok(())
        })
    })
}
