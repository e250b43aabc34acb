//! Amounts of bytes as people write them: `64KiB`, `1MiB`, `2GiB`, or a bare number.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A number of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ByteSize(pub(crate) u64);

impl ByteSize {
    pub(crate) const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    pub(crate) const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[digits.len()..];
        let factor = match UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None => bail!("{unit} is no unit of bytes; B, KiB, MiB and GiB are"),
        };
        let count: u64 = digits.parse().with_context(|| format!("{text} is no whole number of bytes"))?;
        let bytes = count.checked_mul(factor).with_context(|| format!("{text} is too large"))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: u64| self.0 >= factor && self.0.is_multiple_of(factor);
        let (name, factor) = UNITS.into_iter().find(|(_, factor)| fits(*factor)).unwrap_or(("B", 1));
        write!(f, "{} {name}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, bytes) in
            [("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("17", 17), ("17B", 17)]
        {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
        }
    }

    #[test]
    fn a_wrong_unit_or_number_gets_a_sentence() {
        for (text, word) in
            [("64KB", "KB"), ("KiB", "number"), ("99999999999GiB", "large"), ("1.5MiB", "number")]
        {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_is_exact() {
        assert_eq!(ByteSize::kib(64).to_string(), "64 KiB");
        assert_eq!(ByteSize(1500).to_string(), "1500 B");
        assert_eq!(ByteSize(0).to_string(), "0 B");
    }
}
