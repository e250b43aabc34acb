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
    /// What the file says otherwise.
    differing: Option<Differing>,
    faults: Vec<Fault>,
}

/// Batches that have other epochs than the file says.
struct Differing {
    from: Offset,
    to: Offset,
    /// The epochs of the first of them, by the file and by its header.
    stated: LeaderEpoch,
    epoch: LeaderEpoch,
    /// Its position, if it is the only one and the batch before it has the epoch that the file says: the batch lies.
    alone: Option<u64>,
}

/// Batches that are told of; more say nothing more.
const TOLD_MAX: usize = 16;

impl<'a> EpochCheck<'a> {
    pub(super) const fn new(log: &'a Path, stated: &'a [(LeaderEpoch, Offset)]) -> Self {
        Self { log, stated, before: None, held: None, differing: None, faults: Vec::new() }
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
        let before = self.before.replace(epoch);
        self.compare(batch, epoch, before);
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

    fn compare(&mut self, batch: &ScannedBatch, epoch: LeaderEpoch, before: Option<LeaderEpoch>) {
        let (from, to) = (batch.header.base_offset, batch.header.next_offset());
        let later = self.stated.partition_point(|entry| entry.1 <= from);
        // Below the first entry the file says nothing: the log was cut there.
        let Some(stated) = later.checked_sub(1).map(|found| self.stated[found].0) else { return };
        match &mut self.differing {
            _ if stated == epoch => {}
            Some(differing) => (differing.to, differing.alone) = (to, None),
            None => {
                let alone = (before == Some(stated)).then_some(batch.position);
                self.differing = Some(Differing { from, to, stated, epoch, alone });
            }
        }
    }

    /// The batches are through.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        if let Some(held) = self.held.take() {
            self.judge(&held, None);
        }
        if let Some(Differing { from, to, stated, epoch, alone }) = self.differing {
            let fault = if let Some(position) = alone {
                let what = format!(
                    "leader epoch is {epoch}, the batch before has {stated}, and so says leader-epoch-checkpoint"
                );
                Fault::new(Kind::BadEpoch, self.log, what).at(position)
            } else {
                let file = self.log.with_file_name("leader-epoch-checkpoint");
                let what =
                    format!("the file says epoch {stated} at offset {from}, the batch there has {epoch}");
                Fault::new(Kind::EpochMismatch, &file, what)
            };
            self.faults.push(fault.of(from, to));
        }
        self.faults
    }
}
