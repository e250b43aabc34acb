//! The leader epochs of batches: in order, and as `leader-epoch-checkpoint` says.
//!
//! No CRC covers an epoch. Each batch is judged when the next one is known, so that one which lies is told from those
//! around it. The file is blamed only by a batch that is in order.

use std::path::Path;

use highwater_record::{LeaderEpoch, Offset};
use highwater_storage::ScannedBatch;

use super::fault::{Fault, Kind};

/// The epochs of a stretch of a log.
pub(super) struct EpochCheck<'a> {
    log: &'a Path,
    /// The entries of the file, oldest first; none if there is no file that can be read.
    stated: &'a [(LeaderEpoch, Offset)],
    /// The last epoch that was in order.
    before: Option<LeaderEpoch>,
    held: Option<ScannedBatch>,
    /// What the file is wrong about: offsets, and the epochs of the first of them by file and by batch.
    wrong: Option<(Offset, Offset, LeaderEpoch, LeaderEpoch)>,
    faults: Vec<Fault>,
}

/// Batches that are told of; more say nothing more.
const TOLD_MAX: usize = 16;

impl<'a> EpochCheck<'a> {
    pub(super) const fn new(log: &'a Path, stated: &'a [(LeaderEpoch, Offset)]) -> Self {
        Self { log, stated, before: None, held: None, wrong: None, faults: Vec::new() }
    }

    /// A good batch went by.
    pub(super) fn batch(&mut self, batch: &ScannedBatch) {
        if let Some(held) = self.held.replace(*batch) {
            self.judge(&held, batch.header.leader_epoch);
        }
    }

    fn judge(&mut self, batch: &ScannedBatch, next: Option<LeaderEpoch>) {
        let header = &batch.header;
        // Batches have none where the format or the broker is older than epochs.
        let Some(epoch) = header.leader_epoch else { return };
        let is_late = self.before.is_some_and(|before| epoch < before);
        let is_early =
            next.is_some_and(|next| epoch > next && self.before.is_none_or(|before| before <= next));
        let blames_next = is_late && next.is_some_and(|next| self.before.is_some_and(|before| next < before));
        if (is_late && !blames_next) || is_early {
            self.blame(batch, epoch, next);
            return;
        }
        self.before = Some(epoch);
        self.compare(header.base_offset, header.next_offset(), epoch);
    }

    fn blame(&mut self, batch: &ScannedBatch, epoch: LeaderEpoch, next: Option<LeaderEpoch>) {
        if self.faults.len() >= TOLD_MAX {
            return;
        }
        let name = |epoch: Option<LeaderEpoch>| epoch.map_or("none".to_owned(), |epoch| epoch.to_string());
        let what = format!(
            "leader epoch is {epoch}, the batch before has {}, the one after {}",
            name(self.before),
            name(next)
        );
        let header = &batch.header;
        let fault = Fault::new(Kind::BadEpoch, self.log, what).at(batch.position);
        self.faults.push(fault.of(header.base_offset, header.next_offset()));
    }

    fn compare(&mut self, from: Offset, to: Offset, epoch: LeaderEpoch) {
        let later = self.stated.partition_point(|entry| entry.1 <= from);
        // Below the first entry the file says nothing: the log was cut there.
        let Some(stated) = later.checked_sub(1).map(|found| self.stated[found].0) else { return };
        match &mut self.wrong {
            _ if stated == epoch => {}
            Some(wrong) => wrong.1 = to,
            None => self.wrong = Some((from, to, stated, epoch)),
        }
    }

    /// The batches are through.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        if let Some(held) = self.held.take() {
            self.judge(&held, None);
        }
        if let Some((from, to, stated, epoch)) = self.wrong {
            let file = self.log.with_file_name("leader-epoch-checkpoint");
            let what = format!("the file says epoch {stated} at offset {from}, the batch there has {epoch}");
            self.faults.push(Fault::new(Kind::EpochMismatch, &file, what).of(from, to));
        }
        self.faults
    }
}
