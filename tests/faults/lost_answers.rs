//! Answers that never arrive: the broker has done what it was asked, and the client asks again.

use std::sync::Mutex;

use anyhow::ensure;
use highwater_protocol::Request;

use crate::harness::broker::{Broker, Options};
use crate::harness::meddler::{Deed, Meddler, Plan};

use super::campaign::{Crew, under_load};
use super::random::Random;
use super::setting::Trials;
use super::trials::run_trials;

/// Answers lost before a trial ends.
const LOST: u64 = 30;

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_retry_after_a_lost_answer_gets_the_first_offset() -> anyhow::Result<()> {
    run_trials("T20 lost answers", Trials { pr: 1, nightly: 25, release: 150 }, |directory, seed| {
        let random = Mutex::new(Random::new(seed));
        let plan: Box<Plan> = Box::new(move |_, _, request| {
            let is_lossy =
                matches!(request, Request::Produce(_) | Request::OffsetCommit(_) | Request::Fetch(_));
            let mut random = random.lock().map_err(|error| anyhow::anyhow!("{error}"))?;
            Ok(if is_lossy && random.below(20) == 0 { Deed::LoseAnswer } else { Deed::Pass })
        });
        let proxy = Meddler::bind(plan)?;
        let mut broker = Broker::start(Options::new(&directory.join("data")))?;
        proxy.forward_to(broker.address());
        let crew = Crew { proxy: Some(proxy.address()), ..Crew::default() };
        under_load(&mut broker, &crew, seed, |_, campaign| {
            while proxy.meddled() < LOST {
                campaign.let_everybody_work()?;
            }
            ensure!(!campaign.gate.has_failed(), "somebody failed");
            Ok(())
        })
    })
}
