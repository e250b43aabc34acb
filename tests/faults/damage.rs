//! Files that are gone or old when the broker starts: what can be made again from the log is, and nothing acknowledged is
//! lost.
//!
//! Everything here is done to files that are disposable. What a flipped bit or a cut does to any file is in `harm`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::harness::broker::{Broker, Options};

use super::campaign::{Campaign, Crew, under_load};
use super::layout::{self, Kind};
use super::random::Random;
use super::setting::Trials;
use super::trials::run_trials;

/// The kinds of disposable files.
const KINDS: [Kind; 6] = [
    Kind::OffsetIndex,
    Kind::TimeIndex,
    Kind::ProducerState,
    Kind::LeaderEpochs,
    Kind::Checkpoint,
    Kind::Manifest,
];
/// How many files are put back as they were.
const ROUNDS: usize = 4;

/// The files of these kinds below the data directory.
fn files(data: &Path, kinds: &[Kind]) -> anyhow::Result<Vec<PathBuf>> {
    let files = layout::files(data)?.into_iter().filter(|file| kinds.contains(&file.kind));
    Ok(files.map(|file| file.path).collect())
}

fn stop_and_start(
    broker: &mut Broker,
    campaign: &Campaign,
    random: &mut Random,
    harm: impl FnOnce(&Path, &mut Random) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    campaign.gate.wait_for_acks(300)?;
    if random.below(2) == 0 {
        broker.terminate()?;
    } else {
        broker.kill()?;
    }
    harm(broker.data(), random)?;
    broker.restart()?;
    campaign.gate.restarted();
    campaign.let_everybody_work()
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn an_old_copy_of_a_disposable_file_loses_nothing() -> anyhow::Result<()> {
    let trials = Trials { pr: 1, nightly: 25, release: 100 };
    run_trials("T15 old copies of disposable files", trials, |directory, seed| {
        let mut random = Random::new(seed);
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            let mut old: Vec<(PathBuf, Vec<u8>)> = Vec::new();
            stop_and_start(broker, campaign, &mut random, |data, _| {
                for file in files(data, &KINDS)? {
                    old.push((file.clone(), read(&file)?));
                }
                Ok(())
            })?;
            stop_and_start(broker, campaign, &mut random, |_, random| {
                for _ in 0..ROUNDS {
                    let (file, bytes) = random.choose(&old);
                    fs::write(file, bytes)?;
                }
                Ok(())
            })
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_disposable_file_that_is_gone_is_made_again() -> anyhow::Result<()> {
    run_trials("T16 files removed", Trials { pr: 1, nightly: 5, release: 20 }, |directory, seed| {
        let mut random = Random::new(seed);
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
            for kind in KINDS {
                stop_and_start(broker, campaign, &mut random, |data, _| {
                    files(data, &[kind])?.iter().try_for_each(|file| Ok(fs::remove_file(file)?))
                })?;
            }
            // The mark of a clean stop is in the checkpoint; all kinds at once are a broker of another make.
            stop_and_start(broker, campaign, &mut random, |data, _| {
                files(data, &KINDS)?.iter().try_for_each(|file| Ok(fs::remove_file(file)?))
            })
        })
    })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}
