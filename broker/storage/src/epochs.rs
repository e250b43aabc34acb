//! Which leader epoch began at which offset: Kafka's `leader-epoch-checkpoint`.
//!
//! Text, version 0: a line `0`, a line with the number of entries, and a line `epoch start-offset` for each. Epochs
//! and offsets grow. The file is disposable: batch headers say the same.

use std::fmt::Write;

use highwater_record::{LeaderEpoch, Offset};

/// Name of the file in a partition's directory.
pub(crate) const FILE_NAME: &str = "leader-epoch-checkpoint";

/// The epochs of one log, oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Epochs(Vec<(LeaderEpoch, Offset)>);

/// Reads a partition's `leader-epoch-checkpoint` offline, ours or Kafka's: which epoch began where, oldest first; nothing
/// if it does not hold together.
pub fn parse_leader_epochs(text: &str) -> Option<Vec<(LeaderEpoch, Offset)>> {
    Epochs::parse(text).map(|epochs| epochs.0)
}

impl Epochs {
    /// Reads the file; `None` if it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut epochs = Self::default();
        for line in lines.by_ref().take(count) {
            let (epoch, start) = line.split_once(' ')?;
            let epoch = LeaderEpoch::new(epoch.parse().ok()?)?;
            let start = Offset::new(start.parse().ok()?)?;
            if epochs.0.last().is_some_and(|last| last.0 >= epoch || last.1 > start) {
                return None;
            }
            epochs.0.push((epoch, start));
        }
        (epochs.0.len() == count && lines.next().is_none()).then_some(epochs)
    }

    /// The file's text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("0\n{}\n", self.0.len());
        for (epoch, start) in &self.0 {
            writeln!(text, "{epoch} {start}").expect("writing to a string cannot fail");
        }
        text
    }

    /// Notes that a batch of `epoch` begins at `offset`. Says whether that is news.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        let news = self.0.last().is_none_or(|last| last.0 < epoch);
        if news {
            self.0.push((epoch, offset));
        }
        news
    }

    /// Which epoch began where, oldest first.
    pub(crate) fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.0
    }

    pub(crate) fn latest(&self) -> Option<LeaderEpoch> {
        self.0.last().map(|entry| entry.0)
    }

    /// The epoch that a record at `offset` has, or would have.
    pub(crate) fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let later = self.0.partition_point(|entry| entry.1 <= offset);
        Some(self.0.get(later.checked_sub(1)?)?.0)
    }

    /// The largest epoch that is at most `epoch`, and the offset where it ends. An epoch before all known ones ends
    /// where the first known one begins (Kafka: `LeaderEpochFileCache.endOffsetFor`).
    pub(crate) fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let later = self.0.partition_point(|entry| entry.0 <= epoch);
        let end = self.0.get(later).map_or(log_end, |entry| entry.1);
        match later.checked_sub(1) {
            Some(found) => Some((self.0[found].0, end)),
            None => self.0.first().map(|first| (epoch, first.1)),
        }
    }

    /// Forgets what begins at or after `end`. Says whether anything changed.
    pub(crate) fn truncate_from_end(&mut self, end: Offset) -> bool {
        let before = self.0.len();
        self.0.retain(|entry| entry.1 < end);
        self.0.len() != before
    }

    /// Forgets epochs that ended at or before `start`; the one that covers it begins there. Says whether anything
    /// changed.
    pub(crate) fn truncate_from_start(&mut self, start: Offset) -> bool {
        let keep_from = self.0.partition_point(|entry| entry.1 <= start).saturating_sub(1);
        let mut changed = keep_from > 0;
        self.0.drain(..keep_from);
        if let Some(first) = self.0.first_mut()
            && first.1 < start
        {
            first.1 = start;
            changed = true;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(n: i32) -> LeaderEpoch {
        LeaderEpoch::new(n).unwrap()
    }

    fn offset(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }

    fn sample() -> Epochs {
        Epochs::parse("0\n3\n1 0\n4 10\n5 25\n").unwrap()
    }

    #[test]
    fn the_file_is_kafkas_text() {
        assert_eq!(sample().to_text(), "0\n3\n1 0\n4 10\n5 25\n");
        for text in
            ["", "1\n0\n", "0\n2\n1 0\n", "0\n1\n1 0\n2 5\n", "0\n2\n4 0\n1 5\n", "0\n1\n-1 0\n", "0\n1\n1\n"]
        {
            assert_eq!(Epochs::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let end = offset(30);

        assert_eq!(sample().end_of(epoch(1), end), Some((epoch(1), offset(10))));
        assert_eq!(sample().end_of(epoch(3), end), Some((epoch(1), offset(10))));
        assert_eq!(sample().end_of(epoch(5), end), Some((epoch(5), end)));
        assert_eq!(sample().end_of(epoch(9), end), Some((epoch(5), end)));
        assert_eq!(sample().end_of(epoch(0), end), Some((epoch(0), offset(0))));
        assert_eq!(Epochs::default().end_of(epoch(0), end), None);
    }

    #[test]
    fn truncation_keeps_the_epoch_that_covers_the_start() {
        let mut epochs = sample();

        assert!(epochs.truncate_from_start(offset(12)));
        assert!(epochs.truncate_from_end(offset(25)));

        assert_eq!(epochs.to_text(), "0\n1\n4 12\n");
    }
}
