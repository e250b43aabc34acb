//! What the batches of segments are like, counted. Parts of a log are counted apart and merged.
//!
//! Memory is bounded: what could be without end, such as producers, is kept up to a bound and counted beyond it.
//! Knows no files.

use std::collections::BTreeMap;

use highwater_record::{Batch, BatchHeader, DecodeLimits, HEADER_BYTES, Record, TimestampMs};
use highwater_storage::{Damage, ScannedBatch};

use super::sketch::Sketch;

/// How far a batch may be decompressed.
const LIMITS: DecodeLimits = DecodeLimits { bytes_max: 256 << 20, ratio_max: 1000 };
/// Producers that are told apart.
const PRODUCERS_MAX: usize = 1000;
/// Classes of batch sizes: class `n` has those below 2 to the power of `n`, and not below half of it.
const CLASSES: usize = 32;

/// A producer as its batches show it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ProducerStats {
    pub(super) epochs: Option<(i16, i16)>,
    /// The first and the last sequence, in the order of the log.
    pub(super) sequences: Option<(i32, i32)>,
    pub(super) batches: u64,
    pub(super) is_transactional: bool,
}

/// Of records that were decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordStats {
    pub(super) batches: u64,
    pub(super) records: u64,
    /// Bytes of the batches' payloads as they are stored, and decompressed.
    pub(super) stored_bytes: u64,
    pub(super) decoded_bytes: u64,
    pub(super) null_keys: u64,
    pub(super) null_values: u64,
    pub(super) with_headers: u64,
    pub(super) headers: u64,
    pub(super) keys: Sketch,
    /// Batches that could not be decoded.
    pub(super) failed: u64,
}

/// Timestamps by the headers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct TimeStats {
    pub(super) first: Option<TimestampMs>,
    pub(super) last: Option<TimestampMs>,
    /// Batches whose largest timestamp is below that of one before, and by how much at most.
    pub(super) backwards: u64,
    pub(super) largest_step_ms: u64,
    /// Batches with a time after the present.
    pub(super) future: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Stats {
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) sizes: [u64; CLASSES],
    pub(super) codecs: BTreeMap<String, u64>,
    pub(super) producers: BTreeMap<i64, ProducerStats>,
    /// Batches of producers beyond those.
    pub(super) more_producers: u64,
    pub(super) transactional: u64,
    pub(super) control: u64,
    pub(super) commits: u64,
    pub(super) aborts: u64,
    pub(super) gaps: u64,
    pub(super) gap_offsets: u64,
    pub(super) damages: u64,
    pub(super) damaged_bytes: u64,
    pub(super) times: TimeStats,
    pub(super) decoded: RecordStats,
}

impl Stats {
    /// Counts a batch by its header.
    pub(super) fn header(&mut self, batch: &ScannedBatch, now: TimestampMs) {
        let header = &batch.header;
        self.batches += 1;
        self.records += u64::from(header.record_count);
        let class = (u32::BITS - header.size_bytes.leading_zeros()) as usize;
        self.sizes[class.min(CLASSES - 1)] += 1;
        let attributes = header.attributes;
        let codec = attributes
            .codec()
            .map_or_else(|| attributes.codec_number().to_string(), |codec| codec.to_string());
        *self.codecs.entry(codec).or_default() += 1;
        self.transactional += u64::from(attributes.is_transactional());
        self.control += u64::from(attributes.is_control());
        self.producer(header);
        self.times.batch(header, now);
    }

    fn producer(&mut self, header: &BatchHeader) {
        let Some(producer) = header.producer else { return };
        let id = producer.id.get();
        if self.producers.len() >= PRODUCERS_MAX && !self.producers.contains_key(&id) {
            self.more_producers += 1;
            return;
        }
        let sequences =
            producer.base_sequence.map(|first| (first.get(), first.advance(header.last_offset_delta).get()));
        let epoch = producer.epoch.get();
        self.producers.entry(id).or_default().merge(&ProducerStats {
            epochs: Some((epoch, epoch)),
            sequences,
            batches: 1,
            is_transactional: header.attributes.is_transactional(),
        });
    }

    /// Counts offsets that are missing.
    pub(super) fn gap(&mut self, offsets: u64) {
        self.gaps += 1;
        self.gap_offsets += offsets;
    }

