//! Format strings: the verbs and modifiers of rpk (franz-go's record formatter).
//!
//! Parsed once, then applied to each record. Left out: `unpack`, which is refused with a sentence. Beyond rpk:
//! `%d{rfc3339}`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use highwater_record::{TimestampMs, TimestampType};

use crate::go_layout;
use crate::record_view::RecordView;
use crate::time;

/// A parsed format string.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
}

/// A format string that makes no sense, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FormatError(String);

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  for example: -f '%p %o %d{{rfc3339}} %k %v\\n'", self.0)
    }
}

impl std::error::Error for FormatError {}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(Vec<u8>),
    Text(Text, Encoding),
    Number(Number, Radix),
    Time(Time),
    Attribute(Attribute, Option<Radix>),
    Headers(Format),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Text {
    Topic,
    Key,
    Value,
}

/// How text is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Encoding {
    Plain,
    Hex,
    Base64,
    Base64Raw,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    TopicLength,
    KeyLength,
    ValueLength,
    HeaderCount,
    Partition,
    Offset,
    LeaderEpoch,
    ProducerId,
    ProducerEpoch,
    LogStart,
    LastStable,
    HighWatermark,
    Iteration,
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Radix {
    Ascii,
    /// So many hexadecimal digits; as many as needed without.
    Hex(Option<usize>),
    /// So many bytes, most significant first.
    Big(usize),
    /// So many bytes, least significant first.
    Little(usize),
    Bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Time {
    Millis(Radix),
    Strftime(String),
    Rfc3339,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Attribute {
    Compression,
    TimestampType,
    Transactional,
    Control,
}

/// What is printed: a record, or one of its headers.
#[derive(Clone, Copy)]
struct Subject<'a> {
    view: &'a RecordView<'a>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    iteration: u64,
}

impl Format {
    /// Reads a format string.
    pub(crate) fn parse(text: &str) -> Result<Self, FormatError> {
        if text == "json" {
            return Err(FormatError(
                "-f json is rpk's; here it is --output jsonl, which keeps binary".into(),
            ));
        }
        Self::parse_pieces(text, false)
    }

    fn parse_pieces(text: &str, in_header: bool) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (head, tail) = rest.split_at(first.len_utf8());
            match first {
                '\\' => rest = take_escape(tail, &mut literal)?,
                '%' if tail.starts_with(['%', '{', '}']) => {
                    literal.extend_from_slice(&tail.as_bytes()[..1]);
                    rest = &tail[1..];
                }
                '%' => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    let (piece, after) = take_verb(tail, in_header)?;
                    pieces.push(piece);
                    rest = after;
                }
                _ => {
                    literal.extend_from_slice(head.as_bytes());
                    rest = tail;
                }
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self { pieces })
    }

    /// Whether it prints how many records were printed.
    pub(crate) fn counts_records(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Number(Number::Iteration, _)))
    }

    /// Appends a record; `iteration` counts the records from 1.
    pub(crate) fn write(&self, out: &mut Vec<u8>, view: &RecordView<'_>, iteration: u64) {
        let subject = Subject { view, key: view.record.key, value: view.record.value, iteration };
        self.write_subject(out, subject);
    }

    fn write_subject(&self, out: &mut Vec<u8>, subject: Subject<'_>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(bytes) => out.extend_from_slice(bytes),
                Piece::Text(text, encoding) => encoding.write(out, subject.text(*text)),
                Piece::Number(number, radix) => radix.write(out, subject.number(*number)),
                Piece::Time(time) => time.write(out, subject.view.record.timestamp),
                Piece::Attribute(attribute, radix) => attribute.write(out, subject.view, *radix),
                Piece::Headers(format) => {
                    for (key, value) in subject.view.record.headers.clone() {
                        format.write_subject(out, Subject { key: Some(key), value, ..subject });
                    }
                }
            }
        }
    }
}

/// Appends the character of the escape that `rest` begins with, after its backslash.
pub(crate) fn take_escape<'a>(rest: &'a str, out: &mut Vec<u8>) -> Result<&'a str, FormatError> {
    let (byte, length) = match rest.as_bytes().first() {
        Some(b't') => (b'\t', 1),
        Some(b'n') => (b'\n', 1),
        Some(b'r') => (b'\r', 1),
        Some(b'\\') => (b'\\', 1),
        Some(b'x') => {
            let digits = rest.get(1..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            (byte.ok_or_else(|| FormatError("\\x wants two hexadecimal digits".into()))?, 3)
        }
        _ => return Err(FormatError("after \\ come t, n, r, \\ or xNN".into())),
    };
    out.push(byte);
    Ok(&rest[length..])
}

