//! Two static members share six partitions, one dies by kill -9 and comes again under its name before its session is
//! over: it has its partitions again, and the other one is told of no rebalance.

use std::time::Duration;

use anyhow::ensure;

use super::members::Members;
use super::{Cell, Subject, records};
use crate::harness::wait;

const PARTITIONS: usize = 6;
/// Records in each partition before the kill, and after it.
const BEFORE: usize = 20;
const AFTER: usize = 20;
/// Longer than a member takes to come again.
const SESSION: Duration = Duration::from_secs(30);

/// Kills a member that has a name, and starts it again.
pub(super) fn static_members(subject: &Subject<'_>) -> anyhow::Result<Cell> {
    let topic = subject.topic("static", PARTITIONS)?;
    subject.must_produce(&topic, &records::numbered(PARTITIONS, 0, BEFORE))?;
    let mut members = Members::of(&topic, PARTITIONS, SESSION);
    let first = members.join(subject, &["instance=first"])?;
    let second = members.join(subject, &["instance=second"])?;
    wait::until("two members to share the partitions and to read them", || {
        members.listen()?;
        let is_read = members.printed.len() == PARTITIONS * BEFORE;
        Ok(members.refusal.is_some() || is_read && members.share_all())
    })?;
    if let Some(reason) = members.refusal {
        return Ok(Cell::Unsupported(vec![reason]));
    }

    let (had, rebalances) = (members.assigned_to(first).clone(), members.rebalances_of(second));
    members.kill(first)?;
    let again = members.join(subject, &["instance=first"])?;
    wait::until("the member to have its partitions again", || {
        members.listen()?;
        Ok(*members.assigned_to(again) == had)
    })?;

    subject.must_produce(&topic, &records::numbered(PARTITIONS, BEFORE, AFTER))?;
    wait::until("both to commit everything", || {
        members.listen()?;
        Ok(members.has_committed((BEFORE + AFTER) as u64))
    })?;
    let told = members.rebalances_of(second) - rebalances;
    ensure!(told == 0, "the other member was told {told} times of partitions that it gets or gives up");
    members.finish()?;
    members.check_commits()?;
    Ok(Cell::Done)
}
