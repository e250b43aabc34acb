//! The members of a group, as their drivers tell of themselves.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Subject;
use crate::harness::drivers::unsupported;
use crate::harness::talk::Talk;

/// Drivers in the verb `group`, and what is known of them from their lines.
pub(super) struct Members {
    /// What they read, and the name of their group.
    topic: String,
    session: Duration,
    members: Vec<Member>,
    /// Partition and offset of each record that a member printed.
    pub(super) printed: BTreeSet<(usize, u64)>,
    /// Each commit: when a member told of it, the partition, and the offset.
    commits: Vec<(Instant, usize, u64)>,
    /// When the living members had all partitions among them, since the last kill.
    covered_at: Option<Instant>,
    /// Why the library has no groups, if a driver says so.
    pub(super) refusal: Option<String>,
    partitions: usize,
}

struct Member {
    talk: Talk,
    is_alive: bool,
    /// How many of its lines were looked at.
    heard: usize,
    printed: usize,
    assigned: BTreeSet<usize>,
    /// Every partition that it had to give up at any time.
    revoked: BTreeSet<usize>,
    /// How often it was told of partitions that it gets or gives up.
    rebalances: usize,
}

impl Members {
    /// A group without members yet, for the `partitions` of a topic.
    pub(super) fn of(topic: &str, partitions: usize, session: Duration) -> Self {
        Self {
            topic: topic.to_owned(),
            session,
            members: Vec::new(),
            printed: BTreeSet::new(),
            commits: Vec::new(),
            covered_at: None,
            refusal: None,
            partitions,
        }
    }

    /// Starts one more member, with further arguments of its verb; its place.
    pub(super) fn join(&mut self, subject: &Subject<'_>, options: &[&str]) -> anyhow::Result<usize> {
        let mut command = subject.driver.ready()?;
        let topic = &self.topic;
        command.args(["group", &subject.target.bootstrap(), &format!("topic={topic}")]);
        command.args([format!("group={topic}"), format!("session_ms={}", self.session.as_millis())]);
        // A kill shall strike between the print and the commit as well.
        command.arg("pause_ms=50").args(options);
        self.members.push(Member {
            talk: Talk::start(command)?,
            is_alive: true,
            heard: 0,
            printed: 0,
            assigned: BTreeSet::new(),
            revoked: BTreeSet::new(),
            rebalances: 0,
        });
        Ok(self.members.len() - 1)
    }

    /// Looks at what was said since the last time. Fails if a living member has ended for no good reason.
    pub(super) fn listen(&mut self) -> anyhow::Result<()> {
        let mut living = self.members.iter_mut().filter(|member| member.is_alive);
        let all_live = living.try_for_each(|member| member.talk.check());
        let mut news = Vec::new();
        for (place, member) in self.members.iter_mut().enumerate() {
            let said = member.talk.said_since(member.heard);
            member.heard += said.len();
            news.extend(said.into_iter().map(|said| (said.at, place, said.line)));
        }
        news.sort_by_key(|(at, ..)| *at);
        for (at, place, line) in news {
            self.hear(at, place, &line).with_context(|| format!("member {place} says {line}"))?;
        }
        // A driver that says that its library has no groups ends.
        if self.refusal.is_some() { Ok(()) } else { all_live }
    }

    /// Whether every living member has partitions, and all together have all.
    pub(super) fn share_all(&self) -> bool {
        let living = || self.members.iter().filter(|member| member.is_alive);
        self.covers() && living().all(|member| !member.assigned.is_empty())
    }

    /// How many records a member printed.
    pub(super) fn printed_by(&self, member: usize) -> usize {
        self.members[member].printed
    }

    /// The partitions that a member has.
    pub(super) fn assigned_to(&self, member: usize) -> &BTreeSet<usize> {
        &self.members[member].assigned
    }

    /// How often a member was told of partitions that it gets or gives up.
    pub(super) fn rebalances_of(&self, member: usize) -> usize {
        self.members[member].rebalances
    }

    /// The partitions that a member had to give up at any time, and has.
    pub(super) fn regained_by(&self, member: usize) -> BTreeSet<usize> {
        &self.members[member].revoked & &self.members[member].assigned
    }

