//! One group: its members, its protocol, its offsets, and the questions that the rules ask about them.
//!
//! Nothing here answers calls or sets timers; [`crate::turn`] does.
//!
//! Invariants:
//! 1. `supported` counts, for each protocol's name, the members that support it.
//! 2. `statics` has exactly the static members of `members`.
//! 3. No id is both in `members` and in `pending_joins`.
//! 4. `bytes` is what [`Member::bytes`] says of all members together.
//! 5. `leader` is `None` exactly if there are no members, unless a replayed record says otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use highwater_record::{PartitionId, TimestampMs};
use highwater_wire::Str;

use crate::records::{GroupMetadataValue, MemberMetadata, group_record};
use crate::subscription::{self, CONSUMER};
use crate::timers::Alarm;
use crate::{
    Call, Committed, Generation, GroupError, GroupState, Joined, JoinedMember, Protocol, Record, Synced,
};

/// The committed offsets of a group, by topic and partition.
pub(crate) type Offsets = BTreeMap<Str, BTreeMap<PartitionId, Committed>>;

/// A member that has joined.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: u32,
    pub(crate) session_timeout_ms: u32,
    /// What it supports, the one it likes best first; no name twice.
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// Whether its first join has not been answered yet. Being parked does not keep such a member alive.
    pub(crate) is_new: bool,
    /// Whether the client has heard of its id.
    pub(crate) knows_id: bool,
    /// The parked join.
    pub(crate) join: Option<Call>,
    /// The parked sync.
    pub(crate) sync: Option<Call>,
    pub(crate) session: Alarm,
}

/// What a protocol counts besides its name and its metadata, in bytes: about what it takes in memory.
const PROTOCOL_OVERHEAD_BYTES: usize = 64;

/// How many bytes protocols count.
pub(crate) fn protocol_bytes(protocols: &[Protocol]) -> usize {
    let size = |protocol: &Protocol| {
        protocol.name.as_bytes().len() + protocol.metadata.len() + PROTOCOL_OVERHEAD_BYTES
    };
    protocols.iter().map(size).sum()
}

impl Member {
    /// How many bytes of what clients decide about it keeps.
    fn bytes(&self) -> usize {
        protocol_bytes(&self.protocols) + self.assignment.len()
    }

    /// What the member says about itself in a protocol; empty if it does not support it.
    pub(crate) fn metadata(&self, protocol: Option<&Str>) -> Bytes {
        let found = self.protocols.iter().find(|supported| Some(&supported.name) == protocol);
        found.map(|supported| supported.metadata.clone()).unwrap_or_default()
    }

    /// Whether silence is to be expected of it: it waits for us.
    pub(crate) fn waits_for_us(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }
}

/// The first rebalance of an empty group, which waits for more members to arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitialDelay {
    /// How long it waits at present, in milliseconds.
    pub(crate) delay_ms: u32,
    /// By how much it may still be extended, in milliseconds.
    pub(crate) remaining_ms: u32,
    /// Whether a member arrived since it waits.
    pub(crate) member_arrived: bool,
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: Str,
    pub(crate) state: GroupState,
    /// Since when it is in its state; old records do not say.
    pub(crate) since: Option<TimestampMs>,
    /// `None` for groups that only hold offsets.
    pub(crate) protocol_type: Option<Str>,
    pub(crate) protocol: Option<Str>,
    pub(crate) generation: Generation,
    pub(crate) leader: Option<Str>,
    pub(crate) members: BTreeMap<Str, Member>,
    pub(crate) statics: BTreeMap<Str, Str>,
    pub(crate) supported: HashMap<Str, usize>,
    pub(crate) bytes: usize,
    /// Ids that were given out and have not come back yet.
    pub(crate) pending_joins: BTreeMap<Str, Alarm>,
    /// Members of this generation that have not asked for their assignment yet.
    pub(crate) pending_syncs: BTreeSet<Str>,
    /// Set while the group prepares its first rebalance after it was empty.
    pub(crate) initial: Option<InitialDelay>,
    pub(crate) join_alarm: Alarm,
    pub(crate) sync_alarm: Alarm,
    /// `None` if that is not known.
    pub(crate) subscribed: Option<BTreeSet<Str>>,
    pub(crate) offsets: Offsets,
    /// Whether offsets were ever committed: such a group stays without them until the next search for expired ones, or
    /// until it is deleted (`GroupMetadataManager.maybeDeleteGroup`).
    pub(crate) held_offsets: bool,
    /// Whether the log has a record of the group itself.
    pub(crate) is_durable: bool,
}

