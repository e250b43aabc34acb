//! The events of a script. Words with `=` are options, in any order; the others are what the event is about.
//!
//! ```text
//! settings size=2 metadata=200 record=300 delay=0 retention=
//! join CALL member= static= v=9 type=consumer protocols=range,sticky topics=t,u session=10000 rebalance=60000
//!      group=g client=c full=yes room=BYTES raw=METADATA
//! sync CALL member= static= generation= c#1=READS... type= protocol= group= room=
//! heartbeat member= static= generation= group=
//! leave MEMBER[/INSTANCE]... group=
//! commit TOPIC-PARTITION=OFFSET[@EPOCH]... member= static= generation= metadata= retention= id= v= full= group=
//! fetch [TOPIC-PARTITION]... id= group=
//! describe group=
//! rebalances
//! list states= types=
//! delete GROUP...
//! forget TOPIC-PARTITION... group=
//! topic-deleted TOPIC id=
//! abandon CALL
//! wait MS
//! reload
//! counts | bytes
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_group::{
    Call, Client, CommitOffset, CommitRequest, Coordinator, FetchedOffset, Generation, HeartbeatRequest,
    JoinRequest, LeaveRequest, Leaving, ListFilter, Protocol, Reason, SyncAssignment, SyncRequest,
    TopicPartitionRef, WantedOffset,
};
use highwater_record::{LeaderEpoch, PartitionId, TopicId};
use highwater_wire::{Str, Writer};

use crate::script::{Run, long, topics_text};

/// The words of an event.
struct Words<'a> {
    /// Those that are not options.
    plain: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

/// What has a name before its `=` that is not an option's.
fn is_plain(name: &str) -> bool {
    name.contains(['#', '-'])
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let mut words = Self { plain: Vec::new(), options: BTreeMap::new() };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) if !is_plain(name) => drop(words.options.insert(name, value)),
                _ => words.plain.push(word),
            }
        }
        words
    }

    fn option(&self, name: &str) -> Option<&'a str> {
        self.options.get(name).copied()
    }

    fn text(&self, name: &str, default: &str) -> Str {
        Str::from(self.option(name).unwrap_or(default))
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.option(name).map(|value| value.parse().expect("a number"))
    }

    fn int(&self, name: &str, default: i32) -> i32 {
        self.number(name).map_or(default, |value| value.try_into().expect("a number of 32 bits"))
    }

    fn group(&self) -> Str {
        self.text("group", "g")
    }

    fn member(&self) -> Str {
        self.option("member").map(long).unwrap_or_default()
    }

    fn instance(&self) -> Option<Str> {
        self.option("static").map(Str::from)
    }

    fn generation(&self) -> Option<Generation> {
        Generation::new(self.int("generation", -1))
    }

    fn call(&self) -> Call {
        Call(self.plain.first().and_then(|word| word.parse().ok()).expect("the number of a call"))
    }

    fn list(&self, name: &str, default: &'a str) -> Vec<&'a str> {
        self.option(name).unwrap_or(default).split(',').filter(|item| !item.is_empty()).collect()
    }

    fn topic_id(&self) -> Option<TopicId> {
        self.number("id").and_then(|id| TopicId::new([id.try_into().expect("a small id"); 16]))
    }

    fn room_bytes(&self) -> usize {
        self.number("room").map_or(usize::MAX, |bytes| bytes.try_into().expect("not negative"))
    }

    fn may_create(&self) -> bool {
        self.option("full").is_none()
    }
}

/// `topic-partition`, and what follows a `=`.
fn partition(word: &str) -> (Str, PartitionId, &str) {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let (topic, partition) = name.rsplit_once('-').expect("topic-partition");
    let partition = partition.parse().ok().and_then(PartitionId::new).expect("a partition");
    (Str::from(topic), partition, value)
}

/// What a consumer says about itself, as Kafka's version 0.
fn subscription(topics: &[&str]) -> Bytes {
    let mut writer = Writer::new();
    writer.int16(0);
    writer.int32(i32::try_from(topics.len()).expect("few topics"));
    for topic in topics {
        writer.string(Some(topic), false).expect("a short name");
    }
    writer.int32(-1);
    writer.into_encoded().bytes.freeze()
}

impl Run {
    pub(crate) fn event(&mut self, event: &str) {
        let (verb, rest) = event.split_once(' ').unwrap_or((event, ""));
        let words = Words::of(rest);
        match verb {
            "settings" => self.configure(&words),
            "join" => self.join(&words),
            "sync" => self.sync(&words),
            "heartbeat" => self.heartbeat(&words),
            "leave" => self.leave(&words),
            "commit" => self.commit(&words),
            "fetch" => self.fetch(&words),
            "describe" => self.describe(&words),
            "rebalances" => self.rebalances(),
            "list" => self.list(&words),
            "delete" => self.delete(&words),
            "forget" => self.forget(&words),
            "topic-deleted" => {
                let effects = self.coordinator.topic_deleted(words.plain[0], words.topic_id(), self.now());
                self.effects(effects);
            }
            "abandon" => {
                let effects = self.coordinator.abandon(words.call(), self.now());
                self.effects(effects);
            }
            "wait" => self.wait(words.plain[0].parse().expect("milliseconds")),
            "reload" => self.reload(),
            "counts" => self.counts(),
            "bytes" => self.say(&format!("{} bytes", self.coordinator.member_bytes())),
            _ => panic!("no event {verb:?}"),
        }
    }

