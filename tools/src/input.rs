//! Records from a file or from stdin: lines, lines of JSON, or what a format string says.
//!
//! Reading happens on a thread of its own, since a terminal or a pipe may be silent for hours. Records are handed over
//! in small bundles through a bounded channel.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, anyhow, bail};
use highwater_record::TimestampMs;
use tokio::sync::mpsc;

use crate::format::{self, Encoding};
use crate::record_json;

/// Largest record that is read, in bytes. Brokers accept far less; the limit keeps input without a newline from
/// filling the memory.
const RECORD_BYTES_MAX: usize = 256 << 20;
/// Most records of a bundle, and about the most bytes.
const BUNDLE_RECORDS: usize = 1024;
const BUNDLE_BYTES: usize = 1 << 20;
/// Bundles that wait.
const BUNDLES_MAX: usize = 4;

/// A record that was read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct InputRecord {
    /// The partition that it names.
    pub(crate) partition: Option<i32>,
    /// Its own time.
    pub(crate) timestamp: Option<TimestampMs>,
    /// Its key.
    pub(crate) key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub(crate) value: Option<Vec<u8>>,
    /// Its headers.
    pub(crate) headers: Vec<InputHeader>,
}

/// A header that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct InputHeader {
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// Its value, if it has one.
    pub(crate) value: Option<Vec<u8>>,
}

/// How input becomes records.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parser {
    /// A record per line of JSON, as `consume --output jsonl` writes it.
    Jsonl,
    /// Fields and what separates them.
    Fields(Vec<Field>),
}

/// A field and the bytes that end it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    target: Target,
    encoding: Encoding,
    delimiter: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Key,
    Value,
    Partition,
    Timestamp,
}

/// What the reading thread hands over; an error is the last of it.
pub(crate) type Bundle = anyhow::Result<Vec<InputRecord>>;

impl Parser {
    /// A record per line: everything up to the newline is the value.
    pub(crate) fn lines() -> Self {
        let value = Field { target: Target::Value, encoding: Encoding::Plain, delimiter: b"\n".to_vec() };
        Self::Fields(vec![value])
    }

    /// The format of `produce -f`: verbs %k %v %p %d, each read up to the text that follows it.
    pub(crate) fn format(text: &str) -> anyhow::Result<Self> {
        let mut fields: Vec<Field> = Vec::new();
        let mut rest = text;
        let mut literal = Vec::new();
        while let Some(first) = rest.chars().next() {
            let tail = &rest[first.len_utf8()..];
            match first {
                '\\' => rest = format::take_escape(tail, &mut literal)?,
                '%' if tail.starts_with(['%', '{', '}']) => {
                    literal.push(tail.as_bytes()[0]);
                    rest = &tail[1..];
                }
                '%' => {
                    end_field(&mut fields, &mut literal)?;
                    let (field, after) = take_field(tail)?;
                    fields.push(field);
                    rest = after;
                }
                _ => {
                    literal.extend_from_slice(first.to_string().as_bytes());
                    rest = tail;
                }
            }
        }
        if !literal.is_empty() {
            end_field(&mut fields, &mut literal)?;
        }
        match fields.last() {
            None => bail!("the format {text:?} names no field; for example: -f '%k %v\\n'"),
            Some(last) if last.delimiter.is_empty() => {
                bail!("nothing ends the last field of {text:?}; for example: -f '%k %v\\n'")
            }
            Some(_) => Ok(Self::Fields(fields)),
        }
    }

    /// The next record, or `None` at the end.
    fn next(&self, source: &mut impl BufRead) -> anyhow::Result<Option<InputRecord>> {
        match self {
            Self::Jsonl => loop {
                let Some(line) = read_until(source, b"\n")? else { return Ok(None) };
                if !line.iter().all(u8::is_ascii_whitespace) {
                    return record_json::parse(&line).map(Some).map_err(Into::into);
                }
            },
            Self::Fields(fields) => {
                let mut record = InputRecord::default();
                for (index, field) in fields.iter().enumerate() {
                    match read_until(source, &field.delimiter)? {
                        Some(text) => field.set(&mut record, &text)?,
                        None if index == 0 => return Ok(None),
                        None => bail!("the input ends before {}", field.target.name()),
                    }
                }
                Ok(Some(record))
            }
        }
    }
}

