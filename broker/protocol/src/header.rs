//! The headers of requests and responses.
//!
//! Request header 1 is key, version, correlation id and client id; header 2, of flexible versions, adds
//! tagged fields. The client id keeps its two-byte length in both (`RequestHeader.json`). Response header 0
//! is the correlation id; header 1 adds tagged fields. ApiVersions responses have header 0 in every version
//! (KIP-511). Header 0 of requests is gone with Kafka 4.0.

use highwater_wire::{DecodeError, EncodeError, Reader, Str, Writer};

use crate::ApiKey;

/// What precedes the body of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestHeader {
    /// The number of the API, which the broker may not know.
    pub api_key: i16,
    /// The version of the body, which the broker may not serve.
    pub api_version: i16,
    /// The number that the response repeats.
    pub correlation_id: i32,
    /// The name that the client gave itself, if any.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// The API, if it is one that this crate knows.
    pub fn known_key(&self) -> Option<ApiKey> {
        ApiKey::from_code(self.api_key)
    }

    /// Reads a header. For an API that this crate does not know, tagged fields are left unread.
    ///
    /// # Errors
    ///
    /// If the bytes are no header; there is nobody to answer then.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let header = Self {
            api_key: reader.int16()?,
            api_version: reader.int16()?,
            correlation_id: reader.int32()?,
            client_id: reader.string(false)?,
        };
        if header.is_flexible() {
            reader.skip_tagged_fields()?;
        }
        Ok(header)
    }

    /// Writes the header.
    ///
    /// # Errors
    ///
    /// If the client id is longer than 32,767 bytes.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.int16(self.api_key);
        writer.int16(self.api_version);
        writer.int32(self.correlation_id);
        writer.string(self.client_id.as_deref(), false)?;
        if self.is_flexible() {
            writer.uvarint(0);
        }
        Ok(())
    }

    /// Whether this is header version 2.
    fn is_flexible(&self) -> bool {
        self.known_key().is_some_and(|key| key.flexible().contains(self.api_version))
    }
}

/// Whether the response of `key` in `version` has header version 1, with tagged fields.
pub fn response_header_is_flexible(key: ApiKey, version: i16) -> bool {
    key != ApiKey::ApiVersions && key.flexible().contains(version)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_header_of_a_future_version_can_be_read() {
        let bytes = Bytes::from_static(b"\x00\x12\x00\x63\x00\x00\x00\x07\x00\x02me\x01\x05\x01x!");
        let mut reader = Reader::new(bytes);

        let header = RequestHeader::decode(&mut reader).unwrap();

        assert_eq!((header.api_key, header.api_version, header.correlation_id), (18, 99, 7));
        assert_eq!(header.client_id, Some(Str::from("me")));
        assert_eq!(reader.remaining(), 1);
    }

    #[test]
    fn the_header_of_an_unknown_api_can_be_read() {
        let bytes = Bytes::from_static(b"\x7f\xff\x00\x00\x00\x00\x00\x07\xff\xff");

        let header = RequestHeader::decode(&mut Reader::new(bytes)).unwrap();

        assert_eq!((header.known_key(), header.client_id), (None, None));
    }

    #[test]
    fn a_header_cut_anywhere_is_an_error() {
        let bytes = Bytes::from_static(b"\x00\x03\x00\x0c\x00\x00\x00\x07\x00\x02me\x00");
        for length in 0..bytes.len() {
            assert!(RequestHeader::decode(&mut Reader::new(bytes.slice(..length))).is_err(), "{length}");
        }
        assert!(RequestHeader::decode(&mut Reader::new(bytes)).is_ok());
    }

    #[test]
    fn responses_to_api_versions_never_have_a_flexible_header() {
        assert!(!response_header_is_flexible(ApiKey::ApiVersions, 3));
        assert!(response_header_is_flexible(ApiKey::Fetch, 12));
        assert!(!response_header_is_flexible(ApiKey::Fetch, 11));
    }
}
