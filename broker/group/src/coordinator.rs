//! The machine: the groups of one partition, and what is common to all events.
//!
//! The requests have files of their own: `join`, `sync` (with heartbeats), `leave`, `offsets`, `admin`. What an
//! event does to a group is in `turn`.

use std::collections::{BTreeMap, HashMap};

use highwater_wire::Str;

use crate::group::Group;
use crate::timers::{Alarm, Event, Timers};
use crate::turn::{Parked, Tally, Turn};
use crate::{Call, Counts, Effects, GroupError, GroupState, Now, Reason, Settings};

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Coordinator {
    pub(crate) settings: Settings,
    pub(crate) groups: BTreeMap<Str, Group>,
    pub(crate) timers: Timers,
    pub(crate) calls: HashMap<Call, Parked>,
    pub(crate) tally: Tally,
    /// What members bring and are assigned, in bytes; counted since [`Self::loaded`].
    member_bytes: usize,
    retention: Alarm,
}

impl Coordinator {
    /// A coordinator without groups.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            timers: Timers::default(),
            calls: HashMap::new(),
            tally: Tally::default(),
            member_bytes: 0,
            retention: Alarm::default(),
        }
    }

    /// Begins service after the replay: members get a fresh session, and groups that are too large rebalance. A
    /// group that was in the middle of a rebalance is as it was before it: its members hear so and join again.
    pub fn loaded(&mut self, now: Now) -> Effects {
        self.schedule_retention(now);
        let (groups, mut turn) = self.turn(now);
        for group in groups.values_mut() {
            let ids: Vec<Str> = group.members.keys().cloned().collect();
            for id in &ids {
                turn.touch(group, id);
            }
            if ids.len() > turn.settings.group_size_max {
                turn.prepare_rebalance(group, Reason::LoadedTooLarge);
            }
        }
        let effects = turn.effects;
        self.member_bytes = self.groups.values().map(|group| group.bytes).sum();
        effects
    }

    /// The connection of a call closed before its reply. Nothing is sent for `call` any more. A dynamic member
    /// that has not heard of its id yet is dropped, since nobody can ever use it; another has its session
    /// timeout to come back.
    pub fn abandon(&mut self, call: Call, now: Now) -> Effects {
        let Some(Parked { group: name, member_id: id }) = self.calls.remove(&call) else {
            return Effects::default();
        };
        let effects = self.with_group(&name, now, |turn, group| {
            let Some(member) = group.members.get_mut(&id) else {
                return;
            };
            member.join = member.join.filter(|parked| *parked != call);
            member.sync = member.sync.filter(|parked| *parked != call);
            if member.knows_id || member.instance_id.is_some() {
                turn.touch(group, &id);
            } else {
                turn.remove(group, &id);
                turn.complete_join_if_all_joined(group);
            }
        });
        effects.unwrap_or_default()
    }

    /// When to call [`Self::expire`] next, in milliseconds of the monotonic clock. Cheap. May be too early,
    /// never too late. Every other method may bring it nearer.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next_ms()
    }

    /// Does what is due: sessions, rebalances, old offsets.
    pub fn expire(&mut self, now: Now) -> Effects {
        let mut effects = Effects::default();
        while let Some((slot, event)) = self.timers.pop(now.monotonic_ms) {
            let alarm = match &event {
                Event::Session { group, member_id } => self
                    .groups
                    .get_mut(group)
                    .and_then(|group| group.members.get_mut(member_id))
                    .map(|member| &mut member.session),
                Event::Pending { group, member_id } => {
                    self.groups.get_mut(group).and_then(|group| group.pending_joins.get_mut(member_id))
                }
                Event::Join { group } => self.groups.get_mut(group).map(|group| &mut group.join_alarm),
                Event::Sync { group } => self.groups.get_mut(group).map(|group| &mut group.sync_alarm),
                Event::Retention => Some(&mut self.retention),
            };
            if alarm.is_some_and(|alarm| self.timers.rings(alarm, slot, &event, now.monotonic_ms)) {
                effects.append(self.happen(event, now));
            }
        }
        effects
    }

    fn happen(&mut self, event: Event, now: Now) -> Effects {
        let name = match &event {
            Event::Session { group, .. }
            | Event::Pending { group, .. }
            | Event::Join { group }
            | Event::Sync { group } => group.clone(),
            Event::Retention => {
                self.schedule_retention(now);
                return self.drop_expired_offsets(now);
            }
        };
        let effects = self.with_group(&name, now, |turn, group| match event {
            Event::Session { member_id, .. } => turn.session_ended(group, &member_id),
            Event::Pending { member_id, .. } => {
                turn.remove_pending(group, &member_id);
                turn.complete_join_if_all_joined(group);
            }
            Event::Join { .. } => turn.join_time_is_over(group),
            Event::Sync { .. } => turn.sync_time_is_over(group),
            Event::Retention => {}
        });
        effects.unwrap_or_default()
    }

    fn schedule_retention(&mut self, now: Now) {
        // Never at once again, or `expire` would not come to an end.
        let interval_ms = self.settings.retention_check_interval_ms.max(1);
        let at_ms = now.monotonic_ms.saturating_add(interval_ms);
        self.timers.set(&mut self.retention, at_ms, || Event::Retention);
    }

    /// How many bytes all members bring and are assigned, as [`Settings::member_metadata_bytes_max`] counts them.
    /// Cheap.
    pub fn member_bytes(&self) -> usize {
        self.member_bytes
    }

    /// Numbers for metrics. Looks at every group.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            parked: self.calls.len(),
            rebalances: self.tally.rebalances,
            sessions_expired: self.tally.sessions_expired,
            offsets_expired: self.tally.offsets_expired,
            records_skipped: self.tally.records_skipped,
            ..Counts::default()
        };
        for group in self.groups.values() {
            match group.state {
                GroupState::Empty => counts.empty += 1,
                GroupState::PreparingRebalance => counts.preparing_rebalance += 1,
                GroupState::CompletingRebalance => counts.completing_rebalance += 1,
                GroupState::Stable => counts.stable += 1,
            }
            counts.members += group.members.len();
            counts.offsets += group.offsets.values().map(BTreeMap::len).sum::<usize>();
        }
        counts
    }

    /// The groups, and the rest for one turn.
    pub(crate) fn turn(&mut self, now: Now) -> (&mut BTreeMap<Str, Group>, Turn<'_>) {
        let turn = Turn {
            settings: &self.settings,
            timers: &mut self.timers,
            calls: &mut self.calls,
            tally: &mut self.tally,
            now,
            effects: Effects::default(),
        };
        (&mut self.groups, turn)
    }

    /// Works on a group, and forgets it afterwards if nothing would be lost. `None` if there is no such group.
    pub(crate) fn with_group(
        &mut self,
        name: &str,
        now: Now,
        work: impl FnOnce(&mut Turn<'_>, &mut Group),
    ) -> Option<Effects> {
        let (groups, mut turn) = self.turn(now);
        let group = groups.get_mut(name)?;
        let before = group.bytes;
        work(&mut turn, group);
        let effects = turn.effects;
        let after = group.bytes;
        if group.is_idle() {
            groups.remove(name);
        }
        self.member_bytes = self.member_bytes + after - before;
        Some(effects)
    }

    /// The same with a group that is made if there is none and the host allows one more.
    pub(crate) fn with_new_group(
        &mut self,
        name: &Str,
        may_create: bool,
        now: Now,
        work: impl FnOnce(&mut Turn<'_>, &mut Group),
    ) -> Result<Effects, GroupError> {
        if !self.groups.contains_key(name) {
            if !may_create {
                return Err(GroupError::TooManyGroups);
            }
            let name = name.detach();
            self.groups.insert(name.clone(), Group::new(name, Some(now.wall)));
        }
        self.with_group(name, now, work).ok_or(GroupError::GroupIdNotFound)
    }
}

/// Refuses the name that Kafka refuses.
pub(crate) fn check_group_name(name: &str) -> Result<(), GroupError> {
    if name.is_empty() { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use highwater_record::TimestampMs;

    use super::*;

    #[test]
    fn a_search_for_old_offsets_without_a_pause_comes_to_an_end() {
        let mut coordinator =
            Coordinator::new(Settings { retention_check_interval_ms: 0, ..Settings::default() });
        let now = |monotonic_ms| Now { wall: TimestampMs(0), monotonic_ms };
        let _ = coordinator.loaded(now(0));

        let _ = coordinator.expire(now(5));

        assert_eq!(coordinator.next_deadline(), Some(6));
    }
}
