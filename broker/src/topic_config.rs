//! Topic configurations: what the settings of a topic come to, and a sentence for each that is refused. The settings
//! themselves are a table in `config_keys.rs`.
//!
//! A key is accepted only if setting it changes what the broker does, or if the value says what the broker does
//! anyway. Everything else is refused, so that nobody relies on a setting that is silently ignored; the number of
//! replicas is accepted unless the broker is told to be strict, and the log says that it is. Values are judged when they
//! are set: what was accepted once keeps no broker from starting.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_record::{TimestampType, TopicId, TopicName};
use highwater_storage::{CompactionConfig, LogConfig, Ratio, Retention};

use crate::config::{Config, Durability};
use crate::config_keys::{Rule, TOPIC_KEYS, TopicKey, topic_key};

/// The settings of one topic, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TopicConfig {
    /// What an acknowledgement waits for; `None` means the broker's default.
    pub(crate) durability: Option<Durability>,
    /// Kafka's `flush.ms`: strengthens the durability, never weakens it.
    pub(crate) flush_ms: Option<u64>,
    /// Kafka's `flush.messages`; 1 means every append.
    pub(crate) flush_messages: Option<u64>,
    pub(crate) segment_bytes: u32,
    pub(crate) segment_ms: u64,
    pub(crate) index_interval_bytes: u32,
    pub(crate) index_bytes_max: u32,
    pub(crate) message_bytes_max: u32,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) cleanup: Cleanup,
    /// What is kept if its cleanup deletes.
    pub(crate) retention: Retention,
    /// How the topic is compacted if its cleanup says so.
    pub(crate) compaction: CompactionConfig,
}

/// How old records go (`cleanup.policy`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cleanup {
    /// By age and size.
    Delete,
    /// The latest record of each key stays.
    Compact,
    /// Both.
    CompactAndDelete,
}

impl Cleanup {
    /// Reads Kafka's list, in any order.
    pub(crate) fn parse(key: &str, value: &str) -> Result<Self, String> {
        let (mut compact, mut delete) = (false, false);
        for policy in value.split(',') {
            match policy.trim() {
                "compact" => compact = true,
                "delete" => delete = true,
                _ => return Err(format!("{key} is {value:?}; it must be delete, compact or compact,delete")),
            }
        }
        Ok(match (compact, delete) {
            (true, true) => Self::CompactAndDelete,
            (true, false) => Self::Compact,
            (false, _) => Self::Delete,
        })
    }

    /// Kafka's list.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactAndDelete => "compact,delete",
        }
    }
}

/// Kafka's default of `max.message.bytes`.
const MESSAGE_BYTES_MAX: u32 = 1_048_588;
const CREATE_TIME: &str = "CreateTime";
const LOG_APPEND_TIME: &str = "LogAppendTime";
/// A producer that was silent for this long is forgotten (`producer.id.expiration.ms`).
const PRODUCER_EXPIRY_MS: u64 = 24 * 60 * 60 * 1000;

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            durability: None,
            flush_ms: None,
            flush_messages: None,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            index_interval_bytes: 4096,
            index_bytes_max: 10 << 20,
            message_bytes_max: MESSAGE_BYTES_MAX,
            timestamp_type: TimestampType::CreateTime,
            cleanup: Cleanup::Delete,
            retention: Retention { age_ms: Some(7 * 24 * 60 * 60 * 1000), bytes: None },
            compaction: CompactionConfig {
                min_lag_ms: 0,
                max_lag_ms: i64::MAX as u64,
                dirty_ratio_min: Ratio::HALF,
                delete_retention_ms: 24 * 60 * 60 * 1000,
            },
        }
    }
}

impl TopicConfig {
    /// Checks the settings of a new topic. The error is a sentence for the client.
    pub(crate) fn parse(entries: &BTreeMap<String, String>, broker: &Config) -> Result<Self, String> {
        Self::change(entries, &BTreeMap::new(), broker)
    }

    /// Checks the settings of a topic that had others. What it had already is not judged again. The error is a
    /// sentence for the client.
    pub(crate) fn change(
        entries: &BTreeMap<String, String>,
        before: &BTreeMap<String, String>,
        broker: &Config,
    ) -> Result<Self, String> {
        let mut config = Self::default();
        for (key, value) in entries {
            let fits = config.set(key, value, broker);
            if before.get(key) != Some(value) {
                fits?;
            }
        }
        Ok(config)
    }

    /// The settings of a topic that was stored, and a sentence about each that does not fit this broker: it has its
    /// default.
    pub(crate) fn stored(entries: &BTreeMap<String, String>, broker: &Config) -> (Self, Vec<String>) {
        let mut config = Self::default();
        let unfit = entries.iter().filter_map(|(key, value)| config.set(key, value, broker).err()).collect();
        (config, unfit)
    }

