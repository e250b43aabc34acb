//! The machine: one method per event.

use bytes::Bytes;
use highwater_record::{TimestampMs, TopicId};
use highwater_wire::Str;

use crate::{
    Answered, Call, CommitRequest, Committed, Counts, Description, Effects, FetchedOffset, GroupError,
    HeartbeatRequest, JoinRequest, LeaveRequest, Left, ListFilter, Listed, Now, Rebalance, ReplayError,
    Settings, SyncRequest, TopicPartitionRef, WantedOffset,
};

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
}

impl Coordinator {
    /// A coordinator without groups.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Takes in one record of the partition, in the order of the log.
    ///
    /// Records of unknown type or version (a newer Kafka's) are skipped and counted.
    ///
    /// # Errors
    ///
    /// If a record of a known type is malformed; the state is then as before it.
    pub fn replay(
        &mut self,
        key: Bytes,
        value: Option<Bytes>,
        timestamp: TimestampMs,
    ) -> Result<(), ReplayError> {
        let _ = (key, value, timestamp, &self.settings);
        unimplemented!()
    }

    /// Begins service after the replay: members get a fresh session, and groups that are too large rebalance.
    pub fn loaded(&mut self, now: Now) -> Effects {
        let _ = now;
        unimplemented!()
    }

    /// A member joins. The reply comes now or when the rebalance completes.
    pub fn join(&mut self, call: Call, request: JoinRequest, now: Now) -> Effects {
        let _ = (call, request, now);
        unimplemented!()
    }

    /// A member asks for its assignment. The reply comes now or when the leader has brought the assignments.
    pub fn sync(&mut self, call: Call, request: SyncRequest, now: Now) -> Effects {
        let _ = (call, request, now);
        unimplemented!()
    }

    /// A member says that it is alive. The answer need not wait for durability.
    ///
    /// # Errors
    ///
    /// What the member has to hear: that it is unknown or fenced, or that the group rebalances.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now: Now) -> Result<(), GroupError> {
        let _ = (request, now);
        unimplemented!()
    }

    /// Members leave. The answer has one entry per member, in their order.
    pub fn leave(&mut self, request: LeaveRequest, now: Now) -> Answered<Result<Vec<Left>, GroupError>> {
        let _ = (request, now);
        unimplemented!()
    }

    /// Commits offsets. The answer has one entry per offset, in their order.
    pub fn commit(
        &mut self,
        request: CommitRequest,
        now: Now,
    ) -> Answered<Result<Vec<Result<(), GroupError>>, GroupError>> {
        let _ = (request, now);
        unimplemented!()
    }

    /// Looks up committed offsets, one per entry of `wanted` in its order; absent ones are `None`. A group that
    /// does not exist has none.
    pub fn fetch_offsets(&self, group: &str, wanted: &[WantedOffset]) -> Vec<Option<Committed>> {
        let _ = (group, wanted);
        unimplemented!()
    }

    /// All committed offsets of a group for which `is_current` holds: it gets the topic's name and the id for
    /// which the offset was committed, if that was known. In order of topic and partition.
    pub fn fetch_all_offsets(
        &self,
        group: &str,
        is_current: impl Fn(&str, Option<TopicId>) -> bool,
    ) -> Vec<FetchedOffset> {
        let _ = (group, is_current);
        unimplemented!()
    }

    /// Describes a group; `None` if there is none (versions below 6 call that `Dead`, others
    /// `GROUP_ID_NOT_FOUND`).
    pub fn describe(&self, group: &str) -> Option<Description> {
        let _ = group;
        unimplemented!()
    }

    /// Lists groups in order of their names.
    pub fn list(&self, filter: &ListFilter) -> Vec<Listed> {
        let _ = filter;
        unimplemented!()
    }

    /// Deletes groups without members, with their offsets. The answer has one entry per group, in their order.
    pub fn delete_groups(&mut self, groups: &[Str], now: Now) -> Answered<Vec<Result<(), GroupError>>> {
        let _ = (groups, now);
        unimplemented!()
    }

    /// Deletes committed offsets. The answer has one entry per partition, in their order.
    pub fn delete_offsets(
        &mut self,
        group: &str,
        partitions: &[TopicPartitionRef],
        now: Now,
    ) -> Answered<Result<Vec<Result<(), GroupError>>, GroupError>> {
        let _ = (group, partitions, now);
        unimplemented!()
    }

    /// Drops the committed offsets of a deleted topic in all groups: those for `topic_id`, and those for an
    /// unknown id.
    pub fn topic_deleted(&mut self, topic: &str, topic_id: Option<TopicId>, now: Now) -> Effects {
        let _ = (topic, topic_id, now);
        unimplemented!()
    }

    /// The connection of a call closed before its reply. Nothing is sent for `call` any more. A member that was
    /// about to learn its id is dropped, since nobody can ever use it; another has its session timeout to come
    /// back.
    pub fn abandon(&mut self, call: Call, now: Now) -> Effects {
        let _ = (call, now);
        unimplemented!()
    }

    /// When to call [`Self::expire`] next, in milliseconds of the monotonic clock. Cheap. May be too early,
    /// never too late.
    pub fn next_deadline(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Does what is due: sessions, rebalances, old offsets.
    pub fn expire(&mut self, now: Now) -> Effects {
        let _ = now;
        unimplemented!()
    }

    /// The last rebalances of a group, the oldest first; at most 20 since the coordinator was loaded.
    pub fn rebalances(&self, group: &str) -> Vec<Rebalance> {
        let _ = group;
        unimplemented!()
    }

    /// Numbers for metrics.
    pub fn counts(&self) -> Counts {
        unimplemented!()
    }
}
