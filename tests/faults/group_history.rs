//! What the members of a group did and were told, and the check that nothing was skipped and nothing moved back.
//!
//! Everybody writes into one journal, whose order is that of what happened: a step is written before the request that
//! follows from it is sent, an answer after it was received. The check is a pure function; it knows no broker and no
//! thread. What it calls a fault is what a group that commits only what it processed must never show:
//!
//! 1. skipped: a commit, sent or answered, passes a record that no member has processed before;
//! 2. moved back: an offset is answered, or acknowledged, below one that was certain when it was asked for: one that
//!    a member was acknowledged, or that anybody was answered;
//! 3. emptied: no offset is answered for a partition that has one;
//! 4. unprocessed: an acknowledged record was processed by nobody until the end;
//! 5. shared: two members are assigned one partition in one generation;
//! 6. beyond: an offset is acknowledged or answered that is larger than the end of its log when all is over.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::history::Placed;

/// A place in the journal: everything before it has happened.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Mark(pub(crate) usize);

/// One line of the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A leader's assignment reached a member.
    Assigned { member: u32, generation: i32, partition: i32 },
    /// A member has done its work on the records from `from` to before `to`.
    Processed { partition: i32, from: i64, to: i64 },
    /// A member is about to commit.
    CommitSent { partition: i32, offset: i64 },
    /// A commit that was sent at a mark is acknowledged.
    CommitAcked { partition: i32, offset: i64, sent_at: Mark },
    /// What is committed was asked for at a mark; the answer, `None` for no offset.
    Answered { partition: i32, offset: Option<i64>, asked_at: Mark },
}

/// An offset that should not be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    pub(crate) partition: i32,
    /// What was committed or answered; -1 for no offset.
    pub(crate) offset: i64,
    /// What it had to be compared with: the end of what is processed, or the offset that was certain.
    pub(crate) against: i64,
    /// Where in the journal.
    pub(crate) at: Mark,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, offset, against, at } = self;
        write!(f, "partition {partition}: {offset} against {against}, event {}", at.0)
    }
}

/// What is wrong; nothing, if all lists are empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Findings {
    pub(crate) skipped: Vec<Fault>,
    pub(crate) moved_back: Vec<Fault>,
    pub(crate) emptied: Vec<Fault>,
    pub(crate) beyond: Vec<Fault>,
    pub(crate) unprocessed: Vec<Placed>,
    /// Generation and partition.
    pub(crate) shared: Vec<(i32, i32)>,
    pub(crate) commits: usize,
    pub(crate) answers: usize,
    pub(crate) generations: usize,
}

impl Findings {
    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.skipped.is_empty()
            && self.moved_back.is_empty()
            && self.emptied.is_empty()
            && self.beyond.is_empty()
            && self.unprocessed.is_empty()
            && self.shared.is_empty()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commits, answers, generations, .. } = self;
        write!(
            f,
            "{generations} generations, {commits} commits acknowledged, {answers} offsets answered to fetches"
        )?;
        let lists = [
            ("skipped", &self.skipped),
            ("moved back", &self.moved_back),
            ("emptied", &self.emptied),
            ("beyond the end", &self.beyond),
        ];
        for (name, list) in lists {
            if let Some(first) = list.first() {
                write!(f, ", {} {name} (first: {first})", list.len())?;
            }
        }
        if let Some(first) = self.unprocessed.first() {
            write!(f, ", {} unprocessed (first: {first})", self.unprocessed.len())?;
        }
        if let Some((generation, partition)) = self.shared.first() {
            write!(f, ", {} shared (first: {partition} in {generation})", self.shared.len())?;
        }
        if self.is_clean() {
            f.write_str(", nothing skipped, moved back or left out")?;
        }
        Ok(())
    }
}

/// Holds the journal, what producers were acknowledged and what the log holds in the end against what must not happen.
pub(crate) fn inspect(journal: &[Event], acked: &[Placed], log: &[Placed]) -> Findings {
    let mut inspection = Inspection::default();
    for (index, event) in journal.iter().enumerate() {
        inspection.take(Mark(index), *event);
    }
    let Inspection { done, mut findings, owners, .. } = inspection;
    findings.beyond = beyond(journal, log);
    let is_done = |record: &&Placed| done.get(&record.partition).is_some_and(|done| done.has(record.offset));
    findings.unprocessed = acked.iter().filter(|record| !is_done(record)).copied().collect();
    let mut generations: Vec<i32> = owners.keys().map(|(generation, _)| *generation).collect();
    generations.sort_unstable();
    generations.dedup();
    findings.generations = generations.len();
    findings
}

