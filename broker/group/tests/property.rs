//! Random histories, and what holds in all of them.
//!
//! Clients join, sync, commit, leave, fall silent and lose their connections in any order; administrators delete
//! things; the broker restarts. Checked:
//! 1. Each call is answered at most once, and none that is not parked any more.
//! 2. After long enough every call is answered that nobody abandoned.
//! 3. A new generation has exactly one leader, it alone gets the members, and all are told the same.
//! 4. The generations in a group's records never decrease until the group is deleted.
//! 5. Only commits write offsets, and exactly what was committed; nothing moves back by itself.
//! 6. What is in the log is what is in memory: replayed, it yields the same groups and offsets.
//! 7. Nobody is refused for his protocols, since all support the same.
//! 8. A group is forgotten or in the log, unless somebody is in it or on the way.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use highwater_group::records::{Decoded, decode};
use highwater_group::{
    Call, Client, CommitOffset, CommitRequest, Coordinator, Effects, Generation, GroupError, GroupState,
    HeartbeatRequest, JoinRequest, LeaveRequest, Leaving, ListFilter, Now, Protocol, Record, Reply, Settings,
    SyncAssignment, SyncRequest, TopicPartitionRef,
};
use highwater_record::{PartitionId, TimestampMs};
use highwater_wire::Str;
use proptest::prelude::*;

const GROUPS: [&str; 2] = ["g", "h"];
const TOPICS: [&str; 2] = ["t", "u"];
/// Longer than any session, rebalance and new member may last.
const LONG_MS: u64 = 4_000_000;

/// Members that clients remember.
const MEMBERS_MAX: usize = 8;

/// What happens. Small numbers choose among what there is: groups, members, calls.
#[derive(Clone, Debug)]
enum Op {
    Join {
        group: usize,
        member: Option<usize>,
        instance: Option<u8>,
        version: u8,
        flavour: u8,
        patience: u8,
    },
    Sync {
        member: usize,
        stale: bool,
    },
    Heartbeat {
        member: usize,
    },
    Leave {
        member: usize,
    },
    RemoveStatic {
        group: usize,
        instance: u8,
    },
    Commit {
        group: usize,
        member: Option<usize>,
        topic: usize,
        offset: i64,
        retention: bool,
    },
    Abandon {
        call: usize,
    },
    Wait {
        ms: u64,
    },
    /// Everybody joins again, and all but perhaps the leader ask for their assignment.
    Rally {
        group: usize,
        with_leader: bool,
    },
    /// Time passes while everybody's heart beats.
    Live {
        seconds: u64,
    },
    DeleteGroup {
        group: usize,
    },
    DeleteOffset {
        group: usize,
        topic: usize,
    },
    DeleteTopic {
        topic: usize,
    },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let group = 0..GROUPS.len();
    let topic = 0..TOPICS.len();
    let maybe = |of: std::ops::Range<usize>| proptest::option::weighted(0.8, of);
    let instance = proptest::option::weighted(0.3, 0..3_u8);
    let join = (group.clone(), maybe(0..6), instance, 0..10_u8, 0..4_u8, 0..3_u8);
    prop_oneof![
        8 => join.prop_map(|(group, member, instance, version, flavour, patience)| {
            Op::Join { group, member, instance, version, flavour, patience }
        }),
        8 => (0..6_usize, proptest::bool::weighted(0.1)).prop_map(|(member, stale)| Op::Sync { member, stale }),
        3 => (0..6_usize).prop_map(|member| Op::Heartbeat { member }),
        1 => (0..6_usize).prop_map(|member| Op::Leave { member }),
        1 => (group.clone(), 0..3_u8).prop_map(|(group, instance)| Op::RemoveStatic { group, instance }),
        3 => (group.clone(), maybe(0..6), topic.clone(), 0..100_i64, proptest::bool::weighted(0.2))
            .prop_map(|(group, member, topic, offset, retention)| {
                Op::Commit { group, member, topic, offset, retention }
            }),
        2 => (0..4_usize).prop_map(|call| Op::Abandon { call }),
        4 => prop_oneof![0..4_000_u64, 5_000..20_000_u64, 100_000..700_000_u64].prop_map(|ms| Op::Wait { ms }),
        3 => (group.clone(), any::<bool>())
            .prop_map(|(group, with_leader)| Op::Rally { group, with_leader }),
        1 => (1..70_u64).prop_map(|seconds| Op::Live { seconds }),
        1 => group.clone().prop_map(|group| Op::DeleteGroup { group }),
        1 => (group, topic.clone()).prop_map(|(group, topic)| Op::DeleteOffset { group, topic }),
        1 => topic.prop_map(|topic| Op::DeleteTopic { topic }),
        1 => Just(Op::Restart),
    ]
}

