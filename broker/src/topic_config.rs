//! Topic configurations: the keys that take effect, their defaults, and a sentence for each that does not.
//!
//! A key is accepted only if setting it changes what the broker does, or if the value says what the broker does
//! anyway. Everything else is refused, so that nobody relies on a setting that is silently ignored.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_record::{TimestampType, TopicId};
use highwater_storage::LogConfig;

use crate::config::{Config, Durability};

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
}

/// Kafka's default of `max.message.bytes`.
const MESSAGE_BYTES_MAX: u32 = 1_048_588;
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
        }
    }
}

impl TopicConfig {
    /// Checks every entry. The error is a sentence for the client.
    pub(crate) fn parse(entries: &BTreeMap<String, String>, broker: &Config) -> Result<Self, String> {
        let mut config = Self::default();
        for (key, value) in entries {
            config.set(key, value, broker)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str, broker: &Config) -> Result<(), String> {
        match key {
            "durability" => self.durability = Some(value.parse().map_err(|e| format!("{e}"))?),
            "flush.ms" => self.flush_ms = never_if_max(number(key, value, 0, i64::MAX as u64)?),
            "flush.messages" => self.flush_messages = never_if_max(number(key, value, 1, i64::MAX as u64)?),
            "segment.bytes" => self.segment_bytes = number_u32(key, value, 1 << 20, i32::MAX as u32)?,
            "segment.ms" => self.segment_ms = number(key, value, 1, i64::MAX as u64)?,
            "index.interval.bytes" => self.index_interval_bytes = number_u32(key, value, 0, i32::MAX as u32)?,
            "segment.index.bytes" => self.index_bytes_max = number_u32(key, value, 4, i32::MAX as u32)?,
            "max.message.bytes" => self.message_bytes_max = number_u32(key, value, 61, i32::MAX as u32)?,
            "message.timestamp.type" => {
                self.timestamp_type = match value {
                    "CreateTime" => TimestampType::CreateTime,
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => return Err(format!("{key} is {value:?}; it must be CreateTime or LogAppendTime")),
                }
            }
            "min.insync.replicas" => replicas(key, number(key, value, 1, i32::MAX as u64)?, broker)?,
            _ => says_what_is_so(key, value)?,
        }
        Ok(())
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

    /// The part that storage needs.
    pub(crate) fn log_config(&self, broker: Durability, topic: TopicId) -> LogConfig {
        LogConfig {
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms,
            index_interval_bytes: self.index_interval_bytes,
            index_bytes_max: self.index_bytes_max,
            timestamp_type: self.timestamp_type,
            writeback: self.durability(broker) != Durability::Os,
            producer_expiry_ms: PRODUCER_EXPIRY_MS,
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

/// Kafka's default for the flush settings is the largest number, which means never.
fn never_if_max(value: u64) -> Option<u64> {
    (value < i64::MAX as u64).then_some(value)
}

fn replicas(key: &str, wanted: u64, broker: &Config) -> Result<(), String> {
    if wanted == 1 {
        return Ok(());
    }
    if !broker.accept_replication_as_one {
        return Err(format!("{key} is {wanted}, this broker keeps 1 replica of each partition"));
    }
    tracing::warn!(key, wanted, "one broker keeps one replica: the setting is accepted and counts as 1");
    Ok(())
}

/// Keys that change nothing are accepted only with the value that already holds.
fn says_what_is_so(key: &str, value: &str) -> Result<(), String> {
    let (so, why) = match key {
        "cleanup.policy" => ("delete", "compaction is not built yet"),
        "retention.ms" | "retention.bytes" => {
            ("-1", "retention is not built yet: nothing is deleted by age or size")
        }
        "compression.type" => ("producer", "batches are stored as they arrive"),
        "preallocate" => ("false", "segments are always allocated ahead, without growing their size"),
        "remote.storage.enable" => ("false", "there is no tiered storage"),
        "unclean.leader.election.enable" => ("false", "one broker holds no elections"),
        _ => {
            let known = [
                "durability",
                "flush.messages",
                "flush.ms",
                "index.interval.bytes",
                "max.message.bytes",
                "message.timestamp.type",
                "min.insync.replicas",
                "segment.bytes",
                "segment.index.bytes",
                "segment.ms",
            ];
            return Err(format!(
                "topic config {key:?} is not known; the ones that take effect are {}",
                known.join(", ")
            ));
        }
    };
    if value == so {
        return Ok(());
    }
    Err(format!("{key} is {value:?}, only {so:?} is accepted: {why}"))
}

fn number(key: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    let parsed = value.trim().parse::<u64>().ok().filter(|n| (min..=max).contains(n));
    parsed.ok_or_else(|| format!("{key} is {value:?}; it must be a number from {min} to {max}"))
}

fn number_u32(key: &str, value: &str, min: u32, max: u32) -> Result<u32, String> {
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
        assert!(parse(&[("cleanup.policy", "delete")]).is_ok());
        let refused = parse(&[("cleanup.policy", "compact")]).unwrap_err();

        assert_eq!(
            refused,
            "cleanup.policy is \"compact\", only \"delete\" is accepted: compaction is not built yet"
        );
        assert!(parse(&[("retention.mss", "1")]).unwrap_err().contains("is not known"));
    }

    #[test]
    fn numbers_are_checked_against_both_bounds() {
        for (key, value) in [("segment.bytes", "10"), ("segment.bytes", "4294967296"), ("segment.ms", "x")] {
            let sentence = parse(&[(key, value)]).unwrap_err();
            assert!(sentence.starts_with(&format!("{key} is {value:?}")), "{sentence}");
        }
    }
}
