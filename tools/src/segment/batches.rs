//! `segment cat --batches`: a row per batch, from its header. Rows go out one by one, however many there are.

use highwater_record::{BatchHeader, LeaderEpoch, Sequence, TimestampType};
use highwater_storage::ScannedBatch;
use serde_json::{Value, json};

use super::files::{PartitionFiles, SegmentFile};
use crate::output::printable;
use crate::printer::Style;
use crate::time;

/// Names of the columns, and how wide they are in a table; longer cells push the rest aside.
const COLUMNS: &[(&str, usize)] = &[
    ("topic", 12),
    ("partition", 9),
    ("segment", 20),
    ("position", 10),
    ("base_offset", 11),
    ("last_offset", 11),
    ("records", 7),
    ("bytes", 8),
    ("codec", 6),
    ("first_ts", 24),
    ("max_ts", 24),
    ("ts_type", 7),
    ("producer_id", 11),
    ("producer_epoch", 14),
    ("base_sequence", 13),
    ("leader_epoch", 12),
    ("flags", 21),
    ("crc", 3),
];

/// Appends the row of a batch in `style`, and before the first the header of the table.
pub(super) fn write(out: &mut Vec<u8>, style: &Style, is_first: bool, row: &[Value]) {
    match style {
        Style::Json | Style::Jsonl => {
            out.push(b'{');
            for (index, ((name, _), cell)) in COLUMNS.iter().zip(row).enumerate() {
                let comma = if index == 0 { "" } else { "," };
                out.extend_from_slice(format!("{comma}\"{name}\":{cell}").as_bytes());
            }
            out.extend_from_slice(if *style == Style::Jsonl { b"}\n" } else { b"}" });
        }
        _ => {
            if is_first {
                let names = COLUMNS.iter().map(|(name, _)| name.replace('_', " ").to_uppercase());
                write_line(out, names, row);
            }
            write_line(out, row.iter().map(text), row);
        }
    }
}

/// Numbers stand at the right of their column.
fn write_line(out: &mut Vec<u8>, cells: impl Iterator<Item = String>, row: &[Value]) {
    let mut line = String::new();
    for ((cell, (_, width)), value) in cells.zip(COLUMNS).zip(row) {
        let is_number = value.is_number() || value.is_null();
        let padded = if is_number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        line.push_str(&padded);
    }
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

fn text(cell: &Value) -> String {
    match cell {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text).into_owned(),
        Value::Array(cells) if cells.is_empty() => "-".to_owned(),
        Value::Array(cells) => cells.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The cells of a batch.
pub(super) fn row(
    files: &PartitionFiles,
    segment: &SegmentFile,
    batch: &ScannedBatch,
    is_good: bool,
) -> Vec<Value> {
    let header = &batch.header;
    let attributes = header.attributes;
    let codec =
        attributes.codec().map_or_else(|| attributes.codec_number().to_string(), |codec| codec.to_string());
    // A delete horizon stands where the first timestamp would.
    let first = (!attributes.has_delete_horizon()).then(|| time::readable(header.base_timestamp));
    let ts_type = match attributes.timestamp_type() {
        TimestampType::CreateTime => "create",
        TimestampType::LogAppendTime => "append",
    };
    let producer = header.producer;
    vec![
        json!(files.topic),
        json!(files.partition),
        json!(format!("{:020}", segment.base.get())),
        json!(batch.position),
        json!(header.base_offset.get()),
        json!(header.last_offset().get()),
        json!(header.record_count),
        json!(header.size_bytes),
        json!(codec),
        json!(first),
        json!(time::readable(header.max_timestamp)),
        json!(ts_type),
        json!(producer.map(|producer| producer.id.get())),
        json!(producer.map(|producer| producer.epoch.get())),
        json!(producer.and_then(|producer| producer.base_sequence).map(Sequence::get)),
        json!(header.leader_epoch.map(LeaderEpoch::get)),
        json!(flags(header)),
        json!(if is_good { "ok" } else { "bad" }),
    ]
}

/// The attributes that have names of their own.
pub(super) fn flags(header: &BatchHeader) -> Vec<&'static str> {
    let attributes = header.attributes;
    let all = [
        (attributes.is_transactional(), "transactional"),
        (attributes.is_control(), "control"),
        (attributes.has_delete_horizon(), "delete_horizon"),
    ];
    all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
}