/// A client's view of its membership.
#[derive(Clone, Debug)]
struct Membership {
    group: Str,
    member_id: Str,
    instance_id: Option<Str>,
    generation: Option<Generation>,
    /// All members, if this one leads.
    led: Vec<Str>,
}

/// What is parked, and what for.
#[derive(Debug)]
struct Asked {
    group: Str,
    instance_id: Option<Str>,
}

struct World {
    coordinator: Coordinator,
    settings: Settings,
    now_ms: u64,
    next_call: u64,
    parked: BTreeMap<Call, Asked>,
    /// Members that clients believe in, the latest last.
    members: Vec<Membership>,
    log: Vec<Record>,
    /// By group: the generation of its last record.
    generations: BTreeMap<Str, i32>,
    /// By group: the highest generation handed out since the last restart or deletion.
    handed_out: BTreeMap<Str, i32>,
    offsets: BTreeMap<(Str, Str, i32), i64>,
    /// Groups that committed and were not deleted since.
    held_offsets: BTreeSet<Str>,
}

impl World {
    fn new() -> Self {
        let settings = Settings {
            // Short, so that histories meet it.
            offsets_retention_ms: 900_000,
            group_size_max: 4,
            ..Settings::default()
        };
        let mut coordinator = Coordinator::new(settings.clone());
        let _ = coordinator.loaded(Now { wall: TimestampMs(0), monotonic_ms: 0 });
        Self {
            coordinator,
            settings,
            now_ms: 0,
            next_call: 0,
            parked: BTreeMap::new(),
            members: Vec::new(),
            log: Vec::new(),
            generations: BTreeMap::new(),
            handed_out: BTreeMap::new(),
            offsets: BTreeMap::new(),
            held_offsets: BTreeSet::new(),
        }
    }

    fn now(&self) -> Now {
        let wall = TimestampMs(i64::try_from(self.now_ms).expect("a history is not that long"));
        Now { wall, monotonic_ms: self.now_ms }
    }

    fn member(&self, index: usize) -> Option<Membership> {
        self.members.iter().rev().nth(index).cloned()
    }

