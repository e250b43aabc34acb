//! Three members with the cooperative strategy come one after another: each gives up what others get, and nothing
//! that it keeps.

use std::time::Duration;

use anyhow::ensure;

use super::members::Members;
use super::{Cell, Subject, records};
use crate::harness::wait;

const PARTITIONS: usize = 6;
const MEMBERS: usize = 3;
/// Records in each partition before the last member comes, and after it has.
const BEFORE: usize = 20;
const AFTER: usize = 20;
const SESSION: Duration = Duration::from_secs(30);

/// Lets members join a group that reads.
pub(super) fn cooperative(subject: &Subject<'_>) -> anyhow::Result<Cell> {
    let topic = subject.topic("cooperative", PARTITIONS)?;
    subject.must_produce(&topic, &records::numbered(PARTITIONS, 0, BEFORE))?;
    let mut members = Members::of(&topic, PARTITIONS, SESSION);
    for count in 1..=MEMBERS {
        members.join(subject, &["strategy=cooperative"])?;
        wait::until(&format!("{count} members to share the partitions"), || {
            members.listen()?;
            Ok(members.refusal.is_some() || members.share_all())
        })?;
        if let Some(reason) = members.refusal {
            return Ok(Cell::Unsupported(vec![reason]));
        }
    }

    subject.must_produce(&topic, &records::numbered(PARTITIONS, BEFORE, AFTER))?;
    wait::until("the members to commit everything", || {
        members.listen()?;
        Ok(members.has_committed((BEFORE + AFTER) as u64))
    })?;
    for member in 0..MEMBERS {
        let regained = members.regained_by(member);
        ensure!(regained.is_empty(), "member {member} gave up {regained:?}, only to get them again");
    }
    members.finish()?;
    members.check_commits()?;
    Ok(Cell::Done)
}
