//! The tables as data: which fields a message has, in which versions and of which type.
//!
//! The macro's decoders and encoders consult these constants, so that what a test reads here is what the
//! codec does.

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    min: i16,
    max: i16,
}

impl Versions {
    /// No version at all.
    pub const NONE: Self = Self { min: 0, max: -1 };

    /// The range from `min` to `max`, both included; empty if `max` is lower.
    pub const fn new(min: i16, max: i16) -> Self {
        Self { min, max }
    }

    /// The range as Kafka's definitions write it: `3`, `0-12`, `9+` or `none`.
    ///
    /// # Panics
    ///
    /// On any other text. It is meant for constants, where the panic is an error of the compiler.
    pub const fn parse(text: &str) -> Self {
        if matches!(text.as_bytes(), b"none") {
            return Self::NONE;
        }
        let (min, rest) = leading_number(text.as_bytes());
        match rest {
            [] => Self { min, max: min },
            [b'+'] => Self { min, max: i16::MAX },
            [b'-', digits @ ..] => {
                let (max, rest) = leading_number(digits);
                assert!(rest.is_empty() && min <= max, "a range of versions is written as N, N-M or N+");
                Self { min, max }
            }
            _ => panic!("a range of versions is written as N, N-M or N+"),
        }
    }

    /// Whether `version` is in the range.
    #[inline]
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// The lowest version.
    pub const fn min(self) -> i16 {
        self.min
    }

    /// The highest version; `i16::MAX` for an open range.
    pub const fn max(self) -> i16 {
        self.max
    }

    /// Whether there is no version in the range.
    pub const fn is_empty(self) -> bool {
        self.max < self.min
    }
}

/// Splits the decimal number off the front of `digits`.
const fn leading_number(mut digits: &[u8]) -> (i16, &[u8]) {
    let mut number = 0_i16;
    let mut seen = false;
    while let Some((digit, rest)) = digits.split_first() {
        if !digit.is_ascii_digit() {
            break;
        }
        number = number * 10 + (*digit - b'0') as i16;
        seen = true;
        digits = rest;
    }
    assert!(seen, "a range of versions starts with a number");
    (number, digits)
}

/// The type of a field, in the words of Kafka's definitions.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One byte, 0 or 1.
    Bool,
    /// One byte.
    Int8,
    /// Two bytes, big-endian.
    Int16,
    /// Two bytes, big-endian, without sign.
    Uint16,
    /// Four bytes, big-endian.
    Int32,
    /// Eight bytes, big-endian.
    Int64,
    /// Eight bytes, IEEE 754, big-endian.
    Float64,
    /// Sixteen bytes.
    Uuid,
    /// UTF-8 with a length.
    String,
    /// Bytes with a length.
    Bytes,
    /// Record batches with a length.
    Records,
    /// A count and that many elements.
    Array(&'static Self),
    /// Fields one after the other, and tagged fields in flexible versions.
    Struct(&'static StructSpec),
}

/// A struct of the protocol: a message or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct StructSpec {
    /// The name in Kafka's definitions.
    pub name: &'static str,
    /// The fields in the order of the wire.
    pub fields: &'static [FieldSpec],
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// The name in the Rust struct: Kafka's name in snake case.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The versions that have the field.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Versions,
    /// The tag, in the versions of `tagged`.
    pub tag: Option<u32>,
    /// The versions in which it is a tagged field.
    pub tagged: Versions,
    /// Whether a value is dropped without an error in versions that lack the field.
    pub ignorable: bool,
}

impl FieldSpec {
    /// Whether the field stands at its place in the struct in this version.
    #[inline]
    pub const fn is_plain(&self, version: i16) -> bool {
        self.versions.contains(version) && !self.tagged.contains(version)
    }

    /// Whether the field is among the tagged fields in this version.
    #[inline]
    pub const fn is_tagged(&self, version: i16) -> bool {
        self.tagged.contains(version)
    }

    /// Whether a value set by the caller would be lost, and must be refused, in this version.
    #[inline]
    pub const fn must_be_default(&self, version: i16) -> bool {
        !self.ignorable && !self.versions.contains(version)
    }

    /// The name in Kafka's definitions, with its first letter in upper case.
    ///
    /// Two of Kafka's fields (`timeoutMs` and `validateOnly` of CreateTopics) begin in lower case there.
    pub fn kafka_name(&self) -> String {
        let words = self.name.split('_').map(|word| {
            let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
            first.to_ascii_uppercase() + rest
        });
        words.collect()
    }
}

/// Refuses, at compile time, tags that do not rise: the encoder writes them in the order of the table.
#[doc(hidden)]
pub const fn assert_tags_rise(mut fields: &[FieldSpec]) {
    let mut next = 0;
    while let Some((field, rest)) = fields.split_first() {
        if let Some(tag) = field.tag {
            assert!(tag >= next, "tagged fields stand in the order of their tags");
            next = tag + 1;
        }
        fields = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_kafka_writes_them() {
        assert_eq!(Versions::parse("0-12"), Versions { min: 0, max: 12 });
        assert_eq!(Versions::parse("9+"), Versions { min: 9, max: i16::MAX });
        assert_eq!(Versions::parse("4"), Versions { min: 4, max: 4 });
        assert!(Versions::parse("none").is_empty());
        assert!(!Versions::parse("none").contains(0));
    }

    #[test]
    fn a_snake_case_name_becomes_kafkas() {
        let field = FieldSpec {
            name: "log_append_time_ms",
            kind: Kind::Int64,
            versions: Versions::parse("2+"),
            nullable: Versions::NONE,
            tag: None,
            tagged: Versions::NONE,
            ignorable: true,
        };

        assert_eq!(field.kafka_name(), "LogAppendTimeMs");
    }
}