fn take_verb(rest: &str, in_header: bool) -> Result<(Piece, &str), FormatError> {
    let Some(verb) = rest.chars().next() else {
        return Err(FormatError("the format ends after %".into()));
    };
    let rest = &rest[verb.len_utf8()..];
    if in_header && !matches!(verb, 'k' | 'K' | 'v' | 'V') {
        return Err(FormatError(format!("inside %h{{}} there are %k, %K, %v and %V, not %{verb}")));
    }
    let (modifier, rest) = match rest.strip_prefix('{') {
        Some(inner) => {
            let (modifier, rest) = take_braced(inner)?;
            (Some(modifier), rest)
        }
        None => (None, rest),
    };
    let radix = || modifier.map_or(Ok(Radix::Ascii), Radix::parse);
    let encoding = || modifier.map_or(Ok(Encoding::Plain), Encoding::parse);
    let piece = match verb {
        't' => Piece::Text(Text::Topic, encoding()?),
        'k' => Piece::Text(Text::Key, encoding()?),
        'v' => Piece::Text(Text::Value, encoding()?),
        'T' => Piece::Number(Number::TopicLength, radix()?),
        'K' => Piece::Number(Number::KeyLength, radix()?),
        'V' => Piece::Number(Number::ValueLength, radix()?),
        'H' => Piece::Number(Number::HeaderCount, radix()?),
        'p' => Piece::Number(Number::Partition, radix()?),
        'o' => Piece::Number(Number::Offset, radix()?),
        'e' => Piece::Number(Number::LeaderEpoch, radix()?),
        'x' => Piece::Number(Number::ProducerId, radix()?),
        'y' => Piece::Number(Number::ProducerEpoch, radix()?),
        'i' => Piece::Number(Number::Iteration, radix()?),
        '[' => Piece::Number(Number::LogStart, radix()?),
        '|' => Piece::Number(Number::LastStable, radix()?),
        ']' => Piece::Number(Number::HighWatermark, radix()?),
        'd' => Piece::Time(modifier.map_or(Ok(Time::Millis(Radix::Ascii)), Time::parse)?),
        'a' => {
            let modifier = modifier.ok_or_else(|| {
                FormatError("%a wants to know which attribute: %a{compression}, for example".into())
            })?;
            let (name, radix) = match modifier.split_once(';') {
                Some((name, radix)) => (name, Some(Radix::parse(radix)?)),
                None => (modifier, None),
            };
            Piece::Attribute(Attribute::parse(name)?, radix)
        }
        'h' => {
            let inner =
                modifier.ok_or_else(|| FormatError("%h wants the format of a header: %h{%k=%v }".into()))?;
            Piece::Headers(Format::parse_pieces(inner, true)?)
        }
        verb => return Err(FormatError(format!("there is no verb %{verb}"))),
    };
    Ok((piece, rest))
}

/// The text up to the brace that closes, and what follows it. `%{` and `%}` inside do not count.
fn take_braced(text: &str) -> Result<(&str, &str), FormatError> {
    let mut depth = 1;
    let mut escaped = false;
    for (position, character) in text.char_indices() {
        match character {
            '{' if !escaped => depth += 1,
            '}' if !escaped => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok((&text[..position], &text[position + 1..]));
        }
        escaped = character == '%' && !escaped;
    }
    Err(FormatError(format!("no }} closes {{{text}")))
}

/// What stands between any number of brackets, braces or # and their mirror image: the inside of `strftime[...]`.
fn take_wrapped(text: &str) -> Result<&str, FormatError> {
    let wrap = text.len() - text.trim_start_matches(['[', '{', '(', '#']).len();
    let inner = &text[wrap..];
    let closing: String = text[..wrap]
        .chars()
        .rev()
        .map(|open| match open {
            '[' => ']',
            '{' => '}',
            '(' => ')',
            other => other,
        })
        .collect();
    inner.strip_suffix(closing.as_str()).filter(|_| wrap > 0).ok_or_else(|| {
        FormatError(format!("write the layout in brackets, as in %d{{strftime[%F]}}, not {text:?}"))
    })
}

