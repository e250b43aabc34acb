//! Retention: segments that are too old or too many go, and stay gone.

use super::configs::SET;
use super::{Admin, done};
use crate::faults::batches::plain_batch;
use crate::harness::wait;

/// Looks after retention all the time.
const EAGER: &[&str] = &["--log-retention-check-interval-ms", "20"];

impl Admin {
    /// A broker that looks after retention all the time, and a topic `t` with these settings and seven segments of one
    /// batch.
    fn with_segments(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut admin = Self::start(EAGER)?;
        let settings: Vec<_> =
            [("segment.bytes", "1048576")].into_iter().chain(settings.iter().copied()).collect();
        admin.connection.create_topic("t", 1, &settings)?;
        for counter in 0..7 {
            anyhow::ensure!(admin.connection.produce("t", 0, plain_batch(counter, 600_000))?.error_code == 0);
        }
        Ok(admin)
    }

    /// Waits until the topic begins at `offset`.
    fn wait_for_start(&mut self, offset: i64) -> anyhow::Result<()> {
        wait::until("old segments to go", || Ok(self.earliest("t")? == offset))
    }
}

#[test]
fn the_oldest_segments_go_until_the_rest_has_what_is_kept() -> anyhow::Result<()> {
    let mut admin = Admin::with_segments(&[("retention.bytes", "1900000")])?;

    admin.wait_for_start(3)?;

    wait::until("their files to go", || Ok(admin.segments()? == 4))?;
    assert!(admin.served.metric("highwater_deleted_bytes_total")? >= 3 * 600_000);
    admin.served.kill()?;
    admin.reconnect()?;
    assert_eq!(admin.earliest("t")?, 3, "it came back");
    assert_eq!(admin.connection.latest_offset("t", 0)?, Some(7));
    Ok(())
}

#[test]
fn when_everything_is_too_old_the_topic_is_empty_and_goes_on() -> anyhow::Result<()> {
    let mut admin = Admin::with_segments(&[("retention.ms", "1")])?;

    admin.wait_for_start(7)?;

    assert_eq!(admin.connection.produce("t", 0, plain_batch(7, 100))?.base_offset, 7);
    admin.wait_for_start(8)?;
    Ok(())
}

#[test]
fn a_limit_that_is_set_later_counts_for_what_was_written_before_also_after_a_restart() -> anyhow::Result<()> {
    let mut admin = Admin::with_segments(&[])?;
    admin.served.restart()?;
    admin.reconnect()?;
    assert_eq!(admin.earliest("t")?, 0);

    let answer = admin.alter(&[(SET, "retention.bytes", Some("0"))])?;

    assert_eq!(answer, done());
    admin.wait_for_start(7)?;
    Ok(())
}

#[test]
fn a_compacted_topic_keeps_what_is_old() -> anyhow::Result<()> {
    let mut admin = Admin::start(EAGER)?;
    let settings = [("segment.bytes", "1048576"), ("retention.ms", "1")];
    admin.connection.create_topic("t", 1, &settings)?;
    admin.connection.create_topic("kept", 1, &[("cleanup.policy", "compact"), ("retention.ms", "1")])?;
    for topic in ["kept", "t"] {
        assert_eq!(admin.connection.produce(topic, 0, plain_batch(0, 100))?.error_code, 0);
    }

    // A pass that has taken the one has seen the other.
    admin.wait_for_start(1)?;

    assert_eq!(admin.earliest("kept")?, 0);
    Ok(())
}