fn end_field(fields: &mut [Field], literal: &mut Vec<u8>) -> anyhow::Result<()> {
    match fields.last_mut() {
        None if !literal.is_empty() => bail!("the format begins with text; it must begin with a field"),
        None => {}
        Some(field) if literal.is_empty() => {
            bail!("nothing separates {} from the next field", field.target.name())
        }
        Some(field) => field.delimiter = std::mem::take(literal),
    }
    Ok(())
}

fn take_field(rest: &str) -> anyhow::Result<(Field, &str)> {
    let verb = rest.chars().next().ok_or_else(|| anyhow!("the format ends after %"))?;
    let target = match verb {
        'k' => Target::Key,
        'v' => Target::Value,
        'p' => Target::Partition,
        'd' => Target::Timestamp,
        verb => bail!("records are read with %k, %v, %p and %d, not with %{verb}"),
    };
    let rest = &rest[1..];
    let (encoding, rest) = match rest.strip_prefix('{') {
        None => (Encoding::Plain, rest),
        Some(inner) => {
            let (name, rest) = inner.split_once('}').ok_or_else(|| anyhow!("no }} closes {{{inner}"))?;
            if !matches!(target, Target::Key | Target::Value) {
                bail!("%{verb} is read as a decimal number; it has no modifier");
            }
            (Encoding::parse(name)?, rest)
        }
    };
    Ok((Field { target, encoding, delimiter: Vec::new() }, rest))
}

impl Field {
    fn set(&self, record: &mut InputRecord, text: &[u8]) -> anyhow::Result<()> {
        let number = || std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<i64>().ok());
        let refuse = || anyhow!("{} is {:?}", self.target.name(), text.escape_ascii().to_string());
        match self.target {
            Target::Key => record.key = Some(self.encoding.read(text).ok_or_else(refuse)?),
            Target::Value => record.value = Some(self.encoding.read(text).ok_or_else(refuse)?),
            Target::Timestamp => record.timestamp = Some(TimestampMs(number().ok_or_else(refuse)?)),
            Target::Partition => {
                let number = number().and_then(|number| i32::try_from(number).ok());
                record.partition = Some(number.filter(|number| *number >= 0).ok_or_else(refuse)?);
            }
        }
        Ok(())
    }
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Key => "the key (%k)",
            Self::Value => "the value (%v)",
            Self::Partition => "the partition (%p)",
            Self::Timestamp => "the timestamp (%d)",
        }
    }
}

/// The bytes up to `delimiter`, which is taken too; the rest if it does not come. `None` at the end.
fn read_until(source: &mut impl BufRead, delimiter: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let (last, _) = delimiter.split_last().expect("a delimiter is not empty");
    let mut bytes = Vec::new();
    loop {
        let room = RECORD_BYTES_MAX + delimiter.len() - bytes.len();
        let count = source.by_ref().take(room as u64).read_until(*last, &mut bytes)?;
        if bytes.ends_with(delimiter) {
            bytes.truncate(bytes.len() - delimiter.len());
            return Ok(Some(bytes));
        }
        if count == room {
            bail!("a field is longer than {RECORD_BYTES_MAX} bytes, the most that is read");
        }
        if count == 0 {
            return Ok((!bytes.is_empty()).then_some(bytes));
        }
    }
}

