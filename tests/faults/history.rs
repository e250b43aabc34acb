//! What producers were told and what the log holds, and the check of one against the other.
//!
//! Values are unique, so that every record of the log can be traced to the one call that sent it. The check is a
//! pure function. What it calls a fault is what no broker may do, with or without a crash:
//!
//! 1. lost: an acknowledged record is in the log nowhere; below the end of its partition it is lost in the middle,
//!    else in the suffix;
//! 2. moved: it is there, at another offset than the acknowledgement named;
//! 3. doubled: an idempotent session's record is there twice;
//! 4. reordered: of two records of one idempotent session and one partition the later sent one comes first;
//! 5. overtaken: it was sent after the acknowledgement of another, by whomever, and comes before it;
//! 6. contested: two values were promised, or seen, at one offset;
//! 7. gap: offsets do not follow each other from 0;
//! 8. vanished: a consumer saw it before the crash, and it is not there;
//! 9. stranger: nobody sent it, or the value is not one of ours;
//! 10. back: a consumer that is assigned its partitions was given an offset again, or a smaller one;
//! 11. skipped: such a consumer was given an offset and then not the next one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What a record says about itself: which session sent it, as which of its records.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Stamp {
    pub(crate) session: u32,
    pub(crate) counter: u32,
}

impl Stamp {
    /// The stamp as a value of about `bytes` bytes.
    pub(crate) fn to_value(self, bytes: usize) -> Vec<u8> {
        let mut value = format!("{}-{}-", self.session, self.counter).into_bytes();
        value.resize(value.len().max(bytes), b'.');
        value
    }

    /// The stamp in a value.
    pub(crate) fn from_value(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.splitn(3, '-');
        let session = parts.next()?.parse().ok()?;
        let counter = parts.next()?.parse().ok()?;
        let padding = parts.next()?;
        padding.bytes().all(|byte| byte == b'.').then_some(Self { session, counter })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.session, self.counter)
    }
}

/// A record at its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Placed {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The record's key: a number as text.
    pub(crate) key: u32,
    /// `None` if the record is not one that these tests send.
    pub(crate) stamp: Option<Stamp>,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stamp {
            Some(stamp) => write!(f, "{stamp} at {}:{}", self.partition, self.offset),
            None => write!(f, "an unknown value at {}:{}", self.partition, self.offset),
        }
    }
}

/// A moment of a campaign, in nanoseconds since it began.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(pub(crate) u64);

/// A batch that was acknowledged, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Call {
    /// Its first record.
    pub(crate) first: Placed,
    /// When it was first about to be sent.
    pub(crate) sent_at: Moment,
    /// When its acknowledgement had come.
    pub(crate) answered_at: Moment,
}

/// What producers and consumers know.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// What was acknowledged, where.
    pub(crate) acked: Vec<Placed>,
    /// The calls in which it was acknowledged, as far as somebody took the time.
    pub(crate) calls: Vec<Call>,
    /// What was sent and never answered: it may be there, once per attempt.
    pub(crate) unknown: HashSet<Stamp>,
    /// What somebody saw before the end, in no order.
    pub(crate) seen: Vec<Placed>,
    /// Per consumer that reads all partitions from 0 on by assignment, what it was given, in the order of its polls.
    pub(crate) polled: Vec<Vec<Placed>>,
    /// The sessions that promise no record twice and none out of order.
    pub(crate) idempotent: HashSet<u32>,
}

/// What is wrong; nothing, if all lists are empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) lost_in_the_middle: Vec<Placed>,
    pub(crate) lost_suffix: Vec<Placed>,
    pub(crate) moved: Vec<Placed>,
    pub(crate) doubled: Vec<Placed>,
    pub(crate) reordered: Vec<Placed>,
    pub(crate) contested: Vec<Placed>,
    pub(crate) gaps: Vec<Placed>,
    pub(crate) vanished: Vec<Placed>,
    pub(crate) strangers: Vec<Placed>,
    pub(crate) overtaken: Vec<Placed>,
    pub(crate) back: Vec<Placed>,
    pub(crate) skipped: Vec<Placed>,
    pub(crate) acked_count: usize,
    pub(crate) log_count: usize,
}

