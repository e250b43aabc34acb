//! Three members share twelve partitions, one dies by kill -9, and the others take over what it had.
//!
//! Nothing is skipped past a commit: each record below the last committed offset was printed by a member, and the
//! committed offsets of a partition never move back.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::members::Members;
use super::{Cell, Subject, records};
use crate::harness::wait;

const PARTITIONS: usize = 12;
const MEMBERS: usize = 3;

/// Records in each partition before the kill, from around the kill on, and once the others have taken over.
const BEFORE: usize = 100;
const AFTER: usize = 100;
const LAST: usize = 10;

/// After so much silence a member is dead.
const SESSION: Duration = Duration::from_secs(6);
/// And so much later its partitions must be with others.
const GRACE: Duration = Duration::from_secs(5);

/// Kills the member that was started first while it reads.
pub(super) fn takeover(subject: &Subject<'_>) -> anyhow::Result<Cell> {
    let topic = subject.topic("takeover", PARTITIONS)?;
    subject.must_produce(&topic, &records::numbered(PARTITIONS, 0, BEFORE))?;
    let mut members = Members::of(&topic, PARTITIONS, SESSION);
    for _ in 0..MEMBERS {
        members.join(subject, &[])?;
    }
    wait::until("three members to share the partitions and to read them", || {
        members.listen()?;
        let is_read = members.printed.len() == PARTITIONS * BEFORE;
        Ok(members.refusal.is_some() || is_read && members.share_all())
    })?;
    if let Some(reason) = members.refusal {
        return Ok(Cell::Unsupported(vec![reason]));
    }

    let lines = records::numbered(PARTITIONS, BEFORE, AFTER);
    let killed_at = std::thread::scope(|scope| {
        let producing = scope.spawn(|| subject.must_produce(&topic, &lines));
        let read = members.printed_by(0);
        wait::until("the first member to read on", || {
            members.listen()?;
            Ok(members.printed_by(0) > read)
        })?;
        let at = members.kill(0)?;
        producing.join().map_err(|_| anyhow::anyhow!("the producer panicked"))??;
        anyhow::Ok(at)
    })?;

    wait::until("the others to take over", || {
        members.listen()?;
        Ok(members.covered_at().is_some())
    })?;
    let took = members.covered_at().context("the others took over")?.duration_since(killed_at);
    ensure!(took <= SESSION + GRACE, "the others took over after {took:?}");
    // A commit that the kill struck in may count and yet be told by nobody, so that nothing is left to read: what
    // comes now is committed past it.
    subject.must_produce(&topic, &records::numbered(PARTITIONS, BEFORE + AFTER, LAST))?;
    wait::until("the others to commit everything", || {
        members.listen()?;
        Ok(members.has_committed((BEFORE + AFTER + LAST) as u64))
    })?;
    members.finish()?;
    members.check_commits()?;
    Ok(Cell::Done)
}