    fn ask(&mut self, group: &Str, instance_id: Option<&Str>) -> Call {
        self.next_call += 1;
        let call = Call(self.next_call);
        self.parked.insert(call, Asked { group: group.clone(), instance_id: instance_id.cloned() });
        call
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Join { group, member, instance, version, flavour, patience } => {
                let member = member.and_then(|index| self.member(index));
                self.join(group, member, instance, (version, flavour, patience));
            }
            Op::Sync { member, stale } => self.sync(member, stale),
            Op::Heartbeat { member } => self.heartbeat(member),
            Op::Leave { member } => {
                if let Some(member) = self.member(member) {
                    self.leave(member.group, member.member_id, member.instance_id);
                }
            }
            Op::RemoveStatic { group, instance } => {
                self.leave(Str::from(GROUPS[group]), Str::default(), Some(instance_id(instance)));
            }
            Op::Commit { group, member, topic, offset, retention } => {
                let member = member.and_then(|index| self.member(index));
                self.commit(group, member, (topic, offset, retention));
            }
            Op::Abandon { call } => {
                if let Some(call) = self.parked.keys().nth(call).copied() {
                    self.parked.remove(&call);
                    let effects = self.coordinator.abandon(call, self.now());
                    self.take(effects, None);
                }
            }
            Op::Wait { ms } => self.wait(ms),
            Op::Rally { group, with_leader } => self.rally(&Str::from(GROUPS[group]), with_leader),
            Op::Live { seconds } => {
                for _ in 0..seconds {
                    (0..self.members.len()).for_each(|member| self.heartbeat(member));
                    self.wait(1_000);
                }
            }
            Op::DeleteGroup { group } => {
                let answered = self.coordinator.delete_groups(&[Str::from(GROUPS[group])], self.now());
                if answered.answer == [Ok(())] {
                    self.handed_out.remove(GROUPS[group]);
                }
                self.take(answered.effects, None);
            }
            Op::DeleteOffset { group, topic } => {
                let which =
                    TopicPartitionRef { topic: Str::from(TOPICS[topic]), partition: PartitionId::ZERO };
                let answered = self.coordinator.delete_offsets(GROUPS[group], &[which], self.now());
                self.take(answered.effects, None);
            }
            Op::DeleteTopic { topic } => {
                let effects = self.coordinator.topic_deleted(TOPICS[topic], None, self.now());
                self.take(effects, None);
            }
            Op::Restart => self.restart(),
        }
    }

    fn join(
        &mut self,
        group: usize,
        member: Option<Membership>,
        instance: Option<u8>,
        (version, flavour, patience): (u8, u8, u8),
    ) {
        let (group, member_id, instance_id) = match member {
            Some(member) => (member.group, member.member_id, member.instance_id),
            None => (Str::from(GROUPS[group]), Str::default(), instance.map(instance_id)),
        };
        let call = self.ask(&group, instance_id.as_ref());
        let protocol = |name| Protocol { name: Str::from_static(name), metadata: subscription(flavour) };
        let mut protocols = vec![protocol("range"), protocol("sticky")];
        if flavour % 2 == 1 {
            protocols.reverse();
        }
        let mut unique = [0; 16];
        unique[8..].copy_from_slice(&call.0.to_be_bytes());
        let request = JoinRequest {
            group,
            member_id,
            instance_id,
            protocol_type: Str::from_static("consumer"),
            protocols,
            session_timeout_ms: 6_000 + 10_000 * i32::from(patience),
            rebalance_timeout_ms: (version > 0).then_some(20_000 * i32::from(patience)),
            require_known_member_id: version >= 4,
            supports_skip_assignment: version >= 9,
            client: Client { id: Str::from_static("c"), host: Str::default() },
            unique,
            may_create: true,
            room_bytes: usize::MAX,
        };
        let effects = self.coordinator.join(call, request, self.now());
        self.take(effects, None);
    }

    fn sync(&mut self, member: usize, stale: bool) {
        let Some(member) = self.member(member) else {
            return;
        };
        let call = self.ask(&member.group, member.instance_id.as_ref());
        let generation = if stale { Generation::new(0) } else { member.generation };
        let assignment = |id: &Str| SyncAssignment {
            member_id: id.clone(),
            assignment: Bytes::from(format!("{id} in {generation:?}")),
        };
        let request = SyncRequest {
            group: member.group,
            generation,
            member_id: member.member_id,
            instance_id: member.instance_id,
            protocol_type: None,
            protocol: None,
            assignments: member.led.iter().map(assignment).collect(),
            room_bytes: usize::MAX,
        };
        let effects = self.coordinator.sync(call, request, self.now());
        self.take(effects, None);
    }

    fn rally(&mut self, group: &Str, with_leader: bool) {
        let ids = |world: &Self| -> Vec<Membership> {
            world.members.iter().filter(|member| member.group == *group).cloned().collect()
        };
        for member in ids(self) {
            self.join(0, Some(member), None, (9, 0, 2));
        }
        self.wait(7_000);
        for member in ids(self) {
            let index = self.members.iter().rev().position(|other| other.member_id == member.member_id);
            if let Some(index) = index.filter(|_| with_leader || member.led.is_empty()) {
                self.sync(index, false);
            }
        }
    }

    fn heartbeat(&mut self, member: usize) {
        if let Some(member) = self.member(member) {
            let request = HeartbeatRequest {
                group: member.group,
                generation: member.generation,
                member_id: member.member_id,
                instance_id: member.instance_id,
            };
            let _ = self.coordinator.heartbeat(&request, self.now());
        }
    }

    fn leave(&mut self, group: Str, member_id: Str, instance_id: Option<Str>) {
        let members = vec![Leaving { member_id, instance_id }];
        let answered = self.coordinator.leave(LeaveRequest { group, members }, self.now());
        self.take(answered.effects, None);
    }

    fn commit(
        &mut self,
        group: usize,
        member: Option<Membership>,
        (topic, offset, retention): (usize, i64, bool),
    ) {
        let simple = Membership {
            group: Str::from(GROUPS[group]),
            member_id: Str::default(),
            instance_id: None,
            generation: None,
            led: Vec::new(),
        };
        let Membership { group, member_id, instance_id, generation, .. } = member.unwrap_or(simple);
        let topic = Str::from(TOPICS[topic]);
        let commit = CommitOffset {
            topic: topic.clone(),
            topic_id: None,
            partition: PartitionId::ZERO,
            offset,
            leader_epoch: None,
            metadata: Str::default(),
        };
        let request = CommitRequest {
            group: group.clone(),
            generation,
            member_id,
            instance_id,
            retention_ms: retention.then_some(1_000),
            offsets: vec![commit],
            knows_group_id_not_found: true,
            may_create: true,
        };
        let answered = self.coordinator.commit(request, self.now());
        let committed = (answered.answer == Ok(vec![Ok(())])).then_some(((group, topic, 0), offset));
        assert_eq!(committed.is_some(), !answered.effects.records.is_empty());
        self.take(answered.effects, committed);
    }

    fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(deadline_ms) = self.coordinator.next_deadline().filter(|at_ms| *at_ms <= until_ms) {
            self.now_ms = self.now_ms.max(deadline_ms);
            let effects = self.coordinator.expire(self.now());
            self.take(effects, None);
        }
        self.now_ms = until_ms;
    }

    /// The broker starts again. Connections and what they waited for are gone.
    fn restart(&mut self) {
        self.coordinator = self.replayed();
        self.parked.clear();
        self.handed_out.clear();
        let effects = self.coordinator.loaded(self.now());
        self.take(effects, None);
    }

    fn replayed(&self) -> Coordinator {
        let mut coordinator = Coordinator::new(self.settings.clone());
        for record in &self.log {
            coordinator.replay(record.key.clone(), record.value.clone()).expect("its own record");
        }
        coordinator
    }

    /// Deals with what came out. `committed` is the offset that the event committed.
    fn take(&mut self, effects: Effects, committed: Option<((Str, Str, i32), i64)>) {
        for record in effects.records {
            self.take_record(&record, committed.as_ref());
            self.log.push(record);
        }
        self.check_generations(&effects.replies);
        for (call, reply) in effects.replies {
            let asked = self.parked.remove(&call).unwrap_or_else(|| panic!("{call:?} is not parked"));
            self.take_reply(asked, reply);
        }
    }

    fn take_record(&mut self, record: &Record, committed: Option<&((Str, Str, i32), i64)>) {
        match decode(record.key.clone(), record.value.clone()).expect("its own record") {
            Decoded::Offset { key, value: Some(value) } => {
                let key = (key.group, key.topic, key.partition);
                assert_eq!(committed, Some(&(key.clone(), value.offset)), "only commits write offsets");
                self.held_offsets.insert(key.0.clone());
                self.offsets.insert(key, value.offset);
            }
            Decoded::Offset { key, value: None } => {
                let was_there = self.offsets.remove(&(key.group, key.topic, key.partition)).is_some();
                assert!(was_there, "a tombstone is for something");
            }
            Decoded::Group { key, value: Some(value) } => {
                let earlier = self.generations.insert(key.group, value.generation);
                assert!(
                    earlier.is_none_or(|earlier| earlier <= value.generation),
                    "generations never decrease"
                );
            }
            Decoded::Group { key, value: None } => {
                let had_generation = self.generations.remove(&key.group).is_some();
                let had_offsets = self.held_offsets.remove(&key.group);
                assert!(had_generation || had_offsets, "a tombstone is for something");
                self.handed_out.remove(&key.group);
            }
            Decoded::Unknown { kind, .. } => panic!("type {kind} is not ours"),
        }
    }

    /// Those who hear of a new generation hear the same, and exactly one leads.
    fn check_generations(&mut self, replies: &[(Call, Reply)]) {
        let mut begun: BTreeMap<(Str, i32), (usize, BTreeSet<Str>)> = BTreeMap::new();
        for (call, reply) in replies {
            let Reply::Join(reply) = reply else {
                continue;
            };
            let (Ok(joined), Some(asked)) = (&reply.outcome, self.parked.get(call)) else {
                continue;
            };
            let generation = joined.generation.get();
            let latest = self.handed_out.get(&asked.group).copied().unwrap_or(0);
            assert!(latest <= generation, "generations never decrease");
            if latest < generation {
                let (leaders, names) = begun.entry((asked.group.clone(), generation)).or_default();
                let leads = joined.leader == reply.member_id;
                assert_eq!(leads, !joined.members.is_empty(), "the leader alone gets the members");
                *leaders += usize::from(leads);
                names.insert(joined.leader.clone());
            }
        }
        for ((group, generation), (leaders, names)) in begun {
            // After a restart the first to hear may repeat a join of a generation that has long begun.
            if self.generations.get(&group) != Some(&generation) {
                assert_eq!((leaders, names.len()), (1, 1), "a generation has one leader");
            }
            self.handed_out.insert(group, generation);
        }
    }

    fn take_reply(&mut self, asked: Asked, reply: Reply) {
        let Reply::Join(reply) = reply else {
            return;
        };
        assert_ne!(reply.outcome, Err(GroupError::InconsistentGroupProtocol), "all support the same");
        if reply.member_id.is_empty() {
            return;
        }
        self.members.retain(|member| member.group != asked.group || member.member_id != reply.member_id);
        let joined = reply.outcome.ok();
        if self.members.len() == MEMBERS_MAX {
            self.members.remove(0);
        }
        self.members.push(Membership {
            group: asked.group,
            member_id: reply.member_id,
            instance_id: asked.instance_id,
            generation: joined.as_ref().map(|joined| joined.generation),
            led: joined
                .into_iter()
                .flat_map(|joined| joined.members)
                .map(|member| member.member_id)
                .collect(),
        });
    }

    fn fetched(coordinator: &Coordinator) -> BTreeMap<(Str, Str, i32), i64> {
        let mut all = BTreeMap::new();
        for group in GROUPS {
            for found in coordinator.fetch_all_offsets(group, |_, _| true) {
                let key = (Str::from(group), found.topic, found.partition.get());
                all.insert(key, found.committed.offset);
            }
        }
        all
    }

    fn names(coordinator: &Coordinator) -> BTreeSet<Str> {
        coordinator.list(&ListFilter::default()).into_iter().map(|listed| listed.group).collect()
    }

    /// Memory and log agree.
    fn check_durable(&self) {
        let replayed = self.replayed();
        assert_eq!(self.coordinator.counts().parked, self.parked.len());
        assert_eq!(Self::fetched(&self.coordinator), self.offsets);
        assert_eq!(Self::fetched(&replayed), self.offsets);

        let in_log: BTreeSet<Str> = self.generations.keys().chain(&self.held_offsets).cloned().collect();
        assert_eq!(Self::names(&replayed), in_log);
        for name in Self::names(&self.coordinator).union(&in_log) {
            let live = self.coordinator.describe(name).expect("what is in the log is in memory");
            let is_settled = matches!(live.state, GroupState::Stable | GroupState::Empty);
            if is_settled && in_log.contains(name) {
                assert_eq!(replayed.describe(name), Some(live), "group {name}");
            }
        }
    }

    /// Nobody does anything any more.
    fn check_end(&mut self) {
        self.wait(LONG_MS);
        assert!(self.parked.is_empty(), "never answered: {:?}", self.parked);
        let counts = self.coordinator.counts();
        assert_eq!((counts.members, counts.groups()), (0, 0), "everything expires");
        assert_eq!(self.coordinator.member_bytes(), 0, "nobody brings anything");
        self.check_durable();
    }
}

fn instance_id(number: u8) -> Str {
    Str::from(format!("i{number}"))
}

/// Flavours differ in the topics and in the order of the protocols.
fn subscription(flavour: u8) -> Bytes {
    let topics: &[u8] =
        if flavour < 2 { b"\x00\x00\x00\x00\x00\x01\x00\x01t" } else { b"\x00\x00\x00\x00\x00\x00" };
    Bytes::copy_from_slice(topics)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "one history takes Miri minutes; the transcripts drive the same machines")]
    fn the_log_has_the_state_and_every_call_has_one_answer(history in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in &history {
            world.run(op);
            world.check_durable();
        }
        world.check_end();
    }
}
