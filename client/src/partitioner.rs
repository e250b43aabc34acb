//! Which partition a record goes to: by its key as Kafka's Java client does it, or one after another.
//!
//! Other clients (librdkafka, franz-go) use the same function when they are told to; equal keys then meet in one
//! partition whoever sent them.

use highwater_record::PartitionId;

/// Kafka's variant of MurmurHash2, 32 bits with the seed 0x9747b28c (`Utils.murmur2`).
pub fn murmur2(bytes: &[u8]) -> i32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;

    let mut hash = SEED ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut mixed = word.iter().rev().fold(0, |value: u32, byte| value << 8 | u32::from(*byte));
        mixed = mixed.wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        mixed = mixed.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |value: u32, byte| value << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^= hash >> 15;
    hash.cast_signed()
}

/// The partition of a key among `partition_count` (`BuiltInPartitioner.partitionForKey`).
///
/// # Panics
/// If `partition_count` is not positive.
pub fn partition_of_key(key: &[u8], partition_count: i32) -> PartitionId {
    assert!(partition_count > 0, "a topic has at least one partition");
    let partition = (murmur2(key) & i32::MAX) % partition_count;
    PartitionId::new(partition).expect("the remainder of a positive number is not negative")
}

/// Keyless records stick to one partition until it got a batch's worth of bytes, then the next one has its turn
/// (KIP-480, KIP-794). Larger batches cost less than an even spread of single records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sticky {
    current: u32,
    filled_bytes: usize,
}

impl Sticky {
    /// Starts at the partition that `seed` falls on, so that many short-lived producers do not all start at 0.
    pub(crate) const fn new(seed: u32) -> Self {
        Self { current: seed, filled_bytes: 0 }
    }

    /// The partition for a record of `bytes`.
    pub(crate) fn next(&mut self, bytes: usize, batch_bytes: usize, partition_count: i32) -> PartitionId {
        if self.filled_bytes >= batch_bytes {
            self.current = self.current.wrapping_add(1);
            self.filled_bytes = 0;
        }
        self.filled_bytes = self.filled_bytes.saturating_add(bytes);
        let partition = self.current % partition_count.max(1).unsigned_abs();
        PartitionId::new(partition.cast_signed()).expect("below the partition count")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_java_client() {
        // From Kafka's UtilsTest and librdkafka's unit test of the same function.
        for (text, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("string-f-24-chars-length", 124_730_809),
            ("string-fo-25-chars-length", 1_269_511_650),
            ("string-foo-26-chars-length", 119_165_628),
            ("string-last-27-chars-length", 1_089_971_754),
            ("kafka", -798_503_068),
            ("", 275_646_681),
        ] {
            assert_eq!(murmur2(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_negative_hash_still_names_a_partition() {
        assert_eq!(partition_of_key(b"21", 3).get(), (-973_932_308 & i32::MAX) % 3);
        for count in 1..50 {
            assert!(partition_of_key(b"foobar", count).get() < count);
        }
    }

    #[test]
    fn keyless_records_stay_until_a_batch_is_full() {
        let mut sticky = Sticky::new(7);

        let partitions: Vec<i32> = (0..6).map(|_| sticky.next(40, 100, 3).get()).collect();

        assert_eq!(partitions, [1, 1, 1, 2, 2, 2]);
    }
}