impl Group {
    /// A group without members and without a protocol type.
    pub(crate) fn new(name: Str, since: Option<TimestampMs>) -> Self {
        Self {
            name,
            state: GroupState::Empty,
            since,
            protocol_type: None,
            protocol: None,
            generation: Generation::default(),
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            supported: HashMap::new(),
            bytes: 0,
            pending_joins: BTreeMap::new(),
            pending_syncs: BTreeSet::new(),
            initial: None,
            join_alarm: Alarm::default(),
            sync_alarm: Alarm::default(),
            subscribed: None,
            offsets: Offsets::new(),
            held_offsets: false,
            is_durable: false,
        }
    }

    /// Whether nothing would be lost if the group were forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        self.members.is_empty()
            && self.pending_joins.is_empty()
            && !self.held_offsets
            && !self.is_durable
            && self.state == GroupState::Empty
    }

    /// Whether its members use the consumers' own protocol.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_ref().is_some_and(|name| *name == CONSUMER)
    }

    pub(crate) fn move_to(&mut self, state: GroupState, at: TimestampMs) {
        self.state = state;
        self.since = Some(at);
    }

    /// Adds a member; the first one brings the protocol type.
    pub(crate) fn add(&mut self, id: Str, protocol_type: &Str, member: Member) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.clone());
        }
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        Self::count_in(&mut self.supported, &member.protocols);
        self.bytes += member.bytes();
        self.members.insert(id, member);
    }

    /// Takes a member out. If it led, another one does now.
    pub(crate) fn take(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.withdraw(&member.protocols);
        self.bytes -= member.bytes();
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        if self.leader.as_ref().is_some_and(|leader| *leader == id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_syncs.remove(id);
        Some(member)
    }

    /// Replaces what a member supports.
    pub(crate) fn set_protocols(&mut self, id: &str, protocols: Vec<Protocol>) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        Self::count_in(&mut self.supported, &protocols);
        self.bytes += protocol_bytes(&protocols);
        let old = std::mem::replace(&mut member.protocols, protocols);
        self.bytes -= protocol_bytes(&old);
        self.withdraw(&old);
    }

    /// Replaces the assignments of all members.
    pub(crate) fn set_assignments(&mut self, of: impl Fn(&Str) -> Bytes) {
        for (id, member) in &mut self.members {
            let assignment = of(id);
            self.bytes += assignment.len();
            self.bytes -= std::mem::replace(&mut member.assignment, assignment).len();
        }
    }

    fn count_in(supported: &mut HashMap<Str, usize>, protocols: &[Protocol]) {
        for protocol in protocols {
            *supported.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn withdraw(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.supported.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(&protocol.name);
                }
            }
        }
    }

    /// Whether all members support the protocol.
    fn is_common(&self, protocol: &Str) -> bool {
        self.supported.get(protocol).is_some_and(|count| *count == self.members.len())
    }

    /// Whether a member with these protocols fits in. Where nobody is, also while the group prepares a rebalance,
    /// everybody does who has any.
    pub(crate) fn accepts(&self, protocol_type: &Str, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty || self.members.is_empty() {
            !protocol_type.is_empty() && !protocols.is_empty()
        } else {
            self.protocol_type.as_ref() == Some(protocol_type)
                && protocols.iter().any(|protocol| self.is_common(&protocol.name))
        }
    }

    /// The protocol with the most votes: each member votes for the first of its protocols that all support. The
    /// leader's order decides between equals.
    pub(crate) fn elect_protocol(&self) -> Option<Str> {
        let mut votes: HashMap<&Str, usize> = HashMap::new();
        for member in self.members.values() {
            if let Some(choice) = member.protocols.iter().find(|protocol| self.is_common(&protocol.name)) {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        let judge = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        let judge = judge.or_else(|| self.members.values().next())?;
        let mut best: Option<(&Str, usize)> = None;
        for protocol in &judge.protocols {
            let count = votes.get(&protocol.name).copied().unwrap_or(0);
            if count > best.map_or(0, |(_, most)| most) {
                best = Some((&protocol.name, count));
            }
        }
        best.map(|(name, _)| name.clone())
    }

    /// Sees to it that the leader is a member that has joined. False if nobody has.
    pub(crate) fn elect_leader(&mut self) -> bool {
        let has_joined = |member: &Member| member.join.is_some();
        if self.leader.as_ref().and_then(|leader| self.members.get(leader)).is_some_and(has_joined) {
            return true;
        }
        let joined = self.members.iter().find(|(_, member)| has_joined(member));
        let Some((id, _)) = joined else {
            return false;
        };
        self.leader = Some(id.clone());
        true
    }

    /// Whether every member has joined, and nobody is on the way.
    pub(crate) fn all_joined(&self) -> bool {
        self.pending_joins.is_empty() && self.members.values().all(|member| member.join.is_some())
    }

    /// Members whose join is parked.
    pub(crate) fn joining(&self) -> usize {
        self.members.values().filter(|member| member.join.is_some()).count()
    }

    /// How long a rebalance waits, in milliseconds: as long as the most patient member.
    pub(crate) fn rebalance_timeout_ms(&self) -> u32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// Checks that a member is in the group and that nobody took its place.
    pub(crate) fn check_member(&self, id: &Str, instance_id: Option<&Str>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.statics.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if current != id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    pub(crate) fn is_leader(&self, id: &str) -> bool {
        self.leader.as_ref().is_some_and(|leader| *leader == id)
    }

    /// The generation as a member sees it.
    pub(crate) fn joined(&self, id: &str) -> Joined {
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members: if self.is_leader(id) { self.joined_members() } else { Vec::new() },
        }
    }

    pub(crate) fn joined_members(&self) -> Vec<JoinedMember> {
        let joined = |(id, member): (&Str, &Member)| JoinedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_ref()),
        };
        self.members.iter().map(joined).collect()
    }

    pub(crate) fn synced(&self, member: &Member) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.assignment.clone(),
        }
    }

    /// The topics of all members; `None` if the group is not one of consumers, or speaks a form of its own.
    pub(crate) fn subscriptions(&self) -> Option<BTreeSet<Str>> {
        if !self.is_of_consumers() {
            return None;
        }
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.append(&mut subscription::topics(&member.metadata(self.protocol.as_ref())).ok()?);
        }
        Some(all)
    }

    /// Whether members read the topic. Consumers whose subscription is not known read every topic.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed.as_ref().map_or_else(|| self.is_of_consumers(), |topics| topics.contains(topic))
    }

    /// The group's record.
    pub(crate) fn record(&self) -> Record {
        self.record_since(self.since)
    }

    /// The group's record as it will be once it is in its next state.
    pub(crate) fn record_since(&self, since: Option<TimestampMs>) -> Record {
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation.get(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: since.map_or(-1, |since| since.0),
            members: self.members.iter().map(|(id, member)| self.member_metadata(id, member)).collect(),
        };
        group_record(&self.name, Some(&value))
    }

    fn member_metadata(&self, id: &Str, member: &Member) -> MemberMetadata {
        let timeout = |timeout_ms| i32::try_from(timeout_ms).unwrap_or(i32::MAX);
        MemberMetadata {
            member_id: id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: timeout(member.rebalance_timeout_ms),
            session_timeout: timeout(member.session_timeout_ms),
            subscription: member.metadata(self.protocol.as_ref()),
            assignment: member.assignment.clone(),
        }
    }
}