impl Verdict {
    fn lists(&self) -> [(&'static str, &Vec<Placed>); 12] {
        [
            ("lost in the middle", &self.lost_in_the_middle),
            ("lost suffix", &self.lost_suffix),
            ("moved", &self.moved),
            ("doubled", &self.doubled),
            ("reordered", &self.reordered),
            ("contested", &self.contested),
            ("gaps", &self.gaps),
            ("vanished", &self.vanished),
            ("strangers", &self.strangers),
            ("overtaken", &self.overtaken),
            ("polled again", &self.back),
            ("skipped by a poll", &self.skipped),
        ]
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.lists().iter().all(|(_, list)| list.is_empty())
    }

    /// Forgives that a log of one partition ends where it does, if it reaches `offset`; how many acknowledged records
    /// are missing behind it.
    pub(crate) fn forgive_suffix(&mut self, offset: i64) -> usize {
        let end = self.log_count as i64;
        let before = self.lost_suffix.len();
        if end >= offset {
            self.lost_suffix.retain(|record| record.offset < end);
            self.vanished.retain(|record| record.offset < end);
        }
        before - self.lost_suffix.len()
    }

    /// How many acknowledged records are not there.
    pub(crate) fn lost_count(&self) -> usize {
        self.lost_in_the_middle.len() + self.lost_suffix.len()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} acknowledged, {} in the log", self.acked_count, self.log_count)?;
        for (name, list) in self.lists() {
            if let Some(first) = list.first() {
                write!(f, ", {} {name} (first: {first})", list.len())?;
            }
        }
        if self.is_clean() {
            f.write_str(", nothing lost, doubled, moved or reordered")?;
        }
        Ok(())
    }
}

/// Holds the log, read from offset 0 of every partition in the order of its offsets, against the history.
pub(crate) fn check(history: &History, log: &[Placed]) -> Verdict {
    let mut verdict =
        Verdict { acked_count: history.acked.len(), log_count: log.len(), ..Verdict::default() };
    check_log(history, log, &mut verdict);
    check_promises(history, log, &mut verdict);
    check_real_time(&history.calls, &mut verdict);
    history.polled.iter().for_each(|polled| check_polls(polled, &mut verdict));
    verdict
}

/// What the log alone shows: gaps, doubles, order, strangers.
fn check_log(history: &History, log: &[Placed], verdict: &mut Verdict) {
    let acked: HashSet<Stamp> = history.acked.iter().filter_map(|record| record.stamp).collect();
    let mut next_offsets: BTreeMap<i32, i64> = BTreeMap::new();
    let mut there: HashSet<Stamp> = HashSet::with_capacity(log.len());
    let mut last_counters: HashMap<(u32, i32), u32> = HashMap::new();
    for record in log {
        let next_offset = next_offsets.entry(record.partition).or_insert(0);
        if record.offset != *next_offset {
            verdict.gaps.push(*record);
        }
        *next_offset = record.offset + 1;

        let known = record.stamp.filter(|stamp| acked.contains(stamp) || history.unknown.contains(stamp));
        let Some(stamp) = known else {
            verdict.strangers.push(*record);
            continue;
        };
        let is_new = there.insert(stamp);
        if !history.idempotent.contains(&stamp.session) {
            continue;
        }
        if !is_new {
            verdict.doubled.push(*record);
            continue;
        }
        let last = last_counters.entry((stamp.session, record.partition)).or_insert(stamp.counter);
        if stamp.counter < *last {
            verdict.reordered.push(*record);
        }
        *last = stamp.counter.max(*last);
    }
}

