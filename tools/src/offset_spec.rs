//! Where to start and where to stop: the grammar of `-o`.
//!
//! It is rpk's, with kcat's words accepted beside it, and with one addition, the cursor that an interrupted command
//! prints: `p0:812,p1:790:1000` starts partition 0 at 812, and partition 1 at 790 to stop before 1000.
//!
//! Parsing takes the present as an argument and knows no log; `resolve` turns a specification into offsets.

use std::collections::BTreeMap;
use std::fmt;

use highwater_record::{Offset, PartitionId, TimestampMs};

use crate::time::{parse_duration, parse_moment};

/// What `-o` says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum OffsetSpec {
    /// The same for every partition.
    Range {
        /// The first record.
        start: Start,
        /// The first record that is not wanted any more.
        stop: Stop,
    },
    /// Start and stop by partition. Partitions that are not named start at their beginning.
    Cursor(BTreeMap<PartitionId, (Offset, Option<Offset>)>),
}

/// Where to start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// At the first record.
    Beginning,
    /// After the last record.
    End,
    /// So many offsets after the first.
    AfterBeginning(u64),
    /// So many offsets before the end.
    BeforeEnd(u64),
    /// At an offset.
    At(Offset),
    /// At the first record with this timestamp or a later one.
    Time(TimestampMs),
}

/// Where to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    /// Nowhere.
    Never,
    /// At the end that there is now.
    End,
    /// Before an offset.
    At(Offset),
    /// Before the first record with this timestamp or a later one.
    Time(TimestampMs),
}

/// Text that is not an offset, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OffsetSpecError {
    text: String,
    reason: String,
}

impl fmt::Display for OffsetSpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an offset: {}\n  for example: start, end, 47, -10, +5, 100:200, :end, @-1h, \
             @2026-11-20T10:00Z, @-2h:-1h",
            self.text, self.reason
        )
    }
}

impl std::error::Error for OffsetSpecError {}

/// A point in time of `@`: a moment, or a distance from another one.
#[derive(Clone, Copy)]
enum Point {
    Moment(TimestampMs),
    Distance(i64),
}

impl OffsetSpec {
    /// From the beginning, for ever.
    pub(crate) const BEGINNING: Self = Self::Range { start: Start::Beginning, stop: Stop::Never };

    /// Reads the values of all `-o`: one, or kcat's pair `s@START e@END`.
    pub(crate) fn parse_all(texts: &[String], now: TimestampMs) -> Result<Self, OffsetSpecError> {
        match texts {
            [] => Ok(Self::BEGINNING),
            [text] => Self::parse(text, now),
            texts => {
                let (mut start, mut stop) = (Start::Beginning, Stop::Never);
                for text in texts {
                    match Self::parse(text, now)? {
                        Self::Range { start: from, .. } if text.starts_with("s@") => start = from,
                        Self::Range { stop: to, .. } if text.starts_with("e@") => stop = to,
                        _ => return Err(fail(text, "only s@TIME and e@TIME can stand together")),
                    }
                }
                Ok(Self::Range { start, stop })
            }
        }
    }

    /// Reads one specification.
    pub(crate) fn parse(text: &str, now: TimestampMs) -> Result<Self, OffsetSpecError> {
        if let Some(times) = text.strip_prefix('@') {
            return parse_times(times, now).map_err(|reason| fail(text, reason));
        }
        if let Some(time) = text.strip_prefix("s@") {
            let moment = parse_moment_or_ms(time).ok_or_else(|| fail(text, "s@ wants a time"))?;
            return Ok(Self::Range { start: Start::Time(moment), stop: Stop::Never });
        }
        if let Some(time) = text.strip_prefix("e@") {
            let moment = parse_moment_or_ms(time).ok_or_else(|| fail(text, "e@ wants a time"))?;
            return Ok(Self::Range { start: Start::Beginning, stop: Stop::Time(moment) });
        }
        if text.starts_with('p') {
            return parse_cursor(text).map_err(|reason| fail(text, reason));
        }
        parse_range(text).map_err(|reason| fail(text, reason))
    }
}

fn fail(text: &str, reason: impl Into<String>) -> OffsetSpecError {
    OffsetSpecError { text: text.to_owned(), reason: reason.into() }
}

fn parse_range(text: &str) -> Result<OffsetSpec, String> {
    if let Some(start) = parse_start(text) {
        return Ok(OffsetSpec::Range { start: start?, stop: Stop::Never });
    }
    // rpk also takes N-M.
    let (from, to) = text
        .split_once(':')
        .or_else(|| text.split_once('-').filter(|(from, _)| !from.is_empty()))
        .filter(|halves| *halves != ("", ""))
        .ok_or_else(|| "it is neither a word nor a number".to_owned())?;
    let start = match from {
        "" => Start::Beginning,
        _ => parse_start(from).ok_or_else(|| format!("{from:?} is no start"))??,
    };
    let stop = match to {
        "" => Stop::Never,
        "end" => Stop::End,
        _ => Stop::At(parse_offset(to).ok_or_else(|| format!("{to:?} is no end"))?),
    };
    if let (Start::At(from), Stop::At(to)) = (start, stop)
        && to <= from
    {
        return Err(format!("the end {to} is not after the start {from}"));
    }
    Ok(OffsetSpec::Range { start, stop })
}