impl Subject<'_> {
    fn text(&self, text: Text) -> &[u8] {
        match text {
            Text::Topic => self.view.topic.as_bytes(),
            Text::Key => self.key.unwrap_or_default(),
            Text::Value => self.value.unwrap_or_default(),
        }
    }

    fn number(&self, number: Number) -> i64 {
        let batch = self.view.batch;
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as i64;
        match number {
            Number::TopicLength => self.view.topic.len() as i64,
            Number::KeyLength => length(self.key),
            Number::ValueLength => length(self.value),
            Number::HeaderCount => self.view.record.headers.len() as i64,
            Number::Partition => self.view.partition.into(),
            Number::Offset => self.view.record.offset.get(),
            Number::LeaderEpoch => batch.leader_epoch.map_or(-1, |epoch| epoch.get().into()),
            Number::ProducerId => batch.producer.map_or(-1, |producer| producer.id.get()),
            Number::ProducerEpoch => batch.producer.map_or(-1, |producer| producer.epoch.get().into()),
            Number::LogStart => self.view.log.start,
            Number::LastStable => self.view.log.last_stable,
            Number::HighWatermark => self.view.log.high_watermark,
            Number::Iteration => i64::try_from(self.iteration).unwrap_or(i64::MAX),
        }
    }
}

impl Encoding {
    pub(crate) fn parse(name: &str) -> Result<Self, FormatError> {
        match name {
            "hex" => Ok(Self::Hex),
            "base64" => Ok(Self::Base64),
            "base64raw" => Ok(Self::Base64Raw),
            _ if name.starts_with("unpack") => {
                Err(FormatError("unpack is not supported; hex and base64 are".into()))
            }
            _ => Err(FormatError(format!("text is written as hex, base64 or base64raw, not {name:?}"))),
        }
    }

    fn write(self, out: &mut Vec<u8>, bytes: &[u8]) {
        match self {
            Self::Plain => out.extend_from_slice(bytes),
            Self::Hex => {
                bytes.iter().for_each(|byte| out.extend_from_slice(format!("{byte:02x}").as_bytes()))
            }
            Self::Base64 => out.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
            Self::Base64Raw => out.extend_from_slice(STANDARD_NO_PAD.encode(bytes).as_bytes()),
        }
    }

    /// The bytes that [`Encoding::write`] turned into `text`; `None` if there are none.
    pub(crate) fn read(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Plain => Some(text.to_vec()),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64Raw => STANDARD_NO_PAD.decode(text).ok(),
            Self::Hex => {
                let (pairs, []) = text.as_chunks::<2>() else { return None };
                let byte = |pair: &[u8; 2]| {
                    let digits = pair.iter().all(u8::is_ascii_hexdigit).then_some(pair)?;
                    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
                };
                pairs.iter().map(byte).collect()
            }
        }
    }
}

impl Radix {
    fn parse(name: &str) -> Result<Self, FormatError> {
        Ok(match name {
            "ascii" | "number" => Self::Ascii,
            "hex" => Self::Hex(None),
            "hex64" => Self::Hex(Some(16)),
            "hex32" => Self::Hex(Some(8)),
            "hex16" => Self::Hex(Some(4)),
            "hex8" => Self::Hex(Some(2)),
            "hex4" => Self::Hex(Some(1)),
            "big64" => Self::Big(8),
            "big32" => Self::Big(4),
            "big16" => Self::Big(2),
            "little64" => Self::Little(8),
            "little32" => Self::Little(4),
            "little16" => Self::Little(2),
            "byte" | "big8" | "little8" => Self::Big(1),
            "bool" => Self::Bool,
            _ => {
                return Err(FormatError(format!(
                    "a number is written as ascii, hex, hex64 to hex4, big64 to big8, little64 to little8, byte or \
                     bool, not {name:?}"
                )));
            }
        })
    }

