//! DescribeGroups, ListGroups and DeleteGroups.

use highwater_wire::Str;

use crate::group::Group;
use crate::records::group_record;
use crate::turn::Turn;
use crate::{
    Answered, Coordinator, DescribedMember, Description, Effects, GroupError, GroupState, ListFilter, Listed,
    Now,
};

/// The type of all groups here, in the words of ListGroups.
const CLASSIC: &str = "classic";

impl Coordinator {
    /// Describes a group; `None` if there is none (versions below 6 call that `Dead`, others
    /// `GROUP_ID_NOT_FOUND`).
    pub fn describe(&self, group: &str) -> Option<Description> {
        let group = self.groups.get(group)?;
        let is_stable = group.state == GroupState::Stable;
        let protocol = group.protocol.as_ref().filter(|_| is_stable);
        let members = group.members.iter().map(|(id, member)| DescribedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        Some(Description {
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.cloned().unwrap_or_default(),
            members: members.collect(),
        })
    }

    /// Lists groups in order of their names.
    pub fn list(&self, filter: &ListFilter) -> Vec<Listed> {
        let allows = |names: &[Str], name: &str| {
            names.is_empty() || names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
        };
        if !allows(&filter.types, CLASSIC) {
            return Vec::new();
        }
        let wanted = self.groups.values().filter(|group| allows(&filter.states, group.state.name()));
        let listed = |group: &Group| Listed {
            group: group.name.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
        };
        wanted.map(listed).collect()
    }

    /// Deletes groups without members, with their offsets. The answer has one entry per group, in their order.
    pub fn delete_groups(&mut self, groups: &[Str], now: Now) -> Answered<Vec<Result<(), GroupError>>> {
        let mut effects = Effects::default();
        let mut answer = Vec::with_capacity(groups.len());
        for name in groups {
            let mut outcome = Err(GroupError::GroupIdNotFound);
            let caused = self.with_group(name, now, |turn, group| outcome = turn.delete(group));
            effects.append(caused.unwrap_or_default());
            answer.push(outcome);
        }
        Answered { answer, effects }
    }

    /// How many groups there are. Cheap.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }
}

impl Turn<'_> {
    /// Leaves the group idle, so that it is forgotten.
    fn delete(&mut self, group: &mut Group) -> Result<(), GroupError> {
        if group.state != GroupState::Empty {
            return Err(GroupError::NonEmptyGroup);
        }
        for mut alarm in std::mem::take(&mut group.pending_joins).into_values() {
            self.timers.clear(&mut alarm);
        }
        group.drop_offsets(|_, _| true, &mut self.effects.records);
        if std::mem::take(&mut group.is_durable) | std::mem::take(&mut group.held_offsets) {
            self.effects.records.push(group_record(&group.name, None));
        }
        Ok(())
    }
}
