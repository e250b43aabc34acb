//! JoinGroup: new members, members that come back, and static members that take over.

use std::collections::HashSet;
use std::fmt::Write;

use highwater_wire::Str;

use crate::coordinator::check_group_name;
use crate::group::{Group, Member, protocol_bytes};
use crate::timers::{Alarm, Event};
use crate::turn::Turn;
use crate::{
    Call, Coordinator, Effects, GroupError, GroupState, JoinReply, JoinRequest, Now, Protocol, Reason, Reply,
};

/// Longest part of a member id that comes from the client, in bytes.
const ID_PREFIX_BYTES_MAX: usize = 255;

impl Coordinator {
    /// A member joins. The reply comes now or when the rebalance completes.
    pub fn join(&mut self, call: Call, mut request: JoinRequest, now: Now) -> Effects {
        let is_unknown = request.member_id.is_empty();
        let checked = self.check_join(&mut request);
        let effects = checked.and_then(|()| {
            let may_create = is_unknown && request.may_create;
            if !is_unknown && !self.groups.contains_key(&request.group) {
                return Err(GroupError::UnknownMemberId);
            }
            let group = request.group.clone();
            self.with_new_group(&group, may_create, now, |turn, group| {
                let joiner = Joiner { call, request: &request };
                if !turn.has_room(group, &request.member_id) {
                    turn.turn_away(group, &joiner);
                } else if let Err(error) = joiner.check_room(group) {
                    turn.refuse_join(call, request.member_id.detach(), error);
                } else if is_unknown {
                    turn.join_as_new(group, &joiner);
                } else {
                    turn.join_again(group, &joiner);
                }
            })
        });
        effects.unwrap_or_else(|error| {
            let member_id = request.member_id.detach();
            let reply = Reply::Join(JoinReply { member_id, outcome: Err(error) });
            Effects { records: Vec::new(), replies: vec![(call, reply)] }
        })
    }

    /// Checks what does not depend on the group, and drops protocols that are named twice.
    fn check_join(&self, request: &mut JoinRequest) -> Result<(), GroupError> {
        check_group_name(&request.group)?;
        let (min_ms, max_ms) = (self.settings.session_timeout_ms_min, self.settings.session_timeout_ms_max);
        let timeout_ms = request.session_timeout_ms;
        if !u32::try_from(timeout_ms).is_ok_and(|timeout_ms| (min_ms..=max_ms).contains(&timeout_ms)) {
            return Err(GroupError::InvalidSessionTimeout { timeout_ms, min_ms, max_ms });
        }
        let bytes = protocol_bytes(&request.protocols);
        let limit = self.settings.member_metadata_bytes_max;
        if bytes > limit {
            return Err(GroupError::MemberMetadataTooLarge { bytes, limit });
        }
        let mut names = HashSet::new();
        request.protocols.retain(|protocol| names.insert(protocol.name.clone()));
        Ok(())
    }
}

/// A join on its way through the rules.
struct Joiner<'a> {
    call: Call,
    request: &'a JoinRequest,
}

impl Joiner<'_> {
    /// An id for a member that has none: the instance id or the client id, and random bytes as a UUID.
    fn new_id(&self) -> Str {
        let prefix = self.request.instance_id.as_ref().unwrap_or(&self.request.client.id).as_str();
        let mut id = prefix[..prefix.floor_char_boundary(ID_PREFIX_BYTES_MAX)].to_owned();
        for (position, byte) in self.request.unique.iter().enumerate() {
            let dash = if matches!(position, 0 | 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(id, "{dash}{byte:02x}").expect("a String takes everything");
        }
        Str::from(id)
    }

    /// Whether there is room for what the member brings besides what it brought before.
    fn check_room(&self, group: &Group) -> Result<(), GroupError> {
        let of_instance = self.request.instance_id.as_ref().and_then(|name| group.statics.get(name));
        let before = group.members.get(of_instance.unwrap_or(&self.request.member_id));
        let before = before.map_or(0, |member| protocol_bytes(&member.protocols));
        let bytes = protocol_bytes(&self.request.protocols).saturating_sub(before);
        let room = self.request.room_bytes;
        if bytes > room { Err(GroupError::NoRoom { bytes, room }) } else { Ok(()) }
    }

    fn session_timeout_ms(&self) -> u32 {
        u32::try_from(self.request.session_timeout_ms).unwrap_or(0)
    }

    /// Version 0 has no rebalance timeout. Later ones may send anything.
    fn rebalance_timeout_ms(&self) -> u32 {
        let timeout_ms = self.request.rebalance_timeout_ms.unwrap_or(self.request.session_timeout_ms);
        u32::try_from(timeout_ms).unwrap_or(0)
    }

    /// The protocols in bytes of their own.
    fn protocols(&self) -> Vec<Protocol> {
        let keep = |protocol: &Protocol| Protocol {
            name: protocol.name.detach(),
            metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
        };
        self.request.protocols.iter().map(keep).collect()
    }

    fn member(&self) -> Member {
        Member {
            instance_id: self.request.instance_id.as_ref().map(Str::detach),
            client_id: self.request.client.id.detach(),
            client_host: self.request.client.host.detach(),
            rebalance_timeout_ms: self.rebalance_timeout_ms(),
            session_timeout_ms: self.session_timeout_ms(),
            protocols: self.protocols(),
            assignment: bytes::Bytes::new(),
            is_new: true,
            knows_id: !self.request.member_id.is_empty(),
            join: None,
            sync: None,
            session: Alarm::default(),
        }
    }
}

