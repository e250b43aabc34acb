//! What can be wrong with bytes that came in, and with values that should go out.
//!
//! Both errors are small and `Copy`: the codec is on the hot path, and a hostile peer decides how often they
//! occur.

use thiserror::Error;

/// Why bytes are not a value of the expected type.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("the value needs {needed} bytes, {remaining} remain")]
    UnexpectedEnd {
        /// Bytes that the value needs from here.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A length or count below -1, the only negative number that has a meaning (null).
    #[error("length {0} is negative")]
    NegativeLength(i64),
    /// An array that claims more elements than the remaining bytes can hold.
    #[error(
        "an array of {count} elements of at least {element_size} bytes cannot fit into {remaining} bytes"
    )]
    CountExceedsBytes {
        /// Elements claimed.
        count: usize,
        /// Smallest encoding of one element, in bytes.
        element_size: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// All arrays of one message together claim more elements than the reader allows.
    #[error("the message claims {count} more array elements, {allowed} are still allowed")]
    TooManyElements {
        /// Elements claimed by this array.
        count: usize,
        /// Elements that the message may still have.
        allowed: usize,
    },
    /// A variable-length integer that does not end in time or does not fit its type.
    #[error("a variable-length integer is longer than {bits} bits")]
    VarintTooLong {
        /// Width of the integer that was expected.
        bits: u8,
    },
    /// A string that is not UTF-8.
    #[error("a string is not valid UTF-8")]
    InvalidUtf8,
    /// A string longer than Kafka's limit, which holds in the compact form too.
    #[error("a string of {length} bytes exceeds the limit of 32767")]
    StringTooLong {
        /// Length claimed, in bytes.
        length: usize,
    },
    /// Null where this version of the field must have a value.
    #[error("a field that cannot be null is null")]
    UnexpectedNull,
    /// More tagged fields in one struct than [`crate::TAGS_MAX`] or than the remaining bytes can hold.
    #[error("{count} tagged fields in one struct exceed the limit of {allowed}")]
    TooManyTags {
        /// Fields claimed.
        count: u32,
        /// Fields that could be there.
        allowed: usize,
    },
    /// A tagged field whose value is shorter than the size that precedes it.
    #[error("tagged field {tag} has {extra} bytes after its value")]
    TagSizeMismatch {
        /// The tag.
        tag: u32,
        /// Bytes left over.
        extra: usize,
    },
}

/// Why a value cannot be written in the requested version.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum EncodeError {
    /// A value in a field that the version does not have, and that must not be dropped silently.
    #[error("version {version} has no field {field}, which is set")]
    NotInVersion {
        /// The field's name in the table.
        field: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// Null in a version in which the field must have a value.
    #[error("a field that cannot be null in version {version} is null")]
    UnexpectedNull {
        /// The version that was asked for.
        version: i16,
    },
    /// A string, byte field or array that its length prefix cannot express.
    #[error("a length of {length} exceeds the limit of {limit}")]
    TooLong {
        /// The length, in bytes or elements.
        length: usize,
        /// The largest length that can be written.
        limit: usize,
    },
    /// Deferred records in a tagged field or in a request, where nobody sends them.
    #[error("records are deferred where their bytes are needed")]
    Deferred,
    /// A message that does not exist in this version.
    #[error("the message has no version {version}")]
    UnsupportedVersion {
        /// The version that was asked for.
        version: i16,
    },
}
