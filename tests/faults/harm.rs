//! Every file of a data directory is harmed, one by one: a bit is flipped, while the broker is stopped, killed or
//! running, or the end is cut off. The start is never held up, no byte is served that was not written, what is not
//! served is named to the offset, and no offset is given away twice.
//!
//! Several files are harmed before one start, each in another directory, so that whatever is found has one cause. The
//! checkpoint and the metadata's log speak of all directories: they are harmed alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::harness::broker::{Broker, Options};

use super::grown::Grown;
use super::judge::{Judge, Losses};
use super::layout::{self, DataFile, Kind};
use super::random::Random;
use super::setting::{Trials, say, seed};

/// Files that are harmed before one start.
const TOGETHER: usize = 16;

/// What is done to a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Harm {
    Flip,
    Cut,
}

/// What the broker does while a file is harmed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Stopped,
    /// Ended by kill -9, with a batch in every partition that no checkpoint knows of.
    Killed,
    /// At work, with a batch in every partition that it has appended itself.
    Running,
}

/// Which files are harmed before a start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Choice {
    Together,
    Alone(Kind),
}

/// What was done to files of each kind, and what it cost.
#[derive(Default)]
struct Tally {
    struck: BTreeMap<Kind, u64>,
    starts: u64,
    losses: Losses,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: u64 = self.struck.values().sum();
        write!(f, "{count} files harmed in {} trials: {}; kinds:", self.starts, self.losses)?;
        self.struck.iter().try_for_each(|(kind, count)| write!(f, " {kind:?} {count}"))
    }
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_flipped_bit_in_any_file_stops_no_start_and_serves_no_wrong_byte() -> anyhow::Result<()> {
    campaign("T14 bit flips", Harm::Flip, Trials { pr: 50, nightly: 2_000, release: 10_000 })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn any_file_cut_short_stops_no_start_and_gives_no_offset_away_twice() -> anyhow::Result<()> {
    campaign("T15 files cut short", Harm::Cut, Trials { pr: 20, nightly: 500, release: 2_000 })
}

/// Harms so many files, start after start.
fn campaign(name: &str, harm: Harm, trials: Trials) -> anyhow::Result<()> {
    let grown = Grown::new()?;
    let (first, count) = (seed()?, trials.count()?);
    let mut tally = Tally::default();
    while tally.struck.values().sum::<u64>() < count {
        let seed = first.wrapping_add(tally.starts);
        let directory = TempDir::with_prefix("highwater-harm-")?;
        if let Err(error) = harm_once(&grown, &directory.path().canonicalize()?, harm, seed, &mut tally) {
            let kept = directory.keep();
            bail!(
                "{name} with HIGHWATER_SEED={seed}: {error:#}; data and log are kept in {}",
                kept.display()
            );
        }
        tally.starts += 1;
        say(&format!("{name}, seed {seed}: {tally}"));
    }
    Ok(())
}

/// The state of the broker, and which files are harmed: seeds that follow each other go through all of them.
fn plan(harm: Harm, seed: u64, random: &mut Random) -> (State, Choice) {
    // A file that is cut while it is mapped ends the process (ADR 20).
    let states = if harm == Harm::Flip {
        [State::Stopped, State::Killed, State::Running].as_slice()
    } else {
        &[State::Stopped, State::Killed]
    };
    let of_seed = (seed % (states.len() as u64 + 2)) as usize;
    match states.get(of_seed) {
        Some(state) => (*state, Choice::Together),
        None if of_seed == states.len() => (*random.choose(states), Choice::Alone(Kind::Checkpoint)),
        None => (*random.choose(states), Choice::Alone(Kind::Metadata)),
    }
}

fn harm_once(
    grown: &Grown,
    directory: &Path,
    harm: Harm,
    seed: u64,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let (state, choice) = plan(harm, seed, &mut random);
    let data = directory.join("data");
    grown.copy_to(&data)?;
    // What a broker appends from here on may be torn by a kill, and counts as good while it runs: a file is harmed
    // where it was before.
    let before: BTreeMap<PathBuf, u64> =
        layout::files(&data)?.into_iter().map(|file| (file.path, file.bytes)).collect();
    let running = bring_to(state, grown, &data)?;
    let mut files = layout::files(&data)?;
    for file in &mut files {
        file.bytes = before.get(&file.path).map_or(0, |bytes| file.bytes.min(*bytes));
    }
    let round = if state == State::Stopped { Grown::NEXT_ROUND } else { Grown::NEXT_ROUND + 1 };
    let mut judge = Judge::new(grown, layout::batches(&data)?, round)?;
    let mut done = format!("{state:?}");
    for file in choose(files, (harm, state, choice), &mut random) {
        let (bytes, sentence) = strike(&file, harm, &mut random)?;
        write!(done, ", {sentence}")?;
        *tally.struck.entry(file.kind).or_default() += 1;
        if file.kind == Kind::Metadata {
            judge.allow_read_only();
        }
        judge.expect_loss(&file.folder, &file.path, &bytes);
    }
    let starts = if running.is_some() { 1 } else { 2 };
    if let Some(mut broker) = running {
        judge.examine(&broker, true).with_context(|| format!("{done}; while it runs"))?;
        broker.terminate()?;
    }
    for start in 1..=starts {
        let mut broker = Broker::start(Options::new(&data)).with_context(|| done.clone())?;
        judge.examine(&broker, false).with_context(|| format!("{done}; start {start}"))?;
        broker.terminate()?;
    }
    tally.losses += judge.losses;
    Ok(())
}

/// Starts and kills a broker, or starts one and lets it run.
fn bring_to(state: State, grown: &Grown, data: &Path) -> anyhow::Result<Option<Broker>> {
    if state == State::Stopped {
        return Ok(None);
    }
    let mut broker = Broker::start(Options::new(data))?;
    grown.append(&broker, Grown::NEXT_ROUND)?;
    if state == State::Killed {
        broker.kill()?;
        return Ok(None);
    }
    Ok(Some(broker))
}

/// Files that hold something, each in a directory of its own.
fn choose(
    mut files: Vec<DataFile>,
    (harm, state, choice): (Harm, State, Choice),
    random: &mut Random,
) -> Vec<DataFile> {
    files.retain(|file| {
        let is_wanted = match choice {
            Choice::Alone(kind) => file.kind == kind,
            Choice::Together => !matches!(file.kind, Kind::Checkpoint | Kind::Metadata),
        };
        // The end of an active segment is what a kill tears: nobody could tell the one from the other.
        let is_torn = harm == Harm::Cut
            && state == State::Killed
            && matches!(file.kind, Kind::ActiveSegment | Kind::Commits);
        is_wanted && !is_torn && file.bytes > 0
    });
    let mut folders: BTreeMap<String, Vec<DataFile>> = BTreeMap::new();
    for file in files {
        folders.entry(file.folder.clone()).or_default().push(file);
    }
    let mut folders: Vec<Vec<DataFile>> = folders.into_values().collect();
    let mut chosen = Vec::new();
    while chosen.len() < TOGETHER && !folders.is_empty() {
        let folder = folders.swap_remove(random.index(folders.len()));
        let kinds: Vec<Kind> =
            folder.iter().map(|file| file.kind).collect::<BTreeSet<_>>().into_iter().collect();
        let kind = *random.choose(&kinds);
        let of_kind: Vec<DataFile> = folder.into_iter().filter(|file| file.kind == kind).collect();
        chosen.push(random.choose(&of_kind).clone());
    }
    chosen
}

/// Harms a file within the bytes that count; the bytes that are not as they were, and a sentence.
fn strike(file: &DataFile, harm: Harm, random: &mut Random) -> anyhow::Result<(Range<u64>, String)> {
    let handle = fs::OpenOptions::new().read(true).write(true).open(&file.path)?;
    let (bytes, path) = (file.bytes, file.path.display());
    if harm == Harm::Cut {
        let left = bytes.saturating_sub(1 + random.below(1024));
        handle.set_len(left)?;
        return Ok((left..u64::MAX, format!("{path} cut from {bytes} bytes to {left}")));
    }
    let (at, bit) = (random.below(bytes), random.below(8));
    let mut byte = [0];
    handle.read_exact_at(&mut byte, at)?;
    handle.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
    Ok((at..at + 1, format!("bit {bit} of byte {at} of {path}")))
}
