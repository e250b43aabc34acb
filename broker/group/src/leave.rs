//! LeaveGroup: members leave, alone or removed by an administrator.

use highwater_wire::Str;

use crate::coordinator::check_group_name;
use crate::group::Group;
use crate::turn::Turn;
use crate::{Answered, Coordinator, Effects, GroupError, LeaveRequest, Leaving, Left, Now, Reason};

impl Coordinator {
    /// Members leave. The answer has one entry per member, in their order, also if there is no such group: then it
    /// has no such member.
    pub fn leave(&mut self, request: LeaveRequest, now: Now) -> Answered<Result<Vec<Left>, GroupError>> {
        if let Err(error) = check_group_name(&request.group) {
            return Answered { answer: Err(error), effects: Effects::default() };
        }
        let mut left = None;
        let effects = self.with_group(&request.group, now, |turn, group| {
            left = Some(turn.leave(group, &request.members));
        });
        let nobody =
            || request.members.iter().map(|member| left_as(member, Err(GroupError::UnknownMemberId)));
        let answer = Ok(left.unwrap_or_else(|| nobody().collect()));
        Answered { answer, effects: effects.unwrap_or_default() }
    }
}

impl Turn<'_> {
    fn leave(&mut self, group: &mut Group, leaving: &[Leaving]) -> Vec<Left> {
        let count = group.members.len();
        let mut all_left = Vec::with_capacity(leaving.len());
        for member in leaving {
            let outcome = self.leave_one(group, member);
            all_left.push(left_as(member, outcome));
        }
        if group.members.len() < count {
            self.rebalance_or_complete(group, Reason::MemberLeft);
        } else {
            // Somebody less may be on the way.
            self.complete_join_if_all_joined(group);
        }
        all_left
    }

    fn leave_one(&mut self, group: &mut Group, leaving: &Leaving) -> Result<(), GroupError> {
        if !leaving.member_id.is_empty() && self.remove_pending(group, &leaving.member_id) {
            return Ok(());
        }
        let id = member_id(group, leaving)?;
        self.remove(group, &id);
        Ok(())
    }
}

fn left_as(member: &Leaving, outcome: Result<(), GroupError>) -> Left {
    Left { member_id: member.member_id.clone(), instance_id: member.instance_id.clone(), outcome }
}

/// The member that is meant. An administrator names it by its instance id alone.
fn member_id(group: &Group, leaving: &Leaving) -> Result<Str, GroupError> {
    if leaving.member_id.is_empty() {
        let named = leaving.instance_id.as_ref().and_then(|instance_id| group.statics.get(instance_id));
        return named.cloned().ok_or(GroupError::UnknownMemberId);
    }
    group.check_member(&leaving.member_id, leaving.instance_id.as_ref())?;
    Ok(leaving.member_id.clone())
}
