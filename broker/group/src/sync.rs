//! SyncGroup and Heartbeat: members get their assignment, and say that they are alive.

use std::collections::HashMap;

use bytes::Bytes;
use highwater_wire::Str;

use crate::coordinator::check_group_name;
use crate::group::Group;
use crate::turn::Turn;
use crate::{
    Call, Coordinator, Effects, Generation, GroupError, GroupState, HeartbeatRequest, Now, Reason, Reply,
    SyncRequest,
};

impl Coordinator {
    /// A member asks for its assignment. The reply comes now or when the leader has brought the assignments.
    pub fn sync(&mut self, call: Call, request: SyncRequest, now: Now) -> Effects {
        let refuse = |error| Effects { records: Vec::new(), replies: vec![(call, Reply::Sync(Err(error)))] };
        if let Err(error) = check_group_name(&request.group) {
            return refuse(error);
        }
        let work = |turn: &mut Turn<'_>, group: &mut Group| match group.check_sync(&request) {
            Ok(()) => turn.sync(group, call, &request),
            Err(error) => turn.reply(call, Reply::Sync(Err(error))),
        };
        self.with_group(&request.group, now, work).unwrap_or_else(|| refuse(GroupError::UnknownMemberId))
    }

    /// A member says that it is alive. The answer need not wait for durability.
    ///
    /// # Errors
    ///
    /// What the member has to hear: that it is unknown or fenced, or that the group rebalances.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now: Now) -> Result<(), GroupError> {
        check_group_name(&request.group)?;
        let (groups, mut turn) = self.turn(now);
        let group = groups.get_mut(&request.group).ok_or(GroupError::UnknownMemberId)?;
        group.check_member(&request.member_id, request.instance_id.as_ref())?;
        group.check_generation(request.generation)?;
        turn.touch(group, &request.member_id);
        match group.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }
}

impl Group {
    pub(crate) fn check_generation(&self, generation: Option<Generation>) -> Result<(), GroupError> {
        if generation == Some(self.generation) { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        self.check_generation(request.generation)?;
        let differs = |theirs: &Option<Str>, ours: &Option<Str>| theirs.is_some() && theirs != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }
}

impl Turn<'_> {
    fn sync(&mut self, group: &mut Group, call: Call, request: &SyncRequest) {
        let id = &request.member_id;
        match group.state {
            GroupState::CompletingRebalance => {
                self.park_sync(group, id, call);
                self.has_synced(group, id);
                if group.is_leader(id) {
                    self.assign(group, request);
                }
            }
            GroupState::Stable => {
                self.has_synced(group, id);
                self.touch(group, id);
                let synced = group.members.get(id).map(|member| group.synced(member));
                self.reply(call, Reply::Sync(synced.ok_or(GroupError::UnknownMemberId)));
            }
            GroupState::PreparingRebalance | GroupState::Empty => {
                self.reply(call, Reply::Sync(Err(GroupError::RebalanceInProgress)));
            }
        }
    }

    /// The member asked for its assignment; once all have, nobody is waited for.
    fn has_synced(&mut self, group: &mut Group, id: &Str) {
        group.pending_syncs.remove(id);
        if group.pending_syncs.is_empty() {
            self.timers.clear(&mut group.sync_alarm);
        }
    }

    /// The leader brings the assignments: the generation is stored, and everybody gets his own. Members that
    /// it forgot get an empty one.
    fn assign(&mut self, group: &mut Group, request: &SyncRequest) {
        let by_member: HashMap<&Str, &Bytes> =
            request.assignments.iter().map(|given| (&given.member_id, &given.assignment)).collect();
        let before = group.bytes;
        group.set_assignments(|id| {
            by_member.get(id).map(|given| Bytes::copy_from_slice(given)).unwrap_or_default()
        });
        let grown = group.bytes.saturating_sub(before);
        let record = group.record_since(Some(self.now.wall));
        let error = match (record.size(), self.settings.record_bytes_max) {
            (bytes, limit) if bytes > limit => GroupError::GroupTooLarge { bytes, limit },
            _ if grown > request.room_bytes => GroupError::NoRoom { bytes: grown, room: request.room_bytes },
            _ => {
                self.effects.records.push(record);
                group.is_durable = true;
                group.move_to(GroupState::Stable, self.now.wall);
                return self.answer_syncs(group, None);
            }
        };
        self.refuse_syncs(group, &error);
        self.prepare_rebalance(group, Reason::AssignmentRefused);
    }

    /// A member was silent for too long, unless it waits for us.
    pub(crate) fn session_ended(&mut self, group: &mut Group, id: &Str) {
        // One that waits for us is watched again as soon as it is answered.
        if group.members.get(id).is_none_or(|member| member.waits_for_us()) {
            return;
        }
        self.tally.sessions_expired += 1;
        self.remove(group, id);
        self.rebalance_or_complete(group, Reason::SessionExpired);
    }

    /// Members that have not asked for their assignment in time are dropped.
    pub(crate) fn sync_time_is_over(&mut self, group: &mut Group) {
        let late = std::mem::take(&mut group.pending_syncs);
        for id in &late {
            self.remove(group, id);
        }
        if !late.is_empty() {
            self.prepare_rebalance(group, Reason::SyncTimedOut);
        }
    }
}