/// What is committed beyond the log's end.
fn beyond(journal: &[Event], log: &[Placed]) -> Vec<Fault> {
    let mut ends: HashMap<i32, i64> = HashMap::new();
    for record in log {
        let end = ends.entry(record.partition).or_insert(0);
        *end = (*end).max(record.offset + 1);
    }
    let committed = journal.iter().enumerate().filter_map(|(index, event)| match *event {
        Event::CommitAcked { partition, offset, .. }
        | Event::Answered { partition, offset: Some(offset), .. } => Some((Mark(index), partition, offset)),
        _ => None,
    });
    let end_of = |partition: i32| ends.get(&partition).copied().unwrap_or(0);
    committed
        .filter(|(_, partition, offset)| *offset > end_of(*partition))
        .map(|(at, partition, offset)| Fault { partition, offset, against: end_of(partition), at })
        .collect()
}

#[derive(Default)]
struct Inspection {
    /// Per partition, what is processed.
    done: HashMap<i32, Ranges>,
    /// Per partition, from which place in the journal on which offset was certain, both rising.
    certain: HashMap<i32, Vec<(Mark, i64)>>,
    /// Who has a partition in a generation.
    owners: HashMap<(i32, i32), u32>,
    findings: Findings,
}

impl Inspection {
    fn take(&mut self, at: Mark, event: Event) {
        match event {
            Event::Assigned { member, generation, partition } => {
                if *self.owners.entry((generation, partition)).or_insert(member) != member {
                    self.findings.shared.push((generation, partition));
                }
            }
            Event::Processed { partition, from, to } => self.done.entry(partition).or_default().add(from, to),
            Event::CommitSent { partition, offset } => self.check_passed(at, partition, offset),
            Event::CommitAcked { partition, offset, sent_at } => {
                self.findings.commits += 1;
                self.check_order(at, partition, offset, sent_at);
            }
            Event::Answered { partition, offset, asked_at } => {
                self.findings.answers += 1;
                match offset {
                    Some(offset) => {
                        self.check_passed(at, partition, offset);
                        self.check_order(at, partition, offset, asked_at);
                    }
                    None => {
                        if let Some(against) = self.certain_at(partition, asked_at) {
                            self.findings.emptied.push(Fault { partition, offset: -1, against, at });
                        }
                    }
                }
            }
        }
    }

    /// Everything below a commit must be processed.
    fn check_passed(&mut self, at: Mark, partition: i32, offset: i64) {
        let against = self.done.get(&partition).map_or(0, Ranges::end_of_first);
        if offset > against {
            self.findings.skipped.push(Fault { partition, offset, against, at });
        }
    }

    /// What was asked for at a mark must not be below what was certain then. It is certain itself from now on.
    fn check_order(&mut self, at: Mark, partition: i32, offset: i64, asked_at: Mark) {
        if let Some(against) = self.certain_at(partition, asked_at).filter(|certain| offset < *certain) {
            self.findings.moved_back.push(Fault { partition, offset, against, at });
        }
        let certain = self.certain.entry(partition).or_default();
        if certain.last().is_none_or(|(_, last)| offset > *last) {
            certain.push((at, offset));
        }
    }

    /// The offset that was certain before `mark`.
    fn certain_at(&self, partition: i32, mark: Mark) -> Option<i64> {
        let certain = self.certain.get(&partition)?;
        let before = certain.partition_point(|(at, _)| *at < mark);
        certain[..before].last().map(|(_, offset)| *offset)
    }
}

