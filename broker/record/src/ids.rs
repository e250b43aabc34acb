//! The numbers a log is made of: offsets, epochs, producers, sequences, timestamps.
//!
//! Each is its own type, so that an offset cannot be taken for a sequence. Wire sentinels (-1 for "none") stop at
//! the constructors: inside, absence is an `Option`.

use std::fmt;

/// Declares a newtype over a signed integer that is never negative.
macro_rules! non_negative {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name($raw);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);
            /// The largest value.
            pub const MAX: Self = Self(<$raw>::MAX);

            /// Rejects negative values: on the wire and on disk they are sentinels.
            pub const fn new(raw: $raw) -> Option<Self> {
                if raw >= 0 { Some(Self(raw)) } else { None }
            }

            /// The value as it stands on the wire and on disk.
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

non_negative! {
    /// Position of one record in one partition. Assigned by the leader, never reused.
    Offset(i64)
}
non_negative! {
    /// The incarnation of the leader that appended a batch. Grows by at least one at each start of a broker.
    LeaderEpoch(i32)
}
non_negative! {
    /// Names one idempotent or transactional producer session.
    ProducerId(i64)
}
non_negative! {
    /// Fences older sessions of the same producer id.
    ProducerEpoch(i16)
}
non_negative! {
    /// Number of a record within one producer's stream to one partition. Wraps from `i32::MAX` to 0.
    Sequence(i32)
}
non_negative! {
    /// Number of a partition within its topic.
    PartitionId(i32)
}

impl Offset {
    /// The offset `count` records later. Stops at the largest offset.
    pub const fn advance(self, count: u64) -> Self {
        let count = if count > i64::MAX as u64 { i64::MAX } else { count as i64 };
        Self(self.0.saturating_add(count))
    }

    /// How many offsets lie between `earlier` and this one; zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        if self.0 <= earlier.0 { 0 } else { self.0.abs_diff(earlier.0) }
    }
}

impl Sequence {
    /// The sequence `count` records later, wrapping as Kafka's `DefaultRecordBatch.incrementSequence` does.
    pub const fn advance(self, count: u32) -> Self {
        let sum = (self.0 as i64 + count as i64) % (i32::MAX as i64 + 1);
        Self(sum as i32)
    }
}

/// Milliseconds since the Unix epoch. Producers may send any value, so it may be negative.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TimestampMs(pub i64);

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_wraps_from_the_largest_value_to_zero() {
        assert_eq!(Sequence::MAX.advance(1), Sequence::ZERO);
        assert_eq!(Sequence::MAX.advance(3), Sequence::new(2).unwrap());
    }

    #[test]
    fn negative_offsets_are_sentinels_and_refused() {
        assert_eq!(Offset::new(-1), None);
        assert_eq!(Offset::new(0), Some(Offset::ZERO));
    }

    #[test]
    fn the_distance_to_a_later_offset_is_zero() {
        let five = Offset::ZERO.advance(5);

        assert_eq!(five.since(Offset::ZERO), 5);
        assert_eq!(Offset::ZERO.since(five), 0);
    }
}