/// Whether the log keeps what producers were promised and consumers saw.
fn check_promises(history: &History, log: &[Placed], verdict: &mut Verdict) {
    let at: HashMap<(i32, i64), &Placed> =
        log.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let there: HashSet<Stamp> = log.iter().filter_map(|record| record.stamp).collect();
    let mut ends: HashMap<i32, i64> = HashMap::new();
    for record in log {
        let end = ends.entry(record.partition).or_insert(0);
        *end = (*end).max(record.offset + 1);
    }

    let mut promised: HashMap<(i32, i64), Option<Stamp>> = HashMap::new();
    let seen = history.seen.iter().chain(history.polled.iter().flatten());
    for (record, is_ack) in history.acked.iter().map(|r| (r, true)).chain(seen.map(|r| (r, false))) {
        let place = (record.partition, record.offset);
        if *promised.entry(place).or_insert(record.stamp) != record.stamp {
            verdict.contested.push(*record);
        }
        if at.get(&place).is_some_and(|found| found.stamp == record.stamp && found.key == record.key) {
            continue;
        }
        match (is_ack, record.stamp.is_some_and(|stamp| there.contains(&stamp))) {
            (false, _) => verdict.vanished.push(*record),
            (true, true) => verdict.moved.push(*record),
            (true, false) if record.offset < ends.get(&record.partition).copied().unwrap_or(0) => {
                verdict.lost_in_the_middle.push(*record);
            }
            (true, false) => verdict.lost_suffix.push(*record),
        }
    }
}

/// What was sent after the acknowledgement of another batch comes after it: from the end of each partition on, no
/// batch may have been sent after any batch behind it was acknowledged.
fn check_real_time(calls: &[Call], verdict: &mut Verdict) {
    let mut by_place: Vec<&Call> = calls.iter().collect();
    by_place.sort_by_key(|call| (call.first.partition, call.first.offset));
    for partition in by_place.chunk_by(|one, next| one.first.partition == next.first.partition) {
        let mut first_answer = Moment(u64::MAX);
        for call in partition.iter().rev() {
            if call.sent_at > first_answer {
                verdict.overtaken.push(call.first);
            }
            first_answer = first_answer.min(call.answered_at);
        }
    }
}

