//! What a partition remembers of idempotent producers, so that a retry is appended once.
//!
//! Per producer: its epoch and its last five batches, because a client has at most five in flight. Kafka's own
//! snapshot keeps one and forgets the rest over a restart; our sidecar keeps all five. The state is disposable: it
//! can be read again from batch headers. Rules: `ProducerAppendInfo.java`, `ProducerStateEntry.java`.
//!
//! A partition remembers a bounded number of producers, since anybody can claim to be a new one with each batch (Kafka
//! has no such bound). Who wrote longest ago is forgotten first, which is what time would do as well.
//!
//! Knows no clock, and no file but its sidecar read offline. A check changes nothing; only what was written is recorded.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;

use highwater_record::{BatchHeader, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::disk::DiskFiles;
use crate::own_file::{self, Fields, Kind, frame, unframe};

/// Batches that are remembered per producer (Kafka: `NUM_BATCHES_TO_RETAIN`).
const BATCHES_KEPT: usize = 5;
/// Producers that are remembered: about 4 MiB.
const PRODUCERS_MAX: usize = 10_000;
/// How many are forgotten at once when there are more, so that the search for the oldest is rare.
const FORGOTTEN_AT_ONCE: usize = PRODUCERS_MAX / 16;
const SIDECAR: Kind = Kind { magic: *b"HWPS", version: 1 };
/// Name of the sidecar in a partition's directory.
pub(crate) const FILE_NAME: &str = "producer-state";

/// A batch that a producer sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Seen {
    first_sequence: Sequence,
    last_sequence: Sequence,
    base_offset: Offset,
    last_offset: Offset,
    timestamp: TimestampMs,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Entry {
    epoch: ProducerEpoch,
    /// When it was last heard of; decides when it is forgotten.
    last_active: TimestampMs,
    /// Oldest first.
    batches: VecDeque<Seen>,
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Producers {
    entries: HashMap<ProducerId, Entry>,
}

/// What a sidecar of producer state says of the log that it belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProducerStateFile {
    /// It covers the batches below this offset.
    pub end: Offset,
    /// Base offset and CRC of the last of them; none if there is none.
    pub last: Option<(Offset, u32)>,
    /// How many producers it remembers.
    pub producers: usize,
}

/// Reads a partition's `producer-state` offline; nothing if it does not hold together.
pub fn read_producer_state(path: &Path) -> io::Result<Option<ProducerStateFile>> {
    let bytes = own_file::load(&DiskFiles, path)?.unwrap_or_default();
    Ok(Snapshot::decode(&bytes).map(|snapshot| ProducerStateFile {
        end: snapshot.end,
        last: snapshot.last.map(|last| (last.base_offset, last.crc)),
        producers: snapshot.producers.entries.len(),
    }))
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Append it.
    New,
    /// It is there already.
    Duplicate { base_offset: Offset, last_offset: Offset, timestamp: TimestampMs },
    /// Its sequence is not the next one.
    OutOfOrder { producer: ProducerId, expected: Sequence, actual: Sequence },
    /// A newer session of the producer exists.
    Fenced { producer: ProducerId, epoch: ProducerEpoch, current: ProducerEpoch },
}

/// The batch that a sidecar ends with: if the log has another one there, the sidecar belongs to another history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fingerprint {
    pub(crate) base_offset: Offset,
    pub(crate) crc: u32,
}

/// Producer state as of an offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Snapshot {
    /// The state covers the batches below this offset.
    pub(crate) end: Offset,
    /// The last of them; none if there is none.
    pub(crate) last: Option<Fingerprint>,
    pub(crate) producers: Producers,
}

