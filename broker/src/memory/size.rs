//! How much memory a broker may use, as people write it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// What the broker itself takes when it serves nobody: code, threads, the metadata. Not handed out.
pub(super) const OWN_BYTES: u64 = 16 * MIB;
/// The smallest budget: what the broker takes itself, and room for a request of 4 MiB and all that goes with it.
const BYTES_MIN: u64 = 32 * MIB;
/// The smallest budget that is chosen without being asked for.
const DEFAULT_MIN: u64 = 64 * MIB;
/// What part of the memory there is, is the budget by default. The rest is for the page cache, which serves consumers,
/// for the system's socket buffers, and for groups and producers.
const DEFAULT_PART: u64 = 4;

/// A number of bytes that a broker can work with.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct MemorySize(u64);

/// Who said how much memory a broker may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemoryOrigin {
    /// The flag.
    Flag,
    /// The environment.
    Environment,
    /// Nobody.
    Default,
}

impl fmt::Display for MemoryOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "--memory",
            Self::Environment => "HIGHWATER_MEMORY",
            Self::Default => {
                "by default, a quarter of the machine's memory or of its control group's limit; see --memory"
            }
        })
    }
}

/// Text that is no such number.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum MemorySizeError {
    /// Not a number of bytes at all.
    #[error(
        "{0:?} is no size; write bytes, or a whole number with K, M, G or T, for example 512M, 512MB or 512MiB"
    )]
    Text(String),
    /// Too small to serve.
    #[error(
        "a budget of {} is too small, it must be at least {}: the broker itself takes {}, and below that not even one \
         request of 4 MiB could be received and answered",
        Bytes(*.0), Bytes(BYTES_MIN), Bytes(OWN_BYTES)
    )]
    TooSmall(u64),
}

impl MemorySize {
    /// A budget of `bytes`.
    ///
    /// # Errors
    /// If a broker cannot work with so little.
    pub const fn new(bytes: u64) -> Result<Self, MemorySizeError> {
        if bytes < BYTES_MIN { Err(MemorySizeError::TooSmall(bytes)) } else { Ok(Self(bytes)) }
    }

    /// The default where `available` bytes are: a quarter of them, at least 64 MiB.
    pub(super) fn share_of(available: u64) -> Self {
        Self((available / DEFAULT_PART / MIB * MIB).max(DEFAULT_MIN))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    fn from_str(text: &str) -> Result<Self, MemorySizeError> {
        Self::new(bytes_of(text).ok_or_else(|| MemorySizeError::Text(text.to_owned()))?)
    }
}

/// The bytes that a text says: a number of them, or a whole number with a unit. `M`, `MB` and `MiB` are the same in any
/// case, as Docker and others have it: who is given a little more than a power of ten loses nothing.
pub(crate) fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => GIB,
        "t" | "tb" | "tib" => TIB,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes(self.0).fmt(f)
    }
}

/// A number of bytes for people: in the largest unit in which it is whole, or with one digit behind the point.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        match units.iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) if self.0.is_multiple_of(*unit) => write!(f, "{} {name}", self.0 / unit),
            Some((unit, name)) => write!(f, "{}.{} {name}", self.0 / unit, self.0 % unit * 10 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_bytes_or_a_whole_number_of_a_unit() {
        for (text, bytes) in [
            ("67108864", 64 * MIB),
            ("67108864b", 64 * MIB),
            ("65536KiB", 64 * MIB),
            ("65536k", 64 * MIB),
            ("64M", 64 * MIB),
            ("64MB", 64 * MIB),
            ("64MiB", 64 * MIB),
            ("1g", GIB),
            ("2 gib", 2 * GIB),
            ("3T", 3 * TIB),
        ] {
            assert_eq!(text.parse::<MemorySize>().unwrap().bytes(), bytes, "{text:?}");
        }
        for text in ["", "much", "M", "MiB", "-64MiB", "1.5GiB", "64Mi", "64X", "99999999999GiB"] {
            assert!(matches!(text.parse::<MemorySize>(), Err(MemorySizeError::Text(_))), "{text:?}");
        }
    }

    #[test]
    fn a_size_that_is_too_small_is_refused_with_the_least_one_and_why() {
        let refusal = "1KiB".parse::<MemorySize>().unwrap_err().to_string();

        assert!(refusal.contains("1 KiB is too small, it must be at least 32 MiB"), "{refusal}");
        assert!(refusal.contains("the broker itself takes 16 MiB"), "{refusal}");
        assert!("32MiB".parse::<MemorySize>().is_ok());
    }

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        for (bytes, text) in [(6 * GIB, "6 GiB"), (64 * MIB, "64 MiB"), (1536, "1.5 KiB"), (7, "7 bytes")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn the_default_is_a_quarter_with_a_floor() {
        assert_eq!(MemorySize::share_of(24 * GIB).bytes(), 6 * GIB);
        assert_eq!(MemorySize::share_of(100 * MIB).bytes(), 64 * MIB);
    }
}
