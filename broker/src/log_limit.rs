//! At most so many log lines a second about what strangers do: a storm of them must not become a storm of lines.
//!
//! One limit for all of them: what matters is how much is written.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines in each second.
const LINES_MAX: u32 = 10;

static STRANGERS: LazyLock<LogLimit> = LazyLock::new(LogLimit::default);

/// Writes a line about a stranger, unless there are too many of them. `line` is told how many were left out before.
pub(crate) fn note(line: impl FnOnce(u64)) {
    if let Some(dropped) = STRANGERS.admit(Instant::now()) {
        line(dropped);
    }
}

/// Counts lines.
#[derive(Default)]
struct LogLimit {
    second: Mutex<Option<(Instant, u32)>>,
    dropped: AtomicU64,
}

impl LogLimit {
    /// Whether a line may be written at `now`, and how many were dropped since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut second = self.second.lock();
        match &mut *second {
            Some((began, lines)) if now.saturating_duration_since(*began) < Duration::from_secs(1) => {
                if *lines == LINES_MAX {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                *lines += 1;
            }
            stale => *stale = Some((now, 1)),
        }
        drop(second);
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_are_written_and_the_next_one_says_how_many_were_not() {
        let limit = LogLimit::default();
        let began = Instant::now();

        let written = (0..100).filter(|_| limit.admit(began) == Some(0)).count();

        assert_eq!(written, 10);
        assert_eq!(limit.admit(began + Duration::from_millis(999)), None);
        assert_eq!(limit.admit(began + Duration::from_secs(1)), Some(91));
        assert_eq!(limit.admit(began + Duration::from_secs(1)), Some(0));
    }
}
