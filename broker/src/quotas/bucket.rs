//! Buckets: what is left of a rate.
//!
//! A bucket holds one second's worth at most and may be overdrawn without end: who takes more than there is waits until
//! the rate has made up for it. A bucket that is full again is as good as none, so that their number stays bounded though
//! client ids come from strangers; those for whom there is no room share one. A bucket is found by a hash of whose it is
//! and of its rate: it costs the same however long the client's name is, and who gets another rate gets another bucket.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Buckets that are kept apart.
const BUCKETS_MAX: usize = 10_000;
/// A client that has to wait waits at least this long: the protocol counts in milliseconds.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Who shares a bucket.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Scope<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) client_id: Option<&'a str>,
}

/// The buckets of one direction.
#[derive(Default)]
pub(crate) struct Buckets {
    /// Keyed, so that nobody can choose a name that shares the bucket of another.
    hasher: RandomState,
    by_hash: HashMap<u64, Bucket>,
    /// When full buckets were looked for last, so that a crowd does not make each request look again.
    pruned: Option<Instant>,
}

struct Bucket {
    /// When it is, or was, full. Later than now by what has been taken out.
    full_at: Instant,
}

impl Buckets {
    /// Takes `bytes` at `now` from the bucket that fills with `rate` bytes a second. How long to wait until it is no
    /// longer overdrawn, if it is.
    pub(crate) fn charge(
        &mut self,
        scope: Scope<'_>,
        rate: u64,
        bytes: u64,
        now: Instant,
    ) -> Option<Duration> {
        let hash = self.hasher.hash_one((scope, rate));
        let hash =
            if self.has_room_for(hash, now) { hash } else { self.hasher.hash_one((Scope::default(), rate)) };
        let bucket = self.by_hash.entry(hash).or_insert(Bucket { full_at: now });
        bucket.full_at = bucket.full_at.max(now) + time_for(bytes, rate);
        let missing = bucket.full_at - now;
        let overdrawn = missing.checked_sub(Duration::from_secs(1)).filter(|wait| !wait.is_zero());
        overdrawn.map(|wait| wait.max(WAIT_MIN))
    }

    /// Whether there is such a bucket or may be one more.
    fn has_room_for(&mut self, hash: u64, now: Instant) -> bool {
        if self.by_hash.len() < BUCKETS_MAX || self.by_hash.contains_key(&hash) {
            return true;
        }
        if self.pruned.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(1)) {
            self.by_hash.retain(|_, bucket| bucket.full_at > now);
            self.pruned = Some(now);
        }
        self.by_hash.len() < BUCKETS_MAX
    }
}

/// How long the rate takes for so many bytes; a year at most.
fn time_for(bytes: u64, rate: u64) -> Duration {
    const YEAR_NANOS: u128 = 365 * 24 * 3600 * 1_000_000_000;
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos.min(YEAR_NANOS)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: &str) -> Scope<'_> {
        Scope { user: None, client_id: Some(name) }
    }

    #[test]
    fn ten_times_the_rate_for_half_a_minute_comes_to_the_rate() {
        let (rate, request) = (1_000_000, 100_000);
        let mut buckets = Buckets::default();
        let began = Instant::now();
        let (mut now, mut sent) = (began, 0);

        while now < began + Duration::from_secs(30) {
            sent += request;
            // Sending takes a hundredth of a second, which is ten times the rate.
            now += Duration::from_millis(10);
            now += buckets.charge(scope("web"), rate, request, now).unwrap_or_default();
        }

        let share = sent as f64 / (30 * rate) as f64;
        assert!((0.9..=1.1).contains(&share), "{share} of the quota was used");
    }

    #[test]
    fn a_second_of_the_rate_is_free_and_the_rest_is_waited_for() {
        let mut buckets = Buckets::default();
        let now = Instant::now();

        assert_eq!(buckets.charge(scope("web"), 1000, 1000, now), None);
        assert_eq!(buckets.charge(scope("web"), 1000, 1, now), Some(Duration::from_millis(1)));
        assert_eq!(buckets.charge(scope("web"), 1000, 2499, now), Some(Duration::from_millis(2500)));
        let later = now + Duration::from_secs(2);
        assert_eq!(buckets.charge(scope("web"), 1000, 0, later), Some(Duration::from_millis(500)));

        assert_eq!(buckets.charge(scope("web"), 1000, 1000, later + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_crowd_of_strangers_shares_what_there_is_no_room_for() {
        let mut buckets = Buckets::default();
        let now = Instant::now();
        for number in 0..BUCKETS_MAX + 100 {
            buckets.charge(scope(&number.to_string()), 10, 20, now);
        }
        assert_eq!(buckets.by_hash.len(), BUCKETS_MAX + 1);

        let later = now + Duration::from_secs(3600);
        assert_eq!(buckets.charge(scope("late"), 10, 10, later), None);

        assert_eq!(buckets.by_hash.len(), 1);
    }

    #[test]
    fn names_of_any_length_are_told_apart() {
        let mut buckets = Buckets::default();
        let now = Instant::now();
        let (one, other) = (format!("{}1", "x".repeat(32_000)), format!("{}2", "x".repeat(32_000)));

        assert!(buckets.charge(scope(&one), 10, 20, now).is_some());

        assert_eq!(buckets.charge(scope(&other), 10, 10, now), None);
        assert_eq!(buckets.charge(Scope { user: Some(&other), client_id: None }, 10, 10, now), None);
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let mut buckets = Buckets::default();

        for _ in 0..3 {
            assert!(buckets.charge(scope("web"), 1, u64::MAX, Instant::now()).is_some());
        }
    }
}