    /// Counts damage.
    pub(super) fn damage(&mut self, damage: &Damage) {
        self.damages += 1;
        self.damaged_bytes += damage.to_position - damage.from_position;
    }

    /// Counts the markers of a control batch.
    pub(super) fn markers(&mut self, batch: &Batch) {
        for record in batch.records().into_iter().flatten().flatten() {
            // Version and type (Kafka: `ControlRecordType`).
            match record.key {
                Some([_, _, 0, 0]) => self.aborts += 1,
                Some([_, _, 0, 1]) => self.commits += 1,
                _ => {}
            }
        }
    }

    /// Counts what is in a batch.
    pub(super) fn records(&mut self, batch: &Batch) {
        let decoded = &mut self.decoded;
        let Ok(records) = batch.decompress(LIMITS) else {
            decoded.failed += 1;
            return;
        };
        decoded.batches += 1;
        decoded.stored_bytes += (batch.bytes().len() - HEADER_BYTES) as u64;
        decoded.decoded_bytes += records.payload_bytes() as u64;
        records.records().flatten().for_each(|record| decoded.record(&record));
    }

    /// Takes the counts of a part that comes behind.
    pub(super) fn merge(&mut self, other: &Self) {
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.batches += other.batches;
        self.records += other.records;
        self.sizes.iter_mut().zip(&other.sizes).for_each(|(size, other)| *size += other);
        for (codec, batches) in &other.codecs {
            *self.codecs.entry(codec.clone()).or_default() += batches;
        }
        for (id, producer) in &other.producers {
            if self.producers.len() >= PRODUCERS_MAX && !self.producers.contains_key(id) {
                self.more_producers += producer.batches;
            } else {
                self.producers.entry(*id).or_default().merge(producer);
            }
        }
        self.more_producers += other.more_producers;
        self.transactional += other.transactional;
        self.control += other.control;
        self.commits += other.commits;
        self.aborts += other.aborts;
        self.gaps += other.gaps;
        self.gap_offsets += other.gap_offsets;
        self.damages += other.damages;
        self.damaged_bytes += other.damaged_bytes;
        self.times.merge(&other.times);
        self.decoded.merge(&other.decoded);
    }
}

impl ProducerStats {
    fn merge(&mut self, other: &Self) {
        self.epochs = match (self.epochs, other.epochs) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        self.sequences = match (self.sequences, other.sequences) {
            (Some(a), Some(b)) => Some((a.0, b.1)),
            (a, b) => a.or(b),
        };
        self.batches += other.batches;
        self.is_transactional |= other.is_transactional;
    }
}

impl TimeStats {
    fn batch(&mut self, header: &BatchHeader, now: TimestampMs) {
        let (last, latest) = (header.max_timestamp, self.last);
        if let Some(latest) = latest.filter(|latest| last < *latest) {
            self.backwards += 1;
            self.largest_step_ms = self.largest_step_ms.max(latest.0.saturating_sub(last.0).unsigned_abs());
        }
        self.future += u64::from(last > now);
        self.last = latest.max(Some(last));
        // A delete horizon stands where the first timestamp would.
        let first = if header.attributes.has_delete_horizon() { last } else { header.base_timestamp };
        self.first = Some(self.first.map_or(first, |earlier| earlier.min(first)));
    }

    fn merge(&mut self, other: &Self) {
        self.first = match (self.first, other.first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.last = self.last.max(other.last);
        self.backwards += other.backwards;
        self.largest_step_ms = self.largest_step_ms.max(other.largest_step_ms);
        self.future += other.future;
    }
}

impl RecordStats {
    fn record(&mut self, record: &Record<'_>) {
        self.records += 1;
        match record.key {
            Some(key) => self.keys.add(key),
            None => self.null_keys += 1,
        }
        self.null_values += u64::from(record.value.is_none());
        let headers = record.headers.len() as u64;
        self.headers += headers;
        self.with_headers += u64::from(headers > 0);
    }

    fn merge(&mut self, other: &Self) {
        self.batches += other.batches;
        self.records += other.records;
        self.stored_bytes += other.stored_bytes;
        self.decoded_bytes += other.decoded_bytes;
        self.null_keys += other.null_keys;
        self.null_values += other.null_values;
        self.with_headers += other.with_headers;
        self.headers += other.headers;
        self.keys.merge(&other.keys);
        self.failed += other.failed;
    }
}