impl Turn<'_> {
    /// Whether the group takes one more. While it prepares a rebalance, those count that have joined: the
    /// others may be late, and the limit may have been lowered.
    fn has_room(&self, group: &Group, id: &Str) -> bool {
        let max = self.settings.group_size_max;
        match group.state {
            GroupState::Empty => true,
            GroupState::PreparingRebalance => {
                group.members.get(id).is_some_and(|member| member.join.is_some()) || group.joining() < max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                group.members.contains_key(id) || group.members.len() < max
            }
        }
    }

    /// The group is full: the member is out if it was in.
    fn turn_away(&mut self, group: &mut Group, joiner: &Joiner<'_>) {
        self.remove(group, &joiner.request.member_id);
        self.remove_pending(group, &joiner.request.member_id);
        let limit = self.settings.group_size_max;
        self.refuse_join(joiner.call, Str::default(), GroupError::GroupMaxSizeReached { limit });
        self.complete_join_if_all_joined(group);
    }

    fn join_as_new(&mut self, group: &mut Group, joiner: &Joiner<'_>) {
        let request = joiner.request;
        if !group.accepts(&request.protocol_type, &request.protocols) {
            return self.refuse_join(joiner.call, Str::default(), GroupError::InconsistentGroupProtocol);
        }
        let id = joiner.new_id();
        match &request.instance_id {
            Some(instance_id) => match group.statics.get(instance_id).cloned() {
                Some(old_id) => self.take_over(group, joiner, &old_id, &id),
                None => self.add(group, joiner, &id),
            },
            None if request.require_known_member_id => self.give_id(group, joiner, &id),
            None => self.add(group, joiner, &id),
        }
    }

    /// Makes the member come back with an id, so that joins whose answers are lost leave no members behind
    /// (KIP-394).
    fn give_id(&mut self, group: &mut Group, joiner: &Joiner<'_>, id: &Str) {
        let limit = self.settings.group_size_max;
        if group.pending_joins.len() >= limit {
            let error = GroupError::GroupMaxSizeReached { limit };
            return self.refuse_join(joiner.call, Str::default(), error);
        }
        let at_ms = self.in_ms(joiner.session_timeout_ms());
        let alarm = group.pending_joins.entry(id.clone()).or_default();
        let name = &group.name;
        self.timers.set(alarm, at_ms, || Event::Pending { group: name.clone(), member_id: id.clone() });
        self.refuse_join(joiner.call, id.clone(), GroupError::MemberIdRequired);
    }

    fn add(&mut self, group: &mut Group, joiner: &Joiner<'_>, id: &Str) {
        if let Some(initial) = &mut group.initial {
            initial.member_arrived = true;
        }
        group.add(id.clone(), &joiner.request.protocol_type.detach(), joiner.member());
        self.park_join(group, id, joiner.call);
        // It cannot send heartbeats before it is answered, and its session timeout may be shorter than the
        // rebalance. If the client gives up in the meantime, this ends it.
        self.watch(group, id, self.settings.new_member_timeout_ms);
        self.rebalance_or_complete(group, Reason::MemberJoined);
    }

    fn join_again(&mut self, group: &mut Group, joiner: &Joiner<'_>) {
        let request = joiner.request;
        let id = &request.member_id;
        if !group.accepts(&request.protocol_type, &request.protocols) {
            return self.refuse_join(joiner.call, id.detach(), GroupError::InconsistentGroupProtocol);
        }
        if request.instance_id.is_none() && self.remove_pending(group, id) {
            return self.add(group, joiner, &id.detach());
        }
        if let Err(error) = group.check_member(id, request.instance_id.as_ref()) {
            return self.refuse_join(joiner.call, id.detach(), error);
        }
        let is_same = group.members.get(id).is_some_and(|member| member.protocols == request.protocols);
        let reason = match group.state {
            GroupState::Stable if group.is_leader(id) => Reason::LeaderRejoined,
            GroupState::Stable | GroupState::CompletingRebalance if is_same => {
                // It may not have got the first answer.
                return self.repeat_generation(group, joiner, id);
            }
            _ => Reason::MetadataChanged,
        };
        self.update(group, joiner, id);
        self.rebalance_or_complete(group, reason);
    }

    /// Answers with the generation that there is.
    fn repeat_generation(&mut self, group: &mut Group, joiner: &Joiner<'_>, id: &Str) {
        self.touch(group, id);
        let mut joined = group.joined(id);
        if group.state == GroupState::Stable {
            joined.members.clear();
        }
        self.reply(joiner.call, Reply::Join(JoinReply { member_id: id.detach(), outcome: Ok(joined) }));
    }

    /// Takes over what the member says about itself, and parks the join.
    fn update(&mut self, group: &mut Group, joiner: &Joiner<'_>, id: &Str) {
        group.set_protocols(id, joiner.protocols());
        if let Some(member) = group.members.get_mut(id) {
            member.rebalance_timeout_ms = joiner.rebalance_timeout_ms();
            member.session_timeout_ms = joiner.session_timeout_ms();
        }
        self.park_join(group, id, joiner.call);
        if group.members.get(id).is_some_and(|member| member.is_new) {
            // Its connection may have closed since it came, which left it its session timeout alone.
            self.watch(group, id, self.settings.new_member_timeout_ms);
        }
    }

    /// A static member is back as another process: it gets a new id, and the old one is fenced (KIP-345).
    fn take_over(&mut self, group: &mut Group, joiner: &Joiner<'_>, old_id: &Str, id: &Str) {
        let old_leader = group.leader.clone().unwrap_or_default();
        let old_subscribed = group.subscribed.clone();
        self.replace(group, old_id, id);
        self.update(group, joiner, id);
        self.touch(group, id);
        // Kafka looks at the protocol alone. A member that comes back with other topics would then be without
        // them until something else makes the group rebalance.
        let fits_in = group.elect_protocol() == group.protocol
            && group.subscriptions() == old_subscribed
            && group.record().size() <= self.settings.record_bytes_max;
        match group.state {
            GroupState::Stable if fits_in => self.keep_generation(group, joiner, &old_leader, id),
            // The leader may have assigned to the old id already.
            GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare_rebalance(group, Reason::StaticMemberReplaced);
            }
            _ => self.complete_join_if_all_joined(group),
        }
    }

    /// Moves a member to another id; those who wait in the old one's name are fenced.
    fn replace(&mut self, group: &mut Group, old_id: &Str, id: &Str) {
        let leads = group.is_leader(old_id);
        let was_pending = group.pending_syncs.contains(old_id);
        let Some(mut member) = group.take(old_id) else {
            return;
        };
        self.timers.clear(&mut member.session);
        if let Some(call) = member.join.take() {
            self.refuse_join(call, old_id.clone(), GroupError::FencedInstanceId);
        }
        if let Some(call) = member.sync.take() {
            self.reply(call, Reply::Sync(Err(GroupError::FencedInstanceId)));
        }
        member.is_new = false;
        let protocol_type = group.protocol_type.clone().unwrap_or_default();
        group.add(id.clone(), &protocol_type, member);
        if leads {
            group.leader = Some(id.clone());
        }
        if was_pending {
            group.pending_syncs.insert(id.clone());
        }
    }

    /// Answers a static member that took over with the generation and assignment of its predecessor.
    fn keep_generation(&mut self, group: &mut Group, joiner: &Joiner<'_>, old_leader: &Str, id: &Str) {
        self.effects.records.push(group.record());
        group.is_durable = true;
        let mut joined = group.joined(id);
        if joiner.request.supports_skip_assignment {
            joined.skip_assignment = group.is_leader(id);
        } else {
            // A leader of these versions would assign, so it must not learn that it leads.
            joined.leader = old_leader.clone();
            joined.members.clear();
        }
        if let Some(member) = group.members.get_mut(id) {
            (member.join, member.knows_id) = (None, true);
        }
        self.reply(joiner.call, Reply::Join(JoinReply { member_id: id.clone(), outcome: Ok(joined) }));
    }
}
