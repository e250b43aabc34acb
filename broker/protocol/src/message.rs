//! Whole frames of requests and responses, in both directions.

use bytes::Bytes;
use highwater_wire::{DecodeError, EncodeError, Encoded, Message, Reader, Str, Writer};

use crate::{ApiKey, RequestHeader, SIZE_PREFIX_BYTES, response_header_is_flexible};

/// Room for a frame at the start: a small response fits without growing.
const CAPACITY: usize = 256;

/// The body of a request.
pub trait ApiRequest: Message {
    /// The API.
    const KEY: ApiKey;
    /// What answers it.
    type Response: ApiResponse;
}

/// The body of a response.
pub trait ApiResponse: Message {
    /// The API.
    const KEY: ApiKey;
}

/// The frame of a response with its size prefix, which counts deferred records too.
///
/// # Errors
///
/// If there is no such version or it cannot carry the response.
pub fn encode_response<R: ApiResponse>(
    correlation_id: i32,
    version: i16,
    response: &R,
) -> Result<Encoded, EncodeError> {
    let mut writer = Writer::with_capacity(CAPACITY);
    writer.raw(&[0; SIZE_PREFIX_BYTES]);
    writer.int32(correlation_id);
    if response_header_is_flexible(R::KEY, version) {
        writer.uvarint(0);
    }
    response.write(&mut writer, version)?;
    writer.finish_frame()
}

/// The frame of a request with its size prefix.
///
/// # Errors
///
/// If there is no such version, or it cannot carry the request, or records in it are deferred.
pub fn encode_request<R: ApiRequest>(
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    request: &R,
) -> Result<Bytes, EncodeError> {
    let header = RequestHeader {
        api_key: R::KEY.code(),
        api_version: version,
        correlation_id,
        client_id: client_id.map(Str::from),
    };
    let mut writer = Writer::with_capacity(CAPACITY);
    writer.raw(&[0; SIZE_PREFIX_BYTES]);
    header.encode(&mut writer)?;
    request.write(&mut writer, version)?;
    let encoded = writer.finish_frame()?;
    if !encoded.cuts.is_empty() {
        return Err(EncodeError::Deferred);
    }
    Ok(encoded.bytes.freeze())
}

/// The correlation id and the body of a response, from a frame without its size prefix.
///
/// # Errors
///
/// If the frame is not such a response. Bytes after the body are ignored.
pub fn decode_response<R: ApiResponse>(frame: Bytes, version: i16) -> Result<(i32, R), DecodeError> {
    let mut reader = Reader::new(frame);
    let correlation_id = reader.int32()?;
    if response_header_is_flexible(R::KEY, version) {
        reader.skip_tagged_fields()?;
    }
    Ok((correlation_id, R::read(&mut reader, version)?))
}

#[cfg(test)]
mod tests {
    use highwater_wire::{Cut, Records};

    use super::*;
    use crate::api::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
    use crate::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
    use crate::api::{ApiVersionsRequest, ApiVersionsResponse};
    use crate::{Request, parse_request};

    #[test]
    fn a_fetch_response_is_encoded_without_its_records() {
        let partition =
            PartitionData { records: Records::Deferred { len: 1_000 }, ..PartitionData::default() };
        let topic = FetchableTopicResponse {
            topic: "t".into(),
            partitions: vec![partition],
            ..FetchableTopicResponse::default()
        };
        let response = FetchResponse { responses: vec![topic], ..FetchResponse::default() };

        let encoded = encode_response(7, 4, &response).unwrap();

        // Version 4 has nothing after the records, so that they end the frame.
        assert_eq!(encoded.cuts, [Cut { at: encoded.bytes.len(), len: 1_000 }]);
        let size = i32::from_be_bytes(*encoded.bytes.first_chunk().unwrap());
        assert_eq!(usize::try_from(size).unwrap(), encoded.bytes.len() - 4 + 1_000);
    }

    #[test]
    fn the_records_sent_at_the_cut_decode_in_place() {
        let filled = |records| FetchResponse {
            responses: vec![FetchableTopicResponse {
                partitions: vec![PartitionData { records, ..PartitionData::default() }],
                ..FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        };

        let deferred = encode_response(7, 16, &filled(Records::Deferred { len: 3 })).unwrap();
        let mut frame = deferred.bytes.to_vec();
        let at = deferred.cuts[0].at;
        frame.splice(at..at, *b"abc");

        let whole = filled(Records::Bytes(Bytes::from_static(b"abc")));
        assert_eq!(frame, encode_response(7, 16, &whole).unwrap().bytes);
        let (id, decoded) = decode_response::<FetchResponse>(Bytes::from(frame).slice(4..), 16).unwrap();
        assert_eq!((id, decoded), (7, whole));
    }

    #[test]
    fn a_request_goes_over_and_comes_back() {
        let request =
            ApiVersionsRequest { client_software_name: "us".into(), client_software_version: "1".into() };

        let frame = encode_request(9, Some("me"), 3, &request).unwrap();

        let (header, parsed) = parse_request(frame.slice(4..)).unwrap();
        assert_eq!((header.correlation_id, header.client_id.as_deref()), (9, Some("me")));
        assert_eq!(parsed, Ok(Request::ApiVersions(request)));
    }

    #[test]
    fn requests_cannot_defer_their_records() {
        let request = ProduceRequest {
            topic_data: vec![TopicProduceData {
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Records::Deferred { len: 1 },
                }],
                ..TopicProduceData::default()
            }],
            ..ProduceRequest::default()
        };

        assert_eq!(encode_request(1, None, 9, &request), Err(EncodeError::Deferred));
    }

    #[test]
    fn versions_that_do_not_exist_are_not_written() {
        let refused = encode_response(1, 5, &ApiVersionsResponse::default());

        assert_eq!(refused, Err(EncodeError::UnsupportedVersion { version: 5 }));
    }
}