/// Ranges of offsets, joined where they touch.
#[derive(Default)]
struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    fn add(&mut self, mut from: i64, mut to: i64) {
        while let Some((&other_from, &other_to)) = self.0.range(..=to).next_back() {
            if other_to < from {
                break;
            }
            self.0.remove(&other_from);
            from = from.min(other_from);
            to = to.max(other_to);
        }
        self.0.insert(from, to);
    }

    fn has(&self, offset: i64) -> bool {
        self.0.range(..=offset).next_back().is_some_and(|(_, to)| offset < *to)
    }

    /// The end of the range that begins at 0, 0 if there is none.
    fn end_of_first(&self) -> i64 {
        self.0.get(&0).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(from: i64, to: i64) -> Event {
        Event::Processed { partition: 0, from, to }
    }

    fn sent(offset: i64) -> Event {
        Event::CommitSent { partition: 0, offset }
    }

    fn acked(offset: i64, sent_at: usize) -> Event {
        Event::CommitAcked { partition: 0, offset, sent_at: Mark(sent_at) }
    }

    fn answered(offset: impl Into<Option<i64>>, asked_at: usize) -> Event {
        Event::Answered { partition: 0, offset: offset.into(), asked_at: Mark(asked_at) }
    }

    fn produced(offset: i64) -> Placed {
        Placed { partition: 0, offset, key: 0, stamp: None }
    }

    /// A log with ten records.
    fn log() -> Vec<Placed> {
        (0..10).map(produced).collect()
    }

    fn fault(offset: i64, against: i64, at: usize) -> Fault {
        Fault { partition: 0, offset, against, at: Mark(at) }
    }

    #[test]
    fn work_done_before_its_commit_is_clean() {
        let journal = [
            answered(None, 0),
            done(0, 5),
            sent(5),
            // Asked before the commit is acknowledged: either answer is true.
            acked(5, 2),
            answered(None, 3),
            answered(5, 4),
            // Another member does some of it again, which is allowed, and goes on.
            done(3, 9),
            sent(9),
            acked(9, 7),
            answered(9, 9),
        ];

        let findings = inspect(&journal, &[produced(0), produced(8)], &log());

        assert!(findings.is_clean(), "{findings}");
        assert_eq!((findings.commits, findings.answers), (2, 4));
    }

    #[test]
    fn a_record_skipped_past_a_commit_is_found() {
        let journal = [done(0, 4), done(5, 9), sent(4), acked(4, 2), sent(9), acked(9, 4)];

        let findings = inspect(&journal, &[produced(3), produced(4), produced(5)], &log());

        assert_eq!(findings.skipped, [fault(9, 4, 4)]);
        assert_eq!(findings.unprocessed, [produced(4)]);
    }

    #[test]
    fn a_commit_before_the_work_is_found_though_the_work_is_done_later() {
        let findings = inspect(&[sent(5), done(0, 5), acked(5, 0)], &[produced(0)], &log());

        assert_eq!(findings.skipped, [fault(5, 0, 0)]);
        assert!(findings.unprocessed.is_empty());
    }

    #[test]
    fn an_answer_past_what_anybody_processed_is_found() {
        let findings = inspect(&[done(0, 5), sent(5), acked(5, 1), answered(6, 3)], &[], &log());

        assert_eq!(findings.skipped, [fault(6, 5, 3)]);
    }

    #[test]
    fn an_answer_below_an_acknowledged_commit_is_found() {
        let journal = [done(0, 9), sent(4), acked(4, 1), sent(9), acked(9, 3), answered(4, 5)];

        let findings = inspect(&journal, &[], &log());

        assert_eq!(findings.moved_back, [fault(4, 9, 5)]);
    }

    #[test]
    fn an_answer_below_an_earlier_answer_is_found() {
        // The commit itself was never acknowledged, but once it is answered, it stands.
        let journal = [done(0, 9), sent(4), acked(4, 1), sent(9), answered(9, 3), answered(4, 5)];

        let findings = inspect(&journal, &[], &log());

        assert_eq!(findings.moved_back, [fault(4, 9, 5)]);
    }

    #[test]
    fn an_answer_that_was_under_way_may_be_the_older_one() {
        let journal = [done(0, 9), sent(4), acked(4, 1), sent(9), acked(9, 3), answered(4, 3)];

        let findings = inspect(&journal, &[], &log());

        assert!(findings.is_clean(), "{findings}");
    }

    #[test]
    fn a_commit_acknowledged_below_another_is_found() {
        let journal = [done(0, 9), sent(9), acked(9, 1), sent(4), acked(4, 3)];

        let findings = inspect(&journal, &[], &log());

        assert_eq!(findings.moved_back, [fault(4, 9, 4)]);
    }

    #[test]
    fn no_offset_where_there_was_one_is_found() {
        let findings = inspect(&[done(0, 5), sent(5), acked(5, 1), answered(None, 3)], &[], &log());

        assert_eq!(findings.emptied, [fault(-1, 5, 3)]);
    }

    #[test]
    fn a_partition_with_two_owners_in_one_generation_is_found() {
        let assigned = |member, generation| Event::Assigned { member, generation, partition: 7 };

        let findings = inspect(&[assigned(1, 1), assigned(1, 1), assigned(2, 2), assigned(1, 2)], &[], &[]);

        assert_eq!((findings.shared, findings.generations), (vec![(2, 7)], 2));
    }

    #[test]
    fn an_offset_beyond_the_end_of_the_log_is_found() {
        let journal = [done(0, 9), sent(9), acked(9, 1), answered(9, 3)];

        let findings = inspect(&journal, &[], &log()[..8]);

        assert_eq!(findings.beyond, [fault(9, 8, 2), fault(9, 8, 3)]);
        assert!(inspect(&journal, &[], &log()).is_clean());
    }
}
