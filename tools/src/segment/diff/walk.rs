//! The records of a partition one after the other, for comparing: what cannot be read is said and stepped over.
//!
//! One batch is in memory at a time, decompressed up to a bound.

use std::collections::VecDeque;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use highwater_record::{DecodeLimits, Offset, Producer, Record, TimestampMs};
use highwater_storage::{Crcs, Piece, SalvageScan};

use super::super::files::{PartitionFiles, SegmentFile};
use crate::output::note;
use crate::resolve::Range;

/// How far a batch may be decompressed.
const LIMITS: DecodeLimits = DecodeLimits { bytes_max: 256 << 20, ratio_max: 1000 };

/// A record, and what its batch says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) offset: Offset,
    pub(super) key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    timestamp: TimestampMs,
    epoch: Option<i32>,
    producer: Option<Producer>,
    is_control: bool,
}

impl Entry {
    /// What is not the same in another record.
    pub(super) fn differs_in(&self, other: &Self) -> Vec<&'static str> {
        let fields = [
            ("key", self.key != other.key),
            ("value", self.value != other.value),
            ("headers", self.headers != other.headers),
            ("timestamp", self.timestamp != other.timestamp),
            ("epoch", self.epoch != other.epoch),
            ("producer", self.producer != other.producer),
            ("control", self.is_control != other.is_control),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Whether it is a marker of a transaction, which is no record of anybody's.
    pub(super) const fn is_control(&self) -> bool {
        self.is_control
    }

    /// Its bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let of = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + of(value)).sum();
        of(&self.key) + of(&self.value) + headers
    }

    /// Key and value, cut short.
    pub(super) fn preview(&self, chars_max: usize) -> String {
        let text =
            |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let mut preview = text(&self.key).map_or_else(String::new, |key| format!("{key}="));
        let _ = write!(preview, "{}", text(&self.value).unwrap_or_else(|| "(no value)".to_owned()));
        match preview.char_indices().nth(chars_max) {
            Some((end, _)) => format!("{}...", &preview[..end]),
            None => preview,
        }
    }

    fn of(record: &Record<'_>, batch: &highwater_record::BatchHeader) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Self {
            offset: record.offset,
            key: owned(record.key),
            value: owned(record.value),
            headers: record.headers.clone().map(|(name, value)| (name.to_vec(), owned(value))).collect(),
            timestamp: record.timestamp,
            epoch: batch.leader_epoch.map(highwater_record::LeaderEpoch::get),
            producer: batch.producer,
            is_control: batch.attributes.is_control(),
        }
    }
}

/// A walk over the records of a range, in the order of their offsets.
pub(super) struct RecordWalk<'a> {
    segments: VecDeque<&'a SegmentFile>,
    scan: Option<(SalvageScan, &'a SegmentFile)>,
    /// Records of the batch at hand.
    ready: VecDeque<Entry>,
    range: Range,
    /// Stretches that could not be read.
    pub(super) unreadable: u64,
}

impl<'a> RecordWalk<'a> {
    /// The records of a partition; none of one that is not there.
    pub(super) fn new(files: Option<&'a PartitionFiles>, range: &Range) -> Self {
        let wanted = |segment: &&SegmentFile| {
            segment.next_base.is_none_or(|next| next > range.start)
                && range.stop.is_none_or(|stop| segment.base < stop)
        };
        let segments = files.into_iter().flat_map(|files| &files.segments).filter(wanted).collect();
        Self { segments, scan: None, ready: VecDeque::new(), range: range.clone(), unreadable: 0 }
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if self.scan.is_none() {
                let Some(segment) = self.segments.pop_front() else { return Ok(None) };
                let scan = SalvageScan::open(&segment.path, segment.base, segment.next_base, Crcs::Compared)
                    .with_context(|| format!("read {}", segment.path.display()))?;
                self.scan = Some((scan, segment));
            }
            self.read_batch()?;
        }
    }

    /// Takes the records of the next batch.
    fn read_batch(&mut self) -> Result<()> {
        let Some((scan, segment)) = &mut self.scan else { return Ok(()) };
        let context = || format!("read {}", segment.path.display());
        let Some(piece) = scan.next() else {
            self.scan = None;
            return Ok(());
        };
        let batch = match piece.with_context(context)? {
            Piece::Good(batch) => batch,
            Piece::Damaged(damage) => {
                let path = segment.path.display();
                note(format_args!("{path}: position {}: {}", damage.from_position, damage.cause));
                self.unreadable += 1;
                return Ok(());
            }
        };
        let is_before = batch.header.last_offset() < self.range.start;
        if is_before || self.range.stop.is_some_and(|stop| batch.header.base_offset >= stop) {
            return Ok(());
        }
        let whole = scan.read(&batch).with_context(context)?;
        let records = whole.decompress(LIMITS).with_context(context)?;
        for record in records.records() {
            let record = record.with_context(context)?;
            let is_wanted =
                record.offset >= self.range.start && self.range.stop.is_none_or(|stop| record.offset < stop);
            if is_wanted {
                self.ready.push_back(Entry::of(&record, &batch.header));
            }
        }
        Ok(())
    }
}