    fn write(self, out: &mut Vec<u8>, number: i64) {
        match self {
            Self::Ascii => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Hex(None) => out.extend_from_slice(format!("{number:x}").as_bytes()),
            Self::Hex(Some(digits)) => {
                let all = format!("{number:016x}");
                out.extend_from_slice(&all.as_bytes()[16 - digits..]);
            }
            Self::Big(bytes) => out.extend_from_slice(&number.to_be_bytes()[8 - bytes..]),
            Self::Little(bytes) => out.extend_from_slice(&number.to_le_bytes()[..bytes]),
            Self::Bool => out.extend_from_slice(if number == 0 { b"false" } else { b"true" }),
        }
    }
}

impl Time {
    fn parse(modifier: &str) -> Result<Self, FormatError> {
        if modifier == "rfc3339" {
            return Ok(Self::Rfc3339);
        }
        let layout = if let Some(wrapped) = modifier.strip_prefix("strftime") {
            take_wrapped(wrapped)?.to_owned()
        } else if let Some(wrapped) = modifier.strip_prefix("go") {
            go_layout::to_strftime(take_wrapped(wrapped)?)
        } else {
            return Radix::parse(modifier).map(Self::Millis);
        };
        // A layout that cannot be printed is found now and not at the first record.
        let epoch = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
        match jiff::fmt::strtime::format(&layout, &epoch) {
            Ok(_) => Ok(Self::Strftime(layout)),
            Err(error) => Err(FormatError(format!("the time layout {layout:?} makes no sense: {error}"))),
        }
    }

    fn write(&self, out: &mut Vec<u8>, timestamp: TimestampMs) {
        match (self, time::in_range(timestamp)) {
            (Self::Millis(radix), _) => radix.write(out, timestamp.0),
            (Self::Strftime(layout), Some(moment)) => {
                let text = moment.to_zoned(jiff::tz::TimeZone::UTC).strftime(layout).to_string();
                out.extend_from_slice(text.as_bytes());
            }
            _ => out.extend_from_slice(time::readable(timestamp).as_bytes()),
        }
    }
}

impl Attribute {
    fn parse(name: &str) -> Result<Self, FormatError> {
        Ok(match name {
            "compression" => Self::Compression,
            "timestamp-type" => Self::TimestampType,
            "transactional-bit" => Self::Transactional,
            "control-bit" => Self::Control,
            _ => {
                return Err(FormatError(format!(
                    "attributes are compression, timestamp-type, transactional-bit and control-bit, not {name:?}"
                )));
            }
        })
    }

    fn write(self, out: &mut Vec<u8>, view: &RecordView<'_>, radix: Option<Radix>) {
        let attributes = view.batch.attributes;
        let number = match self {
            Self::Compression => match (radix, attributes.codec()) {
                (None, Some(codec)) => return out.extend_from_slice(codec.to_string().as_bytes()),
                _ => attributes.codec_number().into(),
            },
            Self::TimestampType => i64::from(attributes.timestamp_type() == TimestampType::LogAppendTime),
            Self::Transactional => attributes.is_transactional().into(),
            Self::Control => attributes.is_control().into(),
        };
        radix.unwrap_or(Radix::Ascii).write(out, number);
    }
}

#[cfg(test)]
mod tests {
    use highwater_record::{
        Batch, BatchBuilder, Codec, LeaderEpoch, NewRecord, Offset, Producer, ProducerEpoch, ProducerId,
        Sequence,
    };

    use super::*;
    use crate::record_view::LogState;

