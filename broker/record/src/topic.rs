//! Names of topics and partitions, checked once so that no path or frame is ever built from an unchecked one.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::PartitionId;

/// The longest topic name, in bytes. With `-99999` for the partition it still fits a file name of 255 bytes
/// (Kafka: `Topic.MAX_NAME_LENGTH`).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A legal topic name: 1 to 249 of `[a-zA-Z0-9._-]`, neither `.` nor `..`. Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicName(Arc<str>);

/// Why a topic name is refused.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum TopicNameError {
    /// No characters at all.
    #[error("a topic name cannot be empty")]
    Empty,
    /// Longer than [`TOPIC_NAME_BYTES_MAX`].
    #[error("topic name is {bytes} bytes long, the limit is {TOPIC_NAME_BYTES_MAX}")]
    TooLong {
        /// Length of the refused name.
        bytes: usize,
    },
    /// `.` or `..`, which are directories.
    #[error("a topic cannot be named \".\" or \"..\"")]
    Dots,
    /// A character outside the legal set.
    #[error(
        "topic name has {character:?} at position {position}; only a-z, A-Z, 0-9, '.', '_' and '-' are legal"
    )]
    Character {
        /// The first illegal character.
        character: char,
        /// Its byte position in the name.
        position: usize,
    },
}

impl TopicName {
    /// Checks `name` by Kafka's rules (`Topic.validate`).
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        if name.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if name.len() > TOPIC_NAME_BYTES_MAX {
            return Err(TopicNameError::TooLong { bytes: name.len() });
        }
        if name == "." || name == ".." {
            return Err(TopicNameError::Dots);
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some((position, character)) = name.char_indices().find(|(_, c)| !legal(*c)) {
            return Err(TopicNameError::Character { character, position });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is reserved for the broker's own topics (`__` prefix).
    pub fn is_internal(&self) -> bool {
        self.0.starts_with("__")
    }

    /// Whether two names differ only in `.` against `_`, so that metric names would collide
    /// (Kafka: `Topic.hasCollision`).
    pub fn collides_with(&self, other: &Self) -> bool {
        self != other
            && self.0.len() == other.0.len()
            && self.0.bytes().zip(other.0.bytes()).all(|(a, b)| {
                let unify = |c| if c == b'.' { b'_' } else { c };
                unify(a) == unify(b)
            })
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The UUID that tells a topic from an earlier one of the same name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicId([u8; 16]);

/// One damaged character of an id's text changes at most six bits.
const DAMAGED_BITS_MAX: u32 = 8;

impl TopicId {
    /// `None` for the all-zero UUID, which is "no id" on the wire.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// The sixteen bytes as they go over the wire.
    pub const fn get(self) -> [u8; 16] {
        self.0
    }

    /// Whether two ids differ in so few bits that one is the other, damaged. Ids are random: those of two topics differ in
    /// about 64 bits, and in eight or fewer less than once in 10^24 pairs.
    pub const fn resembles(self, other: Self) -> bool {
        (u128::from_be_bytes(self.0) ^ u128::from_be_bytes(other.0)).count_ones() <= DAMAGED_BITS_MAX
    }
}

/// Kafka's text form: unpadded URL-safe base64, 22 characters (`org.apache.kafka.common.Uuid.toString`).
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let value = u128::from_be_bytes(self.0);
        // 128 bits make 21 groups of six and one of two, which is padded with zeros on the right.
        for group in 0..22 {
            let shift = 122 - 6 * i32::from(group as u8);
            let bits = if shift >= 0 { value >> shift } else { value << -shift };
            write!(f, "{}", char::from(DIGITS[(bits & 63) as usize]))?;
        }
        Ok(())
    }
}

impl std::str::FromStr for TopicId {
    type Err = TopicIdError;

    fn from_str(text: &str) -> Result<Self, TopicIdError> {
        let refuse = || TopicIdError(text.to_owned());
        if text.len() != 22 {
            return Err(refuse());
        }
        let mut value: u128 = 0;
        for (group, c) in text.bytes().enumerate() {
            let digit = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return Err(refuse()),
            };
            if group == 21 {
                if digit & 0b1111 != 0 {
                    return Err(refuse());
                }
                value = (value << 2) | u128::from(digit >> 4);
            } else {
                value = (value << 6) | u128::from(digit);
            }
        }
        Self::new(value.to_be_bytes()).ok_or_else(refuse)
    }
}

/// Text that is not a topic id.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{0:?} is not a topic id: 22 characters of unpadded URL-safe base64, not all zero")]
pub struct TopicIdError(String);

/// One partition of one topic.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition within it.
    pub partition: PartitionId,
}

/// `topic-partition`, which is also the name of the partition's directory.
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_data_directory_are_refused() {
        for name in ["", ".", "..", "a/../../etc", "a\0b", "ü", "%2e/", "a b", &"x".repeat(250)] {
            assert!(TopicName::new(name).is_err(), "{name:?} was accepted");
        }
        assert!(TopicName::new(&"x".repeat(249)).is_ok());
        assert!(TopicName::new("logs.web_1-eu").is_ok());
    }

    #[test]
    fn a_dot_and_an_underscore_collide() {
        let name = |text| TopicName::new(text).unwrap();

        assert!(name("a.b").collides_with(&name("a_b")));
        assert!(!name("a.b").collides_with(&name("a.b")));
        assert!(!name("a.b").collides_with(&name("a-b")));
    }

    #[test]
    fn a_topic_id_reads_back_from_its_text() {
        let id = TopicId::new(*b"\x00\x01\xfe\xff4567890abcde").unwrap();

        let text = id.to_string();

        assert_eq!(text.len(), 22);
        assert_eq!(text.parse(), Ok(id));
        assert!("AAAAAAAAAAAAAAAAAAAAAA".parse::<TopicId>().is_err());
        assert!("short".parse::<TopicId>().is_err());
    }
}
