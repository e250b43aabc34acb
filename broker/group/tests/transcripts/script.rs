//! Runs a script: a coordinator, a clock that only the script moves, and the log of what was appended.
//!
//! Ids that the machine makes are written `c#1`: the client or instance id, and the number of the join. All
//! members are clients `c` of the group `g` unless an event says otherwise.

use std::fmt::Write;

use bytes::Bytes;
use highwater_group::records::{Decoded, GroupMetadataValue, OffsetCommitValue, decode};
use highwater_group::{
    Coordinator, Effects, JoinReply, Joined, JoinedMember, Now, Record, Reply, Settings, Synced,
};
use highwater_record::TimestampMs;
use highwater_wire::{Reader, Shape, Str, Wire};

/// What stands between the readable part of an id and its number.
const ID_MIDDLE: &str = "-00000000-0000-0000-0000-0000000000";

pub(crate) struct Run {
    pub(crate) coordinator: Coordinator,
    pub(crate) settings: Settings,
    pub(crate) now_ms: u64,
    pub(crate) joins: u8,
    pub(crate) log: Vec<Record>,
    out: String,
}

/// Runs the events of a transcript; what stands in it as their effect is ignored.
pub(crate) fn run(transcript: &str) -> String {
    let settings = Settings::default();
    let coordinator = Coordinator::new(settings.clone());
    let mut run = Run { coordinator, settings, now_ms: 0, joins: 0, log: Vec::new(), out: String::new() };
    let effects = run.coordinator.loaded(run.now());
    run.effects(effects);
    for line in transcript.lines().filter(|line| !line.starts_with("  ")) {
        run.out.push_str(line);
        run.out.push('\n');
        if let Some(event) = line.strip_prefix("> ") {
            run.event(event);
        }
    }
    run.out
}

impl Run {
    pub(crate) fn now(&self) -> Now {
        let wall = TimestampMs(i64::try_from(self.now_ms).expect("a script does not last that long"));
        Now { wall, monotonic_ms: self.now_ms }
    }

    /// One line of the transcript.
    pub(crate) fn say(&mut self, text: &str) {
        writeln!(self.out, "  {}", short(text)).expect("a String takes everything");
    }

    /// Lets time pass, with everything that is due in it.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(deadline_ms) = self.coordinator.next_deadline().filter(|at_ms| *at_ms <= until_ms) {
            self.now_ms = self.now_ms.max(deadline_ms);
            let effects = self.coordinator.expire(self.now());
            if effects != Effects::default() {
                self.say(&format!("at {} ms", self.now_ms));
            }
            self.effects(effects);
        }
        self.now_ms = until_ms;
    }

    /// The broker starts again: a new machine learns from the log.
    pub(crate) fn reload(&mut self) {
        self.coordinator = Coordinator::new(self.settings.clone());
        for record in &self.log {
            self.coordinator.replay(record.key.clone(), record.value.clone()).expect("its own record");
        }
        let effects = self.coordinator.loaded(self.now());
        self.effects(effects);
    }

    pub(crate) fn effects(&mut self, effects: Effects) {
        for record in effects.records {
            self.say(&record_text(&record));
            self.log.push(record);
        }
        for (call, reply) in effects.replies {
            self.say(&format!("{} <- {}", call.0, reply_text(&reply)));
        }
    }
}

/// Puts ids into the form of the transcripts.
pub(crate) fn short(text: &str) -> String {
    let mut parts = text.split(ID_MIDDLE);
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_at(2);
        let number = u8::from_str_radix(number, 16).expect("the number of a join");
        write!(short, "#{number}{rest}").expect("a String takes everything");
    }
    short
}

/// The id that a transcript means.
pub(crate) fn long(id: &str) -> Str {
    match id.split_once('#') {
        Some((name, number)) => {
            let number: u8 = number.parse().expect("the number of a join");
            Str::from(format!("{name}{ID_MIDDLE}{number:02x}"))
        }
        None => Str::from(id),
    }
}

