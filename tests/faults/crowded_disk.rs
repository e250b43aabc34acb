//! A full disk under a whole crew: producers, consumers and a group go on when there is space again.

use std::time::Instant;

use anyhow::ensure;
use highwater_protocol::ErrorCode;

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;
use crate::harness::{metrics, wait};

use super::batches::plain_batch;
use super::campaign::{Crew, TOPIC as CAMPAIGN, under_load};
use super::client::{Connection, name_of};
use super::full_disk::{RESUME_DEADLINE, fill};
use super::mounts::{FileSystem, Mount, can_mount_images};
use super::setting::Trials;
use super::trials::run_trials;

const TOPIC: &str = "full";
const VALUE_BYTES: usize = 64 << 10;

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_full_disk_stops_nobody_for_good() -> anyhow::Result<()> {
    if or_skip(can_mount_images())?.is_none() {
        return Ok(());
    }
    // Trials take the file systems in turn.
    run_trials("T12 a full disk", Trials { pr: 3, nightly: 30, release: 60 }, |directory, seed| {
        let data = directory.join("data");
        let _disk = match seed % 3 {
            0 => Mount::tmpfs(32 << 20, &data)?,
            1 => Mount::image_of(32 << 20, FileSystem::Ext4, &data)?,
            _ => Mount::image_of(320 << 20, FileSystem::Xfs, &data)?,
        };
        let mut broker = Broker::start(Options::new(&data))?;
        let crew = Crew { value_bytes_max: 128, ..Crew::default() };
        under_load(&mut broker, &crew, seed, |broker, campaign| {
            campaign.let_everybody_work()?;
            let mut probe = Connection::open(broker.address())?;
            probe.create_topic(TOPIC, 1, &[])?;
            let mut write = || -> anyhow::Result<i16> {
                Ok(probe.produce(TOPIC, 0, plain_batch(0, VALUE_BYTES))?.error_code)
            };
            fill(&data.join("ballast"), u64::MAX)?;
            wait::until("the disk to be full", || {
                let code = write()?;
                let expected = [0, ErrorCode::KafkaStorageError.code()];
                ensure!(expected.contains(&code), "a full disk is answered {}", name_of(code));
                Ok(code != 0)
            })?;
            metrics::livez(broker.address())?;
            let read = Connection::open(broker.address())?.fetch(CAMPAIGN, 0, 0)?;
            ensure!(read.error_code == 0, "while the disk is full a read is answered {read:?}");

            std::fs::remove_file(data.join("ballast"))?;
            let freed = Instant::now();
            while write()? != 0 {
                ensure!(freed.elapsed() < RESUME_DEADLINE, "no write within {RESUME_DEADLINE:?}");
            }
            campaign.let_everybody_work()?;
            broker.kill()?;
            broker.restart()?;
            campaign.gate.restarted();
            campaign.let_everybody_work()
        })
    })
}