    fn configure(&mut self, words: &Words<'_>) {
        let size = |name, default| words.option(name).map_or(default, |value| value.parse().expect("a size"));
        let settings = &mut self.settings;
        settings.group_size_max = size("size", settings.group_size_max);
        settings.member_metadata_bytes_max = size("metadata", settings.member_metadata_bytes_max);
        settings.record_bytes_max = size("record", settings.record_bytes_max);
        settings.offsets_retention_ms = words
            .number("retention")
            .map_or(settings.offsets_retention_ms, |ms| ms.try_into().expect("not negative"));
        settings.initial_rebalance_delay_ms =
            words.option("delay").map_or(3_000, |value| value.parse().expect("milliseconds"));
        if self.log.is_empty() {
            self.coordinator = Coordinator::new(self.settings.clone());
            let effects = self.coordinator.loaded(self.now());
            self.effects(effects);
        }
    }

    fn join(&mut self, words: &Words<'_>) {
        let version = words.int("v", 9);
        self.joins += 1;
        let mut unique = [0; 16];
        unique[15] = self.joins;
        let metadata = words.option("raw").map_or_else(
            || subscription(&words.list("topics", "t")),
            |raw| Bytes::copy_from_slice(raw.as_bytes()),
        );
        let protocol = |name: &&str| Protocol { name: Str::from(*name), metadata: metadata.clone() };
        let request = JoinRequest {
            group: words.group(),
            member_id: words.member(),
            instance_id: words.instance(),
            protocol_type: words.text("type", "consumer"),
            protocols: words.list("protocols", "range").iter().map(protocol).collect(),
            session_timeout_ms: words.int("session", 10_000),
            rebalance_timeout_ms: (version > 0).then(|| words.int("rebalance", 60_000)),
            require_known_member_id: version >= 4,
            supports_skip_assignment: version >= 9,
            client: Client { id: words.text("client", "c"), host: Str::from_static("/10.0.0.1") },
            unique,
            may_create: words.may_create(),
            room_bytes: words.room_bytes(),
        };
        let effects = self.coordinator.join(words.call(), request, self.now());
        self.effects(effects);
    }

    fn sync(&mut self, words: &Words<'_>) {
        let assignment = |word: &&str| {
            let (member, reads) = word.split_once('=').expect("member=reads");
            SyncAssignment { member_id: long(member), assignment: Bytes::copy_from_slice(reads.as_bytes()) }
        };
        let request = SyncRequest {
            group: words.group(),
            generation: words.generation(),
            member_id: words.member(),
            instance_id: words.instance(),
            protocol_type: words.option("type").map(Str::from),
            protocol: words.option("protocol").map(Str::from),
            assignments: words.plain[1..].iter().map(assignment).collect(),
            room_bytes: words.room_bytes(),
        };
        let effects = self.coordinator.sync(words.call(), request, self.now());
        self.effects(effects);
    }

    fn heartbeat(&mut self, words: &Words<'_>) {
        let request = HeartbeatRequest {
            group: words.group(),
            generation: words.generation(),
            member_id: words.member(),
            instance_id: words.instance(),
        };
        let answer = self.coordinator.heartbeat(&request, self.now());
        self.say(&answer.map_or_else(|error| format!("{error:?}"), |()| "alive".to_owned()));
    }

    fn leave(&mut self, words: &Words<'_>) {
        let leaving = |word: &&str| {
            let (member, instance) =
                word.split_once('/').map_or((*word, None), |(id, name)| (id, Some(name)));
            Leaving { member_id: long(member), instance_id: instance.map(Str::from) }
        };
        let members = words.plain.iter().map(leaving).collect();
        let request = LeaveRequest { group: words.group(), members };
        let answered = self.coordinator.leave(request, self.now());
        match answered.answer {
            Ok(all) => {
                for left in all {
                    let outcome =
                        left.outcome.map_or_else(|error| format!("{error:?}"), |()| "left".to_owned());
                    let name = left.instance_id.map(|name| format!("/{name}")).unwrap_or_default();
                    self.say(&format!("{}{name}: {outcome}", left.member_id));
                }
            }
            Err(error) => self.say(&format!("{error:?}")),
        }
        self.effects(answered.effects);
    }

