//! The offline tools on a partition that is made for it: GB/s per core, latency of a seek, peak memory.
//!
//! Batches are not compressed, the files are in the page cache, and each command is a process of its own whose CPU and
//! memory are read from outside. A binary that lacks a command has no figures for it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use highwater_record::{LeaderEpoch, Offset, patch};

use crate::batch::Batch;
use crate::process::{broker_binary, cpu_seconds, let_time_pass, peak_resident_kib, workspace_target};
use crate::report::{self, progress};
use crate::size::ByteSize;
use crate::stats::Spread;

/// Letters that no record has.
const NEEDLE: &str = "highwater";
/// What a batch costs in an index of every batch.
const ENTRY_BYTES: usize = 8;
/// Usage errors: the binary does not know the command.
const USAGE: i32 = 2;
const GB_PER_SECOND_MIN: f64 = 1.0;
const SEEK_MS_MAX: f64 = 50.0;
const RESIDENT_MIB_MAX: f64 = 64.0;

#[derive(clap::Args)]
pub(crate) struct SegmentArgs {
    /// The binary. Default: `target/release/highwater` of this workspace.
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Below which folder the partition is made. Default: `target/benches`.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Size of the partition.
    #[arg(long, default_value = "1GiB")]
    bytes: ByteSize,
    /// Size of a segment.
    #[arg(long, default_value = "1GiB")]
    segment: ByteSize,
    /// Size of a batch.
    #[arg(long, default_value = "64KiB")]
    batch: ByteSize,
    /// Size of a value.
    #[arg(long, default_value = "1KiB")]
    value: ByteSize,
    /// How often each command runs.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// What a run of a command took.
struct Cost {
    elapsed: Duration,
    cpu_seconds: f64,
    resident_mib: f64,
}

/// Makes a partition, runs every command on it and returns what was seen.
pub(crate) fn run(args: &SegmentArgs) -> Result<String> {
    let binary = broker_binary(args.broker.clone())?;
    let machine = report::machine();
    let root = args.data.clone().unwrap_or_else(|| workspace_target().join("benches"));
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let data =
        tempfile::Builder::new().prefix("segments-").tempdir_in(&root).context("create a directory")?;
    let partition = data.path().join("bench-0");
    let end = write_partition(&partition, args)?;
    let path = partition.to_str().context("a path that is text")?;
    let middle = (end / 2).to_string();
    let last = (end - 1).to_string();

    let commands: [(&str, Vec<&str>, bool); 7] = [
        ("verify --fast", vec!["verify", "--fast", path], true),
        ("verify", vec!["verify", path], true),
        ("ls", vec!["ls", path], true),
        ("grep -F, nothing to find", vec!["grep", "-F", NEEDLE, path], true),
        ("grep, anchored", vec!["grep", "^highwater[0-9]+$", path], true),
        ("cat -o MIDDLE -n 1", vec!["cat", path, "-o", &middle, "-n", "1"], false),
        ("cat -o LAST -n 1", vec!["cat", path, "-o", &last, "-n", "1"], false),
    ];
    let mut rows = Vec::new();
    for (name, arguments, is_scan) in &commands {
        progress(format_args!("{name}"));
        let costs: Result<Vec<Option<Cost>>> = (0..args.rounds).map(|_| cost(&binary, arguments)).collect();
        let costs: Option<Vec<Cost>> = costs?.into_iter().collect();
        rows.push(match costs {
            Some(costs) => row(name, &costs, *is_scan, args.bytes)?,
            None => {
                [(*name).to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned(), "not there".to_owned()]
            }
        });
    }
    let table = report::table(["segment ...", "ms", "GB/s per core", "peak resident, MiB", "holds"], rows);
    let ByteSize(value) = args.value;
    Ok(format!(
        "{table}\n\n{machine}; {} in segments of {}, batches of {}, values of {value} B, {} rounds",
        args.bytes, args.segment, args.batch, args.rounds
    ))
}

fn row(name: &str, costs: &[Cost], is_scan: bool, bytes: ByteSize) -> Result<[String; 5]> {
    let spread =
        |of: fn(&Cost) -> f64| Spread::of(costs.iter().map(of)).context("at least one round is needed");
    let elapsed = spread(|cost| cost.elapsed.as_secs_f64() * 1e3)?;
    let resident = spread(|cost| cost.resident_mib)?;
    // A run that is shorter than a tick of the clock has used one at most.
    let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
    let speed = |cost: &Cost| bytes.0 as f64 / 1e9 / cost.cpu_seconds.max(tick);
    let speed = Spread::of(costs.iter().map(speed)).context("at least one round is needed")?;
    let is_fast = if is_scan { speed.median >= GB_PER_SECOND_MIN } else { elapsed.median <= SEEK_MS_MAX };
    let holds = if is_fast && resident.max <= RESIDENT_MIB_MAX { "yes" } else { "no" };
    let speed = if is_scan { format!("{speed:.1}") } else { "-".to_owned() };
    Ok([name.to_owned(), format!("{elapsed:.0}"), speed, format!("{resident:.1}"), holds.to_owned()])
}

/// Runs a command of `highwater segment`; nothing if there is no such command.
fn cost(binary: &Path, arguments: &[&str]) -> Result<Option<Cost>> {
    let began = Instant::now();
    let mut child = Command::new(binary)
        .arg("segment")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}", binary.display()))?;
    let (pid, mut resident_kib) = (child.id(), 0);
    // Until it is waited for its CPU time can be read, but not its memory: that is asked for on the way.
    while !is_over(pid)? {
        resident_kib = peak_resident_kib(pid).unwrap_or(resident_kib).max(resident_kib);
        let_time_pass(Duration::from_micros(500));
    }
    let elapsed = began.elapsed();
    let cpu_seconds = cpu_seconds(pid)?;
    let status = child.wait().context("wait for the command")?;
    if status.code() == Some(USAGE) {
        return Ok(None);
    }
    // 1 is grep's way to say that there is nothing.
    ensure!(matches!(status.code(), Some(0 | 1)), "{arguments:?} ended with {status}");
    Ok(Some(Cost { elapsed, cpu_seconds, resident_mib: resident_kib as f64 / 1024.0 }))
}

