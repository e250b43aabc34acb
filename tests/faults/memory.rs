//! A limit of memory: the kernel kills nobody, however much clients send.

use anyhow::ensure;

use crate::harness::broker::{Broker, Options};
use crate::harness::cgroup::MemoryLimit;
use crate::harness::skip::or_skip;

use super::campaign::{Crew, under_load};
use super::setting::Trials;
use super::trials::run_trials;

/// The limit, page cache included.
const LIMIT_BYTES: u64 = 512 << 20;
/// Acknowledged records before a trial ends.
const ACKS: Trials = Trials { pr: 1_000, nightly: 100_000, release: 1_000_000 };

#[test]
fn a_busy_broker_stays_within_its_memory_limit() -> anyhow::Result<()> {
    let Some(limit) = or_skip(MemoryLimit::new("limit", LIMIT_BYTES))? else { return Ok(()) };
    let acks = ACKS.amount()?;
    run_trials("T23 a memory limit", Trials { pr: 1, nightly: 3, release: 10 }, |directory, seed| {
        let options = Options::new(&directory.join("data")).under(limit.wrapper());
        let mut broker = Broker::start(options)?;
        let crew = Crew { idempotent_sessions: 12, value_bytes_max: 16 << 10, ..Crew::default() };
        let outcome = under_load(&mut broker, &crew, seed, |_, campaign| campaign.gate.wait_for_acks(acks))?;
        ensure!(limit.kills()? == 0, "the kernel has killed for the limit of {LIMIT_BYTES} bytes");
        Ok(outcome)
    })
}
