//! One turn of the machine: a group, an event, and what it causes. The rebalance itself is in here.
//!
//! A [`Turn`] borrows everything of the coordinator but the groups, so that it can work on one of them. It
//! answers calls, sets alarms and collects records; the files named after requests decide which.
//!
//! Invariants:
//! 1. A call is in `calls` exactly as long as it is the parked join or sync of a member.
//! 2. A group that prepares a rebalance has its join alarm set; one that completes it has its sync alarm set or
//!    waits for its leader only, whose session is watched.

use std::collections::HashMap;

use bytes::Bytes;
use highwater_wire::Str;

use crate::group::{Group, InitialDelay, Member};
use crate::timers::{Event, Timers};
use crate::{Call, Effects, GroupError, GroupState, JoinReply, Now, Reason, Reply, Settings};

/// How long a rebalance that nobody joined waits at least until it looks again, in milliseconds.
const RETRY_MS_MIN: u32 = 1_000;

/// Where a parked call waits.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) group: Str,
    pub(crate) member_id: Str,
}

/// Numbers that only grow.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rebalances: [u64; Reason::ALL.len()],
    pub(crate) sessions_expired: u64,
    pub(crate) offsets_expired: u64,
    pub(crate) records_skipped: u64,
}

/// The state of the coordinator while it deals with one event, without the groups.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) timers: &'a mut Timers,
    pub(crate) calls: &'a mut HashMap<Call, Parked>,
    pub(crate) tally: &'a mut Tally,
    pub(crate) now: Now,
    pub(crate) effects: Effects,
}

