//! Records as JSON without loss: what is not UTF-8 is base64, null is null, headers keep their order and repetitions.
//!
//! `{"topic","partition","offset","ts","ts_type","key","value","headers"}`, where a key or value is
//! `{"utf8":"..."}`, `{"b64":"..."}` or null, and a header is a pair of its key (text, or `{"b64":"..."}`) and its
//! value. `ts` is RFC 3339 with milliseconds; a timestamp that RFC 3339 cannot write is a number.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use highwater_record::{TimestampMs, TimestampType};
use serde_json::Value;

use crate::input::{InputHeader, InputRecord};
use crate::record_view::RecordView;
use crate::time;

/// Appends a record as one JSON object without a newline.
pub(crate) fn write(out: &mut Vec<u8>, view: &RecordView<'_>) {
    out.extend_from_slice(b"{\"topic\":");
    write_string(out, view.topic);
    out.extend_from_slice(
        format!(",\"partition\":{},\"offset\":{},\"ts\":", view.partition, view.record.offset).as_bytes(),
    );
    match time::rfc3339(view.record.timestamp) {
        Some(text) => write_string(out, &text),
        None => out.extend_from_slice(view.record.timestamp.to_string().as_bytes()),
    }
    let ts_type = match view.batch.attributes.timestamp_type() {
        TimestampType::CreateTime => "create",
        TimestampType::LogAppendTime => "append",
    };
    out.extend_from_slice(format!(",\"ts_type\":\"{ts_type}\",\"key\":").as_bytes());
    match &view.decoded {
        None => write_bytes(out, view.record.key),
        Some(decoded) => out.extend_from_slice(decoded.key.to_string().as_bytes()),
    }
    out.extend_from_slice(b",\"value\":");
    match &view.decoded {
        None => write_bytes(out, view.record.value),
        Some(decoded) => out.extend_from_slice(decoded.value.to_string().as_bytes()),
    }
    out.extend_from_slice(b",\"headers\":[");
    for (index, (key, value)) in view.record.headers.clone().enumerate() {
        out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
        match std::str::from_utf8(key) {
            Ok(text) => write_string(out, text),
            Err(_) => write_bytes(out, Some(key)),
        }
        out.push(b',');
        write_bytes(out, value);
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
}

fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return out.extend_from_slice(b"null") };
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            out.extend_from_slice(b"{\"utf8\":");
            write_string(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"{\"b64\":");
            write_string(out, &STANDARD.encode(bytes));
        }
    }
    out.push(b'}');
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON, and a vector takes it");
}

/// A line that is not a record, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RecordJsonError(String);

impl fmt::Display for RecordJsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RecordJsonError {}

/// Reads a record back. Topic, offset and clock are not a producer's to choose and are left aside; what is missing is
/// null, or the present for `ts`.
pub(crate) fn parse(line: &[u8]) -> Result<InputRecord, RecordJsonError> {
    let value: Value =
        serde_json::from_slice(line).map_err(|error| RecordJsonError(format!("not JSON: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(RecordJsonError("not a JSON object".into()));
    };
    let mut record = InputRecord::default();
    for (name, value) in &fields {
        match name.as_str() {
            "key" => record.key = parse_bytes("key", value)?,
            "value" => record.value = parse_bytes("value", value)?,
            "headers" => record.headers = parse_headers(value)?,
            "ts" => record.timestamp = parse_timestamp(value)?,
            "partition" => {
                let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
                let number = number.filter(|number| *number >= 0);
                record.partition = Some(number.ok_or_else(|| wrong("partition", "a number from 0", value))?);
            }
            "topic" | "offset" | "ts_type" => {}
            _ => return Err(RecordJsonError(format!("a record has no field {name:?}"))),
        }
    }
    Ok(record)
}

fn wrong(field: &str, wanted: &str, value: &Value) -> RecordJsonError {
    let mut text = value.to_string();
    if text.chars().count() > 60 {
        text = text.chars().take(60).chain("...".chars()).collect();
    }
    RecordJsonError(format!("{field} wants {wanted}, not {text}"))
}

fn parse_bytes(field: &str, value: &Value) -> Result<Option<Vec<u8>>, RecordJsonError> {
    let refuse = || wrong(field, "{\"utf8\":\"...\"}, {\"b64\":\"...\"}, a string or null", value);
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone().into_bytes())),
        Value::Object(fields) if fields.len() == 1 => match fields.iter().next() {
            Some((name, Value::String(text))) if name == "utf8" => Ok(Some(text.clone().into_bytes())),
            Some((name, Value::String(text))) if name == "b64" => {
                STANDARD.decode(text).map(Some).map_err(|_| refuse())
            }
            _ => Err(refuse()),
        },
        _ => Err(refuse()),
    }
}