    /// kill -9 to one member.
    pub(super) fn kill(&mut self, member: usize) -> anyhow::Result<Instant> {
        let at = self.members[member].talk.kill()?;
        self.members[member].is_alive = false;
        self.covered_at = None;
        Ok(at)
    }

    /// When the living members had all partitions among them after the last kill.
    pub(super) const fn covered_at(&self) -> Option<Instant> {
        self.covered_at
    }

    /// Whether everything below `end` is committed in each partition.
    pub(super) fn has_committed(&self, end: u64) -> bool {
        let reached = self.commits.iter().filter(|(.., offset)| *offset >= end);
        let partitions: BTreeSet<_> = reached.map(|(_, partition, _)| *partition).collect();
        partitions.len() == self.partitions
    }

    /// Ends the living members, and fails unless they end well.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        let mut living = self.members.iter_mut().filter(|member| member.is_alive);
        living.try_for_each(|member| member.talk.finish())?;
        self.members.iter_mut().for_each(|member| member.is_alive = false);
        self.listen()
    }

    /// Fails if a record below a committed offset was printed by nobody, or if a commit moved back.
    pub(super) fn check_commits(&mut self) -> anyhow::Result<()> {
        self.commits.sort_by_key(|(at, ..)| *at);
        let mut committed = vec![0; self.partitions];
        for (_, partition, offset) in &self.commits {
            let before = std::mem::replace(&mut committed[*partition], *offset);
            ensure!(before <= *offset, "partition {partition} was committed up to {before}, then {offset}");
        }
        for (partition, end) in committed.into_iter().enumerate() {
            let skipped: Vec<_> =
                (0..end).filter(|offset| !self.printed.contains(&(partition, *offset))).collect();
            ensure!(skipped.is_empty(), "nobody printed {skipped:?} of partition {partition}");
        }
        Ok(())
    }

    fn hear(&mut self, at: Instant, place: usize, line: &Value) -> anyhow::Result<()> {
        if let Some(reason) = unsupported(line) {
            self.refusal = Some(reason);
        } else if let Some(assigned) = line.get("assigned") {
            self.members[place].assigned = numbers(assigned)?;
            self.members[place].rebalances += 1;
            self.note_cover(at);
        } else if let Some(revoked) = line.get("revoked") {
            let revoked = numbers(revoked)?;
            self.members[place].assigned.retain(|partition| !revoked.contains(partition));
            self.members[place].revoked.extend(revoked);
            self.members[place].rebalances += 1;
            self.note_cover(at);
        } else if let Some(committed) = line.get("committed") {
            for (partition, offset) in committed.as_object().context("commits are an object")? {
                let offset = offset.as_u64().context("an offset is a number")?;
                let partition: usize = partition.parse()?;
                ensure!(partition < self.partitions, "there is no partition {partition}");
                self.commits.push((at, partition, offset));
            }
        } else {
            let offset = line["offset"].as_u64().context("a record has an offset")?;
            let partition = usize::try_from(line["partition"].as_u64().context("and a partition")?)?;
            let value: super::records::Base64 = serde_json::from_value(line["value"].clone())?;
            ensure!(value.0 == format!("{partition}-{offset}").as_bytes(), "the value is {value:?}");
            self.members[place].printed += 1;
            self.printed.insert((partition, offset));
        }
        Ok(())
    }

    /// Notes when the living members have all partitions.
    fn note_cover(&mut self, at: Instant) {
        if self.covered_at.is_none() && self.covers() {
            self.covered_at = Some(at);
        }
    }

    /// Whether the living members have all partitions, each of them one.
    fn covers(&self) -> bool {
        let living = self.members.iter().filter(|member| member.is_alive);
        let owned: Vec<_> = living.flat_map(|member| &member.assigned).collect();
        let distinct: BTreeSet<_> = owned.iter().collect();
        owned.len() == self.partitions && distinct.len() == owned.len()
    }
}

fn numbers(value: &Value) -> anyhow::Result<BTreeSet<usize>> {
    Ok(serde_json::from_value(value.clone())?)
}