/// Starts reading. The channel ends after the last record or after an error.
pub(crate) fn start(
    source: impl Read + Send + 'static,
    parser: Parser,
) -> io::Result<mpsc::Receiver<Bundle>> {
    let (sender, receiver) = mpsc::channel(BUNDLES_MAX);
    // A plain thread: the runtime would wait for one of its own, which may sit in a read for ever.
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        let mut source = BufReader::with_capacity(64 << 10, source);
        let mut number = 0;
        loop {
            let (bundle, ended) = read_bundle(&mut source, &parser, &mut number);
            if !bundle.is_empty() && sender.blocking_send(Ok(bundle)).is_err() {
                return;
            }
            match ended {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    // If nobody listens any more, nobody misses the error.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    })?;
    Ok(receiver)
}

/// What is at hand, up to a bundle, and whether that was all.
fn read_bundle(
    source: &mut BufReader<impl Read>,
    parser: &Parser,
    number: &mut u64,
) -> (Vec<InputRecord>, anyhow::Result<bool>) {
    let mut bundle = Vec::new();
    let mut bytes = 0;
    while bundle.len() < BUNDLE_RECORDS && bytes < BUNDLE_BYTES {
        // What was read goes out before a read that may wait.
        if !bundle.is_empty() && !source.buffer().contains(&b'\n') {
            break;
        }
        *number += 1;
        match parser.next(source).with_context(|| format!("record {number} of the input")) {
            Ok(Some(record)) => {
                bytes += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
                bundle.push(record);
            }
            Ok(None) => return (bundle, Ok(true)),
            Err(error) => return (bundle, Err(error)),
        }
    }
    (bundle, Ok(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(parser: &Parser, text: &str) -> anyhow::Result<Vec<InputRecord>> {
        let mut source = BufReader::new(text.as_bytes());
        let mut records = Vec::new();
        while let Some(record) = parser.next(&mut source)? {
            records.push(record);
        }
        Ok(records)
    }

    fn values(parser: &Parser, text: &str) -> Vec<String> {
        let records = read_all(parser, text).unwrap();
        records.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
    }

    #[test]
    fn a_line_is_a_value_whatever_is_in_it() {
        assert_eq!(values(&Parser::lines(), "a\r\n\nb c\nlast"), ["a\r", "", "b c", "last"]);
        assert_eq!(values(&Parser::lines(), ""), Vec::<String>::new());
        assert_eq!(values(&Parser::lines(), "\n"), [""]);
    }

    #[test]
    fn a_format_takes_a_line_apart() {
        let parser = Parser::format("%k{hex}: %v|%p|%d\\n").unwrap();

        let records = read_all(&parser, "6b31: a b|2|1700000000000\n").unwrap();

        let expected = InputRecord {
            partition: Some(2),
            timestamp: Some(TimestampMs(1_700_000_000_000)),
            key: Some(b"k1".to_vec()),
            value: Some(b"a b".to_vec()),
            headers: Vec::new(),
        };
        assert_eq!(records, [expected]);
    }

    #[test]
    fn a_delimiter_may_be_longer_than_a_byte() {
        let parser = Parser::format("%v<->").unwrap();

        assert_eq!(values(&parser, "a->b<->c>d<->"), ["a->b", "c>d"]);
    }

    #[test]
    fn formats_that_cannot_be_read_back_are_refused() {
        for (text, reason) in [
            ("", "names no field"),
            ("%v", "nothing ends the last field"),
            ("%k%v\\n", "nothing separates"),
            ("x%v\\n", "begins with text"),
            ("%t\\n", "%k, %v, %p and %d"),
            ("%p{hex}\\n", "no modifier"),
            ("%v{zip}\\n", "hex, base64"),
        ] {
            let error = Parser::format(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn input_that_ends_inside_a_record_is_an_error() {
        let parser = Parser::format("%k %v\\n").unwrap();

        assert!(read_all(&parser, "a 1\nb").is_err());
        assert!(read_all(&Parser::format("%k{hex} %v\\n").unwrap(), "xy 1\n").is_err());
    }

    #[test]
    fn what_was_read_before_a_fault_is_handed_over() {
        let mut receiver = start(&b"{\"value\":\"a\"}\n\nnonsense\n"[..], Parser::Jsonl).unwrap();

        let first = receiver.blocking_recv().unwrap().unwrap();
        let error = receiver.blocking_recv().unwrap().unwrap_err();

        assert_eq!(first[0].value.as_deref(), Some(&b"a"[..]));
        assert!(format!("{error:#}").starts_with("record 2 of the input: not JSON"), "{error:#}");
        assert!(receiver.blocking_recv().is_none());
    }
}