impl Producers {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Decides about a batch without changing anything.
    pub(crate) fn check(&self, header: &BatchHeader) -> Verdict {
        let Some(producer) = header.producer else { return Verdict::New };
        // Without state any first sequence is accepted: the state may have expired.
        let Some(entry) = self.entries.get(&producer.id) else { return Verdict::New };
        if producer.epoch < entry.epoch {
            return Verdict::Fenced { producer: producer.id, epoch: producer.epoch, current: entry.epoch };
        }
        let Some(first) = producer.base_sequence else { return Verdict::New };
        let out_of_order = |expected| Verdict::OutOfOrder { producer: producer.id, expected, actual: first };
        if producer.epoch > entry.epoch {
            return if first == Sequence::ZERO { Verdict::New } else { out_of_order(Sequence::ZERO) };
        }
        let last = first.advance(header.last_offset_delta);
        let same = |seen: &&Seen| seen.first_sequence == first && seen.last_sequence == last;
        if let Some(seen) = entry.batches.iter().find(same) {
            return Verdict::Duplicate {
                base_offset: seen.base_offset,
                last_offset: seen.last_offset,
                timestamp: seen.timestamp,
            };
        }
        match entry.batches.back().map(|seen| seen.last_sequence.advance(1)) {
            Some(expected) if expected != first => out_of_order(expected),
            _ => Verdict::New,
        }
    }

    /// Records a batch that is in the log.
    pub(crate) fn record(&mut self, header: &BatchHeader, now: TimestampMs) {
        let Some(producer) = header.producer else { return };
        if self.entries.len() >= PRODUCERS_MAX && !self.entries.contains_key(&producer.id) {
            self.forget_oldest();
        }
        let entry = self.entries.entry(producer.id).or_insert_with(|| Entry {
            epoch: producer.epoch,
            last_active: now,
            batches: VecDeque::new(),
        });
        if producer.epoch > entry.epoch {
            entry.epoch = producer.epoch;
            entry.batches.clear();
        }
        entry.last_active = entry.last_active.max(now);
        let Some(first_sequence) = producer.base_sequence else { return };
        if entry.batches.len() == BATCHES_KEPT {
            entry.batches.pop_front();
        }
        entry.batches.push_back(Seen {
            first_sequence,
            last_sequence: first_sequence.advance(header.last_offset_delta),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        });
    }

    /// Base offsets of the batches that producers are known by: compaction leaves them, if need be without records.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Offset> {
        self.entries.values().flat_map(|entry| entry.batches.iter().map(|seen| seen.base_offset))
    }

    fn forget_oldest(&mut self) {
        // The log has one batch at an offset: no two producers are equally old, and a replay forgets the same ones.
        let last_wrote = |entry: &Entry| entry.batches.back().map(|seen| seen.base_offset);
        let mut ages: Vec<_> = self.entries.iter().map(|(id, entry)| (last_wrote(entry), *id)).collect();
        let (forgotten, ..) = ages.select_nth_unstable(FORGOTTEN_AT_ONCE);
        for (_, id) in forgotten {
            self.entries.remove(id);
        }
    }

    /// Forgets producers that were last heard of more than `expiry_ms` before `now`.
    pub(crate) fn expire(&mut self, now: TimestampMs, expiry_ms: u64) {
        let oldest = now.0.saturating_sub(i64::try_from(expiry_ms).unwrap_or(i64::MAX));
        self.entries.retain(|_, entry| entry.last_active.0 >= oldest);
    }
}

