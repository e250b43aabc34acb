//! The LZ4 frames of message format 0, whose headers have a wrong checksum.
//!
//! Kafka's client computed it over the frame's magic as well, which the format excludes; with message format 1 that
//! ended (KIP-57). Kafka never compares it in format 0, since other clients had it right. Nothing is lost by that: the
//! CRC of the message covers the frame.

use std::hash::Hasher;

use twox_hash::XxHash32;

/// Magic, flags, block size.
const HEADER_BYTES_MIN: usize = 6;
const CONTENT_SIZE_FLAG: u8 = 1 << 3;
const CONTENT_SIZE_BYTES: usize = 8;

/// The same frame with the checksum that its header must have.
pub(super) fn with_right_checksum(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let has_content_size =
        frame.get(super::LZ4_MAGIC.len()).is_some_and(|flags| flags & CONTENT_SIZE_FLAG != 0);
    let at = HEADER_BYTES_MIN + if has_content_size { CONTENT_SIZE_BYTES } else { 0 };
    // What is too short for a frame stays as it is, for the decoder to refuse.
    if at < frame.len() {
        let mut hasher = XxHash32::with_seed(0);
        hasher.write(&frame[super::LZ4_MAGIC.len()..at]);
        frame[at] = (hasher.finish() >> 8) as u8;
    }
    frame
}