    /// What `format` prints of a record with key `k1`, value `v\xff`, headers `a=1` and `b` without a value.
    fn printed(format: &str) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::Gzip)
            .base_offset(Offset::new(258).unwrap())
            .leader_epoch(LeaderEpoch::new(4).unwrap())
            .producer(Producer {
                id: ProducerId::new(9).unwrap(),
                epoch: ProducerEpoch::new(2).unwrap(),
                base_sequence: Some(Sequence::ZERO),
            });
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"a", Some(b"1")), (b"b", None)];
        let timestamp = TimestampMs(1_644_796_801_250);
        let record = NewRecord { timestamp, key: Some(b"k1"), value: Some(b"v\xff"), headers };
        builder.append(&record).unwrap();
        let batch = Batch::new(builder.build().unwrap()).unwrap();
        let limits = highwater_record::DecodeLimits { bytes_max: 1 << 20, ratio_max: 1000 };
        let records = batch.decompress(limits).unwrap();
        let record = records.records().next().unwrap().unwrap();
        let log = LogState { start: 3, last_stable: 300, high_watermark: 301 };
        let view = RecordView {
            topic: "foo",
            partition: 7,
            record: &record,
            batch: batch.header(),
            log,
            decoded: None,
        };
        let mut out = Vec::new();
        Format::parse(format).unwrap().write(&mut out, &view, 1);
        out
    }

    #[track_caller]
    fn check(format: &str, expected: impl AsRef<[u8]>) {
        assert_eq!(printed(format).escape_ascii().to_string(), expected.as_ref().escape_ascii().to_string());
    }

    #[test]
    fn every_verb_prints_its_field() {
        check("%t/%p@%o %k=%v\n", b"foo/7@258 k1=v\xff\n");
        check("%T %K %V %H %e %x %y %i", "3 2 2 2 4 9 2 1");
        check("%[ %| %]", "3 300 301");
        check("%d", "1644796801250");
        check("%h{%k=%v;}", "a=1;b=;");
        check("%h{ %K%{%V%} }", " 1{1}  1{0} ");
    }

    #[test]
    fn the_examples_of_rpk_run_unchanged() {
        check("%k %v\\n", b"k1 v\xff\n");
        check("%K{big32}%k{hex}", b"\0\0\0\x026b31");
        check("%T %t{hex}", "3 666f6f");
        check("%h{ %k=%v{hex} }", " a=31  b= ");
        check("%d{go[2006-01-02T15:04:05Z07:00]}", "2022-02-14T00:00:01Z");
        check("%d{strftime[%F]}", "2022-02-14");
        check("%d{strftime### [%F] ###}", " [2022-02-14] ");
        check("%a{compression} %a{compression;number} %a{compression;hex8}", "gzip 1 01");
        check("%a{timestamp-type} %a{transactional-bit;bool} %a{control-bit}", "0 false 0");
    }

    #[test]
    fn text_and_numbers_have_modifiers() {
        check("%v{hex} %v{base64} %v{base64raw}", "76ff dv8= dv8");
        check("%o{hex} %o{hex16} %o{hex8} %o{hex4} %o{hex64}", "102 0102 02 2 0000000000000102");
        check("%o{big16}%o{little32}%o{byte}%o{bool}", b"\x01\x02\x02\x01\0\0\x02true");
        check("%d{hex} %d{rfc3339}", format!("{:x} 2022-02-14T00:00:01.250Z", 1_644_796_801_250_i64));
    }

    #[test]
    fn escapes_are_bytes() {
        check("\\t\\r\\n\\\\\\x00\\xfe%%%{%}", b"\t\r\n\\\x00\xfe%{}");
        check("grün", "grün");
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (format, reason) in [
            ("%", "ends after %"),
            ("%z", "no verb %z"),
            ("%v{hex", "no } closes"),
            ("%v{zip}", "hex, base64 or base64raw"),
            ("%o{zip}", "a number is written as"),
            ("%v{unpack[>I]}", "unpack is not supported"),
            ("%h", "wants the format of a header"),
            ("%h{%p}", "not %p"),
            ("%a", "which attribute"),
            ("%a{size}", "attributes are"),
            ("%d{strftime}", "in brackets"),
            ("%d{strftime[%F}", "in brackets"),
            ("%d{strftime[%!]}", "makes no sense"),
            ("\\q", "after \\"),
            ("\\x0", "two hexadecimal digits"),
            ("\\x+1", "two hexadecimal digits"),
            ("json", "--output jsonl"),
        ] {
            let error = Format::parse(format).unwrap_err().to_string();
            assert!(error.contains(reason), "{format:?}: {error}");
        }
    }

    #[test]
    fn encoded_text_reads_back() {
        for encoding in [Encoding::Plain, Encoding::Hex, Encoding::Base64, Encoding::Base64Raw] {
            let mut text = Vec::new();
            encoding.write(&mut text, b"\x00a\xff");
            assert_eq!(encoding.read(&text).as_deref(), Some(&b"\x00a\xff"[..]), "{encoding:?}");
        }
        assert_eq!(Encoding::Hex.read(b"+1"), None);
        assert_eq!(Encoding::Hex.read(b"123"), None);
    }
}
