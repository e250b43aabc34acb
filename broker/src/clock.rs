//! The one place that reads the wall clock; below it, time is an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use highwater_record::TimestampMs;

/// The time now. A clock set before 1970 reads as 0.
pub(crate) fn now() -> TimestampMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
