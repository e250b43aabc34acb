//! Names of topics that were deleted a short while ago: nobody brings them back by merely asking for them.
//!
//! A consumer that nobody stopped asks for its topic again and again, and with auto-creation on it would make the topic
//! anew right after every deletion. So a name that was deleted rests: for a grace time that starts anew whenever
//! somebody asks for it. Creating the topic explicitly works at once. The metadata store remembers the names over a
//! restart, after which all of them rest for a whole grace time again, since nobody could ask in between. Time is an
//! argument; knows no store.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use highwater_record::TopicName;
use parking_lot::Mutex;

/// How long a name rests after its topic was deleted, or asked for last.
const GRACE: Duration = Duration::from_secs(60);
/// How many names rest at most; beyond, the one that would rise first gives way.
const NAMES_MAX: usize = 10_000;

/// The names that rest.
#[derive(Default)]
pub(crate) struct Graves {
    by_name: Mutex<HashMap<TopicName, Grave>>,
}

struct Grave {
    rests_until: Instant,
    /// Whether somebody asked, which is said once.
    disturbed: bool,
}

impl Graves {
    /// Lets a name rest. The name that gives way to it, if there are too many.
    pub(crate) fn dig(&self, name: TopicName, now: Instant) -> Option<TopicName> {
        let mut by_name = self.by_name.lock();
        by_name.insert(name, Grave { rests_until: now + GRACE, disturbed: false });
        if by_name.len() <= NAMES_MAX {
            return None;
        }
        let first = by_name.iter().min_by_key(|(_, grave)| grave.rests_until)?.0.clone();
        by_name.remove(&first);
        Some(first)
    }

    /// Whether somebody who asks for a topic of that name may not have it created. If so, the name rests longer.
    pub(crate) fn refuses(&self, name: &TopicName, now: Instant) -> bool {
        let mut by_name = self.by_name.lock();
        let Some(grave) = by_name.get_mut(name).filter(|grave| now < grave.rests_until) else { return false };
        grave.rests_until = now + GRACE;
        if !std::mem::replace(&mut grave.disturbed, true) {
            tracing::warn!(
                topic = %name,
                "a client asks for a topic that was deleted; it is not created by that until nobody has asked for {} s, \
                 unless somebody creates it explicitly",
                GRACE.as_secs()
            );
        }
        true
    }

    /// Ends the rest of a name, because its topic was created.
    pub(crate) fn open(&self, name: &TopicName) {
        self.by_name.lock().remove(name);
    }

    /// Whether any name has rested long enough.
    pub(crate) fn is_any_over(&self, now: Instant) -> bool {
        self.by_name.lock().values().any(|grave| grave.rests_until <= now)
    }

    /// Takes out the names that have rested long enough.
    pub(crate) fn take_over(&self, now: Instant) -> Vec<TopicName> {
        self.by_name.lock().extract_if(|_, grave| grave.rests_until <= now).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that rest, and their clock in seconds.
    struct Played {
        graves: Graves,
        start: Instant,
    }

    impl Played {
        fn new() -> Self {
            Self { graves: Graves::default(), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn dig(&self, topic: &str, seconds: u64) -> Option<TopicName> {
            self.graves.dig(name(topic), self.at(seconds))
        }

        fn refuses(&self, topic: &str, seconds: u64) -> bool {
            self.graves.refuses(&name(topic), self.at(seconds))
        }
    }

    fn name(topic: &str) -> TopicName {
        TopicName::new(topic).unwrap()
    }

    #[test]
    fn a_name_rests_for_a_minute_after_its_topic_was_deleted() {
        let played = Played::new();
        played.dig("a", 0);
        played.dig("b", 0);

        assert!(played.refuses("a", 59));
        assert!(!played.refuses("b", 60));
        assert!(!played.refuses("c", 0), "another name was never deleted");
    }

    #[test]
    fn the_minute_starts_anew_whenever_somebody_asks() {
        let played = Played::new();
        played.dig("a", 0);

        for seconds in [59, 118, 177, 236] {
            assert!(played.refuses("a", seconds));
        }
        assert!(!played.refuses("a", 296));
    }

    #[test]
    fn creating_the_topic_ends_the_rest() {
        let played = Played::new();
        played.dig("a", 0);

        played.graves.open(&name("a"));

        assert!(!played.refuses("a", 1));
    }

    #[test]
    fn names_that_have_rested_are_taken_out() {
        let played = Played::new();
        played.dig("a", 0);
        played.dig("b", 1);

        assert!(!played.graves.is_any_over(played.at(59)));
        assert!(played.graves.is_any_over(played.at(60)));
        assert_eq!(played.graves.take_over(played.at(60)), [name("a")]);
        assert!(played.refuses("b", 60));
    }

    #[test]
    fn there_is_a_bound_and_the_name_that_would_rise_first_gives_way() {
        let played = Played::new();
        played.dig("first", 1);
        played.dig("asked-for", 0);
        assert!(played.refuses("asked-for", 5));
        for number in 2..NAMES_MAX {
            assert_eq!(played.dig(&format!("t{number}"), 6), None);
        }

        assert_eq!(played.dig("last", 7), Some(name("first")));
        assert_eq!(played.graves.by_name.lock().len(), NAMES_MAX);
    }
}