/// `None` if the text is no start at all, an error if it is one that cannot be used.
fn parse_start(text: &str) -> Option<Result<Start, String>> {
    Some(Ok(match text {
        "start" | "beginning" | "earliest" | "oldest" => Start::Beginning,
        "end" | "latest" | "newest" => Start::End,
        "stored" => {
            return Some(Err("stored offsets belong to consumer groups, which are not supported".into()));
        }
        _ => match text.split_at_checked(1)? {
            ("+", count) => Start::AfterBeginning(count.parse().ok()?),
            ("-", count) => Start::BeforeEnd(count.parse().ok()?),
            _ => Start::At(parse_offset(text)?),
        },
    }))
}

fn parse_offset(text: &str) -> Option<Offset> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok().and_then(Offset::new))?
}

fn parse_cursor(text: &str) -> Result<OffsetSpec, String> {
    let mut cursor = BTreeMap::new();
    for part in text.split(',') {
        let mut fields = part.strip_prefix('p').unwrap_or("").split(':');
        let partition = fields.next().and_then(|field| field.parse().ok()).and_then(PartitionId::new);
        let start = fields.next().and_then(parse_offset);
        let stop = fields.next().map(|field| parse_offset(field).ok_or(field));
        let (Some(partition), Some(start), None) = (partition, start, fields.next()) else {
            return Err(format!("{part:?} is not pPARTITION:OFFSET or pPARTITION:OFFSET:END"));
        };
        let stop = stop.transpose().map_err(|field| format!("{field:?} is no end"))?;
        if cursor.insert(partition, (start, stop)).is_some() {
            return Err(format!("partition {partition} is named twice"));
        }
    }
    Ok(OffsetSpec::Cursor(cursor))
}

/// The part after `@`: `T`, `T:`, `:T` or `T1:T2`. Times have colons of their own, so the split that leaves a time on
/// both sides counts; the longest time wins.
fn parse_times(text: &str, now: TimestampMs) -> Result<OffsetSpec, String> {
    if let Some(to) = text.strip_prefix(':') {
        let stop = parse_stop(to, now)?;
        return Ok(OffsetSpec::Range { start: Start::Beginning, stop });
    }
    if let Some(point) = parse_point(text.strip_suffix(':').unwrap_or(text)) {
        let start = Start::Time(point.from(now));
        return Ok(OffsetSpec::Range { start, stop: Stop::Never });
    }
    for (colon, _) in text.rmatch_indices(':') {
        let (from, to) = (&text[..colon], &text[colon + 1..]);
        let Some(from) = parse_point(from) else { continue };
        let start = from.from(now);
        // A distance after a moment counts from that moment, after a distance from now.
        let base = if matches!(from, Point::Moment(_)) { start } else { now };
        let stop = parse_stop(to, base)?;
        if let Stop::Time(end) = stop
            && end <= start
        {
            return Err(format!(
                "the end {} is not after the start {}",
                crate::time::readable(end),
                crate::time::readable(start)
            ));
        }
        return Ok(OffsetSpec::Range { start: Start::Time(start), stop });
    }
    Err("after @ comes a time, a day, Unix seconds or milliseconds, or a duration such as -1h".into())
}

fn parse_stop(text: &str, base: TimestampMs) -> Result<Stop, String> {
    if text == "end" {
        return Ok(Stop::End);
    }
    let text = text.strip_prefix('@').unwrap_or(text);
    let point = parse_point(text).ok_or_else(|| format!("{text:?} is no time and no duration"))?;
    Ok(Stop::Time(point.from(base)))
}

fn parse_point(text: &str) -> Option<Point> {
    if let Some(moment) = parse_moment(text) {
        return Some(Point::Moment(moment));
    }
    let (sign, duration) = match text.split_at_checked(1)? {
        ("-", duration) => (-1, duration),
        ("+", duration) => (1, duration),
        _ => (1, text),
    };
    let millis = i64::try_from(parse_duration(duration)?.as_millis()).ok()?;
    Some(Point::Distance(sign * millis))
}

/// kcat gives milliseconds of any length.
fn parse_moment_or_ms(text: &str) -> Option<TimestampMs> {
    parse_moment(text).or_else(|| text.parse().ok().map(TimestampMs))
}

