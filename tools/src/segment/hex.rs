//! Bytes as they lie in a file: position, hexadecimal digits, ASCII; the header of a batch field by field.

use std::io::Write as _;

use highwater_record::{BatchHeader, MessageFormat};
use highwater_storage::ScannedBatch;

/// Bytes of a line.
const LINE_BYTES: usize = 16;

/// The fields of a batch's header, by Kafka's names (`DefaultRecordBatch.java`), and their sizes in bytes.
const FIELDS: &[(&str, usize)] = &[
    ("baseOffset", 8),
    ("batchLength", 4),
    ("partitionLeaderEpoch", 4),
    ("magic", 1),
    ("crc", 4),
    ("attributes", 2),
    ("lastOffsetDelta", 4),
    ("baseTimestamp", 8),
    ("maxTimestamp", 8),
    ("producerId", 8),
    ("producerEpoch", 2),
    ("baseSequence", 4),
    ("recordsCount", 4),
];

/// The fields of a message of format 1 before its key (`LegacyRecord.java`); in format 0 there is no timestamp.
const MESSAGE_FIELDS: &[(&str, usize)] =
    &[("offset", 8), ("messageSize", 4), ("crc", 4), ("magic", 1), ("attributes", 1), ("timestamp", 8)];

/// The fields at the front of what is written in a format.
fn fields(format: MessageFormat) -> &'static [(&'static str, usize)] {
    match format {
        MessageFormat::V0 => &MESSAGE_FIELDS[..MESSAGE_FIELDS.len() - 1],
        MessageFormat::V1 => MESSAGE_FIELDS,
        MessageFormat::V2 => FIELDS,
    }
}

/// Appends `bytes`, the first of which is at `position`.
pub(super) fn dump(out: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    for (number, line) in bytes.chunks(LINE_BYTES).enumerate() {
        let at = position + (number * LINE_BYTES) as u64;
        let mut hex = String::with_capacity(3 * LINE_BYTES + 1);
        for (index, byte) in line.iter().enumerate() {
            if index == LINE_BYTES / 2 {
                hex.push(' ');
            }
            hex.push_str(&format!("{byte:02x} "));
        }
        let ascii: String = line
            .iter()
            .map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        let width = 3 * LINE_BYTES + 1;
        // A vector takes all that is written to it.
        drop(writeln!(out, "{at:08x}  {hex:<width$} |{ascii}|"));
    }
}

/// Appends the header at the front of `bytes`, which are those of `batch`, a line per field, and then the rest as it is
/// stored.
pub(super) fn dump_batch(out: &mut Vec<u8>, batch: &ScannedBatch, bytes: &[u8]) {
    let (mut rest, mut at) = (bytes, batch.position);
    for (name, size) in fields(batch.format) {
        let Some((field, after)) = rest.split_at_checked(*size) else { break };
        let hex: String = field.iter().map(|byte| format!("{byte:02x} ")).collect();
        let number = field.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        // The bytes of a smaller field fill the high end, so that its sign is kept on the way down.
        let unused_bits = 64 - 8 * *size as u32;
        let signed = ((number << unused_bits) as i64) >> unused_bits;
        let value = match *name {
            "crc" => format!("{number:#010x}"),
            "attributes" => format!("{signed} {}", attributes_text(&batch.header)),
            _ => signed.to_string(),
        };
        drop(writeln!(out, "{at:08x}  {hex:<24}  {name:<20}  {}", value.trim_end()));
        (rest, at) = (after, at + *size as u64);
    }
    dump(out, at, rest);
}

fn attributes_text(header: &BatchHeader) -> String {
    let attributes = header.attributes;
    let codec = attributes.codec().map_or_else(|| "unknown codec".to_owned(), |codec| codec.to_string());
    let mut words = vec![codec];
    words.extend(super::batches::flags(header).into_iter().map(str::to_owned));
    format!("({})", words.join(", "))
}