impl Turn<'_> {
    pub(crate) fn reply(&mut self, call: Call, reply: Reply) {
        self.calls.remove(&call);
        self.effects.replies.push((call, reply));
    }

    pub(crate) fn refuse_join(&mut self, call: Call, member_id: Str, error: GroupError) {
        self.reply(call, Reply::Join(JoinReply { member_id, outcome: Err(error) }));
    }

    /// Parks a join. One that the member has parked already is sent away: nobody waits for it any more.
    pub(crate) fn park_join(&mut self, group: &mut Group, id: &Str, call: Call) {
        let Some(member) = group.members.get_mut(id) else {
            return;
        };
        let earlier = member.join.replace(call);
        self.calls.insert(call, Parked { group: group.name.clone(), member_id: id.detach() });
        if let Some(earlier) = earlier {
            self.refuse_join(earlier, id.detach(), GroupError::RebalanceInProgress);
        }
    }

    /// Parks a sync, in the same way.
    pub(crate) fn park_sync(&mut self, group: &mut Group, id: &Str, call: Call) {
        let Some(member) = group.members.get_mut(id) else {
            return;
        };
        let earlier = member.sync.replace(call);
        self.calls.insert(call, Parked { group: group.name.clone(), member_id: id.detach() });
        if let Some(earlier) = earlier {
            self.reply(earlier, Reply::Sync(Err(GroupError::RebalanceInProgress)));
        }
    }

    /// Starts a member's session timeout anew.
    pub(crate) fn touch(&mut self, group: &mut Group, id: &Str) {
        if let Some(member) = group.members.get(id) {
            let timeout_ms = member.session_timeout_ms;
            self.watch(group, id, timeout_ms);
        }
    }

    /// Expects something of a member within a time.
    pub(crate) fn watch(&mut self, group: &mut Group, id: &Str, timeout_ms: u32) {
        let at_ms = self.in_ms(timeout_ms);
        if let Some(member) = group.members.get_mut(id) {
            let name = &group.name;
            let event = || Event::Session { group: name.clone(), member_id: id.detach() };
            self.timers.set(&mut member.session, at_ms, event);
        }
    }

    /// Takes a member out of the group, which is told to those who wait in its name.
    pub(crate) fn remove(&mut self, group: &mut Group, id: &str) {
        let Some(mut member) = group.take(id) else {
            return;
        };
        self.timers.clear(&mut member.session);
        if let Some(call) = member.join {
            self.refuse_join(call, Str::default(), GroupError::UnknownMemberId);
        }
        if let Some(call) = member.sync {
            self.reply(call, Reply::Sync(Err(GroupError::UnknownMemberId)));
        }
    }

    /// Forgets an id that was given out. False if it was not.
    pub(crate) fn remove_pending(&mut self, group: &mut Group, id: &str) -> bool {
        let Some(mut alarm) = group.pending_joins.remove(id) else {
            return false;
        };
        self.timers.clear(&mut alarm);
        true
    }

    /// Begins a rebalance, or goes on with the one under way.
    pub(crate) fn rebalance_or_complete(&mut self, group: &mut Group, reason: Reason) {
        match group.state {
            GroupState::Stable | GroupState::CompletingRebalance | GroupState::Empty => {
                self.prepare_rebalance(group, reason);
            }
            GroupState::PreparingRebalance => self.complete_join_if_all_joined(group),
        }
    }

    /// Begins a rebalance. Members hear of it with their next heartbeat.
    pub(crate) fn prepare_rebalance(&mut self, group: &mut Group, reason: Reason) {
        if group.state == GroupState::CompletingRebalance {
            self.refuse_syncs(group, &GroupError::RebalanceInProgress);
        }
        group.pending_syncs.clear();
        self.timers.clear(&mut group.sync_alarm);
        self.tally.rebalances[reason as usize] += 1;
        let was_empty = group.state == GroupState::Empty;
        group.move_to(GroupState::PreparingRebalance, self.now.wall);
        if was_empty {
            let delay_ms = self.settings.initial_rebalance_delay_ms;
            let remaining_ms = group.rebalance_timeout_ms().saturating_sub(delay_ms);
            group.initial = Some(InitialDelay { delay_ms, remaining_ms, member_arrived: false });
            self.set_join_alarm(group, delay_ms);
        } else if group.all_joined() {
            self.complete_join(group);
        } else {
            self.set_join_alarm(group, group.rebalance_timeout_ms());
        }
    }

    /// Ends the time to join early if nobody is missing. The first rebalance of an empty group takes its time.
    pub(crate) fn complete_join_if_all_joined(&mut self, group: &mut Group) {
        if group.state == GroupState::PreparingRebalance && group.initial.is_none() && group.all_joined() {
            self.complete_join(group);
        }
    }

    /// The time to join is over, or that of the first rebalance is to be extended.
    pub(crate) fn join_time_is_over(&mut self, group: &mut Group) {
        match &mut group.initial {
            Some(initial) if initial.member_arrived && initial.remaining_ms > 0 => {
                let delay_ms = self.settings.initial_rebalance_delay_ms.min(initial.remaining_ms);
                let remaining_ms = initial.remaining_ms.saturating_sub(initial.delay_ms);
                *initial = InitialDelay { delay_ms, remaining_ms, member_arrived: false };
                self.set_join_alarm(group, delay_ms);
            }
            _ => self.complete_join(group),
        }
    }

    /// Drops the dynamic members that have not joined, and begins the next generation with the others.
    fn complete_join(&mut self, group: &mut Group) {
        self.timers.clear(&mut group.join_alarm);
        let is_late = |member: &Member| member.join.is_none() && member.instance_id.is_none();
        let late: Vec<Str> =
            group.members.iter().filter(|(_, member)| is_late(member)).map(|(id, _)| id.clone()).collect();
        for id in &late {
            self.remove(group, id);
        }
        if !group.elect_leader() && !group.members.is_empty() {
            // Only static members are left and none has joined: their sessions will end it.
            self.set_join_alarm(group, group.rebalance_timeout_ms().max(RETRY_MS_MIN));
            return;
        }
        group.initial = None;
        group.generation = group.generation.next();
        group.protocol = group.elect_protocol();
        group.subscribed = group.subscriptions();
        group.pending_syncs.clear();
        if group.members.is_empty() {
            group.move_to(GroupState::Empty, self.now.wall);
            group.is_durable = true;
            self.effects.records.push(group.record());
        } else {
            group.move_to(GroupState::CompletingRebalance, self.now.wall);
            self.hand_out_generation(group);
        }
    }

    /// Answers all joins and waits for the syncs.
    fn hand_out_generation(&mut self, group: &mut Group) {
        let ids: Vec<Str> = group.members.keys().cloned().collect();
        for id in ids {
            let joined = group.joined(&id);
            if let Some(member) = group.members.get_mut(&id) {
                member.is_new = false;
                if let Some(call) = member.join.take() {
                    member.knows_id = true;
                    let outcome = Ok(joined);
                    self.reply(call, Reply::Join(JoinReply { member_id: id.clone(), outcome }));
                }
            }
            self.touch(group, &id);
            group.pending_syncs.insert(id);
        }
        let at_ms = self.in_ms(group.rebalance_timeout_ms());
        let name = &group.name;
        self.timers.set(&mut group.sync_alarm, at_ms, || Event::Sync { group: name.clone() });
    }

    /// Takes back the assignments and tells those who wait for theirs.
    pub(crate) fn refuse_syncs(&mut self, group: &mut Group, error: &GroupError) {
        group.set_assignments(|_| Bytes::new());
        self.answer_syncs(group, Some(error));
    }

    /// Answers those who wait for their assignment.
    pub(crate) fn answer_syncs(&mut self, group: &mut Group, error: Option<&GroupError>) {
        let waits = |(id, member): (&Str, &Member)| member.sync.map(|call| (id.clone(), call));
        let waiting: Vec<(Str, Call)> = group.members.iter().filter_map(waits).collect();
        for (id, call) in waiting {
            let Some(member) = group.members.get_mut(&id) else {
                continue;
            };
            member.sync = None;
            let outcome = match error {
                Some(error) => Err(error.clone()),
                None => {
                    Ok(group.members.get(&id).map(|member| group.synced(member)).expect("it was just there"))
                }
            };
            self.reply(call, Reply::Sync(outcome));
            self.touch(group, &id);
        }
    }

    fn set_join_alarm(&mut self, group: &mut Group, delay_ms: u32) {
        let at_ms = self.in_ms(delay_ms);
        let name = &group.name;
        self.timers.set(&mut group.join_alarm, at_ms, || Event::Join { group: name.clone() });
    }

    pub(crate) fn in_ms(&self, delay_ms: u32) -> u64 {
        self.now.monotonic_ms.saturating_add(u64::from(delay_ms))
    }
}