    /// Checks one entry and takes it.
    pub(crate) fn set(&mut self, key: &str, value: &str, broker: &Config) -> Result<(), String> {
        let known = topic_key(key).ok_or_else(|| unknown(key))?;
        match known.rule {
            Rule::Takes { set, .. } => set(self, key, value, broker),
            Rule::Accepts { check, .. } => check(key, value, broker),
            Rule::Says { so, .. } if value == so => Ok(()),
            Rule::Says { so, why } => Err(format!("{key} is {value:?}, only {so:?} is accepted: {why}")),
        }
    }

    pub(crate) fn set_timestamp_type(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.timestamp_type = match value {
            CREATE_TIME => TimestampType::CreateTime,
            LOG_APPEND_TIME => TimestampType::LogAppendTime,
            _ => return Err(format!("{key} is {value:?}; it must be {CREATE_TIME} or {LOG_APPEND_TIME}")),
        };
        Ok(())
    }

    pub(crate) const fn timestamp_type_name(&self) -> &'static str {
        match self.timestamp_type {
            TimestampType::CreateTime => CREATE_TIME,
            TimestampType::LogAppendTime => LOG_APPEND_TIME,
        }
    }

    /// What an acknowledgement on this topic waits for.
    pub(crate) fn durability(&self, broker: Durability) -> Durability {
        let base = self.durability.unwrap_or(broker);
        let flush = match (self.flush_messages, self.flush_ms) {
            (Some(_), _) | (_, Some(0)) => Durability::Fsync,
            (None, Some(ms)) => Durability::Interval(Duration::from_millis(ms)),
            (None, None) => Durability::Os,
        };
        stronger(base, flush)
    }

    /// What is kept of the topic's logs.
    pub(crate) fn retention(&self) -> Retention {
        if self.cleanup == Cleanup::Compact { Retention::default() } else { self.retention }
    }

    /// The part that storage needs.
    pub(crate) fn log_config(&self, broker: Durability, topic: TopicId) -> LogConfig {
        let compaction = (self.cleanup != Cleanup::Delete).then_some(self.compaction);
        // A record in the active segment is not compacted, so that segment must not be older than records may get.
        let max_lag_ms = compaction.map_or(u64::MAX, |compaction| compaction.max_lag_ms);
        LogConfig {
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms.min(max_lag_ms),
            index_interval_bytes: self.index_interval_bytes,
            index_bytes_max: self.index_bytes_max,
            timestamp_type: self.timestamp_type,
            writeback: self.durability(broker) != Durability::Os,
            producer_expiry_ms: PRODUCER_EXPIRY_MS,
            compaction,
            topic_id: Some(topic),
        }
    }
}

fn stronger(a: Durability, b: Durability) -> Durability {
    match (a, b) {
        (Durability::Fsync, _) | (_, Durability::Fsync) => Durability::Fsync,
        (Durability::Interval(x), Durability::Interval(y)) => Durability::Interval(x.min(y)),
        (Durability::Interval(x), Durability::Os) | (Durability::Os, Durability::Interval(x)) => {
            Durability::Interval(x)
        }
        (Durability::Os, Durability::Os) => Durability::Os,
    }
}

/// Sees to it that as many replicas are kept as are wanted.
pub(crate) fn replicas(key: &str, wanted: u64, broker: &Config) -> Result<(), String> {
    if wanted == 1 || broker.accept_replication_as_one {
        return Ok(());
    }
    Err(format!("{key} is {wanted}, this broker keeps 1 replica of each partition"))
}

/// Says which of a topic's settings were accepted just now although another value holds.
pub(crate) fn note_accepted(
    topic: &TopicName,
    entries: &BTreeMap<String, String>,
    before: &BTreeMap<String, String>,
) {
    for (key, value) in entries.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
        if let Some(TopicKey { rule: Rule::Accepts { so, .. }, .. }) = topic_key(key)
            && value.trim() != *so
        {
            tracing::warn!(%topic, key, value, holds = so, "a setting is accepted, and another value holds");
        }
    }
}

/// What the broker remembers in its own topics is durable before anyone is told, unless it leaves everything to the
/// system. `None` for topics of others.
pub(crate) fn forced_durability(topic: &TopicName, broker: Durability) -> Option<Durability> {
    (topic.is_internal() && broker != Durability::Os).then_some(Durability::Fsync)
}

fn unknown(key: &str) -> String {
    let known: Vec<_> = TOPIC_KEYS.iter().filter(|key| key.takes_effect()).map(|key| key.name).collect();
    format!("topic config {key:?} is not known; the ones that take effect are {}", known.join(", "))
}

/// A number in its bounds, both included.
pub(crate) fn number(key: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    let parsed = value.trim().parse::<u64>().ok().filter(|n| (min..=max).contains(n));
    parsed.ok_or_else(|| format!("{key} is {value:?}; it must be a number from {min} to {max}"))
}