impl Snapshot {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(32 + self.producers.entries.len() * 64);
        body.extend_from_slice(&self.end.get().to_be_bytes());
        body.extend_from_slice(&self.last.map_or(-1, |last| last.base_offset.get()).to_be_bytes());
        body.extend_from_slice(&self.last.map_or(0, |last| last.crc).to_be_bytes());
        body.extend_from_slice(&(self.producers.entries.len() as u32).to_be_bytes());
        for (id, entry) in &self.producers.entries {
            body.extend_from_slice(&id.get().to_be_bytes());
            body.extend_from_slice(&entry.epoch.get().to_be_bytes());
            body.extend_from_slice(&entry.last_active.0.to_be_bytes());
            body.push(entry.batches.len() as u8);
            for seen in &entry.batches {
                body.extend_from_slice(&seen.first_sequence.get().to_be_bytes());
                body.extend_from_slice(&seen.last_sequence.get().to_be_bytes());
                body.extend_from_slice(&seen.base_offset.get().to_be_bytes());
                body.extend_from_slice(&seen.last_offset.get().to_be_bytes());
                body.extend_from_slice(&seen.timestamp.0.to_be_bytes());
            }
        }
        frame(SIDECAR, &body)
    }

    /// `None` if the bytes are not a whole sidecar.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unframe(SIDECAR, bytes)?);
        let end = Offset::new(fields.i64()?)?;
        let base_offset = Offset::new(fields.i64()?);
        let crc = fields.u32()?;
        let count = fields.u32()?;
        let mut producers = Producers::default();
        for _ in 0..count {
            let id = ProducerId::new(fields.i64()?)?;
            producers.entries.insert(id, decode_entry(&mut fields)?);
        }
        let last = base_offset.map(|base_offset| Fingerprint { base_offset, crc });
        fields.0.is_empty().then_some(Self { end, last, producers })
    }
}

fn decode_entry(fields: &mut Fields<'_>) -> Option<Entry> {
    let epoch = ProducerEpoch::new(fields.i16()?)?;
    let last_active = TimestampMs(fields.i64()?);
    let count = usize::from(fields.u8()?);
    if count > BATCHES_KEPT {
        return None;
    }
    let mut batches = VecDeque::with_capacity(count);
    for _ in 0..count {
        batches.push_back(Seen {
            first_sequence: Sequence::new(fields.i32()?)?,
            last_sequence: Sequence::new(fields.i32()?)?,
            base_offset: Offset::new(fields.i64()?)?,
            last_offset: Offset::new(fields.i64()?)?,
            timestamp: TimestampMs(fields.i64()?),
        });
    }
    Some(Entry { epoch, last_active, batches })
}

#[cfg(test)]
mod tests {
    use highwater_record::{Attributes, Codec, Producer, TimestampType};

    use super::*;

    fn header(id: i64, epoch: i16, sequence: i32, count: u32, base: i64) -> BatchHeader {
        BatchHeader {
            base_offset: Offset::new(base).unwrap(),
            size_bytes: 61,
            leader_epoch: None,
            crc: 0,
            attributes: Attributes::new(Codec::None, TimestampType::CreateTime),
            last_offset_delta: count - 1,
            base_timestamp: TimestampMs(7),
            max_timestamp: TimestampMs(9),
            producer: Some(Producer {
                id: ProducerId::new(id).unwrap(),
                epoch: ProducerEpoch::new(epoch).unwrap(),
                base_sequence: Sequence::new(sequence),
            }),
            record_count: count,
        }
    }

    /// Producer 1 in epoch 2, which sent batches of ten: sequences 0 to 69 at offsets 100 to 169.
    fn seven_batches() -> Producers {
        let mut producers = Producers::default();
        for n in 0..7 {
            let header = header(1, 2, n * 10, 10, 100 + i64::from(n) * 10);
            assert_eq!(producers.check(&header), Verdict::New);
            producers.record(&header, TimestampMs(1000));
        }
        producers
    }

    #[test]
    fn each_of_the_last_five_batches_is_known_again() {
        let producers = seven_batches();

        for n in 2..7 {
            let Verdict::Duplicate { base_offset, last_offset, timestamp } =
                producers.check(&header(1, 2, n * 10, 10, 0))
            else {
                panic!("batch {n} is not known");
            };
            assert_eq!(base_offset.get(), 100 + i64::from(n) * 10);
            assert_eq!(last_offset.get(), 109 + i64::from(n) * 10);
            assert_eq!(timestamp, TimestampMs(9));
        }
        assert!(matches!(producers.check(&header(1, 2, 10, 10, 0)), Verdict::OutOfOrder { .. }));
    }

