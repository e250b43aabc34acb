//! How the transactions of a partition ended, told ahead of their records by a second walk that reads the markers.
//!
//! A marker of a producer ends its transaction: all its transactional records since its marker before. The second walk
//! goes no further than the marker that is asked for, and remembers markers of others that it came by; how many
//! those are is bounded.

use std::collections::{HashMap, VecDeque};

use anyhow::{Result, bail};
use highwater_record::{BatchHeader, EndOfTransaction, Offset};
use highwater_storage::{Crcs, ScannedBatch};

use super::files::PartitionFiles;
use super::span::LIMITS;
use super::walk::{Step, Walk};
use crate::resolve::Range;

/// Markers that are remembered at most: 24 MiB or so.
const MARKERS_MAX: usize = 1 << 20;

/// The markers ahead.
pub(super) struct Markers<'a> {
    ahead: Walk<'a>,
    /// By producer, in the order of the log.
    known: HashMap<i64, VecDeque<(Offset, EndOfTransaction)>>,
    count: usize,
}

impl<'a> Markers<'a> {
    /// Of the batches from `start` on.
    pub(super) fn new(files: &'a PartitionFiles, start: Offset) -> Self {
        let ahead = Walk::new(files, Range { start, stop: None }, Crcs::Left);
        Self { ahead, known: HashMap::new(), count: 0 }
    }

    /// How the transaction of a batch ended; `None` if the log has no marker of it: it is open. Batches are asked about
    /// in the order of the log.
    pub(super) fn end_of(&mut self, header: &BatchHeader) -> Result<Option<EndOfTransaction>> {
        let Some(producer) = header.producer else { return Ok(Some(EndOfTransaction::Commit)) };
        let producer = producer.id.get();
        if let Some(known) = self.known.get_mut(&producer) {
            while known.pop_front_if(|(offset, _)| *offset < header.base_offset).is_some() {
                self.count -= 1;
            }
            if let Some((_, end)) = known.front() {
                return Ok(Some(*end));
            }
        }
        while let Some(step) = self.ahead.next()? {
            // Damage is told where records are printed; a marker that is lost in it leaves its transaction open.
            let Step::Batch(_, batch) = step else { continue };
            let (at, whose) = (batch.header.base_offset, batch.header.producer);
            let Some(whose) = whose.filter(|_| at >= header.base_offset) else { continue };
            let Some(end) = self.marker(&batch) else { continue };
            self.remember(whose.id.get(), at, end, header.base_offset)?;
            if whose.id.get() == producer {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// What a batch says if it is a marker that can be read.
    fn marker(&self, batch: &ScannedBatch) -> Option<EndOfTransaction> {
        if !batch.header.attributes.is_control() {
            return None;
        }
        let records = self.ahead.read(batch).ok()?.decompress(LIMITS).ok()?;
        let first = records.records().next()?.ok()?;
        EndOfTransaction::of(&first)
    }

    fn remember(&mut self, producer: i64, at: Offset, end: EndOfTransaction, passed: Offset) -> Result<()> {
        if self.count >= MARKERS_MAX {
            // Producers that nobody asked about again.
            self.known.retain(|_, markers| {
                markers.retain(|(offset, _)| *offset >= passed);
                !markers.is_empty()
            });
            self.count = self.known.values().map(VecDeque::len).sum();
        }
        if self.count >= MARKERS_MAX {
            bail!(
                "a transaction at offset {passed} is so long that more than {MARKERS_MAX} others end before it does\n  \
                 all records, of aborted transactions too:  --isolation read_uncommitted"
            );
        }
        self.known.entry(producer).or_default().push_back((at, end));
        self.count += 1;
        Ok(())
    }
}
