//! Committed offsets: OffsetCommit, OffsetFetch, OffsetDelete, deleted topics, and what expires.

use std::collections::BTreeMap;

use highwater_record::{PartitionId, TimestampMs, TopicId};
use highwater_wire::Str;

use crate::group::Group;
use crate::records::{group_record, offset_record};
use crate::turn::Turn;
use crate::{
    Answered, CommitOffset, CommitRequest, Committed, Coordinator, Effects, FetchedOffset, GroupError,
    GroupState, Now, Record, TopicPartitionRef, WantedOffset,
};

impl Coordinator {
    /// Commits offsets. The answer has one entry per offset, in their order.
    ///
    /// Members commit in their generation, also while the group prepares the next one. Outside of membership
    /// (no generation, no member) offsets are committed to groups without members only, and a group is made for
    /// them.
    pub fn commit(
        &mut self,
        request: CommitRequest,
        now: Now,
    ) -> Answered<Result<Vec<Result<(), GroupError>>, GroupError>> {
        let refuse = |error| Answered { answer: Err(error), effects: Effects::default() };
        if !self.groups.contains_key(&request.group) && request.generation.is_some() {
            let knows = request.knows_group_id_not_found;
            return refuse(if knows { GroupError::GroupIdNotFound } else { GroupError::IllegalGeneration });
        }
        let mut answer = Ok(Vec::new());
        let effects = self.with_new_group(&request.group, request.may_create, now, |turn, group| {
            answer = turn.commit(group, &request);
        });
        match effects {
            Ok(effects) => Answered { answer, effects },
            Err(error) => refuse(error),
        }
    }

    /// Looks up committed offsets, one per entry of `wanted` in its order; absent ones are `None`. A group that
    /// does not exist has none.
    pub fn fetch_offsets(&self, group: &str, wanted: &[WantedOffset]) -> Vec<Option<Committed>> {
        let offsets = self.groups.get(group).map(|group| &group.offsets);
        let find = |wanted: &WantedOffset| {
            let committed = offsets?.get(&wanted.topic)?.get(&wanted.partition)?;
            is_for(committed, wanted.topic_id).then(|| committed.clone())
        };
        wanted.iter().map(find).collect()
    }

    /// All committed offsets of a group for which `is_current` holds: it gets the topic's name and the id for
    /// which the offset was committed, if that was known. In order of topic and partition.
    pub fn fetch_all_offsets(
        &self,
        group: &str,
        is_current: impl Fn(&str, Option<TopicId>) -> bool,
    ) -> Vec<FetchedOffset> {
        let mut all = Vec::new();
        for (topic, partitions) in self.groups.get(group).iter().flat_map(|group| &group.offsets) {
            for (partition, committed) in partitions {
                if is_current(topic, committed.topic_id) {
                    let (topic, committed) = (topic.clone(), committed.clone());
                    all.push(FetchedOffset { topic, partition: *partition, committed });
                }
            }
        }
        all
    }

    /// Deletes committed offsets. The answer has one entry per partition, in their order; an offset that is not
    /// there is deleted successfully.
    pub fn delete_offsets(
        &mut self,
        group: &str,
        partitions: &[TopicPartitionRef],
        now: Now,
    ) -> Answered<Result<Vec<Result<(), GroupError>>, GroupError>> {
        let mut answer = Err(GroupError::GroupIdNotFound);
        let effects = self.with_group(group, now, |turn, group| {
            if group.state != GroupState::Empty && !group.is_of_consumers() {
                answer = Err(GroupError::NonEmptyGroup);
            } else {
                answer = Ok(partitions.iter().map(|which| turn.delete_offset(group, which)).collect());
            }
        });
        Answered { answer, effects: effects.unwrap_or_default() }
    }

    /// Drops the committed offsets of a deleted topic in all groups: those for `topic_id`, and those for an
    /// unknown id. Without an id, all for the name.
    pub fn topic_deleted(&mut self, topic: &str, topic_id: Option<TopicId>, now: Now) -> Effects {
        let holds = |group: &Group| group.offsets.contains_key(topic);
        let names: Vec<Str> =
            self.groups.values().filter(|group| holds(group)).map(|group| group.name.clone()).collect();
        let mut effects = Effects::default();
        for name in names {
            let dropped = self.with_group(&name, now, |turn, group| {
                let of_topic =
                    |name: &Str, committed: &Committed| *name == topic && is_for(committed, topic_id);
                group.drop_offsets(of_topic, &mut turn.effects.records);
            });
            effects.append(dropped.unwrap_or_default());
        }
        effects
    }

    /// Drops what is older than the retention, and groups that have nothing any more.
    pub(crate) fn drop_expired_offsets(&mut self, now: Now) -> Effects {
        let (groups, mut turn) = self.turn(now);
        groups.retain(|name, group| {
            turn.drop_expired(group);
            let is_over = group.state == GroupState::Empty
                && group.pending_joins.is_empty()
                && group.offsets.is_empty();
            if is_over && (group.is_durable || group.held_offsets) {
                turn.effects.records.push(group_record(name, None));
            }
            !is_over
        });
        turn.effects
    }
}

