//! Replay: the state is made anew from the records of the log.

use bytes::Bytes;
use highwater_record::{PartitionId, TimestampMs};
use highwater_wire::Str;

use crate::group::{Group, Member};
use crate::records::{
    Decoded, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue, decode,
};
use crate::timers::Alarm;
use crate::{Coordinator, Generation, GroupState, Protocol, ReplayError};

impl Coordinator {
    /// Takes in one record of the partition, in the order of the log.
    ///
    /// Records of unknown type or version (a newer Kafka's, or other kinds of groups) are skipped and counted.
    ///
    /// # Errors
    ///
    /// If a record of a known type is malformed; the state is then as before it.
    pub fn replay(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), ReplayError> {
        match decode(key, value)? {
            Decoded::Offset { key, value } => self.replay_offset(&key, value),
            Decoded::Group { key, value: Some(value) } => self.replay_group(&key.group, value),
            Decoded::Group { key, value: None } => {
                self.replay_group_tombstone(&key.group);
                Ok(())
            }
            Decoded::Unknown { .. } => {
                self.tally.records_skipped += 1;
                Ok(())
            }
        }
    }

    fn replay_offset(
        &mut self,
        key: &OffsetCommitKey,
        value: Option<OffsetCommitValue>,
    ) -> Result<(), ReplayError> {
        let partition = PartitionId::new(key.partition).ok_or(ReplayError::Partition(key.partition))?;
        match value {
            Some(value) => {
                // Offsets make a group of their own kind, until a record of the group says more.
                if !self.groups.contains_key(&key.group) {
                    let name = key.group.detach();
                    self.groups.insert(name.clone(), Group::new(name, None));
                }
                if let Some(group) = self.groups.get_mut(&key.group) {
                    group.set_offset(&key.topic, partition, value.into_committed());
                }
            }
            None => {
                if let Some(group) = self.groups.get_mut(&key.group) {
                    group.remove_offset(&key.topic, partition);
                }
            }
        }
        Ok(())
    }

    fn replay_group(&mut self, name: &Str, value: GroupMetadataValue) -> Result<(), ReplayError> {
        let generation =
            Generation::new(value.generation).ok_or(ReplayError::Generation(value.generation))?;
        let since =
            (value.current_state_timestamp != -1).then_some(TimestampMs(value.current_state_timestamp));
        let mut group = Group::new(name.detach(), since);
        let protocol_type = value.protocol_type.detach();
        let protocol = value.protocol.map(|protocol| protocol.detach());
        for member in value.members {
            let id = member.member_id.detach();
            // A name that stands twice is no second member.
            drop(group.take(&id));
            group.add(id, &protocol_type, loaded_member(member, protocol.as_ref()));
        }
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
            group.protocol = protocol;
        }
        group.protocol_type = (!protocol_type.is_empty()).then_some(protocol_type);
        group.leader = value.leader.map(|leader| leader.detach());
        group.generation = generation;
        group.subscribed = group.subscriptions();
        group.is_durable = true;
        if let Some(earlier) = self.groups.remove(name) {
            group.offsets = earlier.offsets;
            group.held_offsets = earlier.held_offsets;
        }
        self.groups.insert(group.name.clone(), group);
        Ok(())
    }

    /// The group is gone. Offsets that are still there have no tombstone yet, and stay until they have.
    fn replay_group_tombstone(&mut self, name: &Str) {
        if let Some(earlier) = self.groups.remove(name)
            && !earlier.offsets.is_empty()
        {
            let group =
                Group { offsets: earlier.offsets, held_offsets: true, ..Group::new(earlier.name, None) };
            self.groups.insert(group.name.clone(), group);
        }
    }
}

fn loaded_member(member: MemberMetadata, protocol: Option<&Str>) -> Member {
    let timeout_ms = |timeout_ms: i32| u32::try_from(timeout_ms).unwrap_or(0);
    let session_timeout_ms = timeout_ms(member.session_timeout);
    Member {
        instance_id: member.group_instance_id.map(|instance_id| instance_id.detach()),
        client_id: member.client_id.detach(),
        client_host: member.client_host.detach(),
        rebalance_timeout_ms: match member.rebalance_timeout {
            -1 => session_timeout_ms,
            rebalance_timeout => timeout_ms(rebalance_timeout),
        },
        session_timeout_ms,
        protocols: vec![Protocol {
            name: protocol.cloned().unwrap_or_default(),
            metadata: Bytes::copy_from_slice(&member.subscription),
        }],
        assignment: Bytes::copy_from_slice(&member.assignment),
        is_new: false,
        knows_id: true,
        join: None,
        sync: None,
        session: Alarm::default(),
    }
}