fn parse_headers(value: &Value) -> Result<Vec<InputHeader>, RecordJsonError> {
    let refuse = || wrong("headers", "a list of pairs [key, value]", value);
    let Value::Array(pairs) = value else { return Err(refuse()) };
    let mut headers = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let Some([key, value]) = pair.as_array().map(Vec::as_slice) else { return Err(refuse()) };
        let key = parse_bytes("a header's key", key)?.ok_or_else(refuse)?;
        headers.push(InputHeader { key, value: parse_bytes("a header's value", value)? });
    }
    Ok(headers)
}

fn parse_timestamp(value: &Value) -> Result<Option<TimestampMs>, RecordJsonError> {
    match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_i64().map(TimestampMs),
        Value::String(text) => time::parse_moment(text),
        _ => None,
    }
    .map(Some)
    .ok_or_else(|| wrong("ts", "RFC 3339 or milliseconds", value))
}

#[cfg(test)]
mod tests {
    use highwater_record::{Batch, BatchBuilder, Codec, NewRecord};
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::record_view::LogState;

    fn json(record: &InputRecord) -> String {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|header| (header.key.as_slice(), header.value.as_deref())).collect();
        let mut builder = BatchBuilder::new(Codec::None);
        builder
            .append(&NewRecord {
                timestamp: record.timestamp.unwrap(),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })
            .unwrap();
        let batch = Batch::new(builder.build().unwrap()).unwrap();
        let read = batch.records().unwrap().next().unwrap().unwrap();
        let log = LogState { start: 0, last_stable: 0, high_watermark: 0 };
        let partition = record.partition.unwrap();
        let view =
            RecordView { topic: "logs", partition, record: &read, batch: batch.header(), log, decoded: None };
        let mut out = Vec::new();
        write(&mut out, &view);
        String::from_utf8(out).unwrap()
    }

    fn header(key: &[u8], value: Option<&[u8]>) -> InputHeader {
        InputHeader { key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    #[test]
    fn a_record_is_one_line_that_says_everything() {
        let record = InputRecord {
            partition: Some(3),
            timestamp: Some(TimestampMs(1_644_796_801_250)),
            key: Some(b"k\"1\n".to_vec()),
            value: Some(b"\xff\0".to_vec()),
            headers: vec![header(b"h", None), header(b"h", Some(b"")), header(b"\xfe", None)],
        };

        assert_eq!(
            json(&record),
            "{\"topic\":\"logs\",\"partition\":3,\"offset\":0,\"ts\":\"2022-02-14T00:00:01.250Z\",\
             \"ts_type\":\"create\",\"key\":{\"utf8\":\"k\\\"1\\n\"},\"value\":{\"b64\":\"/wA=\"},\
             \"headers\":[[\"h\",null],[\"h\",{\"utf8\":\"\"}],[{\"b64\":\"/g==\"},null]]}"
        );
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![vec(any::<u8>(), 0..40), "\\PC{0,20}".prop_map(String::into_bytes)]
    }

    proptest! {
        #[test]
        fn any_record_reads_back_as_it_was(
            partition in 0..i32::MAX,
            timestamp in prop_oneof![any::<i64>(), 0..4_000_000_000_000_i64],
            key in option::of(bytes()),
            value in option::of(bytes()),
            headers in vec((bytes(), option::of(bytes())).prop_map(|(key, value)| InputHeader { key, value }), 0..4),
        ) {
            let timestamp = Some(TimestampMs(timestamp));
            let record = InputRecord { partition: Some(partition), timestamp, key, value, headers };
            let line = json(&record);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(parse(line.as_bytes()), Ok(record));
        }

        #[test]
        fn no_line_panics(line in vec(any::<u8>(), 0..100)) {
            let _ = parse(&line);
        }
    }

    #[test]
    fn a_record_written_by_hand_is_short() {
        let expected = InputRecord { value: Some(b"x".to_vec()), ..InputRecord::default() };

        assert_eq!(parse(br#"{"value":"x"}"#), Ok(expected));
        assert_eq!(parse(b"{}"), Ok(InputRecord::default()));
    }

    #[test]
    fn what_is_no_record_is_said() {
        for (line, reason) in [
            ("", "not JSON"),
            ("[]", "not a JSON object"),
            ("{\"vlaue\":1}", "no field \"vlaue\""),
            ("{\"value\":1}", "value wants"),
            ("{\"value\":{\"b64\":\"!\"}}", "value wants"),
            ("{\"value\":{\"utf8\":\"a\",\"b64\":\"YQ==\"}}", "value wants"),
            ("{\"headers\":[[\"k\"]]}", "headers wants"),
            ("{\"headers\":[[null,null]]}", "headers wants"),
            ("{\"ts\":\"yesterday\"}", "ts wants"),
            ("{\"partition\":-1}", "partition wants"),
        ] {
            let error = parse(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{line:?}: {error}");
        }
    }
}
