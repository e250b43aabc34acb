//! Files that are gone, cut short, old or changed by a bit when the broker starts: what can be made again from the log
//! is, and nothing acknowledged is lost.
//!
//! Everything here is done to files that are disposable. A damaged segment is another matter.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::harness::broker::{Broker, Options};

use super::campaign::{Campaign, Crew, under_load};
use super::random::Random;
use super::setting::Trials;
use super::trials::run_trials;

/// The kinds of disposable files, by the end of their names.
const KINDS: &[&str] = &[".index", ".timeindex", "producer-state", "leader-epoch-checkpoint", "checkpoint"];
/// How often a broker is stopped and damaged in one trial.
const ROUNDS: usize = 4;

/// The disposable files of one kind below the data directory.
fn files(data: &Path, kind: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let is_kind = if kind.starts_with('.') { name.ends_with(kind) } else { name == kind };
            if path.is_dir() {
                folders.push(path);
            } else if is_kind {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Stops a busy broker, one way or the other, does this to files of every kind, one kind after the other, and lets
/// everybody get on.
fn damage(
    directory: &Path,
    seed: u64,
    harm: impl Fn(&Path, &mut Random) -> anyhow::Result<()>,
) -> anyhow::Result<super::campaign::Outcome> {
    let mut random = Random::new(seed);
    let mut broker = Broker::start(Options::new(&directory.join("data")))?;
    under_load(&mut broker, &Crew::default(), seed, |broker, campaign| {
        // So that there is something of every kind, some of it old.
        stop_and_start(broker, campaign, &mut random, |_, _| Ok(()))?;
        for kind in KINDS {
            stop_and_start(broker, campaign, &mut random, |data, random| {
                let files = files(data, kind)?;
                ensure!(!files.is_empty(), "there is no {kind}");
                for _ in 0..ROUNDS {
                    let file: &PathBuf = random.choose(&files);
                    harm(file, random)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    })
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
fn a_flipped_bit_in_a_disposable_file_loses_nothing() -> anyhow::Result<()> {
    let trials = Trials { pr: 1, nightly: 100, release: 500 };
    run_trials("T14 bit flips in disposable files", trials, |directory, seed| {
        damage(directory, seed, |file, random| {
            let mut bytes = read(file)?;
            if !bytes.is_empty() {
                let at = random.index(bytes.len());
                bytes[at] ^= 1 << random.below(8);
                fs::write(file, bytes)?;
            }
            Ok(())
        })
    })
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_disposable_file_cut_short_loses_nothing() -> anyhow::Result<()> {
    let trials = Trials { pr: 1, nightly: 25, release: 100 };
    run_trials("T15 disposable files cut short", trials, |directory, seed| {
        damage(directory, seed, |file, random| {
            let bytes = read(file)?;
            let cut = 1 + random.index(1024);
            Ok(fs::write(file, &bytes[..bytes.len().saturating_sub(cut)])?)
        })
    })
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
                for kind in KINDS {
                    for file in files(data, kind)? {
                        old.push((file.clone(), read(&file)?));
                    }
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
                    files(data, kind)?.iter().try_for_each(|file| Ok(fs::remove_file(file)?))
                })?;
            }
            // The mark of a clean stop is in the checkpoint; all kinds at once are a broker of another make.
            stop_and_start(broker, campaign, &mut random, |data, _| {
                for kind in KINDS {
                    files(data, kind)?.iter().try_for_each(fs::remove_file)?;
                }
                Ok(())
            })
        })
    })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}