/// One consumer's polls: every offset once, from 0 on.
fn check_polls(polled: &[Placed], verdict: &mut Verdict) {
    let mut next_offsets: HashMap<i32, i64> = HashMap::new();
    for record in polled {
        let next = next_offsets.entry(record.partition).or_insert(0);
        if record.offset < *next {
            verdict.back.push(*record);
        } else if record.offset > *next {
            verdict.skipped.push(*record);
        }
        *next = record.offset + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of session 1 with key 0 in partition 0.
    fn record(offset: i64, counter: u32) -> Placed {
        Placed { partition: 0, offset, key: 0, stamp: Some(Stamp { session: 1, counter }) }
    }

    fn acked(records: &[Placed]) -> History {
        History { acked: records.to_vec(), idempotent: HashSet::from([1]), ..History::default() }
    }

    #[test]
    fn a_missing_end_is_forgiven_from_an_offset_on_and_a_hole_is_not() {
        let log = [record(0, 0), record(1, 1)];
        let mut history = acked(&[record(0, 0), record(1, 1), record(2, 2), record(3, 3)]);
        history.seen.push(record(3, 3));
        let forgiven = |history: &History, log: &[Placed], offset| {
            let mut verdict = check(history, log);
            (verdict.forgive_suffix(offset), verdict.is_clean())
        };

        assert_eq!(forgiven(&history, &log, 2), (2, true));
        assert_eq!(forgiven(&history, &log, 3), (0, false), "the log had to reach 3");
        let hole = [record(0, 0), record(2, 2)];
        assert!(!forgiven(&history, &hole, 1).1);
    }

    #[test]
    fn a_log_that_holds_what_was_acknowledged_is_clean() {
        let records = [record(0, 0), record(1, 1), Placed { partition: 1, ..record(0, 2) }];

        let verdict = check(&acked(&records), &records);

        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.acked_count, verdict.log_count), (3, 3));
    }

    #[test]
    fn an_acknowledged_record_beyond_the_end_is_a_lost_suffix() {
        let verdict = check(&acked(&[record(0, 0), record(1, 1)]), &[record(0, 0)]);

        let expected =
            Verdict { lost_suffix: vec![record(1, 1)], acked_count: 2, log_count: 1, ..Verdict::default() };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn an_acknowledged_record_whose_place_is_taken_is_lost_in_the_middle() {
        let mut history = acked(&[record(0, 0), record(1, 1)]);
        history.unknown.insert(Stamp { session: 1, counter: 2 });

        let verdict = check(&history, &[record(0, 0), record(1, 2)]);

        assert_eq!(verdict.lost_in_the_middle, [record(1, 1)]);
        assert_eq!((verdict.lost_count(), verdict.lost_suffix.len()), (1, 0));
    }

    #[test]
    fn a_hole_is_a_gap_and_a_loss_in_the_middle() {
        let all = [record(0, 0), record(1, 1), record(2, 2)];

        let verdict = check(&acked(&all), &[record(0, 0), record(2, 2)]);

        assert_eq!((verdict.gaps, verdict.lost_in_the_middle), (vec![record(2, 2)], vec![record(1, 1)]));
    }

    #[test]
    fn a_log_that_does_not_begin_at_zero_has_a_gap() {
        let verdict = check(&acked(&[record(5, 0)]), &[record(5, 0)]);

        assert_eq!(verdict.gaps, [record(5, 0)]);
    }

    #[test]
    fn a_retry_that_was_appended_again_is_doubled() {
        let once = [record(0, 0), record(1, 1)];

        let verdict = check(&acked(&once), &[record(0, 0), record(1, 1), record(2, 0)]);

        assert_eq!(verdict.doubled, [record(2, 0)]);
        assert!(verdict.reordered.is_empty() && verdict.lost_count() == 0);
    }

    #[test]
    fn a_session_without_idempotence_may_double() {
        let mut history = acked(&[record(0, 0)]);
        history.idempotent.clear();

        assert!(check(&history, &[record(0, 0), record(1, 0)]).is_clean());
    }

    #[test]
    fn a_record_before_its_predecessor_is_reordered() {
        let swapped = [record(0, 1), record(1, 0)];

        assert_eq!(check(&acked(&swapped), &swapped).reordered, [record(1, 0)]);
    }

    #[test]
    fn order_counts_per_partition() {
        let other_key = Placed { key: 9, ..record(1, 0) };
        let elsewhere = Placed { partition: 1, ..record(0, 0) };

        assert_eq!(
            check(&acked(&[record(0, 1), other_key]), &[record(0, 1), other_key]).reordered,
            [other_key]
        );
        assert!(check(&acked(&[record(0, 1), elsewhere]), &[record(0, 1), elsewhere]).is_clean());
    }

    /// A call that acknowledged the record of `counter` at `offset`.
    fn call(offset: i64, counter: u32, sent_at: u64, answered_at: u64) -> Call {
        let first = record(offset, counter);
        Call { first, sent_at: Moment(sent_at), answered_at: Moment(answered_at) }
    }

    fn overtaken(calls: &[Call]) -> Vec<Placed> {
        check(&History { calls: calls.to_vec(), ..History::default() }, &[]).overtaken
    }

    #[test]
    fn a_batch_sent_after_the_acknowledgement_of_one_behind_it_has_overtaken() {
        let late = call(0, 7, 30, 40);

        assert_eq!(overtaken(&[late, call(1, 8, 10, 20), call(2, 9, 35, 45)]), [late.first]);
    }

    #[test]
    fn batches_under_way_at_once_may_come_in_any_order() {
        assert_eq!(overtaken(&[call(0, 7, 15, 40), call(1, 8, 10, 20)]), []);
        assert_eq!(overtaken(&[call(0, 7, 20, 40), call(1, 8, 10, 20)]), []);
    }

    #[test]
    fn real_time_counts_within_a_partition() {
        let mut elsewhere = call(5, 8, 10, 20);
        elsewhere.first.partition = 1;

        assert_eq!(overtaken(&[call(0, 7, 30, 40), elsewhere]), []);
    }

    fn polled(records: &[Placed]) -> Verdict {
        check(&History { polled: vec![records.to_vec()], ..History::default() }, &[])
    }

    #[test]
    fn a_consumer_that_is_given_a_record_again_went_back() {
        let verdict = polled(&[record(0, 0), record(1, 1), record(1, 1), record(2, 2)]);

        assert_eq!((verdict.back, verdict.skipped), (vec![record(1, 1)], vec![]));
    }

    #[test]
    fn a_consumer_that_is_not_given_the_next_record_has_skipped() {
        let verdict = polled(&[record(0, 0), record(2, 2), record(3, 3)]);

        assert_eq!((verdict.back, verdict.skipped), (vec![], vec![record(2, 2)]));
        assert_eq!(polled(&[record(1, 1)]).skipped, [record(1, 1)]);
    }

    #[test]
    fn what_a_consumer_polled_must_not_vanish_or_change() {
        assert_eq!(polled(&[record(0, 0)]).vanished, [record(0, 0)]);
        let history = History { polled: vec![vec![record(0, 0)], vec![record(0, 1)]], ..History::default() };

        assert_eq!(check(&history, &[record(0, 0)]).contested, [record(0, 1)]);
    }

    #[test]
    fn a_record_at_another_offset_than_promised_is_moved() {
        let mut history = acked(&[record(1, 0)]);
        history.unknown.insert(Stamp { session: 1, counter: 1 });
        let log = [record(0, 0), record(1, 1)];

        let verdict = check(&history, &log);

        assert_eq!((verdict.moved.as_slice(), verdict.lost_count()), (&[record(1, 0)][..], 0));
    }

    #[test]
    fn an_offset_promised_to_two_records_is_contested() {
        let verdict = check(&acked(&[record(0, 0), record(0, 1)]), &[record(0, 0)]);

        assert_eq!(verdict.contested, [record(0, 1)]);
    }

    #[test]
    fn a_record_that_a_consumer_saw_must_not_vanish() {
        let history = History { seen: vec![record(0, 0)], ..History::default() };

        assert_eq!(check(&history, &[]).vanished, [record(0, 0)]);
    }

    #[test]
    fn a_record_without_an_answer_may_be_there_or_not() {
        let unknown = HashSet::from([Stamp { session: 1, counter: 0 }]);
        let history = History { unknown, idempotent: HashSet::from([1]), ..History::default() };

        assert!(check(&history, &[]).is_clean());
        assert!(check(&history, &[record(0, 0)]).is_clean());
        assert_eq!(check(&history, &[record(0, 0), record(1, 0)]).doubled, [record(1, 0)]);
    }

    #[test]
    fn a_record_that_nobody_sent_is_a_stranger() {
        let garbage = Placed { stamp: None, ..record(0, 0) };

        assert_eq!(check(&acked(&[]), &[garbage, record(1, 7)]).strangers, [garbage, record(1, 7)]);
    }

    #[test]
    fn a_stamp_survives_its_value() {
        let stamp = Stamp { session: 3, counter: 14 };

        assert_eq!(Stamp::from_value(&stamp.to_value(0)), Some(stamp));
        assert_eq!(Stamp::from_value(&stamp.to_value(100)), Some(stamp));
        assert_eq!(stamp.to_value(100).len(), 100);
        for damaged in [&b"3-14"[..], b"3-14-..x", b"-14-", b"3--", b"\xff-1-"] {
            assert_eq!(Stamp::from_value(damaged), None);
        }
    }
}
