//! Kafka frames, headers and every message of every version the broker speaks.
//!
//! Bytes in, values out, and back. This crate does not know sockets, disks or what a broker does with a
//! request; it knows nothing of what is inside a record batch either.
//!
//! A broker reads a frame's size with [`frame_length`], the frame with [`parse_request`], and answers with
//! [`encode_response`]. A client uses [`encode_request`] and [`decode_response`]. The messages are tables in
//! [`api`], one file per API; [`ApiKey`] says which versions are served.
//!
//! Invariants:
//! 1. Whatever the bytes, decoding ends with a value or a typed error, and allocates within the bounds of
//!    [`highwater_wire::Reader`].
//! 2. A version is served only if its table is checked against an independent implementation
//!    (`tests/differential.rs`).
//! 3. Bytes after the body of a request are ignored, as Apache Kafka 4.1 ignores them: it parses a request
//!    from the front of the buffer and does not look at the rest (`AbstractRequest.parseRequest`).

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::cast_possible_truncation))]

pub mod api;
mod api_key;
mod error_code;
mod frame;
mod header;
mod message;
mod request;

pub use highwater_wire as wire;

pub use api_key::ApiKey;
pub use error_code::ErrorCode;
pub use frame::{FrameError, SIZE_PREFIX_BYTES, frame_length};
pub use header::{RequestHeader, response_header_is_flexible};
pub use message::{ApiRequest, ApiResponse, decode_response, encode_request, encode_response};
pub use request::{Request, RequestError, parse_request};