impl Turn<'_> {
    fn commit(
        &mut self,
        group: &mut Group,
        request: &CommitRequest,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        group.check_commit(request)?;
        if matches!(group.state, GroupState::Stable | GroupState::PreparingRebalance) {
            self.touch(group, &request.member_id);
        }
        let retention_ms = request.retention_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let expires_at = retention_ms.map(|ms| TimestampMs(self.now.wall.0.saturating_add(ms)));
        Ok(request.offsets.iter().map(|offset| self.commit_one(group, offset, expires_at)).collect())
    }

    fn commit_one(
        &mut self,
        group: &mut Group,
        offset: &CommitOffset,
        expires_at: Option<TimestampMs>,
    ) -> Result<(), GroupError> {
        let (bytes, limit) = (offset.metadata.as_bytes().len(), self.settings.offset_metadata_bytes_max);
        if bytes > limit {
            return Err(GroupError::OffsetMetadataTooLarge { bytes, limit });
        }
        // The form of a record that has an expiry has neither epoch nor id, and what the log does not say must
        // not be known before a restart either.
        let has_all = expires_at.is_none();
        let committed = Committed {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch.filter(|_| has_all),
            metadata: offset.metadata.detach(),
            committed_at: self.now.wall,
            expires_at,
            topic_id: offset.topic_id.filter(|_| has_all),
        };
        let record = offset_record(&group.name, &offset.topic, offset.partition, Some(&committed));
        self.effects.records.push(record);
        group.set_offset(&offset.topic, offset.partition, committed);
        Ok(())
    }

    fn delete_offset(&mut self, group: &mut Group, which: &TopicPartitionRef) -> Result<(), GroupError> {
        if group.is_subscribed_to(&which.topic) {
            return Err(GroupError::GroupSubscribedToTopic);
        }
        if group.remove_offset(&which.topic, which.partition) {
            self.effects.records.push(offset_record(&group.name, &which.topic, which.partition, None));
        }
        Ok(())
    }

    fn drop_expired(&mut self, group: &mut Group) {
        let Some(rule) = Expiry::of(group) else {
            return;
        };
        let (now, retention_ms) = (self.now.wall, self.settings.offsets_retention_ms);
        let subscribed = group.subscribed.take();
        let is_read = |topic: &Str| subscribed.as_ref().is_some_and(|topics| topics.contains(topic));
        let is_old = |topic: &Str, committed: &Committed| {
            !is_read(topic) && rule.has_expired(committed, now, retention_ms)
        };
        let before = self.effects.records.len();
        group.drop_offsets(is_old, &mut self.effects.records);
        group.subscribed = subscribed;
        let dropped = self.effects.records.len() - before;
        self.tally.offsets_expired += u64::try_from(dropped).unwrap_or(u64::MAX);
    }
}

/// From when on the age of offsets counts (`ClassicGroup.offsetExpirationCondition`).
enum Expiry {
    /// Since the group is empty.
    SinceEmpty(TimestampMs),
    /// Since each was committed.
    SinceCommit,
}

impl Expiry {
    /// `None` while members may need all offsets.
    fn of(group: &Group) -> Option<Self> {
        match (&group.protocol_type, group.state) {
            (None, _) => Some(Self::SinceCommit),
            (Some(_), GroupState::Empty) => Some(group.since.map_or(Self::SinceCommit, Self::SinceEmpty)),
            (Some(_), GroupState::Stable) if group.is_of_consumers() && group.subscribed.is_some() => {
                Some(Self::SinceCommit)
            }
            _ => None,
        }
    }

    fn has_expired(&self, committed: &Committed, now: TimestampMs, retention_ms: u64) -> bool {
        if let Some(expires_at) = committed.expires_at {
            return now >= expires_at;
        }
        let since = match self {
            Self::SinceEmpty(since) => *since,
            Self::SinceCommit => committed.committed_at,
        };
        now.0
            .checked_sub(since.0)
            .and_then(|age| u64::try_from(age).ok())
            .is_some_and(|age| age >= retention_ms)
    }
}

impl Group {
    /// `ClassicGroup.validateOffsetCommit`.
    fn check_commit(&self, request: &CommitRequest) -> Result<(), GroupError> {
        if request.generation.is_none() && self.state == GroupState::Empty {
            return Ok(());
        }
        let is_simple =
            request.generation.is_none() && request.member_id.is_empty() && request.instance_id.is_none();
        if is_simple {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        self.check_generation(request.generation)?;
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    pub(crate) fn set_offset(&mut self, topic: &Str, partition: PartitionId, committed: Committed) {
        self.held_offsets = true;
        match self.offsets.get_mut(topic) {
            Some(partitions) => drop(partitions.insert(partition, committed)),
            None => drop(self.offsets.insert(topic.detach(), BTreeMap::from([(partition, committed)]))),
        }
    }

    /// False if it is not there.
    pub(crate) fn remove_offset(&mut self, topic: &Str, partition: PartitionId) -> bool {
        let Some(partitions) = self.offsets.get_mut(topic) else {
            return false;
        };
        let was_there = partitions.remove(&partition).is_some();
        if partitions.is_empty() {
            self.offsets.remove(topic);
        }
        was_there
    }

    /// Drops the offsets that `is_out` names, and writes their tombstones.
    pub(crate) fn drop_offsets(
        &mut self,
        is_out: impl Fn(&Str, &Committed) -> bool,
        tombstones: &mut Vec<Record>,
    ) {
        let name = &self.name;
        self.offsets.retain(|topic, partitions| {
            partitions.retain(|partition, committed| {
                let is_out = is_out(topic, committed);
                if is_out {
                    tombstones.push(offset_record(name, topic, *partition, None));
                }
                !is_out
            });
            !partitions.is_empty()
        });
    }
}

/// Whether an offset was committed for the topic that is asked about, as far as is known.
fn is_for(committed: &Committed, topic_id: Option<TopicId>) -> bool {
    match (committed.topic_id, topic_id) {
        (Some(of), Some(asked)) => of == asked,
        _ => true,
    }
}