impl Point {
    const fn from(self, base: TimestampMs) -> TimestampMs {
        match self {
            Self::Moment(moment) => moment,
            Self::Distance(distance) => TimestampMs(base.0.saturating_add(distance)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampMs = TimestampMs(1_800_000_000_000);
    const HOUR: i64 = 3_600_000;

    #[track_caller]
    fn check(text: &str, start: Start, stop: Stop) {
        assert_eq!(OffsetSpec::parse(text, NOW), Ok(OffsetSpec::Range { start, stop }), "{text:?}");
    }

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    fn ago(millis: i64) -> TimestampMs {
        TimestampMs(NOW.0 - millis)
    }

    #[test]
    fn the_offsets_of_rpk() {
        check("start", Start::Beginning, Stop::Never);
        check("oldest", Start::Beginning, Stop::Never);
        check("end", Start::End, Stop::Never);
        check("newest", Start::End, Stop::Never);
        check(":end", Start::Beginning, Stop::End);
        check("+5", Start::AfterBeginning(5), Stop::Never);
        check("-10", Start::BeforeEnd(10), Stop::Never);
        check("47", Start::At(at(47)), Stop::Never);
        check("47:", Start::At(at(47)), Stop::Never);
        check(":47", Start::Beginning, Stop::At(at(47)));
        check("10:20", Start::At(at(10)), Stop::At(at(20)));
        check("10-20", Start::At(at(10)), Stop::At(at(20)));
        check("10:end", Start::At(at(10)), Stop::End);
        check("-10:end", Start::BeforeEnd(10), Stop::End);
    }

    #[test]
    fn the_words_of_kcat() {
        check("beginning", Start::Beginning, Stop::Never);
        check("s@1700000000000", Start::Time(TimestampMs(1_700_000_000_000)), Stop::Never);
        check("e@5", Start::Beginning, Stop::Time(TimestampMs(5)));
        let pair = ["s@1700000000000".to_owned(), "e@1700000000001".to_owned()];
        let start = Start::Time(TimestampMs(1_700_000_000_000));
        let stop = Stop::Time(TimestampMs(1_700_000_000_001));
        assert_eq!(OffsetSpec::parse_all(&pair, NOW), Ok(OffsetSpec::Range { start, stop }));
    }

    #[test]
    fn the_times_of_rpk() {
        let valentine = TimestampMs(1_644_796_800_000);
        let later = |millis| Stop::Time(TimestampMs(valentine.0 + millis));

        check("@-1h", Start::Time(ago(HOUR)), Stop::Never);
        check("@-1h:", Start::Time(ago(HOUR)), Stop::Never);
        check("@1644796800", Start::Time(valentine), Stop::Never);
        check("@2022-02-14:1h", Start::Time(valentine), later(HOUR));
        check("@-48h:-24h", Start::Time(ago(48 * HOUR)), Stop::Time(ago(24 * HOUR)));
        check("@-1m:end", Start::Time(ago(60_000)), Stop::End);
        check("@:-1hr", Start::Beginning, Stop::Time(ago(HOUR)));
        check("@2022-02-14T00:00:00Z:2022-02-14T01:00:00.5Z", Start::Time(valentine), later(HOUR + 500));
        check("@1644796800000:1644796800001", Start::Time(valentine), later(1));
    }

    #[test]
    fn times_may_be_shorter_than_rpks() {
        let ten = TimestampMs(1_644_832_800_000);

        check("@2022-02-14T10:00Z", Start::Time(ten), Stop::Never);
        check("@2022-02-14T10:00:@+5m", Start::Time(ten), Stop::Time(TimestampMs(ten.0 + 300_000)));
        check("@2022-02-14T10:00:00", Start::Time(ten), Stop::Never);
    }

    #[test]
    fn a_cursor_names_partitions() {
        let cursor = BTreeMap::from([
            (PartitionId::ZERO, (at(812), None)),
            (PartitionId::new(1).unwrap(), (at(790), Some(at(1000)))),
        ]);

        assert_eq!(OffsetSpec::parse("p0:812,p1:790:1000", NOW), Ok(OffsetSpec::Cursor(cursor)));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (text, reason) in [
            ("", "neither a word nor a number"),
            ("soon", "neither a word nor a number"),
            ("20:10", "the end 10 is not after the start 20"),
            ("5:5", "the end 5 is not after the start 5"),
            ("1:x", "\"x\" is no end"),
            ("-", "neither a word nor a number"),
            (":", "neither a word nor a number"),
            ("x:1", "\"x\" is no start"),
            ("@", "after @ comes a time"),
            ("@end", "after @ comes a time"),
            ("@-1h:-2h", "is not after the start"),
            ("@2022-02-14:soon", "\"soon\" is no time and no duration"),
            ("stored", "consumer groups"),
            ("p0", "pPARTITION:OFFSET"),
            ("p0:1,p0:2", "named twice"),
            ("99999999999999999999", "neither a word nor a number"),
        ] {
            let error = OffsetSpec::parse(text, NOW).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
