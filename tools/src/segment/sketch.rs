//! How many different keys there are, about: HyperLogLog (Flajolet and others, 2007) with 16,384 registers.
//!
//! The error is about 1 %. The crates that have it bring hashers and serialisation of their own; the estimate is thirty
//! lines. Sketches of parts of a log merge into that of the whole.

use std::hash::{DefaultHasher, Hasher};

/// Bits of the hash that choose a register.
const INDEX_BITS: u32 = 14;
const REGISTERS: usize = 1 << INDEX_BITS;

/// A set of byte strings that only knows about how many it has.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    /// The longest run of zeros, and one, that a hash of the register had.
    registers: Vec<u8>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { registers: vec![0; REGISTERS] }
    }
}

impl Sketch {
    /// Adds a string.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let hash = hasher.finish();
        let register = &mut self.registers[(hash >> (u64::BITS - INDEX_BITS)) as usize];
        // A bit behind the rest bounds the run.
        let rest = (hash << INDEX_BITS) | (1 << (INDEX_BITS - 1));
        *register = (*register).max(rest.leading_zeros() as u8 + 1);
    }

    /// Adds all that another has.
    pub(super) fn merge(&mut self, other: &Self) {
        for (register, other) in self.registers.iter_mut().zip(&other.registers) {
            *register = (*register).max(*other);
        }
    }

    /// About how many there are.
    pub(super) fn estimate(&self) -> u64 {
        let count = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|register| 2f64.powi(-i32::from(*register))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / count) * count * count / sum;
        let empty = self.registers.iter().filter(|register| **register == 0).count();
        // Few strings are better counted by the registers that none has met.
        let estimate =
            if raw <= 2.5 * count && empty > 0 { count * (count / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_within_three_per_cent() {
        for count in [0u64, 1, 100, 10_000, 200_000] {
            let (mut even, mut odd) = (Sketch::default(), Sketch::default());
            for number in 0..count {
                for _ in 0..2 {
                    if number % 2 == 0 { &mut even } else { &mut odd }.add(&number.to_be_bytes());
                }
            }
            even.merge(&odd);
            let estimate = even.estimate();
            assert!(estimate.abs_diff(count) as f64 <= 0.03 * count as f64, "{count}: {estimate}");
        }
    }
}