fn record_text(record: &Record) -> String {
    match decode(record.key.clone(), record.value.clone()).expect("its own record") {
        Decoded::Offset { key, value } => {
            let value = value.map_or_else(|| " is dropped".to_owned(), |value| offset_text(&value));
            format!("log: offset {} {}-{}{value}", key.group, key.topic, key.partition)
        }
        Decoded::Group { key, value } => {
            let value = value.map_or_else(|| "is dropped".to_owned(), |value| group_text(&value));
            format!("log: group {} {value}", key.group)
        }
        Decoded::Unknown { kind, .. } => format!("log: type {kind}"),
    }
}

fn offset_text(value: &OffsetCommitValue) -> String {
    let mut text = format!("={}", value.offset);
    if value.leader_epoch != -1 {
        write!(text, " epoch {}", value.leader_epoch).expect("a String takes everything");
    }
    if !value.metadata.is_empty() {
        write!(text, " {:?}", value.metadata.as_str()).expect("a String takes everything");
    }
    if !value.topic_id.is_zero() {
        write!(text, " id {}", value.topic_id.as_bytes()[0]).expect("a String takes everything");
    }
    if value.expire_timestamp != -1 {
        write!(text, " until {} ms", value.expire_timestamp).expect("a String takes everything");
    }
    text
}

fn group_text(value: &GroupMetadataValue) -> String {
    let or_none = |text: &Option<Str>| text.clone().unwrap_or(Str::from_static("-"));
    let mut text = format!(
        "generation {} {}/{} leader {} since {} ms",
        value.generation,
        value.protocol_type,
        or_none(&value.protocol),
        or_none(&value.leader),
        value.current_state_timestamp
    );
    for member in &value.members {
        write!(text, ", {}", member.member_id).expect("a String takes everything");
        if let Some(instance_id) = &member.group_instance_id {
            write!(text, " as {instance_id}").expect("a String takes everything");
        }
        write!(text, " reads {:?}", String::from_utf8_lossy(&member.assignment))
            .expect("a String takes everything");
    }
    text
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Join(JoinReply { member_id, outcome: Ok(joined) }) => joined_text(member_id, joined),
        Reply::Join(JoinReply { member_id, outcome: Err(error) }) if member_id.is_empty() => {
            format!("{error:?}")
        }
        Reply::Join(JoinReply { member_id, outcome: Err(error) }) => format!("{error:?} {member_id}"),
        Reply::Sync(Ok(Synced { assignment, .. })) => {
            format!("reads {:?}", String::from_utf8_lossy(assignment))
        }
        Reply::Sync(Err(error)) => format!("{error:?}"),
    }
}

fn joined_text(member_id: &Str, joined: &Joined) -> String {
    let protocol = joined.protocol.clone().unwrap_or(Str::from_static("-"));
    let (generation, leader) = (joined.generation.get(), &joined.leader);
    let mut text = format!("{member_id} in generation {generation} by {protocol}, leader {leader}");
    if joined.skip_assignment {
        text.push_str(", nothing to assign");
    }
    let member = |member: &JoinedMember| format!("{}({})", member.member_id, topics_text(&member.metadata));
    let members: Vec<String> = joined.members.iter().map(member).collect();
    if !members.is_empty() {
        write!(text, ", members {}", members.join(" ")).expect("a String takes everything");
    }
    text
}

/// What a member said about itself: the topics, or the bytes if it does not speak the consumers' protocol.
pub(crate) fn topics_text(metadata: &Bytes) -> String {
    let mut reader = Reader::new(metadata.clone());
    let shape = Shape { version: 0, flexible: false, nullable: false };
    match reader.int16().and_then(|_| Vec::<Str>::decode(&mut reader, shape)) {
        Ok(topics) => topics.iter().map(Str::as_str).collect::<Vec<_>>().join(","),
        Err(_) => String::from_utf8_lossy(metadata).into_owned(),
    }
}
