//! The topics in what a member of a group of type `consumer` says about itself.
//!
//! Only the beginning is read, which is the same in all versions: a version and the topics
//! (`ConsumerProtocolSubscription.json`, version 0). What follows is the clients' own business.

use std::collections::BTreeSet;

use bytes::Bytes;
use highwater_wire::{DecodeError, Reader, Shape, Str, Wire};

/// Type of the protocol whose metadata are subscriptions.
pub(crate) const CONSUMER: &str = "consumer";

/// The topics that a member subscribes to. They are slices of the metadata.
pub(crate) fn topics(metadata: &Bytes) -> Result<BTreeSet<Str>, DecodeError> {
    let mut reader = Reader::new(metadata.clone());
    reader.int16()?;
    let shape = Shape { version: 0, flexible: false, nullable: false };
    Ok(Vec::<Str>::decode(&mut reader, shape)?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_what_follows_them_is_not() {
        let metadata = Bytes::from_static(b"\x00\x03\x00\x00\x00\x02\x00\x01b\x00\x01a\xff\xff\xff\xff");

        assert_eq!(topics(&metadata), Ok(BTreeSet::from([Str::from("a"), Str::from("b")])));
    }

    #[test]
    fn metadata_of_another_form_is_an_error() {
        assert!(topics(&Bytes::new()).is_err());
        assert!(topics(&Bytes::from_static(b"\x00\x00\x7f\xff\xff\xff")).is_err());
    }
}