    fn commit(&mut self, words: &Words<'_>) {
        let offset = |word: &&str| {
            let (topic, partition, value) = partition(word);
            let (offset, epoch) = value.split_once('@').map_or((value, None), |(o, e)| (o, Some(e)));
            CommitOffset {
                topic,
                topic_id: words.topic_id(),
                partition,
                offset: offset.parse().expect("an offset"),
                leader_epoch: epoch.and_then(|epoch| LeaderEpoch::new(epoch.parse().expect("an epoch"))),
                metadata: words.text("metadata", ""),
            }
        };
        let request = CommitRequest {
            group: words.group(),
            generation: words.generation(),
            member_id: words.member(),
            instance_id: words.instance(),
            retention_ms: words.number("retention").map(|ms| ms.try_into().expect("not negative")),
            offsets: words.plain.iter().map(offset).collect(),
            knows_group_id_not_found: words.int("v", 8) >= 9,
            may_create: words.may_create(),
        };
        let answered = self.coordinator.commit(request, self.now());
        self.outcomes(answered.answer, "committed");
        self.effects(answered.effects);
    }

    /// What became of each part of a request; one word if all went well.
    fn outcomes(
        &mut self,
        answer: Result<Vec<Result<(), highwater_group::GroupError>>, highwater_group::GroupError>,
        well: &str,
    ) {
        match answer {
            Ok(all) if all.iter().all(Result::is_ok) => self.say(well),
            Ok(all) => {
                for outcome in all {
                    self.say(&outcome.map_or_else(|error| format!("{error:?}"), |()| well.to_owned()));
                }
            }
            Err(error) => self.say(&format!("{error:?}")),
        }
    }

    fn fetch(&mut self, words: &Words<'_>) {
        let group = words.group();
        if words.plain.is_empty() {
            let id = words.topic_id();
            let is_current = |_: &str, of: Option<TopicId>| of.is_none() || id.is_none() || of == id;
            for FetchedOffset { topic, partition, committed } in
                self.coordinator.fetch_all_offsets(&group, is_current)
            {
                self.say(&format!("{topic}-{partition}={}", committed.offset));
            }
            return;
        }
        let wanted = |word: &&str| {
            let (topic, partition, _) = partition(word);
            WantedOffset { topic, topic_id: words.topic_id(), partition }
        };
        let wanted: Vec<WantedOffset> = words.plain.iter().map(wanted).collect();
        for (wanted, found) in wanted.iter().zip(self.coordinator.fetch_offsets(&group, &wanted)) {
            let found = found.map_or_else(
                || " absent".to_owned(),
                |found| {
                    format!(
                        "={} epoch {:?} {:?}",
                        found.offset,
                        found.leader_epoch.map(LeaderEpoch::get),
                        found.metadata
                    )
                },
            );
            self.say(&format!("{}-{}{found}", wanted.topic, wanted.partition));
        }
    }

    fn describe(&mut self, words: &Words<'_>) {
        let Some(found) = self.coordinator.describe(&words.group()) else {
            return self.say("no such group");
        };
        self.say(&format!("{} {}/{}", found.state.name(), found.protocol_type, found.protocol));
        for member in found.members {
            let name = member.instance_id.map(|name| format!(" as {name}")).unwrap_or_default();
            let reads = String::from_utf8_lossy(&member.assignment).into_owned();
            self.say(&format!(
                "{}{name} ({} at {}) wants {:?} reads {reads:?}",
                member.member_id,
                member.client_id,
                member.client_host,
                topics_text(&member.metadata)
            ));
        }
    }

    /// How many rebalances began, by reason.
    fn rebalances(&mut self) {
        let counts = self.coordinator.counts().rebalances;
        for (reason, count) in Reason::ALL.iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.say(&format!("{count} {}", reason.name()));
        }
    }

    fn list(&mut self, words: &Words<'_>) {
        let names = |name| words.list(name, "").into_iter().map(Str::from).collect();
        let filter = ListFilter { states: names("states"), types: names("types") };
        for listed in self.coordinator.list(&filter) {
            self.say(&format!("{} {:?} {}", listed.group, listed.protocol_type, listed.state.name()));
        }
    }

    fn delete(&mut self, words: &Words<'_>) {
        let groups: Vec<Str> = words.plain.iter().map(|name| Str::from(*name)).collect();
        let answered = self.coordinator.delete_groups(&groups, self.now());
        self.outcomes(Ok(answered.answer), "deleted");
        self.effects(answered.effects);
    }

    fn forget(&mut self, words: &Words<'_>) {
        let which = |word: &&str| {
            let (topic, partition, _) = partition(word);
            TopicPartitionRef { topic, partition }
        };
        let partitions: Vec<TopicPartitionRef> = words.plain.iter().map(which).collect();
        let answered = self.coordinator.delete_offsets(&words.group(), &partitions, self.now());
        self.outcomes(answered.answer, "deleted");
        self.effects(answered.effects);
    }

    fn counts(&mut self) {
        let counts = self.coordinator.counts();
        self.say(&format!(
            "groups: {} empty, {} preparing, {} completing, {} stable",
            counts.empty, counts.preparing_rebalance, counts.completing_rebalance, counts.stable
        ));
        self.say(&format!(
            "{} members, {} calls wait, {} offsets, {} rebalances, {} sessions and {} offsets expired",
            counts.members,
            counts.parked,
            counts.offsets,
            counts.rebalances.iter().sum::<u64>(),
            counts.sessions_expired,
            counts.offsets_expired
        ));
    }
}