/// Whether a child that nobody has waited for yet has ended.
fn is_over(pid: u32) -> Result<bool> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let (_, fields) = stat.rsplit_once(')').with_context(|| format!("understand {path}"))?;
    Ok(fields.trim_start().starts_with('Z'))
}

/// Writes segments with an index of every batch; the offset after the last record.
fn write_partition(partition: &Path, args: &SegmentArgs) -> Result<i64> {
    progress(format_args!("writing {}", args.bytes));
    fs::create_dir(partition).with_context(|| format!("create {}", partition.display()))?;
    let size = |size: ByteSize| usize::try_from(size.0).context("a size that fits into memory");
    let mut batch = Batch::build(size(args.batch)?, size(args.value)?)?;
    let records = i64::from(batch.record_count);
    let epoch = LeaderEpoch::new(0).context("0 is an epoch")?;
    let (mut written, mut next) = (0, 0);
    while written < args.bytes.0 {
        let (base, create) = (next, |suffix: &str| {
            let path = partition.join(format!("{next:020}.{suffix}"));
            File::create(&path).with_context(|| format!("create {}", path.display()))
        });
        let mut log = BufWriter::with_capacity(1 << 20, create("log")?);
        let (mut index, mut position) = (Vec::with_capacity(ENTRY_BYTES), 0);
        let mut offset = base;
        while position < args.segment.0 && written < args.bytes.0 {
            patch(&mut batch.bytes, Offset::new(offset).context("an offset")?, epoch);
            log.write_all(&batch.bytes).context("write a segment")?;
            index.extend_from_slice(&i32::try_from(offset + records - 1 - base)?.to_be_bytes());
            index.extend_from_slice(&u32::try_from(position)?.to_be_bytes());
            position += batch.bytes.len() as u64;
            written += batch.bytes.len() as u64;
            offset += records;
        }
        create("index")?.write_all(&index).context("write an index")?;
        log.flush().context("write a segment")?;
        next = offset;
    }
    Ok(next)
}
