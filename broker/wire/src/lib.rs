//! Kafka's primitive encodings and the declarative message macro.
//!
//! This crate knows how values look on the wire and how a table of fields becomes a struct with a decoder and
//! an encoder. It does not know which messages exist, what they mean, or where bytes come from.
//!
//! Invariants:
//! 1. Decoding takes hostile bytes: it never panics, and it allocates at most what [`Reader`] allows.
//! 2. Decoding borrows: strings, byte fields and records are slices of the frame that was read.
//! 3. Encoding a value that the version cannot carry is an error, never a silent change; the exceptions are
//!    the fields that Kafka's own definitions mark as ignorable.
//!
//! Read [`messages!`] first, then [`Wire`].

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::cast_possible_truncation))]

mod error;
mod field;
mod messages;
mod reader;
mod records;
mod spec;
mod text;
mod uuid;
mod writer;

pub use bytes::{Bytes, BytesMut};

pub use error::{DecodeError, EncodeError};
pub use field::{Nullable, Shape, Wire};
pub use messages::Message;
pub use reader::{ELEMENTS_MAX, Reader, TAGS_MAX};
pub use records::Records;
pub use spec::{FieldSpec, Kind, StructSpec, Versions, assert_tags_rise};
pub use text::Str;
pub use uuid::{InvalidUuid, Uuid};
pub use writer::{Cut, Encoded, Piece, Tags, Writer};