/// The same for a number of 32 bits.
pub(crate) fn number_u32(key: &str, value: &str, min: u32, max: u32) -> Result<u32, String> {
    let wide = number(key, value, min.into(), max.into())?;
    u32::try_from(wide).map_err(|_| format!("{key} is {value:?}; it must be a number from {min} to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[(&str, &str)]) -> Result<TopicConfig, String> {
        let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        TopicConfig::parse(&entries, &Config::new("data".into()))
    }

    #[test]
    fn flush_settings_strengthen_durability_and_never_weaken_it() {
        let os = parse(&[("durability", "os")]).unwrap();
        let os_flushed = parse(&[("durability", "os"), ("flush.ms", "500")]).unwrap();
        let os_each = parse(&[("durability", "os"), ("flush.messages", "1")]).unwrap();
        let fsync_flushed = parse(&[("flush.ms", "500")]).unwrap();

        assert_eq!(os.durability(Durability::Fsync), Durability::Os);
        assert_eq!(
            os_flushed.durability(Durability::Fsync),
            Durability::Interval(Duration::from_millis(500))
        );
        assert_eq!(os_each.durability(Durability::Os), Durability::Fsync);
        assert_eq!(fsync_flushed.durability(Durability::Fsync), Durability::Fsync);
    }

    #[test]
    fn a_setting_that_would_change_nothing_is_refused_with_its_reason() {
        assert!(parse(&[("compression.type", "producer")]).is_ok());
        let refused = parse(&[("compression.type", "zstd")]).unwrap_err();

        assert_eq!(
            refused,
            "compression.type is \"zstd\", only \"producer\" is accepted: batches are stored as they arrive"
        );
        assert!(parse(&[("retention.mss", "1")]).unwrap_err().contains("is not known"));
    }

    #[test]
    fn a_topic_is_compacted_if_its_policy_says_so_and_by_its_settings() {
        let log = |entries: &[_]| {
            let id = TopicId::new([1; 16]).unwrap();
            parse(entries).map(|config| config.log_config(Durability::Fsync, id))
        };
        let lag = ("max.compaction.lag.ms", "1000");

        assert_eq!(log(&[lag]).unwrap().compaction, None);
        assert_eq!(log(&[lag]).unwrap().segment_ms, 604_800_000);
        for policy in ["compact", "compact,delete", "delete, compact"] {
            let log = log(&[("cleanup.policy", policy), lag, ("min.cleanable.dirty.ratio", "0.1")]).unwrap();
            let compaction = log.compaction.unwrap();
            assert_eq!(compaction.max_lag_ms, 1000);
            assert_eq!(Some(compaction.dirty_ratio_min), Ratio::new(0.1));
            assert_eq!(log.segment_ms, 1000, "what is too old for the active segment leaves it");
        }
        for (key, value, sentence) in [
            ("cleanup.policy", "", "it must be delete, compact or compact,delete"),
            ("cleanup.policy", "compress", "it must be delete, compact or compact,delete"),
            ("min.cleanable.dirty.ratio", "1.5", "it must be a number from 0 to 1"),
            ("delete.retention.ms", "-1", "it must be a number from 0 to"),
            ("max.compaction.lag.ms", "0", "it must be a number from 1 to"),
            ("retention.ms", "-2", ", or -1 for no limit"),
            ("retention.bytes", "much", ", or -1 for no limit"),
        ] {
            let refused = log(&[(key, value)]).unwrap_err();
            assert!(refused.contains(sentence), "{refused}");
        }
    }

    #[test]
    fn what_was_stored_is_not_judged_again() {
        let entries = |entries: &[(&str, &str)]| {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let strict = Config { accept_replication_as_one: false, ..Config::new("data".into()) };
        let before = entries(&[("min.insync.replicas", "2"), ("segment.ms", "5")]);

        let (config, unfit) = TopicConfig::stored(&before, &strict);

        assert_eq!(config.segment_ms, 5);
        assert_eq!(unfit, ["min.insync.replicas is 2, this broker keeps 1 replica of each partition"]);
        let change = |after: &[(&str, &str)]| TopicConfig::change(&entries(after), &before, &strict);
        assert_eq!(change(&[("min.insync.replicas", "2"), ("segment.ms", "6")]).unwrap().segment_ms, 6);
        assert_eq!(change(&[("min.insync.replicas", "3")]).unwrap_err().lines().count(), 1);
        assert!(TopicConfig::parse(&before, &strict).is_err());
    }

    #[test]
    fn a_setting_that_does_nothing_is_not_among_those_that_take_effect() {
        let sentence = parse(&[("retention.mss", "1")]).unwrap_err();

        assert!(sentence.contains("segment.ms"), "{sentence}");
        assert!(!sentence.contains("min.insync.replicas"), "{sentence}");
        assert!(parse(&[("min.insync.replicas", "2")]).is_ok());
    }

    #[test]
    fn numbers_are_checked_against_both_bounds() {
        for (key, value) in [("segment.bytes", "10"), ("segment.bytes", "4294967296"), ("segment.ms", "x")] {
            let sentence = parse(&[(key, value)]).unwrap_err();
            assert!(sentence.starts_with(&format!("{key} is {value:?}")), "{sentence}");
        }
    }
}
