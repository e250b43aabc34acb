//! Segments that the disk gives back otherwise than they were written: a bit flipped, while the broker runs or not, or
//! the end cut off. What is damaged is never served as if it were whole, and no offset is given away twice.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::harness::broker::{Broker, Options};

use super::batches::plain_batch;
use super::client::{Connection, name_of};
use super::random::Random;
use super::reader::{placed, split};
use super::setting::{Trials, say, seed};

const TOPIC: &str = "rot";
const VALUE_BYTES: usize = 200 << 10;
const RECORDS: u32 = 20;

/// What is done to a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Harm {
    FlipWhileStopped,
    FlipWhileRunning,
    CutWhileStopped,
}

/// What was found afterwards.
#[derive(Debug, Default)]
struct Tally {
    whole: u32,
    refused: u32,
}

#[test]
fn a_flipped_bit_in_a_stopped_segment_is_never_served() -> anyhow::Result<()> {
    rot(
        "T14 bit flips in stopped segments",
        Harm::FlipWhileStopped,
        Trials { pr: 10, nightly: 500, release: 3000 },
    )
}

#[test]
fn a_flipped_bit_in_a_live_segment_is_never_served() -> anyhow::Result<()> {
    rot(
        "T14 bit flips in live segments",
        Harm::FlipWhileRunning,
        Trials { pr: 10, nightly: 500, release: 3000 },
    )
}

#[test]
fn a_segment_cut_short_gives_no_offset_away_twice() -> anyhow::Result<()> {
    rot("T15 segments cut short", Harm::CutWhileStopped, Trials { pr: 5, nightly: 200, release: 1000 })
}

fn rot(name: &str, harm: Harm, trials: Trials) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let original = directory.path().join("original");
    fill(&original)?;
    let (first, count) = (seed()?, trials.count()?);
    for trial in 0..count {
        let seed = first.wrapping_add(trial);
        let data = directory.path().join(format!("trial-{trial}"));
        copy(&original, &data)?;
        match rot_once(&data, harm, seed) {
            Ok(tally) => say(&format!("{name}, trial {} of {count}, seed {seed}: {tally:?}", trial + 1)),
            Err(error) => {
                let kept = directory.keep().join(format!("trial-{trial}"));
                return Err(error.context(format!(
                    "{name} with HIGHWATER_SEED={seed}; the data directory is kept in {}",
                    kept.display()
                )));
            }
        }
        fs::remove_dir_all(&data)?;
    }
    Ok(())
}

/// Records in five segments, by a broker that has been stopped.
fn fill(data: &Path) -> anyhow::Result<()> {
    let mut broker = Broker::start(Options::new(data))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 1, &[("segment.bytes", "1048576")])?;
    for counter in 0..RECORDS {
        let answer = connection.produce(TOPIC, 0, plain_batch(counter, VALUE_BYTES))?;
        ensure!(answer.error_code == 0 && answer.base_offset == i64::from(counter), "{answer:?}");
    }
    broker.terminate().map(drop)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?
        } else {
            fs::copy(entry.path(), target).map(drop)?
        }
    }
    Ok(())
}

fn segments(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(data.join(format!("{TOPIC}-0")))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    found.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    found.sort();
    Ok(found)
}

fn rot_once(data: &Path, harm: Harm, seed: u64) -> anyhow::Result<Tally> {
    let mut random = Random::new(seed);
    let files = segments(data)?;
    let file: &PathBuf = random.choose(&files);
    let running =
        if harm == Harm::FlipWhileRunning { Some(Broker::start(Options::new(data))?) } else { None };
    let what = match harm {
        Harm::CutWhileStopped => cut(file, &mut random)?,
        Harm::FlipWhileStopped | Harm::FlipWhileRunning => flip(file, &mut random)?,
    };
    let broker = match running {
        Some(broker) => broker,
        None => Broker::start(Options::new(data))?,
    };
    judge(&broker).with_context(|| what)
}

fn flip(file: &Path, random: &mut Random) -> anyhow::Result<String> {
    use std::os::unix::fs::FileExt as _;
    let handle = fs::OpenOptions::new().read(true).write(true).open(file)?;
    let (at, bit) = (random.below(handle.metadata()?.len()), random.below(8));
    let mut byte = [0];
    handle.read_exact_at(&mut byte, at)?;
    handle.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
    Ok(format!("bit {bit} of byte {at} of {}", file.display()))
}

fn cut(file: &Path, random: &mut Random) -> anyhow::Result<String> {
    let handle = fs::OpenOptions::new().write(true).open(file)?;
    let cut = 1 + random.below(1024);
    handle.set_len(handle.metadata()?.len().saturating_sub(cut))?;
    Ok(format!("{cut} bytes at the end of {}", file.display()))
}

/// Asks for every record, and then for one more to be appended.
fn judge(broker: &Broker) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for offset in 0..i64::from(RECORDS) {
        let mut connection = Connection::open(broker.address())?;
        // A connection that breaks serves nothing.
        let Ok(data) = connection.fetch(TOPIC, 0, offset) else {
            tally.refused += 1;
            continue;
        };
        if data.error_code != 0 {
            tally.refused += 1;
            continue;
        }
        let bytes = data.records.bytes().cloned().unwrap_or_default();
        for batch in split(bytes).with_context(|| format!("what is served from {offset} on"))? {
            for record in placed(&batch, 0)? {
                let counter = record.stamp.context("a record that nobody sent is served")?.counter;
                ensure!(i64::from(counter) == record.offset, "{record} is served");
            }
        }
        tally.whole += 1;
    }
    let written = Connection::open(broker.address())?.produce(TOPIC, 0, plain_batch(RECORDS, 10))?;
    ensure!(
        written.error_code != 0 || written.base_offset >= i64::from(RECORDS),
        "offset {} is given away again, though {RECORDS} records were acknowledged ({tally:?})",
        written.base_offset
    );
    if written.error_code != 0 {
        say(&format!("writes are refused with {}", name_of(written.error_code)));
    }
    Ok(tally)
}
