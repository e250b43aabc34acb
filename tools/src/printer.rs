//! Records to a writer, in one of five styles. The order of calls is `print` for each record, then `finish`.

use std::io::{self, Write};

use crate::format::Format;
use crate::output::printable;
use crate::record_json;
use crate::record_view::RecordView;
use crate::time;

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// How records look.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Style {
    /// The value and a newline.
    Values,
    /// A line for people: control characters are escaped, so that a record cannot take the terminal over.
    Readable {
        /// Whether what is not data is dimmed.
        coloured: bool,
    },
    /// An object per line.
    Jsonl,
    /// One array.
    Json,
    /// A format string.
    Format(Format),
}

impl Style {
    /// Appends a record, number `iteration` from 1, without what stands between the records of an array.
    pub(crate) fn write(&self, line: &mut Vec<u8>, view: &RecordView<'_>, iteration: u64) {
        match self {
            Self::Values => {
                match &view.decoded {
                    Some(decoded) => decoded.write(line),
                    None => line.extend_from_slice(view.record.value.unwrap_or_default()),
                }
                line.push(b'\n');
            }
            Self::Readable { coloured } => write_readable(line, view, *coloured),
            Self::Jsonl => {
                record_json::write(line, view);
                line.push(b'\n');
            }
            Self::Json => record_json::write(line, view),
            Self::Format(format) => format.write(line, view, iteration),
        }
    }
}

/// Prints records and counts them.
#[derive(Debug)]
pub(crate) struct Printer<W: Write> {
    out: W,
    style: Style,
    count: u64,
    line: Vec<u8>,
}

impl<W: Write> Printer<W> {
    /// A printer that has printed nothing.
    pub(crate) const fn new(out: W, style: Style) -> Self {
        Self { out, style, count: 0, line: Vec::new() }
    }

    /// Prints a record.
    pub(crate) fn print(&mut self, view: &RecordView<'_>) -> io::Result<()> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        self.style.write(&mut line, view, self.count + 1);
        let printed = self.put(&line);
        self.line = line;
        printed
    }

    /// Prints the text of a record, or of whatever else is printed in its place, that [`Style::write`] made.
    pub(crate) fn put(&mut self, text: &[u8]) -> io::Result<()> {
        self.count += 1;
        if self.style == Style::Json {
            self.out.write_all(if self.count == 1 { b"[\n" } else { b",\n" })?;
        }
        self.out.write_all(text)
    }

    /// Prints what is no record, between records for people.
    pub(crate) fn put_between(&mut self, text: &[u8]) -> io::Result<()> {
        self.out.write_all(text)
    }

    /// How many were printed.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// How they look.
    pub(crate) const fn style(&self) -> &Style {
        &self.style
    }

    /// Lets what was printed be seen.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The writer.
    #[cfg(test)]
    pub(crate) const fn written(&self) -> &W {
        &self.out
    }

    /// Ends the output.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.style == Style::Json {
            self.out.write_all(if self.count == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        self.out.flush()
    }
}

fn write_readable(line: &mut Vec<u8>, view: &RecordView<'_>, coloured: bool) {
    let (dim, reset) = if coloured { (DIM, RESET) } else { ("", "") };
    let record = view.record;
    let place = format!(
        "{dim}{}/{}@{}  {}{reset}  ",
        view.topic,
        view.partition,
        record.offset,
        time::readable(record.timestamp)
    );
    line.extend_from_slice(place.as_bytes());
    if let Some(decoded) = &view.decoded {
        decoded.write(line);
        line.push(b'\n');
        return;
    }
    if let Some(key) = record.key {
        line.extend_from_slice(format!("{dim}key={reset}").as_bytes());
        write_escaped(line, key);
        line.extend_from_slice(b"  ");
    }
    for (key, value) in record.headers.clone() {
        line.push(b'[');
        write_escaped(line, key);
        line.push(b'=');
        match value {
            Some(value) => write_escaped(line, value),
            None => line.extend_from_slice(b"null"),
        }
        line.extend_from_slice(b"]  ");
    }
    match record.value {
        Some(value) => write_escaped(line, value),
        None => line.extend_from_slice(format!("{dim}null{reset}").as_bytes()),
    }
    line.push(b'\n');
}

/// Text as it is; bytes that are not text, and characters that move the cursor, as escapes.
fn write_escaped(line: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        line.extend_from_slice(printable(chunk.valid()).as_bytes());
        line.extend(chunk.invalid().iter().flat_map(|byte| std::ascii::escape_default(*byte)));
    }
}

#[cfg(test)]
mod tests {
    use highwater_record::{Batch, BatchBuilder, Codec, NewRecord, TimestampMs};

    use super::*;
    use crate::record_view::LogState;

    fn printed(style: Style, values: &[Option<&[u8]>]) -> String {
        let mut printer = Printer::new(Vec::new(), style);
        let mut builder = BatchBuilder::new(Codec::None);
        for value in values {
            let timestamp = TimestampMs(1_644_796_801_250);
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", None)];
            builder.append(&NewRecord { timestamp, key: Some(b"k"), value: *value, headers }).unwrap();
        }
        if !values.is_empty() {
            let batch = Batch::new(builder.build().unwrap()).unwrap();
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                let log = LogState { start: 0, last_stable: 0, high_watermark: 0 };
                let view = RecordView {
                    topic: "t",
                    partition: 0,
                    record: &record,
                    batch: batch.header(),
                    log,
                    decoded: None,
                };
                printer.print(&view).unwrap();
            }
        }
        printer.finish().unwrap();
        String::from_utf8_lossy(&printer.out).into_owned()
    }

    #[test]
    fn values_are_lines() {
        assert_eq!(printed(Style::Values, &[Some(b"a"), None, Some(b"b")]), "a\n\nb\n");
    }

    #[test]
    fn json_is_an_array_even_if_it_is_empty() {
        assert_eq!(printed(Style::Json, &[]), "[]\n");
        let two: serde_json::Value =
            serde_json::from_str(&printed(Style::Json, &[Some(b"a"), Some(b"b")])).unwrap();
        assert_eq!(two.as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_line_for_people_cannot_move_the_cursor() {
        let line =
            printed(Style::Readable { coloured: false }, &[Some("\u{1b}[2Jgrün\n\t\u{9b}".as_bytes())]);

        assert_eq!(line, "t/0@0  2022-02-14T00:00:01.250Z  key=k  [h=null]  \\u{1b}[2Jgrün\\n\\t\\u{9b}\n");
        assert_eq!(
            printed(Style::Readable { coloured: false }, &[Some(b"a\xff")]),
            "t/0@0  2022-02-14T00:00:01.250Z  key=k  [h=null]  a\\xff\n"
        );
    }

    #[test]
    fn only_what_is_not_data_is_coloured() {
        let line = printed(Style::Readable { coloured: true }, &[Some(b"v")]);

        assert!(line.starts_with("\x1b[2mt/0@0  2022-02-14T00:00:01.250Z\x1b[0m  "), "{line:?}");
        assert!(line.ends_with("  v\n"), "{line:?}");
    }
}
