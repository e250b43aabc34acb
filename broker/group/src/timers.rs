//! Deadlines, and what happens at them.
//!
//! A heartbeat moves a deadline into the future, and that is by far the most frequent thing here: it only
//! changes a number in the [`Alarm`]. The entry in the map stays where it is; when it comes up too early it is
//! put back at the deadline. So each alarm has at most one entry, at or before its deadline.

use std::collections::BTreeMap;

use highwater_wire::Str;

/// What is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A member has been silent for its session timeout.
    Session { group: Str, member_id: Str },
    /// A member that was given an id did not come back with it.
    Pending { group: Str, member_id: Str },
    /// The time to join is over.
    Join { group: Str },
    /// The time to ask for assignments is over.
    Sync { group: Str },
    /// Old offsets are to be looked for.
    Retention,
}

/// Where an entry is in the map: its time, and a number that tells entries of the same time apart.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Slot {
    at_ms: u64,
    serial: u64,
}

/// A deadline that may be set.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    deadline_ms: u64,
    slot: Option<Slot>,
}

/// All alarms that are set, by time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    entries: BTreeMap<Slot, Event>,
    serial: u64,
}

impl Timers {
    /// Sets the alarm to a time, or moves it there. `event` is made only if an entry is needed.
    pub(crate) fn set(&mut self, alarm: &mut Alarm, at_ms: u64, event: impl FnOnce() -> Event) {
        alarm.deadline_ms = at_ms;
        match alarm.slot {
            Some(slot) if slot.at_ms <= at_ms => return,
            Some(slot) => drop(self.entries.remove(&slot)),
            None => {}
        }
        self.insert(alarm, event());
    }

    /// Unsets the alarm.
    pub(crate) fn clear(&mut self, alarm: &mut Alarm) {
        if let Some(slot) = alarm.slot.take() {
            self.entries.remove(&slot);
        }
    }

    /// The time of the first entry, which may be earlier than its alarm's deadline.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(slot, _)| slot.at_ms)
    }

    /// Takes the first entry that is due.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<(Slot, Event)> {
        let first = self.entries.first_entry()?;
        (first.key().at_ms <= now_ms).then(|| first.remove_entry())
    }

    /// Whether the alarm of an entry that was taken is due. If its deadline has moved, the entry is put back
    /// there.
    pub(crate) fn rings(&mut self, alarm: &mut Alarm, slot: Slot, event: &Event, now_ms: u64) -> bool {
        if alarm.slot != Some(slot) {
            return false;
        }
        alarm.slot = None;
        if alarm.deadline_ms > now_ms {
            self.insert(alarm, event.clone());
            return false;
        }
        true
    }

    fn insert(&mut self, alarm: &mut Alarm, event: Event) {
        self.serial += 1;
        let slot = Slot { at_ms: alarm.deadline_ms, serial: self.serial };
        alarm.slot = Some(slot);
        self.entries.insert(slot, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::Join { group: Str::from("g") }
    }

    #[test]
    fn a_deadline_that_moves_on_keeps_its_entry_and_rings_once() {
        let (mut timers, mut alarm) = (Timers::default(), Alarm::default());
        timers.set(&mut alarm, 10, event);

        for at_ms in 11..=20 {
            timers.set(&mut alarm, at_ms, || unreachable!("the entry is there"));
        }

        assert_eq!(timers.next_ms(), Some(10));
        let (slot, event) = timers.pop(10).unwrap();
        assert!(!timers.rings(&mut alarm, slot, &event, 10));
        assert_eq!(timers.next_ms(), Some(20));
        let (slot, event) = timers.pop(20).unwrap();
        assert!(timers.rings(&mut alarm, slot, &event, 20));
        assert_eq!(timers.next_ms(), None);
    }

    #[test]
    fn a_deadline_that_comes_nearer_takes_a_new_entry() {
        let (mut timers, mut alarm) = (Timers::default(), Alarm::default());
        timers.set(&mut alarm, 10, event);

        timers.set(&mut alarm, 5, event);

        assert_eq!(timers.entries.len(), 1);
        assert_eq!(timers.next_ms(), Some(5));
    }

    #[test]
    fn a_cleared_alarm_has_no_entry() {
        let (mut timers, mut alarm) = (Timers::default(), Alarm::default());
        timers.set(&mut alarm, 10, event);

        timers.clear(&mut alarm);

        assert_eq!(timers.pop(u64::MAX), None);
    }
}
