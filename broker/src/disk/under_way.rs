//! Which writes and syncs are under way, and since when.
//!
//! A fixed number of places and no lock: whoever finds none goes unnoted, among sixty-four that are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PLACES: usize = 64;
/// Nobody is there.
const FREE: u64 = 0;

/// What waits for the disk.
pub(crate) struct UnderWay {
    origin: Instant,
    /// When each began, in milliseconds since a second before the origin, which is never [`FREE`].
    began_ms: [AtomicU64; PLACES],
}

/// Something is under way until this is dropped.
pub(crate) struct Waiting<'a>(Option<&'a AtomicU64>);

impl Default for UnderWay {
    fn default() -> Self {
        Self { origin: Instant::now(), began_ms: [const { AtomicU64::new(FREE) }; PLACES] }
    }
}

impl UnderWay {
    /// Something begins at `now`.
    pub(crate) fn begin(&self, now: Instant) -> Waiting<'_> {
        let began = self.ms(now);
        let take = |place: &&AtomicU64| {
            place.load(Ordering::Relaxed) == FREE
                && place.compare_exchange(FREE, began, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        Waiting(self.began_ms.iter().find(take))
    }

    /// How long the oldest has been under way at `now`.
    pub(super) fn oldest(&self, now: Instant) -> Option<Duration> {
        let began = self.began_ms.iter().map(|place| place.load(Ordering::Relaxed));
        let oldest = began.filter(|began| *began != FREE).min()?;
        Some(Duration::from_millis(self.ms(now).saturating_sub(oldest)))
    }

    fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin) + Duration::from_secs(1);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            place.store(FREE, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_until_it_ends() {
        let (under_way, now) = (UnderWay::default(), Instant::now());
        assert_eq!(under_way.oldest(now), None);

        let older = under_way.begin(now);
        let younger = under_way.begin(now + Duration::from_secs(2));

        let later = now + Duration::from_secs(5);
        assert_eq!(under_way.oldest(later), Some(Duration::from_secs(5)));
        drop(older);
        assert_eq!(under_way.oldest(later), Some(Duration::from_secs(3)));
        drop(younger);
        assert_eq!(under_way.oldest(later), None);
    }

    #[test]
    fn more_than_there_are_places_for_do_no_harm() {
        let (under_way, now) = (UnderWay::default(), Instant::now());

        let crowd: Vec<_> = (0..=PLACES).map(|_| under_way.begin(now)).collect();
        assert_eq!(under_way.oldest(now), Some(Duration::ZERO));
        drop(crowd);

        assert_eq!(under_way.oldest(now), None);
    }
}
