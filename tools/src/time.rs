//! Times as people and programs write them: RFC 3339, days, Unix seconds and milliseconds, durations.
//!
//! A time without a zone is UTC.

use std::time::Duration;

use highwater_record::TimestampMs;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// RFC 3339 in UTC with milliseconds; `None` before 1970 and after 9999, where it would not read back everywhere.
pub(crate) fn rfc3339(timestamp: TimestampMs) -> Option<String> {
    let moment = in_range(timestamp)?;
    Some(format!("{moment:.3}"))
}

/// The moment of a timestamp that RFC 3339 can write.
pub(crate) fn in_range(timestamp: TimestampMs) -> Option<Timestamp> {
    Timestamp::from_millisecond(timestamp.0).ok().filter(|_| timestamp.0 >= 0)
}

/// RFC 3339 in UTC, or the number.
pub(crate) fn readable(timestamp: TimestampMs) -> String {
    rfc3339(timestamp).unwrap_or_else(|| timestamp.to_string())
}

/// The present.
pub(crate) fn now() -> TimestampMs {
    TimestampMs(Timestamp::now().as_millisecond())
}

/// A moment: 13 digits are milliseconds, 9 or 10 are seconds, else a day or a time of RFC 3339, down to the minute and
/// without a zone if need be.
pub(crate) fn parse_moment(text: &str) -> Option<TimestampMs> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        return match text.len() {
            13 => Some(TimestampMs(number)),
            9 | 10 => Some(TimestampMs(number * 1000)),
            _ => None,
        };
    }
    // Only what starts like a date: a bare time of day would mean another day tomorrow.
    let is_dated = text.len() >= 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    if !is_dated {
        return None;
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(TimestampMs(moment.as_millisecond()));
    }
    let utc = |zoned: Zoned| TimestampMs(zoned.timestamp().as_millisecond());
    if text.len() == 10 {
        return text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(utc);
    }
    let local = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    // RFC 3339 wants seconds; people leave them out.
    let local = if local.len() == 16 { format!("{local}:00") } else { local.to_owned() };
    if !local.is_ascii() || local.len() < 19 || local[11..].contains(['+', '-']) {
        return None;
    }
    local.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(utc)
}

/// A duration such as `90s`, `1h`, `1m3ms` or `2d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |position| digits + position);
        let millis = match &rest[digits..unit_end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" | "hr" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_rpk_reads_them_and_a_little_more() {
        let ms = |text| parse_moment(text).map(|timestamp| timestamp.0);

        assert_eq!(ms("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(ms("1700000000"), Some(1_700_000_000_000));
        assert_eq!(ms("2022-02-14"), Some(1_644_796_800_000));
        assert_eq!(ms("2022-02-14T00:00:01Z"), Some(1_644_796_801_000));
        assert_eq!(ms("2022-02-14T00:00:01.250Z"), Some(1_644_796_801_250));
        assert_eq!(ms("2022-02-14T01:00Z"), Some(1_644_800_400_000));
        assert_eq!(ms("2022-02-14T01:00"), Some(1_644_800_400_000));
        assert_eq!(ms("2022-02-14T01:00:00+01:00"), Some(1_644_796_800_000));
        for text in ["", "12", "10:00", "2022-02", "2022-13-01", "2022-02-14T", "soon", "2022-02-14T25:00Z"] {
            assert_eq!(ms(text), None, "{text:?}");
        }
    }

    #[test]
    fn durations_add_up() {
        let ms = |text| parse_duration(text).map(|duration| duration.as_millis());

        assert_eq!(ms("3ms"), Some(3));
        assert_eq!(ms("1m3ms"), Some(60_003));
        assert_eq!(ms("1h"), Some(3_600_000));
        assert_eq!(ms("1hr"), Some(3_600_000));
        assert_eq!(ms("2d"), Some(172_800_000));
        for text in ["", "1", "h", "1x", "-1h", "99999999999999999999h"] {
            assert_eq!(ms(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_are_written_with_milliseconds() {
        assert_eq!(readable(TimestampMs(1_644_796_801_000)), "2022-02-14T00:00:01.000Z");
        assert_eq!(readable(TimestampMs(-1)), "-1");
        assert_eq!(readable(TimestampMs(i64::MAX)), i64::MAX.to_string());
        for timestamp in [0, 1, 253_370_764_800_000] {
            let text = rfc3339(TimestampMs(timestamp)).unwrap();
            assert_eq!(parse_moment(&text), Some(TimestampMs(timestamp)), "{text}");
        }
    }
}