    #[test]
    fn a_gap_is_out_of_order_and_names_both_sequences() {
        let verdict = seven_batches().check(&header(1, 2, 80, 10, 0));

        let Verdict::OutOfOrder { expected, actual, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!((expected.get(), actual.get()), (70, 80));
    }

    #[test]
    fn a_batch_of_the_same_start_and_another_length_is_no_duplicate() {
        assert!(matches!(seven_batches().check(&header(1, 2, 60, 9, 0)), Verdict::OutOfOrder { .. }));
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
        let mut producers = seven_batches();

        assert!(matches!(producers.check(&header(1, 1, 70, 1, 0)), Verdict::Fenced { .. }));
        assert!(matches!(producers.check(&header(1, 3, 70, 1, 0)), Verdict::OutOfOrder { .. }));
        assert_eq!(producers.check(&header(1, 3, 0, 1, 0)), Verdict::New);

        producers.record(&header(1, 3, 0, 1, 170), TimestampMs(1000));

        assert!(matches!(producers.check(&header(1, 2, 60, 10, 0)), Verdict::Fenced { .. }));
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        assert_eq!(Producers::default().check(&header(5, 0, 1234, 1, 0)), Verdict::New);
    }

    #[test]
    fn a_sequence_wraps_within_a_batch_and_between_batches() {
        let mut producers = Producers::default();
        producers.record(&header(1, 0, i32::MAX - 4, 5, 0), TimestampMs(0));

        assert_eq!(producers.check(&header(1, 0, 0, 5, 0)), Verdict::New);

        let mut producers = Producers::default();
        producers.record(&header(1, 0, i32::MAX - 1, 5, 0), TimestampMs(0));

        assert_eq!(producers.check(&header(1, 0, 3, 1, 0)), Verdict::New);
        assert!(matches!(producers.check(&header(1, 0, i32::MAX - 1, 5, 0)), Verdict::Duplicate { .. }));
    }

    #[test]
    fn a_silent_producer_is_forgotten_after_its_time() {
        let mut producers = seven_batches();

        producers.expire(TimestampMs(1500), 500);
        assert_eq!(producers.len(), 1);

        producers.expire(TimestampMs(1501), 500);
        assert_eq!(producers.len(), 0);
    }

    #[test]
    fn of_too_many_producers_those_who_wrote_longest_ago_are_forgotten() {
        let mut producers = Producers::default();
        let max = PRODUCERS_MAX as i64;
        for id in 0..max {
            producers.record(&header(id, 0, 0, 1, id), TimestampMs(1000));
        }
        producers.record(&header(0, 0, 1, 1, max), TimestampMs(1000));
        assert_eq!(producers.len(), PRODUCERS_MAX);

        producers.record(&header(max, 0, 0, 1, max + 1), TimestampMs(1000));

        assert_eq!(producers.len(), PRODUCERS_MAX - FORGOTTEN_AT_ONCE + 1);
        let is_known = |id| producers.entries.contains_key(&ProducerId::new(id).unwrap());
        let forgotten = FORGOTTEN_AT_ONCE as i64;
        assert!(
            is_known(0) && !is_known(1) && !is_known(forgotten) && is_known(forgotten + 1) && is_known(max)
        );
        for id in max..10 * max {
            producers.record(&header(id, 0, 0, 1, max + 1 + id), TimestampMs(1000));
        }
        assert!(producers.len() <= PRODUCERS_MAX);
    }

    #[test]
    fn the_sidecar_keeps_everything_and_damage_is_noticed() {
        let snapshot = Snapshot {
            end: Offset::new(170).unwrap(),
            last: Some(Fingerprint { base_offset: Offset::new(160).unwrap(), crc: 0xdead_beef }),
            producers: seven_batches(),
        };

        let bytes = snapshot.encode();

        assert_eq!(Snapshot::decode(&bytes), Some(snapshot));
        for len in 0..bytes.len() {
            assert_eq!(Snapshot::decode(&bytes[..len]), None, "{len} bytes");
        }
    }
}
