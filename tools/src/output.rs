//! Rows and bytes to stdout, messages to stderr.
//!
//! Rows are a table for people, or JSON that is valid whatever happens. Colour is for terminals and NO_COLOR is obeyed.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde_json::Value;

/// How rows are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// Columns for people.
    Table,
    /// One JSON array.
    Json,
    /// One JSON object per line.
    Jsonl,
}

/// The `--output` of commands that print rows.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// How to print the rows
    #[arg(long, value_enum, default_value_t = OutputFormat::Table, value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
}

/// Rows with named columns.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Rows {
    /// No rows yet.
    pub(crate) const fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row with a cell per column.
    pub(crate) fn push(&mut self, row: Vec<Value>) {
        assert_eq!(row.len(), self.columns.len(), "a row has a cell for every column");
        self.rows.push(row);
    }

    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes all rows.
    pub(crate) fn write(&self, out: &mut impl Write, format: OutputFormat) -> io::Result<()> {
        match format {
            // A header without rows tells nothing.
            OutputFormat::Table if self.rows.is_empty() => Ok(()),
            OutputFormat::Table => writeln!(out, "{}", self.table()),
            OutputFormat::Jsonl => {
                for row in &self.rows {
                    self.write_object(out, row)?;
                    writeln!(out)?;
                }
                Ok(())
            }
            OutputFormat::Json => {
                write!(out, "[")?;
                for (index, row) in self.rows.iter().enumerate() {
                    write!(out, "{}", if index == 0 { "\n" } else { ",\n" })?;
                    self.write_object(out, row)?;
                }
                writeln!(out, "{}]", if self.rows.is_empty() { "" } else { "\n" })
            }
        }
    }

    /// Prints all rows to stdout.
    pub(crate) fn print(&self, format: OutputFormat) -> io::Result<()> {
        let mut out = Stdout::new();
        self.write(&mut out, format)?;
        out.flush()
    }

    fn write_object(&self, out: &mut impl Write, row: &[Value]) -> io::Result<()> {
        for (index, (column, cell)) in self.columns.iter().zip(row).enumerate() {
            write!(out, "{}\"{column}\":", if index == 0 { "{" } else { "," })?;
            serde_json::to_writer(&mut *out, cell).map_err(io::Error::from)?;
        }
        write!(out, "}}")
    }

    fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.columns.iter().map(|column| column.replace('_', " ").to_uppercase()));
        for row in &self.rows {
            table.add_row(row.iter().map(cell_text));
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            let numbers = |row: &Vec<Value>| row[index].is_number() || row[index].is_null();
            if !self.rows.is_empty() && self.rows.iter().all(numbers) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt()
    }
}

fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text).into_owned(),
        Value::Array(cells) => cells.iter().map(cell_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Text with its control characters as escapes: names that strangers chose cannot take the terminal over.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character.is_control() {
            true => printable.extend(character.escape_default()),
            false => printable.push(character),
        }
    }
    Cow::Owned(printable)
}

/// Stdout with a buffer. A reader that went away is a [`Closed`].
#[derive(Debug)]
pub(crate) struct Stdout {
    out: io::BufWriter<io::Stdout>,
}

/// Nobody reads stdout any more.
#[derive(Debug)]
struct Closed;

impl Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stdout is closed")
    }
}

impl std::error::Error for Closed {}

impl Stdout {
    /// A buffered stdout.
    pub(crate) fn new() -> Self {
        Self { out: io::BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    fn name(error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::BrokenPipe => closed(),
            kind => io::Error::new(kind, format!("cannot write to stdout: {error}")),
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(Self::name)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(Self::name)
    }
}

/// Prints a line to stdout.
pub(crate) fn print_line(line: &str) -> io::Result<()> {
    let mut out = Stdout::new();
    writeln!(out, "{line}")?;
    out.flush()
}

/// The error that a closed stdout gives.
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, Closed)
}

/// Whether `error` only says that nobody reads stdout any more.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<Closed>())
    })
}

/// Writes a line to stderr. If that is closed there is nobody to tell.
pub(crate) fn note(message: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Whether stdout is for the eyes.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stdout may be coloured.
pub(crate) fn is_coloured() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(rows: &Rows, format: OutputFormat, expected: &str) {
        let mut out = Vec::new();
        rows.write(&mut out, format).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn rows_are_a_table_or_json() {
        let mut rows = Rows::new(&["topic", "log_end"]);
        rows.push(vec![json!("a\"b"), json!(7)]);
        rows.push(vec![json!("logs"), Value::Null]);

        check(&rows, OutputFormat::Table, "TOPIC  LOG END\na\"b          7\nlogs         -\n");
        check(
            &rows,
            OutputFormat::Jsonl,
            "{\"topic\":\"a\\\"b\",\"log_end\":7}\n{\"topic\":\"logs\",\"log_end\":null}\n",
        );
        check(
            &rows,
            OutputFormat::Json,
            "[\n{\"topic\":\"a\\\"b\",\"log_end\":7},\n{\"topic\":\"logs\",\"log_end\":null}\n]\n",
        );
    }

    #[test]
    fn a_table_escapes_what_a_terminal_would_obey_and_json_loses_nothing() {
        let mut rows = Rows::new(&["group"]);
        rows.push(vec![json!("a\u{1b}[2Jb\né")]);

        check(&rows, OutputFormat::Table, "GROUP\na\\u{1b}[2Jb\\né\n");
        check(&rows, OutputFormat::Jsonl, "{\"group\":\"a\\u001b[2Jb\\né\"}\n");
    }

    #[test]
    fn no_rows_are_valid_json() {
        check(&Rows::new(&["topic"]), OutputFormat::Json, "[]\n");
        check(&Rows::new(&["topic"]), OutputFormat::Jsonl, "");
        check(&Rows::new(&["topic"]), OutputFormat::Table, "");
    }

    #[test]
    fn only_a_closed_stdout_is_silent_success() {
        assert!(is_closed(&anyhow::Error::from(closed()).context("write records")));
        assert!(!is_closed(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
    }
}
