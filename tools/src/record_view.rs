//! One record with what surrounds it, as the formats print it.

use highwater_record::{BatchHeader, Record};
use serde_json::Value;

use crate::output::printable;

/// A record and where it was found.
#[derive(Clone, Debug)]
pub(crate) struct RecordView<'a> {
    /// The topic's name.
    pub(crate) topic: &'a str,
    /// The partition's number.
    pub(crate) partition: i32,
    /// The record.
    pub(crate) record: &'a Record<'a>,
    /// The header of its batch.
    pub(crate) batch: &'a BatchHeader,
    /// What the partition's leader said about its log.
    pub(crate) log: LogState,
    /// What its bytes say, if that is printed in their place.
    pub(crate) decoded: Option<DecodedRecord>,
}

/// The key and the value of a record of an internal topic, as objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DecodedRecord {
    /// What it is about.
    pub(crate) key: Value,
    /// What it says; null is a tombstone.
    pub(crate) value: Value,
}

impl DecodedRecord {
    /// Appends both for people: `name field=value ... => field=value ...`.
    pub(crate) fn write(&self, line: &mut Vec<u8>) {
        let name = match &self.key["name"] {
            Value::String(name) => name.clone(),
            _ => format!("type {}", self.key["type"]),
        };
        line.extend_from_slice(name.as_bytes());
        write_fields(line, &self.key);
        line.extend_from_slice(b"  =>");
        match &self.value {
            Value::Null => line.extend_from_slice(b" null"),
            value => write_fields(line, value),
        }
    }
}

fn write_fields(line: &mut Vec<u8>, of: &Value) {
    let Some(fields) = of["data"].as_object() else {
        if let Value::String(group) = &of["group"] {
            line.extend_from_slice(format!(" group={}", printable(group)).as_bytes());
        }
        return line.extend_from_slice(format!(" raw={}", of["raw"]["b64"]).as_bytes());
    };
    for (name, value) in fields {
        let text = match value {
            Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => {
                printable(text).into_owned()
            }
            other => printable(&other.to_string()).into_owned(),
        };
        line.extend_from_slice(format!(" {name}={text}").as_bytes());
    }
}

/// The offsets that a fetch tells besides the records; -1 where unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogState {
    /// First offset of the log.
    pub(crate) start: i64,
    /// Below it no transaction is open.
    pub(crate) last_stable: i64,
    /// The end of what consumers may read.
    pub(crate) high_watermark: i64,
}
